"""A host that is a small job of its own: submitted here, and what the job runs.

For sites that end what runs long on login nodes. The job needs one core and submits the jobs of the workers itself.
"""

import asyncio
import contextlib
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.clusters.fleet import Refused
from mce_notebook.run.clusters.jobqueue import JobQueue
from mce_notebook.run.clusters.request import JobRequest
from mce_notebook.run.clusters.script import Site, make_job
from mce_notebook.run.registry import HostFolder, Launch

# The host, its scheduler and the blocks on their way (bytes).
MEMORY = 2 * 10**9
# A host leaves this long before its job ends, so that it can cancel the jobs of its workers (seconds).
SPARE_SECONDS = 60.0
# Seconds since 1970; a host that goes on as a new program ends when the first would have.
ENDS = "MCE_HOST_ENDS"
# What a batch system tells a job of itself would be taken for wishes of the jobs that it submits.
_OURS = ("SLURM_", "SBATCH_", "PBS_", "LSB_", "OAR_")
_KEPT = ("SLURM_CONF", "PBS_CONF_FILE", "PBS_SERVER", "PBS_DEFAULT", "LSB_CONFDIR", "LSB_SHAREDIR")


class _Queue(JobQueue):
    """The batch system, asked for one job that runs a host."""

    def __init__(self, request: JobRequest, site: Site, command: str):
        super().__init__(request, site)
        self._command = command

    def _job(self, name: str) -> Any:
        job = make_job(self._request, name, self._site)
        # In place of the worker; what the script does not use is never written.
        job._command_template = self._command
        return job


def _queue(launch: Launch, folder: HostFolder, walltime: float) -> _Queue:
    request = JobRequest.from_json(launch.job)
    small: dict[str, Any] = {"cores": 1, "memory": MEMORY, "gpus": 0, "processes": 1, "slot_cores": 1}
    request = replace(request, **small, walltime=walltime, parallel_environment=None)
    site = Site("tls://none:0", folder.path / "job")
    site.folder.mkdir(mode=0o700, exist_ok=True)
    site.logs.mkdir(exist_ok=True)
    words = [launch.python, "-P", "-m", "mce_notebook.run.remote.hostjob", str(folder.path), f"{walltime:g}"]
    return _Queue(request, site, "exec " + shlex.join(words))


def submit(launch: Launch, folder: HostFolder, walltime: float) -> str:
    """Submit a host and return the id of its job.

    Raises
    ------
    HostError
        With what the batch system says of it.
    """
    try:
        return asyncio.run(_queue(launch, folder, walltime).submit("mce-host"))
    except Refused as error:
        raise HostError(f"The host was refused: {error}") from error


def cancel(launch: Launch, folder: HostFolder, job: str) -> None:
    """Cancel the job of a host."""
    asyncio.run(_queue(launch, folder, SPARE_SECONDS).cancel([job]))


def main(arguments: list[str]) -> int:
    """Be the host, until shortly before the job ends."""
    from mce_notebook.run import host

    folder = Path(arguments[0])
    if "--renew" not in arguments:
        walltime = float(arguments[1])
        os.environ[ENDS] = str(time.time() + max(walltime - SPARE_SECONDS, walltime / 2))
    for name in list(os.environ):
        if name.startswith(_OURS) and name not in _KEPT:
            del os.environ[name]
    with (HostFolder(folder).log).open("ab") as log, contextlib.suppress(OSError):
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)

    class Brief(host.Host):
        """A host whose time is measured."""

        module = "mce_notebook.run.remote.hostjob"

        def __init__(self, *parts: Any):
            super().__init__(*parts)
            self._until = min(self._until, self._busy + float(os.environ[ENDS]) - time.time())

    return host.main([str(folder), *(word for word in arguments if word == "--renew")], Brief)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
