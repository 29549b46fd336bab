"""Blocks of grids whose setups lie between ragged loops: every point once, prefix by prefix, each on its slot."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.axes import Axis
from mce_notebook.declare.columns import coordinate
from mce_notebook.declare.grid import Grid
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
    setups.append((before, ("n",)))
    setups += [(before + 1 + depth, ()) for depth in range(after) if draw(st.booleans())]
    return Grid(tuple(parts)), setups


@settings(deadline=None, max_examples=150)
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


@settings(deadline=None, max_examples=60)
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
