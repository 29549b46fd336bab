"""See that the VM of a host is there: `python -m mce_notebook.run.clusters.summoning PROFILE ADDRESS`.

One line of JSON on its output says what became of it, when Google has taken the VM or refused it. It then watches until
the host serves; if that fails, the sweeps that wait for it are told why. Any number of these may run at a time, on any
machines: the VM has one name, of which Google makes one.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mce_notebook.declare.signing import user_key
from mce_notebook.errors import CloudError, StoreError, SweepError
from mce_notebook.run.clusters import host_vm, vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.console import Console
from mce_notebook.run.clusters.gce import nowhere
from mce_notebook.run.clusters.host_vm import COMING, NOTHING, SERVING, USELESS, There
from mce_notebook.run.clusters.node import environment
from mce_notebook.run.clusters.orphans import instances
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.clusters.request import resolve
from mce_notebook.run.clusters.vault import Vault
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.requests import told, waiting

log = logging.getLogger("mce_notebook.cluster")

LOOK_SECONDS = 2.0
# A VM that is being deleted has so long to be gone (seconds).
LEAVE_SECONDS = 240.0
ADVICE = (
    "The service account of the host's VM needs the role roles/secretmanager.secretAccessor, and the Secret Manager "
    "API has to be enabled in the project."
)


class Summons:
    """One call for the host of a profile in a store.

    Parameters
    ----------
    profile : Profile
    said : mapping
        Its table as the VM is to have it.
    address : str
        Of the store.
    google : Google
    logs : Path
        Folder for what consoles say.
    """

    def __init__(self, profile: Profile, said: dict[str, Any], address: str, google: Google, logs: Path):
        assert profile.cloud is not None
        self.cloud = profile.cloud
        self.store = Store(address)
        self.name = host_vm.name_of(self.cloud, profile.name, address)
        self._profile = profile
        self._said = said
        self._address = address
        self._google = google
        self._request = resolve(profile)
        self._beacon: Mapping[str, Any] = {}
        # Google's number of the VM whose console was read last.
        self._number = ""
        self._console = Console(google, self.cloud.project, logs)

    async def answer(self, patience: Callable[[], None]) -> bool:
        """Have a VM; whether a host serves already, so that there is nothing to watch.

        Parameters
        ----------
        patience : callable
            Called when that takes a while: a host has to be heard of, or another VM has to go first.

        Raises
        ------
        CloudError
            If there can be none now.
        """
        end = time.monotonic() + LEAVE_SECONDS
        heard: Mapping[str, Any] | None = None
        while time.monotonic() < end:
            verdict, one = await self._judged()
            if verdict == SERVING and heard not in (None, self._beacon):
                log.info("%s is served", self._profile.name)
                return True
            if verdict == SERVING:
                # One that has just died looks the same until it should have been heard of again.
                heard = self._beacon
            if verdict == COMING:
                return False
            if verdict == NOTHING:
                if await self._changes(patience):
                    return True
                if await self._make():
                    return False
            else:
                patience()
            if verdict == USELESS and one is not None:
                log.info("%s is of no use and deleted", one.job)
                await self._google.delete(self.cloud.project, one.zone, one.name, wait=True)
            await asyncio.sleep(LOOK_SECONDS)
        raise CloudError(
            f"The VM {self.name} is being deleted and has not gone for {LEAVE_SECONDS:g} s; run the cell again later."
        )

    async def _changes(self, patience: Callable[[], None]) -> bool:
        """Whether a machine of the user's serves though its clock is wrong: its heartbeat changes."""
        first = self._beacon
        if first.get("state") != "serving" or first.get("vm"):
            return False
        patience()
        end = time.monotonic() + host_vm.FRESH_SECONDS
        while time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)
            if (now := await asyncio.to_thread(told, self.store, self._profile.name)) != first:
                log.info("%s is served, by a machine with another time", self._profile.name)
                return now.get("state") == "serving"
        return False

    async def watch(self) -> str:
        """Wait until a host serves; return why none will, empty if one does."""
        end = time.monotonic() + host_vm.BOOT_SECONDS
        last: There | None = None
        blind = False
        while time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                verdict, one = await self._judged()
            except (CloudError, StoreError) as error:
                log.info("%s", error)
                blind = True
                continue
            blind = False
            last = one or last
            if verdict == SERVING or (last is not None and self._beacon.get("vm") == last.number):
                # It may have been so quick that it has ended already.
                return ""
            if verdict == USELESS:
                await self._delete(one)
            if verdict in (NOTHING, USELESS):
                return self._ended(last)
        if blind:
            # It may serve all the same; who cannot see that has nothing to delete.
            return ""
        await self._delete(last)
        return (
            f"The VM of the host, {self.name}, does not serve after {host_vm.BOOT_SECONDS:g} s and is deleted. "
            f"Its console ends: {self._words(last)}"
        )

    async def _delete(self, one: There | None) -> None:
        # It does that itself, where it may; and Google does, in the end.
        with contextlib.suppress(CloudError):
            if one is not None:
                await self._google.delete(self.cloud.project, one.zone, one.name)

    def _ended(self, last: There | None) -> str:
        where = last.job if last is not None else self.name
        return f"The VM of the host, {where}, ended before it served: {self._words(last) or 'somebody deleted it'}"

    def _words(self, last: There | None) -> str:
        return self._console.words(last.job)[0] if last is not None else ""

    async def _judged(self) -> tuple[str, There | None]:
        """Say what there is; a VM that comes up, but whose console says that it will not, is of no use."""
        vms = await instances(self._google, self.cloud.project, {vm.CLUSTER: self.name, vm.ROLE: vm.STATION})
        self._beacon = await asyncio.to_thread(told, self.store, self._profile.name)
        verdict, one = host_vm.judge(self._beacon, vms, self._google.now())
        if one is not None and one.number != self._number:
            # Consoles go by the name, and this one has said nothing of what one before it has.
            self._console.forget(one.job)
            self._number = one.number
        if verdict == COMING and one is not None and one.status == "RUNNING":
            await self._console.read([one.job])
            if self._console.end(one.job):
                return host_vm.USELESS, one
        return verdict, one

    # Making one

    async def _make(self) -> bool:
        """Make the VM in the first zone that has one; False where somebody else was faster."""
        secret = f"{self.name}-{secrets.token_hex(4)}"
        vault = await self._vault()
        try:
            place = await vault.put(secret, self._content())
            made = await self._insert(place, secret)
        except BaseException:
            with contextlib.suppress(CloudError):
                await vault.drop(secret)
            raise
        if not made:
            await vault.drop(secret)
        return made

    async def _insert(self, place: str, secret: str) -> bool:
        refusals: list[CloudError] = []
        for zone in self.cloud.zones:
            order = vm.Order(
                name=self.name, zone=zone, role=vm.STATION, family=self._family(), seconds=self._seconds,
                config=self._config(place, secret),
            )  # fmt: skip
            try:
                await self._google.insert(self.cloud.project, zone, vm.body(self._request, order))
            except CloudError as error:
                if error.status == 409:
                    return False
                if not (error.exhausted or error.quota):
                    raise
                refusals.append(error)
            else:
                log.info("%s/%s is made", zone, self.name)
                return True
        raise nowhere(self.cloud, vm.STATION, refusals)

    @property
    def _seconds(self) -> float:
        return self._request.max_hours * 3600.0

    def _family(self) -> vm.Family:
        # Whose secret it is is told by the process that made it, while there is no VM yet.
        return vm.Family(
            cluster=self.name,
            profile=self._profile.name,
            host=f"pid-{os.getpid()}",
            machine=vm.machine(),
            ends=time.monotonic() + self._seconds,
        )

    async def _vault(self) -> Vault:
        reader = self.cloud.host_account
        if reader == "default":
            project = await self._google.call(self._google.compute.projects().get(project=self.cloud.project))
            reader = str((project or {}).get("defaultServiceAccount", reader))
        labels = {**vm.labels(self._family(), self.cloud.labels), vm.ROLE: vm.STATION}
        return Vault(self._google, self.cloud.project, labels, reader, self._seconds)

    def _content(self) -> dict[str, str]:
        """Return what only the VM may know: by whose signature it knows code, and commands of the profile."""
        key = base64.b64encode(user_key()).decode()
        return {"signing": key, "profiles": host_vm.toml(self._profile.name, self._said)}

    def _config(self, place: str, secret: str) -> dict[str, Any]:
        """Return what everybody may know who sees the project."""
        own = environment()
        return {
            "secret": place,
            "drop": secret,
            "advice": ADVICE,
            "project": self.cloud.project,
            "compute": self._google.address,
            "endpoints": host_vm.endpoints(),
            "environment": {name: own[name] for name in ("python", "executable", "shared")},
            "name": self.name,
            "profile": self._profile.name,
            "store": self._address,
            "user": vm.user(),
            "seconds": self._seconds,
        }


