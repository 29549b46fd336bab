"""Arrow IPC messages as bytes: where one ends, whether it is whole, how a batch is packed with its checksum.

A segment of the log is an Arrow IPC stream (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format),
so any Arrow reader opens it. What Arrow lacks is a checksum, and a way to find the end of what is whole without
decoding it. A *frame* here is what one append adds: the dictionaries a batch needs, then the batch. Its crc-32 covers
the schema and every byte of the frame, headers included; it sits in the batch's custom metadata and counts as eight
zeros.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCHEMA, DICTIONARY, BATCH = 1, 2, 3
_CONTINUATION = b"\xff\xff\xff\xff"
_MARK = b"\x1ecrc32="
_ZEROS = b"00000000"
# One writer's frame of more than this is not believed: a flipped bit in a length must not look like a long wait.
_LONGEST = 1 << 40


class Incomplete(Exception):
    """The bytes end before the frame does."""


class Damaged(Exception):
    """The bytes are not a frame that was written here."""


@dataclass(frozen=True)
class Message:
    """One encapsulated message: its type, and the offsets of its header, its body and its end."""

    kind: int
    start: int
    body: int
    end: int


def message_at(data: memoryview, start: int) -> Message:
    """Bounds of the message that starts at byte `start`.

    Raises
    ------
    Incomplete
        Fewer bytes than the message needs.
    Damaged
        What stands there is no message.
    """
    if start + 8 > len(data):
        raise Incomplete
    mark, size = struct.unpack_from("<4si", data, start)
    if mark != _CONTINUATION or size <= 0 or size % 8:
        raise Damaged
    body = start + 8 + size
    if body > len(data):
        raise Incomplete
    kind, length = _header(data[start + 8 : body])
    if kind not in (SCHEMA, DICTIONARY, BATCH) or length % 8 or not 0 <= length < _LONGEST:
        raise Damaged
    if body + length > len(data):
        raise Incomplete
    return Message(kind, start, body, body + length)


def _header(header: memoryview) -> tuple[int, int]:
    # Message.fbs: version, header_type, header, bodyLength, custom_metadata, in that order, each by its vtable slot.
    try:
        table = struct.unpack_from("<I", header, 0)[0]
        vtable = table - struct.unpack_from("<i", header, table)[0]
        if vtable < 0:
            raise Damaged
        slots = struct.unpack_from("<H", header, vtable)[0]
        offsets = [struct.unpack_from("<H", header, vtable + at)[0] if at < slots else 0 for at in (6, 10)]
        kind = header[table + offsets[0]] if offsets[0] else 0
        length = struct.unpack_from("<q", header, table + offsets[1])[0] if offsets[1] else 0
    except (struct.error, IndexError):
        raise Damaged from None
    return kind, length


def frame_end(data: memoryview, start: int, seed: int | None) -> int:
    """End of the frame that starts at `start`.

    Parameters
    ----------
    data : memoryview
    start : int
    seed : int or None
        crc-32 of the schema message the frame belongs to; None not to verify the checksum.

    Raises
    ------
    Incomplete, Damaged
        As `message_at`; also Damaged when the checksum does not hold.
    """
    message = message_at(data, start)
    while message.kind == DICTIONARY:
        message = message_at(data, message.end)
    if message.kind != BATCH:
        raise Damaged
    if seed is None:
        return message.end
    header = bytes(data[message.start : message.body])
    mark = header.find(_MARK)
    if mark < 0:
        raise Damaged
    value = message.start + mark + len(_MARK)
    crc = zlib.crc32(data[start:value], seed)
    crc = zlib.crc32(_ZEROS, crc)
    crc = zlib.crc32(data[value + 8 : message.end], crc)
    if bytes(data[value : value + 8]) != b"%08x" % crc:
        raise Damaged
    return message.end


def head_end(data: memoryview) -> int:
    """End of the schema message a segment starts with; raises as `message_at`."""
    message = message_at(data, 0)
    if message.kind != SCHEMA:
        raise Damaged
    try:
        pa.ipc.read_schema(pa.py_buffer(data[: message.end]))
    except (pa.ArrowException, OSError, ValueError):
        raise Damaged from None
    return message.end


def next_frame(data: memoryview, start: int, seed: int) -> int | None:
    """Where the next whole frame starts at or after byte `start`, to go on behind a damaged one."""
    raw = bytes(data[start:])
    at = raw.find(_CONTINUATION)
    while at >= 0:
        if (start + at) % 8 == 0:
            try:
                frame_end(data, start + at, seed)
            except (Incomplete, Damaged):
                at += 7
            else:
                return start + at
        at = raw.find(_CONTINUATION, at + 1)
    return None


def pack(batch: pa.RecordBatch, meta: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Turn a batch into (schema message, frame); `meta` is kept as JSON in the batch's custom metadata as `mce`.

    Returns
    -------
    head : bytes
        What a segment of this schema starts with.
    body : bytes
        What is appended to it; `head + body` is an Arrow IPC stream.
    """
    parts = pieces(batch, meta, {"crc32": (_MARK + _ZEROS).decode()})
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    # Headers come as bytes, what columns hold as buffers. JSON escapes control characters, so the mark occurs once.
    (marked,) = [at for at, part in enumerate(parts) if isinstance(part, bytes) and _MARK in part]
    header = parts[marked]
    value = header.index(_MARK) + len(_MARK)
    parts[marked] = b"".join((header[:value], b"%08x" % crc, header[value + 8 :]))
    first, size = 0, len(batch.schema.serialize())
    while size > 0:
        size -= len(parts[first])
        first += 1
    return b"".join(parts[:first]), b"".join(parts[first:])


def pieces(batch: pa.RecordBatch, meta: Mapping[str, Any], extra: Mapping[str, str] | None = None) -> list[Any]:
    """Return a stream of one batch as buffers, one behind the other, those of its columns not copied.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    meta : mapping
        Kept as `pack` keeps it.
    extra : mapping of str to str, optional
        Further custom metadata, in front of it.
    """
    text = json.dumps(meta, ensure_ascii=True, separators=(",", ":"))
    sink = _Pieces()
    writer = pa.ipc.new_stream(pa.PythonFile(sink, "w"), batch.schema)
    # The writer emits the schema with the first batch; the end-of-stream mark comes with close(), hence not here.
    writer.write_batch(batch, custom_metadata={**(extra or {}), "mce": text})
    return sink.pieces


class _Pieces:
    """A file that keeps what is written to it as it came."""

    closed = False

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def write(self, piece: Any) -> int:
        self.pieces.append(piece)
        return len(piece)

    def tell(self) -> int:
        return sum(map(len, self.pieces))

    def flush(self) -> None:
        """Nothing waits."""


def unpack(stream: Any) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
    """Batches of verified bytes that start with a schema, each with the metadata given to `pack`; no copy."""
    reader = pa.ipc.open_stream(pa.py_buffer(stream))
    while True:
        try:
            batch, custom = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return
        yield batch, json.loads(custom[b"mce"])
