"""What hosts that are gone have left behind, and would go on waiting, running or costing: found, and removed.

A host cancels its jobs when it ends, and what a killed one left is cancelled by the next of the same kind. This is for
those that have no next. Each kind of cluster has a `Reaper`; a new kind adds a line to `reaper`.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mce_notebook.errors import ClusterError
from mce_notebook.run.clusters.profiles import BATCH, Profile
from mce_notebook.run.registry import Process, machine, read_json, write_json

# Beside the certificates that host and nodes share: whose they are.
OWNER = "host.json"
JOBS = "jobs.json"
# A host touches that file so often; one of another machine is gone when it has not for so long (seconds).
BEAT_SECONDS, GONE_SECONDS = 60.0, 900.0
# Ids of jobs may belong to others some day (seconds).
MEMORY_SECONDS = 7 * 86400.0
# A job that runs takes a moment to end: it is looked for so often, once a second.
CANCEL_TRIES = 10


@dataclass(frozen=True)
class Orphan:
    """One job, VM or secret whose host is gone.

    Parameters
    ----------
    id : str
        As its system calls it.
    what : str
        Job, VM, secret.
    state : str
        In the system's words.
    host : str
        Whose it was: machine and process.
    born : float
        Seconds since 1970; 0 where it is not known.
    sure : bool
        Whether its host is known to be gone; of one on a machine that cannot be seen from here it is only likely.
    place : str
        Where its reaper finds it again: a folder, a zone.
    """

    id: str
    what: str
    state: str
    host: str
    born: float = 0.0
    sure: bool = True
    place: str = ""


class Reaper(Protocol):
    """Finds and removes what hosts of one profile have left."""

    async def find(self) -> list[Orphan]:
        """Return what was left.

        Raises
        ------
        ClusterError
            If the system does not tell.
        """

    async def remove(self, orphans: Sequence[Orphan]) -> list[Orphan]:
        """Remove them; return those that are still there."""


def reaper(profile: Profile) -> Reaper | None:
    """Return the reaper of a profile; None where hosts leave nothing that outlives them."""
    if profile.kind in BATCH:
        return JobReaper(profile)
    if profile.kind == "gce":
        from mce_notebook.run.clusters.orphans import VMReaper

        return VMReaper(profile)
    return None


# Batch systems


@dataclass(frozen=True)
class Owner:
    """Who shares a folder with its jobs: written by the host, touched while it lives."""

    kind: str
    profile: str
    process: Process
    seen: float

    @property
    def here(self) -> bool:
        """Whether it was a process of this machine since it was started, whose end can be seen from here."""
        return self.process.machine == machine()

    @property
    def gone(self) -> bool:
        """Whether it has ended, as far as can be seen from here."""
        if self.here:
            return not self.process.alive()
        return time.time() - self.seen > GONE_SECONDS

    @property
    def name(self) -> str:
        """Machine and process, for people."""
        return f"{self.process.hostname}, pid {self.process.pid}"


def sign(folder: Path, kind: str, profile: str) -> None:
    """Leave in a shared folder whose it is: the calling process's."""
    write_json(folder / OWNER, {"kind": kind, "profile": profile, "process": asdict(Process.current())})


def touch(folder: Path) -> None:
    """Say that the owner of a shared folder lives."""
    os.utime(folder / OWNER)


def owner(folder: Path) -> Owner | None:
    """Return whose a shared folder is or was; None where nobody signed it."""
    record = read_json(folder / OWNER)
    if not isinstance(record, dict):
        return None
    try:
        seen = (folder / OWNER).stat().st_mtime
        return Owner(record["kind"], record["profile"], Process(**record["process"]), seen)
    except (OSError, KeyError, TypeError):
        return None


