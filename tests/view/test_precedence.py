import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.view.precedence import Precedence, Source

records = st.lists(
    st.tuples(
        st.booleans(),  # current
        st.integers(0, 2),  # recency
        st.integers(0, 2),  # generation
        st.integers(1, 3),  # epoch
        st.booleans(),  # good
        st.integers(0, 3),  # first cell
        st.integers(1, 3),  # cells
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(records)
def test_what_is_shown_does_not_depend_on_the_order_of_reading(made):
    batches = []
    for offset, (current, recency, generation, epoch, good, first, count) in enumerate(made):
        source = Source(current, 0 if current else recency, generation, (epoch, 0, offset))
        batches.append((source, good, np.arange(first, first + count)))
    shown = set()
    for order in itertools.permutations(batches):
        precedence = Precedence(8)
        for source, good, cells in order:
            precedence.admit(cells, good, source)
        shown.add(tuple(precedence.sources[n].order if n >= 0 else None for n in precedence.source))
    assert len(shown) == 1
    (result,) = shown
    for cell, order in enumerate(result):
        there = [(s, good) for s, good, cells in batches if cell in cells]
        if not there:
            assert order is None
            continue
        best = min(there, key=lambda r: (not r[0].current, -r[0].recency, -r[0].generation, not r[1], r[0].order))
        assert order == best[0].order


def test_ranges_and_lists_of_cells_mean_the_same():
    for where in (slice(2, 5), np.array([2, 3, 4])):
        precedence = Precedence(6)
        source = Source(True, 0, 0, (1, 0, 0))
        assert precedence.admit(where, True, source) == (None, True)
        won, fresh = precedence.admit(where, np.array([False, True, True]), Source(True, 0, 1, (1, 0, 9)))
        assert won.tolist() == [True, True, True]
        assert not fresh
        assert precedence.good.tolist() == [False, False, False, True, True, False]
