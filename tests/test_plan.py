import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Grid, grid
from mce_notebook.errors import OptionError
from mce_notebook.plan import Block, Plan, preview

ORDERS = ("coarse", "listed", "random", "longest-first")


def shaped(shape: tuple[int, ...]) -> Grid:
    return grid(**{f"x{number}": range(size) for number, size in enumerate(shape)})


def drain(plan: Plan, **speed: Any) -> list[Block]:
    blocks = []
    while (block := plan.take(**speed)) is not None:
        blocks.append(block)
    return blocks


shapes = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
blocks = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=8).map(
    lambda runs: Block(
        tuple((100 * number + start, 100 * number + start + n) for number, (start, n) in enumerate(runs) if n)
    )
)


@settings(deadline=None)
@given(blocks, st.integers(-1, 80))
def test_blocks_split(block: Block, k: int) -> None:
    first, second = block.split(k)
    assert first.count == min(max(k, 0), block.count)
    assert np.concatenate([first.indices(), second.indices()]).tolist() == block.indices().tolist()
    assert block.indices().tolist() == [index for start, stop in block.ranges for index in range(start, stop)]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(shapes, min_size=1, max_size=3),
    st.sampled_from(ORDERS),
    st.integers(0, 3),
    st.floats(0, 1),
    st.data(),
)
def test_every_point_exactly_once(
    parts: list[tuple[int, ...]], order: str, depth: int, density: float, data: st.DataObject
) -> None:
    design = shaped(parts[0])
    for number, shape in enumerate(parts[1:]):
        design = design + grid(**{f"y{number}_{axis}": range(size) for axis, size in enumerate(shape)})
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    todo = rng.random(design.size) < density
    prefix = design.prefixes(min(depth, len(parts[0]))) if depth else 0
    costs = rng.random(design.size) if data.draw(st.booleans()) else None
    plan = Plan(design, todo, order=order, prefix=prefix, workers=data.draw(st.integers(1, 5)), costs=costs)
    done = np.zeros(design.size, dtype=int)
    while plan.remaining:
        assert plan.remaining == int(todo.sum()) - int(done.sum())
        block = plan.take(
            seconds=data.draw(st.sampled_from([None, 1e-6, 0.01, 1.0])),
            nbytes=data.draw(st.sampled_from([None, 8.0, 1e7])),
            workers=data.draw(st.sampled_from([None, 2, 300])),
            setup=data.draw(st.sampled_from([None, 0.1])),
            slot=data.draw(st.sampled_from([None, "a", "b"])),
        )
        assert block is not None
        assert block.count > 0
        if prefix:
            indices = block.indices()
            inside = indices[indices < design.parts[0].size] // prefix
            assert len(inside) in (0, len(indices))
            assert len(np.unique(inside)) <= 1
        # A few blocks come back, whole or in part, so that every path is walked and the end is reached.
        if data.draw(st.integers(0, 3)) == 0:
            block, rest = block.split(data.draw(st.integers(0, block.count)))
            plan.give_back(rest)
        if block.count:
            done[block.indices()] += 1
    assert plan.take(seconds=1.0) is None
    assert (done == todo).all()


def test_guarded_points_are_left_out() -> None:
    design = grid(a=range(100), b=range(100)).where("(a + b) % 3 == 0")
    done = np.concatenate([block.indices() for block in drain(Plan(design), seconds=1e-6)])
    assert (np.sort(done) == np.flatnonzero(design.mask())).all()


