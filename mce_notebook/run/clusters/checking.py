"""What a profile would submit and whether it would be taken; a first file of profiles, from what the system has."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from mce_notebook.errors import ProfileError
from mce_notebook.run.clusters import vm_checking
from mce_notebook.run.clusters.finding import FILE, trust
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.clusters.queue import SYSTEMS, call, finished, look
from mce_notebook.run.clusters.request import JobRequest, at_address, resolve

VERIFY_SECONDS = 60.0
# What an example of a section of each system says besides the queue.
HINTS = {
    "slurm": 'memory = "4GB"           # of one job\n# account = "physics"',
    "sge": '# parallel_environment = {parallel}   # for jobs of several cores\n# resources = "h_vmem=4G"',
    "pbs": 'memory = "4GB"\n# account = "physics"',
    "lsf": 'memory = "4GB"\n# account = "physics"',
    "htcondor": 'memory = "4GB"\ndisk = "2GB"',
    "oar": '# resources = "/nodes=1/core=1"',
}


def check(profile: Profile) -> str:
    """Return what a job of the profile would be, and what of it works from here.

    Raises
    ------
    ProfileError
        If its jobs hold no slot.
    """
    if profile.kind == "local":
        return f"{profile.name}: up to {profile.max_workers} slots on this machine.{_hourly(profile, 1)}"
    if profile.kind == "address":
        return _checked_address(profile)
    if profile.kind == "gce":
        return "\n".join(vm_checking.check(profile))
    request = resolve(profile)
    lines = [
        f"{profile.name}: up to {request.max_workers} slots, {request.processes} in a job of {request.cores} cores, "
        f"{request.memory / 1e9:g} GB and {request.walltime:g} s; the jobs end after {profile.idle_timeout:g} s "
        f"without work, the cluster after {profile.max_hours:g} h."
        f"{_hourly(profile, request.cores / request.processes)}",
        "",
        script(request),
    ]
    return "\n".join([*lines, *_listed(_findings(request))])


def _listed(findings: Iterable[tuple[bool, str]]) -> Iterator[str]:
    return (f"{'ok ' if fine else 'NO '} {what}" for fine, what in findings)


def _hourly(profile: Profile, cores: float) -> str:
    """Say what all slots together cost for an hour, where the profile says what a core does."""
    if profile.price is None:
        return ""
    most = f", {profile.max_cost:g} in all at most" if profile.max_cost is not None else ""
    return f" All of them cost {profile.price * cores * profile.max_workers:.2f} {profile.currency} an hour{most}."


def _checked_address(profile: Profile) -> str:
    # Here only: it loads Dask, which looking at other profiles does not need.
    from mce_notebook.run.clusters.address import survey

    request = at_address(profile)
    told = (
        f"{profile.name}: up to {request.max_workers} slots of the Dask cluster at {request.address}, which is used as "
        f"it is; the host leaves it after {profile.idle_timeout:g} s without work or without its scheduler, and after "
        f"{profile.max_hours:g} h.{_hourly(profile, 1)}"
    )
    return "\n".join([told, "", *_listed(finished(survey(request)))])


def script(request: JobRequest) -> str:
    """Return the script of a job, with example names for what is only known once a host runs."""
    from mce_notebook.run.clusters.script import Site, make_job

    with tempfile.TemporaryDirectory() as folder:
        text = str(make_job(request, "mce-1a2b-1", Site("tls://<host>:<port>", Path(folder))).job_script())
        return text.replace(folder, f"{request.folder or '~/.mce'}/<cluster>")


def _findings(request: JobRequest) -> Iterator[tuple[bool, str]]:
    system = SYSTEMS[request.kind]
    command = system.ask[0]
    if shutil.which(command) is None:
        yield False, f"{command} is not here; the notebook has to run where {request.kind} jobs are submitted"
        return
    seen = finished(look(system))
    yield (
        seen is not None or system.by_id,
        f"{command} {'answers' if seen is not None else 'does not answer; is the system up?'}",
    )
    if system.verify:
        yield _verified(request, system.verify)
    yield _folder(Path(request.folder).expanduser() if request.folder else Path.home() / ".mce")
    if request.interface is not None:
        known = psutil.net_if_addrs()
        there = request.interface in known
        yield there, f"interface {request.interface}" + ("" if there else f" is not here; there are {', '.join(known)}")
    else:
        yield True, f"nodes will reach this host as {socket.gethostname()}; set `interface` if they cannot"


def _verified(request: JobRequest, command: tuple[str, ...]) -> tuple[bool, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script(request))
        file.flush()
        try:
            done = subprocess.run(
                [*command, file.name], capture_output=True, text=True, timeout=VERIFY_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return False, f"{command[0]}: {error}"
    said = " ".join((done.stderr + done.stdout).split())
    return done.returncode == 0, said or " ".join(command)


def _folder(folder: Path) -> tuple[bool, str]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True, f"{folder} can be written here; it must be there on the nodes too"
    except OSError as error:
        return False, f"{folder} cannot be written ({error}); set `folder`"


def init(folder: Path) -> str:
    """Write a first file of profiles into `folder`, trusted, from what batch systems there are; return what it says.

    Raises
    ------
    ProfileError
        If there is one already.
    """
    path = folder / FILE
    found = [kind for kind in SYSTEMS if _there(kind)]
    cloud = vm_checking.section()
    text = "\n".join(
        [
            "# Clusters for --on; see docs/clusters.md. `mce clusters check NAME` shows what would be submitted.",
            "# After you change this file: mce trust clusters.toml",
            "",
            *(_section(kind) for kind in found or (() if cloud else ("slurm",))),
            *([cloud] if cloud else ()),
        ]
    )
    if not (found or cloud):
        text += "\n# No batch system was found here; the above is an example.\n"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ProfileError(f"{path} is there already; add to it, or move it away first.") from None
    except OSError as error:
        raise ProfileError(f"{path} cannot be written: {error}.") from error
    trust(path)
    return text


def _there(kind: str) -> bool:
    # qstat is PBS's and Grid Engine's; only the latter has qconf.
    tools = {"sge": "qconf", "pbs": "qmgr", "htcondor": "condor_q", "oar": "oarstat", "lsf": "bjobs", "slurm": "squeue"}
    return shutil.which(tools[kind]) is not None


def _section(kind: str) -> str:
    told = [finished(call(list(command))) or "" for command in SYSTEMS[kind].survey]
    has = [f"#   {line}" for text in told for line in text.strip().splitlines()[:40]]
    queue, limit = _first_queue(kind, told[0] if told else "")
    words = (told[1].split() if len(told) > 1 else []) or ["smp"]
    walltime = f'walltime = "1h"            # of one job; they are replaced{limit}'
    return "\n".join(
        [
            *(["# It has:", *has] if has else []),
            f"[{kind}]",
            f'kind = "{kind}"',
            f'queue = "{queue}"' if queue else '# queue = "short"',
            walltime,
            "cores = 1                  # of one job",
            HINTS[kind].replace("{parallel}", f'"{words[0]}"'),
            "max_workers = 16           # slots at most",
            "# max_jobs = 10            # jobs in the queue at most",
            'idle_timeout = "15m"       # without work, the cluster ends',
            "max_hours = 72             # it ends after that whatever it does",
            '# prologue = ["module load python"]',
            '# directives = ["--qos=normal"]',
            "",
        ]
    )


def _first_queue(kind: str, told: str) -> tuple[str, str]:
    """Return the queue to begin with, and a remark on its limit of time."""
    lines = [line.split() for line in told.strip().splitlines()]
    if kind == "slurm":
        rows = [line for line in lines[1:] if len(line) > 3 and line[1] == "up"]
        chosen = next((row for row in rows if row[0].endswith("*")), rows[0] if rows else None)
        return (chosen[0].rstrip("*"), f"; at most {chosen[2]}") if chosen else ("", "")
    if kind == "sge":
        return (lines[0][0], "") if lines and lines[0] else ("", "")
    return "", ""
