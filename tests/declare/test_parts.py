import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.columns import axis_from
from mce_notebook.declare.grid import grid
from mce_notebook.declare.parts import Part, constant_key, pieces
from mce_notebook.errors import GridError


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_pieces_are_few_and_make_up_the_range(sizes: list[int], data: st.DataObject) -> None:
    lists = [list(range(size)) for size in sizes]
    stop = data.draw(st.integers(0, math.prod(sizes)))
    start = data.draw(st.integers(0, stop))
    found = list(pieces(lists, start, stop))
    assert len(found) <= 2 * len(lists) - 1
    points = itertools.chain.from_iterable(itertools.product(*piece) for piece in found)
    assert list(points) == list(itertools.product(*lists))[start:stop]


def test_strides_rows_and_labels() -> None:
    part = grid(a=[1, 2], b=["x", "y", "z"]).parts[0]
    assert (part.shape, part.strides, part.size) == ((2, 3), (3, 1), 6)
    assert part.labels_at(4) == {"a": 2, "b": "y"}
    assert list(part.span(2, 5, ("b", "missing", "a"))) == [("z", None, 1), ("x", None, 2), ("y", None, 2)]
    assert list(part.span(2, 5, ())) == [(), (), ()]


def test_constants_are_added_unless_they_are_axes() -> None:
    assert constant_key({}, ()).tolist() == [0, 0]
    assert constant_key({"a": 1, "b": 2}, ("b",)).tolist() == constant_key({"a": 1.0}, ()).tolist()


def test_grids_that_cannot_be_numbered_are_refused() -> None:
    axes = tuple(axis_from(f"x{number}", range(10**4)) for number in range(4))
    with pytest.raises(GridError, match="more than can be numbered"):
        Part(axes)
