"""VMs and secrets in a project that have our labels, and whose host is no more."""

import asyncio
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mce_notebook.errors import StoreError
from mce_notebook.run.client import hosts
from mce_notebook.run.clusters import host_vm, vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.host_vm import There
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.clusters.reaping import Orphan
from mce_notebook.run.clusters.vault import kept
from mce_notebook.run.registry import start_time
from mce_notebook.store.catalog import Store
from mce_notebook.store.requests import told


@dataclass(frozen=True)
class Ours:
    """One VM or secret with our labels.

    Parameters
    ----------
    name, zone : str
        The zone is empty for a secret.
    labels : mapping
    status : str
        As Google says; empty for a secret.
    born : float
        Seconds since 1970; 0 for a secret.
    """

    name: str
    zone: str
    labels: Mapping[str, str]
    status: str = ""
    born: float = 0.0

    @property
    def orphan(self) -> Orphan:
        """The same as what it may turn out to be."""
        return Orphan(
            id=self.name,
            what="VM" if self.zone else "secret",
            state=self.status,
            host=self.labels.get(vm.MACHINE, ""),
            born=self.born,
            place=self.zone,
        )


class VMReaper:
    """VMs and secrets that hosts of this user made for a profile and left.

    Whether a host on a VM lives is told by its heartbeat in the store. Of other hosts, those that were made from other
    machines are left alone: whether these live cannot be seen from here, and what they made ends by itself.

    Parameters
    ----------
    profile : Profile
        Of kind gce.
    """

    def __init__(self, profile: Profile):
        assert profile.cloud is not None
        self._cloud = profile.cloud
        self._labels = {vm.USER: vm.label(vm.user()), vm.PROFILE: vm.label(profile.name)}

    async def find(self) -> list[Orphan]:
        """Return what was left; see `Reaper`."""
        google = await asyncio.to_thread(Google, self._cloud.credentials)
        stations = await instances(google, self._cloud.project, {**self._labels, vm.ROLE: vm.STATION})
        living = {one.name for one in stations if await asyncio.to_thread(self._lives, one, google.now())}
        there = await found(google, self._cloud.project, self._labels)
        # Looked up after what there is: a host that starts meanwhile makes its VMs later.
        running = hosts()
        alive = {vm.label(str(host.state()["cluster"])) for host in running if "cluster" in host.state()}
        # Those that are about to say so.
        starting = {vm.label(host.folder.path.name) for host in running if "cluster" not in host.state()}
        here, all_stations = vm.label(vm.machine()), {one.name for one in stations}
        orphans = []
        for one in there:
            machine = one.labels.get(vm.MACHINE, "")
            if one.labels.get(vm.ROLE) == vm.STATION:
                left = one.name not in living if one.zone else _left(one, living, here)
            elif host_vm.is_name(machine):
                # Of a host on a VM that is not there any more, or of no use.
                left = machine not in (living if machine in all_stations else ())
            else:
                mine = one.labels.get(vm.CLUSTER) in alive or one.labels.get(vm.HOST) in starting
                left = machine == here and not mine
            if left:
                orphans.append(one.orphan)
        return orphans

    def _lives(self, one: There, now: float) -> bool:
        """Whether the host on a VM lives, or is coming up."""
        address = str((one.config or {}).get("store", ""))
        try:
            # Two profiles may have the same label, in small letters and cut off.
            beacon = told(Store(address), str((one.config or {}).get("profile", ""))) if address else {}
        except StoreError:
            # As long as nobody knows, it does.
            return one.status in host_vm.ALIVE
        verdict, _ = host_vm.judge(beacon, [one], now)
        return verdict != host_vm.USELESS

    async def remove(self, orphans: Sequence[Orphan]) -> list[Orphan]:
        """Delete them; one that Google has begun to delete is gone."""
        google = await asyncio.to_thread(Google, self._cloud.credentials)
        await delete(google, self._cloud.project, [(one.place, one.id) for one in orphans])
        return []


def _left(secret: Ours, living: set[str], here: str) -> bool:
    """Whether nobody needs the secret of a host's VM any more: neither the VM nor the process that makes one."""
    if secret.labels.get(vm.CLUSTER) in living or secret.labels.get(vm.MACHINE) != here:
        return False
    number = secret.labels.get(vm.HOST, "").removeprefix("pid-")
    return not (number.isdigit() and start_time(int(number)) is not None)


async def instances(google: Google, project: str, labels: Mapping[str, str]) -> list[There]:
    """Return all VMs of a project with some labels.

    Raises
    ------
    CloudError
        If Google does not tell.
    """
    # Several conditions have to be in brackets here, unlike in Secret Manager.
    told = " AND ".join(f'(labels.{name} = "{value}")' for name, value in labels.items())
    listing = google.compute.instances()
    made: list[There] = []
    token = None
    while True:
        page = await google.call(listing.aggregatedList(project=project, filter=told, pageToken=token))
        assert page is not None
        for scope in (page.get("items") or {}).values():
            made += [_there(one) for one in scope.get("instances") or ()]
        token = page.get("nextPageToken")
        if not token:
            return made


async def found(google: Google, project: str, labels: Mapping[str, str]) -> list[Ours]:
    """Return all VMs and secrets of a project with some labels.

    Raises
    ------
    CloudError
        If Google does not tell.
    """
    vms = await instances(google, project, labels)
    secrets = await kept(google, project, labels)
    return [
        *(Ours(one.name, one.zone, one.labels or {}, one.status, one.born) for one in vms),
        *(Ours(name, "", tags) for name, tags in secrets),
    ]


async def delete(google: Google, project: str, places: Sequence[tuple[str, str]]) -> None:
    """Delete VMs, and secrets, whose zone is empty; those that are gone do not matter.

    Raises
    ------
    CloudError
        If some may still be there.
    """

    async def one(zone: str, name: str) -> None:
        if zone:
            await google.delete(project, zone, name)
        else:
            await google.call(google.secrets.delete(name=f"projects/{project}/secrets/{name}"), missing=True)

    await asyncio.gather(*(one(*place) for place in places))


def _there(record: Mapping[str, Any]) -> There:
    entries = {item["key"]: item.get("value", "") for item in (record.get("metadata") or {}).get("items") or ()}
    since = str(record.get("creationTimestamp", ""))
    return There(
        name=str(record["name"]),
        zone=str(record["zone"]).rpartition("/")[2],
        status=str(record["status"]),
        number=str(record.get("id", "")),
        born=datetime.datetime.fromisoformat(since).timestamp() if since else 0.0,
        labels=dict(record.get("labels") or {}),
        config=_config(entries.get(vm.CONFIG, "")),
    )


def _config(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
