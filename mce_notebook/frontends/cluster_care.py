"""Clusters whose notebook, or whose host, is gone: taken over, or what is left of them removed."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mce_notebook.errors import HostError, SweepError
from mce_notebook.frontends.messages import table_text
from mce_notebook.run.client import HostHandle
from mce_notebook.run.clusters.finding import available, find
from mce_notebook.run.clusters.profiles import BUILT_IN, Profile
from mce_notebook.run.clusters.reaping import owners
from mce_notebook.run.registry import HostFolder, folders
from mce_notebook.run.remote.place import Place
from mce_notebook.sweep import open as open_sweep
from mce_notebook.view.progress import duration

if TYPE_CHECKING:
    from mce_notebook.sweep import Sweep

# Reap


def reap(name: str, *, sure: bool) -> str:
    """List what hosts that are gone have left of a cluster, of all of them without a name; with `sure`, remove it.

    Raises
    ------
    ProfileError, UntrustedCode
        If there is no such profile, or it may not be used.
    ClusterError
        If the batch system, or the cloud, does not tell.
    """
    from mce_notebook.run.clusters.queue import finished
    from mce_notebook.run.clusters.reaping import Orphan, described, reaper

    told: list[str] = []
    found: list[Orphan] = []
    kept: list[Orphan] = []
    places: set[tuple[str, str]] = set()
    for profile in [find(name)] if name else _profiles(told):
        place = Place.of(profile)
        if place is not None:
            told.append(
                f"{profile.name} is left out: its host lives with {place.name}; what one leaves in the queue there is "
                "cancelled by the next."
            )
            continue
        made = reaper(profile)
        if made is None:
            continue
        # Profiles that share a folder or a project find the same.
        try:
            seen = finished(made.find())
        except SweepError as error:
            if name:
                raise
            # One that cannot be asked does not hide what the others left.
            told.append(f"{profile.name} is left out: {error}")
            continue
        here = [one for one in seen if (one.place, one.id) not in places]
        places.update((one.place, one.id) for one in here)
        found += here
        if sure and here:
            kept += finished(made.remove(here))
    if not found:
        return "\n".join([*told, "Nothing was left behind by hosts that are gone."])
    count = "1 thing was" if len(found) == 1 else f"{len(found)} things were"
    told += [f"{count} left behind by hosts that are gone:", table_text(described(found))]
    if not sure:
        told.append("Add --yes to delete them.")
    elif kept:
        told.append(f"Deleted, but for {', '.join(one.id for one in kept)}; look again in a moment.")
    else:
        told.append("All of it is deleted.")
    return "\n".join(told)


def _profiles(told: list[str]) -> Iterator[Profile]:
    """Yield every profile that can be used; say of the others why not."""
    for name in available():
        try:
            yield find(name)
        except SweepError as error:
            told.append(f"{name} is left out: {error}")


# Attach


def attach(name: str, running: list[HostHandle]) -> str:
    """Take over the cluster of a profile: the one that runs, or what a dead host left.

    Where a host runs there is nothing to do but to say so: clusters belong to their user, and every notebook and
    terminal of the machine uses the same ones. Where one died, another is started, which cancels what is left in the
    queue, and the sweeps it drove go on.

    Parameters
    ----------
    name : str
    running : list of HostHandle
        The hosts of the profile that run.

    Raises
    ------
    HostError
        If there is nothing to take over; with where it runs, if that is known.
    """
    if running:
        return "\n".join(line for host in running for line in _running(name, host))
    cut = [sweep for folder in folders() for sweep in _cut(folder, name)]
    if not cut:
        raise HostError(_absent(name))
    for sweep in cut:
        sweep.resume()
    return "\n".join([f"The host of {name} was gone; another one goes on with:", *map(_opened, cut)])


def _running(name: str, host: HostHandle) -> Iterator[str]:
    state, claim = host.state(), host.folder.claim()
    age = duration(time.time() - claim.time) if claim is not None else "some time"
    slots = int(state.get("workers") or 0)
    yield f"{name} is {state.get('state', 'starting')}, has run for {age} and has {slots} slot{'s' * (slots != 1)}."
    for told in state.get("sweeps") or ():
        try:
            yield _opened(open_sweep(str(told["name"]), str(told["store"])))
        except SweepError as error:
            yield f"  {told.get('name')}: {error}"


def _cut(folder: HostFolder, name: str) -> Iterator["Sweep"]:
    """Yield the sweeps that the dead host of a folder drove and that nobody goes on with."""
    launch = folder.launch()
    if launch is None or launch.profile != name or folder.owner() is not None:
        return
    for told in folder.state().get("sweeps") or ():
        # One that was removed since is no reason not to take over the others.
        with contextlib.suppress(SweepError, KeyError):
            sweep = open_sweep(str(told["name"]), str(told["store"]))
            if sweep.state == "interrupted":
                yield sweep


def _opened(sweep: "Sweep") -> str:
    progress = sweep.progress
    return (
        f"  {sweep.name}: {progress.state}, {progress.extent}; "
        f"{sweep.name} = mce.open({sweep.name!r}, store={str(sweep.folder.parent)!r})"
    )


def _absent(name: str) -> str:
    """Say that there is nothing to take over; or where it is, as far as a shared folder tells."""
    if name not in BUILT_IN:
        profile = find(name)
        for place in owners(profile):
            if not place.gone:
                return (
                    f"{name} runs on {place.process.hostname} (pid {place.process.pid}), and is reached from there: "
                    "open the notebook on that machine. Sweeps in a store you see are shown here all the same, by "
                    "mce.open(NAME)."
                )
    return f"No cluster {name!r} runs, and none was cut off in the middle of a sweep; `start {name}` starts it."
