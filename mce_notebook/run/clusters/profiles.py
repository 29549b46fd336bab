"""Profiles of clusters: what a table of `clusters.toml` may say. Plain data; no scheduler is imported.

[slurm]                       the name for --on
kind = "slurm"
queue = "short"
walltime = "1h"
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mce_notebook.declare.options import Options
from mce_notebook.errors import OptionError, ProfileError
from mce_notebook.run.clusters import cloud
from mce_notebook.run.clusters.cloud import Cloud
from mce_notebook.run.remote import place

BATCH = ("slurm", "sge", "pbs", "lsf", "htcondor", "oar")
KINDS = ("local", *BATCH, "gce", "address")
# Clusters that need no profile.
BUILT_IN = ("local", "inline")
MAX_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a profile says that goes into the request for a job as it stands.

    Parameters
    ----------
    queue : str or None
        Queue or partition of the batch system; None: its default.
    account : str or None
        Account or project that pays.
    min_workers, max_workers : int
        Slots kept even without work, and slots at most.
    max_jobs : int or None
        Jobs in the queue at most, running and waiting.
    max_hours : float
        The cluster ends after this long whatever it does; sweeps then resume with the next.
    resources : str or None
        The batch system's own request for a job (`-l` of PBS, SGE, OAR), instead of the one made from cores and memory.
    parallel_environment : str or None
        SGE's, for jobs of several cores.
    gpu_request : str or None
        Directive that asks for `{gpus}` GPUs, where the usual one is not understood.
    disk : int
        Bytes of disk, which HTCondor wants to know.
    directives : tuple of str
        More lines for the head of the job script, without the mark (`#SBATCH`).
    prologue : tuple of str
        Lines of shell before the worker starts, such as `module load`.
    environment : mapping of str to str
        Variables of the jobs.
    interface : str or None
        Network interface that nodes can reach, such as ib0.
    python : str
        Interpreter on the nodes; empty: that of the host.
    folder : str
        Folder that host and nodes share, for certificates, logs; empty: `.mce` in the home folder.
    """

    queue: str | None = None
    account: str | None = None
    min_workers: int = 0
    max_workers: int = MAX_WORKERS
    max_jobs: int | None = None
    max_hours: float = 72.0
    resources: str | None = None
    parallel_environment: str | None = None
    gpu_request: str | None = None
    disk: int = 10**9
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    interface: str | None = None
    python: str = ""
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile(Terms):
    """One cluster, as its table says; times in seconds, memory in bytes.

    Parameters
    ----------
    name : str
        The name for `--on`.
    kind : str
        One of KINDS.
    walltime : float
        Length of a job; jobs that run out are replaced, so shorter ones start sooner.
    max_walltime : float or None
        Longest the queue allows; a `--timeout` beyond it is refused at once.
    cores, memory : int or None
        Of one job; None: as much as its slots need.
    processes : int or None
        Slots in a job; None: as many as fit into `cores`.
    idle_timeout : float
        Without work for this long, the cluster ends; without its scheduler, one of kind address.
    ssh : str
        ``user@login`` or a name of `~/.ssh/config`: where the batch system is, if not here.
    host : str
        Where the process lives that drives sweeps: ``here``, on the ``login`` node, or in a ``job`` of its own.
    host_walltime : float or None
        Of that job; None: as long as the queue allows, or as the other jobs.
    address : str
        Of an existing Dask scheduler: `tcp://host:port` or `tls://host:port`.
    tls_ca, tls_certificate, tls_key : str
        Files for `tls`: whom to believe, what to show.
    price : float or None
        Of a core for an hour (of kind gce, of a VM: there it is in `cloud`).
    max_cost : float or None
        When it has cost so much in all, the cluster ends and its sweeps are stopped.
    currency : str
        Of both.
    cloud : Cloud or None
        What a profile of kind gce says more.
    others
        As in `Terms`.
    """

    name: str
    kind: str
    walltime: float = 3600.0
    max_walltime: float | None = None
    cores: int | None = None
    memory: int | None = None
    processes: int | None = None
    idle_timeout: float = 900.0
    ssh: str = ""
    host: str = "here"
    host_walltime: float | None = None
    address: str = ""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    price: float | None = None
    max_cost: float | None = None
    currency: str = "USD"
    cloud: Cloud | None = None


