"""What is said to clusters whose host lives on a VM: the same verbs, answered by Google and the store."""

from mce_notebook.errors import HostError, OptionError, SweepError, UnknownSweep
from mce_notebook.frontends.messages import table_text
from mce_notebook.handle import RUNNING
from mce_notebook.run.clusters import vm_hosts
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.clusters.vm_hosts import VMHost
from mce_notebook.sweep import open as open_sweep

Row = tuple[str, ...]


def act(verb: str, profile: Profile, *, sure: bool = False) -> str:
    """Do what a verb says to the hosts of a profile that live on VMs; return what to tell.

    Raises
    ------
    HostError
        If there is none, or the verb is not for them.
    OptionError
        If sweeps run and `--yes` was not said.
    CloudError
        If Google does not tell, or not obey.
    """
    if verb not in ("stop", "nodes", "log"):
        raise HostError(
            f'The host of {profile.name} lives on a VM (host = "vm"), for which `{verb}` has nothing to do: a sweep '
            f"--on {profile.name} with a --store in a bucket makes it, and mce.open(NAME, store=...) shows what it "
            "does, from anywhere."
        )
    found = vm_hosts.hosts(profile)
    if not found:
        raise HostError(
            f"No VM with a host of {profile.name} is there; a sweep --on {profile.name} with a --store in a bucket "
            "makes one."
        )
    if verb == "stop":
        return _stop(profile, found, sure)
    if verb == "nodes":
        return "\n".join(_nodes(profile, one) for one in found)
    return "\n".join(f"== {job}\n{text}" for job, text in vm_hosts.consoles(profile, found))


def rows(profile: Profile) -> list[Row]:
    """Return rows of the table of clusters; one that says so where Google cannot be asked."""
    try:
        return [_row(profile, one) for one in vm_hosts.hosts(profile)]
    except SweepError as error:
        return [(profile.name, f"not known: {error}", "", "", "", "", "")]


def _row(profile: Profile, one: VMHost) -> Row:
    beacon = one.beacon
    state = f"{one.state} on {one.there.name}, {one.store}"
    sweeps, jobs = str(len(one.sweeps)), str(1 + len(beacon.get("nodes") or ()))
    return (profile.name, state, str(beacon.get("workers", 0)), sweeps, jobs, "", _cost(profile, one))


def _cost(profile: Profile, one: VMHost) -> str:
    cost, hourly = float(one.beacon.get("cost") or 0.0), float(one.beacon.get("cost_per_hour") or 0.0)
    assert profile.cloud is not None
    if not hourly and profile.cloud.scheduler_price is not None:
        # No cluster counts it at present.
        hourly = profile.cloud.scheduler_price
    if not (cost or hourly):
        return ""
    return f"{cost:.2f} {profile.currency}, {hourly:.2f} an hour now"


def _nodes(profile: Profile, one: VMHost) -> str:
    table: list[Row] = [("VM", "state", "slots", "name", "reason")]
    table.append((one.there.job, one.state, "", "host", one.store))
    for row in one.beacon.get("nodes") or ():
        workers = str(len(row["workers"]))
        table.append((str(row["job"]), str(row["state"]), workers, str(row["name"]), str(row["reason"])))
    cost = _cost(profile, one)
    said = [f"cost so far: {cost}"] if cost else []
    said.append(table_text(table))
    return "\n".join([*said, *map(str, one.beacon.get("messages") or ()), *([one.trouble] if one.trouble else ())])


def _runs(name: str, one: VMHost) -> bool:
    # A heartbeat may be older than the end of a sweep.
    try:
        return open_sweep(name, one.store).state in RUNNING
    except UnknownSweep:
        return False
    except SweepError:
        return True


def _stop(profile: Profile, found: list[VMHost], sure: bool) -> str:
    sweeps = sorted({name for one in found for name in one.sweeps if _runs(name, one)})
    hidden = [one for one in found if one.trouble]
    if hidden and not sure:
        raise OptionError(
            f"Whether {profile.name} runs sweeps in {', '.join(one.store for one in hidden)} cannot be seen "
            f"({hidden[0].trouble}); add --yes to stop it all the same. What is done is kept."
        )
    if sweeps and not sure:
        raise OptionError(
            f"{profile.name} runs {', '.join(sweeps)}; add --yes to stop it. What is done is kept, and resume goes on."
        )
    vm_hosts.stop(profile, found)
    return f"{profile.name} is stopped; the VM of its host, those of its workers and their secrets are deleted."
