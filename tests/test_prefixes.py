"""Where setup prefixes of any lengths begin."""

from typing import Any

import numpy as np

from mce_notebook.declare.axes import Axis
from mce_notebook.declare.columns import coordinate
from mce_notebook.declare.grid import Grid, grid
from mce_notebook.declare.parts import Part
from mce_notebook.order import Ordering
from mce_notebook.prefixes import Prefixes, fitted, group_codes


def test_rows_are_grouped_by_outer_values() -> None:
    def codes(*columns: list[Any]) -> list[int]:
        axis = Axis(tuple(coordinate(f"c{at}", column) for at, column in enumerate(columns)), "table")
        found: list[int] = group_codes(axis, [f"c{at}" for at in range(len(columns) - 1)]).tolist()
        return found

    assert codes([5, 5, 2, 2, 2], list(range(5))) == [0, 0, 1, 1, 1]
    assert codes([5, 2, 5, 7, 2], list(range(5))) == [0, 1, 0, 2, 1]
    assert codes(["u", "u", "v"], [True, False, False], [1, 2, 3]) == [0, 1, 2]
    assert codes([1, 1, 2, 2, 1], [0.5, 0.5, 0.5, 1.5, 0.5], list(range(5))) == [0, 0, 1, 2, 0]
    nan = float("nan")
    assert codes([nan, nan, 1.0, nan], list(range(4))) == [0, 0, 1, 0]
    # Mixed labels may look alike.
    assert codes([1, "1", None, 1], list(range(4))) == [0, 1, 2, 0]
    assert codes([3], [1]) == [0]


def table(*columns: list[Any]) -> Axis:
    return Axis(tuple(coordinate(name, column) for name, column in zip("nkj", columns, strict=False)), "table")


def prefixes(points: Grid, *levels: tuple[int, tuple[str, ...]], order: str = "coarse") -> Prefixes:
    todo = np.ones(points.size, dtype=np.bool_)
    return Prefixes(points.parts[0], 0, todo, Ordering(order, 0), levels)


def test_prefixes_have_unequal_lengths() -> None:
    points = Grid((Part((table([1, 1, 1, 2], [0, 1, 2, 0]), *grid(b=range(5)).parts[0].axes)),))
    found = prefixes(points, (0, ("n",)))
    assert (found.count, found.totals.tolist()) == (2, [15, 5])
    assert found.number(np.array([0, 14, 15, 19])).tolist() == [0, 0, 1, 1]
    assert [block.ranges for block in found.whole(np.array([1]))] == [((15, 20),)]


def test_rows_that_were_added_later_join_their_group() -> None:
    points = Grid((Part((table([1, 2, 1, 2, 1], [0, 0, 1, 1, 2]), *grid(b=range(2)).parts[0].axes)),))
    found = prefixes(points, (0, ("n",)))
    assert found.totals.tolist() == [6, 4]
    assert [block.ranges for block in found.whole(np.array([1]))] == [((2, 4), (6, 8))]
    numbers, counts = found.restore(np.array([2, 3, 7]))
    assert (numbers.tolist(), counts.tolist()) == ([1], [3])
    # In listed order they stay where they are.
    assert prefixes(points, (0, ("n",)), order="listed").totals.tolist() == [2, 2, 2, 2, 2]


def test_inner_prefixes_follow_each_other_inside_outer_ones() -> None:
    points = Grid((Part((table([1, 1, 1, 2, 2], [0, 0, 1, 0, 1], [0, 1, 0, 0, 0]),)),))
    found = prefixes(points, (0, ("n",)), (0, ("n", "k")))
    assert found.totals.tolist() == [2, 1, 1, 1]
    numbers, families = found.order()
    assert sorted(numbers.tolist()) == [0, 1, 2, 3]
    assert [number // 2 for number in numbers.tolist()] == families.tolist()
    assert len(set(np.flatnonzero(np.diff(families)).tolist())) == 1


def test_a_part_with_other_axes_has_finer_prefixes_never_coarser_ones() -> None:
    ragged = Part((table([1, 1, 2], [0, 1, 0]),))
    assert fitted(ragged, (0, ("n",))) == (0, ("n",))
    assert fitted(ragged, (0, ("n", "k"))) == (1, ())
    product = grid(k=[0, 1], n=[1, 2], b=[5]).parts[0]
    assert fitted(product, (0, ("n",))) == (2, ())
    assert fitted(product, (1, ())) == (1, ())
    assert fitted(product, (0, ("other",))) == (0, ())