def refuse(store: Store, profile: str, why: str) -> None:
    """Tell the sweeps that wait for the host of a profile why none comes; their requests stay, for one that does.

    Where one is heard of nevertheless, there is nothing to be told: it was only not seen by us.
    """
    try:
        if _heard(store, profile):
            return
        names = {wanted.name for wanted in waiting(store, profile)}
    except StoreError as error:
        log.warning("nobody could be told: %s", error)
        return
    for name in names:
        # One that was removed meanwhile has nobody to be told.
        with contextlib.suppress(SweepError):
            _refuse(store.sweep(name), why)


def _heard(store: Store, profile: str) -> bool:
    """Whether a host lives that serves: its heartbeat is not just there, but changes."""
    first = told(store, profile)
    while host_vm.seen(store, profile):
        if told(store, profile) != first:
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _refuse(sweep: SweepStore, why: str) -> None:
    intent = sweep.latest_intent()
    if intent is None or (intent.verb == "run" and intent.note != why):
        sweep.add_intent("run", by=vm.machine(), note=why, refused=True)


async def _run(profile: str, address: str, logs: Path) -> bool:
    """See to the VM; whether nothing happened that should not."""
    try:
        await _summon(profile, address, logs)
    except Exception as error:
        # Of a package that is missing, say: those who wait would wait for nothing.
        log.exception("the VM of the host of %s", profile)
        why = f"The VM of the host could not be asked for: {type(error).__name__}: {error}"
        await asyncio.to_thread(refuse, Store(address), profile, why)
        _answer({"error": why})
        return False
    return True


