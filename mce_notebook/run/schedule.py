"""What to compute next, and what to make of blocks that come back: decisions, without any I/O."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mce_notebook.plan import Block, Plan
from mce_notebook.run.protocol import NO_SLOT, SLOT_KILLED, BlockResult
from mce_notebook.run.walltime import hopeless, worn

PROBE_SECONDS = 0.02
# A block that turns out far longer than planned hands back its rest after this long, so that others can take
# it.
BLOCK_SECONDS = 2.0
# Below this a point, time is measured per block, above per point.
EACH_SECONDS = 1e-3
# Blocks shorter than this, those of usual length among them, go past the scheduler where there is such a way: it takes
# 10 to 15 ms for each, and twice that of processor time.
BRIEF_SECONDS = 0.6
# Blocks longer than this wait in the host, not behind another block in a slot.
EAGER_SECONDS = 5.0
# An unexplained SIGKILL is taken for a fault of the machine twice, then for the point's own doing; oftener where more
# retries are allowed.
LOST_TIMES = 3
# So often in a row no slot can be started, and the sweep stops with that.
STILLBORN_TIMES = 6
# A share of failures means nothing before this many outcomes.
FEWEST_OUTCOMES = 20


@dataclass(frozen=True)
class Job:
    """One block on its way: how it is to be computed."""

    number: int
    block: Block
    each: bool
    budget: float | None
    # The slot that has set up what the block needs, None where any will do.
    slot: str | None = None
    # Expected to take so little time that a scheduler's would be felt.
    brief: bool = False


@dataclass(frozen=True)
class Verdict:
    """A point given up by the host: it is recorded as killed."""

    point: int
    reason: str


@dataclass
class Pace:
    """What a point and a setup cost, as measured: seconds and bytes, recent blocks counting most."""

    seconds: float | None = None
    nbytes: float | None = None
    setup: float | None = None

    def measured(self, done: int, seconds: float, nbytes: float, setup: float = 0.0, setups: int = 1) -> None:
        """Take in a block of `done` points; half the weight stays with what was known.

        `setup` are the seconds for the `setups` that were computed, 0 where what was kept served.
        """
        if done <= 0:
            return
        if setup > 0:
            self.setup = _blend(self.setup, setup / setups)
        self.seconds = _blend(self.seconds, max(0.0, seconds - setup) / done)
        self.nbytes = _blend(self.nbytes, nbytes / done)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else 0.5 * old + 0.5 * new


@dataclass
class Schedule:
    """The blocks of one sweep: handed out, brought back, sent again.

    Every point of the plan ends in exactly one of three ways: in a result that came back, in a verdict, or it
    is still to be done when the sweep stops.

    Parameters
    ----------
    plan : Plan
        Where new blocks come from and rests go back to.
    retries : int
        How often a point that was killed by its own doing is tried again.
    max_failures : float or int or None
        Stop after so many failures (int), or when more than this share of the outcomes failed (float below
        1).
    """

    plan: Plan
    retries: int = 1
    max_failures: float | None = None
    pace: Pace = field(default_factory=Pace)
    flying: dict[int, Job] = field(default_factory=dict)
    outcomes: int = 0
    failures: int = 0
    stillborn: int = 0
    _suspects: deque[Block] = field(default_factory=deque)
    _losses: dict[int, int] = field(default_factory=dict)
    _kills: dict[int, int] = field(default_factory=dict)
    _number: int = 0

    @property
    def remaining(self) -> int:
        """Points not handed out now."""
        return int(self.plan.remaining) + sum(block.count for block in self._suspects)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to hand out and nothing is on its way."""
        return not self.flying and not self._suspects and self.plan.remaining == 0

    @property
    def pinned(self) -> bool:
        """Whether it matters which slot gets which block: what it has set up serves the next points too."""
        return self.plan.prefixed

    @property
    def eager(self) -> bool:
        """Whether the next block may wait in a slot behind another."""
        return self.pace.seconds is None or self.pace.seconds < EAGER_SECONDS

    @property
    def too_many_failures(self) -> bool:
        """Whether `max_failures` is exceeded."""
        limit = self.max_failures
        if limit is None:
            return False
        if isinstance(limit, int):
            return self.failures > limit
        return self.outcomes >= FEWEST_OUTCOMES and self.failures > limit * self.outcomes

    def next(self, workers: int, slot: str | None = None, *, alone: bool = False) -> Job | None:
        """Return the next block to send to `slot`, or to any; None while nothing is left to hand out.

        None too where `slot` would have to set up what another slot has set up, and that does not pay; it gets that all
        the same if it is `alone`.

        Blocks that died with their slot come first and travel alone, so that a point which kills is told
        apart from those that only sat beside it.
        """
        block = self._suspects.popleft() if self._suspects else self._planned(workers, slot, alone)
        if block is None:
            return None
        probe = self.pace.seconds is None
        each = probe or (self.pace.seconds or 0.0) >= EACH_SECONDS
        brief = probe or block.count * (self.pace.seconds or 0.0) + (self.pace.setup or 0.0) < BRIEF_SECONDS
        self._number += 1
        job = Job(self._number, block, each, PROBE_SECONDS if probe else BLOCK_SECONDS, slot, brief)
        self.flying[job.number] = job
        return job

    def _planned(self, workers: int, slot: str | None, alone: bool) -> Block | None:
        pace = self.pace
        return self.plan.take(
            seconds=pace.seconds,
            nbytes=pace.nbytes,
            workers=max(workers, 1),
            setup=pace.setup,
            slot=slot,
            idle=self._idle(slot),
            alone=alone,
        )

    def _idle(self, slot: str | None) -> bool:
        return not self.pinned or all(job.slot != slot for job in self.flying.values())

    def placed(self, workers: int, loads: Mapping[str, tuple[int, int]]) -> Job | None:
        """Return the next block for the slot that has the least to do: of this sweep, then of all.

        That slot may do better to wait than to set up what others have set up: then theirs comes first.

        Parameters
        ----------
        workers : int
        loads : mapping of str to (int, int)
            By slot, its blocks of this sweep, and of all sweeps.
        """
        claims = sorted(loads, key=lambda slot: (*loads[slot], slot))
        slot = claims[0] if claims else None
        job = self.next(workers, slot)
        if job is not None or slot is None or not self.remaining:
            return job
        # Nothing waits in a slot beside an idle one: Dask would move it there, and have it set up once more.
        return self.next_of(workers, [other for other in claims if not any(loads[other])] or [slot], claims)

    def next_of(self, workers: int, slots: Sequence[str], known: Collection[str]) -> Job | None:
        """Return the next block for the first of `slots` that has one to do, where the first had better wait.

        What slots that are not `known` any more had set up goes to the others.
        """
        self.plan.keep(known)
        found = next((job for slot in slots if (job := self.next(workers, slot)) is not None), None)
        # With nothing on its way nobody would ask again.
        return self.next(workers, slots[0], alone=True) if found is None and not self.flying else found

    def returned(self, job: Job, result: BlockResult) -> list[Verdict]:
        """Take in what came back for `job`; return the points that are given up."""
        del self.flying[job.number]
        if result.done:
            self.plan.measured(job.block, result.setup)
        self.pace.measured(result.done, result.seconds, result.nbytes, result.setup, self._setups(job, result))
        self.outcomes += result.done
        self.failures += result.failed
        rest = list(result.leftover)
        if result.done:
            self.stillborn = 0
        elif result.lost and result.reason.startswith((NO_SLOT, SLOT_KILLED)):
            # No point was reached, so none is to blame.
            self.stillborn += result.reason.startswith(NO_SLOT)
            self._give_back(rest)
            return []
        if result.lost:
            return self._lost(rest, result.killed_point, result.reason)
        self._give_back(rest)
        return []

    def _setups(self, job: Job, result: BlockResult) -> int:
        """Return of how many setups a result has points."""
        return self.plan.setups_of(job.block.split(result.done)[0]) if result.setup > 0 and result.done > 0 else 1

    def vanished(self, job: Job, *, excused: bool = False) -> list[Verdict]:
        """Take in that the worker died with `job`; return the points that are given up.

        With `excused`, it is known that no point did it: the batch system ended the worker's job.
        """
        if excused:
            self.put_back(job)
            return []
        del self.flying[job.number]
        return self._lost([job.block], None)

    def put_back(self, job: Job) -> None:
        """Take back a job that was never computed."""
        del self.flying[job.number]
        self._give_back([job.block])

    def again(self, point: int) -> bool:
        """Return whether a point killed by its own doing is to be tried again, and see to it if so."""
        self._kills[point] = self._kills.get(point, 0) + 1
        if self._kills[point] > self.retries:
            return False
        self._suspects.append(single(point))
        return True

    def _give_back(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            if block.count:
                self.plan.give_back(block)

    def _lost(self, rest: list[Block], point: int | None, reason: str = "") -> list[Verdict]:
        if point is not None:
            others = [part for block in rest for part in without(block, point)]
            self._give_back(others)
            return self._blame(point, reason)
        if len(rest) == 1 and rest[0].count == 1:
            return self._blame(int(rest[0].indices()[0]), reason)
        for block in rest:
            # Nobody knows which point it was: halves, down to one point should it go on.
            parts = block.split(block.count // 2) if block.count > 1 else (block,)
            self._suspects.extend(part for part in parts if part.count)
        return []

    def _blame(self, point: int, reason: str = "") -> list[Verdict]:
        self._losses[point] = self._losses.get(point, 0) + 1
        told = hopeless(reason)
        most = max(LOST_TIMES, self.retries + 1)
        if self._losses[point] < most and not told:
            self._suspects.append(single(point))
            return []
        self.outcomes += 1
        self.failures += 1
        told = told or worn(reason, most)
        return [Verdict(point, told or f"its slot was killed (SIGKILL) {most} times while computing it")]


def single(point: int) -> Block:
    """Return the block that holds one point."""
    return Block(((point, point + 1),))


def without(block: Block, point: int) -> list[Block]:
    """Return `block` without `point`, as at most one block."""
    ranges: list[tuple[int, int]] = []
    for start, stop in block.ranges:
        if start <= point < stop:
            ranges += [(a, b) for a, b in ((start, point), (point + 1, stop)) if a < b]
        else:
            ranges.append((start, stop))
    return [Block(tuple(ranges))] if ranges else []
