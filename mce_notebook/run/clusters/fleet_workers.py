"""Workers that come as jobs of a fleet, whatever starts them and wherever their scheduler is."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.clusters.fleet import Backend, Fleet
from mce_notebook.run.clusters.request import JobRequest
from mce_notebook.run.clusters.scheduler import Scheduling
from mce_notebook.run.clusters.sending import SendingPool
from mce_notebook.run.clusters.workers import Workers
from mce_notebook.run.registry import HostFolder, write_json

log = logging.getLogger("mce_notebook.cluster")

STEP_SECONDS = 0.5
SUBMIT_SECONDS = 60.0
NODES = "nodes.json"


class FleetPool(SendingPool):
    """The slots of a fleet: those that leave get no more blocks, and a death is looked up."""

    def __init__(self, scheduler: Scheduling, slots: Callable[[], Any], fleet: Fleet):
        super().__init__(scheduler, slots)
        self._fleet = fleet

    @property
    def remark(self) -> str:
        """Why there are fewer slots than wanted."""
        return self._fleet.remark

    @property
    def refusal(self) -> str:
        """Why there will be none."""
        return self._fleet.refusal

    async def excused(self, worker: str) -> bool:
        """Return whether the job of a worker was ended by the batch system."""
        return bool(worker) and await self._fleet.excused(worker)

    def leaves(self, address: str) -> None:
        """Take in that the job of a worker ends soon."""
        self._fleet.leaves(address)


class FleetWorkers(Workers):
    """The workers of a fleet, from start to stop.

    A kind of cluster starts a scheduler with `came` and `went`, makes a backend, and calls `serve`.

    Parameters
    ----------
    request : JobRequest
    folder : HostFolder
        Of the host.
    changed : callable
        Called when slots come or go.
    """

    def __init__(self, request: JobRequest, folder: HostFolder, changed: Callable[[], None]):
        self.request = request
        self._nodes = folder.path / NODES
        self._changed = changed
        self._warming: set[asyncio.Task[None]] = set()
        self._proved = asyncio.Event()
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self.scheduler: Scheduling
        self.fleet: Fleet

    def serve(self, scheduler: Scheduling, backend: Backend, prefix: str, make: Callable[..., Fleet] = Fleet) -> None:
        """Begin to keep jobs in line with what is wanted.

        Parameters
        ----------
        scheduler : Scheduling
        backend : Backend
        prefix : str
            Of the names of jobs; no other fleet has it.
        make : callable
            Makes the fleet.
        """
        self.scheduler = scheduler
        self.fleet = make(self.request, backend, prefix, scheduler.loads, self._retire)
        self.pool = FleetPool(scheduler, self._ready, self.fleet)
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self) -> None:
        """Wait until a task has run on a worker."""
        await self._proved.wait()

    def paid(self) -> float:
        """Return the cores of all jobs that run, those that come up and those that leave included."""
        return float(self.request.cores * sum(1 for job in self.fleet.jobs.values() if job.began or job.arrived))

    def want(self, slots: int) -> None:
        """Say how many slots the sweeps of the host could use now."""
        self.fleet.wanted = slots

    def resize(self, least: int, most: int | None) -> None:
        """Keep so many slots without work, and have so many at most; None for what the profile says."""
        limit = self.request.max_workers
        if max(least, most or 0) > limit:
            raise HostError(f"{self.request.profile} has max_workers = {limit}; raise it there for more slots.")
        self.fleet.least = least
        self.fleet.most = limit if most is None else most

    async def close(self) -> None:
        """End all jobs, the waiting ones too, and let go of the scheduler."""
        if self._keeper is not None:
            # Not in the middle of a submission: its job would be nobody's.
            self._closing = True
            self.fleet.stop()
            await asyncio.wait([self._keeper], timeout=SUBMIT_SECONDS)
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self.fleet.close()
        write_json(self._nodes, [])
        for task in self._warming:
            task.cancel()
        await self.scheduler.close()

    # Workers

    def came(self, address: str) -> None:
        """Take in that a worker is there; it counts once a task has run on it."""
        task = asyncio.ensure_future(self._warm(address))
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    def went(self, address: str) -> None:
        """Take in that a worker is gone."""
        self.fleet.left(address)
        self.pool.forget(address)
        self._changed()

    async def _warm(self, address: str) -> None:
        from mce_notebook.run.worker import warm

        member, client = self.scheduler.members().get(address), self.scheduler.client
        if member is None or client is None:
            return
        future = client.submit(warm, self.request.slot_cores, pure=False, workers=[address])
        try:
            await future
        except Exception as error:
            log.warning("%s did not run its first task: %s", member.name, error)
            return
        finally:
            future.release()
        self.fleet.arrived(member.name, address)
        self._proved.set()
        self._changed()

    def _ready(self) -> dict[str, int]:
        loads = self.scheduler.loads()
        ready = [address for job in self.fleet.jobs.values() if not job.leaving for address in job.workers]
        return {address: loads[address] for address in ready if address in loads}

    def _retire(self, addresses: Iterable[str]) -> None:
        self.scheduler.retire(addresses)
        self._changed()

    async def look_after(self) -> None:
        """Do what has to be done now and then, about twice a second."""
        await self.fleet.step()

    async def _keep(self) -> None:
        told: Any = None
        while not self._closing:
            try:
                await self.look_after()
            except Exception:
                # One look that fails must not end the looking.
                log.exception("the queue could not be looked after")
            rows = self.fleet.nodes()
            if rows != told:
                told = rows
                write_json(self._nodes, rows)
            await asyncio.sleep(STEP_SECONDS)
