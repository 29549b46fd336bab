import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.axes import Axis, Coordinate
from mce_notebook.declare.columns import axis_from
from mce_notebook.declare.designs import star
from mce_notebook.declare.grid import Grid, Part, grid, zipped
from mce_notebook.declare.values import canonical
from tests.declare.grids import axis_values, listed_points, products

few = st.sampled_from([0, 1, 2, 2.0, 0.5, "1", None, True, (1, 2)])
small = products(3, names=("a", "b", "c"), values=axis_values(4, few))
constants = st.dictionaries(st.sampled_from(["a", "b", "c", "z"]), st.sampled_from([0, 1, 2, None, "1"]), max_size=2)


def identity(point: dict, given: dict, names: tuple[str, ...]) -> frozenset:
    full = {**{name: value for name, value in given.items() if name not in names}, **dict.fromkeys(names), **point}
    return frozenset((name, canonical(value)) for name, value in full.items())


def brute_force(ours: Grid, other: Grid, given: dict, other_given: dict) -> list[int]:
    mask = ours.mask() if len(ours.parts) > 1 else None
    known: dict = {}
    for index, point in enumerate(listed_points(ours)):
        key = identity(point, given, ours.names)
        if key not in known or (mask is not None and not mask[known[key]] and mask[index]):
            known[key] = index
    return [known.get(identity(point, other_given, other.names), -1) for point in listed_points(other)]


@settings(deadline=None, max_examples=100)
@given(small, small, constants, constants)
def test_products_match_as_point_by_point(ours: Grid, other: Grid, given: dict, other_given: dict) -> None:
    found = ours.positions(other, given, other_given)
    assert found.dtype == np.int64
    assert found.tolist() == brute_force(ours, other, given, other_given)


@settings(deadline=None, max_examples=50)
@given(small, small, small, small)
def test_concatenations_match_as_point_by_point(a: Grid, b: Grid, c: Grid, d: Grid) -> None:
    assert (a + b).positions(c + d).tolist() == brute_force(a + b, c + d, {}, {})


def test_tables_match_products_and_zips() -> None:
    ragged = Grid((Part((axis_from(("n", "k"), [(n, k) for n in range(5) for k in range(n)], kind="table"),)),))
    full = grid(n=range(5), k=range(5))
    assert full.positions(ragged).tolist() == [full.index(n=n, k=k) for n in range(5) for k in range(n)]
    found = ragged.positions(full)
    assert [index for index in found.tolist() if index >= 0] == list(range(10))
    assert zipped(k=[0, 1], n=[1, 2]).positions(ragged).tolist() == [0, -1, 1, *[-1] * 7]
    assert full.positions(star({"n": 1, "k": 1}, n=[0, 9], k=[2])).tolist() == [6, 1, -1, 7]


def test_missing_values_match() -> None:
    assert grid(a=[1.0, np.nan]).positions(grid(a=[np.nan, 2.0, 1.0])).tolist() == [1, -1, 0]
    assert grid(a=[1, None]).positions(grid(a=[None, 1.0])).tolist() == [1, 0]
    whens = np.array(["2020-01-01", "NaT"], dtype="M8[D]")
    assert grid(a=whens).positions(grid(a=whens[::-1].astype("M8[ns]"))).tolist() == [1, 0]


def test_numbers_match_across_types_but_bools_do_not() -> None:
    assert grid(a=[1, 2]).positions(grid(a=np.array([2.0, 0.5, 1.0]))).tolist() == [1, -1, 0]
    assert grid(a=[1, 0]).positions(grid(a=[True, False])).tolist() == [-1, -1]
    assert grid(a=[1, 0]).positions(grid(a=[True, 1])).tolist() == [-1, 0]


def test_axes_turn_into_constants_and_back() -> None:
    old = grid(n=[1, 2, 3])
    new = grid(n=[2, 3, 4], rho=[0.5, 0.7])
    assert old.positions(new, {"rho": 0.5}).tolist() == [1, -1, 2, -1, -1, -1]
    assert new.positions(old, {}, {"rho": 0.7}).tolist() == [-1, 1, 3]
    assert old.positions(new, {"rho": 0.5, "z": 1}, {"z": 1.0}).tolist() == [1, -1, 2, -1, -1, -1]
    assert old.positions(new, {"rho": 0.5, "z": 1}, {"z": 2}).tolist() == [-1] * 6
    assert old.positions(new, {"rho": 0.5, "z": 1}).tolist() == [-1] * 6
    assert old.positions(new).tolist() == [-1] * 6


def test_labels_alone_suffice() -> None:
    full = grid(f=[abs, len], n=[1, 2])
    columns = [column for axis in full.parts[0].axes for column in axis.coordinates]
    bare = Grid((Part(tuple(Axis((Coordinate(c.name, None, c.labels, c.kind, c.typed),)) for c in columns)),))
    assert bare.positions(full).tolist() == [0, 1, 2, 3]


def test_extending_a_million_points_is_quick() -> None:
    old = grid(a=range(100), b=np.linspace(0, 1, 100), c=list(range(100)))
    new = grid(a=range(150), b=np.linspace(0, 1, 100), c=list(range(100)))
    start = time.perf_counter()
    found = old.positions(new)
    assert time.perf_counter() - start < 3
    assert (found[: 10**6] == np.arange(10**6)).all()
    assert (found[10**6 :] == -1).all()
    assert (new.positions(old) == np.arange(10**6)).all()


def test_a_long_irregular_grid_matches_by_keys() -> None:
    rng = np.random.default_rng(1)
    rows = np.unique(rng.integers(0, 300, (50_000, 2)), axis=0)
    table = Grid((Part((axis_from(("a", "b"), rows.tolist(), kind="table"),)),))
    full = grid(a=range(300), b=range(300))
    assert (full.positions(table) == rows[:, 0] * 300 + rows[:, 1]).all()


@pytest.mark.parametrize("other", [grid(b=[1]), grid(a=["1"]), grid(a=[2], b=[1])])
def test_nothing_in_common(other: Grid) -> None:
    assert (grid(a=[1]).positions(other) == -1).all()
