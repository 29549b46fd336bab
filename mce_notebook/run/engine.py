"""Drives one sweep on one host: blocks out, outcomes into the log, orders obeyed, until nothing is left."""

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import ClusterError, RunError, StoreUnreachable, SweepError, UnknownSweep
from mce_notebook.run.pool import Pool, WorkerLost
from mce_notebook.run.protocol import SLOT_KILLED, BlockResult
from mce_notebook.run.schedule import STILLBORN_TIMES, Job, Verdict
from mce_notebook.run.shares import Shares
from mce_notebook.run.tally import covered, spans
from mce_notebook.run.writer import Writer
from mce_notebook.store.spans import Spans

if TYPE_CHECKING:
    from mce_notebook.run.ledger import Assignment, Ledger
    from mce_notebook.store.frames import Frame

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
# Between two rounds of killing slots: a block that waited in a slot starts when the one before it is killed.
INTERRUPT_SECONDS = 0.2
# How long blocks may take to end when the host has to leave.
GRACE_SECONDS = 10.0
CLOSE_SECONDS = 5.0
# What a slot of a cluster should have to do to be worth asking for.
WORTH_SECONDS = 5.0

UNREADABLE = "cannot read the store: "

# The state a sweep is left in when an order is obeyed. `leave` is the host's own: the sweep resumes when asked.
ENDINGS = {"pause": "paused", "cancel": "cancelled", "stop": "stopped", "leave": "interrupted", "move": "moved"}