def profile(name: str, table: Mapping[str, Any], path: Path) -> Profile:
    """Return a table as a profile.

    Raises
    ------
    ProfileError
        For an unknown key with those there are, for a wrong value with an example.
    """
    where = f"{path}, profile [{name}]"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ProfileError(f"{where}: the name of a profile is letters, digits, _ and -, as in [slurm-long].")
    if name in BUILT_IN:
        raise ProfileError(f"{where}: {name} is built in and needs no profile; give this one another name.")
    _check_kind(where, name, table)
    kind = str(table.get("kind", name))
    known = KEYS_OF[kind]
    values: dict[str, Any] = {"name": name, "kind": kind}
    for key, value in table.items():
        if key not in known:
            raise ProfileError(f"{where}: there is no key `{key}`; {_hint(key, known)}")
        if key != "kind":
            parse, meaning, example = known[key]
            try:
                values[key] = parse(value)
            except (OptionError, TypeError, ValueError):
                raise ProfileError(f"{where}: {key} is {meaning}, not {value!r}; write {key} = {example}") from None
    if "ssh" in values:
        values.setdefault("host", "login")
    if kind == "gce":
        values["cloud"] = _cloud(where, values)
    made = Profile(**values)
    _check_numbers(where, made)
    place.check(where, made)
    if made.host == "job" and made.host_walltime is None:
        made = dataclasses.replace(made, host_walltime=made.max_walltime or made.walltime)
    return made


def _cloud(where: str, values: dict[str, Any]) -> Cloud:
    """Return what is said of VMs, taken out of all that is said."""
    told = {key: values.pop(key) for key in CLOUD_KEYS if key in values}
    for key in ("project", "zones", "machine"):
        if key not in told:
            raise ProfileError(f"{where}: a cluster of kind gce needs `{key}`, as in {key} = {CLOUD_KEYS[key][2]}")
    found = Cloud(**told)
    cloud.check(where, found, values.get("cores"), values.get("memory"))
    return found


def _check_kind(where: str, name: str, table: Mapping[str, Any]) -> None:
    kind = table.get("kind", name)
    if kind == "ssh":
        raise ProfileError(
            f'{where}: ssh is no kind of cluster but the way to one; write kind = "slurm", or "local" for the machine '
            'itself, and ssh = "user@login".'
        )
    if kind not in KINDS:
        told = f"kind {kind!r} is unknown" if "kind" in table else "the kind is missing"
        near = difflib.get_close_matches(str(kind), KINDS, 1)
        example = near[0] if near else "slurm"
        raise ProfileError(f'{where}: {told}; it is one of {", ".join(KINDS)}, as in kind = "{example}".')


def _check_numbers(where: str, made: Profile) -> None:
    _check_address(where, made)
    if made.max_cost is not None and made.price is None:
        raise ProfileError(f"{where}: max_cost needs to know what a core costs for an hour: write price = 0.05.")
    if made.min_workers > made.max_workers:
        raise ProfileError(
            f"{where}: min_workers = {made.min_workers} is above max_workers = {made.max_workers}; raise max_workers."
        )
    if made.processes and made.cores and made.processes > made.cores:
        raise ProfileError(
            f"{where}: {made.processes} processes do not fit {made.cores} cores; leave out processes or raise cores."
        )
    if made.max_walltime is not None and made.walltime > made.max_walltime:
        raise ProfileError(f"{where}: walltime is above max_walltime; make it shorter: jobs that run out are replaced.")
    if made.walltime < MIN_WALLTIME:
        raise ProfileError(f'{where}: a walltime below {MIN_WALLTIME:g} s holds no work; write walltime = "30m".')


def _check_address(where: str, made: Profile) -> None:
    if made.kind != "address":
        return
    if not made.address:
        raise ProfileError(
            f'{where}: an existing Dask scheduler has an address; write address = "tls://scheduler.example.org:8786".'
        )
    files = {"tls_ca": made.tls_ca, "tls_certificate": made.tls_certificate, "tls_key": made.tls_key}
    missing = [key for key, value in files.items() if not value]
    if made.address.startswith("tls:") and missing:
        raise ProfileError(f"{where}: tls wants certificates; write {' and '.join(missing)}, paths of files.")
    if made.address.startswith("tcp:") and len(missing) < len(files):
        raise ProfileError(f'{where}: tcp knows no certificates; write address = "tls{made.address[3:]}".')


# A worker needs this long to come up, and to leave in time (seconds).
MIN_WALLTIME = 20.0


def _hint(key: str, known: Mapping[str, Any]) -> str:
    near = ALIASES.get(key) or next(iter(difflib.get_close_matches(key, known, 1)), None)
    there = f"there are {', '.join(sorted(known))}."
    return f"did you mean `{near}`? T{there[1:]}" if near in known else there


