"""One slot seen from its supervisor: starting it, its pipes and memory, and ending it with all it started."""

import contextlib
import os
import signal
import socket
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mce_notebook.run import processes
from mce_notebook.run.output import Ring
from mce_notebook.run.page import Page

_DRAIN = 1 << 16
_PROC = Path("/proc/self/statm").exists()


class Child:
    """A slot process, its control connection, its shared page and what it prints.

    Parameters
    ----------
    cores : int
        Threads for BLAS and OpenMP.
    nice : int
        Added to its niceness.
    """

    def __init__(self, *, cores: int = 1, nice: int = 0):
        self.cores = cores
        self.page = Page()
        self.printed = Ring()
        self.warm = False
        self._life = threading.Lock()
        ours, theirs = socket.socketpair()
        out, out_theirs = os.pipe()
        with theirs:
            try:
                self.process = processes.start(nice, cores, (theirs.fileno(), self.page.descriptor, out_theirs))
            except OSError:
                ours.close()
                os.close(out)
                self.page.close()
                raise
            finally:
                os.close(out_theirs)
        self.connection = Connection(ours.detach())
        self._out = out
        os.set_blocking(out, False)

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self.process.pid

    def send(self, message: Any) -> bool:
        """Send a message; False when the slot is gone."""
        try:
            self.connection.send(message)
        except OSError:
            return False
        return True

    def receive(self, seconds: float) -> Any:
        """Return the next message, or None after `seconds` without one.

        Raises
        ------
        EOFError
            If the slot is gone; what it sent before is received first.
        """
        end = time.monotonic() + seconds
        while True:
            ready = wait([self.connection, self._out], max(0.0, end - time.monotonic()))
            if self._out in ready and not self.drain():
                # Closed by a slot that died, or by user code that closed its own output: the connection tells.
                ready = wait([self.connection], max(0.0, end - time.monotonic()))
            if self.connection in ready:
                try:
                    return self.connection.recv()
                except OSError as error:
                    raise EOFError from error
            if not ready or time.monotonic() >= end:
                return None

    def drain(self) -> bool:
        """Read what the process and its children wrote to their output; False when it is closed."""
        for _ in range(64):
            try:
                data = os.read(self._out, _DRAIN)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.printed.write(data)
        return True

    def memory(self) -> int:
        """Return the bytes of physical memory of the slot and its descendants, shared pages counted once each."""
        pids = [self.pid, *descendants(self.pid)]
        return sum(_resident(pid) for pid in pids)

    def exact_memory(self) -> int:
        """Return the same with pages shared between the processes divided among them; slower."""
        pids = [self.pid, *descendants(self.pid)]
        return sum(_proportional(pid) for pid in pids)

    def kill(self) -> None:
        """Kill the slot and everything it started; can be called from any thread."""
        with self._life:
            if self.process.returncode is not None:
                return
            strays = descendants(self.pid)
            self.process.kill()
            for stray in strays:
                # Those that made a session of their own are not in the group.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(stray, signal.SIGKILL)

    def dying(self, seconds: float = 1.0) -> bool:
        """Whether the process, which hung up, also ends within some seconds."""
        return self.process.ended(seconds)

    def bury(self) -> int:
        """Wait for the dying slot, read its last words, end its process group; return its return code."""
        # Reaped only after its group is dead: until then its number cannot belong to anybody else.
        self.process.ended(None)
        with self._life:
            self.process.kill()
            returncode = self.process.reap()
        self.drain()
        return returncode

    def close(self) -> None:
        """End the slot and release everything."""
        if self.process.returncode is None:
            self.kill()
            self.bury()
        self.connection.close()
        os.close(self._out)
        self.page.close()


def descendants(pid: int) -> list[int]:
    """Return the ids of all living descendants of a process."""
    if not _PROC:
        import psutil

        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children(recursive=True)]
        return []
    found: list[int] = []
    pending = [pid]
    while pending:
        children = _children(pending.pop())
        found.extend(children)
        pending.extend(children)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found.extend(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()))
    return found


def _resident(pid: int) -> int:
    if _PROC:
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0
    import psutil

    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)
