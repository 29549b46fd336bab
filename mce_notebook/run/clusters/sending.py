"""The pool of workers on other machines: they may not see the store, and may leave with what they compute."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, KilledWorker

from mce_notebook.run import delivery
from mce_notebook.run.clusters.scheduler import Scheduling
from mce_notebook.run.pool import DaskPool, WorkerLost
from mce_notebook.run.walltime import left_by

if TYPE_CHECKING:
    from mce_notebook.run.pool import BlockRequest
    from mce_notebook.run.protocol import BlockResult

log = logging.getLogger("mce_notebook.cluster")

# A block may meet so many workers in turn that do not see the store.
DELIVERIES = 20
# Between the address of a worker and the number of one of its slots, where it has several.
NUMBER = "#"


def slots_of(address: str, threads: int, load: int) -> dict[str, int]:
    """Return the slots of one worker by name, and how many of its blocks each has."""
    if threads == 1:
        return {address: load}
    return {f"{address}{NUMBER}{one}": load // threads + (one < load % threads) for one in range(threads)}


class SendingPool(DaskPool):
    """Slots on other machines.

    Parameters
    ----------
    scheduler : Scheduling
    slots : callable
        Returns the slots that are ready and how many blocks each has.
    """

    def __init__(self, scheduler: Scheduling, slots: Callable[[], Mapping[str, int]]):
        super().__init__(scheduler.client, slots)
        self._scheduler = scheduler
        self._delivered: dict[tuple[Any, ...], asyncio.Future[None]] = {}

    async def submit(self, task: Any, block: Any, **how: Any) -> Any:
        """Compute `block`; see `Pool.submit`."""
        for _ in range(DELIVERIES):
            losses = self._scheduler.losses
            try:
                result = await super().submit(task, block, **how)
            except WorkerLost as error:
                # What ended together with the scheduler was ended by it.
                excused = error.excused or losses != self._scheduler.losses or await self.excused(error.worker)
                raise WorkerLost(error.message, error.worker, excused) from error
            unseen = delivery.missing_at(result)
            if unseen is None:
                break
            await self._deliver(task, unseen)
            how["slot"] = unseen
        address = left_by(result)
        if address is not None:
            self.leaves(address)
        return result

    async def excused(self, worker: str) -> bool:
        """Return whether it is known that no point ended a worker that died; its name is empty if it is not known."""
        return False

    def leaves(self, address: str) -> None:
        """Take in that a worker takes no more blocks."""

    def forget(self, address: str) -> None:
        """Take in that a worker is gone, and with it what was sent there."""
        for mark in [mark for mark in self._delivered if mark[0] == address]:
            del self._delivered[mark]

    @property
    def _work(self) -> "Callable[..., BlockResult]":
        from mce_notebook.run.worker import run_far_block

        return run_far_block

    async def _task(self, request: "BlockRequest", workers: list[str] | None, *, strict: bool = False) -> "BlockResult":
        self.client = self._scheduler.client
        if not self._scheduler.places:
            return await super()._task(request, workers, strict=strict)
        loads = self._workers()
        slot = workers[0] if workers else min(loads, key=lambda slot: loads[slot], default="")
        address = slot.partition(NUMBER)[0]
        member = self._scheduler.members().get(address)
        with self._scheduler.place(address) as gone:
            if self.client is None or gone.is_set():
                raise WorkerLost(f"There is no worker at {address or self._scheduler.address} any more.", excused=True)
            computed = asyncio.ensure_future(super()._task(request, [address], strict=True))
            left = asyncio.ensure_future(gone.wait())
            try:
                await asyncio.wait({computed, left}, return_when=asyncio.FIRST_COMPLETED)
                if not computed.done():
                    name = member.name if member is not None else ""
                    raise WorkerLost(f"The worker at {address} is gone with block {request[1].ranges[:1]}.", name)
                return computed.result()
            finally:
                left.cancel()
                if not computed.done():
                    computed.cancel()
                    await asyncio.gather(computed, return_exceptions=True)

    async def interrupt(self, task: Any) -> None:
        """Kill the slots that work for the sweep of `task`, on every worker; see `Pool.interrupt`."""
        self.client = self._scheduler.client
        if self.client is not None:
            await super().interrupt(task)

    async def _deliver(self, task: Any, address: str) -> None:
        """Send a sweep to a worker that does not see the store; once, however many of its blocks wait for it."""
        mark = (address, delivery.key(task), task.declaration)
        if mark not in self._delivered:
            self._delivered[mark] = asyncio.ensure_future(self._send(task, address))
        try:
            await asyncio.shield(self._delivered[mark])
        except WorkerLost:
            self._delivered.pop(mark, None)
            raise

    async def _send(self, task: Any, address: str) -> None:
        log.info("%s does not see %s: its sweep %s is sent", address, task.store, task.name)
        files = await asyncio.to_thread(delivery.collect, task)
        client = self._scheduler.client
        if client is None:
            raise WorkerLost(f"The scheduler was lost before {task.name} was sent.", excused=True)
        future = client.submit(delivery.receive, task, files, pure=False, workers=[address])
        try:
            await future
        except (KilledWorker, CancelledError) as error:
            raise WorkerLost(f"The worker died while {task.name} was sent to it.", excused=True) from error
        finally:
            future.release()
