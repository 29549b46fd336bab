"""VMs and secrets in a project that have our labels, and whose host is no more."""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mce_notebook.run.client import hosts
from mce_notebook.run.clusters import vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.vault import kept


@dataclass(frozen=True)
class Left:
    """One VM or secret.

    Parameters
    ----------
    name, zone : str
        The zone is empty for a secret.
    cluster, host, machine : str
        As labelled.
    status, since : str
        As Google says.
    """

    name: str
    zone: str
    cluster: str
    host: str
    machine: str
    status: str = ""
    since: str = ""

    @property
    def alive(self) -> bool:
        """Whether the host it belongs to runs; only hosts of this machine can be seen."""
        return self.cluster in {vm.label(str(host.state().get("cluster", ""))) for host in hosts()}

    @property
    def elsewhere(self) -> bool:
        """Whether it was made from another machine, whose hosts cannot be seen from here."""
        return self.machine != vm.label(socket.gethostname())


async def found(google: Google, project: str, labels: Mapping[str, str]) -> list[Left]:
    """Return all VMs and secrets of a project with some labels.

    Raises
    ------
    CloudError
        If Google does not tell.
    """
    told = " AND ".join(f"labels.{name}={value}" for name, value in labels.items())
    compute = google.compute.instances()
    made: list[Left] = []
    token = None
    while True:
        page = await google.call(compute.aggregatedList(project=project, filter=told, pageToken=token))
        assert page is not None
        for scope in (page.get("items") or {}).values():
            made += [_vm(one) for one in scope.get("instances") or ()]
        token = page.get("nextPageToken")
        if not token:
            break
    return made + [_left(name, "", tags) for name, tags in await kept(google, project, labels)]


async def delete(google: Google, project: str, left: Iterable[Left]) -> None:
    """Delete them; those that are gone do not matter.

    Raises
    ------
    CloudError
        If some may still be there.
    """

    async def one(it: Left) -> None:
        if it.zone:
            await google.delete(project, it.zone, it.name)
        else:
            await google.call(google.secrets.delete(name=f"projects/{project}/secrets/{it.name}"), missing=True)

    await asyncio.gather(*map(one, left))


def _vm(record: Mapping[str, Any]) -> Left:
    zone = str(record["zone"]).rpartition("/")[2]
    return _left(
        str(record["name"]), zone, record.get("labels") or {}, str(record["status"]),
        str(record.get("creationTimestamp", "")),
    )  # fmt: skip


def _left(name: str, zone: str, labels: Mapping[str, str], status: str = "secret", since: str = "") -> Left:
    cluster, host, machine = (str(labels.get(one, "")) for one in (vm.CLUSTER, vm.HOST, vm.MACHINE))
    return Left(name, zone, cluster, host, machine, status, since)
