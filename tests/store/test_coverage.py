import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Grid, Status, grid
from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.coverage import Cover, joined, known, todo, unknown
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Failure, Frame, Outcomes, encode, spill
from mce_notebook.store.journal import Journal, claim_epoch, open_journal
from mce_notebook.store.merge import Source, Standing
from mce_notebook.store.reader import LogReader
from mce_notebook.store.spans import Spans, indices_of

Make = Callable[..., list[Frame]]
DONE, FAILED, SKIPPED, PENDING = (int(Status[name]) for name in ("DONE", "FAILED", "SKIPPED", "PENDING"))


def append(sweep: SweepStore, *blocks: list[Frame]) -> Journal:
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    for block in blocks:
        journal.append(block)
    return journal


def block(
    start: int, count: int, *, failed: Any = (), skipped: Any = (), declaration: int = 1, **meta: str
) -> list[Frame]:
    failures = {at - start: Failure(Status.FAILED, "E", "m") for at in failed}
    outcomes = Outcomes([1.0] * count, failures=failures, skipped=[at - start for at in skipped])
    texts = {"version": "v1", "seconds": str(count * 0.5)} | meta
    return encode(outcomes, ("a",), declaration=declaration, ranges=[(start, start + count)], meta=texts)


def declare(sweep: SweepStore, design: Grid, **fields: Any) -> Declaration:
    return sweep.declaration(sweep.declare(Declaration.of(design, **({"version": "v1"} | fields))))


def counts(status: np.ndarray) -> dict[int, int]:
    return {int(code): int(count) for code, count in zip(*np.unique(status, return_counts=True), strict=True)}


@pytest.mark.anywhere
def test_a_new_sweep_knows_nothing(sweep: SweepStore) -> None:
    found = known(sweep, sweep.declaration(1))
    assert not found.status.any()
    assert not found.stale.any()
    assert (found.generation == -1).all()
    assert todo(found, sweep.declaration(1)).all()
    assert np.array_equal(unknown(1000).status, found.status)


