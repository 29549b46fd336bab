"""Decisions of a running sweep: probes, suspects, verdicts, limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.declare.axes import Axis
from mce_notebook.declare.columns import coordinate
from mce_notebook.declare.grid import Grid, grid
from mce_notebook.declare.parts import Part
from mce_notebook.plan import Block, Plan
from mce_notebook.run.protocol import SLOT_KILLED, BlockResult
from mce_notebook.run.schedule import (
    BLOCK_SECONDS,
    EACH_SECONDS,
    EAGER_SECONDS,
    LOST_TIMES,
    PROBE_SECONDS,
    STILLBORN_TIMES,
    Job,
    Pace,
    Schedule,
    single,
    without,
)


def schedule(size: int = 100, **options: object) -> Schedule:
    return Schedule(Plan(grid(x=range(size)), None), **options)  # type: ignore[arg-type]


def take(found: Schedule) -> Job:
    job = found.next(1)
    assert job is not None
    return job


def result(done: int, *left: Block, **told: object) -> BlockResult:
    return BlockResult([], done, left, seconds=done * 1e-4, nbytes=8 * done, **told)  # type: ignore[arg-type]


def test_the_first_block_is_a_probe_that_stops_early() -> None:
    found = schedule()
    first = take(found)
    assert (first.each, first.budget) == (True, PROBE_SECONDS)
    head, rest = first.block.split(1)
    found.returned(first, result(head.count, rest))
    second = take(found)
    assert (second.each, second.budget) == (False, BLOCK_SECONDS)


def test_slow_points_are_timed_one_by_one_and_long_blocks_wait_in_the_host() -> None:
    found = schedule(pace=Pace(seconds=EACH_SECONDS))
    assert take(found).each
    assert found.eager
    assert not schedule(pace=Pace(seconds=EAGER_SECONDS)).eager


def ragged() -> Schedule:
    axis = Axis((coordinate("n", [1, 2, 2]), coordinate("k", [0, 0, 1])), "table")
    return Schedule(Plan(Grid((Part((axis,)),)), setups=((0, ("n",)),), workers=3), pace=Pace(0.001, 8.0, 5.0))


def test_what_others_have_set_up_is_theirs_as_long_as_they_are_there() -> None:
    found = ragged()
    first, second = found.next(3, "a"), found.next(3, "b")
    assert first is not None
    assert second is not None
    assert [first.block.count, second.block.count] == [1, 2]
    found.put_back(second)
    assert found.next(3, "c") is None
    job = found.next_of(3, ["c", "b"], ["a", "b", "c"])
    assert job is not None
    assert (job.slot, job.block) == ("b", second.block)
    found.put_back(job)
    gone = found.next_of(3, ["c"], ["a", "c"])
    assert gone is not None
    assert (gone.slot, gone.block) == ("c", second.block)


def test_with_nothing_on_its_way_somebody_goes_on() -> None:
    found = ragged()
    for slot in "ab":
        job = found.next(3, slot)
        assert job is not None
        found.put_back(job)
    assert found.next(3, "c") is None
    forced = found.next_of(3, ["c"], ["a", "b", "c"])
    assert forced is not None
    assert forced.slot == "c"
    # As long as that is under way, the others wait for their own.
    assert found.next_of(3, ["d"], ["a", "b", "c", "d"]) is None


def test_setups_of_a_block_count_one_by_one() -> None:
    found = ragged()
    job = take(found)
    found.returned(job, result(job.block.count, setup=3.0))
    assert found.pace.setup == pytest.approx(0.5 * 5.0 + 0.5 * 3.0)
    pace = Pace()
    pace.measured(4, 1.0, 8.0, 0.6, 3)
    assert pace.setup == pytest.approx(0.2)


def test_pace_forgets_by_half() -> None:
    pace = Pace()
    pace.measured(0, 1.0, 1.0)
    assert pace.seconds is None
    pace.measured(10, 10.0, 80.0)
    pace.measured(10, 30.0, 80.0)
    assert (pace.seconds, pace.nbytes) == (2.0, 8.0)


def test_a_point_that_kills_its_slot_travels_alone_and_is_given_up_in_the_end() -> None:
    found = schedule(10)
    job = take(found)
    point = int(job.block.indices()[0])
    rest = without(job.block, point)
    verdicts = found.returned(job, result(0, job.block, lost=True, killed_point=point))
    assert verdicts == []
    for _ in range(LOST_TIMES - 2):
        alone = take(found)
        assert alone.block == single(point)
        assert found.returned(alone, result(0, alone.block, lost=True, killed_point=point)) == []
    alone = take(found)
    (verdict,) = found.returned(alone, result(0, alone.block, lost=True, killed_point=point))
    assert verdict.point == point
    assert "SIGKILL" in verdict.reason
    assert (found.outcomes, found.failures) == (1, 1)
    assert found.remaining == 9
    assert rest


def test_a_lost_block_is_halved_until_the_point_is_known() -> None:
    found = schedule(64, pace=Pace(1e-6, 8.0))
    deadly, sent, verdicts, alive = 13, 0, [], set()
    while (job := found.next(1)) is not None:
        sent += 1
        assert sent < 100
        if deadly in job.block.indices():
            verdicts += found.vanished(job)
        else:
            alive |= set(job.block.indices().tolist())
            found.returned(job, result(job.block.count))
    assert [verdict.point for verdict in verdicts] == [deadly]
    assert alive == set(range(64)) - {deadly}
    assert found.finished


def test_slots_that_do_not_start_blame_no_point() -> None:
    found = schedule(10)
    for times in range(1, STILLBORN_TIMES + 1):
        job = take(found)
        left = BlockResult([], 0, (job.block,), lost=True, reason="no slot could be started: exit status 1")
        assert found.returned(job, left) == []
        assert found.stillborn == times
    assert found.remaining == 10
    job = take(found)
    found.returned(job, result(1, *without(job.block, int(job.block.indices()[0]))))
    assert found.stillborn == 0


def test_more_retries_allow_for_more_losses() -> None:
    found = schedule(1, retries=LOST_TIMES + 2)
    verdicts: list[int] = []
    losses = 0
    while not verdicts:
        verdicts += [verdict.point for verdict in found.vanished(take(found))]
        losses += 1
    assert losses == LOST_TIMES + 3


def test_slots_that_somebody_kills_while_they_start_are_the_fault_of_the_machine() -> None:
    found = schedule(10)
    for _ in range(2 * STILLBORN_TIMES):
        job = take(found)
        left = BlockResult([], 0, (job.block,), lost=True, reason=f"{SLOT_KILLED}: signal 9")
        assert found.returned(job, left) == []
    assert found.stillborn == 0
    assert found.remaining == 10


def test_retries_are_counted_for_each_point() -> None:
    found = schedule(retries=2)
    assert [found.again(7), found.again(7), found.again(7), found.again(8)] == [True, True, False, True]


@pytest.mark.parametrize(
    ("limit", "outcomes", "failures", "stops"),
    [
        (None, 100, 100, False),
        (0, 5, 1, True),
        (0, 5, 0, False),
        (3, 100, 3, False),
        (3, 4, 4, True),
        (0.2, 10, 10, False),
        (0.2, 20, 5, True),
        (0.2, 100, 20, False),
        (0.2, 100, 21, True),
    ],
)
def test_max_failures(limit: float | None, outcomes: int, failures: int, stops: bool) -> None:
    found = schedule(max_failures=limit)
    found.outcomes, found.failures = outcomes, failures
    assert found.too_many_failures is stops


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), max_size=8), st.integers(0, 300))
def test_without_takes_out_one_point(steps: list[tuple[int, int]], point: int) -> None:
    ranges, at = [], 0
    for gap, length in steps:
        ranges.append((at + gap, at + gap + length))
        at += gap + length + 1
    block = Block(tuple(ranges))
    left = [int(i) for part in without(block, point) for i in part.indices()]
    assert left == [int(i) for i in block.indices() if i != point]
    assert all(part.count for part in without(block, point))


def test_a_job_put_back_is_handed_out_again() -> None:
    found = schedule(8)
    job = take(found)
    found.put_back(job)
    assert found.remaining == 8
    seen: list[int] = []
    while (job_ := found.next(1)) is not None:
        seen += job_.block.indices().tolist()
    assert np.array_equal(sorted(seen), np.arange(8))