def _seconds(value: Any) -> float:
    found = _walltime(value) if isinstance(value, str) else None
    return found if found is not None else float(Options.parse(timeout=value).timeout or 0.0)


def _walltime(text: str) -> float | None:
    """Read `1-12:00:00`, `12:00:00`, `30:00` as batch systems write times."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d\d)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _bytes(value: Any) -> int:
    return int(Options.parse(memory=value).memory or 0)


def _whole(lowest: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValueError
        return value

    return parse


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ValueError
    return float(value)


def _line(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or any(mark in value for mark in "\n\r\0"):
        raise ValueError
    return value.strip()


def _word(value: Any) -> str:
    # Goes into a line of a job script, where a blank would begin another option.
    found = _line(value)
    if re.search(r"\s", found):
        raise ValueError
    return found


def _target(value: Any) -> str:
    found = _word(value)
    if not place.is_target(found):
        raise ValueError
    return found


def _address(value: Any) -> str:
    found = _word(value)
    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d{1,5}", found):
        raise ValueError
    return found


def _lines(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_line(one) for one in value)


def _variables(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in value):
        raise TypeError
    return {name: _line(text) for name, text in value.items()}


_Key = tuple[Callable[[Any], Any], str, str]
_TIME, _SIZE, _TEXT = "a time", "an amount of memory", "text in one line"
KEYS: dict[str, _Key] = {
    "kind": (_word, "the kind of cluster", '"slurm"'),
    "queue": (_word, "the name of a queue or partition", '"short"'),
    "account": (_word, "the name of an account or project", '"physics"'),
    "walltime": (_seconds, _TIME, '"1h"'),
    "max_walltime": (_seconds, _TIME, '"24h"'),
    "cores": (_whole(1), "a whole number, 1 or more", "8"),
    "memory": (_bytes, _SIZE, '"16GB"'),
    "processes": (_whole(1), "a whole number, 1 or more", "8"),
    "min_workers": (_whole(0), "a whole number, 0 or more", "0"),
    "max_workers": (_whole(1), "a whole number, 1 or more", "64"),
    "max_jobs": (_whole(1), "a whole number, 1 or more", "20"),
    "idle_timeout": (_seconds, _TIME, '"15m"'),
    "max_hours": (_positive, "a number of hours", "24"),
    "resources": (_line, _TEXT, '"select=1:ncpus=8:mem=16gb"'),
    "parallel_environment": (_word, "the name of a parallel environment", '"smp"'),
    "gpu_request": (_line, _TEXT, '"--gres=gpu:a100:{gpus}"'),
    "disk": (_bytes, "an amount of disk", '"2GB"'),
    "directives": (_lines, "a list of lines", '["--qos=normal"]'),
    "prologue": (_lines, "a list of lines of shell", '["module load cuda"]'),
    "environment": (_variables, "a table of variables", '{ NAME = "value" }'),
    "interface": (_word, "the name of a network interface", '"ib0"'),
    "python": (_line, "the path of an interpreter", '"/opt/env/bin/python"'),
    "address": (_address, "the address of a scheduler", '"tls://scheduler.example.org:8786"'),
    "tls_ca": (_line, "the path of a file", '"~/.dask/ca.pem"'),
    "tls_certificate": (_line, "the path of a file", '"~/.dask/cert.pem"'),
    "tls_key": (_line, "the path of a file", '"~/.dask/key.pem"'),
    "price": (_positive, "what a core costs for an hour, above 0", "0.05"),
    "max_cost": (_positive, "what the cluster may cost in all, above 0", "20"),
    "currency": (_word, "the name of a currency", '"EUR"'),
    "folder": (_line, "a folder that host and nodes share", '"/scratch/me/mce"'),
    "ssh": (_target, "where to log in", '"user@login.example.org"'),
    "host": (_word, "where the host lives", '"login"'),
    "host_walltime": (_seconds, _TIME, '"24h"'),
}


def _place(value: Any) -> str:
    if value not in ("vm", "here"):
        raise ValueError
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError
    return tuple(_word(one) for one in value)


def _labels(value: Any) -> dict[str, str]:
    # https://cloud.google.com/compute/docs/labeling-resources: what Google takes, and none of our own names.
    if not isinstance(value, dict):
        raise TypeError
    for name, text in value.items():
        if not re.fullmatch(r"(?!mce-)[a-z][a-z0-9_-]{0,62}", name) or not re.fullmatch(r"[a-z0-9_-]{0,63}", text):
            raise ValueError
    return dict(value)


_MONEY = "what it costs, above 0, in the currency of your bill"
CLOUD_KEYS: dict[str, _Key] = {
    "project": (_word, "the id of a project of Google Cloud", '"my-project"'),
    "zones": (_words, "a list of zones, tried in this order", '["us-central1-a", "us-central1-b"]'),
    "machine": (_word, "a machine type", '"n2-standard-8"'),
    "image": (_word, "a boot image", '"projects/my-project/global/images/family/sweeps"'),
    "docker": (_word, "the image of a container", '"us-docker.pkg.dev/my-project/images/sweeps:1"'),
    "gpus": (_whole(1), "a whole number, 1 or more", "1"),
    "gpu": (_word, "an accelerator type", '"nvidia-tesla-t4"'),
    "spot": (_flag, "true or false", "true"),
    "boot_disk": (_bytes, "an amount of disk", '"50GB"'),
    "disk_type": (_word, "the type of the boot disk", '"pd-balanced"'),
    "network": (_word, "a subnetwork", '"default"'),
    "external_ip": (_flag, "true or false", "false"),
    "service_account": (_word, "the e-mail of a service account", '"sweeps@my-project.iam.gserviceaccount.com"'),
    "host_service_account": (_word, "the e-mail of a service account", '"hosts@my-project.iam.gserviceaccount.com"'),
    "credentials": (_line, "the path of a key file", '"~/keys/sweeps.json"'),
    "scheduler": (_place, '"vm", or "here" where VMs can connect to this machine', '"vm"'),
    "scheduler_machine": (_word, "a machine type", '"e2-medium"'),
    "price": (_positive, _MONEY, "0.39"),
    "spot_price": (_positive, _MONEY, "0.09"),
    "scheduler_price": (_positive, _MONEY, "0.04"),
    "max_cost": (_positive, _MONEY, "20"),
    "labels": (_labels, "a table of labels: small letters, digits, _ and -; none of mce-", '{ team = "physics" }'),
}
_MONEYS = ("price", "max_cost", "currency")
_LOCAL = ("kind", "max_workers", "idle_timeout", *_MONEYS)
_FAR = ("ssh", "host", "python", "folder", "environment")
_ADDRESS = ("address", "tls_ca", "tls_certificate", "tls_key")
_GCE = (
    "kind", "cores", "memory", "processes", "min_workers", "max_workers", "idle_timeout", "max_hours", "prologue",
    "environment", "python", "currency", "host",
)  # fmt: skip
# Keys that only some batch systems know.
_OWN = {"resources": ("pbs", "sge", "oar"), "parallel_environment": ("sge",), "disk": ("htcondor",)}
_OWN.update(dict.fromkeys(_ADDRESS, ("address",)))
KEYS_OF: dict[str, Mapping[str, _Key]] = {
    "local": {key: KEYS[key] for key in (*_LOCAL, *_FAR)},
    "address": {key: KEYS[key] for key in (*_LOCAL, *_ADDRESS, "max_hours")},
    **{kind: {key: one for key, one in KEYS.items() if kind in _OWN.get(key, BATCH)} for kind in BATCH},
    "gce": {**{key: KEYS[key] for key in _GCE}, **CLOUD_KEYS},
}
# What people write who know the batch system.
ALIASES = {
    "partition": "queue",
    "project": "account",
    "time": "walltime",
    "time_limit": "walltime",
    "mem": "memory",
    "cpus": "cores",
    "ncpus": "cores",
    "nthreads": "cores",
    "pe": "parallel_environment",
    "workers": "max_workers",
    "nodes": "max_jobs",
    "jobs": "max_jobs",
    "job_extra_directives": "directives",
    "job_script_prologue": "prologue",
    "env": "environment",
    "resource_spec": "resources",
    "gres": "gpu_request",
    # Of Google's own words, and those of dask-cloudprovider.
    "zone": "zones",
    "projectid": "project",
    "machine_type": "machine",
    "source_image": "image",
    "docker_image": "docker",
    "gpu_type": "gpu",
    "ngpus": "gpus",
    "accelerator": "gpu",
    "preemptible": "spot",
    "filesystem_size": "boot_disk",
    "subnetwork": "network",
    "budget": "max_cost",
}
_FIELDS = {one.name for one in dataclasses.fields(Profile)} - {"name", "cloud"}
_SAID = {one.name for one in dataclasses.fields(Cloud)}
if set(KEYS) != _FIELDS or set(CLOUD_KEYS) != _SAID:  # two lists of the same names each
    raise AssertionError(sorted((set(KEYS) ^ _FIELDS) | (set(CLOUD_KEYS) ^ _SAID)))
