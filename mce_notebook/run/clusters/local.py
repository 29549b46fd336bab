"""A Dask cluster on this machine: one worker process per slot, encrypted, quiet when idle."""

import asyncio
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Security, Status
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from mce_notebook.run.budget import machine_cores
from mce_notebook.run.clusters.workers import Workers
from mce_notebook.run.line import Lines
from mce_notebook.run.pool import DaskPool

log = logging.getLogger(__name__)

# How often to look for workers that are gone for good (seconds).
LOOK_SECONDS = 1.0
# How long the workers of a host may take to come up on a busy machine (seconds).
START_SECONDS = 120.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# Blocks last half a second and slots do the work: a worker has nothing worth sampling every few milliseconds.
QUIET: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # a lost block is ours to requeue: we know what was recorded
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.worker-ttl": None,  # a worker that computes for hours is not dead; the nanny tells
    "distributed.scheduler.validate": False,
    "distributed.comm.timeouts.connect": "120s",  # a busy machine starts workers slowly; that is no reason to give up
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "60s",
    "distributed.worker.daemon": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.log-length": 200,
    "distributed.admin.low-level-log-length": 100,  # of messages with frames of outcomes in them
    "distributed.diagnostics.computations.max-history": 1,
    "distributed.diagnostics.erred-tasks.max-history": 1,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.tick.limit": "1h",
    "distributed.admin.tick.cycle": "10s",
    "distributed.client.scheduler-info-interval": "30s",
    "distributed.diagnostics.nvml": False,
    # Dask would close the nanny of a worker that is being restarted at the wrong moment, and start no other.
    "distributed.deploy.lost-worker-timeout": "1000h",
}


def slots(cores: int, workers: int | None = None) -> int:
    """Return how many slots of `cores` cores this machine has; at least one."""
    if workers is not None:
        return max(1, workers)
    return max(1, machine_cores() // max(1, cores))


def configure(cores: int) -> None:
    """Set the options of Dask in this process and for the workers it starts."""
    dask.config.set(QUIET)
    environment = {name: str(cores) for name in THREAD_VARIABLES}
    # Somebody works at this machine: points give way to the kernel and the browser.
    environment["MCE_NICE"] = os.environ.get("MCE_NICE", "5")
    # `set` merges, and Dask's default trims memory after every free: a third slower on mid-size arrays.
    dask.config.config["distributed"]["nanny"]["pre-spawn-environ"] = environment


class _Arrivals(SchedulerPlugin):
    """Says when workers come and go."""

    def __init__(self, changed: Any):
        self._changed = changed

    def add_worker(self, *_: Any, **__: Any) -> None:
        self._changed()

    def remove_worker(self, *_: Any, **__: Any) -> None:
        self._changed()


class _Ready(WorkerPlugin):
    """Has a worker take blocks from the host's line, too."""

    def __init__(self, door: str):
        self.door = door

    def setup(self, worker: Any) -> None:
        from mce_notebook.run.worker import answer

        answer(self.door, worker.address)


def _loads(scheduler: Any) -> dict[str, int]:
    return {address: len(worker.processing) for address, worker in scheduler.workers.items()}


@dataclass
class LocalWorkers(Workers):
    """The workers of this machine, from start to stop."""

    cluster: Any
    client: Any
    pool: DaskPool
    lines: Lines
    cores: int = 1
    keeper: "asyncio.Task[None] | None" = field(default=None, repr=False)

    @classmethod
    async def start(cls, cores: int, workers: int | None, scratch: Path, door: Path, changed: Any) -> "LocalWorkers":
        """Start one worker process for each slot and wait until a task has run on every one.

        Parameters
        ----------
        cores : int
            Cores of one slot; threads of BLAS in it.
        workers : int or None
            Slots; None for as many as the cores of this machine give.
        scratch : Path
            Where workers may keep files.
        door : Path
            Of the socket for the lines to workers, in a folder only this user may enter.
        changed : callable
            Called when a worker comes or goes.
        """
        configure(cores)
        count = slots(cores, workers)
        # Users of a machine share its loopback interface, and an open scheduler runs anybody's code.
        security = Security.temporary()  # type: ignore[no-untyped-call]
        start: Any = LocalCluster
        cluster = await start(
            # None yet: a cluster whose first worker dies while it starts would not come up at all.
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            security=security,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
            local_directory=str(scratch),
            asynchronous=True,
            silence_logs=False,
        )
        connect: Any = Client
        # Results come straight from the workers, not encrypted once more on a way over the scheduler.
        client = await connect(cluster, asynchronous=True, set_as_default=False, direct_to_workers=True)
        scheduler = cluster.scheduler
        lines = Lines(door, lambda: _loads(scheduler))
        await lines.open()
        started = cls(cluster, client, DaskPool(client, lambda: _loads(scheduler), lines), lines, cores)
        # Told to every worker that ever comes, those that replace others included.
        await client.register_plugin(_Ready(str(door)), name="mce-ready")
        cluster.scale(count)
        started.keeper = asyncio.create_task(started._keep(count))
        await client.wait_for_workers(count, timeout=START_SECONDS)
        await started._warm(cores)
        await lines.reached(count)
        scheduler.add_plugin(_Arrivals(changed), name="mce-arrivals")
        changed()
        return started

    def paid(self) -> float:
        """Return the cores of all slots."""
        return float(self.pool.workers * self.cores)

    async def _warm(self, cores: int) -> None:
        from mce_notebook.run.worker import warm

        addresses = list(self.cluster.scheduler.workers)
        futures = [
            self.client.submit(warm, cores, pure=False, workers=[address], allow_other_workers=True)
            for address in addresses
        ]
        # A worker that died meanwhile is replaced, and its successor gets warm with its first block.
        await asyncio.gather(*futures, return_exceptions=True)
        for future in futures:
            future.release()

    async def _keep(self, count: int) -> None:
        """Replace workers that are gone for good.

        A nanny starts its worker again, but a worker that dies while it is being started takes its nanny with it,
        and Dask starts no other: killed often enough, a cluster would end without workers.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            workers = self.cluster.workers
            for name, nanny in list(workers.items()):
                if nanny.status in (Status.closed, Status.failed):
                    del workers[name]
            if len(workers) < count:
                self.cluster.scale(count)

    async def close(self) -> None:
        """Stop the workers and their slots."""
        if self.keeper is not None:
            self.keeper.cancel()
        await self.lines.close()
        for name, part, seconds in (("client", self.client, 2), ("cluster", self.cluster, 5)):
            try:
                await part.close(timeout=seconds)
            except TimeoutError:
                # A busy machine, or a worker that is stopped: it ends with this process, which has to go on.
                log.warning("the %s was not closed within %d s", name, seconds)
