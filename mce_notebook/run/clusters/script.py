"""Job scripts: dask-jobqueue writes, submits and cancels them; here is what they say for a request of ours."""

import contextlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mce_notebook.run.clusters.request import JobRequest

# A worker that finds no scheduler for this long ends, and its job with it (seconds).
DEATH_SECONDS = 60
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Of the host's own variables, those that its jobs need too.
PASSED = ("PYTHONPATH", "MCE_CONFIG_DIR")
WORKER = "mce_notebook.run.clusters.node"


@dataclass(frozen=True)
class Site:
    """Where jobs find their host.

    Parameters
    ----------
    address : str
        Of the scheduler.
    folder : Path
        Shared by host and nodes: certificates, logs, what workers have to say.
    """

    address: str
    folder: Path

    @property
    def logs(self) -> Path:
        """Where the jobs' output goes."""
        return self.folder / "logs"

    @property
    def certificate(self) -> Path:
        """What workers show, and what they trust."""
        return self.folder / "worker.crt"

    @property
    def key(self) -> Path:
        """The key of `certificate`."""
        return self.folder / "worker.key"

    @property
    def refusals(self) -> Path:
        """Where workers say why they do not come."""
        return self.folder / "refusals"


def shared_folder(request: JobRequest, key: str) -> Path:
    """Return the folder that the host of a key shares with its jobs."""
    told = Path(os.path.expandvars(request.folder)).expanduser() if request.folder else Path.home() / ".mce"
    return told.absolute() / key


def make_job(request: JobRequest, name: str, site: Site) -> Any:
    """Return a job of dask-jobqueue, not submitted.

    Parameters
    ----------
    request : JobRequest
    name : str
        Of the job and its worker; never used twice. Fifteen characters at most, which is what PBS takes.
    site : Site
    """
    with _own_signals():
        from dask_jobqueue.htcondor import HTCondorJob
        from dask_jobqueue.lsf import LSFJob
        from dask_jobqueue.oar import OARJob
        from dask_jobqueue.pbs import PBSJob
        from dask_jobqueue.sge import SGEJob
        from dask_jobqueue.slurm import SLURMJob
    from distributed import Security

    class Bsub(LSFJob):
        """As the stock class, but not deaf: it sends what bsub says of a refusal to /dev/null."""

        async def _submit_job(self, script_filename: str) -> str:
            command = f"{self.submit_command} < {shlex.quote(script_filename)}"
            call: Any = self._call
            return str(await call([command], shell=True))

    classes = {
        "slurm": SLURMJob,
        "sge": SGEJob,
        "pbs": PBSJob,
        "lsf": Bsub,
        "htcondor": HTCondorJob,
        "oar": OARJob,
    }
    security: Any = Security
    arguments: dict[str, Any] = {
        "scheduler": site.address,
        "name": name,
        "job_name": name,
        "cores": request.cores,
        "memory": f"{request.memory}B",
        "processes": request.processes,
        "security": security(
            tls_ca_file=str(site.certificate),
            tls_worker_cert=str(site.certificate),
            tls_worker_key=str(site.key),
            require_encryption=True,
        ),
        "protocol": "tls://",
        "interface": request.interface,
        "death_timeout": DEATH_SECONDS,
        "python": f"{shlex.quote(request.python or sys.executable)} -P",
        "worker_command": f"{WORKER} {shlex.quote(str(site.folder))}",
        "worker_extra_args": _worker_arguments(request),
        "job_script_prologue": _prologue(request),
        "log_directory": str(site.logs),
        "shebang": "#!/usr/bin/env bash",
        "job_directives_skip": [],
        **_head(request, site),
    }
    with warnings.catch_warnings():
        # Of OAR, about memory: the profile's `resources` says it.
        warnings.simplefilter("ignore", UserWarning)
        return classes[request.kind](**arguments)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep an import from taking SIGINT: with dask-jobqueue's handler an interrupted kernel would exit."""
    real = signal.signal
    signal.signal = lambda *_: None
    try:
        yield
    finally:
        signal.signal = real


