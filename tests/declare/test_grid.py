import collections
import itertools
import pickle
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Grid, Status, grid, zipped
from mce_notebook.declare.values import canonical
from mce_notebook.errors import GridError
from tests.declare.grids import listed_points, products


@settings(deadline=None)
@given(products(), st.data())
def test_points_are_those_of_nested_loops(design: Grid, data: st.DataObject) -> None:
    expected = [tuple(point[name] for name in design.names) for point in listed_points(design)]
    assert design.size == len(expected)
    assert list(map(repr, design.points())) == list(map(repr, expected))
    start = data.draw(st.integers(0, design.size))
    stop = data.draw(st.integers(start, design.size + 3))
    assert list(map(repr, design.points(start, stop))) == list(map(repr, expected[start:stop]))
    indices = data.draw(st.lists(st.integers(0, design.size - 1), max_size=20))
    assert list(map(repr, design.points_at(indices))) == [repr(expected[index]) for index in indices]


@settings(deadline=None, max_examples=50)
@given(products(2), products(2), st.data())
def test_points_of_concatenated_grids(first: Grid, second: Grid, data: st.DataObject) -> None:
    design = first + second
    expected = [tuple(point.get(name) for name in design.names) for point in listed_points(design)]
    assert list(map(repr, design.points())) == list(map(repr, expected))
    indices = data.draw(st.lists(st.integers(0, design.size - 1), max_size=20))
    assert list(map(repr, design.points_at(indices))) == [repr(expected[index]) for index in indices]
    ranges = [(0, min(3, design.size)), (design.size // 2, design.size)]
    assert list(map(repr, design.points_in(ranges))) == [
        repr(expected[index]) for start, stop in ranges for index in range(start, stop)
    ]


def test_points_match_itertools_at_every_range() -> None:
    lists = [[1, 2, 3], "ab", [0.5], range(4)]
    design = grid(a=lists[0], b=list(lists[1]), c=lists[2], d=lists[3])
    expected = list(itertools.product(*lists))
    for start in range(25):
        for stop in range(start, 25):
            assert list(design.points(start, stop)) == expected[start:stop]


def test_the_last_axis_is_fastest_and_names_follow() -> None:
    design = grid(n=[1, 2], rho=[0.1, 0.5]) * zipped(a=[1, 2], b=["x", "y"])
    assert design.names == ("n", "rho", "a", "b")
    assert design.point(1) == {"n": 1, "rho": 0.1, "a": 2, "b": "y"}
    assert design.prefixes(0) == 8
    assert design.prefixes(1) == 4
    assert design.prefixes(3) == 1
    assert design.names_below(0, 1) == ("rho", "a", "b")
    assert "n (2) x rho (2) x a/b (2)" in repr(design)


def test_parts_without_a_name_give_none() -> None:
    design = grid(a=[1]) + grid(b=["x"], a=[2])
    assert design.names == ("a", "b")
    assert list(design.points()) == [(1, None), (2, "x")]
    assert design.point(0) == {"a": 1}


def test_points_outside_are_refused() -> None:
    with pytest.raises(GridError, match="no point 3; the grid lists points 0 to 2"):
        grid(a=[1, 2, 3]).point(3)


# Keys


@settings(deadline=None)
@given(products(3))
def test_keys_are_sums_of_hashes(design: Grid) -> None:
    import hashlib

    keys = design.keys(slice(None))
    for row, point in zip(keys.tolist(), listed_points(design), strict=True):
        total = sum(
            int.from_bytes(hashlib.blake2b(name.encode() + b"\0" + canonical(value), digest_size=16).digest(), "little")
            for name, value in point.items()
        )
        assert row[0] | row[1] << 64 == total % 2**128


@settings(deadline=None)
@given(products(3), st.data())
def test_a_constant_can_become_an_axis_and_back(design: Grid, data: st.DataObject) -> None:
    constant = data.draw(st.sampled_from([1, 2.5, "x", None, True]))
    fixed = design.keys(slice(None), constants={"z": constant})
    assert (fixed == (grid(z=[constant]) * design).keys(slice(None))).all()
    assert (fixed == (design * grid(z=[constant])).keys(slice(None))).all()
    assert (design.keys(slice(None), without={"z"}, constants={"z": constant}) == design.keys(slice(None))).all()


def test_keys_do_not_mind_order_types_or_neighbours() -> None:
    one = grid(a=[1, 2], b=[0.5, 1.0])
    other = grid(b=np.array([1, 0.5]), a=[3.0, 2, 1])
    positions = other.positions(one)
    assert (other.keys(positions) == one.keys(slice(None))).all()
    assert (one.keys(np.array([3, 0])) == one.keys(slice(None))[[3, 0]]).all()
    assert (one.keys(slice(None), without={"b"})[0] == one.keys(slice(None), without={"b"})[1]).all()


def test_long_axes_are_hashed_where_they_are_looked_at() -> None:
    design = grid(a=range(200_000))
    few = design.keys(np.array([150_000, 3, 199_999]))
    assert (few == design.keys(slice(None))[[150_000, 3, 199_999]]).all()
    assert (grid(a=[150_000]).keys(slice(None)) == few[:1]).all()


def test_keys_of_parts_count_missing_names_as_none() -> None:
    design = grid(a=[1]) + grid(a=[1], b=[None, 2])
    keys = design.keys(slice(None))
    assert (keys[0] == keys[1]).all()
    assert not (keys[0] == keys[2]).all()


# Size


def test_ten_million_points_stay_small() -> None:
    tracemalloc.start()
    try:
        design = grid(a=range(1000), b=np.linspace(0, 1, 100), c=list(range(100)))
        mask = design.where("a * b > c").mask()
        assert mask is not None
        consumed = collections.deque(design.points(4_000_000, 4_300_000), 1)
        assert consumed[0] == (429, np.linspace(0, 1, 100)[99], 99)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_a_million_points_are_quick() -> None:
    design = grid(a=range(100), b=np.linspace(0, 1, 100), c=list(range(100)))
    start = time.perf_counter()
    collections.deque(design.points(), 0)
    collections.deque(design.points_at(np.random.default_rng(0).permutation(10**6)), 0)
    design.keys(slice(None))
    assert time.perf_counter() - start < 10


def test_grids_travel() -> None:
    design = (grid(a=range(3), b=[0.5, None]) * zipped(c=[1, 2], d=["x", "y"])).where("a > 0")
    design.keys(slice(None))
    design.mask()
    again = pickle.loads(pickle.dumps(design))
    assert list(again.points()) == list(design.points())
    assert (again.mask() == design.mask()).all()
    assert (again.keys(slice(None)) == design.keys(slice(None))).all()


def test_status_codes_never_change() -> None:
    assert [(status.name, int(status)) for status in Status] == [
        ("PENDING", 0),
        ("RUNNING", 1),
        ("DONE", 2),
        ("FAILED", 3),
        ("KILLED", 4),
        ("TIMEOUT", 5),
        ("SKIPPED", 6),
        ("STALE", 7),
    ]


def test_a_grid_is_no_axis() -> None:
    with pytest.raises(GridError, match="multiply grids instead"):
        grid(a=grid(b=[1]))
    with pytest.raises(GridError, match="whole number of repetitions"):
        grid(replicates="many")