# Coverage


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple), st.data())
def test_every_prefix_covers_every_axis_evenly(shape: tuple[int, ...], data: st.DataObject) -> None:
    design = shaped(shape)
    order = np.concatenate([block.indices() for block in drain(Plan(design), seconds=100.0, workers=1)])
    assert len(order) == design.size
    k = data.draw(st.integers(0, design.size))
    longest = max(shape)
    for dimension, size in enumerate(shape):
        rows = design.parts[0].rows(order[:k], dimension)
        counts = np.bincount(rows, minlength=size)
        # The first block is a probe and comes back to its place; every run of `longest` points is balanced to one.
        runs = -(-k // longest)
        assert counts.max() <= runs * -(-longest // size)
        assert counts.min() >= (k // longest) * (longest // size)


def test_the_first_points_are_far_apart() -> None:
    design = shaped((64, 64))
    plan = Plan(design, workers=1)
    order = np.concatenate([plan.take(seconds=1.0, workers=1).indices() for _ in range(64)])
    rows, columns = np.divmod(order, 64)
    cells = set(zip((rows // 8).tolist(), (columns // 8).tolist(), strict=True))
    assert len(cells) >= 40
    assert set(rows.tolist()) == set(columns.tolist()) == set(range(64))


def test_cheap_points_are_covered_by_tiles() -> None:
    design = shaped((100, 100, 100))
    plan = Plan(design, workers=2)
    plan.take()
    found = [plan.take(seconds=1e-5, workers=2) for _ in range(6)]
    assert all(len(block.ranges) <= 600 for block in found)
    indices = np.concatenate([block.indices() for block in found])
    for dimension in (0, 1):
        counts = np.bincount(design.parts[0].rows(indices, dimension), minlength=100)
        assert counts.min() * 3 >= counts.max()


def test_a_probe_of_dear_points_comes_back_in_order() -> None:
    plan = Plan(shaped((1000,)), workers=1)
    probe = plan.take()
    done, rest = probe.split(1)
    plan.give_back(rest)
    found = [plan.take(seconds=1.0).indices()[0] for _ in range(15)]
    assert np.diff(np.sort([*found, *done.indices()])).max() <= 130


def test_other_orders() -> None:
    design = shaped((5, 4))

    def order(name: str, **more: Any) -> list[int]:
        return np.concatenate(
            [block.indices() for block in drain(Plan(design, order=name, **more), seconds=9.0)]
        ).tolist()

    assert order("listed") == list(range(20))
    assert order("longest-first") == list(range(20))[::-1]
    costs = np.arange(20.0) % 7
    assert [costs[index] for index in order("longest-first", costs=costs)] == sorted(costs, reverse=True)
    assert order("random", seed=1) == order("random", seed=1) != order("random", seed=2)
    with pytest.raises(OptionError, match="no order 'fast'"):
        Plan(design, order="fast")


# Sizes


def test_blocks_take_half_a_second_and_shrink_at_the_end() -> None:
    plan = Plan(shaped((100, 100)), workers=2)
    plan.take()
    sizes = [block.count for block in drain(plan, seconds=0.001, workers=2)]
    assert 450 <= max(sizes) <= 500
    assert sizes[-1] <= 25
    assert len(sizes) < 200


def test_unknown_points_are_probed_in_blocks_for_every_worker() -> None:
    plan = Plan(shaped((8,)), workers=2)
    assert [plan.take().count for _ in range(2)] == [4, 4]
    many = Plan(shaped((70,)), workers=64)
    assert all(many.take() is not None for _ in range(64))
    assert Plan(shaped((1,)), workers=64).take().count == 1
    assert Plan(shaped((1000, 1000)), workers=2).take().count <= 4096


def test_large_outcomes_make_small_blocks() -> None:
    plan = Plan(shaped((1000,)), workers=2)
    plan.take()
    assert plan.take(seconds=1e-6, nbytes=4e6, workers=2).count == 4
    assert plan.take(seconds=1e-6, nbytes=1e9, workers=2).count == 1


def test_many_workers_get_longer_blocks() -> None:
    plan = Plan(shaped((1000, 1000)), workers=1000)
    plan.take()
    for _ in range(10):
        block = plan.take(seconds=0.01, workers=1000)
    assert block.count * 0.01 > 1000 / 650


def test_blocks_grow_step_by_step() -> None:
    plan = Plan(shaped((10**6,)), workers=64)
    first = plan.take(seconds=None, workers=64)
    plan.give_back(first.split(10)[1])
    assert plan.take(seconds=1e-7, workers=64).count <= 16 * first.count


# Setup


def test_a_slot_keeps_its_prefix() -> None:
    design = shaped((10, 1000))
    plan = Plan(design, prefix=1000, workers=2)
    owners: dict[str, set[int]] = {"a": set(), "b": set()}
    takers: dict[int, set[str]] = {}
    turn = 0
    while plan.remaining:
        slot = "ab"[turn % 2]
        turn += 1
        prefix = int(plan.take(seconds=0.005, slot=slot, workers=2).indices()[0]) // 1000
        owners[slot].add(prefix)
        takers.setdefault(prefix, set()).add(slot)
    assert sum(len(slots) for slots in takers.values()) <= 12
    assert len(owners["a"]) >= 4


def test_prefixes_come_in_bit_reversed_order() -> None:
    plan = Plan(shaped((8, 10)), prefix=10, workers=1)
    order = [int(block.indices()[0]) // 10 for block in drain(plan, seconds=1.0, slot=0)]
    assert list(dict.fromkeys(order)) == [0, 4, 2, 6, 1, 5, 3, 7]


@pytest.mark.parametrize(("setup", "passes"), [(0.001, 8), (1.0, 1)])
def test_prefixes_are_visited_in_passes_only_where_setup_is_cheap(setup: float, passes: int) -> None:
    plan = Plan(shaped((4, 800)), prefix=800, workers=1)
    visits = [int(block.indices()[0]) // 800 for block in drain(plan, seconds=0.01, setup=setup, slot=0)]
    changes = 1 + int(np.count_nonzero(np.diff(visits)))
    # Each visit sets the prefix up again: at most a tenth of the computing time may go there.
    assert (changes - 4) * setup <= 0.11 * 3200 * 0.01
    assert passes * 4 - 6 <= changes <= passes * 4


def test_listed_order_makes_no_passes() -> None:
    blocks = drain(Plan(shaped((4, 800)), prefix=800, order="listed"), seconds=0.01, setup=0.001, slot=0)
    assert np.concatenate([block.indices() for block in blocks]).tolist() == list(range(3200))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="todo has shape"):
        Plan(shaped((3,)), np.ones(4, dtype=bool))
    with pytest.raises(ValueError, match="no setup has 5 points"):
        Plan(shaped((3, 2)), prefix=5)
    assert Plan(shaped((3,)), np.zeros(3, dtype=bool)).take() is None


# Speed


def test_a_million_and_ten_million_points() -> None:
    start = time.perf_counter()
    taken = drain(Plan(shaped((100, 100, 100)), workers=2), seconds=1e-6)
    assert time.perf_counter() - start < 10
    assert len(taken) < 100
    assert sum(len(block.ranges) for block in taken) < 50_000
    start = time.perf_counter()
    assert len(drain(Plan(shaped((1000, 100, 100)), workers=2), seconds=1e-6)) < 150
    assert time.perf_counter() - start < 20


# Preview


def test_preview_counts() -> None:
    design = grid(a=range(5), b=[1, 2]).where("a > 0")
    mask = design.mask()
    fresh = preview(design, mask, None)
    assert (fresh.points, fresh.new, fresh.reused, fresh.stale, fresh.skipped) == (8, 8, 0, 0, 2)
    assert (fresh.first, fresh.last) == ({"a": 1, "b": 1}, {"a": 4, "b": 2})
    status = np.zeros(10, dtype=np.uint8)
    status[[2, 3, 4]] = [2, 3, 1]
    stale = np.zeros(10, dtype=bool)
    stale[[2, 5, 6]] = True
    seen = preview(design, mask, SimpleNamespace(status=status, stale=stale))
    assert (seen.points, seen.new, seen.reused, seen.stale) == (8, 4, 2, 2)
    assert seen.first == {"a": 2, "b": 1}
    status[:] = 2
    assert preview(design, None, SimpleNamespace(status=status, stale=stale)).first is None
