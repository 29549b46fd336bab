"""The clusters of this user, as live views tell them."""

import datetime
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.client import HostHandle, hosts, stop_host


def clusters() -> list[dict[str, Any]]:
    """Return a `Cluster` for every host that runs; none where the folder of hosts cannot be used."""
    try:
        return [told(host) for host in hosts()]
    except HostError:
        return []


def told(host: HostHandle) -> dict[str, Any]:
    """Describe one host in JSON."""
    state, launch, claim = host.state(), host.folder.launch(), host.folder.claim()
    profile = launch.profile if launch is not None else str(state.get("profile") or "")
    workers = int(state.get("workers") or 0)
    since = datetime.datetime.fromtimestamp(claim.time if claim is not None else 0.0, datetime.UTC)
    return {
        "key": host.folder.path.name,
        "name": profile,
        "kind": str(state.get("kind") or profile),
        "state": str(state.get("state") or "starting"),
        "workers": workers,
        "slots": int(state.get("slots") or workers),
        "since": since.isoformat(timespec="seconds"),
        "sweeps": [str(sweep.get("name")) for sweep in state.get("sweeps") or ()],
        "address": str(state.get("address") or host.process.hostname),
        "cost_per_hour": state.get("cost_per_hour"),
        "message": str(state.get("message") or ""),
    }


def find(key: str) -> HostHandle:
    """Return the running host of a key.

    Raises
    ------
    HostError
        If there is none.
    """
    for host in hosts():
        if host.folder.path.name == key:
            return host
    raise HostError("There is no such cluster; it may have ended already.")


def stop(host: HostHandle) -> None:
    """Let a host finish its blocks and end; sweeps that were cut resume on another one."""
    stop_host(host)


def ring(store: str, name: str) -> None:
    """Make every host that drives a sweep look at what was asked of it.

    A host of another environment than ours is found by what it says it drives, not by what we would start.
    """
    for host in hosts():
        driven = [(str(sweep.get("store")), str(sweep.get("name"))) for sweep in host.state().get("sweeps") or ()]
        if (store, name) in driven:
            host.request({"verb": "run", "store": store, "name": name})
        host.close()
