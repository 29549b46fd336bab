"""Blocks of grids whose setups lie between ragged loops: every point once, prefix by prefix, each on its slot."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.calls import read_cell
from mce_notebook.declare.axes import Axis
from mce_notebook.declare.columns import coordinate
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.options import Options
from mce_notebook.declare.parts import Part
from mce_notebook.plan import Block, Plan

ORDERS = ("coarse", "listed", "random", "longest-first")


def table(lengths: Sequence[int], name: str = "n") -> Axis:
    """The rows of `for n in range(len(lengths)): for k in range(lengths[n])`."""
    outer = [n for n, length in enumerate(lengths) for _ in range(length)]
    inner = [k for length in lengths for k in range(length)]
    return Axis((coordinate(name, outer), coordinate(f"{name}k", inner)), "table")


def plain(name: str, size: int) -> Axis:
    return Axis((coordinate(name, range(size)),))


def design(*axes: Axis) -> Grid:
    return Grid((Part(axes),))


def keys(points: Grid, level: tuple[int, tuple[str, ...]]) -> list[tuple[Any, ...]]:
    """What every listed point shares with the others of its prefix."""
    found: list[tuple[Any, ...]] = []
    for number, part in enumerate(points.parts):
        names = [name for axis in part.axes[: level[0]] for name in axis.names] + list(level[1])
        found += [(number, *row) for row in part.span(0, part.size, [name for name in names if name in part.names])]
    return found


@st.composite
def ragged(draw: st.DrawFn) -> tuple[Grid, list[tuple[int, tuple[str, ...]]]]:
    """A grid of up to three parts with a table in each, and setups around, in and below it."""
    before = draw(st.integers(0, 2))
    after = draw(st.integers(0, 2))
    parts = []
    for number in range(draw(st.integers(1, 3))):
        lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
        rows = table(lengths)
        if draw(st.booleans()):
            # As `extend` leaves it: rows of known outer values behind the others.
            order = draw(st.permutations(range(rows.size)))
            rows = rows.rows(np.array(order))
        axes = [plain(f"a{at}", draw(st.integers(1, 3))) for at in range(before)]
        axes += [rows, *(plain(f"z{at}", draw(st.integers(1, 4))) for at in range(after))]
        parts.append(Part((*axes, plain("part", 1)) if number else tuple(axes)))
    setups: list[tuple[int, tuple[str, ...]]] = [(depth, ()) for depth in range(1, before + 1) if draw(st.booleans())]
    inner = [(before + 1 + depth, ()) for depth in range(after) if draw(st.booleans())]
    if len(setups) + len(inner) < 2 or draw(st.booleans()):
        setups.append((before, ("n",)))
    setups += inner
    return Grid(tuple(parts)), setups


@settings(deadline=None, max_examples=70)
@given(ragged(), st.sampled_from(ORDERS), st.floats(0.1, 1), st.integers(0, 99), st.data())
def test_every_point_exactly_once_and_no_prefix_cut_short(
    case: tuple[Grid, list[tuple[int, tuple[str, ...]]]], order: str, density: float, seed: int, data: st.DataObject
) -> None:
    points, setups = case
    rng = np.random.default_rng(seed)
    todo = rng.random(points.size) < density
    costs = rng.random(points.size) if data.draw(st.booleans()) else None
    plan = Plan(points, todo, order=order, setups=setups, workers=data.draw(st.integers(1, 4)), costs=costs)
    prefix = keys(points, setups[-1])
    left = todo.copy()
    while plan.remaining:
        assert plan.remaining == int(left.sum())
        block = plan.take(
            seconds=data.draw(st.sampled_from([None, 1e-6, 0.01, 1.0])),
            nbytes=data.draw(st.sampled_from([None, 8.0, 1e7])),
            workers=data.draw(st.sampled_from([None, 2, 300])),
            setup=data.draw(st.sampled_from([None, 1e-5, 0.1, 5.0])),
            slot=data.draw(st.sampled_from([None, "a", "b", "c"])),
            idle=data.draw(st.booleans()),
            alone=(alone := data.draw(st.booleans())),
        )
        if block is None:
            assert not alone
            continue
        indices = block.indices()
        assert block.count > 0
        assert len(np.unique(indices)) == block.count
        assert left[indices].all()
        left[indices] = False
        found = {prefix[index] for index in indices.tolist()}
        assert plan.setups_of(block) == len(found) or order == "listed"
        if len(found) > 1:
            # Several prefixes only where the block takes all that is left of each.
            assert not any(prefix[index] in found for index in np.flatnonzero(left).tolist()) or order == "listed"
        if data.draw(st.integers(0, 3)) == 0:
            _, rest = block.split(data.draw(st.integers(0, block.count)))
            plan.give_back(rest)
            left[rest.indices()] = True
        if data.draw(st.integers(0, 9)) == 0:
            plan.keep(data.draw(st.sampled_from([{"a"}, {"b", "c"}, {"d"}])))
    assert not left.any()
    assert plan.take(seconds=1.0, slot="a") is None


# Slots


class Slots:
    """Slots that compute blocks in simulated time, two blocks each, setting up what they have not."""

    def __init__(self, points: Grid, setups: list[tuple[int, tuple[str, ...]]], cost: Sequence[float], seconds: float):
        self.prefixes = [keys(points, level) for level in setups]
        self.cost = cost
        self.seconds = seconds
        self.made: set[tuple[int, int, tuple[Any, ...]]] = set()

    def run(self, plan: Plan, count: int, budget: float = 2.0) -> float:
        """Return when the last point is done."""
        free = [0.0] * count
        queues: list[list[Block]] = [[] for _ in range(count)]
        events: list[tuple[float, int, int, Block, int, float]] = []
        known: dict[str, Any] = {"seconds": None, "setup": None}
        now, number = 0.0, 0
        while True:
            waits = False
            for turn, slot in enumerate(sorted(range(count), key=lambda at: (len(queues[at]), at)) * 2):
                if len(queues[slot]) >= (1 if waits else 2):
                    continue
                alone = turn >= count and not any(queues)
                block = plan.take(**known, slot=slot, workers=count, idle=not queues[slot], alone=alone)
                if block is None:
                    waits = True
                    continue
                number += 1
                begun = max(now, free[slot])
                done, spent, setup = self.compute(slot, block, 0.02 if known["seconds"] is None else budget)
                free[slot] = begun + spent
                queues[slot].append(block)
                events.append((free[slot], number, slot, block, done, setup))
            if not events:
                assert plan.remaining == 0
                return now
            events.sort(reverse=True, key=lambda event: event[:2])
            now, _, slot, block, done, setup = events.pop()
            queues[slot].remove(block)
            finished, rest = block.split(done)
            plan.measured(block, setup)
            known["seconds"] = self.seconds
            if setup:
                setup /= plan.setups_of(finished)
                known["setup"] = setup if known["setup"] is None else 0.5 * (known["setup"] + setup)
            plan.give_back(rest)

    def compute(self, slot: int, block: Block, budget: float) -> tuple[int, float, float]:
        """Return how many points are done in time, how long that took, and how long setups did."""
        spent = setup = 0.0
        for done, index in enumerate(block.indices().tolist()):
            if spent > budget and done:
                return done, spent, setup
            for level, prefix in enumerate(self.prefixes):
                made = (slot, level, prefix[index])
                if made not in self.made:
                    self.made.add(made)
                    spent += self.cost[level]
                    setup += self.cost[level]
            spent += self.seconds
        return block.count, spent, setup


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(5, 60), min_size=4, max_size=16),
    st.integers(1, 4),
    st.sampled_from([0.001, 0.05, 0.3, 2.0]),
    st.sampled_from([0.002, 0.02, 0.1]),
)
def test_repeated_setup_stays_under_a_tenth_and_no_slot_idles_long(
    lengths: list[int], count: int, setup: float, seconds: float
) -> None:
    points = design(table(lengths), plain("b", 3))
    slots = Slots(points, [(0, ("n",))], [setup], seconds)
    took = slots.run(Plan(points, setups=[(0, ("n",))], workers=count), count)
    compute = points.size * seconds
    assert (len(slots.made) - len(lengths)) * setup <= 0.1 * compute + 1e-9
    # Shared evenly it takes the first part; at the end slots wait for one prefix, or for a setup that is repeated.
    last = max(lengths) * 3 * seconds
    assert took <= (compute + len(slots.made) * setup) / count + min(last, 4 * setup + 0.6 * last) + setup + 2 * 0.5


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(2, 12), min_size=3, max_size=6),
    st.integers(2, 8),
    st.integers(1, 8),
    st.tuples(st.sampled_from([0.01, 0.3, 2.0]), st.sampled_from([0.001, 0.05, 0.3])),
    st.sampled_from([0.005, 0.05]),
)
def test_setups_inside_one_another_are_hardly_repeated(
    lengths: list[int], outer: int, count: int, cost: tuple[float, float], seconds: float
) -> None:
    points = design(plain("a", outer), table(lengths), plain("b", 10))
    setups: list[tuple[int, tuple[str, ...]]] = [(1, ()), (1, ("n",))]
    slots = Slots(points, setups, cost, seconds)
    slots.run(Plan(points, setups=setups, workers=count), count)
    made = [sum(level == at for _, level, _ in slots.made) for at in (0, 1)]
    if outer >= count:
        # Shared at the end only, and nothing is known of the first few blocks' setups.
        repeated = (made[0] - outer) * cost[0] + (made[1] - outer * len(lengths)) * cost[1]
        assert repeated <= 0.1 * points.size * seconds + count * sum(cost)
        assert made[0] <= outer + 2 * count


@pytest.mark.parametrize("count", [2, 3, 6])
def test_setups_inside_one_another_of_plain_loops_are_hardly_repeated(count: int) -> None:
    points = design(plain("a", 12), plain("n", 8), plain("b", 20))
    setups: list[tuple[int, tuple[str, ...]]] = [(1, ()), (2, ())]
    slots = Slots(points, setups, [1.0, 0.05], 0.02)
    slots.run(Plan(points, prefix=20, setups=setups, workers=count), count)
    made = [sum(level == at for _, level, _ in slots.made) for at in (0, 1)]
    assert (made[0] - 12) * 1.0 + (made[1] - 96) * 0.05 <= 0.1 * points.size * 0.02


@pytest.mark.parametrize(
    ("axes", "cost"),
    [
        ((plain("a", 2), table([12, 9, 14, 7, 11, 10]), plain("b", 2)), [0.5, 3.0]),
        ((plain("a", 5), table([7, 7, 7, 7]), plain("b", 3)), [0.001, 2.0]),
    ],
)
def test_inner_setups_that_take_longest_keep_all_slots_busy(axes: tuple[Axis, ...], cost: list[float]) -> None:
    """What is to do are setups as well as points: with two outer prefixes, six slots of eight did nothing."""
    points, count = design(*axes), 8
    setups: list[tuple[int, tuple[str, ...]]] = [(1, ()), (1, ("n", "nk"))]
    slots = Slots(points, setups, cost, 0.002)
    took = slots.run(Plan(points, setups=setups, workers=count), count)
    made = [sum(level == at for _, level, _ in slots.made) for at in (0, 1)]
    needed = sum(len(set(keys(points, level))) * one for level, one in zip(setups, cost, strict=True))
    assert took <= 1.5 * (needed + points.size * 0.002) / count + 2 * sum(cost)
    assert made[1] <= 1.1 * len(set(keys(points, setups[1])))


def begun(points: Grid, setups: list[tuple[int, tuple[str, ...]]], **speed: Any) -> list[tuple[Any, ...]]:
    """The prefixes of blocks as one slot takes them."""
    plan, prefix = Plan(points, setups=setups), keys(points, setups[-1])
    blocks = []
    while (block := plan.take(**speed, slot=0)) is not None:
        blocks.append(prefix[int(block.indices()[0])][1:])
    return blocks


def test_prefixes_are_begun_coarse_to_fine_and_finished_where_setups_are_slow() -> None:
    points = design(table([5, 1, 4, 2, 3, 6, 2, 1]), plain("b", 10))
    found = begun(points, [(0, ("n",))], seconds=0.1, setup=10.0)
    assert [n for (n,) in dict.fromkeys(found)] == [0, 4, 2, 6, 1, 5, 3, 7]
    changes = sum(before != after for before, after in itertools.pairwise(found))
    assert changes == 7


def test_prefixes_inside_an_outer_setup_follow_each_other() -> None:
    points = design(plain("a", 4), table([2, 3, 1, 2]), plain("b", 10))
    found = begun(points, [(1, ()), (1, ("n",))], seconds=0.1, setup=10.0)
    order = [a for a, _ in dict.fromkeys(found)]
    assert order == [a for a in dict.fromkeys(order) for _ in range(4)]
    assert list(dict.fromkeys(order)) == [0, 2, 1, 3]


def test_cheap_setups_are_visited_several_times_so_that_the_whole_grid_fills() -> None:
    points = design(table([40, 10, 30, 20]), plain("b", 100))
    plan = Plan(points, setups=[(0, ("n",))], workers=1)
    probe = plan.take(slot=0)
    assert probe is not None
    plan.give_back(probe)
    seen = np.zeros(points.size, dtype=bool)
    while seen.sum() < 0.5 * points.size:
        block = plan.take(seconds=0.001, setup=0.0001, slot=0)
        assert block is not None
        seen[block.indices()] = True
    bounds = np.array([0, 40, 50, 80, 100]) * 100
    shares = [seen[low:high].mean() for low, high in itertools.pairwise(bounds.tolist())]
    assert min(shares) > 0.3
    # Inside a value too: every k and every b, evenly.
    cells = seen[:4000].reshape(40, 100)
    assert cells.any(axis=0).mean() > 0.9
    assert cells.any(axis=1).all()


def test_a_slot_keeps_what_it_has_set_up() -> None:
    points = design(table([7, 3, 9, 5, 8, 4]), plain("b", 50))
    plan, prefix = Plan(points, setups=[(0, ("n",))], workers=2), keys(points, (0, ("n",)))
    owners: dict[Any, set[str]] = {}
    turn = 0
    while (block := plan.take(seconds=0.01, setup=0.01, slot=(slot := "ab"[turn % 2]), alone=False)) is not None:
        owners.setdefault(prefix[int(block.indices()[0])], set()).add(slot)
        turn += 1
    assert plan.remaining == 0
    assert len(owners) == 6
    # Many visits, but only what is left at the end is shared.
    assert sum(len(slots) for slots in owners.values()) <= 6 + 1


def test_what_comes_back_goes_to_the_slot_that_set_it_up() -> None:
    points = design(table([10, 10, 10]))
    plan, prefix = Plan(points, setups=[(0, ("n",))], workers=3), keys(points, (0, ("n",)))
    blocks = {slot: plan.take(slot=slot, alone=False) for slot in "abc"}
    assert all(block is not None and block.count == 10 for block in blocks.values())
    for block in blocks.values():
        assert block is not None
        plan.give_back(block.split(2)[1])
    for slot in "cab":
        known = blocks[slot]
        again = plan.take(seconds=1.0, setup=50.0, slot=slot, alone=False)
        assert known is not None
        assert again is not None
        assert prefix[int(again.indices()[0])] == prefix[int(known.indices()[0])]
    assert plan.take(seconds=1.0, setup=50.0, slot="d", alone=False) is None
    # The slots are gone: what they had is anybody's.
    plan.keep({"d"})
    assert plan.take(seconds=1.0, setup=50.0, slot="d", alone=False) is not None


@pytest.mark.parametrize("work", [0.1, 100.0])
def test_idle_slots_share_the_last_prefix_where_that_pays(work: float) -> None:
    points = design(table([100]))
    plan = Plan(points, setups=[(0, ("n",))], workers=4)
    first = plan.take(slot="a", alone=False)
    assert first is not None
    plan.give_back(first.split(1)[1])
    assert plan.take(slot="b", alone=False) is None, "nothing is known yet"
    assert plan.take(seconds=work, setup=20.0, slot="a", alone=False) is not None
    assert plan.take(seconds=work, setup=20.0, slot="b", idle=False, alone=False) is None
    assert (plan.take(seconds=work, setup=20.0, slot="b", alone=False) is not None) == (work * 100 > 40)


def test_nothing_left_to_do() -> None:
    points = design(table([2, 3]))
    plan = Plan(points, np.zeros(points.size, dtype=bool), setups=[(0, ("n",))], workers=2)
    assert plan.remaining == 0
    assert plan.prefixed
    plan.keep({"a"})
    assert plan.take(slot="a") is None
    assert plan.take() is None


def test_short_prefixes_share_a_block() -> None:
    points = design(table([3, 1, 2] * 1000))
    plan = Plan(points, setups=[(0, ("n",))], workers=1)
    plan.take(slot=0)
    sizes = []
    while (block := plan.take(seconds=1e-5, setup=1e-4, slot=0)) is not None:
        sizes.append(plan.setups_of(block))
    assert sum(sizes) == 2999
    assert len(sizes) < 60
    assert max(sizes) <= 257


def test_a_million_prefixes_cost_little() -> None:
    lengths = np.arange(1_000_000) % 2 + 1
    begin = time.process_time()
    rows = np.repeat(np.arange(len(lengths)), lengths)
    inner = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    points = design(Axis((coordinate("n", rows), coordinate("k", inner)), "table"))
    made = time.process_time()
    plan = Plan(points, setups=[(0, ("n",))], workers=2)
    count = 0
    while (block := plan.take(seconds=1e-6, setup=1e-4, slot=count % 2)) is not None:
        count += 1
        assert block.count > 0
    assert count < 10_000
    assert time.process_time() - made < 20
    assert made - begin < 20


@settings(deadline=None, max_examples=30)
@given(ragged(), st.integers(0, 99))
def test_one_slot_in_listed_order_takes_points_as_loops_would(
    case: tuple[Grid, list[tuple[int, tuple[str, ...]]]], seed: int
) -> None:
    points, setups = case
    if len(points.parts) > 1:
        points = Grid(points.parts[:1])
    todo = np.random.default_rng(seed).random(points.size) < 0.8
    plan = Plan(points, todo, order="listed", setups=setups, workers=1)
    taken: list[int] = []
    while (block := plan.take(seconds=0.1, setup=0.001, slot="a")) is not None:
        first, rest = block.split(3)
        taken += first.indices().tolist()
        plan.give_back(rest)
    assert taken == np.flatnonzero(todo).tolist()


def test_ragged_loops_without_setup_fill_evenly_too() -> None:
    lengths = list(range(1, 65))
    points = design(table(lengths), plain("b", 3))
    plan = Plan(points, workers=1)
    taken = np.concatenate([block.indices() for _ in range(256) if (block := plan.take(seconds=1.0))])
    part = points.parts[0]
    outer = part.axes[0].coordinates[0].labels[part.rows(taken, 0)]
    inner = part.axes[0].coordinates[1].labels[part.rows(taken, 0)]
    cells = np.histogram2d(outer, inner, bins=(8, 8), range=((0, 64), (0, 64)))[0]
    # Every region of the triangle below the diagonal has its share of a thirtieth of the points, and every b its third.
    shares = cells[np.tril_indices(8, -1)]
    assert shares.min() >= 4
    assert shares.max() <= 14
    assert np.ptp(np.bincount(part.rows(taken, 1), minlength=3)) <= 1


def test_a_cell_with_a_setup_between_ragged_loops_is_planned_coarse_to_fine() -> None:
    cell = "rows = []\nfor n in [2, 3]:\n    X = [n] * n\n    for k in range(n):\n        rows.append((n, k, X[k]))\n"
    proposal = read_cell("ragged", cell, {"__name__": "__main__"}, Options())
    assert proposal.options.order == "coarse"
    assert [(setup.depth, setup.enclosing) for setup in proposal.experiment.setups] == [(0, ("n",))]
