"""The coverage sidecar: the log minus its outputs, so that opening a sweep does not read what it computed.

Written after the fdatasync of what it covers, hence never ahead of the log; not synced itself, so it may be behind,
torn or missing. Readers take what is whole and scan the rest of the log. It can be deleted at any time.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.store.folder import write_all
from mce_notebook.store.spans import Spans

_HEADER = struct.Struct("<II")


@dataclass(frozen=True)
class Entry:
    """Bytes `start` to `end` of a segment, and what they cover (see `Frame.cover`)."""

    segment: int
    start: int
    end: int
    cover: dict[str, Any]

    @property
    def index(self) -> np.ndarray | range | Spans:
        """Listed indices of the points."""
        if "ranges" in self.cover:
            return Spans.of(self.cover["ranges"])
        listed = self.cover["index"]
        if listed is not None:
            return np.frombuffer(listed, np.int64)
        return range(self.cover["start"], self.cover["start"] + self.cover["count"])

    @property
    def status(self) -> np.ndarray | None:
        """Status of each point; None when all are done."""
        listed = self.cover["status"]
        return None if listed is None else np.frombuffer(listed, np.uint8)

    def to_bytes(self) -> bytes:
        """Return a header line, index and status, behind their length and checksum."""
        cover = dict(self.cover)
        index, status = cover.pop("index") or b"", cover.pop("status") or b""
        record = {"segment": self.segment, "from": self.start, "to": self.end, "cover": cover}
        record["bytes"] = [len(index), len(status)]
        payload = json.dumps(record, separators=(",", ":")).encode() + b"\n" + index + status
        return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload

    @classmethod
    def from_bytes(cls, payload: bytes) -> "Entry":
        """Read back what follows length and checksum."""
        line, rest = payload.split(b"\n", 1)
        record = json.loads(line)
        size, more = record["bytes"]
        cover = record["cover"]
        cover["index"] = rest[:size] or None
        cover["status"] = rest[size : size + more] or None
        return cls(record["segment"], record["from"], record["to"], cover)


class SidecarWriter:
    """Appends entries; after an error it writes no more, because the log itself is enough."""

    def __init__(self, path: Path):
        self._path = path
        self._descriptor = -1
        self._broken = False

    def add(self, entries: Iterable[Entry]) -> None:
        """Append entries."""
        if self._broken:
            return
        data = b"".join(entry.to_bytes() for entry in entries)
        try:
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
                self._descriptor = os.open(self._path, flags, 0o644)
            write_all(self._descriptor, data)
        except OSError:
            self._broken = True
            self.close()

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def read_sidecar(path: Path) -> list[Entry]:
    """Whole entries of a sidecar, up to the first that is not; empty when there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    return [Entry.from_bytes(payload) for payload in _payloads(data)]


def whole(data: bytes) -> int:
    """Return how many bytes of a sidecar are whole entries."""
    return sum(_HEADER.size + len(payload) for payload in _payloads(data))


def _payloads(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, crc = _HEADER.unpack_from(data, at)
        payload = data[at + _HEADER.size : at + _HEADER.size + size]
        if not size or len(payload) < size or zlib.crc32(payload) != crc:
            break
        yield payload
        at += _HEADER.size + size


def covered(entries: Sequence[Entry]) -> dict[int, int]:
    """Segment -> offset up to which its frames are listed without a gap."""
    ends: dict[int, int] = {}
    for entry in entries:
        if entry.segment not in ends or entry.start == ends[entry.segment]:
            ends[entry.segment] = entry.end
    return ends
