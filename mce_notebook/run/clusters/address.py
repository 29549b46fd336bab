"""Workers of a Dask cluster that somebody else started: used as they are, never started, restarted or shut down."""

import asyncio
import contextlib
import logging
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
import dask
from distributed import Security

from mce_notebook.errors import HostError
from mce_notebook.run.clusters import node
from mce_notebook.run.clusters.fleet_workers import NODES
from mce_notebook.run.clusters.local import QUIET
from mce_notebook.run.clusters.request import AddressRequest
from mce_notebook.run.clusters.scheduler import FAR, FarScheduler, Member, Told
from mce_notebook.run.clusters.sending import SendingPool, slots_of
from mce_notebook.run.clusters.workers import Workers
from mce_notebook.run.registry import HostFolder, write_json

log = logging.getLogger("mce_notebook.cluster")

STEP_SECONDS = 0.5
# Dask itself compares these when it connects, before anything is unpickled there.
ANSWER_SECONDS = 30.0
# A worker that could not be asked, or did not run its first task, is asked again after so long (seconds).
AGAIN_SECONDS = 30.0
# A scheduler that has not answered for so long is told of.
QUIET_SECONDS = 8.0
REMEDY = "start it from an environment with the same packages"


class _Asker:
    """Compares environments over a connection, before anything of ours is run at the other end."""

    def __init__(self, request: AddressRequest, came: Told = str, went: Told = str):
        self.request = request
        self.here = node.environment()
        self.scheduler = FarScheduler(request.address, _security(request), came, went, self.greet)

    async def misfit(self, client: Any, address: str) -> str:
        message = {"op": "versions", "packages": []}
        told = (await client.scheduler.broadcast(msg=message, workers=[address], on_error="raise"))[address]
        if other := _other_python(told):
            return other
        there = (await client.run(node.environment, workers=[address]))[address]
        return ", ".join(node.differences(self.here, there))

    async def greet(self, client: Any) -> None:
        """Compare the scheduler's environment: it unpickles what is sent to workers."""
        why = _other_python(await client.scheduler.versions(packages=[]))
        if not why:
            why = ", ".join(node.differences(self.here, await client.run_on_scheduler(node.environment)))
        if why:
            raise HostError(
                f"The scheduler at {self.request.address} has {why}; {REMEDY} as {self.here['executable']}, or start "
                "the notebook from one with the packages of the scheduler."
            )


class AddressPool(SendingPool):
    """The slots of an existing cluster, and what keeps the others from being slots."""

    def __init__(self, scheduler: FarScheduler, slots: Callable[[], Mapping[str, int]], workers: "AddressWorkers"):
        super().__init__(scheduler, slots)
        self._host = workers

    @property
    def remark(self) -> str:
        """Why there are no slots, or fewer than workers."""
        return self._host.remark

    @property
    def refusal(self) -> str:
        """Why there will be none; empty while there are or may be."""
        return self._host.refusal


