"""Group commit: everything that arrived during the last sync is made durable in the next, off the loop."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mce_notebook.errors import StoreError

if TYPE_CHECKING:
    from mce_notebook.store.frames import Frame

# Blocks are not sent while more than this waits for the disk, so that a slow disk cannot fill the host's
# memory.
ROOM_BYTES = 64 << 20
RETRY_SECONDS = 1.0


class Writer:
    """Appends frames in the order in which they were put, and says when they are safe.

    Parameters
    ----------
    append : callable
        Makes frames durable; runs in a thread.
    committed : callable
        Told the frames that are safe, on the loop.
    trouble : callable
        Told why nothing can be written now ("" when writing works again), on the loop.
    retry : float
        Seconds between attempts while it does not.
    """

    def __init__(
        self,
        append: Callable[[Sequence["Frame"]], None],
        committed: Callable[[Sequence["Frame"]], None],
        trouble: Callable[[str], None],
        retry: float = RETRY_SECONDS,
    ):
        self._append = append
        self._committed = committed
        self._trouble = trouble
        self._retry = retry
        self._queue: list[Frame] = []
        self._bytes = 0
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._roomy = asyncio.Event()
        self._idle.set()
        self._roomy.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def roomy(self) -> bool:
        """Whether more blocks may be sent: the disk takes what comes."""
        return self._roomy.is_set()

    def put(self, frames: Sequence["Frame"]) -> None:
        """Queue frames; they are written as soon as the frames before them are."""
        if not frames:
            return
        self._queue.extend(frames)
        self._bytes += sum(len(frame.body) for frame in frames)
        if self._bytes > ROOM_BYTES:
            self._roomy.clear()
        self._idle.clear()
        self._work.set()
        if self._task is None:
            self._task = asyncio.create_task(self._write())

    @property
    def idle(self) -> bool:
        """Whether everything put so far is safe."""
        return self._idle.is_set()

    async def flushed(self) -> None:
        """Wait until everything put so far is safe."""
        await self._idle.wait()

    async def close(self, timeout: float | None = None) -> bool:
        """Stop, after everything is written or `timeout` seconds; return whether everything was."""
        try:
            async with asyncio.timeout(timeout):
                await self.flushed()
        except TimeoutError:
            return False
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        return True

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            frames, self._queue = self._queue, []
            self._bytes = 0
            self._work.clear()
            await self._commit(frames)
            if not self._queue:
                self._idle.set()
            if self._bytes <= ROOM_BYTES:
                self._roomy.set()

    async def _commit(self, frames: list["Frame"]) -> None:
        troubled = False
        while True:
            try:
                await asyncio.to_thread(self._append, frames)
                break
            except (StoreError, OSError) as error:
                troubled = True
                self._roomy.clear()
                self._trouble(str(error) or type(error).__name__)
                await asyncio.sleep(self._retry)
        if troubled:
            self._trouble("")
        self._committed(frames)
