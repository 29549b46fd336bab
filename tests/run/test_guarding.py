"""Slow guards as an engine meets them: the same mask as at once, whatever is cut; failures; what is known before."""

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Grid, Guard, Part, grid
from mce_notebook.declare.options import Options
from mce_notebook.errors import StoreUnreachable, UntrustedCode
from mce_notebook.plan import Block
from mce_notebook.run import guarding
from mce_notebook.run.asking import asker
from mce_notebook.run.engine import Engine
from mce_notebook.run.guarding import Guarding, of_guard
from mce_notebook.run.ledger import Assignment
from mce_notebook.run.pool import WorkerLost
from mce_notebook.run.protocol import BlockResult, Task
from mce_notebook.run.schedule import Verdict
from mce_notebook.run.store_ledger import StoreLedger
from mce_notebook.store.answers import read_draft, read_mask
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Frame, Outcomes, encode
from mce_notebook.store.reader import LogReader
from mce_notebook.view.progress import Progress
from tests.declare.grids import products
from tests.run import engines

KEY = "0123456789abcdef" * 2
drive = functools.partial(engines.drive, seconds=60.0)


def declared(sweep: SweepStore, design: Grid, key: str = KEY) -> Declaration:
    """Declare a grid whose slow guards are left to the host, as a kernel does that has no time."""
    return sweep.declaration(sweep.declare(Declaration.of(design.postponed(key), version="v", options={}, cwd="/")))


class Slots:
    """Evaluates guards in this process, as slots do."""

    def __init__(self, design: Grid):
        self.design = design
        self.values = {f"{at}/all guards": list(part.guards) for at, part in enumerate(design.parts)}
        self.asked = 0

    def compute(self, work: Assignment, blocks: int = 10**9) -> list[Frame]:
        """Compute some blocks of an assignment, and take them back."""
        frames: list[Frame] = []
        evaluator = asker(self.design, self.values, work.task)
        for _ in range(blocks):
            job = work.schedule.next(2)
            if job is None:
                break
            report = evaluator.run(
                job.block, each=job.each, budget=None, flush=lambda some, done, bad: frames.extend(some)
            )
            self.asked += report.done
        return frames


def evaluated(sweep: SweepStore, design: Grid, slots: Slots, cuts: Iterator[int], key: str = KEY) -> np.ndarray:
    """Have the guards evaluated by one host after another, each killed after some blocks."""
    told: list[str] = []
    options = Options()
    while True:
        latest = sweep.latest()
        assert latest is not None
        if not latest.deferred:
            mask = read_mask(sweep, key)
            assert mask is not None
            return mask
        here = Guarding(sweep, latest, told.append)
        blocks = next(cuts, 10**9)
        while (work := here.assignment(task_of(sweep), options, [])) is not None and blocks:
            assert here.take(slots.compute(work, blocks)) == []
            assert told == []
            blocks = 0 if blocks < 10**9 else blocks
        here.keep()


def task_of(sweep: SweepStore) -> Task:
    return Task(str(sweep.paths.folder.parent), sweep.name, sweep.numbers()[-1], "v", 0, "/", sweep=sweep.id)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepStore:
    return Store(tmp_path / "experiments").create("guarded", 1)


@pytest.fixture(autouse=True)
def drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "DRAFT_SECONDS", 0.0)
    monkeypatch.setattr(guarding, "DRAFT_SHARE", 1e9)


def salted(salt: int) -> Callable[..., bool]:
    def guard(*values: object) -> bool:
        return hash((salt, *map(repr, values))) % 3 != 0

    return guard


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(products(3), min_size=1, max_size=2),
    st.lists(st.tuples(st.sampled_from(["all", "first", "last", "none"]), st.integers(0, 99)), min_size=1, max_size=3),
    st.lists(st.integers(1, 3), max_size=6),
)
def test_the_mask_is_the_same_as_at_once(
    tmp_path_factory: pytest.TempPathFactory, grids: list[Grid], guards: list[tuple[str, int]], cuts: list[int]
) -> None:
    parts = []
    for one in grids:
        part = one.parts[0]
        for which, salt in guards:
            names = {"all": part.names, "first": part.names[:1], "last": part.names[-1:], "none": ()}[which]
            part = part.guarded(Guard(None, salted(salt), names))
        parts.append(part)
    design = Grid(tuple(parts))
    sweep = Store(tmp_path_factory.mktemp("store")).create("guarded", 1)
    declared(sweep, design)
    found = evaluated(sweep, design, Slots(design), iter(cuts))
    expected = Grid(tuple(Part(part.axes, part.guards) for part in parts)).mask()
    assert expected is not None
    assert found.tolist() == expected.tolist()
    latest = sweep.latest()
    assert latest is not None
    assert np.array_equal(latest.grid.mask(), expected)
    assert read_draft(sweep, KEY) == {}