class AddressWorkers(Workers):
    """The workers of an existing cluster, from the first connection to the last."""

    def __init__(self, request: AddressRequest, folder: HostFolder, changed: Callable[[], None]):
        self.request = request
        self._nodes = folder.path / NODES
        self._changed = changed
        # Workers by address: those that ran a task, why others do not fit, when some are asked again.
        self._ready: dict[str, Member] = {}
        self._unfit: dict[str, str] = {}
        self._later: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._proved = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._most = request.max_workers
        self._asker = _Asker(request, self._came, self._went)
        self.scheduler = self._asker.scheduler
        self.pool = AddressPool(self.scheduler, self._slots, self)

    @classmethod
    async def start(cls, request: AddressRequest, folder: HostFolder, changed: Callable[[], None]) -> "AddressWorkers":
        """Connect to the scheduler.

        Raises
        ------
        HostError
            If it does not answer, or its packages are not ours.
        """
        dask.config.set({**QUIET, **FAR})
        # What is run elsewhere to compare environments is sent as code: our package may not be there.
        cloudpickle.register_pickle_by_value(node)
        started = cls(request, folder, changed)
        await started.scheduler.open()
        started._keeper = asyncio.create_task(started._keep())
        return started

    async def ready(self) -> None:
        """Wait until a task has run on a worker."""
        await self._proved.wait()

    def paid(self) -> float:
        """Return the cores of the slots in use; what is not used is its owner's."""
        return float(self.request.slot_cores * len(self._slots()))

    def resize(self, least: int, most: int | None) -> None:
        """Use so many slots at most; they are there whether they are used or not."""
        limit = self.request.max_workers
        if max(least, most or 0) > limit:
            raise HostError(f"{self.request.profile} has max_workers = {limit}; raise it there for more slots.")
        self._most = limit if most is None else most
        self._changed()

    @property
    def lost(self) -> str:  # type: ignore[override]  # what is an attribute of those that cannot be lost
        """Why the host leaves: the scheduler has been gone for too long."""
        since, patience = self.scheduler.since, self.request.patience
        if not self.scheduler.trouble or time.monotonic() - since < patience:
            return ""
        return f"{self.scheduler.trouble}, and did not come back within {patience:g} s"

    @property
    def remark(self) -> str:
        """Why there are no slots, or fewer than workers."""
        if self.scheduler.trouble:
            gone = time.monotonic() - self.scheduler.since
            return f"{self.scheduler.trouble} since {gone:.0f} s; the sweep goes on when it is back"
        if self.scheduler.silence > QUIET_SECONDS:
            return f"the scheduler at {self.request.address} has not answered for {self.scheduler.silence:.0f} s"
        members = self.scheduler.members()
        if not members:
            return f"the scheduler at {self.request.address} has no workers"
        unfit = [why for address, why in self._unfit.items() if address in members]
        if unfit:
            return f"{len(unfit)} of {len(members)} workers cannot be used: {unfit[0]}"
        return "" if self._ready else f"{len(members)} workers are asked for a first task"

    @property
    def refusal(self) -> str:
        """Why there will be no slots: every worker there is was started with other packages."""
        members = self.scheduler.members()
        if self.scheduler.trouble or not members or any(address not in self._unfit for address in members):
            return ""
        return f"None of the {len(members)} workers can be used: {next(iter(self._unfit.values()))}"

    async def close(self) -> None:
        """Leave: end the slots of this host, and nothing else."""
        for task in (self._keeper, *self._asking.values()):
            if task is not None:
                task.cancel()
        from mce_notebook.run.worker import rest

        client = self.scheduler.client
        if client is not None and self._ready:
            with contextlib.suppress(OSError, TimeoutError, RuntimeError):
                async with asyncio.timeout(5):
                    await client.run(rest, workers=list(self._ready), on_error="ignore")
        await self.scheduler.close()
        write_json(self._nodes, [])

    # Workers

    def _slots(self) -> dict[str, int]:
        """Return the slots in use, and how many blocks each has."""
        loads = self.scheduler.loads()
        found: dict[str, int] = {}
        for address, member in self._ready.items():
            if address in loads:
                found.update(slots_of(address, member.threads, loads[address]))
        return dict(list(found.items())[: self._most])

    def _came(self, address: str) -> None:
        if address not in self._asking:
            task = asyncio.ensure_future(self._prove(address))
            self._asking[address] = task
            task.add_done_callback(lambda done: self._asked(address, done))

    def _asked(self, address: str, done: "asyncio.Task[None]") -> None:
        if self._asking.get(address) is done:
            del self._asking[address]

    def _went(self, address: str) -> None:
        for known in (self._ready, self._unfit, self._later):
            known.pop(address, None)
        if (asking := self._asking.pop(address, None)) is not None:
            asking.cancel()
        self.pool.forget(address)
        self._changed()

    async def _prove(self, address: str) -> None:
        """Compare environments and run a task on a worker; only then it counts."""
        from mce_notebook.run.worker import warm

        client, member = self.scheduler.client, self.scheduler.members()[address]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                why = await self._asker.misfit(client, address)
            if why:
                self._unfit[address] = f"{member.name} has {why}; {REMEDY} as {self._asker.here['executable']}"
                log.warning("%s", self._unfit[address])
                self._changed()
                return
            future = client.submit(warm, self.request.slot_cores, pure=False, workers=[address])
            try:
                await future
            finally:
                future.release()
        except Exception as error:
            # Whatever it is, it is about this worker, and no other is to suffer from it.
            log.warning("%s did not run its first task: %s: %s", member.name, type(error).__name__, error)
            self._later[address] = time.monotonic() + AGAIN_SECONDS
            return
        if address in self.scheduler.members():
            self._ready[address] = member
            self._proved.set()
            self._changed()

    async def _keep(self) -> None:
        told: Any = None
        while True:
            for address, when in list(self._later.items()):
                if time.monotonic() > when and address in self.scheduler.members():
                    del self._later[address]
                    self._came(address)
            rows = self._rows()
            if rows != told:
                told = rows
                write_json(self._nodes, rows)
                self._changed()
            await asyncio.sleep(STEP_SECONDS)

    def _rows(self) -> list[dict[str, Any]]:
        slots = self._slots()
        return [
            {
                "job": member.machine,
                "name": member.name,
                "state": self._state(address),
                "reason": self._unfit.get(address, ""),
                "workers": [slot for slot in slots if slot.partition("#")[0] == address],
            }
            for address, member in sorted(self.scheduler.members().items())
        ]

    def _state(self, address: str) -> str:
        if address in self._ready:
            return "ready"
        return "unfit" if address in self._unfit else "starting"


async def survey(request: AddressRequest) -> list[tuple[bool, str]]:
    """Return what of an existing cluster could be used now, and what could not, in sentences."""
    cloudpickle.register_pickle_by_value(node)
    asker = _Asker(request)
    try:
        await asker.scheduler.open()
    except HostError as error:
        return [(False, str(error))]
    try:
        members = asker.scheduler.members()
        threads = sum(member.threads for member in members.values())
        found = [(bool(members), f"the scheduler answers, and has {len(members)} workers with {threads} threads")]
        for address, member in members.items():
            why = await asker.misfit(asker.scheduler.client, address)
            found += [(False, f"{member.name} has {why}")] if why else []
        return found
    finally:
        await asker.scheduler.close()


def _security(request: AddressRequest) -> Security | None:
    if not request.address.startswith("tls:"):
        return None
    make: Any = Security
    found: Security = make(
        tls_ca_file=request.tls_ca,
        tls_client_cert=request.tls_certificate,
        tls_client_key=request.tls_key,
        require_encryption=True,
    )
    return found


def _other_python(told: Mapping[str, Any]) -> str:
    """Say which Python is at the other end, if pickles of ours cannot be read there."""
    there = str(dict(told["host"])["python"])
    here = platform.python_version()
    return "" if there.split(".")[:2] == here.split(".")[:2] else f"Python {there.split('.final')[0]} instead of {here}"
