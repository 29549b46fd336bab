"""Random grids and brute-force answers for the tests of grids and plans."""

import datetime as dt
import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mce_notebook.declare.grid import Grid, grid, zipped

NAMES = ("a", "b", "c", "d", "e")

scalars = st.one_of(
    st.integers(-5, 5),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, width=32).map(float),
    st.booleans(),
    st.none(),
    st.text(alphabet="abμ x1", max_size=4),
    st.sampled_from([np.float64(0.25), np.int64(3), np.float32(1.5), np.bool_(True), 1 + 2j]),
    st.tuples(st.integers(0, 3), st.text(alphabet="xy", max_size=2)),
    st.dates(),
    st.datetimes().map(lambda when: when.replace(fold=0)),
)


def same(left: Any, right: Any) -> bool:
    """Return whether two values are one label: equal, of the same sort (bools are no numbers)."""
    truths = (bool, np.bool_)
    if isinstance(left, truths) or isinstance(right, truths):
        return isinstance(left, truths) and isinstance(right, truths) and bool(left) == bool(right)
    if isinstance(left, dt.date) and isinstance(right, dt.date):
        return midnight(left) == midnight(right)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return (type(left) is type(right) or (is_number(left) and is_number(right))) and bool(left == right)


def midnight(value: dt.date) -> dt.datetime:
    return value if isinstance(value, dt.datetime) else naive(value.year, value.month, value.day)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | np.number) and not isinstance(value, bool)


def distinct(values: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if not any(same(value, other) for other in kept):
            kept.append(value)
    return kept


def axis_values(most: int = 5, elements: st.SearchStrategy[Any] = scalars) -> st.SearchStrategy[Any]:
    lists = st.lists(elements, min_size=1, max_size=most).map(distinct)
    return st.one_of(
        lists,
        st.integers(1, most).map(range),
        st.integers(1, most).map(lambda n: np.linspace(0.1, 1, n)),
        st.integers(1, most).map(lambda n: np.arange(n)),
    )


@st.composite
def products(draw: Any, most_axes: int = 4, names: tuple[str, ...] = NAMES, values: Any = None) -> Grid:
    """Draw a product of plain and zipped axes, sometimes with a guard, and the columns behind it."""
    wanted = draw(st.permutations(names).map(lambda found: found[: draw(st.integers(1, most_axes))]))
    factors: list[Grid] = []
    while wanted:
        if len(wanted) > 1 and draw(st.integers(0, 3)) == 0:
            size = draw(st.integers(1, 4))
            first = list(range(size))
            second = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
            factors.append(zipped(**{wanted[0]: first, wanted[1]: second}))
            wanted = wanted[2:]
        else:
            factors.append(grid(**{wanted[0]: draw(values if values is not None else axis_values())}))
            wanted = wanted[1:]
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return product


def listed_points(design: Grid) -> list[dict[str, Any]]:
    """Return every listed point as a dict, by nested loops over rows of axes."""
    found = []
    for part in design.parts:
        rows = [
            [
                dict(zip(axis.names, row, strict=True))
                for row in zip(*(column.listed for column in axis.coordinates), strict=True)
            ]
            for axis in part.axes
        ]
        for combination in itertools.product(*rows):
            found.append({name: value for row in combination for name, value in row.items()})
    return found


def naive(*parts: int) -> dt.datetime:
    """Return a time without a zone, as people write them."""
    return dt.datetime(*parts)  # noqa: DTZ001