def test_python_is_asked_only_where_guards_before_hold(sweep: SweepStore) -> None:
    design = grid(n=range(30), m=range(20)).where("n > 5").where(lambda n, m: 1 / (n - 3) > 0 and m != 2)
    design = design.where("m < 15").where(lambda m: 1 / (m - 2) != 5)
    slots = Slots(design)
    declared(sweep, design)
    assert evaluated(sweep, design, slots, iter(())).tolist() == Grid(design.parts).mask().tolist()  # type: ignore[union-attr]
    assert slots.asked == 24 * 20 + 14


def test_what_was_said_before_a_crash_is_not_asked_again(sweep: SweepStore) -> None:
    design = grid(n=range(100), m=range(100)).where(lambda n, m: (n + m) % 2)
    declared(sweep, design)
    slots = Slots(design)
    evaluated(sweep, design, slots, iter([1, 1]))
    assert slots.asked == 10_000


def test_a_larger_grid_is_asked_only_about_what_is_new(sweep: SweepStore) -> None:
    def guard(n: int, m: int) -> bool:
        return (n * m) % 3 == 1

    def asked(design: Grid, key: str) -> int:
        slots = Slots(design)
        declared(sweep, design, key)
        expected = Grid(design.parts).mask()
        assert expected is not None
        assert evaluated(sweep, design, slots, iter(()), key).tolist() == expected.tolist()
        return slots.asked

    one = grid(n=range(10), m=range(20), k=[1]).where("n > 1").where(guard)
    assert asked(one, KEY) == 8 * 20
    # Another axis, that the guard does not read; more values of one that it does; fewer.
    assert asked(one.extended(k=[2, 3]), KEY[:16] + "1" * 16) == 0
    assert asked(one.extended(n=[10, 11], k=[7]), KEY[:16] + "2" * 16) == 2 * 20
    assert asked(grid(n=[3, 4], m=range(25), k=[1]).where("n > 1").where(guard), KEY[:16] + "3" * 16) == 2 * 5
    # Another guard: its answers are its own.
    other = grid(n=range(10), m=range(20), k=[1]).where("n > 1").where(lambda n, m: n == m)
    assert asked(other, "f" * 16 + "4" * 16) == 8 * 20


def test_what_a_larger_grid_took_over_is_not_asked_again_and_then_answered_for_the_smaller_too(
    sweep: SweepStore,
) -> None:
    def guard(n: int, m: int) -> bool:
        return (n * m) % 3 == 1

    one = grid(n=range(100), m=range(200), k=[1]).where("n > 1").where(guard)
    first = declared(sweep, one)
    slots = Slots(one)
    here = Guarding(sweep, first, pytest.fail)
    work = here.assignment(task_of(sweep), Options(), [])
    assert work is not None
    here.take(slots.compute(work, 2))
    here.keep()
    more = one.extended(n=range(100, 110), k=[2])
    declared(sweep, more, KEY[:16] + "1" * 16)
    again = Slots(more)
    expected = Grid(more.parts).mask()
    assert expected is not None
    assert evaluated(sweep, more, again, iter(()), KEY[:16] + "1" * 16).tolist() == expected.tolist()
    assert 0 < slots.asked < 98 * 200
    assert slots.asked + again.asked == 108 * 200
    # Whoever declared the first one knows its points now.
    mask = sweep.declaration(first.number).grid.mask()
    expected = Grid(one.parts).mask()
    assert mask is not None
    assert expected is not None
    assert mask.tolist() == expected.tolist()
    assert read_draft(sweep, KEY) == {}


def test_a_grid_that_lacks_points_of_an_earlier_one_leaves_that_unanswered(sweep: SweepStore) -> None:
    first = declared(sweep, grid(n=range(10)).where(lambda n: n % 2))
    other = grid(n=range(5, 20)).where(lambda n: n % 2)
    declared(sweep, other, KEY[:16] + "1" * 16)
    evaluated(sweep, other, Slots(other), iter(()), KEY[:16] + "1" * 16)
    assert sweep.declaration(first.number).deferred == KEY


