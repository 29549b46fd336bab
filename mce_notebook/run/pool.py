"""Where blocks are computed, as an engine sees it; and the one kind there is, a Dask cluster."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mce_notebook.errors import RunError
from mce_notebook.run.line import LineLost

if TYPE_CHECKING:
    from mce_notebook.plan import Block
    from mce_notebook.run.line import Lines
    from mce_notebook.run.protocol import BlockResult, Task

    BlockRequest = tuple[Task, Block, bool, float | None, float | None, int | None]


# How often who waits for a task looks whether Dask has stranded it.
STRANDED_SECONDS = 2.0


class WorkerLost(RunError):
    """The worker died with the block; nothing of the block was recorded.

    Parameters
    ----------
    message : str
    worker : str
        Name of the worker, empty where it is not known.
    excused : bool
        Whether it is known that no point did it.
    """

    def __init__(self, message: str, worker: str = "", excused: bool = False):
        super().__init__(message, worker, excused)
        self.message = message
        self.worker = worker
        self.excused = excused

    def __str__(self) -> str:
        return self.message


class Pool(Protocol):
    """Slots that compute blocks."""

    @property
    def workers(self) -> int:
        """Slots there are now; 0 while the cluster starts."""

    def loads(self) -> Mapping[str, int]:
        """Return how many blocks every slot has now, by its name."""

    @property
    def remark(self) -> str:
        """What people should know who wait for blocks, such as why there are no slots; empty when all is well."""

    @property
    def refusal(self) -> str:
        """Why there will be no slots; empty while there are or may be."""

    async def submit(
        self, task: "Task", block: "Block", *, each: bool, budget: float | None, timeout: float | None,
        memory: int | None, slot: str | None, brief: bool,
    ) -> "BlockResult":  # fmt: skip
        """Compute `block` on `slot` if it is still there, on any where that is None.

        One that is `brief` is expected to take so little time that a scheduler's would be felt.

        Raises
        ------
        WorkerLost
            If the worker died.
        """

    async def interrupt(self, task: "Task") -> None:
        """Kill what the slots compute for the sweep of `task` now; their blocks return with what was done."""


@dataclass
class LatePool:
    """A pool that is still being started, or cannot be: without slots until `inner` is there."""

    inner: Pool | None = None
    # Why it could not be started, or is to be used no longer.
    why: str = ""

    @property
    def workers(self) -> int:
        """Slots there are now."""
        return self.inner.workers if self.inner is not None else 0

    def loads(self) -> Mapping[str, int]:
        """Return how many blocks every slot has now, by its name."""
        return self.inner.loads() if self.inner is not None else {}

    @property
    def remark(self) -> str:
        """Pass on what `inner` has to say."""
        return self.inner.remark if self.inner is not None else ""

    @property
    def refusal(self) -> str:
        """Pass on what `inner` has to say."""
        return self.why or (self.inner.refusal if self.inner is not None else "")

    async def submit(
        self, task: "Task", block: "Block", *, each: bool, budget: float | None, timeout: float | None,
        memory: int | None, slot: str | None, brief: bool,
    ) -> "BlockResult":  # fmt: skip
        """Pass on to `inner`; see `Pool.submit`."""
        if self.inner is None:
            raise WorkerLost("There are no workers yet.")
        return await self.inner.submit(
            task, block, each=each, budget=budget, timeout=timeout, memory=memory, slot=slot, brief=brief
        )

    async def interrupt(self, task: "Task") -> None:
        """Pass on to `inner`; see `Pool.interrupt`."""
        if self.inner is not None:
            await self.inner.interrupt(task)


class DaskPool:
    """The slots of a Dask cluster, one per worker.

    Parameters
    ----------
    client : distributed.Client
        Asynchronous client of the cluster.
    workers : callable
        Returns the addresses of the workers that are up and how many tasks each has, without asking the network.
    lines : Lines, optional
        Ways past the scheduler to workers on this machine.
    """

    def __init__(self, client: Any, workers: Callable[[], Mapping[str, int]], lines: "Lines | None" = None):
        self.client = client
        self._workers = workers
        self._lines = lines
        self._count = itertools.count()

    @property
    def workers(self) -> int:
        """Workers that are up."""
        return len(self._workers())

    def loads(self) -> Mapping[str, int]:
        """Return how many blocks every worker has now, by its address."""
        busy = self._lines.busy if self._lines is not None else set()
        return {name: load + (name in busy) for name, load in self._workers().items()}

    @property
    def remark(self) -> str:
        """Nothing: the workers of this machine come by themselves."""
        return ""

    @property
    def refusal(self) -> str:
        """Nothing, likewise."""
        return ""

    async def submit(
        self, task: "Task", block: "Block", *, each: bool, budget: float | None, timeout: float | None,
        memory: int | None, slot: str | None, brief: bool,
    ) -> "BlockResult":  # fmt: skip
        """Compute `block` as one Dask task, or past the scheduler if it is brief; see `Pool.submit`."""
        request = (task, block, each, budget, timeout, memory)
        if brief and self._lines is not None:
            try:
                found: BlockResult | None = await self._lines.call(slot, request)
            except LineLost as error:
                raise WorkerLost(f"The worker died with block {block.ranges[:1]}.") from error
            if found is not None:
                return found
        return await self._task(request, self._preferred(slot))

    def _preferred(self, slot: str | None) -> list[str] | None:
        """Return the workers a task had better go to: not those of whose blocks the scheduler does not know."""
        if slot is not None:
            return [slot]
        busy = self._lines.busy if self._lines is not None else set()
        free = [name for name in self._workers() if name not in busy]
        return free if busy and free else None

    @property
    def _work(self) -> "Callable[..., BlockResult]":
        """What the Dask task runs."""
        from mce_notebook.run.worker import run_block

        return run_block

    async def _task(self, request: "BlockRequest", workers: list[str] | None, *, strict: bool = False) -> "BlockResult":
        """Compute a block as one Dask task, on one of `workers`; if they are gone on others, unless it is `strict`."""
        block = request[1]
        from distributed import CancelledError, KilledWorker

        # The scheduler keeps statistics for each prefix of a key: one prefix for all, so that they stay one
        # entry.
        future = self.client.submit(
            self._work,
            *request,
            key=f"block-{next(self._count)}",
            pure=False,
            workers=workers,
            allow_other_workers=workers is not None and not strict,
        )
        try:
            result: BlockResult | None = await self._arrived(future, [] if strict else workers or [])
        except KilledWorker as error:
            name = str(getattr(error.last_worker, "name", ""))
            raise WorkerLost(f"The worker died with block {block.ranges[:1]}.", name) from error
        except CancelledError as error:
            # Said by the scheduler when it forgot the task together with its worker.
            raise WorkerLost(f"The cluster dropped block {block.ranges[:1]}.") from error
        except asyncio.CancelledError:
            await future.cancel()
            raise
        finally:
            future.release()
        return await self._task(request, None) if result is None else result

    async def _arrived(self, future: Any, preferred: list[str]) -> "BlockResult | None":
        """Wait for the result of a task; None for one that Dask will never compute, which is cancelled.

        A task that prefers workers which are gone, when there are no others, has to wait; and Dask forgets that others
        will do: when a worker comes it passes over what waits and does not name it.
        """
        waiting = asyncio.ensure_future(_result(future))
        try:
            while not (await asyncio.wait([waiting], timeout=STRANDED_SECONDS if preferred else None))[0]:
                there = self._workers()
                if not there or any(name in there for name in preferred):
                    continue
                held = await self.client.processing()
                if not waiting.done() and not any(future.key in keys for keys in held.values()):
                    await future.cancel()
                    return None
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def interrupt(self, task: "Task") -> None:
        """Kill the slots that work for the sweep of `task`, on every worker; see `Pool.interrupt`."""
        from mce_notebook.run.worker import interrupt

        await self.client.run(interrupt, task.store, task.name, on_error="ignore")


async def _result(future: Any) -> "BlockResult":
    found: BlockResult = await future
    return found
