"""What user code prints: the last 64 KB of it, kept in a ring that survives the process that wrote it.

A point that prints a gigabyte must cost no memory, and the output of a point that crashed must still be readable by
its supervisor. So text goes into a ring buffer that can live in memory shared between the two.
"""

import io
import itertools
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

RING = 64 * 1024
_WRITTEN = struct.Struct("<q")


class Ring:
    """The last bytes of an endless stream, in a buffer of fixed size.

    Parameters
    ----------
    buffer : writable buffer
        Eight bytes that count everything ever written, then the bytes of the ring.
    """

    HEAD = _WRITTEN.size

    def __init__(self, buffer: Any = None):
        self._view = memoryview(bytearray(self.HEAD + RING) if buffer is None else buffer)
        self._size = len(self._view) - self.HEAD

    @property
    def written(self) -> int:
        """Bytes written since the beginning; a mark to give to `text` later."""
        return int(_WRITTEN.unpack_from(self._view, 0)[0])

    def write(self, data: bytes, skipped: int = 0) -> None:
        """Append bytes, forgetting the oldest; `skipped` more came before them and are only counted."""
        total = self.written + skipped + len(data)
        data = data[-self._size :]
        start = (total - len(data)) % self._size
        first = min(len(data), self._size - start)
        self._view[self.HEAD + start : self.HEAD + start + first] = data[:first]
        if first < len(data):
            self._view[self.HEAD : self.HEAD + len(data) - first] = data[first:]
        _WRITTEN.pack_into(self._view, 0, total)

    def text(self, mark: int = 0) -> str:
        """Return what was written after `mark`, runs of equal lines folded; the tail of it if it was much."""
        written = self.written
        count = min(written - mark, self._size)
        if count <= 0:
            return ""
        start = (written - count) % self._size
        body = bytes(self._view[self.HEAD :])
        data = (body[start:] + body[:start])[:count] if start + count > self._size else body[start : start + count]
        lost = written - mark - count
        text = fold(data.decode("utf-8", "replace"))
        return f"... {lost:,} bytes before this are not kept ...\n{text}" if lost else text

    def release(self) -> None:
        """Let go of the buffer, so that shared memory can be closed."""
        self._view.release()


def fold(text: str) -> str:
    """Replace runs of three or more equal lines by one of them and a count."""
    return "".join(_folded(text.splitlines(keepends=True)))


def _folded(lines: Iterable[str]) -> Iterator[str]:
    for line, run in itertools.groupby(lines):
        count = sum(1 for _ in run)
        if count < 3:
            yield line * count
        else:
            yield line if line.endswith("\n") else f"{line}\n"
            yield f"... the line above, {count - 1:,} times more ...\n"


class Capture(io.TextIOBase):
    """A text stream that stands in for `sys.stdout` or `sys.stderr` while user code runs.

    Parameters
    ----------
    ring : Ring
        Where the text goes.
    descriptor : int
        The file descriptor it stands for: child processes of user code inherit that one.
    echo : text stream, optional
        Where the text is also shown (`inline` runs in front of the user).
    """

    def __init__(self, ring: Ring, descriptor: int, echo: IO[str] | None = None):
        self._ring = ring
        self._descriptor = descriptor
        self._echo = echo
        self._pid = os.getpid()
        self.buffer = _Bytes(self)

    encoding = "utf-8"
    errors = "replace"

    def writable(self) -> bool:
        """Return True: this stream is for writing."""
        return True

    def fileno(self) -> int:
        """Return the descriptor this stream stands for."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return False, so that progress bars stay quiet."""
        return False

    def write(self, text: str) -> int:
        """Append text to the ring; return its length."""
        # A gigabyte in one print must not be encoded whole only to be forgotten.
        self.write_bytes(text[-RING:].encode("utf-8", "replace"), max(0, len(text) - RING))
        if self._echo is not None:
            self._echo.write(text)
        return len(text)

    def write_bytes(self, data: bytes, skipped: int = 0) -> None:
        """Append bytes to the ring, or, in a process forked by user code, to the descriptor."""
        if os.getpid() != self._pid:
            # Two processes writing one ring would garble it; the pipe behind the descriptor is drained anyway.
            os.write(self._descriptor, data)
        else:
            self._ring.write(data, skipped)

    def close(self) -> None:
        """Do nothing: user code that closes its output must not take ours away."""


class _Bytes(io.RawIOBase):
    """The `.buffer` of a capture."""

    def __init__(self, capture: Capture):
        self._capture = capture

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._capture.write_bytes(raw)
        return len(raw)

    def close(self) -> None:
        """Do nothing, as above."""


@contextmanager
def captured(ring: Ring, *, echo: bool = False) -> Iterator[None]:
    """Send `sys.stdout` and `sys.stderr` to a ring inside a `with` block."""
    before = sys.stdout, sys.stderr
    sys.stdout = Capture(ring, 1, before[0] if echo else None)
    sys.stderr = Capture(ring, 2, before[1] if echo else None)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