def test_two_slow_guards_inherit_what_both_said_yes_to(sweep: SweepStore) -> None:
    one = grid(n=range(10), m=range(10)).where(lambda n, m: n != m).where(lambda n: n % 2)
    slots = Slots(one)
    declared(sweep, one)
    evaluated(sweep, one, slots, iter(()))
    more = one.extended(m=[10])
    slots = Slots(more)
    declared(sweep, more, KEY[:16] + "1" * 16)
    expected = Grid(more.parts).mask()
    assert expected is not None
    assert evaluated(sweep, more, slots, iter(()), KEY[:16] + "1" * 16).tolist() == expected.tolist()
    assert slots.asked < 10 * 11 + 10 - 5 * 9


def run(sweep: SweepStore, design: Grid) -> tuple[StoreLedger, list[str]]:
    """Have a ledger take in all a design's guards say; return it and what it was told to stop for."""
    ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
    slots = Slots(design)
    for _ in range(20):
        work = ledger.assignment([])
        if work.task.guard is None:
            break
        ledger.append(slots.compute(work))
        if ledger.look().verb == "stop":
            break
    return ledger, [ledger.look().by] if ledger.look().verb == "stop" else []


@pytest.mark.parametrize(
    ("guard", "why"),
    [
        (lambda n, m: 1 / (n - 3) > m, "at n=3, m=0: ZeroDivisionError: division by zero."),
        (lambda n: [][n], "at n=0: IndexError: list index out of range."),
        (lambda: 1 / 0, ": ZeroDivisionError: division by zero."),
        (lambda n: exit(3), "at n=0: SystemExit: 3."),
    ],
)
def test_a_guard_that_raises_stops_the_sweep_with_the_sentence_of_a_grid_error(
    sweep: SweepStore, guard: Any, why: str
) -> None:
    design = grid(n=range(5), m=range(4)).where(guard)
    declared(sweep, design)
    ledger, told = run(sweep, design)
    (said,) = told
    assert said.startswith("The guard '<lambda>' failed")
    assert said.endswith(why)
    assert sweep.latest().deferred  # type: ignore[union-attr]
    ledger.close("stopped", said)
    # Whoever resumes asks again, of the point that failed too.
    sweep.add_intent("run", "me")
    _, again = run(sweep, design)
    assert again[0].startswith("The guard '<lambda>' failed")


def test_what_is_given_up_is_told_by_its_point(sweep: SweepStore) -> None:
    design = grid(n=range(5), m=range(4)).where(lambda n, m: True)
    declared(sweep, design)
    ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
    work = ledger.assignment([])
    ledger.append(ledger.killed(work, Verdict(6, "its slot was killed (SIGKILL) 3 times while computing it")))
    assert ledger.look().by == (
        "The guard '<lambda>' failed at n=1, m=2: its slot was killed (SIGKILL) 3 times while computing it."
    )


def test_a_guard_that_remembers_points_is_refused_and_what_it_said_forgotten(sweep: SweepStore) -> None:
    design = grid(n=range(50), m=range(40)).where(lambda n, m: n >= m)
    declared(sweep, design)
    ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
    ledger.append(Slots(design).compute(ledger.assignment([])))
    ledger.note("remark", "slots were killed while they started")
    assert ledger.look().verb == "run"
    ledger.note("remark", "points change `seen`, made before the loops: each point gets the value it had there")
    assert "The guard '<lambda>' changes `seen`, so what it says would depend on the order" in ledger.look().by
    ledger.close("stopped", "")
    assert read_draft(sweep, KEY) == {}
    assert sweep.latest().deferred  # type: ignore[union-attr]


