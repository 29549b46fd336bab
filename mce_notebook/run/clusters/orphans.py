"""VMs and secrets in a project that have our labels, and whose host is no more."""

import asyncio
import datetime
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mce_notebook.run.client import hosts
from mce_notebook.run.clusters import vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.clusters.reaping import Orphan
from mce_notebook.run.clusters.vault import kept


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
    since : str
        RFC 3339; empty for a secret.
    """

    name: str
    zone: str
    labels: Mapping[str, str]
    status: str = ""
    since: str = ""

    @property
    def orphan(self) -> Orphan:
        """The same as what it may turn out to be."""
        return Orphan(
            id=self.name,
            what="VM" if self.zone else "secret",
            state=self.status,
            host=self.labels.get(vm.MACHINE, ""),
            born=datetime.datetime.fromisoformat(self.since).timestamp() if self.since else 0.0,
            place=self.zone,
        )


class VMReaper:
    """VMs and secrets that hosts of this machine made for a profile and left.

    Those that were made from other machines are left alone: whether their hosts live cannot be seen from here, and
    they end by themselves.

    Parameters
    ----------
    profile : Profile
        Of kind gce.
    """

    def __init__(self, profile: Profile):
        assert profile.cloud is not None
        self._cloud = profile.cloud
        self._labels = {
            vm.USER: vm.label(vm.user()),
            vm.MACHINE: vm.label(socket.gethostname()),
            vm.PROFILE: vm.label(profile.name),
        }

    async def find(self) -> list[Orphan]:
        """Return what was left; see `Reaper`."""
        google = await asyncio.to_thread(Google, self._cloud.credentials)
        there = await found(google, self._cloud.project, self._labels)
        # Looked up after what there is: a host that starts meanwhile makes its VMs later.
        running = hosts()
        alive = {vm.label(str(host.state()["cluster"])) for host in running if "cluster" in host.state()}
        # Those that are about to say so.
        starting = {vm.label(host.folder.path.name) for host in running if "cluster" not in host.state()}
        return [
            one.orphan
            for one in there
            if one.labels.get(vm.CLUSTER) not in alive and one.labels.get(vm.HOST) not in starting
        ]

    async def remove(self, orphans: Sequence[Orphan]) -> list[Orphan]:
        """Delete them; one that Google has begun to delete is gone."""
        google = await asyncio.to_thread(Google, self._cloud.credentials)
        await delete(google, self._cloud.project, [(one.place, one.id) for one in orphans])
        return []


async def found(google: Google, project: str, labels: Mapping[str, str]) -> list[Ours]:
    """Return all VMs and secrets of a project with some labels.

    Raises
    ------
    CloudError
        If Google does not tell.
    """
    # Several conditions have to be in brackets here, unlike in Secret Manager.
    told = " AND ".join(f'(labels.{name} = "{value}")' for name, value in labels.items())
    instances = google.compute.instances()
    made: list[Ours] = []
    token = None
    while True:
        page = await google.call(instances.aggregatedList(project=project, filter=told, pageToken=token))
        assert page is not None
        for scope in (page.get("items") or {}).values():
            made += [_vm(one) for one in scope.get("instances") or ()]
        token = page.get("nextPageToken")
        if not token:
            return made + [Ours(name, "", tags) for name, tags in await kept(google, project, labels)]


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


def _vm(record: Mapping[str, Any]) -> Ours:
    return Ours(
        str(record["name"]),
        str(record["zone"]).rpartition("/")[2],
        dict(record.get("labels") or {}),
        str(record["status"]),
        str(record.get("creationTimestamp", "")),
    )