def _worker_arguments(request: JobRequest) -> list[str]:
    # One thread for each slot; what slots may use is watched by their supervisors. The last word holds.
    words = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    if request.processes > 1:
        return [*words, "--nanny", "--nworkers", str(request.processes)]
    return [*words, "--no-nanny"]


def _prologue(request: JobRequest) -> list[str]:
    told: dict[str, str] = {
        **{name: os.environ[name] for name in PASSED if os.environ.get(name)},
        **dict.fromkeys(THREAD_VARIABLES, str(request.slot_cores)),
        "MCE_NICE": "0",
        "MCE_SLOT_MEMORY": str(request.slot_memory),
        "MCE_WALLTIME": f"{request.walltime:g} {request.leave:g} {request.stop:g}",
        **request.environment,
    }
    exports = [f"export {name}={shlex.quote(value)}" for name, value in told.items()]
    # Loading modules may take a while, which is missing from the walltime then.
    return [*exports, *request.prologue, "export MCE_SPENT=${SECONDS:-0}"]


def _head(request: JobRequest, site: Site) -> dict[str, Any]:
    """Return the arguments of the job's own class: what differs between batch systems."""
    folder, more = str(site.folder), list(request.directives)
    clock = _clock(request.walltime)
    gpus = _gpus(request)
    common = {"queue": request.queue, "walltime": clock}
    match request.kind:
        case "slurm":
            # Slurm would run a lost job again beside the one that replaces it.
            own = ["--no-requeue", f"--chdir={folder}"]
            return {**common, "account": request.account, "job_extra_directives": own + gpus + more}
        case "sge":
            own = ["-r n", f"-wd {folder}"]
            if request.parallel_environment:
                own.append(f"-pe {request.parallel_environment} {request.cores}")
            resources = {"resource_spec": request.resources, "job_directives_skip": ["-cwd"]}
            return {**common, **resources, "project": request.account, "job_extra_directives": own + gpus + more}
        case "pbs":
            spec = request.resources or _select(request)
            return {
                **common,
                "account": request.account,
                "resource_spec": spec,
                "job_extra_directives": ["-r n", *gpus, *more],
            }
        case "lsf":
            own = ["-rn", f"-cwd {folder}"]
            return {
                **common,
                "project": request.account,
                "use_stdin": True,
                "walltime": clock.rpartition(":")[0],
                "job_extra_directives": own + gpus + more,
            }
        case "oar":
            own = [f"-d {folder}", f"-O {site.logs}/%jobid%.out", f"-E {site.logs}/%jobid%.err"]
            return {
                **common,
                "project": request.account,
                "resource_spec": request.resources,
                "job_extra_directives": own + gpus + more,
            }
        case _:
            return _condor(request, folder)


def _condor(request: JobRequest, folder: str) -> dict[str, Any]:
    lines: dict[str, Any] = {
        "initialdir": folder,
        # One that was evicted is replaced by us; it must not come back by itself.
        "periodic_remove": f"(NumJobStarts > 1) || (time() - JobCurrentStartDate > {request.walltime:g})",
    }
    if request.gpus and not request.gpu_request:
        lines["request_gpus"] = str(request.gpus)
    if request.account:
        lines["accounting_group"] = request.account
    for line in (*_gpus(request), *request.directives):
        name, _, value = line.partition("=")
        lines[name.strip()] = value.strip()
    return {"disk": f"{request.disk}B", "job_extra_directives": lines}


def _select(request: JobRequest) -> str:
    memory = -(-request.memory // 2**20)
    gpus = f":ngpus={request.gpus}" if request.gpus and not request.gpu_request else ""
    return f"select=1:ncpus={request.cores}:mem={memory}mb{gpus}"


def _gpus(request: JobRequest) -> list[str]:
    """Return the directive that asks for GPUs; PBS and HTCondor have a word for them in the request itself."""
    usual = {"slurm": "--gres=gpu:{gpus}", "sge": "-l gpu={gpus}", "lsf": '-gpu "num={gpus}"', "oar": "-p gpu_count>0"}
    told = request.gpu_request or usual.get(request.kind)
    return [told.replace("{gpus}", str(request.gpus))] if told and request.gpus else []


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