def test_answers_are_no_outcomes(sweep: SweepStore) -> None:
    design = grid(n=range(50)).where(lambda n: n % 2)
    declared(sweep, design)
    ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
    work = ledger.assignment([])
    frames = Slots(design).compute(work)
    assert all(map(of_guard, frames))
    ledger.claim()
    beat = {"counter": 1, "done": 3, "failed": 0, "total": 50, "in_flight": [[0, 9]], "rate": 2.0, "state": "running"}
    ledger.beat(beat)
    told = sweep.heartbeat(1)
    assert told["guard"] == {"text": "<lambda>", "done": 3, "total": 50}
    assert (told["done"], told["total"], told["in_flight"]) == (0, 0, [])
    ledger.append(frames)
    assert not list(LogReader(sweep.paths).poll())
    # What comes late, when all is known, is not taken for outcomes either.
    later = ledger.assignment([])
    assert later.task.guard is None
    assert later.schedule.remaining == 25
    assert later.tally.total == 25
    ledger.append(frames)
    assert not list(LogReader(sweep.paths).poll())
    assert ledger.assignment([]).schedule.remaining == 25
    ledger.beat({**beat, "counter": 2})
    assert "guard" not in sweep.heartbeat(1)


def test_blocks_on_their_way_are_not_sent_again(sweep: SweepStore) -> None:
    design = grid(n=range(10_000)).where(lambda n: n % 2)
    declared(sweep, design)
    ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
    work = ledger.assignment([])
    job = work.schedule.next(2)
    assert job is not None
    again = ledger.assignment([(work.task, job.block)])
    assert again.schedule.remaining == 10_000 - job.block.count


def test_code_that_is_not_signed_is_not_evaluated(sweep: SweepStore) -> None:
    design = grid(n=range(5)).where("sum([n]) > 2")
    declared(sweep, design)
    work = StoreLedger(str(sweep.paths.folder.parent), sweep.name).assignment([])
    values: Mapping[str, Sequence[Any]] = {}
    with pytest.raises(UntrustedCode, match="not in its signed code"):
        asker(design, values, work.task)


# With an engine


class Pool:
    """Computes guards and points in this process: a point is its `n`."""

    workers = 2
    remark = ""
    refusal = ""

    def __init__(self, sweep: SweepStore, designs: dict[int, Grid], pause: float = 0.0, losses: int = 0):
        self.sweep, self.designs, self.pause, self.losses = sweep, designs, pause, losses
        self.guards = self.points = 0

    def loads(self) -> dict[str, int]:
        return {f"slot {number}": 0 for number in range(self.workers)}

    async def submit(self, task: Task, block: Block, **options: Any) -> BlockResult:
        await asyncio.sleep(self.pause)
        if self.losses:
            self.losses -= 1
            raise WorkerLost("The worker died.")
        design = self.designs[task.declaration]
        if task.guard is None:
            self.points += block.count
            values = [float(point[0]) for point in design.points_at(block.indices())]
            meta = {"version": task.version, "generation": "0"}
            frames = encode(Outcomes(values, {}), ("y",), declaration=task.declaration, ranges=block.ranges, meta=meta)
            return BlockResult(frames, block.count, (), 1e-3 * block.count, 0.0, 0, 8 * block.count)
        frames: list[Frame] = []
        report = asker(design, Slots(design).values, task).run(
            block, each=True, budget=options["budget"], flush=lambda some, done, bad: frames.extend(some)
        )
        rest = () if report.leftover is None else (report.leftover,)
        self.guards += report.done
        # As if each took a millisecond, so that blocks stay small.
        return BlockResult(frames, report.done, rest, 1e-3 * report.done, 0.0, report.failed, report.nbytes)

    async def interrupt(self, task: Task) -> None:
        return None


def recorded(sweep: SweepStore) -> list[float]:
    values = [batch.columns["y"].values().tolist() for batch in LogReader(sweep.paths).poll()]
    return sorted(value for some in values for value in some)


@pytest.mark.parametrize("losses", [0, 5])
def test_guards_come_first_then_the_points_they_keep(sweep: SweepStore, losses: int) -> None:
    design = grid(n=range(200), m=[1]).where(lambda n: n % 2).where(lambda n, m: n > 50 * m)
    declared(sweep, design)
    pool = Pool(sweep, {1: design}, losses=losses)
    assert drive(sweep, pool).state == "done"
    assert recorded(sweep) == [float(n) for n in range(51, 200, 2)]
    assert (pool.guards, pool.points) == (200 + 100, 75)
    (epoch,) = sweep.epochs()
    beat = sweep.heartbeat(epoch.number)
    assert (beat["state"], beat["done"], beat["total"]) == ("done", 75, 75)
    assert drive(sweep, pool).state == "done"
    assert (pool.guards, pool.points, len(sweep.epochs())) == (300, 75, 1)


