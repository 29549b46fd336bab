"""A short way from a host to the slots of its own machine, past the scheduler, for blocks too short to wait for it.

A Dask task costs 10 to 15 ms from the host to a worker and back, and several times that of processor time. So every
worker on the host's machine also connects to a Unix socket in the host's private folder, and takes blocks from there,
one at a time; it computes one block at once whichever way that came (`worker.py`). Messages are pickles, as with Dask,
framed as `multiprocessing.connection` does.
"""

import asyncio
import contextlib
import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_LIMIT = 1 << 22
# Between two attempts of a worker to connect again (seconds).
_AGAIN = 0.5
# How often who waits for a line looks whether the scheduler has given a slot back (seconds).
_LOOK = 0.1
_LONG = struct.Struct("!Q")
_SHORT = struct.Struct("!i")


class LineLost(ConnectionError):
    """The worker at the other end died with the block."""


@dataclass(eq=False)
class _Line:
    """The connection to one worker."""

    slot: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    busy: "asyncio.Task[Any] | None" = None

    @property
    def lost(self) -> bool:
        """Whether the worker hung up."""
        return self.reader.at_eof() or self.writer.is_closing()


class Lines:
    """The host's ends of all lines.

    Parameters
    ----------
    path : Path
        Of the socket, in a folder that only this user may enter.
    loads : callable
        Returns how many blocks every slot has from the scheduler, by its name.
    """

    def __init__(self, path: Path, loads: Callable[[], Mapping[str, int]]):
        self.path = path
        self._loads = loads
        self._lines: dict[str, _Line] = {}
        self._server: asyncio.Server | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Listen for workers; what a dead host left at the path is removed."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._welcome, self.path, limit=_LIMIT)
        self.path.chmod(0o600)

    async def close(self) -> None:
        """Hang up; blocks under way are lost."""
        if self._server is not None:
            self._server.close()
        for line in list(self._lines.values()):
            line.writer.close()
        for task in self._arriving:
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def reached(self, count: int, seconds: float = 2.0) -> None:
        """Wait until so many workers have a line, or until it is too late to wait for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self._lines) < count:
                    self._changed.clear()
                    await self._changed.wait()

    @property
    def slots(self) -> list[str]:
        """Names of the slots with a line."""
        return [line.slot for line in self._lines.values() if not line.lost]

    @property
    def busy(self) -> set[str]:
        """Names of the slots that compute a block from a line now."""
        return {line.slot for line in self._lines.values() if line.busy is not None}

    async def call(self, slot: str | None, request: tuple[Any, ...]) -> Any:
        """Have a request carried out by a slot, or by any; wait for one that has nothing else to do.

        Returns
        -------
        Any
            What came back; None where no line leads to such a slot that the scheduler has nothing for, or where
            one without a line is free while all with a line compute.

        Raises
        ------
        LineLost
            If the worker died with it.
        """
        while True:
            found = list(self._candidates(slot))
            if not found:
                return None
            line = next((one for one in found if one.busy is None), None)
            if line is not None:
                break
            if slot is None and self._others_free():
                return None
            self._changed.clear()
            # Not for as long as it takes: what a line computes may take hours, and another slot come free meanwhile.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()
        line.busy = asyncio.create_task(self._exchange(line, request))
        # Given up by who asked, the block still occupies its slot until the answer is there.
        answer = await asyncio.shield(line.busy)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _candidates(self, slot: str | None) -> Iterator[_Line]:
        loads = self._loads()
        for line in self._lines.values():
            # One that the scheduler does not know is about to end, or belongs to a host before this one.
            if slot in (None, line.slot) and loads.get(line.slot) == 0 and not line.lost:
                yield line

    def _others_free(self) -> bool:
        """Whether the scheduler has nothing for a slot without a line."""
        lines = set(self.slots)
        return any(load == 0 and slot not in lines for slot, load in self._loads().items())

    async def _exchange(self, line: _Line, request: tuple[Any, ...]) -> Any:
        """Send a request and return the answer, or the error that came instead: nobody may be there to catch it."""
        try:
            line.writer.writelines(_frame(pickle.dumps(request, 5)))
            await line.writer.drain()
            (length,) = _SHORT.unpack(await line.reader.readexactly(_SHORT.size))
            if length < 0:
                (length,) = _LONG.unpack(await line.reader.readexactly(_LONG.size))
            return pickle.loads(await line.reader.readexactly(length))
        except (OSError, EOFError) as error:
            line.writer.close()
            return LineLost(f"The worker {line.slot} hung up: {type(error).__name__}.")
        finally:
            line.busy = None
            self._changed.set()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._take_in(reader, writer))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _take_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take in a worker, which says its name first."""
        try:
            (length,) = _SHORT.unpack(await reader.readexactly(_SHORT.size))
            name = (await reader.readexactly(length)).decode()
        except (OSError, EOFError, ValueError):
            writer.close()
            return
        except asyncio.CancelledError:
            writer.close()
            raise
        before, self._lines = self._lines, {}
        for slot, line in before.items():
            if line.lost or slot == name:
                line.writer.close()
            else:
                self._lines[slot] = line
        self._lines[name] = _Line(name, reader, writer)
        self._changed.set()


def _frame(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > 0x7FFFFFFF:
        return _SHORT.pack(-1) + _LONG.pack(len(data)), data
    return _SHORT.pack(len(data)), data


class Answering:
    """The worker's end of its line, in a thread of its own.

    Parameters
    ----------
    path : str
        Where the host listens.
    name : str
        What the scheduler calls this worker.
    carry_out : callable
        Called with the parts of each request; what it returns or raises is the answer.
    """

    def __init__(self, path: str, name: str, carry_out: Callable[..., Any]):
        self.path = path
        self.name = name
        self._carry_out = carry_out
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mce-line", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more requests."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            connection = self._connect()
            if connection is not None:
                with connection, contextlib.suppress(OSError, EOFError):
                    self._answer(connection)
            # The host is gone, and this worker will be in a moment; or it could not be reached for another reason.
            time.sleep(_AGAIN)

    def _connect(self) -> Connection | None:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(self.path)
        except OSError:
            line.close()
            return None
        return Connection(line.detach())

    def _answer(self, connection: Connection) -> None:
        connection.send_bytes(self.name.encode())
        while not self._ended.is_set():
            content = connection.recv_bytes()
            try:
                answer = self._carry_out(*pickle.loads(content))
            except Exception as error:
                answer = error
            connection.send_bytes(_pickled(answer))


def _pickled(answer: Any) -> bytes:
    try:
        return pickle.dumps(answer, 5)
    except Exception as error:
        return pickle.dumps(RuntimeError(f"an answer that cannot be sent: {type(answer).__name__} ({error})"), 5)