class Engine:
    """One running sweep.

    Parameters
    ----------
    ledger : Ledger
        The sweep's folder in the store.
    pool : Pool
        Slots that compute blocks.
    shares : Shares
        Grants places in the slots' queues to the sweeps of this host.
    notify : callable
        Called whenever something was committed or the state changed.
    """

    def __init__(
        self,
        ledger: "Ledger",
        pool: Pool,
        shares: Shares,
        notify: Callable[[], None],
        *,
        beat: float = BEAT_SECONDS,
        retry: float = 1.0,
    ):
        self.ledger = ledger
        self.state = "starting"
        self.message = ""
        # Set once it is known whether there is anything to do; holds what prevented that.
        self.opened: asyncio.Future[SweepError | None] = asyncio.get_running_loop().create_future()
        self._pool = pool
        self._shares = shares
        self._notify = notify
        self._beat_seconds = beat
        self._retry = retry
        self._flying: dict[asyncio.Task[None], tuple[Assignment, Job]] = {}
        self._work: Assignment | None = None
        self._writer: Writer | None = None
        self._stirred = asyncio.Event()
        self._looked = asyncio.Event()
        self._order = ""
        self._planning = False
        self._unplaced: list[Mapping[str, Any]] = []
        self._deadline: float | None = None
        # Whether the order that holds cannot be taken back.
        self._final = False
        self._missed = False
        self._troubled = ""
        self._counter = 0
        self._told = ""
        self._remarks: set[str] = set()
        # What this sweep has cost on this host; None where nobody knows prices.
        self.cost: float | None = None
        self.currency = ""

    # What the host may ask

    @property
    def flying(self) -> int:
        """Blocks of this sweep that are in the slots now."""
        return len(self._flying)

    @property
    def over(self) -> bool:
        """Whether every point has its outcome, or the sweep is in a state in which nobody waits for it."""
        tally = None if self._work is None else self._work.tally
        complete = tally is not None and tally.done + tally.failed >= tally.total and not self._asking
        return complete or self.state not in ("starting", "running", "draining")

    def wanted(self, limit: int) -> int:
        """Return how many slots the rest of this sweep could keep busy, `limit` at most."""
        work = self._work
        if work is None or self._order:
            return min(limit, len(self._flying))
        schedule = work.schedule
        left = min(1, schedule.remaining) if work.serial else schedule.remaining
        if schedule.pace.seconds is not None:
            # A slot that had less to do than this would cost more to get than it gives.
            left = min(left, math.ceil(schedule.remaining * schedule.pace.seconds / WORTH_SECONDS))
        return min(limit, left + len(self._flying))

    def poke(self) -> None:
        """Look at once for new orders and declarations."""
        self._looked.set()
        self._stir()

    def stop(self, grace: float = GRACE_SECONDS, why: str = "", *, moved: bool = False) -> None:
        """Send no more blocks; end when those on their way are back, or are killed after `grace` seconds.

        With `moved`, another host waits for that to go on.
        """
        self._final = True
        self.message = why or self.message
        self._obey("move" if moved else "leave", grace)

    async def run(self) -> str:
        """Work until nothing is left to do or an order says stop; return the state the sweep is left in.

        Nothing is written when there is nothing to do.
        """
        try:
            ready = await self._open()
        except Exception as error:
            told = error if isinstance(error, SweepError) else RunError(f"{type(error).__name__}: {error}")
            self.opened.set_result(told)
            raise
        self.opened.set_result(None)
        if not ready:
            return self.state
        self._writer = Writer(self._append, self._committed, self._trouble, self._retry)
        watch = asyncio.create_task(self._watch())
        try:
            # Beside the first blocks, not before: it syncs several times.
            claiming = asyncio.create_task(self._claim())
            await self._feed()
            await claiming
        except SweepError as error:
            self._fail(error)
        finally:
            await self._end(watch)
        return self.state

    async def _open(self) -> bool:
        await self._look()
        if self._order:
            self.state = ENDINGS[self._order]
            return False
        self._work = await asyncio.to_thread(self.ledger.assignment, [])
        if self._work.schedule.finished:
            self.state = "done"
            return False
        return True

    async def _claim(self) -> None:
        try:
            await asyncio.to_thread(self.ledger.claim)
            self._looked.set()
        except (SweepError, OSError) as error:
            # The first outcome tries again, and pauses the sweep if it cannot be written.
            log.warning("%s: no epoch yet: %s", self.ledger.name, error)

    # Sending blocks

    async def _feed(self) -> None:
        while True:
            self._stirred.clear()
            if self._order:
                if not self._flying:
                    return
                await self._stirred.wait()
            elif self._idle():
                if not (self._asking or self._missed):
                    return
                await self._go_on()
            elif self._full() or not await self._send():
                await self._stirred.wait()

    async def _go_on(self) -> None:
        """Plan what is left; after a guard: what it said is in the store now, or an order to stop."""
        try:
            if self._asking:
                await self._look()
            if not self._order:
                await self._plan_again()
        except StoreUnreachable as error:
            self.message = f"{UNREADABLE}{error}"
            await asyncio.sleep(self._retry)

    def _idle(self) -> bool:
        """Whether all points have come back and are safe."""
        assert self._work is not None
        assert self._writer is not None
        return not (self._planning or self._flying or self._work.schedule.remaining) and self._writer.idle

    @property
    def _asking(self) -> bool:
        """Whether guards are evaluated, before it is known which points there are."""
        return self._work is not None and self._work.task.guard is not None

    def _full(self) -> bool:
        assert self._work is not None
        assert self._writer is not None
        if self._planning or not self._writer.roomy or not self._work.schedule.remaining:
            return True
        return self._work.serial and bool(self._flying)

    async def _send(self) -> bool:
        """Send one block; False when there was none to send."""
        assert self._work is not None
        if not await self._shares.acquire(self, eager=self._work.schedule.eager):
            return True
        work = self._work
        job = None if self._order or self._full() else self._next(work)
        if job is None:
            self._shares.release(self)
            return bool(self._order)
        if self.state != "running":
            self._turn("running")
        task = asyncio.create_task(self._compute(self._work, job))
        self._flying[task] = (self._work, job)
        task.add_done_callback(self._landed)
        return True

    def _next(self, work: "Assignment") -> Job | None:
        schedule, workers = work.schedule, self._pool.workers
        if not schedule.pinned and not work.serial:
            return schedule.next(workers)
        ours = Counter(job.slot for _, job in self._flying.values())
        return schedule.placed(workers, {slot: (ours[slot], load) for slot, load in self._pool.loads().items()})

    async def _compute(self, work: "Assignment", job: Job) -> None:
        """Have one block computed and see to what came of it."""
        options = work.options
        before = work.schedule.remaining
        try:
            result = await self._pool.submit(
                # Slots write large payloads into the epoch's folder themselves, as soon as there is one.
                replace(work.task, epoch=self.ledger.epoch),
                job.block,
                each=job.each,
                budget=job.budget,
                timeout=options.timeout,
                memory=options.memory,
                slot=job.slot,
                brief=job.brief,
            )
        except WorkerLost as error:
            log.warning("%s: %s", work.task.name, error)
            self._take(work, [], work.schedule.vanished(job, excused=error.excused))
        except asyncio.CancelledError:
            work.schedule.put_back(job)
            raise
        except Exception as error:
            # Whatever a worker raises ends this sweep, with the reason, and not the host.
            work.schedule.put_back(job)
            self._fail(error)
        else:
            self._take(work, self._kept(work, job, result), work.schedule.returned(job, result))
            if result.reason.startswith(SLOT_KILLED):
                await self._remark(SLOT_KILLED)
            elif result.reason and not result.leftover and result.killed_point is None:
                await self._remark(result.reason)
            # The first reason is the one to tell: what was under way comes back as cancelled.
            if work.schedule.stillborn >= STILLBORN_TIMES and not self._final:
                self._fail(RunError(result.reason))
        if (self._planning or work is not self._work) and work.schedule.remaining > before:
            # What is left of a block of an earlier plan: found again by asking the store what is missing.
            self._missed = True

    def _kept(self, work: "Assignment", job: Job, result: BlockResult) -> "Sequence[Frame]":
        """Return the frames to record: all, but for a killed point that is tried again."""
        point = result.killed_point
        if point is None or result.lost or self._order == "cancel":
            return result.frames
        told = [frame for frame in result.frames if _is_point(frame, point)]
        if not told or not work.schedule.again(point):
            return result.frames
        return [frame for frame in result.frames if frame not in told]

    def _take(self, work: "Assignment", frames: "Sequence[Frame]", verdicts: Sequence[Verdict]) -> None:
        assert self._writer is not None
        self._writer.put([*frames, *(frame for verdict in verdicts for frame in self.ledger.killed(work, verdict))])
        if work.schedule.too_many_failures and not self._order:
            self._final = True
            self._obey("stop", None)
            self.message = f"{work.schedule.failures} of {work.schedule.outcomes} outcomes are failures"
            self.ledger.hold(f"--max-failures: {self.message}")

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        self._shares.release(self)
        self._stir()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: the engine failed", self.ledger.name, exc_info=error)
            self._fail(error)

    # Orders and declarations

    async def _watch(self) -> None:
        """Beat, and look for orders and declarations, about once a second or when poked."""
        while True:
            try:
                await self._look()
                await self._enforce()
                if self._pool.refusal and not self._final:
                    self._fail(ClusterError(self._pool.refusal))
                if self.message.startswith(UNREADABLE):
                    self.message = ""
            except UnknownSweep as error:
                self._fail(error)
            except (SweepError, OSError) as error:
                # The store may be out of reach for a while; blocks on their way are not harmed by that.
                self.message = f"{UNREADABLE}{error}"
                log.warning("%s: %s", self.ledger.name, self.message)
            await self._beat()
            wait = INTERRUPT_SECONDS if self._deadline is not None and self._flying else self._beat_seconds
            # Not `wait_for`, which may swallow the cancellation that ends this loop (bpo-37658).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._looked.wait()
            self._looked.clear()

    async def _look(self) -> None:
        orders = await asyncio.to_thread(self.ledger.look)
        if self._final:
            return
        if orders.verb in ("pause", "cancel", "stop"):
            self._obey(orders.verb, 0.0 if orders.verb == "cancel" else None)
            self.message = orders.by if orders.verb == "stop" else ""
        elif self._order:
            self._order, self._deadline, self.message = "", None, ""
            self._stir()
        if self._work is not None and orders.declaration != self._work.task.declaration and not self._order:
            await self._plan_again()

    def _obey(self, verb: str, grace: float | None) -> None:
        if self._order != verb:
            self._order = verb
            self._deadline = None if grace is None else time.monotonic() + grace
            self._turn("draining")

    async def _enforce(self) -> None:
        """Kill what is still computed when the time for it is over."""
        late = time.monotonic() - self._deadline if self._deadline is not None else -1.0
        if late < 0 or not self._flying:
            return
        if late > CLOSE_SECONDS:
            # A worker that does not even answer: its blocks are given up, which loses nothing recorded.
            for flight in self._flying:
                flight.cancel()
            return
        tasks = {work.task.declaration: work.task for work, _ in self._flying.values()}
        killing = asyncio.gather(*(self._pool.interrupt(task) for task in tasks.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await killing

    async def _plan_again(self) -> None:
        """Plan for the latest declaration what is neither known nor on its way."""
        assert self._work is not None
        assert self._writer is not None
        if self._planning:
            return
        self._planning = True
        try:
            self._missed = False
            flying = [(work.task, job.block) for work, job in self._flying.values()]
            await self._writer.flushed()
            self._unplaced.clear()
            work = await asyncio.to_thread(self.ledger.assignment, flying)
            if self._work.task.version == work.task.version:
                work.schedule.pace = self._work.schedule.pace
            self._work = work
            self._work.count(self._unplaced)
        finally:
            self._planning = False
            self._stir()
        self._notify()

    # Results and state

    def _append(self, frames: "Sequence[Frame]") -> None:
        self.ledger.append(frames)

    def _committed(self, frames: "Sequence[Frame]") -> None:
        assert self._work is not None
        covers = [frame.cover for frame in frames]
        self._work.count(covers)
        if self._planning:
            self._unplaced.extend(covers)
        self._stirred.set()
        self._notify()

    def _trouble(self, why: str) -> None:
        self._troubled = why
        self._turn("paused" if why else "running", f"nothing can be written: {why}" if why else "")

    async def _remark(self, what: str) -> None:
        """Pass on what a slot noticed about the code, once: that points change what they share, and what was done."""
        if what not in self._remarks:
            self._remarks.add(what)
            self.message = self.message or what
            await asyncio.to_thread(self.ledger.note, "remark", what)

    def _fail(self, error: BaseException) -> None:
        self.message = str(error) or type(error).__name__
        self._final = True
        self._obey("stop", 0.0)

    def _turn(self, state: str, message: str | None = None) -> None:
        self.state = state
        if message is not None:
            self.message = message
        self._looked.set()
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        self._shares.wake(self)

    async def _end(self, watch: asyncio.Task[None]) -> None:
        assert self._writer is not None
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)
        # With a full disk the wait ends too: what is lost then was never acknowledged and is computed again.
        written = await self._writer.close(CLOSE_SECONDS)
        complete = self._work is not None and self._work.schedule.finished and not (self._missed or self._asking)
        self.state = "done" if complete and written else ENDINGS.get(self._order, "paused")
        if not written:
            self.message = f"nothing can be written: {self._troubled}"
        await self._beat()
        await asyncio.to_thread(self.ledger.close, self.state, self.message)
        # Engine and writer know each other, so they wait for the collector; the arrays of a large plan must not.
        self._work = None
        self._notify()

    async def _beat(self) -> None:
        if self._work is None:
            return
        self._counter += 1
        tally = self._work.tally
        flying = [piece for _, job in list(self._flying.values()) for piece in job.block.ranges]
        beat: dict[str, Any] = {
            "counter": self._counter,
            "state": self.state,
            "workers": self._pool.workers,
            "in_flight": spans(flying),
            "done": tally.done,
            "failed": tally.failed,
            "total": tally.total,
            "rate": tally.rate(),
            "cost": self.cost,
            "currency": self.currency,
            "message": self.message or (self._pool.remark if self.state in ("starting", "running") else ""),
            "time": time.time(),
        }
        with contextlib.suppress(SweepError, OSError):
            # A full disk takes no heartbeat either; the host's own state still tells.
            await asyncio.to_thread(self.ledger.beat, beat)
        if self.state != self._told:
            self._told = self.state
            self._notify()


def _is_point(frame: "Frame", point: int) -> bool:
    index = covered(frame.cover)
    if isinstance(index, slice):
        return bool(index.start == point and index.stop == point + 1)
    if isinstance(index, Spans):
        return index.size == 1 and index.pairs[0][0] == point
    return len(index) == 1 and int(index[0]) == point
