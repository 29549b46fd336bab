"""Large payloads: outputs in files of their own, written before the small record that refers to them.

A payload file is an Arrow IPC stream of one batch, which any Arrow reader opens. A record that was acknowledged implies
a durable payload; a payload no record refers to is garbage of a writer that died, and harmless.
"""

import mmap
import os
import re
import secrets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mce_notebook.errors import CorruptStore
from mce_notebook.store.folder import Bytes, sync_folder, told, write_new

# Frames of more than this are spilled by slots that share the file system.
SPILL = 1 << 20
_NAME_BYTES = 12
_FILE = re.compile(r"[\w-]+/[0-9a-f]+\.arrows")


@dataclass(frozen=True)
class Payload:
    """Where a payload lies: file (`<folder>/<name>` under `big`), offset and length in bytes, crc-32."""

    file: str
    offset: int
    length: int
    crc: int

    def to_json(self) -> list[Any]:
        """Return the fields in order, for JSON."""
        return [self.file, self.offset, self.length, self.crc]

    @classmethod
    def from_json(cls, record: list[Any]) -> "Payload":
        """Read back what `to_json` gave."""
        file, offset, length, crc = record
        return cls(str(file), int(offset), int(length), int(crc))


def write_payload(folder: Path, *pieces: Bytes) -> Payload:
    """Write pieces one behind the other to a new file, durable on return.

    Raises
    ------
    StoreFull, StoreError
        The file is removed again.
    """
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    with told("writing a payload"):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(_NAME_BYTES)}.arrows"
        write_new(path, *pieces)
        sync_folder(folder)
    return Payload(f"{folder.name}/{path.name}", 0, sum(map(len, pieces)), crc)


def is_there(big: Path, payload: Payload) -> bool:
    """Tell whether the file of a payload is long enough, which is all that can be seen without reading it."""
    try:
        return (big / payload.file).stat().st_size >= payload.offset + payload.length
    except OSError:
        return False


def read_payload(big: Path | None, payload: Payload) -> memoryview:
    """Map the bytes of a payload under the folder `big` and verify their checksum.

    Raises
    ------
    CorruptStore
        The file is missing, short or damaged.
    """
    if big is None or not _FILE.fullmatch(payload.file):
        raise CorruptStore(f"The payload {payload.file!r} does not lie in the store.")
    path = big / payload.file
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < payload.offset + payload.length:
                raise CorruptStore(f"{path} is shorter than what was written; its outcomes cannot be read.")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CorruptStore(f"{path} cannot be read ({error}); its outcomes are lost.") from error
    view = memoryview(mapped)[payload.offset : payload.offset + payload.length]
    if zlib.crc32(view) != payload.crc:
        raise CorruptStore(f"{path} is not what was written (its checksum differs); its outcomes cannot be read.")
    return view