def owners(profile: Profile) -> list[Owner]:
    """Return whose the shared folders of a profile are or were; none for kinds without such folders."""
    if profile.kind not in BATCH:
        return []
    found = [owner(path.parent) for path in sorted(_root(profile).glob(f"*/{OWNER}"))]
    return [one for one in found if one is not None and one.profile == profile.name]


def _root(profile: Profile) -> Path:
    from mce_notebook.run.clusters.request import resolve
    from mce_notebook.run.clusters.script import shared_folder

    return shared_folder(resolve(profile), "any").parent


class JobReaper:
    """Jobs of hosts that are gone, from what these wrote down when they submitted them.

    Parameters
    ----------
    profile : Profile
        Of a batch system; says where the shared folders are.
    """

    def __init__(self, profile: Profile):
        from mce_notebook.run.clusters.request import resolve

        self._request = resolve(profile)
        self._root = _root(profile)

    async def find(self) -> list[Orphan]:
        """Return jobs that are in the queue and whose host is gone."""
        from mce_notebook.run.clusters import queue

        left = dict(self._left())
        if not left:
            return []
        system = queue.SYSTEMS[self._request.kind]
        seen = await queue.look(system, list(left))
        if seen is None:
            raise ClusterError(
                f"{system.ask[0]} does not answer, so nobody knows which jobs are left; try again later."
            )
        return [
            Orphan(
                id=job, what="job", state=f"{seen[job].word} {seen[job].reason}".strip(), host=whose.name, born=born,
                sure=whose.here, place=str(folder),
            )
            for job, (whose, born, folder) in left.items()
            if job in seen and seen[job].state != queue.ENDED
        ]  # fmt: skip

    async def remove(self, orphans: Sequence[Orphan]) -> list[Orphan]:
        """Cancel jobs; return those that the system still lists."""
        from mce_notebook.run.clusters.jobqueue import JobQueue
        from mce_notebook.run.clusters.script import Site

        for folder in {orphan.place for orphan in orphans}:
            here = [orphan.id for orphan in orphans if orphan.place == folder]
            await JobQueue(self._request, Site("", Path(folder))).cancel(here)
        left = await self._still(orphans)
        for folder in {orphan.place for orphan in orphans}:
            # Found again next time, by whoever looks.
            write_json(Path(folder) / JOBS, {orphan.id: orphan.born for orphan in left if orphan.place == folder})
        return left

    async def _still(self, orphans: Sequence[Orphan]) -> list[Orphan]:
        """Look until they are gone, or for some seconds: a job that runs takes a moment to end."""
        from mce_notebook.run.clusters import queue

        left = list(orphans)
        for _ in range(CANCEL_TRIES):
            seen = await queue.look(queue.SYSTEMS[self._request.kind], [orphan.id for orphan in left])
            if seen is not None:
                left = [one for one in left if one.id in seen and seen[one.id].state != queue.ENDED]
            if not left:
                break
            await asyncio.sleep(1)
        return left

    def _left(self) -> Iterable[tuple[str, tuple[Owner, float, Path]]]:
        """Yield ids of jobs that hosts of this batch system wrote down, and that are gone now."""
        for record in sorted(self._root.glob(f"*/{JOBS}")):
            whose, jobs = owner(record.parent), read_json(record)
            if whose is None or whose.kind != self._request.kind or not whose.gone or not isinstance(jobs, dict):
                continue
            recent: dict[str, Any] = {job: born for job, born in jobs.items() if time.time() - born < MEMORY_SECONDS}
            for job, born in recent.items():
                yield job, (whose, float(born), record.parent)


def described(orphans: Iterable[Orphan]) -> list[tuple[str, ...]]:
    """Return rows of a table for people, its head first."""
    rows: list[tuple[str, ...]] = [("what", "id", "state", "age", "host")]
    for one in orphans:
        age = f"{(time.time() - one.born) / 3600:.1f} h" if one.born else ""
        rows.append((one.what, one.id, one.state, age, one.host + ("" if one.sure else " (not heard of lately)")))
    return rows
