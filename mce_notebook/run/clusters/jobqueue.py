"""Workers in the jobs of a batch system: a Dask scheduler here, dask-jobqueue's jobs there, a fleet in between.

Of dask-jobqueue we take what it does well, the scripts, submission and cancelling of seven batch systems, and not its
cluster classes: `docs/decisions/0009-batch-systems.md` lists how those lose jobs.
"""

import asyncio
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import dask
from distributed import CancelledError, Client, KilledWorker, Scheduler, Security
from distributed.diagnostics.plugin import SchedulerPlugin

from mce_notebook.errors import HostError
from mce_notebook.run import delivery
from mce_notebook.run.clusters import queue
from mce_notebook.run.clusters.fleet import Fleet, Refused
from mce_notebook.run.clusters.local import QUIET
from mce_notebook.run.clusters.node import ENVIRONMENT, environment
from mce_notebook.run.clusters.queue import SYSTEMS, Seen
from mce_notebook.run.clusters.request import JobRequest
from mce_notebook.run.clusters.script import Site, make_job, shared_folder
from mce_notebook.run.clusters.workers import Workers
from mce_notebook.run.pool import DaskPool, WorkerLost
from mce_notebook.run.registry import HostFolder, write_json
from mce_notebook.run.walltime import left_by

log = logging.getLogger("mce_notebook.cluster")

STEP_SECONDS = 0.5
# Over a network things break that do not on one machine. Slots compute, so a worker that is silent is not merely busy.
FAR = {
    "distributed.comm.timeouts.connect": "30s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.scheduler.worker-ttl": "5 minutes",
}
SUBMIT_SECONDS = 60.0
# Jobs of a host that was killed are looked for this long (seconds); then their numbers may belong to others.
MEMORY_SECONDS = 7 * 86400.0
JOBS, NODES = "jobs.json", "nodes.json"
# A block may meet so many workers in turn that do not see the store.
DELIVERIES = 20
# So much of what a job printed is shown.
TAIL = 2000


