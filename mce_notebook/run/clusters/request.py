"""What is asked of a batch system for one job: a profile and what a sweep needs, worked out."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mce_notebook.errors import ProfileError
from mce_notebook.run.clusters.cloud import Cloud, own_gpus, size_of
from mce_notebook.run.clusters.profiles import MAX_WORKERS, MIN_WALLTIME, Profile, Terms

# Per slot, where neither the profile nor the sweep says anything (bytes).
DEFAULT_MEMORY = 2 * 10**9
# The Dask worker and the imports of a slot, on top of what a point may use (bytes).
OVERHEAD = 300 * 10**6
# A job that has to hold a point of `--timeout` gets this much longer, to come up and to leave (seconds).
SPARE_SECONDS = 120.0
# Before its walltime ends a job takes no more blocks, and what still runs is stopped in time to be reported (seconds).
LEAVE_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class JobRequest(Terms):
    """One job, resolved: nothing is left to defaults but the batch system's own.

    Parameters
    ----------
    profile : str
        Name of the profile.
    kind : str
        Batch system.
    cores, memory, gpus : int
        Of the job.
    processes : int
        Slots in the job.
    slot_cores : int
        Cores of one slot.
    slot_memory : int
        Bytes one slot may use.
    walltime : float
        Seconds.
    idle_timeout : float
        A VM whose host is gone ends after this long (seconds).
    cloud : Cloud or None
        What is asked of Compute Engine.
    others
        As in `Terms`.
    """

    profile: str
    kind: str
    cores: int
    memory: int
    gpus: int
    processes: int
    slot_cores: int
    slot_memory: int
    walltime: float
    idle_timeout: float = 900.0
    cloud: Cloud | None = None

    @property
    def leave(self) -> float:
        """Seconds before the end of the walltime from which a job takes no more blocks."""
        return min(LEAVE_SECONDS, 0.2 * self.walltime)

    @property
    def stop(self) -> float:
        """Seconds before the end of the walltime at which a point that still runs is stopped."""
        return min(STOP_SECONDS, 0.1 * self.walltime)

    def to_json(self) -> str:
        """Return it as text, the same for equal requests."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "JobRequest":
        """Return the request `to_json` wrote."""
        record: dict[str, Any] = json.loads(text)
        known = {one.name for one in fields(cls)}
        values: dict[str, Any] = {name: record[name] for name in known & record.keys()}
        for name in ("directives", "prologue"):
            values[name] = tuple(values.get(name, ()))
        if values.get("cloud"):
            told = values["cloud"]
            values["cloud"] = Cloud(**{**told, "zones": tuple(told["zones"])})
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class AddressRequest:
    """An existing Dask cluster, resolved.

    Parameters
    ----------
    profile : str
        Name of the profile.
    address : str
        Of its scheduler.
    tls_ca, tls_certificate, tls_key : str
        Absolute paths; empty without TLS.
    slot_cores : int
        Cores of one slot: threads of BLAS in it.
    max_workers : int
        Slots to be used at most.
    max_hours, patience : float
        The host leaves after so many hours, and after so many seconds without the scheduler.
    kind : str
        `address`, for whoever reads the record.
    """

    profile: str
    address: str
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    slot_cores: int = 1
    max_workers: int = MAX_WORKERS
    max_hours: float = 72.0
    patience: float = 900.0
    kind: str = "address"

    def to_json(self) -> str:
        """Return it as text, the same for equal requests."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "AddressRequest":
        """Return the request `to_json` wrote."""
        return cls(**json.loads(text))


def at_address(profile: Profile, *, cores: int = 1, gpus: int = 0) -> AddressRequest:
    """Return what a host needs to use the existing Dask cluster of a profile.

    Raises
    ------
    ProfileError
        If GPUs are asked for: whose they are is not known of workers that somebody else started.
    """
    if gpus:
        raise ProfileError(
            f"{profile.name} is a Dask cluster that somebody else started, where nobody divides GPUs between slots; "
            "leave out --gpus: its points see the devices their worker sees."
        )
    files = {name: getattr(profile, name) for name in ("tls_ca", "tls_certificate", "tls_key")}
    return AddressRequest(
        profile=profile.name,
        address=profile.address,
        **{name: str(Path(path).expanduser().absolute()) if path else "" for name, path in files.items()},
        slot_cores=cores,
        max_workers=profile.max_workers,
        max_hours=profile.max_hours,
        patience=profile.idle_timeout,
    )


def resolve(
    profile: Profile, *, cores: int = 1, gpus: int = 0, memory: int | None = None, timeout: float | None = None
) -> JobRequest:
    """Return the job that holds slots of so many cores, GPUs and bytes, and points that take up to `timeout` seconds.

    Raises
    ------
    ProfileError
        If no job of the profile can hold that.
    """
    if profile.cloud is not None:
        profile = _sized(profile, profile.cloud, gpus)
    slots = _processes(profile, cores, gpus)
    whole = profile.cores if profile.cores is not None else cores * slots
    if whole > 1 and profile.kind == "sge" and not profile.parallel_environment:
        raise ProfileError(
            f"Jobs of {whole} cores on Grid Engine need the name of a parallel environment; `qconf -spl` lists them: "
            f'write parallel_environment = "smp" in the profile {profile.name}.'
        )
    if memory is not None:
        total = slots * (memory + OVERHEAD)
        if profile.memory is not None and memory + OVERHEAD > profile.memory:
            raise ProfileError(
                f"A job of {profile.name} has {_size(profile.memory)}, and --memory {_size(memory)} with "
                f"{_size(OVERHEAD)} for the worker needs more; raise memory in the profile or lower --memory."
            )
    else:
        total = profile.memory if profile.memory is not None else slots * (DEFAULT_MEMORY + OVERHEAD)
    if memory is not None and profile.memory is not None and total > profile.memory:
        # Fewer slots in a job, each with what it was promised.
        slots = max(1, profile.memory // (memory + OVERHEAD))
        total = profile.memory
    each = memory if memory is not None else max(total // slots - OVERHEAD, total // (2 * slots))
    return JobRequest(
        profile=profile.name,
        kind=profile.kind,
        cores=whole,
        memory=total,
        gpus=gpus * slots,
        processes=slots,
        slot_cores=cores,
        slot_memory=each,
        walltime=_walltime(profile, timeout),
        # Hosts are told apart by what they ask for; for jobs, this is no part of it.
        idle_timeout=profile.idle_timeout if profile.cloud is not None else JobRequest.idle_timeout,
        cloud=profile.cloud,
        **{one.name: getattr(profile, one.name) for one in fields(Terms)},
    )


def _sized(profile: Profile, cloud: Cloud, gpus: int) -> Profile:
    """Return a profile of VMs as if of jobs: its machine type says what one holds, max_hours how long it lives."""
    has = max(cloud.gpus, own_gpus(cloud.machine))
    if gpus > has:
        raise ProfileError(
            f"A VM of {profile.name} has {has or 'no'} GPUs, and --gpus {gpus} needs more; write gpus and gpu in the "
            'profile, as in gpus = 1 and gpu = "nvidia-tesla-t4", or a machine type that comes with them.'
        )
    cores, memory = size_of(cloud.machine) or (1, DEFAULT_MEMORY)
    life = profile.max_hours * 3600.0
    return replace(
        profile,
        cores=profile.cores or cores,
        memory=profile.memory or memory - OVERHEAD,
        walltime=life,
        max_walltime=life,
    )


def _processes(profile: Profile, cores: int, gpus: int) -> int:
    if gpus:
        # The batch system tells a job its devices; slots that share a job would have to divide them.
        if profile.cores is not None and cores > profile.cores:
            raise _too_many(profile, cores)
        return 1
    if profile.cores is None:
        return profile.processes or 1
    fitting = profile.cores // cores
    if not fitting:
        raise _too_many(profile, cores)
    return min(profile.processes or fitting, fitting)


def _too_many(profile: Profile, cores: int) -> ProfileError:
    return ProfileError(
        f"A job of {profile.name} has {profile.cores} cores, and --cores {cores} needs more; raise cores in the "
        "profile or lower --cores."
    )


def _walltime(profile: Profile, timeout: float | None) -> float:
    needed = max(profile.walltime, MIN_WALLTIME)
    if timeout is not None and timeout + SPARE_SECONDS > needed:
        needed = timeout + SPARE_SECONDS
    if profile.max_walltime is not None and needed > profile.max_walltime:
        limit = "max_walltime" if profile.cloud is None else "max_hours"
        raise ProfileError(
            f"--timeout {timeout:g} s with {SPARE_SECONDS:g} s to come up and leave does not fit {limit} of "
            f"{profile.name}, {profile.max_walltime:g} s; lower --timeout or raise {limit}."
        )
    return float(math.ceil(needed))


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:g} GB"
