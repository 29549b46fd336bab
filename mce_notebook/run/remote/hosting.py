"""On the far side: the host of a profile, found, started and asked through a folder that its machines share.

    <folder>/hosts/<key>/         as the folder of any host, but one key for all login nodes, and the doorbell elsewhere
      shared                      says so
      job.json                    the job the host was submitted as, with `host = "job"`

The connection may lead to another login node every time, and a host in a job runs on none of them: whether it lives is
told by its process where that can be seen, and by the age of its heartbeat where not, on the clock of the file system.
"""

import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.client import begin, last_words
from mce_notebook.run.inbox import Inbox
from mce_notebook.run.registry import HostFolder, Launch, machine, package, private_folder, read_json, write_json

# A heartbeat of another machine that is older than this is that of a dead host (seconds).
SILENCE = 20.0
START_SECONDS = 60.0
ANSWER_SECONDS = 150.0
# Between two questions to the batch system about a host that is a job (seconds).
ASK_SECONDS = 5.0
JOB = "job.json"


class FarHost:
    """The host of one profile, wherever it runs.

    Parameters
    ----------
    folder : Path
        The folder of the profile.
    launch : Launch
        What the host is for, with the Python of this side.
    in_job : float
        Seconds of walltime where the host is a job of its own; 0 where it is a process of this machine.
    """

    def __init__(self, folder: Path, launch: Launch, in_job: float = 0.0):
        self.launch = launch
        self._in_job = in_job
        # When the batch system was asked last, and whether the job was there.
        self._asked = (0.0, False)
        path = private_folder(folder / "hosts") / _key(launch)
        self.folder = HostFolder(private_folder(path))
        (path / HostFolder.SHARED).touch()
        for part in (self.folder.inbox, self.folder.replies, self.folder.claims):
            part.mkdir(mode=0o700, exist_ok=True)
        self._inbox = Inbox(self.folder)

    def alive(self) -> bool:
        """Return whether it runs."""
        claim = self.folder.claim()
        if claim is None:
            return False
        if claim.process.machine == machine():
            return claim.process.alive()
        state = self.folder.state()
        if state.get("pid") == claim.process.pid and state.get("state") == "stopped":
            return False
        return self._age() < SILENCE

    def _age(self) -> float:
        """Seconds since something was heard of it, by the clock that dates the files."""
        probe = self.folder.path / f".now.{os.getpid()}"
        try:
            probe.touch()
            now = probe.stat().st_mtime
            claimed = max((path.stat().st_mtime for path in self.folder.claims.iterdir()), default=0.0)
            beaten = self.folder.state_file.stat().st_mtime if self.folder.state_file.exists() else 0.0
            return now - max(claimed, beaten)
        except OSError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """Return its heartbeat; of one that waits in the queue, what the batch system says of it."""
        if self.alive():
            return self.folder.state() or {"state": "starting"}
        return {"state": "starting", "message": self._waiting()} if self.waits() else {}

    def waits(self) -> bool:
        """Return whether it is a job that has not begun."""
        if not self._in_job or self.alive():
            return False
        asked, known = self._asked
        if time.monotonic() - asked > ASK_SECONDS:
            known = bool(self._job())
            self._asked = (time.monotonic(), known)
        return known

    def nodes(self) -> list[Any]:
        """Return its jobs."""
        found = read_json(self.folder.path / "nodes.json") if self.alive() else None
        return found if isinstance(found, list) else []

    def ensure(self) -> None:
        """Start it unless it runs or waits in the queue.

        Raises
        ------
        HostError
            If it does not come up, with its last words; or the batch system refuses it, with its.
        """
        if self.alive():
            if self.folder.state().get("state") not in ("draining", "stopped", "failed"):
                return
            self._left()
        write_json(self.folder.launch_file, self.launch.__dict__)
        if self._in_job:
            if not self._job():
                self._submit()
            self._asked = (time.monotonic(), True)
            return
        child = begin(self.folder, self.launch)
        end = time.monotonic() + START_SECONDS
        while not self.alive():
            if child.poll() not in (None, 0) or time.monotonic() > end:
                raise HostError(f"The host did not come up.{last_words(self.folder)}")
            time.sleep(0.02)

    def _left(self) -> None:
        end = time.monotonic() + START_SECONDS
        while self.alive():
            if time.monotonic() > end:
                raise HostError(f"A host that is leaving has not left for {START_SECONDS:g} s.")
            time.sleep(0.1)

    def request(self, body: Mapping[str, Any]) -> str:
        """Leave a request and return its name."""
        return self._inbox.put(dict(body))

    def answer(self, name: str, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Wait for the reply to a request.

        Raises
        ------
        HostError
            If there is none in time, or it says no.
        """
        end = time.monotonic() + seconds
        while (found := self._inbox.reply(name)) is None:
            if time.monotonic() > end or not (self.alive() or self._in_job):
                raise HostError(f"The host did not answer.{last_words(self.folder)}")
            time.sleep(0.05)
        if not found.get("ok"):
            raise HostError(str(found.get("error")))
        return found

    def drives(self, store: str, name: str) -> bool:
        """Return whether it computes a sweep, or has been asked to and not looked yet."""
        state = self.folder.state()
        driven = [(sweep.get("store"), sweep.get("name")) for sweep in state.get("sweeps") or ()]
        return (store, name) in driven or any(
            (one.body.get("store"), one.body.get("name")) == (store, name) for one in self._inbox.requests()
        )

    def counter(self) -> int:
        """Return the number of its last heartbeat."""
        return int(self.folder.state().get("counter") or 0)

    def shutdown(self, seconds: float = 90.0) -> None:
        """Let it finish its blocks and cancel its jobs; cancel it where it only waits in the queue.

        Raises
        ------
        HostError
            If it is still there after `seconds`.
        """
        if self._in_job and not self.alive():
            self._cancel()
            return
        if not self.alive():
            return
        self.request({"verb": "shutdown"})
        end = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > end:
                self._kill()
                break
            time.sleep(0.05)
        self._cancel()

    def _kill(self) -> None:
        claim = self.folder.claim()
        if claim is None or claim.process.machine != machine():
            raise HostError("The host has not ended when it was told to.")
        os.kill(claim.process.pid, signal.SIGKILL)

    def log(self) -> str:
        """Return what it and its newest jobs said last."""
        from mce_notebook.run.clusters.request import JobRequest
        from mce_notebook.run.clusters.script import shared_folder

        files = [self.folder.log]
        if self.launch.job:
            logs = shared_folder(JobRequest.from_json(self.launch.job), self.folder.path.name) / "logs"
            found = list(logs.glob("*")) if logs.is_dir() else []
            files += sorted(found, key=lambda path: path.stat().st_mtime)[-6:]
        return "\n".join(f"== {path}\n{tail(path)}" for path in files)

    # A host that is a job

    def _job(self) -> str:
        """Return the job it waits or runs in, "" where that is over."""
        from mce_notebook.run.clusters import queue
        from mce_notebook.run.clusters.queue import SYSTEMS

        told = read_json(self.folder.path / JOB)
        if not isinstance(told, dict) or not told.get("id"):
            return ""
        job, kind = str(told["id"]), str(json.loads(self.launch.job)["kind"])
        seen = asyncio.run(queue.look(SYSTEMS[kind], [job]))
        if seen is None:
            # No answer: it is as it was.
            return job
        return job if job in seen and seen[job].state != queue.ENDED else ""

    def _waiting(self) -> str:
        from mce_notebook.run.clusters import queue
        from mce_notebook.run.clusters.queue import SYSTEMS

        job, kind = self._job(), str(json.loads(self.launch.job)["kind"])
        seen = (asyncio.run(queue.look(SYSTEMS[kind], [job])) or {}).get(job) if job else None
        return "the host waits in the queue" + (f": {seen.reason}" if seen is not None and seen.reason else "")

    def _submit(self) -> None:
        from mce_notebook.run.remote.hostjob import submit

        write_json(self.folder.path / JOB, {"id": submit(self.launch, self.folder, self._in_job), "time": time.time()})

    def _cancel(self) -> None:
        if self._in_job and (job := self._job()):
            from mce_notebook.run.remote.hostjob import cancel

            cancel(self.launch, self.folder, job)


def far_launch(launch: Mapping[str, Any], python: str, prefix: str) -> Launch:
    """Return what a host on this side is for, as the other side says it."""
    return replace(Launch(**launch), python=python, prefix=prefix)


def _key(launch: Launch) -> str:
    """As `Launch.key`, but the same on every machine."""
    parts = [launch.profile, launch.python, launch.prefix, launch.cores, launch.gpus, launch.workers, package()]
    return hashlib.sha256(json.dumps([*parts, launch.job]).encode()).hexdigest()[:16]


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a file of text, or why it cannot be read."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])
    except OSError as error:
        return str(error)
