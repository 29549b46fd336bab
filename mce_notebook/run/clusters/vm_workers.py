"""Workers on VMs of Compute Engine: a scheduler's VM that this machine connects to, a fleet of workers' VMs, a bill.

A notebook behind a router cannot be reached by VMs, so the scheduler has a VM of its own. What it needs to be believed
is taken out of Secret Manager again as soon as it is up, before the first worker is made.
"""

import asyncio
import contextlib
import functools
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import dask
from distributed import Security

from mce_notebook.errors import CloudError, ClusterError, HostError
from mce_notebook.run.clusters import vm
from mce_notebook.run.clusters.bill import Bill
from mce_notebook.run.clusters.certificates import Certificates, issue
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.fleet import Fleet
from mce_notebook.run.clusters.fleet_workers import FleetWorkers
from mce_notebook.run.clusters.gce import LATER, VMs, port
from mce_notebook.run.clusters.local import QUIET
from mce_notebook.run.clusters.node import environment
from mce_notebook.run.clusters.request import JobRequest
from mce_notebook.run.clusters.scheduler import FAR, FarScheduler, OwnScheduler
from mce_notebook.run.clusters.script import shared_folder
from mce_notebook.run.clusters.vault import Vault, kept
from mce_notebook.run.registry import HostFolder

log = logging.getLogger("mce_notebook.cluster")

# A VM has this long to boot, pull its container and bring its worker (seconds).
BOOT_SECONDS = 900.0
# Slots without work are kept a little longer than those of jobs: a minute of each VM is paid anyway.
SPARE_SECONDS = 60.0
# VMs made at a time; Google takes some seconds for each.
TOGETHER = 20
# What the cluster has cost, and its scheduler, are looked at so often (seconds).
WATCH_SECONDS = 1.0
# What consoles said is kept for so long (seconds).
MEMORY_SECONDS = 7 * 86400.0
# A scheduler that is lost for so long is looked for among the VMs.
LOST_SECONDS = 20.0
AGAIN = "What is done is kept; resume goes on with a new cluster."
ADVICE = (
    "Its service account needs the role roles/secretmanager.secretAccessor, and the Secret Manager API has to be "
    "enabled in the project."
)


class CloudFleet(Fleet):
    """A fleet that tells of VMs, and that may have come to its end.

    Parameters
    ----------
    remarks : callable
        Returns what else there is to be told.
    """

    def __init__(self, *arguments: Any, remarks: Callable[[], Iterable[str]], **more: Any):
        super().__init__(*arguments, **more)
        self._remarks = remarks
        self.over = False

    def finish(self, why: str) -> None:
        """Make no more VMs, for good."""
        self.over, self.refusal = True, why

    async def step(self) -> None:
        """Do what has to be done now; nothing once it is over."""
        if not self.over:
            await super().step()

    @property
    def remark(self) -> str:
        """Why there are fewer slots than wanted; empty when there are not."""
        told = list(self._remarks())
        coming = sum(not job.arrived for job in self.jobs.values())
        if coming and not told:
            told.append(f"{coming} {'VM starts' if coming == 1 else 'VMs start'}")
        if self._words and not self.refusal and (self._failures or self._limit is not None):
            told.append(self._words.removeprefix(LATER))
        return f"{self.slots} slots; {'; '.join(dict.fromkeys(told))}" if told else ""