@pytest.mark.anywhere
def test_outcomes_are_known_with_and_without_sidecar(sweep: SweepStore) -> None:
    append(sweep, block(0, 100, failed=[3, 5], skipped=[7]), block(200, 50))
    first = known(sweep, sweep.declaration(1))
    assert counts(first.status) == {PENDING: 850, DONE: 147, FAILED: 2, SKIPPED: 1}
    assert first.seconds[:100].tolist() == [0.5] * 100
    assert first.seconds[150] == 0
    sweep.paths.coverage(1).unlink()
    second = known(sweep, sweep.declaration(1))
    for name in ("status", "stale", "seconds", "generation"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.anywhere
def test_a_sidecar_that_is_behind_or_torn_is_completed_from_the_log(sweep: SweepStore) -> None:
    append(sweep, block(0, 100), block(100, 100, failed=[150]), block(200, 100))
    whole = sweep.paths.coverage(1).read_bytes()
    expected = known(sweep, sweep.declaration(1)).status
    for cut in range(0, len(whole), 5):
        sweep.paths.coverage(1).write_bytes(whole[:cut])
        assert np.array_equal(known(sweep, sweep.declaration(1)).status, expected)
    for at in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        sweep.paths.coverage(1).write_bytes(damaged)
        assert np.array_equal(known(sweep, sweep.declaration(1)).status, expected)


@pytest.mark.anywhere
def test_a_sidecar_ahead_of_a_log_that_was_cut_is_not_believed(sweep: SweepStore) -> None:
    append(sweep, block(0, 100), block(100, 100))
    path = sweep.paths.segment(1, 0)
    path.write_bytes(path.read_bytes()[:-8])
    assert counts(known(sweep, sweep.declaration(1)).status) == {DONE: 100, PENDING: 900}


@pytest.mark.anywhere
def test_what_is_found_damaged_is_computed_again(sweep: SweepStore) -> None:
    append(sweep, block(0, 100), block(100, 100)).close()
    path = sweep.paths.segment(1, 0)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    reader = LogReader(sweep.paths)
    assert [len(batch) for batch in reader.poll()] == [100]
    assert reader.problems
    assert counts(known(sweep, sweep.declaration(1)).status) == {DONE: 100, PENDING: 900}


@pytest.mark.anywhere
def test_outcomes_whose_payload_is_gone_are_computed_again(sweep: SweepStore) -> None:
    append(sweep, [spill(frame, sweep.paths.big_epoch(1)) for frame in block(0, 100)], block(100, 100))
    assert counts(known(sweep, sweep.declaration(1)).status) == {DONE: 200, PENDING: 800}
    (file,) = sweep.paths.big_epoch(1).iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    for _ in range(2):
        found = known(sweep, sweep.declaration(1))
        assert counts(found.status) == {DONE: 100, PENDING: 900}
        assert "is missing or short" in found.problems[0]
        sweep.paths.coverage(1).unlink(missing_ok=True)


@pytest.mark.anywhere
def test_extension_reuses_what_exists(sweep: SweepStore) -> None:
    first = declare(sweep, grid(n=[1, 2], rho=[0.1, 0.2, 0.3]))
    append(sweep, block(0, 6, failed=[4], declaration=first.number))
    second = declare(sweep, grid(n=[0, 1, 2], rho=[0.1, 0.15, 0.2, 0.3]))
    found = known(sweep, second).status.reshape(3, 4)
    assert found.tolist() == [
        [PENDING] * 4,
        [DONE, PENDING, DONE, DONE],
        [DONE, PENDING, FAILED, DONE],
    ]
    assert todo(known(sweep, second), second).sum() == 6


@pytest.mark.anywhere
def test_a_constant_that_becomes_an_axis_keeps_its_outcomes(sweep: SweepStore) -> None:
    first = declare(sweep, grid(n=[1, 2]), constants={"rho": 0.5})
    append(sweep, block(0, 2, declaration=first.number))
    second = declare(sweep, grid(n=[1, 2], rho=[0.5, 0.7]))
    assert known(sweep, second).status.tolist() == [DONE, PENDING, DONE, PENDING]
    third = declare(sweep, grid(n=[2, 1]), constants={"rho": 0.7})
    assert known(sweep, third).status.tolist() == [PENDING, PENDING]


@pytest.mark.anywhere
def test_outcomes_of_another_version_are_stale_until_it_returns(sweep: SweepStore) -> None:
    append(sweep, block(0, 10, failed=[3]))
    second = declare(sweep, sweep.declaration(1).grid, version="v2")
    found = known(sweep, second)
    assert not found.status.any()
    assert np.flatnonzero(found.stale).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert found.seconds[:10].tolist() == [0.5] * 3 + [0.0] + [0.5] * 6
    append(sweep, block(0, 5, declaration=2, version="v2"))
    assert np.flatnonzero(known(sweep, second).stale).tolist() == [5, 6, 7, 8, 9]
    back = declare(sweep, sweep.declaration(1).grid)
    assert counts(known(sweep, back).status) == {DONE: 9, FAILED: 1, PENDING: 990}


@pytest.mark.anywhere
def test_the_highest_generation_counts_then_good_then_the_first(sweep: SweepStore) -> None:
    append(sweep, block(0, 4), block(4, 4, failed=[4, 5]))
    append(sweep, block(0, 2, failed=[0], generation="1"), block(4, 2))
    found = known(sweep, sweep.declaration(1))
    assert found.status[:8].tolist() == [FAILED, DONE, DONE, DONE, DONE, DONE, DONE, DONE]
    assert found.generation[:8].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("rerun", "wanted"),
    [
        (None, {5, 6, 7}),
        ("failed", {2, 3, 5, 6, 7}),
        ("all", {0, 1, 2, 3, 4, 5, 6, 7}),
        ("points", {1, 5, 6, 7}),
    ],
)
@pytest.mark.anywhere
def test_what_a_rerun_asks_for(sweep: SweepStore, rerun: str | None, wanted: set[int]) -> None:
    declare(sweep, grid(i=range(8)))
    append(sweep, block(0, 5, failed=[2, 3], declaration=2))
    again = declare(
        sweep, grid(i=range(8)), rerun=rerun, generation=1, selection={"i": [1, 6]} if rerun == "points" else None
    )
    assert set(np.flatnonzero(todo(known(sweep, again), again)).tolist()) == wanted
    # What the new generation has computed is not asked for again.
    append(sweep, block(1, 2, failed=[2], declaration=3, generation="1"))
    assert set(np.flatnonzero(todo(known(sweep, again), again)).tolist()) == wanted - {1, 2}


@pytest.mark.anywhere
def test_stale_points_wait_where_they_are_held(sweep: SweepStore) -> None:
    declare(sweep, grid(i=range(4)), version="v1")
    append(sweep, block(0, 3, declaration=2))
    held = declare(sweep, grid(i=range(4)), version="v2", hold_stale=True)
    assert todo(known(sweep, held), held).tolist() == [False, False, False, True]
    for change in ({"hold_stale": False}, {"rerun": "stale"}, {"rerun": "all", "generation": 1}):
        free = dataclasses.replace(held, **change)
        assert todo(known(sweep, free), free).all()


@pytest.mark.anywhere
def test_points_outside_the_design_are_never_asked_for(sweep: SweepStore) -> None:
    guarded = declare(sweep, grid(i=range(6)).where("i != 2"), rerun="all", generation=1)
    assert todo(known(sweep, guarded), guarded).tolist() == [True, True, False, True, True, True]


