"""Elements of arrays over points, by slice, by runs and one by one: all give the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.store.spans import Spans, Table, indices_of, put, take, tallied


@st.composite
def spans(draw):
    edges = sorted(draw(st.sets(st.integers(0, 60), max_size=12)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return Spans(tuple(draw(st.permutations(pairs))))


@given(spans())
def test_runs_are_what_their_indices_are(where):
    array = np.arange(100.0)
    assert where.size == len(where.listed) == len(indices_of(where))
    assert take(array, where).tolist() == array[where.listed].tolist()
    assert Spans.of(where.flat).pairs == where.pairs


@given(spans(), st.booleans(), st.booleans())
def test_values_are_put_where_indices_say(where, table, single):
    shape = (100, 3) if table else (100,)
    value = np.arange(3.0) if table else 7.0
    values = value if single else np.arange(float(where.size * (3 if table else 1))).reshape(where.size, *shape[1:])
    one, other = np.zeros(shape), np.zeros(shape)
    put(one, where, values)
    other[where.listed] = values
    assert (one == other).all()


@given(spans(), st.integers(1, 400))
def test_long_runs_are_put_as_short_ones_are(where, length):
    long = Spans(tuple((start * length, stop * length) for start, stop in where.pairs))
    array, values = np.zeros(61 * length), np.arange(float(long.size))
    put(array, long, values)
    assert (take(array, long) == values).all()
    assert (array[long.listed] == values).all()


@given(spans(), st.permutations(range(6)), st.integers(0, 400), st.booleans(), st.data())
def test_a_table_says_of_runs_what_it_says_of_their_indices(where, order, length, hole, data):
    """Pieces of any length put in another order, as extending a grid does."""
    pieces = [np.arange(one * 1000, one * 1000 + 10 + length) for one in order]
    places = np.concatenate(pieces)
    if hole:
        places[data.draw(st.integers(0, places.size - 1))] = -1
    table = Table(places)
    assert table.complete is not hole
    inside = Spans(tuple((start, min(stop, places.size)) for start, stop in where.pairs if start < places.size))
    assert indices_of(table.of(inside)).tolist() == places[inside.listed].tolist()
    part = range(*sorted(data.draw(st.tuples(*[st.integers(0, places.size)] * 2))))
    for index in (part, slice(part.start, part.stop), np.arange(part.start, part.stop)):
        assert indices_of(table.of(index)).tolist() == places[part.start : part.stop].tolist()


def test_what_is_outside_of_a_table_is_nowhere():
    for places in ([5, 6, 7], range(5, 1005)):
        table = Table(np.array(places))
        end = len(places)
        assert indices_of(table.of(range(end - 1, end + 2))).tolist() == [places[-1], -1, -1]
        assert indices_of(table.of(Spans(((0, 1), (end, end + 1))))).tolist() == [5, -1]
        assert indices_of(table.of(np.array([-1, 0]))).tolist() == [-1, 5]
    assert indices_of(Table(np.empty(0, np.int64)).of(range(0))).size == 0


def test_slices_and_lists_are_taken_as_they_are():
    array = np.arange(10)
    put(array, slice(2, 4), 0)
    put(array, np.array([9, 8]), np.array([1, 2]))
    assert array.tolist() == [0, 1, 0, 0, 4, 5, 6, 7, 2, 1]
    assert take(array, np.array([9, 8])).tolist() == [1, 2]
    assert indices_of(slice(3, 5)).tolist() == [3, 4]


def test_a_stop_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        Spans.of([1, 2, 3])


@pytest.mark.parametrize("size", [0, 1, 70_000, 200_000])
def test_codes_are_counted_as_numpy_counts_them(size):
    codes = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    assert (tallied(codes) == np.bincount(codes, minlength=256)).all()
    assert tallied(np.zeros(size, np.uint8))[0] == size