class JobQueue:
    """One batch system, through dask-jobqueue and the commands of `queue`; see `fleet.Backend`."""

    def __init__(self, request: JobRequest, site: Site):
        self._request = request
        self._site = site
        self._system = SYSTEMS[request.kind]
        self.transient = self._system.transient
        self._ids: dict[str, float] = {}

    async def submit(self, name: str) -> str:
        """Submit a job and return its id; raises Refused with what the batch system says."""
        job = self._job(name)
        try:
            async with asyncio.timeout(SUBMIT_SECONDS):
                await job.start()
        except FileNotFoundError as error:
            raise Refused(
                f"There is no {error.filename} here; start the notebook where {self._request.kind} jobs are submitted."
            ) from error
        except TimeoutError as error:
            raise Refused(f"{job.submit_command} timed out after {SUBMIT_SECONDS:g} s.") from error
        except (RuntimeError, ValueError, OSError) as error:
            raise Refused(_refusal(str(error))) from error
        self._remember({job.job_id: time.time()})
        return str(job.job_id)

    def _job(self, name: str) -> Any:
        return make_job(self._request, name, self._site)

    async def cancel(self, ids: Iterable[str]) -> None:
        """Cancel jobs; those that are gone do not matter."""
        found = list(ids)
        command = make_job(self._request, "mce-none", self._site).cancel_command
        for start in range(0, len(found), 50):
            # Refused where one of them has just ended; the queue is looked at again anyway.
            await queue.call([*shlex.split(command), *found[start : start + 50]])
        self._remember({}, found)

    async def look(self, ids: Iterable[str]) -> dict[str, Seen] | None:
        """Return the jobs by id; None when there is no answer."""
        return await queue.look(self._system, list(ids))

    async def last(self, job: str) -> Seen | None:
        """Return how a job ended that is not listed any more."""
        return await queue.last_words(self._system, job)

    def words(self, name: str, job: str) -> tuple[str, bool]:
        """Return what a job that brought no worker left behind, and whether it says that none ever will."""
        try:
            return (self._site.refusals / f"{name}.txt").read_text(encoding="utf-8"), True
        except OSError:
            return _last_line(output(self._site.logs, name, job)), False

    async def clear(self) -> None:
        """Cancel what a killed host left in the queue."""
        try:
            told = json.loads((self._site.folder / JOBS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        recent = [job for job, born in told.items() if time.time() - born < MEMORY_SECONDS]
        seen = await self.look(recent) if recent else {}
        left = [job for job in recent if seen is None or (job in seen and seen[job].state != queue.ENDED)]
        if left:
            log.info("cancelling jobs of a host that died: %s", ", ".join(left))
            await self.cancel(left)

    def _remember(self, more: Mapping[str, float], gone: Iterable[str] = ()) -> None:
        self._ids.update(more)
        for job in gone:
            self._ids.pop(job, None)
        write_json(self._site.folder / JOBS, self._ids)


def _refusal(text: str) -> str:
    """Return what a command said, of the account dask-jobqueue gives of its failure."""
    match = re.search(r"stdout:\n(.*)\nstderr:\n(.*)", text, re.DOTALL)
    said = f"{match[2]}\n{match[1]}" if match else text
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " ".join(lines[:4]) or "the batch system refused a job without a word"


def output(logs: Path, name: str, job: str) -> str:
    """Return the end of what a job printed, as far as it can be seen from here."""
    found = [path for path in logs.glob("*") if re.search(rf"(?<!\d){re.escape(job)}(?!\d)", path.name)]
    found = found or list(logs.glob(f"*{name}*"))
    texts = [path.read_text(encoding="utf-8", errors="replace").strip() for path in sorted(found)]
    return "\n".join(text for text in texts if text)[-TAIL:]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


class BatchPool(DaskPool):
    """The slots of a fleet: those that leave get no more blocks, and a death is looked up."""

    def __init__(self, client: Any, loads: Callable[[], Mapping[str, int]], fleet: Fleet):
        super().__init__(client, loads)
        self._fleet = fleet
        self._delivered: dict[tuple[Any, ...], asyncio.Future[None]] = {}

    @property
    def remark(self) -> str:
        """Why there are fewer slots than wanted."""
        return self._fleet.remark

    @property
    def refusal(self) -> str:
        """Why there will be none."""
        return self._fleet.refusal

    async def submit(self, task: Any, block: Any, **how: Any) -> Any:
        """Compute `block`; see `Pool.submit`."""
        for _ in range(DELIVERIES):
            try:
                result = await super().submit(task, block, **how)
            except WorkerLost as error:
                excused = bool(error.worker) and await self._fleet.excused(error.worker)
                raise WorkerLost(error.message, error.worker, excused) from error
            unseen = delivery.missing_at(result)
            if unseen is None:
                break
            await self._deliver(task, unseen)
            how["slot"] = unseen
        address = left_by(result)
        if address is not None:
            self._fleet.leaves(address)
        return result

    async def _deliver(self, task: Any, address: str) -> None:
        """Send a sweep to a worker that does not see the store; once, however many of its blocks wait for it."""
        mark = (address, delivery.key(task), task.declaration)
        if mark not in self._delivered:
            self._delivered[mark] = asyncio.ensure_future(self._send(task, address))
        await self._delivered[mark]

    async def _send(self, task: Any, address: str) -> None:
        log.info("%s does not see %s: its sweep %s is sent", address, task.store, task.name)
        files = await asyncio.to_thread(delivery.collect, task)
        future = self._client.submit(delivery.receive, task, files, pure=False, workers=[address])
        try:
            await future
        except (KilledWorker, CancelledError) as error:
            raise WorkerLost(f"The worker died while {task.name} was sent to it.", excused=True) from error
        finally:
            future.release()


class _Comings(SchedulerPlugin):
    """Says when workers come and go."""

    def __init__(self, came: Callable[[str], None], went: Callable[[str], None]):
        self._came = came
        self._went = went

    def add_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._came(worker)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._went(worker)


class BatchWorkers(Workers):
    """The workers of a batch system, from start to stop."""

    def __init__(self, request: JobRequest, folder: HostFolder, changed: Callable[[], None]):
        self.request = request
        self._nodes = folder.path / NODES
        self._changed = changed
        self._site = Site("", shared_folder(request, folder.path.name))
        self._warming: set[asyncio.Task[None]] = set()
        self._proved = asyncio.Event()
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self._scheduler: Any = None
        self._client: Any = None
        self.fleet: Fleet

    @classmethod
    async def start(cls, request: JobRequest, folder: HostFolder, changed: Callable[[], None]) -> "BatchWorkers":
        """Start a scheduler that the nodes can reach; jobs follow when slots are wanted.

        Raises
        ------
        HostError
            If the folder that host and nodes share cannot be used, or there is no such network interface.
        """
        started = cls(request, folder, changed)
        await started._open()
        return started

    async def _open(self) -> None:
        dask.config.set({**QUIET, **FAR})
        security: Any = Security.temporary()  # type: ignore[no-untyped-call]
        _prepare(self._site, security)
        scheduler: Any = Scheduler
        try:
            self._scheduler = await scheduler(
                protocol="tls://",
                interface=self.request.interface,
                port=0,
                security=security,
                dashboard=False,
                # Its pages are open to whoever reaches them: nobody but this machine.
                dashboard_address="127.0.0.1:0",
            )
        except ValueError as error:
            raise HostError(f"interface of profile {self.request.profile}: {error}") from error
        connect: Any = Client
        self._client = await connect(
            self._scheduler.address, security=security, asynchronous=True, set_as_default=False, direct_to_workers=True
        )
        self._site = Site(self._scheduler.address, self._site.folder)
        backend = JobQueue(self.request, self._site)
        await backend.clear()
        self.fleet = Fleet(self.request, backend, f"mce-{secrets.token_hex(2)}", self._loads, self._pause)
        self.pool = BatchPool(self._client, self._ready_loads, self.fleet)
        self._scheduler.add_plugin(_Comings(self._came, self._went), name="mce-comings")
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self) -> None:
        """Wait until a task has run on a worker."""
        await self._proved.wait()

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
        """Cancel all jobs, the waiting ones too, and stop the scheduler."""
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
        await self._client.close(timeout=2)
        await self._scheduler.close()
        # The next host makes certificates of its own; logs stay, for people.
        self._site.key.unlink(missing_ok=True)

    # Workers

    def _loads(self) -> dict[str, int]:
        return {address: len(worker.processing) for address, worker in self._scheduler.workers.items()}

    def _ready_loads(self) -> dict[str, int]:
        loads = self._loads()
        ready = [address for job in self.fleet.jobs.values() if not job.leaving for address in job.workers]
        return {address: loads[address] for address in ready if address in loads}

    def _pause(self, addresses: Iterable[str]) -> None:
        for address in list(addresses):
            worker = self._scheduler.workers.get(address)
            if worker is not None:
                self._scheduler.handle_worker_status_change("paused", worker, f"mce-leaving-{time.monotonic_ns()}")
        self._changed()

    def _came(self, address: str) -> None:
        task = asyncio.ensure_future(self._warm(address))
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    async def _warm(self, address: str) -> None:
        """Run a task on a worker that came; only then it counts."""
        from mce_notebook.run.worker import warm

        name = str(self._scheduler.workers[address].name)
        future = self._client.submit(warm, self.request.slot_cores, pure=False, workers=[address])
        try:
            await future
        except Exception as error:
            log.warning("%s did not run its first task: %s", name, error)
            return
        finally:
            future.release()
        self.fleet.arrived(name, address)
        self._proved.set()
        self._changed()

    def _went(self, address: str) -> None:
        self.fleet.left(address)
        self._changed()

    async def _keep(self) -> None:
        told: Any = None
        while not self._closing:
            try:
                await self.fleet.step()
            except Exception:
                # One look that fails must not end the looking.
                log.exception("the queue could not be looked after")
            rows = self.fleet.nodes()
            if rows != told:
                told = rows
                write_json(self._nodes, rows)
            await asyncio.sleep(STEP_SECONDS)


def _prepare(site: Site, security: Any) -> None:
    """Make the shared folder: what workers need to find us and to be believed, for the eyes of this user only."""
    try:
        site.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        site.folder.chmod(0o700)
        site.logs.mkdir(exist_ok=True)
        for log in site.logs.iterdir():
            if time.time() - log.stat().st_mtime > MEMORY_SECONDS:
                log.unlink()
        shutil.rmtree(site.refusals, ignore_errors=True)
        site.refusals.mkdir(exist_ok=True)
        site.certificate.write_text(security.tls_worker_cert, encoding="ascii")
        site.key.unlink(missing_ok=True)
        descriptor = os.open(site.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(security.tls_worker_key)
        write_json(site.folder / ENVIRONMENT, environment())
    except OSError as error:
        raise HostError(f"{site.folder} cannot be used ({error}); set `folder` in the profile.") from error
