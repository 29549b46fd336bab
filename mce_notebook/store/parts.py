"""One group commit as one object: an object store cannot append, so that each commit is put whole, once.

`log/e000003/parts/<writer>/00000042` is a line of JSON and the bytes it describes: pieces of segments, which readers
put where they belong. Segments that are complete are put as objects of their own, which are the very files that a store
in a folder has, and then the parts they came in are deleted.
"""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mce_notebook.errors import CorruptStore
from mce_notebook.store.folder import Bytes
from mce_notebook.store.layout import SweepLayout

FOLDER = "parts"


@dataclass(frozen=True)
class Piece:
    """Bytes of a segment, from `start`."""

    segment: int
    start: int
    data: Bytes


@dataclass(frozen=True)
class Part:
    """What one commit wrote.

    Parameters
    ----------
    pieces : sequence of Piece
    closed : sequence of (int, int, int)
        Segments that get no more bytes: number, committed length, frames.
    payloads : sequence of str
        Files of large payloads that the pieces refer to, under `big`.
    merged : (int, int)
        Parts with lower numbers than the second are in the segments with lower numbers than the first, each of which is
        an object of its own.
    follows : int
        Number of the part before; those in between were not acknowledged, and may not exist.
    """

    pieces: Sequence[Piece]
    closed: Sequence[tuple[int, int, int]] = ()
    payloads: Sequence[str] = ()
    merged: tuple[int, int] = (0, 0)
    follows: int = -1

    def to_bytes(self) -> bytes:
        """Return the object."""
        data = b"".join(piece.data for piece in self.pieces)
        head = {
            "pieces": [[piece.segment, piece.start, len(piece.data)] for piece in self.pieces],
            "closed": [list(one) for one in self.closed],
            "payloads": list(self.payloads),
            "merged": list(self.merged),
            "follows": self.follows,
            "crc": zlib.crc32(data),
        }
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + data

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Part":
        """Read an object back; CorruptStore, naming it, if it is not what was put."""
        line, _, data = content.partition(b"\n")
        try:
            head = json.loads(line)
            pieces, at = [], 0
            for segment, start, length in head["pieces"]:
                pieces.append(Piece(int(segment), int(start), memoryview(data)[at : at + length]))
                at += length
            if at != len(data) or zlib.crc32(data) != head["crc"]:
                raise ValueError("the checksum differs")
            closed = [(int(number), int(length), int(frames)) for number, length, frames in head["closed"]]
            segments, parts = head["merged"]
            payloads = [str(one) for one in head["payloads"]]
            return cls(pieces, closed, payloads, (int(segments), int(parts)), int(head["follows"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptStore(f"{name} is not what was written ({error}); its outcomes cannot be read.") from error


def key_of(epoch: int, writer: str, number: int) -> str:
    """Return the key of a part below its sweep; keys sort as their numbers do."""
    return f"log/e{epoch:06d}/{FOLDER}/{writer}/{number:08d}"


def closed_marker(length: int, frames: int) -> bytes:
    """Return the file that states the length of a segment that gets no more bytes."""
    return json.dumps({"length": length, "frames": frames}).encode()


def apply(paths: SweepLayout, epoch: int, part: Part) -> None:
    """Put the pieces of a part where they belong.

    Every byte of a segment is written once by its writer, so whoever does this again, at the same time in another
    process included, writes what is there already.
    """
    paths.log_epoch(epoch).mkdir(parents=True, exist_ok=True)
    for piece in part.pieces:
        descriptor = os.open(paths.segment(epoch, piece.segment), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            _write_at(descriptor, piece.data, piece.start)
        finally:
            os.close(descriptor)
    for number, length, frames in part.closed:
        replace(paths.closed(epoch, number), closed_marker(length, frames))


def replace(path: Path, data: Bytes) -> None:
    """Put a file into the mirror, whole; nothing there is synced, because the bucket has it."""
    draft = path.with_name(f".{path.name[:100]}.{os.urandom(8).hex()}")
    try:
        draft.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
    draft.replace(path)


def _write_at(descriptor: int, data: Bytes, start: int) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(descriptor, rest, start)
        rest, start = rest[done:], start + done
