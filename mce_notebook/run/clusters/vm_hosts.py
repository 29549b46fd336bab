"""Hosts that live on VMs of Compute Engine, as seen from elsewhere: which there are, what they say, their end."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mce_notebook.errors import CloudError, StoreError
from mce_notebook.run.clusters import host_vm, orphans, vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.host_vm import There
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.clusters.queue import finished
from mce_notebook.store.catalog import Store
from mce_notebook.store.requests import tell, told

# Google is asked for so long (seconds); whoever waits for a table is to get one.
ASK_SECONDS = 20.0
# What of a console is shown.
LINES = 40
WORDS = {
    host_vm.SERVING: "serves",
    host_vm.COMING: "starts",
    host_vm.LEAVING: "leaves",
    host_vm.USELESS: "silent",
}


@dataclass(frozen=True)
class VMHost:
    """The host of a profile in one store.

    Parameters
    ----------
    there : There
        Its VM.
    state : str
        One of WORDS.
    beacon : mapping
        What it said last: sweeps, slots, nodes, cost.
    trouble : str
        Why that cannot be read; empty where it can.
    """

    there: There
    state: str
    beacon: Mapping[str, Any]
    trouble: str = ""

    @property
    def store(self) -> str:
        """Address of the store it serves."""
        return str((self.there.config or {}).get("store", ""))

    @property
    def sweeps(self) -> list[str]:
        """Names of the sweeps it drives, as it said last."""
        return [str(name) for name in self.beacon.get("sweeps") or ()]


def lives_there(profile: Profile) -> bool:
    """Return whether the hosts of a profile live on VMs that we make."""
    return profile.kind == "gce" and profile.host == "vm"


def hosts(profile: Profile) -> list[VMHost]:
    """Return the hosts of a profile that this user has on VMs, in whatever store.

    Raises
    ------
    CloudError
        If Google does not tell.
    """
    return finished(_asked(profile))


async def _asked(profile: Profile) -> list[VMHost]:
    try:
        async with asyncio.timeout(ASK_SECONDS):
            google, found = await _found(profile)
    except TimeoutError:
        raise CloudError(f"Google does not answer within {ASK_SECONDS:g} s", passing=True) from None
    return list(await asyncio.gather(*(asyncio.to_thread(_heard, profile.name, one, google.now()) for one in found)))


async def _found(profile: Profile) -> tuple[Google, list[There]]:
    assert profile.cloud is not None
    google = await asyncio.to_thread(Google, profile.cloud.credentials)
    there = await orphans.instances(google, profile.cloud.project, {**mine(profile), vm.ROLE: vm.STATION})
    return google, [one for one in there if _is_of(profile, one)]


def _is_of(profile: Profile, one: There) -> bool:
    """Whether a VM is what it says: labels have small letters and 63 of them, so those of two profiles may be one."""
    said = one.config or {}
    assert profile.cloud is not None
    own = (said.get("profile"), said.get("user")) == (profile.name, vm.user())
    return own and one.name == host_vm.name_of(profile.cloud, profile.name, str(said.get("store", "")))


def mine(profile: Profile) -> dict[str, str]:
    """Return the labels of all that this user has of a profile."""
    return {vm.USER: vm.label(vm.user()), vm.PROFILE: vm.label(profile.name)}


def _heard(profile: str, one: There, now: float) -> VMHost:
    try:
        beacon = told(Store(str((one.config or {}).get("store", ""))), profile)
    except StoreError as error:
        return VMHost(one, f"{one.status.lower()}, more is not known", {}, str(error))
    verdict, _ = host_vm.judge(beacon, [one], now)
    own = beacon.get("vm") == one.number
    return VMHost(one, WORDS[verdict], beacon if own else {})


def stop(profile: Profile, found: Sequence[VMHost]) -> None:
    """Delete the VMs of hosts, and of the workers they made, and all secrets of both.

    Raises
    ------
    CloudError
        If some may still be there.
    """
    finished(_stop(profile, found))


async def _stop(profile: Profile, found: Sequence[VMHost]) -> None:
    assert profile.cloud is not None
    project = profile.cloud.project
    google = await asyncio.to_thread(Google, profile.cloud.credentials)
    # The hosts first, so that nobody makes workers any more.
    await asyncio.gather(*(google.delete(project, one.there.zone, one.there.name, wait=True) for one in found))
    names = {one.there.name for one in found}
    there = await orphans.found(google, project, mine(profile))
    rest = [one for one in there if {one.labels.get(vm.MACHINE), one.labels.get(vm.CLUSTER)} & names]
    await orphans.delete(google, project, [(one.zone, one.name) for one in rest])
    for one in found:
        # Whoever wants one next need not wait until this one counts as dead.
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(tell, Store(one.store), profile.name, {"state": "stopped"})


def consoles(profile: Profile, found: Sequence[VMHost]) -> list[tuple[str, str]]:
    """Return the ends of the consoles of hosts, by ZONE/NAME.

    Raises
    ------
    CloudError
        If Google does not tell.
    """
    return finished(_consoles(profile, found))


async def _consoles(profile: Profile, found: Sequence[VMHost]) -> list[tuple[str, str]]:
    assert profile.cloud is not None
    google = await asyncio.to_thread(Google, profile.cloud.credentials)
    read = google.compute.instances().getSerialPortOutput
    said = []
    for one in found:
        place = {"project": profile.cloud.project, "zone": one.there.zone, "instance": one.there.name}
        answer = await google.call(read(**place, port=1), missing=True)
        lines = str((answer or {}).get("contents", "")).strip().splitlines()
        said.append((one.there.job, "\n".join(lines[-LINES:])))
    return said
