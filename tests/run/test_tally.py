"""Counts of safe outcomes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.declare.grid import Status
from mce_notebook.run.tally import Tally, covered, spans

CODES = [Status.DONE, Status.FAILED, Status.KILLED, Status.TIMEOUT, Status.SKIPPED]


def test_counts_by_range_and_by_index() -> None:
    tally = Tally(np.zeros(10, np.uint8), 10)
    tally.add(slice(0, 4))
    tally.add(np.array([5, 7]), bytes([Status.FAILED, Status.SKIPPED]))
    assert (tally.done, tally.failed, tally.total) == (5, 1, 10)
    assert tally.rate() > 0


def test_points_that_are_not_in_the_grid_are_left_out() -> None:
    tally = Tally(np.zeros(3, np.uint8), 3)
    tally.add(np.array([-1, 2, -1]), bytes([Status.DONE, Status.KILLED, Status.DONE]))
    assert (tally.done, tally.failed) == (0, 1)


def test_a_good_outcome_is_not_hidden_by_a_failure() -> None:
    tally = Tally(np.zeros(1, np.uint8), 1)
    tally.add(slice(0, 1), bytes([Status.FAILED]))
    tally.add(slice(0, 1))
    tally.add(slice(0, 1), bytes([Status.KILLED]))
    assert (tally.done, tally.failed) == (1, 0)


@given(st.lists(st.tuples(st.integers(0, 19), st.sampled_from(CODES)), max_size=60))
def test_counts_are_those_of_the_best_outcome_of_each_point(records: list[tuple[int, Status]]) -> None:
    tally = Tally(np.zeros(20, np.uint8), 20)
    best: dict[int, Status] = {}
    for point, code in records:
        tally.add(np.array([point]), bytes([code]))
        best[point] = Status.DONE if Status.DONE in (code, best.get(point)) else code
    good = (Status.DONE, Status.SKIPPED)
    assert tally.done == sum(code in good for code in best.values())
    assert tally.failed == sum(code not in good for code in best.values())


def test_covers_are_ranges_or_lists() -> None:
    assert covered({"start": 3, "count": 4, "index": None}) == slice(3, 7)
    listed = np.array([9, 2], np.int64)
    assert np.array_equal(covered({"index": listed.tobytes(), "start": None, "count": 2}), listed)


def test_spans_are_plain_numbers_and_few() -> None:
    assert spans([(np.int64(1), np.int64(3))]) == [[1, 3]]
    assert len(spans([(i, i + 1) for i in range(1000)])) == 64