class VMWorkers(FleetWorkers):
    """The workers of one profile of kind gce, from start to stop."""

    fleet: CloudFleet

    def __init__(self, request: JobRequest, folder: HostFolder, changed: Callable[[], None], google: Google):
        super().__init__(request, folder, changed)
        assert request.cloud is not None
        self.cloud = request.cloud
        self.bill = Bill()
        if own := os.environ.get(vm.OWN):
            # The VM that this host lives on is there for this cluster, and paid for.
            self.bill.begin(own, request.cloud.scheduler_price)
        self._prefix = f"mce-{secrets.token_hex(4)}"
        self._family = vm.Family(
            cluster=self._prefix,
            profile=request.profile,
            host=folder.path.name,
            machine=vm.machine(),
            ends=time.monotonic() + request.max_hours * 3600.0,
        )
        logs = shared_folder(request, folder.path.name) / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in logs.iterdir():
            if time.time() - old.stat().st_mtime > MEMORY_SECONDS:
                old.unlink()
        self.backend = VMs(google, request, self._family, self.bill, logs)
        self.google = google
        self._vault: Vault | None = None
        self._duties: list[asyncio.Task[None]] = []
        # The scheduler's VM, ZONE/NAME.
        self._head = ""

    @classmethod
    async def start(cls, request: JobRequest, folder: HostFolder, changed: Callable[[], None]) -> "VMWorkers":
        """Begin to make a scheduler's VM; workers' VMs follow when slots are wanted.

        Raises
        ------
        HostError
            If Google does not let us.
        """
        assert request.cloud is not None
        dask.config.set({**QUIET, **FAR})
        try:
            google = await asyncio.to_thread(Google, request.cloud.credentials)
            started = cls(request, folder, changed, google)
            await started._clear_up(folder.path.name)
            await started._open()
        except CloudError as error:
            raise HostError(str(error)) from error
        return started

    async def _clear_up(self, host: str) -> None:
        """Delete what a host that was killed had in our place."""
        from mce_notebook.run.clusters.orphans import delete, found

        mine = {vm.HOST: vm.label(host), vm.MACHINE: vm.label(self._family.machine)}
        left = await found(self.google, self.cloud.project, mine)
        if left:
            log.info("deleting what a host that died left: %s", ", ".join(one.name for one in left))
            await delete(self.google, self.cloud.project, [(one.zone, one.name) for one in left])

    async def _open(self) -> None:
        hours = self.request.max_hours + 24
        certificates = issue(hours)
        reader = self.cloud.service_account
        if reader == "default":
            project = await self.google.call(self.google.compute.projects().get(project=self.cloud.project))
            reader = str((project or {}).get("defaultServiceAccount", reader))
        mine = vm.labels(self._family, self.cloud.labels)
        self._vault = Vault(self.google, self.cloud.project, mine, reader, self.request.max_hours * 3600)
        make = functools.partial(
            CloudFleet, spare=SPARE_SECONDS, start=BOOT_SECONDS, together=TOGETHER, remarks=self._remarks
        )
        scheduler: OwnScheduler | FarScheduler
        if self.cloud.scheduler == "here":
            roles = _security(certificates, "scheduler", "client")
            scheduler = await OwnScheduler.start(None, roles, self.came, self.went)
        else:
            scheduler = FarScheduler("", _security(certificates, "client"), self.came, self.went)
        self.serve(scheduler, self.backend, self._prefix, make)
        self._duties = [
            asyncio.create_task(self._boot(certificates, scheduler)),
            asyncio.create_task(self._watch()),
        ]

    # The scheduler

    async def _boot(self, certificates: Certificates, scheduler: OwnScheduler | FarScheduler) -> None:
        try:
            address = scheduler.address
            if isinstance(scheduler, FarScheduler):
                address = f"tls://{await self._reach(certificates, scheduler)}:{vm.PORT}"
            await self._welcome(certificates, address)
        except (ClusterError, HostError) as error:
            self._finish(str(error))
        except Exception as error:
            log.exception("no scheduler")
            self._finish(f"The scheduler could not be started: {type(error).__name__}: {error}")

    async def _reach(self, certificates: Certificates, scheduler: FarScheduler) -> str:
        """Make the scheduler's VM and connect to it; return its address for other VMs."""
        assert self._vault is not None
        secret = f"{self._prefix}-{vm.SCHEDULER}"
        place = await self._vault.put(secret, certificates.of("scheduler"))
        config = {**self._orders(place), "name": f"{self._prefix}-0"}
        self._head = await self.backend.make(f"{self._prefix}-0", vm.SCHEDULER, config, self.cloud.scheduler_price)
        inside, outside = await self._addresses()
        where = outside or inside
        try:
            await port(where, vm.PORT, BOOT_SECONDS, self._check_head)
        except TimeoutError as error:
            words, _ = self.backend.console.words(self._head)
            raise ClusterError(
                f"The scheduler's VM, {self._head}, cannot be reached at {where}:{vm.PORT}. A firewall rule has to let "
                f"this machine in: gcloud compute firewall-rules create mce --allow=tcp:{vm.PORT} "
                f"--target-tags={vm.TAG} --source-ranges=YOUR_ADDRESS/32. Its console ends: {words}"
            ) from error
        scheduler.address = f"tls://{where}:{vm.PORT}"
        await scheduler.open()
        # From here on nobody needs its key any more, least of all a worker.
        await self._vault.drop(secret)
        return inside

    async def _addresses(self) -> tuple[str, str]:
        """Return the scheduler's addresses inside the network, and in the Internet if it has one."""
        zone, _, name = self._head.partition("/")
        found = await self.google.call(
            self.google.compute.instances().get(project=self.cloud.project, zone=zone, instance=name)
        )
        assert found is not None
        card = found["networkInterfaces"][0]
        return str(card["networkIP"]), str((card.get("accessConfigs") or [{}])[0].get("natIP", ""))

    async def _check_head(self) -> None:
        """Raise if the scheduler's VM will not come up."""
        await self.backend.console.read([self._head])
        if self.backend.console.end(self._head):
            words, _ = self.backend.console.words(self._head)
            raise ClusterError(f"The scheduler's VM ended before the scheduler came up: {words}")

    async def _welcome(self, certificates: Certificates, address: str) -> None:
        """Let workers come."""
        assert self._vault is not None
        place = await self._vault.put(f"{self._prefix}-{vm.WORKER}", certificates.of("worker"))
        self.backend.orders = {**self._orders(place), "scheduler": address}
        self.backend.wait = ""
        self.fleet.hurry()

    def _orders(self, secret: str) -> dict[str, Any]:
        own = environment()
        request = self.request
        return {
            "secret": secret,
            "advice": ADVICE,
            "compute": self.google.address,
            "environment": {name: own[name] for name in ("python", "executable", "shared")},
            "processes": request.processes,
            "leave": request.leave,
            "stop": request.stop,
            "seconds": self._family.left,
            "patience": math.ceil(request.idle_timeout),
        }

    # Watching

    async def _watch(self) -> None:
        """End the cluster when it has cost enough, or has lost its scheduler."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            most = self.cloud.max_cost
            if most is not None and self.bill.total >= most:
                self._finish(
                    f"The cluster has cost {self.bill.total:.2f}, and max_cost of {self.request.profile} is {most:g}; "
                    "its VMs are deleted. What is done is kept; resume goes on with a new cluster and as much again."
                )
            with contextlib.suppress(CloudError):
                await self._look_for_head()
            if self.fleet.over:
                await self.fleet.close()
                return

    async def _look_for_head(self) -> None:
        """Give the cluster up when its scheduler has gone for good."""
        scheduler = self.scheduler
        if not isinstance(scheduler, FarScheduler) or not self.backend.orders:
            return
        self.backend.wait = scheduler.trouble
        if not scheduler.trouble:
            return
        lost = time.monotonic() - scheduler.since
        if lost > self.request.idle_timeout + LOST_SECONDS:
            self.lost = f"{scheduler.trouble}, for so long that it will have ended. {AGAIN}"
        elif lost > LOST_SECONDS and self._head not in await self.backend.listed([self._head.partition("/")[0]]):
            ended = await self.backend.last(self._head)
            why = f": {ended.word} {ended.reason}" if ended is not None else ""
            self.lost = f"The scheduler's VM is gone{why}. {AGAIN}"

    def _finish(self, why: str) -> None:
        log.warning("%s", why)
        self.over = why
        self.fleet.finish(why)

    def _remarks(self) -> Iterable[str]:
        return filter(None, (self.backend.wait, self.backend.trouble))

    def told(self) -> dict[str, Any]:
        """Return what the host's heartbeat is to say: which VMs are ours, what they cost."""
        priced = self.cloud.hourly is not None
        return {
            "cluster": self._prefix,
            "address": self.scheduler.address,
            "cost": round(self.bill.total, 4) if priced else None,
            "cost_per_hour": round(self.bill.hourly, 4) if priced else None,
        }

    async def close(self) -> None:
        """Delete all VMs and secrets."""
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        await super().close()
        try:
            await self.backend.clear(self._prefix)
            mine = {vm.CLUSTER: vm.label(self._prefix)}
            for name, _ in await kept(self.google, self.cloud.project, mine):
                assert self._vault is not None
                await self._vault.drop(name)
        except CloudError as error:
            log.error("VMs or secrets may be left, look at `mce clusters reap`: %s", error)


def _security(certificates: Certificates, *roles: str) -> Security:
    told: dict[str, Any] = {"tls_ca_file": certificates.authority, "require_encryption": True}
    for role in roles:
        told[f"tls_{role}_cert"] = certificates.pairs[role].certificate
        told[f"tls_{role}_key"] = certificates.pairs[role].key
    make: Any = Security
    made: Security = make(**told)
    return made