async def _summon(profile: str, address: str, logs: Path) -> None:
    store = Store(address)
    try:
        found, said = host_vm.table(profile)
        assert found.cloud is not None
        google = await asyncio.to_thread(Google, found.cloud.credentials)
        summons = Summons(found, said, address, google, logs)
        served = await summons.answer(lambda: _answer({"vm": summons.name}))
    except SweepError as error:
        log.warning("%s", error)
        await asyncio.to_thread(refuse, store, profile, str(error))
        _answer({"error": str(error)})
        return
    _answer({"vm": summons.name})
    if not served and (why := await summons.watch()):
        log.warning("%s", why)
        await asyncio.to_thread(refuse, store, profile, why)


def _answer(said: dict[str, str]) -> None:
    """Tell whoever asked, who may be gone; once, what comes later is told by the sweeps."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(said).encode() + b"\n")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def main(arguments: Sequence[str]) -> None:
    """See to the VM for a profile and the address of a store."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    profile, address = arguments
    if os.fork():
        # Nobody's child, for nobody to wait for; before there are threads.
        os._exit(0)
    with tempfile.TemporaryDirectory(prefix="mce-") as logs:
        fine = asyncio.run(_run(profile, address, Path(logs)))
    sys.exit(not fine)


if __name__ == "__main__":
    main(sys.argv[1:])
