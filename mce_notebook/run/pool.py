"""Where blocks are computed, as an engine sees it; and the one kind there is, a Dask cluster."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mce_notebook.errors import RunError

if TYPE_CHECKING:
    from mce_notebook.plan import Block
    from mce_notebook.run.protocol import BlockResult, Task


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
        memory: int | None, slot: str | None,
    ) -> "BlockResult":  # fmt: skip
        """Compute `block` on `slot` if it is still there, on any where that is None.

        Raises
        ------
        WorkerLost
            If the worker died.
        """

    async def interrupt(self, task: "Task") -> None:
        """Kill what the slots compute for the sweep of `task` now; their blocks return with what was done."""


@dataclass
class LatePool:
    """A pool that is still being started: without slots until `inner` is there."""

    inner: Pool | None = None

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
        return self.inner.refusal if self.inner is not None else ""

    async def submit(
        self, task: "Task", block: "Block", *, each: bool, budget: float | None, timeout: float | None,
        memory: int | None, slot: str | None,
    ) -> "BlockResult":  # fmt: skip
        """Pass on to `inner`; see `Pool.submit`."""
        if self.inner is None:
            raise WorkerLost("There are no workers yet.")
        return await self.inner.submit(task, block, each=each, budget=budget, timeout=timeout, memory=memory, slot=slot)

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
    """

    def __init__(self, client: Any, workers: Callable[[], Mapping[str, int]]):
        self._client = client
        self._workers = workers
        self._count = itertools.count()

    @property
    def workers(self) -> int:
        """Workers that are up."""
        return len(self._workers())

    def loads(self) -> Mapping[str, int]:
        """Return how many blocks every worker has now, by its address."""
        return self._workers()

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
        memory: int | None, slot: str | None,
    ) -> "BlockResult":  # fmt: skip
        """Compute `block` as one Dask task; see `Pool.submit`."""
        from distributed import CancelledError, KilledWorker

        from mce_notebook.run.worker import run_block

        # The scheduler keeps statistics for each prefix of a key: one prefix for all, so that they stay one
        # entry.
        future = self._client.submit(
            run_block,
            task,
            block,
            each,
            budget,
            timeout,
            memory,
            key=f"block-{next(self._count)}",
            pure=False,
            workers=None if slot is None else [slot],
            allow_other_workers=slot is not None,
        )
        try:
            result: BlockResult = await future
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
        return result

    async def interrupt(self, task: "Task") -> None:
        """Kill the slots that work for the sweep of `task`, on every worker; see `Pool.interrupt`."""
        from mce_notebook.run.worker import interrupt

        await self._client.run(interrupt, task.store, task.name, on_error="ignore")