@pytest.mark.anywhere
def test_points_are_selected_by_labels(sweep: SweepStore) -> None:
    design = grid(n=[1, 2], rho=[0.1, 0.1 + 0.2], method=["a", "b"])
    append(sweep, block(0, 8, declaration=2))
    for selection, count in (
        ({"rho": [0.3], "method": ["a"]}, 2),
        ({"n": [2]}, 4),
        ({"n": [2, 7], "rho": [0.1]}, 2),
        ({"n": [9]}, 0),
        ({"other": [1]}, 0),
    ):
        chosen = declare(sweep, design, rerun="points", generation=1, selection=selection)
        if chosen.number == 2:
            append(sweep, block(0, 8, declaration=2))
        assert todo(known(sweep, chosen), chosen).sum() == count, selection


@pytest.mark.anywhere
def test_an_outcome_of_a_missing_declaration_is_told(sweep: SweepStore) -> None:
    append(sweep, block(0, 5, declaration=7))
    found = known(sweep, sweep.declaration(1))
    assert "declaration 7, which is missing" in found.problems[0]
    assert not found.status.any()


@pytest.mark.anywhere
def test_indices_outside_the_grid_are_passed_over(sweep: SweepStore) -> None:
    append(
        sweep, encode(Outcomes([1.0] * 3), ("a",), declaration=1, ranges=np.array([5, 2000, 7]), meta={"version": "v1"})
    )
    append(sweep, block(995, 10))
    assert counts(known(sweep, sweep.declaration(1)).status) == {DONE: 7, PENDING: 993}


Outcome = tuple[int, bool, bool, int, tuple[int, int, int]]
OUTCOMES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.booleans(),
        st.booleans(),
        st.integers(0, 2),
        st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(0, 5).map(lambda at: at * 8)),
    ),
    max_size=25,
    unique_by=lambda one: (one[0], one[4]),
)


@given(OUTCOMES, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(outcomes: list[Outcome], random: Any) -> None:
    def fold(arrived: list[Outcome]) -> dict[int, Outcome]:
        standing = Standing(4)
        held: dict[int, Outcome] = {}
        for outcome in arrived:
            point, good, current, generation, order = outcome
            status = np.array([DONE if good else FAILED], np.uint8)
            counts, _ = standing.admit(np.array([point]), status, Source(current, 0, generation, order))
            if counts is None or counts.all():
                held[point] = outcome
        return held

    expected = {
        point: max(
            (one for one in outcomes if one[0] == point and (one[1] or one[2])),
            key=lambda one: (one[2], one[3], one[1], tuple(-part for part in one[4])),
        )
        for point in {one[0] for one in outcomes if one[1] or one[2]}
    }
    shuffled = list(outcomes)
    random.shuffle(shuffled)
    assert fold(outcomes) == fold(shuffled) == expected


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4000), data=st.data())
@pytest.mark.anywhere
def test_known_says_what_a_reader_can_read(sweep: SweepStore, frames: Make, cut: int, data: st.DataObject) -> None:
    epoch = claim_epoch(sweep.paths, {})
    journal = open_journal(sweep.paths, epoch)
    starts = data.draw(st.lists(st.integers(0, 95), min_size=1, max_size=6, unique=True))
    for start in starts:
        journal.append(frames(start * 10, start * 10 + 10))
    path = sweep.paths.segment(epoch, 0)
    path.write_bytes(path.read_bytes()[: max(cut, 0)])
    found: set[int] = set()
    for batch in LogReader(sweep.paths).poll():
        found |= set(batch.index)
    assert set(np.flatnonzero(known(sweep, sweep.declaration(1)).status).tolist()) == found


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 9), st.booleans(), st.booleans()), max_size=12))
@example([(0, 0, False, False), (0, 0, False, False), (0, 1, False, False)])
def test_joining_covers_loses_nothing(blocks: list[tuple[int, int, bool, bool]]) -> None:
    """Whatever overlaps, every cover's points, generation and seconds are there afterwards, as often as before."""
    covers = []
    for at, (start, count, runs, failed) in enumerate(blocks):
        index = Spans(((start + 50, start + 50 + count), (start, start + count // 2))) if runs else None
        size = count if index is None else index.size
        status = np.full(size, FAILED, np.uint8) if failed else None
        cover = Cover(1, "v", count % 2, index or range(start, start + count), status, at + 0.5, (1, 0, at))
        covers.append(cover)

    def rows(cover: Cover) -> list[tuple[int, int, float, bool]]:
        assert isinstance(cover.index, range | Spans)
        listed = np.arange(cover.index.start, cover.index.stop) if isinstance(cover.index, range) else cover.index
        places = indices_of(listed).tolist()
        spent = np.broadcast_to(np.asarray(cover.seconds), len(places)).tolist()
        return [(place, cover.generation, one, cover.status is None) for place, one in zip(places, spent, strict=True)]

    found = list(joined(covers))
    assert sorted(row for cover in found for row in rows(cover)) == sorted(row for one in covers for row in rows(one))
    if not any(failed for *_, failed in blocks):
        distinct = [row[0] for cover in covers for row in rows(cover)]
        assert not distinct or len(set(distinct)) < len(distinct) or len(found) <= 2
