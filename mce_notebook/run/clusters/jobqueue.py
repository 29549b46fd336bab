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
from distributed import Security

from mce_notebook.errors import HostError
from mce_notebook.run.clusters import queue
from mce_notebook.run.clusters.fleet import Refused
from mce_notebook.run.clusters.fleet_workers import SUBMIT_SECONDS, FleetWorkers
from mce_notebook.run.clusters.local import QUIET
from mce_notebook.run.clusters.node import ENVIRONMENT, environment
from mce_notebook.run.clusters.queue import SYSTEMS, Seen
from mce_notebook.run.clusters.reaping import BEAT_SECONDS, JOBS, MEMORY_SECONDS, sign, touch
from mce_notebook.run.clusters.request import JobRequest
from mce_notebook.run.clusters.scheduler import FAR, OwnScheduler
from mce_notebook.run.clusters.script import Site, make_job, shared_folder
from mce_notebook.run.registry import HostFolder, write_json

log = logging.getLogger("mce_notebook.cluster")

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


class BatchWorkers(FleetWorkers):
    """The workers of a batch system, from start to stop."""

    def __init__(self, request: JobRequest, folder: HostFolder, changed: Callable[[], None]):
        super().__init__(request, folder, changed)
        self._site = Site("", shared_folder(request, folder.path.name))
        self._signed = time.monotonic()

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
        try:
            scheduler = await OwnScheduler.start(self.request.interface, security, self.came, self.went)
        except ValueError as error:
            raise HostError(f"interface of profile {self.request.profile}: {error}") from error
        self._site = Site(scheduler.address, self._site.folder)
        backend = JobQueue(self.request, self._site)
        await backend.clear()
        sign(self._site.folder, self.request.kind, self.request.profile)
        self.serve(scheduler, backend, f"mce-{secrets.token_hex(2)}")

    async def look_after(self) -> None:
        """Say now and then that this host lives, to whoever sees its folder from another machine."""
        await super().look_after()
        if time.monotonic() - self._signed > BEAT_SECONDS:
            self._signed = time.monotonic()
            touch(self._site.folder)

    async def close(self) -> None:
        """Cancel all jobs, the waiting ones too, and stop the scheduler."""
        await super().close()
        # The next host makes certificates of its own; logs stay, for people.
        self._site.key.unlink(missing_ok=True)


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
