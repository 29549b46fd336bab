"""What is known of a grid, laid out anew for a larger one: the same as when the log is read again."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Status, grid, zipped
from mce_notebook.store.catalog import Store
from mce_notebook.store.frames import Failure
from mce_notebook.view.buffers import Arrays
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.gathered import Gathered
from tests.view.conftest import Lab

N, K = [1, 2, 3, 4], [1, 2, 3]
KINDS = {
    "number": lambda at: at + 0.5,
    "integer": lambda at: at,
    "large": lambda at: 2**60 + at,
    "text": lambda at: f"text {at}",
    "array": lambda at: np.arange(3.0) + at,
    "ragged": lambda at: np.arange(float(at % 4)),
    "table": lambda at: np.full((2, at % 3), at),
    "date": lambda at: np.datetime64("2026-01-01", "s") + at,
}


def grids(n, k, sigma, shape):
    """Build a grid of some labels in one of several ways to write it."""
    if shape == "reordered":
        return grid(k=k, **sigma, n=n)
    if shape == "guarded":
        return grid(n=n, k=k, **sigma).where("k <= n")
    if shape == "sum":
        return grid(n=n[:1], k=k, **sigma) + grid(n=n, k=k[:1], **sigma)
    if shape == "zipped":
        return zipped(n=n, label=[f"l{one}" for one in n]) * grid(k=k, **sigma)
    if shape == "sparse":
        return grid(n=list(range(1, 60)), k=list(range(1, 60)), **sigma).where("n == k")
    return grid(n=n, k=k, **sigma)


@st.composite
def declarations(draw):
    """Several ways to write one experiment, often each larger than the one before."""
    found = []
    n, k, sigma = draw(st.integers(1, 3)), draw(st.integers(1, 2)), False
    zips = draw(st.booleans())
    for _ in range(draw(st.integers(2, 4))):
        if draw(st.booleans()):
            n, k = draw(st.integers(n, 4)), draw(st.integers(k, 3))
        else:
            n, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        sigma = sigma or draw(st.booleans())
        shapes = ["zipped"] if zips else ["plain", "plain", "reordered", "guarded", "sum", "sparse"]
        design = grids(N[:n], K[:k], {"sigma": [0.5, 1.5]} if sigma else {}, draw(st.sampled_from(shapes)))
        version = draw(st.sampled_from(["v1", "v1", "v1", "v2"]))
        fields = {
            "version": version,
            "constants": {} if sigma else {"sigma": 0.5},
            "generation": draw(st.integers(0, 1)),
        }
        fields["dims"] = {"mse": draw(st.sampled_from([(), (), ("iteration",)]))}
        fields["rerun"] = draw(st.sampled_from([None, None, "failed", "all"]))
        found.append((design, fields))
    return found


def record(lab, draw, number, design, version):
    kept = np.arange(design.size) if design.mask() is None else np.flatnonzero(design.mask())
    listed = kept[draw(st.lists(st.integers(0, kept.size - 1), min_size=1, max_size=8, unique=True))]
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    values = [kind(int(at)) for at in listed]
    failures, skipped = {}, []
    for row in range(len(values)):
        fate = draw(st.sampled_from(["good"] * 4 + ["failed", "skipped", "missing"]))
        if fate == "failed":
            failures[row] = Failure(Status.FAILED, "ValueError", "no", "Traceback", "", "point", f"cause {row % 2}")
        elif fate == "skipped":
            skipped.append(row)
        elif fate == "missing":
            values[row] = None
    times = [float(at) for at in range(len(values))] if draw(st.booleans()) else None
    names = draw(st.sampled_from([("mse",), ("mse",), ("mse", "other")]))
    if len(names) == 2:
        values = [(value, at) for at, value in enumerate(values)]
    ranges = listed
    if draw(st.booleans()):
        start = int(kept[0])
        ranges = (
            (start, start + len(values)) if set(range(start, start + len(values))) <= set(kept.tolist()) else listed
        )
    lab.record(
        values, ranges, declaration=number, epoch=draw(st.integers(1, 2)), names=names, failures=failures,
        skipped=skipped, times=times, version=version, generation=draw(st.integers(0, 2)),
    )  # fmt: skip


def same(old, new):
    """Compare all that can be seen of two snapshots."""
    assert old.declaration.number == new.declaration.number
    xr.testing.assert_identical(old.dataset(), new.dataset())
    xr.testing.assert_identical(old.dataset(sealed=True), new.dataset(sealed=True))
    for name, variable in new.dataset().variables.items():
        assert old.dataset()[name].dtype == variable.dtype, name
    xr.testing.assert_identical(old.outcomes(), new.outcomes())
    assert old.counts() == new.counts()
    assert old.failures() == new.failures()
    assert sorted(old.causes().items()) == sorted(new.causes().items())
    assert old.left() == new.left()
    assert old.problems == new.problems
    assert sorted(old.outputs()) == sorted(new.outputs())
    listed = np.arange(new.declaration.grid.size)
    mine, fresh = old.values(listed), new.values(listed)
    assert {name: list(map(repr, column)) for name, column in mine.items()} == {
        name: list(map(repr, column)) for name, column in fresh.items()
    }
    assert [old.origin(one) for one in listed.tolist()] == [new.origin(one) for one in listed.tolist()]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(declarations(), st.data())
def test_what_is_taken_over_is_what_is_read(series, data):
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Store(Path(folder) / "experiments").create("recovery", 1))
        followers, pinned, declared = [], [], []
        for design, fields in series:
            number = lab.declare(design, **fields)
            declared.append((number, design, fields["version"]))
            followers.append(Snapshot(lab.sweep))
            pinned.append(Snapshot(lab.sweep, number))
            for _ in range(data.draw(st.integers(0, 3))):
                record(lab, data.draw, *data.draw(st.sampled_from(declared)))
                if data.draw(st.booleans()):
                    data.draw(st.sampled_from(followers)).update()
                    data.draw(st.sampled_from(pinned)).update()
        for snapshot in (*followers, *pinned):
            snapshot.update()
        # Declared once more: live readers show a value that lost as what it was, until then.
        number = lab.declare(design, **fields)
        for snapshot in followers:
            snapshot.update()
            same(snapshot, Snapshot(lab.sweep))
        for snapshot in pinned:
            snapshot.follow(number)
            snapshot.update()
            same(snapshot, Snapshot(lab.sweep))
        lab.close()


@pytest.fixture
def taken(monkeypatch):
    """Count how often arrays were taken over."""
    found = []
    real = Gathered._take_over
    monkeypatch.setattr(Gathered, "_take_over", lambda self, *rest: (found.append(self), real(self, *rest))[1])
    return found


@pytest.mark.parametrize(
    ("before", "after", "constants"),
    [
        (grid(n=[1, 2], k=[1, 2, 3]), grid(n=[1, 2, 3], k=[1, 2, 3]), ({}, {})),
        (grid(n=[1, 2], k=[1, 2, 3]), grid(k=[3, 9, 2, 1], n=[2, 1]), ({}, {})),
        (grid(n=[1, 2]), grid(n=[1, 2], s=[1, 2]), ({"s": 2}, {})),
        (grid(n=[1, 2, 3], k=[1, 2]).where("k <= n"), grid(n=[1, 2, 3], k=[1, 2]), ({}, {})),
        (grid(n=[1, 2]) * grid(k=[1]) + grid(n=[3], k=[5]), grid(n=[1, 2, 3], k=[1, 5]), ({}, {})),
        (zipped(n=[1, 2], m=[3, 4]), zipped(n=[1, 2, 5], m=[3, 4, 6]), ({}, {})),
    ],
)
def test_a_larger_grid_takes_over(lab, taken, before, after, constants, failure):
    lab.declare(before, constants=constants[0])
    first = 0 if before.mask() is None else int(np.flatnonzero(before.mask())[0])
    lab.record([7.0], [first], worker="w7")
    last = before.size - 1
    lab.record([None], [last], failures={0: failure(Status.FAILED)})
    snapshot = Snapshot(lab.sweep)
    looked = snapshot.dataset()
    kept = looked.copy(deep=True)
    lab.declare(after, constants=constants[1])
    snapshot.update()
    assert len(taken) == 1
    same(snapshot, Snapshot(lab.sweep))
    assert snapshot.counts()[Status.DONE] == snapshot.counts()[Status.FAILED] == 1
    lab.record([1.0], [after.size - 1], declaration=2)
    snapshot.update()
    same(snapshot, Snapshot(lab.sweep))
    xr.testing.assert_identical(looked, kept)


def test_where_points_would_be_missing_the_log_is_read_again(lab, taken):
    lab.declare(grid(n=[1, 2, 3]))
    lab.record([1.0, 2.0, 3.0], (0, 3))
    lab.declare(grid(n=[1, 2]))
    snapshot = Snapshot(lab.sweep)
    lab.declare(grid(n=[1, 2, 3]))
    snapshot.update()
    assert not taken, "the outcome of n=3 was passed over"
    assert snapshot.dataset().mse.values.tolist() == [1.0, 2.0, 3.0]
    lab.declare(grid(n=[1, 3]))
    snapshot.update()
    lab.declare(grid(n=[1, 3, 4]), version="v2")
    snapshot.update()
    assert not taken
    same(snapshot, Snapshot(lab.sweep))


def test_recency_that_changed_meanwhile_is_looked_up_again(lab, taken):
    lab.declare(grid(n=[1]), version="v1")
    lab.record([1.0], (0, 1), version="v1")
    lab.declare(grid(n=[1]), version="v2")
    lab.record([2.0], (0, 1), declaration=2, version="v2")
    lab.declare(grid(n=[1]), version="v3")
    snapshot = Snapshot(lab.sweep)
    assert snapshot.dataset().mse.values.tolist() == [2.0]
    lab.declare(grid(n=[1]), version="v1")
    lab.declare(grid(n=[1, 2]), version="v3")
    snapshot.update()
    assert not taken
    assert snapshot.dataset().mse.values[0] == 1.0, "v1 was declared last"
    lab.declare(grid(n=[1, 2, 3]), version="v3")
    snapshot.update()
    assert len(taken) == 1
    same(snapshot, Snapshot(lab.sweep))


def test_traces_of_values_that_lost_are_not_taken_over(lab, taken):
    lab.declare(grid(n=[1, 2]))
    lab.journal(2)
    lab.record([(1, 2)], [0], epoch=2, names=("mse", "other"))
    snapshot = Snapshot(lab.sweep)
    lab.record([3.5], [0], epoch=1)
    snapshot.update()
    lab.declare(grid(n=[1, 2, 3]))
    snapshot.update()
    assert not taken
    same(snapshot, Snapshot(lab.sweep))


def test_arrays_that_grow_too_large_are_not_reserved(lab, monkeypatch, taken):
    monkeypatch.setattr(Arrays, "DENSE_BYTES", 100)
    lab.declare(grid(n=[1, 2]))
    lab.record([np.arange(3.0), np.arange(3.0) + 5], (0, 2))
    snapshot = Snapshot(lab.sweep)
    lab.declare(grid(n=[0, 1, 9, 2, 3, 4, 5, 6, 7, 8]))
    snapshot.update()
    lab.record([np.arange(3.0) + 9], [0], declaration=2)
    snapshot.update()
    assert len(taken) == 1
    same(snapshot, Snapshot(lab.sweep))
    lab.record([np.arange(2.0)], [2], declaration=2)
    snapshot.update()
    same(snapshot, Snapshot(lab.sweep))
