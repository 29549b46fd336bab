"""What slow guards say, as files beside the declarations: the finished bitmap of a grid, and a draft of it on the way.

Both are one line of JSON, which names the pieces and their checksum, and then the pieces as packed bits. They are named
by a key of the guards and of the axes, so that other declarations of the same find them.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mce_notebook.errors import AlreadyExists, CorruptStore

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore

Mask = npt.NDArray[np.bool_]
# Bits by what they are of.
Pieces = Mapping[tuple[int, ...], Mask]

FORMAT = 1


def same_guards(key: str, other: str) -> bool:
    """Whether two keys are of the same guards, over whatever axes: their first halves say so."""
    return len(other) == len(key) and key[: len(key) // 2] == other[: len(key) // 2]


def read_mask(sweep: "SweepStore", key: str) -> Mask | None:
    """Return which points of a grid its guards keep, bool[size]; None while that is not known.

    Raises
    ------
    CorruptStore
        If the file is not what was written.
    """
    found = _read(sweep, sweep.paths.mask(key))
    return None if found is None else found[()]


def write_mask(sweep: "SweepStore", key: str, mask: Mask) -> None:
    """Keep which points the guards keep, durable on return; the draft is of no use then."""
    with contextlib.suppress(AlreadyExists):
        # Whoever was first found the same.
        sweep.folder.create(sweep.paths.mask(key), to_bytes({(): mask}))
    drop_draft(sweep, key)


def drop_draft(sweep: "SweepStore", key: str) -> None:
    """Forget what is known so far."""
    sweep.folder.remove(sweep.paths.mask_draft(key))


def read_draft(sweep: "SweepStore", key: str) -> Pieces:
    """Return what is known so far; nothing where a draft is damaged, because it can be found out again."""
    try:
        return _read(sweep, sweep.paths.mask_draft(key)) or {}
    except CorruptStore:
        return {}


def write_draft(sweep: "SweepStore", key: str, pieces: Pieces) -> None:
    """Keep what is known so far, in place of what was."""
    sweep.folder.replace(sweep.paths.mask_draft(key), to_bytes(pieces))


def to_bytes(pieces: Pieces) -> bytes:
    """Return the content of a file."""
    body = b"".join(np.packbits(bits).tobytes() for bits in pieces.values())
    listed = [[list(name), len(bits)] for name, bits in pieces.items()]
    head = {"format": FORMAT, "pieces": listed, "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(head).encode() + b"\n" + body


def from_bytes(data: bytes) -> Pieces:
    """Return the pieces of a file.

    Raises
    ------
    ValueError
        If it is not what `to_bytes` gave.
    """
    line, _, body = data.partition(b"\n")
    head = json.loads(line)
    if head["format"] != FORMAT or hashlib.sha256(body).hexdigest() != head["sha256"]:
        raise ValueError("its checksum is another")
    found: dict[tuple[int, ...], Mask] = {}
    at = 0
    for name, size in head["pieces"]:
        packed = np.frombuffer(body, np.uint8, (size + 7) // 8, at)
        found[tuple(name)] = np.unpackbits(packed, count=size).astype(np.bool_)
        at += len(packed)
    return found


def _read(sweep: "SweepStore", path: Path) -> Pieces | None:
    try:
        return from_bytes(sweep.folder.read(path))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore(
            f"{path}, which says what the guards keep, cannot be read ({error}). Delete it and run the cell again: "
            "they are evaluated anew."
        ) from None
