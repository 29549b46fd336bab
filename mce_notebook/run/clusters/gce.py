"""VMs of Compute Engine as a fleet needs them: made, listed, explained, deleted; see `fleet.Backend`.

An insertion counts once its operation is done, because only there Google says that a zone has no such machine or that
the project may have no more; then the next zone is asked. What stops by itself is deleted: a stopped VM has a disk that
costs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mce_notebook.errors import CloudError
from mce_notebook.run.clusters import vm
from mce_notebook.run.clusters.bill import Bill
from mce_notebook.run.clusters.cloud import Cloud
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.console import Console
from mce_notebook.run.clusters.fleet import Refused
from mce_notebook.run.clusters.queue import ENDED, RUNNING, WAITING, Seen
from mce_notebook.run.clusters.request import JobRequest
from mce_notebook.run.clusters.vm import Family, Order

log = logging.getLogger("mce_notebook.cluster")

# https://cloud.google.com/compute/docs/instances/instance-lifecycle; all others are ends.
STATES = {"PROVISIONING": WAITING, "STAGING": WAITING, "RUNNING": RUNNING, "REPAIRING": RUNNING}
# A zone that had no such machine is asked again after so long, a region whose quota is used up likewise (seconds).
CLOSED_SECONDS = 30.0
# Those that are being made when the cluster ends are waited for (seconds).
INSERT_SECONDS = 60.0
# Begins what is said while VMs may come in a moment, see `transient`.
LATER = "not yet: "
# What ended a VM, by what its operation is called.
ENDS = (("preempted", "PREEMPTED"), ("hostError", "NODE_FAIL"), ("Maintenance", "NODE_FAIL"), ("delete", "CANCELLED"))


class VMs:
    """The VMs of one cluster.

    Parameters
    ----------
    google : Google
    request : JobRequest
    family : Family
    bill : Bill
    logs : Path
        Folder for what consoles say.
    """

    transient = f"^{LATER}"

    def __init__(self, google: Google, request: JobRequest, family: Family, bill: Bill, logs: Path):
        assert request.cloud is not None
        self.google = google
        self.cloud: Cloud = request.cloud
        self.family = family
        self.bill = bill
        # What workers are told; and why none are made now: they could not come to a scheduler.
        self.orders: Mapping[str, Any] = {}
        self.wait = "the scheduler's VM starts"
        # What keeps us from seeing the VMs; empty while nothing does.
        self.trouble = ""
        self.console = Console(google, self.cloud.project, logs)
        self._request = request
        # Until when not to ask a zone, and why.
        self._closed: dict[str, tuple[float, CloudError]] = {}
        self._ids: dict[str, str] = {}
        self._inserting: set[asyncio.Task[dict[str, Any]]] = set()

    # What a fleet asks for

    async def submit(self, name: str) -> str:
        """Make a worker's VM and return its id, ZONE/NAME; raises Refused with Google's words."""
        if self.wait:
            raise Refused(f"{LATER}{self.wait}")
        config = {**self.orders, "name": name, "seconds": self.family.left}
        try:
            return await self.make(name, vm.WORKER, config, self.cloud.hourly)
        except CloudError as error:
            again = error.exhausted or error.passing
            raise Refused(f"{LATER if again else ''}{error}") from error

    async def cancel(self, ids: Iterable[str]) -> None:
        """Delete VMs; those that are gone do not matter."""
        await asyncio.gather(*(self._delete(*one.split("/")) for one in ids))

    async def look(self, ids: Iterable[str]) -> dict[str, Seen] | None:
        """Return the VMs by id; None when Google does not answer."""
        known = set(ids)
        try:
            found = await self.listed({one.split("/")[0] for one in known})
        except CloudError as error:
            self.trouble = str(error)
            return None
        self.trouble = ""
        there = {one: found[one] for one in known if one in found}
        await self.console.read([one for one, it in there.items() if STATES.get(str(it["status"])) == RUNNING])
        seen = await asyncio.gather(*(self._seen(one, it) for one, it in there.items()))
        return dict(zip(there, seen, strict=True))

    async def last(self, job: str) -> Seen | None:
        """Return how a VM ended that is not listed any more."""
        self.bill.end(job)
        return await self._end(job)

    def words(self, name: str, job: str) -> tuple[str, bool]:
        """Return what the console of a VM that brought no worker said, and whether that none ever will."""
        return self.console.words(job)

    # VMs

    async def make(self, name: str, role: str, config: Mapping[str, Any], price: float | None) -> str:
        """Make a VM in the first zone that has one, and return its id.

        Raises
        ------
        CloudError
            If none has.
        """
        refusals: list[CloudError] = []
        for zone in self.cloud.zones:
            until, why = self._closed.get(zone, (0.0, None))
            if why is not None and time.monotonic() < until:
                refusals.append(why)
                continue
            try:
                return await self._insert(self._order(name, zone, role, config), price)
            except CloudError as error:
                if not (error.exhausted or error.quota):
                    raise
                self._close(zone, error)
                refusals.append(error)
        raise nowhere(self.cloud, role, refusals)

    def _order(self, name: str, zone: str, role: str, config: Mapping[str, Any]) -> Order:
        family = self.family
        return Order(name=name, zone=zone, role=role, family=family, seconds=family.left, config=config)

    async def _insert(self, order: Order, price: float | None) -> str:
        made = f"{order.zone}/{order.name}"
        body = await asyncio.to_thread(vm.body, self._request, order)
        # Not cancelled halfway: nobody would know whether there is a VM.
        inserting = asyncio.create_task(self.google.insert(self.cloud.project, order.zone, body))
        self._inserting.add(inserting)
        inserting.add_done_callback(self._inserted)
        try:
            operation = await asyncio.shield(inserting)
        except CloudError as error:
            if not (error.exhausted or error.quota):
                # It may be there nevertheless, or come later.
                await self._delete(order.zone, order.name)
            raise
        self._ids[made] = str(operation.get("targetId", ""))
        self.bill.begin(made, price)
        return made

    def _inserted(self, inserting: "asyncio.Task[dict[str, Any]]") -> None:
        self._inserting.discard(inserting)
        if not inserting.cancelled() and (error := inserting.exception()) is not None:
            log.info("no VM: %s", error)

    def _close(self, zone: str, error: CloudError) -> None:
        """Leave a zone alone for a while, or all zones of its region, whose quota is one."""
        region = zone.rpartition("-")[0]
        for one in self.cloud.zones:
            if one == zone or (error.quota and one.rpartition("-")[0] == region):
                self._closed[one] = (time.monotonic() + CLOSED_SECONDS, error)

    async def listed(self, zones: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return our VMs in some zones, by id.

        Raises
        ------
        CloudError
            If one of the zones does not answer.
        """

        async def of(zone: str) -> dict[str, dict[str, Any]]:
            told = f'labels.{vm.CLUSTER} = "{vm.label(self.family.cluster)}"'
            instances = self.google.compute.instances()
            pages = await self.google.pages(instances, project=self.cloud.project, zone=zone, filter=told)
            return {f"{zone}/{one['name']}": one for page in pages for one in page.get("items") or ()}

        found: dict[str, dict[str, Any]] = {}
        for some in await asyncio.gather(*map(of, sorted(set(zones)))):
            found |= some
        return found

    async def clear(self, name: str) -> None:
        """Delete all VMs that have the cluster's label, whether we know of them or not; then make no more.

        Raises
        ------
        CloudError
            If some may be left.
        """
        if self._inserting:
            await asyncio.wait(self._inserting, timeout=INSERT_SECONDS)
        for one in await self.listed(self.cloud.zones):
            log.info("%s: deleting %s", name, one)
            await self._delete(*one.split("/"), quiet=False)

    async def _delete(self, zone: str, name: str, *, quiet: bool = True) -> None:
        try:
            await self.google.delete(self.cloud.project, zone, name)
        except CloudError as error:
            log.warning("%s was not deleted: %s", name, error)
            if not quiet:
                raise
            return
        self.bill.end(f"{zone}/{name}")

    async def _seen(self, job: str, found: Mapping[str, Any]) -> Seen:
        """Say what state a VM is in; delete one that has stopped."""
        status = str(found["status"])
        state = STATES.get(status, ENDED)
        self._ids.setdefault(job, str(found.get("id", "")))
        if state == RUNNING and (why := self.console.end(job)):
            # Its worker is gone; it lingers for us to read that.
            await self._delete(*job.split("/"))
            return Seen(ENDED, "FAILED", why)
        if state != ENDED:
            return Seen(state, status)
        ended = await self._end(job)
        await self._delete(*job.split("/"))
        return ended or Seen(ENDED, "FAILED", f"it is {status.lower()}")

    async def _end(self, job: str) -> Seen | None:
        """Return what ended a VM, as its operations tell."""
        zone, _, name = job.partition("/")
        number = self._ids.get(job, "")
        try:
            operations = self.google.compute.zoneOperations()
            pages = await self.google.pages(
                operations, project=self.cloud.project, zone=zone, filter=f"targetId = {number}"
            )
        except CloudError as error:
            log.info("what ended %s is not known: %s", name, error)
            return Seen(ENDED, "NODE_FAIL", "the VM is gone")
        told = [one for page in pages for one in page.get("items") or ()]
        for mark, word in ENDS:
            for one in told:
                if mark in str(one.get("operationType")):
                    by = f"deleted by {one.get('user', 'somebody')}" if mark == "delete" else str(one["operationType"])
                    return Seen(ENDED, word, by)
        if self.family.left < 0:
            return Seen(ENDED, "TIMEOUT", "max_hours of the profile are over")
        # Whatever a point does to its VM, the VM stays; one that is gone was taken.
        return Seen(ENDED, "NODE_FAIL", "the VM is gone") if not self.console.end(job) else None


def nowhere(cloud: Cloud, role: str, refusals: list[CloudError]) -> CloudError:
    """Return the error of all zones together."""
    quota = next((one for one in refusals if one.quota), None)
    machine = cloud.machine if role == vm.WORKER else cloud.scheduler_machine
    if quota is not None:
        return quota
    last = refusals[-1]
    where = ", ".join(cloud.zones)
    said = f"Google has no {machine}{' spot VM' if cloud.spot and role == vm.WORKER else ''} now in {where}: {last}"
    return CloudError(f"{said}. More zones, or another machine, may have some", last.status, last.code, exhausted=True)


async def port(address: str, number: int, seconds: float, check: Callable[[], Awaitable[None]]) -> None:
    """Wait until somebody listens at an address; `check` is awaited between two looks and may raise.

    Raises
    ------
    TimeoutError
        If nobody does in time.
    """
    async with asyncio.timeout(seconds):
        while True:
            try:
                async with asyncio.timeout(3):
                    _, writer = await asyncio.open_connection(address, number)
                writer.close()
                return
            except (OSError, TimeoutError):
                await check()
                await asyncio.sleep(0.5)
