"""The jobs of one cluster, kept in line with what is wanted and with what the batch system says of them.

Every look at the queue answers for each job: is it there, does it wait and why, has it ended and how. Jobs that are
gone are buried and replaced, whatever ended them; a name is used once. Nothing here knows Dask.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mce_notebook.errors import ClusterError
from mce_notebook.run.clusters.queue import ENDED, HELD, RUNNING, WAITING, Seen
from mce_notebook.run.clusters.request import JobRequest

log = logging.getLogger("mce_notebook.cluster")

# Between two looks at the queue: while something is expected to change, and while nothing is (seconds).
SOON, RARELY = 1.5, 6.0
# Slots without work for this long are given back when fewer are wanted (seconds).
SPARE_SECONDS = 15.0
# A job may be missing in the listing for a moment after it was submitted (seconds).
GRACE_SECONDS = 5.0
# So many refusals or still-born jobs in a row, with no slot working, and the cluster gives up.
PATIENCE = 2
# Jobs that vanish from the queue without a trace are replaced so often in a row.
VANISHED_TIMES = 30
# The batch system's limit on jobs is tried again after this long (seconds).
RETRY_SECONDS = 60.0
# Submissions in one round, and at a time: a controller is shared by everybody.
BURST, TOGETHER = 40, 4
# How long the death of a worker waits for the batch system to explain it (seconds).
EXPLAIN_SECONDS = 40.0
# The word for the end of a job that is not listed any more and that nobody knows anything of.
GONE = "gone"

# A job that runs has this long to bring its workers, and to get back those it lost (seconds).
START_SECONDS, LOST_SECONDS = 180.0, 30.0

# What reasons of Slurm mean, for those who do not read them every day; others are shown as they are.
REASONS = {
    "Resources": "what fits is in use",
    "Priority": "others come first",
    "Dependency": "waits for another job",
    "PartitionDown": "the partition is down and starts nothing",
    "PartitionInactive": "the partition starts nothing",
    "PartitionTimeLimit": "walltime is above the limit of the partition; it will not start",
    "PartitionNodeLimit": "the partition has no such node; it will not start",
    "ReqNodeNotAvail": "the nodes are down or reserved",
    "JobHeldUser": "held by you",
    "JobHeldAdmin": "held by an administrator",
    "BeginTime": "not before its time",
    "AccountNotAllowed": "the account may not use the partition; it will not start",
    "InvalidAccount": "the account is not valid; it will not start",
}


class Refused(ClusterError):
    """The batch system did not take a job; with its own words."""


class Backend(Protocol):
    """One batch system, as a fleet needs it."""

    transient: str

    async def submit(self, name: str) -> str:
        """Submit a job and return its id; raises Refused."""

    async def cancel(self, ids: Iterable[str]) -> None:
        """Cancel jobs; those that are gone do not matter."""

    async def look(self, ids: Iterable[str]) -> dict[str, Seen] | None:
        """Return the jobs by id; None when there is no answer."""

    async def last(self, job: str) -> Seen | None:
        """Return how a job ended that is not listed any more."""

    def words(self, name: str, job: str) -> tuple[str, bool]:
        """Return what a job that brought no worker left behind, and whether it says that none ever will."""


@dataclass
class Job:
    """One job: submitted, waiting, running, leaving."""

    name: str
    id: str = ""
    seen: Seen | None = None
    submitted: float = 0.0
    # Addresses of its workers that are up and have run a task.
    workers: set[str] = field(default_factory=set)
    began: float = 0.0
    arrived: float = 0.0
    idle: float = 0.0
    leaving: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waits(self) -> bool:
        """Whether it has not begun, as far as anybody knows."""
        return not self.arrived and (self.seen is None or self.seen.state in (WAITING, HELD))


class Fleet:
    """Keeps as many jobs as are wanted.

    Parameters
    ----------
    request : JobRequest
    backend : Backend
    prefix : str
        Of the names of jobs; no other fleet has it.
    loads : callable
        Returns how many blocks every worker has, by address.
    retire : callable
        Takes addresses of workers; they get no more blocks from then on.
    spare, start : float
        Seconds after which slots without work are given back, and within which a job has to bring its workers.
    together : int
        Submissions at a time.
    """

    def __init__(
        self,
        request: JobRequest,
        backend: Backend,
        prefix: str,
        loads: Callable[[], Mapping[str, int]],
        retire: Callable[[Iterable[str]], None],
        *,
        spare: float = SPARE_SECONDS,
        start: float = START_SECONDS,
        together: int = TOGETHER,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.request = request
        self.jobs: dict[str, Job] = {}
        self.past: deque[Job] = deque(maxlen=200)
        # Slots that sweeps could use; slots to be kept and had at most.
        self.wanted = 0
        self.least = request.min_workers
        self.most = request.max_workers
        # Why there will be no slots; empty while there may be.
        self.refusal = ""
        self.events: deque[str] = deque(maxlen=100)
        self._backend = backend
        self._prefix = prefix
        self._loads = loads
        self._retire = retire
        self._spare = spare
        self._start = start
        self._together = together
        self._clock = clock
        self._number = 0
        self._failures = 0
        self._vanished = 0
        self._words = ""
        self._limit: int | None = None
        self._limit_until = 0.0
        self._pause_until = 0.0
        self._gave_up = 0.0
        self._silent = 0
        self._looked = -RARELY

    # What is asked for

    @property
    def target(self) -> int:
        """Jobs to have now."""
        slots = max(self.least, min(self.wanted, self.most))
        jobs = -(-slots // self.request.processes)
        if self.request.max_jobs is not None:
            jobs = min(jobs, self.request.max_jobs)
        return jobs

    @property
    def slots(self) -> int:
        """Workers that are up."""
        return sum(len(job.workers) for job in self.jobs.values() if not job.leaving)

    @property
    def remark(self) -> str:
        """Why there are fewer slots than wanted, in the batch system's words; empty when there are not."""
        told = []
        waiting = Counter(job.seen.reason if job.seen is not None else "" for job in self.jobs.values() if job.waits)
        count = sum(waiting.values())
        if count:
            reasons = [_explained(reason) for reason, _ in waiting.most_common(3) if reason]
            noun = "job waits" if count == 1 else "jobs wait"
            told.append(f"{count} {noun} in the queue" + (f": {'; '.join(reasons)}" if reasons else ""))
        starting = sum(not job.arrived and not job.waits for job in self.jobs.values())
        if starting:
            told.append(f"{starting} {'job starts' if starting == 1 else 'jobs start'}")
        if self._limit is not None:
            told.append(f"no more than {self._limit} jobs are taken: {self._words}")
        if self._silent > 1:
            told.append(f"the batch system ({self.request.kind}) does not answer")
        elif self._failures and not self.refusal:
            told.append(self._words)
        return f"{self.slots} slots; {'; '.join(told)}" if told else ""

    # What workers do

    def job_of(self, worker: str) -> Job | None:
        """Return the job of a worker's name; where several share a job, their names end in a number more."""
        return self.jobs.get(worker) or self.jobs.get(worker.rpartition("-")[0])

    def arrived(self, worker: str, address: str) -> None:
        """Take in that a worker is up and has run a task."""
        job = self.job_of(worker)
        if job is not None:
            job.workers.add(address)
            job.arrived = job.idle = self._clock()
            self._failures, self._vanished, self._words = 0, 0, ""

    def left(self, address: str) -> None:
        """Take in that a worker is gone; its job is looked at soon."""
        for job in self.jobs.values():
            if address in job.workers:
                job.workers.discard(address)
                job.idle = self._clock()
                self._looked = -RARELY

    def leaves(self, address: str) -> None:
        """Take in that the job of a worker ends soon: it and its neighbours get no more blocks."""
        for job in self.jobs.values():
            if address in job.workers and not job.leaving:
                self._say(f"{job.name} ({job.id}) leaves before its walltime ends")
                job.leaving = True
                self._retire(job.workers)

    async def excused(self, worker: str) -> bool:
        """Return whether the batch system ended the job of a worker that died; waits for it to say so."""
        job = self.job_of(worker)
        if job is None:
            job = next((one for one in reversed(self.past) if worker.startswith(one.name)), None)
        if job is None:
            return False
        self._looked = -RARELY
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXPLAIN_SECONDS):
                await job.ended.wait()
        return job.seen is not None and job.seen.excuses

    # The work

    async def step(self) -> None:
        """Do what has to be done now; called about twice a second."""
        await self._look()
        if self.refusal:
            if not self.target or (not self.wanted and self._clock() > self._gave_up + RETRY_SECONDS):
                # Nobody waits any more; the next sweep may meet a system that was repaired.
                self.refusal, self._failures = "", 0
            return
        active = [job for job in self.jobs.values() if not job.leaving]
        missing = self.target - len(active)
        if missing > 0:
            await self._grow(missing)
        await self._shrink(-missing)

    def hurry(self) -> None:
        """Submit at the next step what was to be tried again later."""
        self._pause_until = 0.0
        self._failures, self._words = 0, ""

    def stop(self) -> None:
        """Submit no more; a step that is under way comes to its end soon."""
        self.least = self.most = 0

    async def close(self) -> None:
        """Cancel all jobs, the waiting ones too."""
        await self._cancel(list(self.jobs.values()))
        self.jobs.clear()

    async def _look(self) -> None:
        now = self._clock()
        known = [job for job in self.jobs.values() if job.id]
        changing = any(not job.workers or job.leaving for job in known)
        if not known or now - self._looked < (SOON if changing else RARELY):
            return
        self._looked = now
        seen = await self._backend.look([job.id for job in known])
        if seen is None:
            self._silent += 1
            return
        self._silent = 0
        for job in known:
            found = seen.get(job.id)
            if found is None:
                if job.seen is None and now - job.submitted < GRACE_SECONDS:
                    continue
                found = await self._backend.last(job.id) or Seen(ENDED, GONE)
            job.began = job.began or (now if found.state == RUNNING else 0.0)
            job.seen = found
            if found.state == ENDED:
                await self._bury(job)
            elif found.state == HELD and not job.arrived:
                await self._bury(job, held=True)
            elif found.state == RUNNING:
                await self._check(job, now)

    async def _check(self, job: Job, now: float) -> None:
        """Give up a job that runs without its workers: cut off, or never able to reach us."""
        if job.workers or now - max(job.began, job.idle) < (LOST_SECONDS if job.arrived else self._start):
            return
        why = "lost its workers" if job.arrived else f"brought no worker within {self._start:g} s"
        job.seen = Seen(ENDED, "NODE_FAIL", f"{why}, and was cancelled")
        await self._cancel([job])
        await self._bury(job)

    async def _bury(self, job: Job, *, held: bool = False) -> None:
        del self.jobs[job.name]
        self.past.append(job)
        job.ended.set()
        assert job.seen is not None
        if held:
            await self._cancel([job])
        told = f"{job.name} ({job.id}): {job.seen.word} {job.seen.reason}".strip()
        self._say(told)
        if job.arrived or job.leaving or job.seen.word in ("CANCELLED", "PREEMPTED"):
            return
        words, final = self._backend.words(job.name, job.id)
        if job.seen.word == GONE and not (job.began or words):
            # It never began, as far as anybody knows: cancelled while it waited. But not for ever.
            self._vanished += 1
            if self._vanished <= VANISHED_TIMES:
                return
        self._fail(f"A job ended before its worker came up: {words or told}", final=final)

    def _fail(self, words: str, *, final: bool = False) -> None:
        self._failures += 1
        self._words = words
        self._say(words)
        working = any(job.workers for job in self.jobs.values())
        if (final or self._failures > PATIENCE) and not working:
            self.refusal, self._gave_up = words, self._clock()

    async def _grow(self, missing: int) -> None:
        now = self._clock()
        if now < self._pause_until:
            return
        if self._limit is not None:
            if now < self._limit_until and len(self.jobs) >= self._limit:
                return
            self._limit = None
        for start in range(0, min(missing, BURST), self._together):
            if self.target <= sum(not job.leaving for job in self.jobs.values()):
                # Fewer are wanted by now, or none at all.
                return
            fresh = [self._new() for _ in range(min(self._together, min(missing, BURST) - start))]
            if not all(await asyncio.gather(*(self._submit(job) for job in fresh))):
                return

    def _new(self) -> Job:
        self._number += 1
        job = Job(f"{self._prefix}-{self._number}")
        self.jobs[job.name] = job
        return job

    async def _submit(self, job: Job) -> bool:
        try:
            job.id = await self._backend.submit(job.name)
        except Refused as error:
            self.jobs.pop(job.name, None)
            self._refused(str(error))
            return False
        except BaseException:
            self.jobs.pop(job.name, None)
            raise
        job.submitted = self._clock()
        if self._limit is not None:
            # Submitted beside one that was refused, which was told before this one.
            self._limit = max(self._limit, sum(1 for one in self.jobs.values() if one.id))
        self._say(f"{job.name} is job {job.id}")
        return True

    def _refused(self, words: str) -> None:
        now = self._clock()
        if re.search(self._backend.transient, words, re.IGNORECASE):
            self._words, self._pause_until = words, now + 5
            self._failures = max(1, self._failures)
            return
        alive = sum(1 for job in self.jobs.values() if job.id)
        if alive:
            # What there is goes on; a limit on jobs is the usual cause.
            self._limit, self._limit_until, self._words = alive, now + RETRY_SECONDS, words
            self._say(f"no more than {alive} jobs: {words}")
            return
        self._pause_until = now + 0.5
        self._fail(words)

    async def _shrink(self, surplus: int) -> None:
        """Cancel what waits in vain, and jobs whose slots had nothing to do for a while; never one that computes."""
        now = self._clock()
        loads = self._loads()
        for job in self.jobs.values():
            if any(loads.get(address, 0) for address in job.workers):
                job.idle = now
        gone = [job for job in self.jobs.values() if job.leaving and job.idle < now]
        if surplus > 0:
            waiting = [job for job in reversed(self.jobs.values()) if job.waits and job.id and not job.leaving]
            idle = [job for job in self.jobs.values() if job.workers and not job.leaving]
            idle = [job for job in idle if now - job.idle >= self._spare]
            gone += (waiting + idle)[:surplus]
        for job in gone:
            job.leaving = True
            self._retire(job.workers)
        await self._cancel(gone)
        for job in gone:
            self.jobs.pop(job.name, None)
            self.past.append(job)
            job.seen = Seen(ENDED, "CANCELLED", "no longer needed")
            job.ended.set()

    async def _cancel(self, jobs: Iterable[Job]) -> None:
        ids = [job.id for job in jobs if job.id]
        if ids:
            await self._backend.cancel(ids)

    def _say(self, what: str) -> None:
        log.info("%s", what)
        self.events.append(what)

    def nodes(self) -> list[dict[str, Any]]:
        """Return a row for each job: name, id, state, reason, workers."""
        return [
            {
                "job": job.id,
                "name": job.name,
                "state": "leaving" if job.leaving else "ready" if job.workers else _state(job),
                "reason": _explained(job.seen.reason) if job.seen is not None and job.waits else "",
                "workers": sorted(job.workers),
            }
            for job in self.jobs.values()
        ]


def _state(job: Job) -> str:
    if job.seen is None:
        return "submitted"
    return "starting" if job.seen.state == RUNNING else job.seen.state


def _explained(reason: str) -> str:
    word = reason.split(",")[0].strip("() ")
    meaning = REASONS.get(word, "your limit is reached" if re.match(r"(QOS|Assoc)\w*(Limit|Max)", word) else "")
    return f"{reason} ({meaning})" if meaning else reason
