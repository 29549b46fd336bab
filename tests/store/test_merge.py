import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Status
from mce_notebook.store.merge import Source, Standing

DONE, FAILED = int(Status.DONE), int(Status.FAILED)

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
        source = Source(current, 0 if current else recency, generation, (epoch, 0, 8 * offset))
        batches.append((source, good, np.arange(first, first + count)))
    shown = set()
    for order in itertools.permutations(batches):
        standing = Standing(8)
        for source, good, cells in order:
            standing.admit(cells, np.full(len(cells), DONE if good else FAILED, np.uint8), source)
        shown.add(tuple(standing.sources[n].order if n >= 0 else None for n in standing.source))
    assert len(shown) == 1
    (result,) = shown
    for cell, order in enumerate(result):
        # Failures of other versions say nothing about the code as it is now.
        there = [(s, good) for s, good, cells in batches if cell in cells and (good or s.current)]
        if not there:
            assert order is None
            continue
        best = min(there, key=lambda r: (not r[0].current, -r[0].recency, -r[0].generation, not r[1], r[0].order))
        assert order == best[0].order


def test_ranges_and_lists_of_points_mean_the_same():
    for where in (slice(2, 5), np.array([2, 3, 4])):
        standing = Standing(6)
        source = Source(True, 0, 0, (1, 0, 0))
        assert standing.admit(where, None, source) == (None, True)
        status = np.array([FAILED, DONE, DONE], np.uint8)
        counts, fresh = standing.admit(where, status, Source(True, 0, 1, (1, 0, 16)))
        assert counts.tolist() == [True, True, True]
        assert not fresh
        assert standing.good.tolist() == [False, False, False, True, True, False]


def test_points_that_are_not_there_are_passed_over():
    standing = Standing(3)
    counts, fresh = standing.admit(np.array([-1, 2, -1]), None, Source(True, 0, 0, (1, 0, 0)))
    assert (counts.tolist(), fresh, standing.source.tolist()) == ([False, True, False], True, [-1, -1, 0])
    counts, _ = standing.admit(np.array([0, 1]), np.array([FAILED, FAILED], np.uint8), Source(False, 1, 0, (1, 0, 8)))
    assert not counts.any()
    assert standing.generations().tolist() == [-1, -1, 0]


def test_a_frame_behind_one_of_gigabytes_keeps_its_place():
    far = Source(True, 0, 0, (1, 0, 20 << 30))
    assert Source(True, 0, 0, (1, 0, 0)).place < far.place < Source(True, 0, 0, (1, 1, 0)).place
    assert Source(True, 0, 0, (1, (1 << 14) - 1, 0)).place < Source(True, 0, 0, (2, 0, 0)).place
    assert Source(True, 0, 0, ((1 << 17) - 1, 0, 0)).place < 2**63
