"""One sweep driven through a pool that fails in every way it can: no point lost, none recorded twice."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.axes import Axis
from mce_notebook.declare.columns import coordinate
from mce_notebook.declare.grid import Grid, Status, grid
from mce_notebook.declare.options import Options
from mce_notebook.declare.parts import Part
from mce_notebook.errors import StoreError, StoreFull, UntrustedCode
from mce_notebook.plan import Block, Plan
from mce_notebook.run.engine import Engine, _is_point
from mce_notebook.run.ledger import Assignment, Orders
from mce_notebook.run.pool import WorkerLost
from mce_notebook.run.protocol import BlockResult, Task
from mce_notebook.run.schedule import LOST_TIMES, STILLBORN_TIMES, Schedule, Verdict, without
from mce_notebook.run.shares import Shares
from mce_notebook.run.tally import Tally
from mce_notebook.store.frames import Frame


def frame(task: Task, index: Sequence[int], status: Status = Status.DONE) -> Frame:
    listed = np.asarray(index, np.int64)
    cover = {
        "declaration": task.declaration,
        "start": None,
        "count": len(listed),
        "index": listed.tobytes(),
        "status": None if status is Status.DONE else bytes([status]) * len(listed),
        "seconds": None,
        "generation": task.generation,
        "version": task.version,
    }
    return Frame(b"head", b"x" * len(listed), cover)


@dataclass
class MemoryLedger:
    """A sweep that is kept in memory: `sizes` holds the size of every declaration, each extending the one before."""

    sizes: list[int]
    options: Options = field(default_factory=Options)
    name: str = "sweep"
    root: str = "/nowhere"
    verb: str = "run"
    by: str = ""
    log: list[Frame] = field(default_factory=list)
    beats: list[Mapping[str, Any]] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    full: int = 0
    claims: int = 0
    epoch: int | None = None
    versions: list[str] = field(default_factory=list)

    def look(self) -> Orders:
        return Orders(self.verb, self.by, len(self.sizes))

    def outcomes(self, version: str) -> dict[int, list[int]]:
        """Status of every record of every point."""
        found: dict[int, list[int]] = {}
        for one in self.log:
            if one.cover["version"] == version:
                index = np.frombuffer(one.cover["index"], np.int64)
                told = one.cover["status"] or bytes([Status.DONE]) * len(index)
                for point, status in zip(index.tolist(), told, strict=True):
                    found.setdefault(point, []).append(status)
        return found

    def version(self, number: int) -> str:
        return self.versions[number - 1] if self.versions else "v"

    def assignment(self, flying: Sequence[tuple[Task, Block]]) -> Assignment:
        number = len(self.sizes)
        size, version = self.sizes[-1], self.version(number)
        status = np.zeros(size, np.uint8)
        for point, found in self.outcomes(version).items():
            if point < size:
                status[point] = found[0]
        todo = status == Status.PENDING
        places = {}
        for task, block in flying:
            # Points keep their listed index when the only axis is extended.
            place = np.arange(self.sizes[task.declaration - 1])
            places[task.declaration] = np.where((place < size) & (task.version == version), place, -1)
            here = places[task.declaration][block.indices()]
            todo[here[here >= 0]] = False
        order = "listed" if self.options.serial else "coarse"
        schedule = Schedule(self.plan(size, todo, order), self.options.retries, self.options.max_failures)
        task = Task(self.root, self.name, number, version, 0, "/", 1)
        return Assignment(task, schedule, Tally(status, size), self.options, ("y",), places)

    def plan(self, size: int, todo: np.ndarray, order: str) -> Plan:
        return Plan(grid(x=range(size)), todo, order=order)

    def claim(self) -> None:
        self.claims += 1

    def append(self, frames: Sequence[Frame]) -> None:
        if self.full:
            self.full -= 1
            raise StoreFull("No room on the disk.")
        self.log.extend(frames)

    def killed(self, work: Assignment, verdict: Verdict) -> Sequence[Frame]:
        return [frame(work.task, [verdict.point], Status.KILLED)]

    def hold(self, why: str) -> None:
        self.verb, self.by = "stop", why

    def beat(self, beat: Mapping[str, Any]) -> None:
        self.beats.append(beat)

    def close(self, state: str, message: str) -> None:
        self.ended.append((state, message))


@dataclass
class UnsteadyPool:
    """Slots that lose blocks, hand some back half done, and die of certain points."""

    seed: int = 0
    workers: int = 2
    trouble: float = 0.0
    deadly: frozenset[int] = frozenset()
    crashing: frozenset[int] = frozenset()
    failing: frozenset[int] = frozenset()
    pause: float = 0.0
    lost_points: Counter[int] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)
    now: int = 0
    most: int = 0
    order: list[int] = field(default_factory=list)
    stuck: asyncio.Event | None = None
    interrupted: int = 0
    hook: Callable[[], None] | None = None
    error: Exception | None = None

    remark = ""
    refusal = ""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def loads(self) -> dict[str, int]:
        return {f"slot {number}": 0 for number in range(self.workers)}

    async def submit(self, task: Task, block: Block, **options: Any) -> BlockResult:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.hook is not None:
                self.hook()
            await asyncio.sleep(self.pause * self.chance.random())
            if self.error is not None:
                raise self.error
            if self.stuck is not None:
                await self.stuck.wait()
                return BlockResult([], 0, (block,), reason="cancelled")
            return self._compute(task, block, options["budget"])
        finally:
            self.now -= 1

    async def interrupt(self, task: Task) -> None:
        self.interrupted += 1
        if self.stuck is not None:
            self.stuck.set()

    def _compute(self, task: Task, block: Block, budget: float | None) -> BlockResult:
        points = block.indices().tolist()
        if self.chance.random() < self.trouble / 2:
            if len(points) == 1:
                self.lost_points[points[0]] += 1
            raise WorkerLost("The worker died.")
        if self.chance.random() < self.trouble:
            bad = (at for at, point in enumerate(points) if point in self.deadly | self.crashing)
            done = min(self.chance.randrange(len(points)), next(bad, len(points)))
            if self.chance.random() < 0.5:
                return self._lost(task, block, points, done, self.chance.random() < 0.5)
            return self._result(task, points[:done], tuple(rest(block, points[:done])))
        for at, point in enumerate(points):
            if point in self.deadly:
                return self._lost(task, block, points, at, True)
            if point in self.crashing:
                return self._crashed(task, block, points, at)
        return self._result(task, points, ())

    def _lost(self, task: Task, block: Block, points: list[int], done: int, known: bool) -> BlockResult:
        if known or len(points) - done == 1:
            self.lost_points[points[done]] += 1
        left = tuple(rest(block, points[:done]))
        frames, failed = self._frames(task, points[:done])
        killed = points[done] if known else None
        return BlockResult(frames, done, left, 0.001, 0.0, failed, done, True, killed, "lost")

    def _crashed(self, task: Task, block: Block, points: list[int], at: int) -> BlockResult:
        frames, failed = self._frames(task, points[:at])
        self._count([points[at]])
        frames.append(frame(task, [points[at]], Status.KILLED))
        left = tuple(rest(block, points[: at + 1]))
        return BlockResult(frames, at + 1, left, 0.001, 0.0, failed + 1, at, False, points[at], "killed by SIGSEGV")

    def _result(self, task: Task, points: list[int], left: tuple[Block, ...]) -> BlockResult:
        frames, failed = self._frames(task, points)
        return BlockResult(frames, len(points), left, 1e-4 * len(points), 0.0, failed, len(points))

    def _frames(self, task: Task, points: list[int]) -> tuple[list[Frame], int]:
        self._count(points)
        good = [point for point in points if point not in self.failing]
        bad = [point for point in points if point in self.failing]
        frames = [frame(task, good)] if good else []
        frames += [frame(task, bad, Status.FAILED)] if bad else []
        return frames, len(bad)

    def _count(self, points: list[int]) -> None:
        self.calls.update(points)
        self.order.extend(points)


def rest(block: Block, done: Sequence[int]) -> list[Block]:
    left = [block]
    for point in done:
        left = [part for one in left for part in without(one, point)]
    return left


def drive(
    ledger: MemoryLedger, pool: UnsteadyPool, story: Callable[[Engine], Coroutine[Any, Any, None]] | None = None
) -> str:
    async def scene() -> str:
        shares = Shares(lambda: pool.workers)
        engine = Engine(ledger, pool, shares, lambda: None, beat=0.01, retry=0.01)
        telling = asyncio.create_task(story(engine)) if story is not None else None
        state = await asyncio.wait_for(engine.run(), 20)
        assert shares.held == 0
        if telling is not None:
            await telling
        return state

    return asyncio.run(scene())


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 150),
    workers=st.integers(1, 4),
    trouble=st.sampled_from([0.0, 0.1, 0.4]),
    deadly=st.frozensets(st.integers(0, 150), max_size=2),
    crashing=st.frozensets(st.integers(0, 150), max_size=3),
    failing=st.frozensets(st.integers(0, 150), max_size=5),
    full=st.integers(0, 3),
    seed=st.integers(0, 2**20),
)
def test_no_point_is_lost_and_none_recorded_twice(
    size: int, workers: int, trouble: float, deadly: frozenset[int], crashing: frozenset[int],
    failing: frozenset[int], full: int, seed: int,
) -> None:  # fmt: skip
    crashing -= deadly
    failing -= deadly | crashing
    pool = UnsteadyPool(seed, workers, trouble, deadly, crashing, failing)
    ledger = MemoryLedger([size], full=full)
    assert drive(ledger, pool) == "done"
    found = ledger.outcomes("v")
    assert sorted(found) == list(range(size))
    for point, told in found.items():
        assert len(told) == 1, f"point {point} was recorded {len(told)} times"
        if point in deadly:
            assert told == [Status.KILLED]
            assert pool.lost_points[point] == LOST_TIMES
        elif point in crashing:
            assert told == [Status.KILLED]
        elif told == [Status.KILLED]:
            assert pool.lost_points[point] >= LOST_TIMES
        else:
            assert told == [Status.FAILED if point in failing else Status.DONE]
    beat = ledger.beats[-1]
    failed = sum(told[0] in (Status.FAILED, Status.KILLED) for told in found.values())
    assert (beat["state"], beat["done"], beat["failed"], beat["total"]) == ("done", size - failed, failed, size)
    assert ledger.ended == [("done", "")]


@dataclass
class RaggedLedger(MemoryLedger):
    """A sweep whose points are the rows of ragged loops, with a setup for each outer value: one more row each time."""

    def plan(self, size: int, todo: np.ndarray, order: str) -> Plan:
        axis = Axis((coordinate("n", [outer(point) for point in range(size)]), coordinate("k", range(size))), "table")
        return Plan(Grid((Part((axis,)),)), todo, order=order, setups=((0, ("n",)),))


def outer(point: int) -> int:
    return int((2 * point + 0.25) ** 0.5 - 0.5)


@dataclass
class RestlessPool(UnsteadyPool):
    """Slots that set up outer values, and come and go."""

    cost: float = 0.0
    leaving: float = 0.0
    made: Counter[tuple[str, int]] = field(default_factory=Counter)

    def loads(self) -> dict[str, int]:
        if self.chance.random() < self.leaving:
            self.seed += 1
        return {f"slot {self.seed + number}": 0 for number in range(self.workers)}

    async def submit(self, task: Task, block: Block, **options: Any) -> BlockResult:
        found = await super().submit(task, block, **options)
        values = {(options["slot"], outer(point)) for point in block.split(found.done)[0].indices().tolist()}
        new = {value for value in values if value not in self.made}
        self.made.update(new)
        return replace(found, setup=len(new) * self.cost, seconds=found.seconds + len(new) * self.cost)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 150),
    workers=st.integers(1, 4),
    trouble=st.sampled_from([0.0, 0.1, 0.4]),
    leaving=st.sampled_from([0.0, 0.1]),
    cost=st.sampled_from([1e-5, 1e-3, 10.0]),
    crashing=st.frozensets(st.integers(0, 150), max_size=2),
    seed=st.integers(0, 2**20),
)
def test_setups_are_pinned_whatever_slots_do(
    size: int, workers: int, trouble: float, leaving: float, cost: float, crashing: frozenset[int], seed: int
) -> None:
    pool = RestlessPool(seed, workers, trouble, crashing=crashing, cost=cost, leaving=leaving)
    ledger = RaggedLedger([size])
    assert drive(ledger, pool) == "done"
    found = ledger.outcomes("v")
    assert sorted(found) == list(range(size))
    assert all(len(told) == 1 for told in found.values())
    values = outer(size - 1) + 1
    if not (trouble or leaving or crashing) and cost == 10.0 and values >= workers:
        assert len(pool.made) == values


def test_an_idle_slot_waits_where_setting_up_again_does_not_pay() -> None:
    pool = RestlessPool(workers=3, cost=10.0, pause=0.001)
    assert drive(RaggedLedger([36]), pool) == "done"
    assert sorted(value for _, value in pool.made) == list(range(8))
    assert len({slot for slot, _ in pool.made}) == 3


def test_a_sweep_with_nothing_to_do_leaves_no_trace() -> None:
    ledger = MemoryLedger([10])
    drive(ledger, UnsteadyPool())
    pool = UnsteadyPool()
    assert drive(ledger, pool) == "done"
    assert ledger.claims == 1
    assert not pool.calls


def test_a_crashing_point_is_tried_again_as_often_as_asked() -> None:
    for retries in (0, 1, 3):
        pool = UnsteadyPool(crashing=frozenset({4}))
        ledger = MemoryLedger([9], Options(retries=retries))
        assert drive(ledger, pool) == "done"
        assert pool.calls[4] == retries + 1
        assert ledger.outcomes("v")[4] == [Status.KILLED]
        assert all(pool.calls[point] == 1 for point in range(9) if point != 4)


def test_two_blocks_wait_for_every_slot_and_no_more() -> None:
    pool = UnsteadyPool(workers=3, pause=0.001)
    drive(MemoryLedger([3000]), pool)
    assert 3 < pool.most <= 6


def test_a_serial_sweep_runs_in_listed_order_one_block_at_a_time() -> None:
    pool = UnsteadyPool(workers=3, pause=0.001)
    drive(MemoryLedger([500], Options(serial=True)), pool)
    assert pool.most == 1
    assert pool.order == list(range(500))


def test_disk_full_pauses_says_so_and_goes_on_by_itself() -> None:
    ledger = MemoryLedger([300], full=5)
    assert drive(ledger, UnsteadyPool(pause=0.001)) == "done"
    paused = [beat for beat in ledger.beats if beat["state"] == "paused"]
    assert paused
    assert "No room on the disk" in paused[0]["message"]
    assert ledger.beats[-1]["state"] == "done"
    assert ledger.beats[-1]["message"] == ""
    assert all(len(told) == 1 for told in ledger.outcomes("v").values())


def test_cancel_is_obeyed_while_the_disk_is_full() -> None:
    ledger = MemoryLedger([200_000], full=10**9)

    async def story(engine: Engine) -> None:
        while not any(beat["state"] == "paused" for beat in ledger.beats):
            await asyncio.sleep(0.01)
        ledger.verb = "cancel"
        ledger.full = 3
        engine.poke()

    assert drive(ledger, UnsteadyPool(pause=0.01), story) == "cancelled"
    assert ledger.ended[-1][0] == "cancelled"


def test_cancel_kills_what_never_ends() -> None:
    async def story(engine: Engine) -> None:
        while not pool.now:
            await asyncio.sleep(0.001)
        ledger.verb = "cancel"
        engine.poke()

    pool = UnsteadyPool(pause=0.0)
    ledger = MemoryLedger([100])

    async def scene() -> str:
        pool.stuck = asyncio.Event()
        engine = Engine(ledger, pool, Shares(lambda: 2), lambda: None, beat=5.0)
        telling = asyncio.create_task(story(engine))
        state = await asyncio.wait_for(engine.run(), 10)
        await telling
        return state

    assert asyncio.run(scene()) == "cancelled"
    assert pool.interrupted
    assert not ledger.log


def test_pause_lets_blocks_end_and_a_new_engine_resumes() -> None:
    ledger = MemoryLedger([50_000])
    pool = UnsteadyPool(pause=0.002)

    async def story(engine: Engine) -> None:
        while sum(pool.calls.values()) < 50:
            await asyncio.sleep(0.001)
        ledger.verb = "pause"
        engine.poke()

    assert drive(ledger, pool, story) == "paused"
    assert not pool.interrupted
    before = len(ledger.outcomes("v"))
    assert 50 <= before < 50_000
    assert drive(ledger, pool) == "paused"
    assert len(ledger.outcomes("v")) == before
    ledger.verb = "run"
    assert drive(ledger, pool) == "done"
    assert max(pool.calls.values()) == 1
    assert len(ledger.outcomes("v")) == 50_000


def test_pause_taken_back_before_blocks_ended_goes_on() -> None:
    ledger = MemoryLedger([5000])
    pool = UnsteadyPool(pause=0.02)

    async def story(engine: Engine) -> None:
        while not pool.now:
            await asyncio.sleep(0.001)
        ledger.verb = "pause"
        engine.poke()
        await asyncio.sleep(0.005)
        ledger.verb = "run"
        engine.poke()

    assert drive(ledger, pool, story) == "done"
    assert max(pool.calls.values()) == 1


@pytest.mark.parametrize(("limit", "least"), [(5, 6), (0.5, 20)])
def test_too_many_failures_stop_the_sweep_until_resume(limit: float, least: int) -> None:
    ledger = MemoryLedger([40_000], Options(max_failures=limit))
    pool = UnsteadyPool(pause=0.002, failing=frozenset(range(0, 40_000, 1)))
    assert drive(ledger, pool) == "stopped"
    assert ledger.verb == "stop"
    assert "failures" in ledger.ended[0][1]
    assert least <= len(ledger.outcomes("v")) < 40_000
    # Running it again waits for `resume`.
    assert drive(ledger, pool) == "stopped"


def test_few_failures_stop_nothing() -> None:
    ledger = MemoryLedger([100], Options(max_failures=0.5))
    pool = UnsteadyPool(failing=frozenset(random.Random(1).sample(range(100), 25)))
    assert drive(ledger, pool) == "done"


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    first=st.integers(1, 200),
    second=st.integers(1, 300),
    trouble=st.sampled_from([0.0, 0.3]),
)
def test_a_declaration_made_while_running_loses_and_repeats_nothing(
    seed: int, first: int, second: int, trouble: float
) -> None:
    ledger = MemoryLedger([first])
    pool = UnsteadyPool(seed, 2, trouble, pause=0.001)

    async def story(engine: Engine) -> None:
        while not pool.calls and pool.now == 0:
            await asyncio.sleep(0)
        ledger.sizes.append(second)
        engine.poke()
        await asyncio.sleep(0.003)
        ledger.sizes.append(second + first)
        engine.poke()

    state = drive(ledger, pool, story)
    if len(ledger.sizes) == 3 and state == "done":
        drive(ledger, UnsteadyPool())
    found = ledger.outcomes("v")
    assert sorted(found) == list(range(second + first))
    assert all(len(told) == 1 for told in found.values())
    assert ledger.beats[-1]["done"] + ledger.beats[-1]["failed"] == ledger.beats[-1]["total"]


def test_an_edited_cell_is_computed_anew_and_old_blocks_are_kept_apart() -> None:
    ledger = MemoryLedger([20_000], versions=["old", "new"])
    pool = UnsteadyPool(pause=0.005)

    async def story(engine: Engine) -> None:
        while not pool.calls:
            await asyncio.sleep(0.001)
        ledger.sizes.append(20_000)
        engine.poke()

    assert drive(ledger, pool, story) == "done"
    assert sorted(ledger.outcomes("new")) == list(range(20_000))
    assert all(len(told) == 1 for told in ledger.outcomes("new").values())
    assert ledger.beats[-1]["done"] == 20_000


def test_code_that_may_not_be_loaded_stops_the_sweep_with_the_reason() -> None:
    ledger = MemoryLedger([100])
    pool = UnsteadyPool(error=UntrustedCode("The code was not written by you; say `mce trust`."))
    assert drive(ledger, pool) == "stopped"
    assert "mce trust" in ledger.beats[-1]["message"]
    assert not ledger.log


def test_slots_that_never_start_stop_the_sweep_and_record_nothing() -> None:
    class Barren(UnsteadyPool):
        attempts = 0

        def _compute(self, task: Task, block: Block, budget: float | None) -> BlockResult:
            self.attempts += 1
            if self.attempts > STILLBORN_TIMES:
                # As what is under way when the sweep stops: not what people should be told.
                return BlockResult([], 0, (block,), reason="cancelled")
            return BlockResult([], 0, (block,), lost=True, reason="no slot could be started: exit status 1")

    ledger = MemoryLedger([100])
    assert drive(ledger, Barren()) == "stopped"
    assert "no slot could be started" in ledger.beats[-1]["message"]
    assert not ledger.log


def test_a_cluster_that_refuses_stops_the_sweep_with_its_words() -> None:
    ledger, pool = MemoryLedger([5]), UnsteadyPool(workers=0)
    pool.refusal = "invalid partition specified: nosuch"
    assert drive(ledger, pool) == "stopped"
    assert ledger.ended == [("stopped", "invalid partition specified: nosuch")]
    assert not ledger.log


def test_what_is_waited_for_is_told_and_forgotten_at_the_end() -> None:
    ledger, pool = MemoryLedger([5]), UnsteadyPool(workers=0)
    pool.remark = "3 jobs wait in the queue: Resources"
    wanted = []

    async def story(engine: Engine) -> None:
        await engine.opened
        wanted.extend([engine.wanted(100), engine.wanted(2)])
        while not any(beat["message"] for beat in ledger.beats):
            await asyncio.sleep(0.01)
        pool.workers = 2
        engine._shares.changed()

    assert drive(ledger, pool, story) == "done"
    assert wanted == [5, 2]
    assert {beat["message"] for beat in ledger.beats} == {"", "3 jobs wait in the queue: Resources"}
    assert ledger.beats[-1]["message"] == ""


def test_slots_are_wanted_for_what_is_left_and_worth_it() -> None:
    async def scene(**options: Any) -> list[int]:
        ledger, pool = MemoryLedger([10_000], Options(**options)), UnsteadyPool(workers=0)
        engine = Engine(ledger, pool, Shares(lambda: 0), lambda: None)
        running = asyncio.create_task(engine.run())
        await engine.opened
        found = [engine.wanted(64)]
        assert engine._work is not None
        engine._work.schedule.pace.measured(1, 0.001, 0)
        found.append(engine.wanted(64))
        engine._work.schedule.pace.measured(1, 1.0, 0)
        found.append(engine.wanted(64))
        engine.stop()
        await running
        return [*found, engine.wanted(64)]

    assert asyncio.run(scene()) == [64, 2, 64, 0]
    assert asyncio.run(scene(serial=True)) == [1, 1, 1, 0]


def test_a_store_out_of_reach_for_a_while_is_borne() -> None:
    class Shaky(MemoryLedger):
        looks = 0

        def look(self) -> Orders:
            self.looks += 1
            if 2 <= self.looks < 5:
                raise StoreError("Stale file handle")
            return super().look()

    ledger = Shaky([2000])
    assert drive(ledger, UnsteadyPool(pause=0.1)) == "done"
    assert ledger.looks >= 5
    assert ledger.beats[-1]["message"] == ""


def test_a_declaration_that_cannot_be_read_is_told_to_who_asked() -> None:
    class Broken(MemoryLedger):
        def assignment(self, flying: Sequence[tuple[Task, Block]]) -> Assignment:
            raise StoreError("declarations/000001.json cannot be read.")

    async def scene() -> None:
        engine = Engine(Broken([1]), UnsteadyPool(), Shares(lambda: 1), lambda: None)
        with pytest.raises(StoreError, match="000001"):
            await engine.run()
        assert isinstance(await engine.opened, StoreError)

    asyncio.run(scene())


def test_a_host_that_leaves_lets_blocks_end_then_kills_them() -> None:
    ledger = MemoryLedger([50_000])
    pool = UnsteadyPool(pause=0.01)

    async def story(engine: Engine) -> None:
        while not pool.calls:
            await asyncio.sleep(0.001)
        engine.stop(grace=5.0)

    assert drive(ledger, pool, story) == "interrupted"
    assert not pool.interrupted
    assert sum(pool.calls.values()) == len(ledger.outcomes("v")) < 50_000

    async def impatient(engine: Engine) -> None:
        pool.stuck = asyncio.Event()
        while not pool.now:
            await asyncio.sleep(0.001)
        engine.stop(grace=0.05)

    assert drive(ledger, pool, impatient) == "interrupted"
    assert pool.interrupted


@pytest.mark.parametrize(
    ("cover", "is_it"),
    [
        ({"start": 3, "count": 1}, True),
        ({"start": 3, "count": 2}, False),
        ({"start": 4, "count": 1}, False),
        ({"index": np.array([3]).tobytes()}, True),
        ({"index": np.array([3, 9]).tobytes()}, False),
        ({"ranges": [3, 4]}, True),
        ({"ranges": [3, 4, 9, 12]}, False),
        ({"ranges": [9, 10]}, False),
    ],
)
def test_the_frame_of_one_point_is_told_from_others(cover: dict[str, Any], is_it: bool) -> None:
    assert _is_point(Frame(b"", b"", cover), 3) is is_it
