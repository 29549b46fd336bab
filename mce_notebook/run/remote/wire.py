"""Messages between a relay and its agent: a header as JSON and a payload of bytes, behind their lengths.

What a login shell prints before the agent starts is passed over: messages follow the first line that greets.
"""

import json
import struct
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol

GREETING = b"mce-agent 1\n"
# A payload is cut into pieces of this many bytes.
PIECE = 1 << 20
# No header and no payload of ours is longer; text that was printed between messages reads as lengths beyond.
_LONGEST = 1 << 28, 1 << 34
_LENGTHS = struct.Struct(">IQ")
Message = tuple[dict[str, Any], bytes]


class NoMessage(ValueError):
    """What came is not a message."""


def packed(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """Return a message as bytes."""
    text = json.dumps(header).encode()
    return b"".join((_LENGTHS.pack(len(text), len(payload)), text, payload))


def _unpacked(text: bytes, payload: bytes) -> Message:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise NoMessage(str(error)) from None
    if not isinstance(header, dict):
        raise NoMessage(f"{header!r} is no header")
    return header, payload


def _lengths(data: bytes) -> tuple[int, int]:
    text, payload = _LENGTHS.unpack(data)
    if not 0 < text < _LONGEST[0] or payload >= _LONGEST[1]:
        raise NoMessage(f"{data!r} are no lengths")
    return text, payload


class _Reader(Protocol):
    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` bytes; raises asyncio.IncompleteReadError where there are fewer."""


async def receive(reader: _Reader) -> Message:
    """Read one message; raises asyncio.IncompleteReadError at the end of the stream, NoMessage for other bytes."""
    text, payload = _lengths(await reader.readexactly(_LENGTHS.size))
    return _unpacked(await reader.readexactly(text), await reader.readexactly(payload) if payload else b"")


class Pipe:
    """The agent's side: a message at a time from one file, and to another from any thread."""

    def __init__(self, source: BinaryIO, target: BinaryIO):
        self._source = source
        self._target = target
        self._lock = threading.Lock()

    def greet(self) -> None:
        """Say that messages follow."""
        with self._lock:
            self._target.write(b"\n" + GREETING)
            self._target.flush()

    def say(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send a message; waits while the other side takes none."""
        data = packed(header, payload)
        with self._lock:
            self._target.write(data)
            self._target.flush()

    def hear(self) -> Message | None:
        """Wait for a message; None when the other side is gone."""
        start = self._source.read(_LENGTHS.size)
        if len(start) < _LENGTHS.size:
            return None
        text, payload = _lengths(start)
        header, body = self._source.read(text), self._source.read(payload)
        return _unpacked(header, body) if len(header) == text and len(body) == payload else None