def test_a_store_out_of_reach_when_a_guard_is_through_is_waited_for(
    sweep: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = grid(n=range(20)).where(lambda n: n % 2)
    declared(sweep, design)
    real, calls = StoreLedger.assignment, itertools.count()

    def flaky(self: StoreLedger, flying: Sequence[tuple[Task, Block]]) -> Assignment:
        if 1 <= next(calls) <= 3:
            raise StoreUnreachable("no answer")
        return real(self, flying)

    monkeypatch.setattr(StoreLedger, "assignment", flaky)
    assert drive(sweep, Pool(sweep, {1: design})).state == "done"
    assert recorded(sweep) == [float(n) for n in range(1, 20, 2)]


def test_a_guard_that_keeps_nothing_leaves_nothing_to_do(sweep: SweepStore) -> None:
    design = grid(n=range(20)).where(lambda n: False)
    declared(sweep, design)
    pool = Pool(sweep, {1: design})
    assert drive(sweep, pool).state == "done"
    assert pool.points == 0
    assert Progress.of(sweep).state == "done"
    assert Progress.of(sweep).total == 0


def test_an_engine_ends_with_the_sentence_of_a_guard_that_raised(sweep: SweepStore) -> None:
    design = grid(n=range(20)).where(lambda n: 1 / (n - 7))
    declared(sweep, design)
    engine = drive(sweep, Pool(sweep, {1: design}))
    assert (engine.state, engine.message) == (
        "stopped",
        "The guard '<lambda>' failed at n=7: ZeroDivisionError: division by zero.",
    )
    found = Progress.of(sweep)
    assert (found.state, found.guard, found.message) == ("stopped", "failed", engine.message)
    assert (found.total, found.pending, found.known) == (0, 0, 0)


def test_orders_are_obeyed_while_guards_are_evaluated(sweep: SweepStore) -> None:
    design = grid(n=range(50_000)).where(lambda n: n % 2)
    declared(sweep, design)
    pool = Pool(sweep, {1: design}, pause=0.05)

    async def story(engine: Engine) -> None:
        while not pool.guards:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(sweep.add_intent, "cancel", "me")
        engine.poke()

    assert drive(sweep, pool, story).state == "cancelled"
    asked = pool.guards
    assert 0 < asked < 50_000
    assert pool.points == 0
    found = Progress.of(sweep)
    assert (found.state, found.guard, found.total) == ("cancelled", "pending", 0)
    assert "which points there are is known once the guard <lambda> is evaluated" in found.text()
    assert "0 points" not in found.text() + found.html()
    sweep.add_intent("run", "me")
    pool.pause = 0.0
    assert drive(sweep, pool).state == "done"
    # What was said before the order is not asked again.
    assert pool.guards == 50_000
    assert len(recorded(sweep)) == 25_000


def test_a_slow_guard_declared_while_points_run_takes_over(sweep: SweepStore) -> None:
    first = grid(n=range(40_000))
    sweep.declare(Declaration.of(first, version="v", options={}, cwd="/"))
    second = grid(n=range(39_000, 41_000)).where(lambda n: n % 2)
    pool = Pool(sweep, {1: first, 2: second}, pause=0.01)

    async def story(engine: Engine) -> None:
        while not pool.points:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(declared, sweep, second)
        engine.poke()

    assert drive(sweep, pool, story).state == "done"
    assert pool.points < 40_000
    assert set(range(39_001, 41_000, 2)) <= {int(value) for value in recorded(sweep)}
    assert len(recorded(sweep)) == len(set(recorded(sweep)))
    assert Progress.of(sweep).state == "done"
    assert Progress.of(sweep).total == 1000


def test_another_declaration_takes_over_while_guards_are_evaluated(sweep: SweepStore) -> None:
    first = grid(n=range(60_000)).where(lambda n: n % 2)
    second = grid(n=range(100))
    declared(sweep, first)
    pool = Pool(sweep, {1: first, 2: second}, pause=0.02)

    async def story(engine: Engine) -> None:
        while not pool.guards:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(sweep.declare, Declaration.of(second, version="v", options={}, cwd="/"))
        engine.poke()

    assert drive(sweep, pool, story).state == "done"
    assert pool.guards < 60_000
    assert recorded(sweep) == [float(n) for n in range(100)]
