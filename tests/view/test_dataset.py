import time

import numpy as np
import pytest
import xarray as xr

from mce_notebook.declare.grid import Status, grid, zipped
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.gathered import EXCLUDED


def test_a_grid_fills(lab):
    lab.declare(grid(n=[100, 200], rho=[0.1, 0.2, 0.3]))
    snapshot = Snapshot(lab.sweep)
    first = snapshot.dataset()
    assert dict(first.sizes) == {"n": 2, "rho": 3}
    assert first.mse.isnull().all()
    assert (first.status == Status.PENDING).all()
    lab.record([1.0, 2.0, 3.0, 4.0], (1, 5))
    assert snapshot.update() == 1
    ds = snapshot.dataset()
    assert ds.mse.sel(n=100, rho=0.2) == 1.0
    assert ds.mse.sel(n=200, rho=0.2) == 4.0
    assert np.isnan(ds.mse.sel(n=200, rho=0.3))
    assert ds.status.values.tolist() == [[0, 2, 2], [2, 2, 0]]
    assert first.mse.isnull().all(), "a dataset handed out never changes"
    assert list(ds.data_vars) == ["mse", "status"]


def test_status_is_described_as_cf_wants(lab):
    lab.declare(grid(n=[1, 2]))
    status = Snapshot(lab.sweep).dataset().status
    assert status.dtype == np.uint8
    assert status.attrs["flag_meanings"] == "pending running done failed killed timeout skipped stale"
    assert status.attrs["flag_values"].tolist() == list(range(8))


def test_provenance_is_in_the_attributes(lab):
    lab.declare(grid(n=[1, 2]), constants={"sigma": 0.5}, generation=0, created="2026-01-02T03:04:05+00:00")
    attrs = Snapshot(lab.sweep).dataset().attrs
    assert attrs["sweep"] == "recovery"
    assert attrs["version"] == "v1"
    assert attrs["declaration"] == 1
    assert int(attrs["root_seed"], 16) == 2**100 + 1
    assert attrs["created"] == "2026-01-02T03:04:05+00:00"
    assert "0.5" in attrs["constants"]


def test_zipped_axes_share_a_dimension(lab):
    lab.declare(zipped(a=[1, 2], label=["x", "y"]) * grid(k=[5, 6, 7]))
    lab.record(range(6), (0, 6))
    ds = Snapshot(lab.sweep).dataset()
    assert dict(ds.sizes) == {"a": 2, "k": 3}
    assert ds.label.dims == ("a",)
    assert ds.mse.sel(a=2).values.tolist() == [3, 4, 5]
    assert ds.mse.where(ds.label == "y", drop=True).size == 3


def test_guarded_points_are_no_part_of_the_design(lab):
    lab.declare(grid(n=[1, 2, 3], k=[1, 2, 3]).where("k <= n"))
    snapshot = Snapshot(lab.sweep)
    lab.record([0.5] * 6, [0, 3, 4, 6, 7, 8])
    snapshot.update()
    ds = snapshot.dataset()
    assert ds.status.values.tolist() == [[2, 255, 255], [2, 2, 255], [2, 2, 2]]
    assert ds.status.attrs["flag_meanings"].endswith(" stale excluded")
    assert snapshot.counts()[Status.DONE] == snapshot.cells.total == 6
    assert EXCLUDED == 255


def test_a_sparse_cube_becomes_one_dimension_of_points(lab):
    lab.declare(grid(n=list(range(30)), k=list(range(30))).where("n == k"))
    lab.record([float(i) for i in range(30)], [31 * i for i in range(30)])
    ds = Snapshot(lab.sweep).dataset()
    assert ds.mse.dims == ("point",)
    assert ds.mse.values.tolist() == list(range(30))
    assert ds.n.values.tolist() == list(range(30))
    assert "point" not in ds.coords


def test_parts_of_a_sum_are_unstacked(lab):
    design = grid(n=[1, 2], k=[10, 20]) + grid(n=[3], k=[15, 20])
    lab.declare(design)
    lab.record([float(i) for i in range(6)], (0, 6))
    ds = Snapshot(lab.sweep).dataset()
    assert ds.n.values.tolist() == [1, 2, 3]
    assert ds.k.values.tolist() == [10, 15, 20]
    assert ds.mse.sel(n=3, k=20) == 5.0
    assert ds.mse.sel(n=2, k=10) == 2.0
    assert ds.status.sel(n=3, k=10) == EXCLUDED


def test_parts_with_other_names_are_points(lab):
    lab.declare(grid(n=[1, 2]) + grid(label=["x"]))
    lab.record([1.0, 2.0, 3.0], (0, 3))
    ds = Snapshot(lab.sweep).dataset()
    assert ds.mse.dims == ("point",)
    assert ds.label.values.tolist() == ["", "", "x"]
    assert np.isnan(ds.n.values[2])


def test_integers_and_bools_are_shown_as_floats_and_sealed_as_they_are(lab):
    lab.declare(grid(n=[1, 2, 3]), outputs=("count", "ok"))
    snapshot = Snapshot(lab.sweep)
    lab.record([(1, True), (2, False)], (0, 2), names=("count", "ok"))
    snapshot.update()
    ds = snapshot.dataset()
    assert ds["count"].dtype == ds.ok.dtype == np.float64
    assert ds.ok.values[:2].tolist() == [1.0, 0.0]
    assert snapshot.dataset(sealed=True)["count"].dtype == np.float64, "something is missing"
    lab.record([(3, True)], (2, 3), names=("count", "ok"))
    snapshot.update()
    assert snapshot.dataset()["count"].dtype == np.float64
    sealed = snapshot.dataset(sealed=True)
    assert sealed["count"].dtype == np.int64
    assert sealed.ok.dtype == np.bool_
    assert sealed["count"].values.tolist() == [1, 2, 3]


def test_large_integers_have_an_exact_companion(lab):
    lab.declare(grid(n=[1, 2, 3, 4]), outputs=("big",))
    snapshot = Snapshot(lab.sweep)
    lab.record([7], (0, 1), names=("big",))
    snapshot.update()
    assert "big_exact" not in snapshot.dataset()
    lab.record([2**53 + 1, -(2**60) - 1], (1, 3), names=("big",))
    snapshot.update()
    ds = snapshot.dataset()
    assert ds.big.dtype == np.float64
    assert ds.big_exact.values.tolist() == [7, 2**53 + 1, -(2**60) - 1, np.iinfo(np.int64).min]
    assert ds.big_exact.attrs["missing_value"] == np.iinfo(np.int64).min
    lab.record([5], (3, 4), names=("big",))
    snapshot.update()
    assert snapshot.dataset(sealed=True).big.values.tolist() == [7, 2**53 + 1, -(2**60) - 1, 5]


def test_kinds_widen(lab):
    lab.declare(grid(n=[1, 2, 3, 4]))
    lab.record([True], (0, 1))
    lab.record([2], (1, 2))
    lab.record([0.5], (2, 3))
    snapshot = Snapshot(lab.sweep)
    assert snapshot.dataset(sealed=True).mse.values[:3].tolist() == [1.0, 2.0, 0.5]
    lab.record([1j], (3, 4))
    snapshot.update()
    assert snapshot.dataset().mse.values.tolist() == [1, 2, 0.5, 1j]


def test_strings_dates_and_missing_values(lab):
    names = ("label", "day", "x")
    lab.declare(grid(n=[1, 2, 3]), outputs=names)
    day = np.datetime64("2026-01-02", "ns")
    lab.record([("α", day, None), (None, None, 2.0)], (0, 2), names=names)
    ds = Snapshot(lab.sweep).dataset()
    assert ds.label.values.tolist() == ["α", None, None]
    assert ds.day.values[0] == day
    assert np.isnat(ds.day.values[1:]).all()
    assert np.isnan(ds.x.values[[0, 2]]).all()
    assert ds.status.values.tolist() == [2, 2, 0], "None is missing, and the point is done"


def test_arrays_have_their_own_dimensions(lab):
    lab.declare(grid(n=[1, 2, 3]), outputs=("trace",), dims={"trace": ("iteration",)})
    lab.record([np.arange(4), np.arange(4) + 10], (0, 2), names=("trace",))
    ds = Snapshot(lab.sweep).dataset()
    assert ds.trace.dims == ("n", "iteration")
    assert ds.trace.sel(n=2).values.tolist() == [10, 11, 12, 13]
    assert np.isnan(ds.trace.sel(n=3)).all()


def test_arrays_without_names_and_of_two_ranks(lab):
    lab.declare(grid(n=[1, 2]), outputs=("image",))
    lab.record([np.ones((2, 3)), np.zeros((2, 3))], (0, 2), names=("image",))
    ds = Snapshot(lab.sweep).dataset(sealed=True)
    assert ds.image.dims == ("n", "image_0", "image_1")
    assert ds.image.shape == (2, 2, 3)


def test_ragged_arrays_are_padded_with_a_length(lab):
    lab.declare(grid(n=[1, 2, 3, 4]), outputs=("path",))
    snapshot = Snapshot(lab.sweep)
    lab.record([np.arange(3.0), np.arange(3.0)], (0, 2), names=("path",))
    snapshot.update()
    assert snapshot.dataset().path.shape == (4, 3)
    lab.record([np.arange(5.0)], (2, 3), names=("path",))
    snapshot.update()
    ds = snapshot.dataset()
    assert ds.path.shape == (4, 5)
    assert ds.path_length.values.tolist() == [3, 3, 5, 0]
    assert np.array_equal(ds.path.values[0], [0, 1, 2, np.nan, np.nan], equal_nan=True)
    assert ds.path.values[2].tolist() == [0, 1, 2, 3, 4]


def test_very_ragged_arrays_are_stored_one_after_another(lab):
    lab.declare(grid(n=list(range(200))), outputs=("path",))
    values = [np.arange(50_000.0 if i == 3 else i % 4) for i in range(200)]
    lab.record(values, (0, 200), names=("path",))
    ds = Snapshot(lab.sweep).dataset()
    assert ds.path.dims == ("path_sample",)
    ends = np.cumsum(ds.path_length.values)
    for i in (0, 2, 3, 199):
        assert ds.path.values[ends[i] - ds.path_length.values[i] : ends[i]].tolist() == values[i].tolist()
    assert ds.path_length.attrs["sample_dimension"] == "path_sample"


def test_a_conflict_of_kinds_is_a_failure_whatever_came_first(lab):
    lab.declare(grid(n=[1, 2, 3, 4]))
    snapshot = Snapshot(lab.sweep)
    lab.record(["oops"], (3, 4))
    snapshot.update()
    assert snapshot.dataset().mse.values.tolist() == [None, None, None, "oops"]
    lab.record([1.0, 2.0, np.arange(3.0)], (0, 3))
    snapshot.update()
    ds = snapshot.dataset()
    assert ds.mse.dtype == np.float64
    assert ds.status.values.tolist() == [2, 2, 3, 3]
    failures = snapshot.failures()
    assert "text" in failures[3].message
    assert "1-d array" in failures[2].message
    assert failures[3].cause == "conflict in mse"
    assert snapshot.causes() == {"conflict in mse": 2}


def test_failures_and_skipped_points(lab, failure):
    lab.declare(grid(n=[1, 2, 3, 4]))
    failures = {0: failure(Status.FAILED), 1: failure(Status.TIMEOUT, "timeout")}
    lab.record([None, None, None, 4.0], (0, 4), failures=failures, skipped=[2])
    snapshot = Snapshot(lab.sweep)
    assert snapshot.dataset().status.values.tolist() == [3, 5, 6, 2]
    assert snapshot.causes() == {"boom": 1, "timeout": 1}
    assert snapshot.failures()[1].status is Status.TIMEOUT


def test_the_rule_of_precedence(lab, failure):
    lab.declare(grid(n=[1, 2, 3, 4, 5]))
    lab.record([1.0, 1.0, 1.0], (0, 3), epoch=1)
    lab.record([None], (3, 4), epoch=1, failures={0: failure(Status.FAILED)})
    lab.record([2.0], (0, 1), epoch=1)  # later in the same epoch: the first stays
    lab.record([3.0], (3, 4), epoch=2)  # good over failed
    lab.record([None], (1, 2), epoch=2, failures={0: failure(Status.FAILED)})  # good stays
    lab.record([9.0], (2, 3), epoch=2, generation=1)  # a higher generation
    snapshot = Snapshot(lab.sweep)
    ds = snapshot.dataset()
    assert ds.mse.values[:4].tolist() == [1.0, 1.0, 9.0, 3.0]
    assert ds.status.values.tolist() == [2, 2, 2, 2, 0]
    assert snapshot.failures() == {}
    assert snapshot.outcomes().generation.values[:3].tolist() == [0, 0, 1]


def test_a_failure_of_a_higher_generation_hides_the_value(lab, failure):
    lab.declare(grid(n=[1, 2]))
    lab.record([1.0, 2.0], (0, 2))
    snapshot = Snapshot(lab.sweep)
    lab.record([None], (1, 2), generation=1, failures={0: failure(Status.KILLED)})
    snapshot.update()
    ds = snapshot.dataset()
    assert ds.status.values.tolist() == [2, 4]
    assert np.isnan(ds.mse.values[1])


def test_outcomes_of_another_version_are_stale(lab, failure):
    lab.declare(grid(n=[1, 2, 3]), version="old")
    lab.record([1.0, 2.0], (0, 2), version="old")
    lab.record([None], (2, 3), version="old", failures={0: failure(Status.FAILED)})
    snapshot = Snapshot(lab.sweep)
    assert snapshot.dataset().status.values.tolist() == [2, 2, 3]
    lab.declare(grid(n=[1, 2, 3]), version="new")
    lab.record([7.0], (1, 2), version="new", declaration=2)
    snapshot.update()
    ds = snapshot.dataset()
    assert ds.mse.values[:2].tolist() == [1.0, 7.0]
    assert ds.status.values.tolist() == [7, 2, 0], "a failure of old code says nothing"
    assert snapshot.failures() == {}
    lab.declare(grid(n=[1, 2, 3]), version="old")
    snapshot.update()
    assert snapshot.dataset().status.values.tolist() == [2, 2, 3], "reverting makes old outcomes current"
    assert snapshot.dataset().mse.values[:2].tolist() == [1.0, 2.0]


def test_an_extended_grid_keeps_what_is_known(lab):
    lab.declare(grid(n=[1, 3], k=[1, 2]))
    lab.record([1.0, 2.0, 3.0, 4.0], (0, 4))
    snapshot = Snapshot(lab.sweep)
    lab.declare(grid(k=[2, 3], n=[1, 2, 3]))
    snapshot.update()
    ds = snapshot.dataset()
    assert ds.mse.sel(n=3, k=2) == 4.0
    assert ds.mse.sel(n=1, k=2) == 2.0
    assert int((ds.status == Status.DONE).sum()) == 2
    assert Snapshot(lab.sweep, declaration=1).dataset().mse.values.tolist() == [[1, 2], [3, 4]]


def test_a_constant_that_became_an_axis(lab):
    lab.declare(grid(n=[1, 2]), constants={"sigma": 0.5})
    lab.record([1.0, 2.0], (0, 2))
    lab.declare(grid(n=[1, 2], sigma=[0.1, 0.5]))
    ds = Snapshot(lab.sweep).dataset()
    assert ds.mse.sel(sigma=0.5).values.tolist() == [1.0, 2.0]
    assert ds.mse.sel(sigma=0.1).isnull().all()


def test_outputs_named_by_the_outcomes(lab):
    lab.declare(grid(n=[1, 2]), outputs=None)
    snapshot = Snapshot(lab.sweep)
    assert list(snapshot.dataset().data_vars) == ["status"]
    lab.record([{"a": 1.0, "b": "x"}], (0, 1), names=None)
    lab.record([{"a": 2.0, "c": 3.0}], (1, 2), names=None)
    snapshot.update()
    ds = snapshot.dataset()
    assert list(ds.data_vars) == ["a", "b", "c", "status"]
    assert ds.b.values.tolist() == ["x", None]


def test_outputs_that_are_data_arrays_keep_their_dimensions(lab):
    lab.declare(grid(n=[1, 2]), outputs=("power",))
    values = [xr.DataArray([1.0, 2.0], dims="freq", coords={"freq": [10.0, 20.0]}) for _ in range(2)]
    lab.record(values, (0, 2), names=("power",))
    ds = Snapshot(lab.sweep).dataset()
    assert ds.power.dims == ("n", "freq")
    assert ds.power.sel(freq=20.0, n=1) == 2.0


def test_outcomes_tell_how(lab):
    lab.declare(grid(n=[1, 2, 3]))
    lab.record([1.0], (0, 1), times=np.array([0.25]), worker="node7", attempt=2)
    lab.record([1.0], (1, 2), seconds=0.5)
    outcomes = Snapshot(lab.sweep).outcomes()
    assert outcomes.sizes == {"n": 3}
    assert outcomes.seconds.values[:2].tolist() == [0.25, 0.5]
    assert np.isnan(outcomes.seconds.values[2])
    assert outcomes.host.values.tolist() == ["node7", "w1", None]
    assert outcomes.attempt.values[0] == 2
    assert outcomes.version.values[0] == "v1"


def test_datasets_are_read_only_views_and_never_change(lab):
    lab.declare(grid(n=[1, 2]))
    lab.record([1.0], (0, 1))
    snapshot = Snapshot(lab.sweep)
    ds = snapshot.dataset()
    with pytest.raises(ValueError, match="read-only"):
        ds.mse.values[0] = 5
    part = ds.mse.isel(n=slice(0, 2)).data
    del ds
    lab.record([2.0], (1, 2))
    snapshot.update()
    assert np.isnan(part[1])
    assert snapshot.dataset().mse.values.tolist() == [1.0, 2.0]


def test_a_million_points(lab):
    lab.declare(grid(a=list(range(1000)), b=list(range(1000))), outputs=("x", "y"))
    for start in range(0, 1_000_000, 100_000):
        lab.record([(float(i), i) for i in range(start, start + 100_000)], (start, start + 100_000), names=("x", "y"))
    snapshot = Snapshot(lab.sweep)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        ds = snapshot.dataset()
        times.append(time.perf_counter() - start)
    assert ds.x.sel(a=999, b=1) == 999_001
    assert min(times) < 0.5


def test_values_come_back_as_they_were_given(lab):
    names = ("count", "ok", "x", "label", "path")
    lab.declare(grid(n=[1, 2, 3]), outputs=names)
    lab.record([(1, True, 0.5, "a", np.arange(2)), (2, False, None, None, np.arange(3))], (0, 2), names=names)
    snapshot = Snapshot(lab.sweep)
    assert snapshot.listed(Status.DONE).tolist() == [0, 1]
    found = snapshot.values(np.array([1, 0, 2]))
    assert found["count"] == [2, 1, None]
    assert found["ok"] == [False, True, None]
    assert type(found["ok"][0]) is bool
    assert found["x"] == [None, 0.5, None]
    assert found["label"] == [None, "a", None]
    assert found["path"][0].tolist() == [0, 1, 2]
    assert found["path"][0].dtype == np.int64


def test_what_a_point_printed(lab, failure):
    from mce_notebook.store.frames import Outcomes, encode

    lab.declare(grid(n=[1, 2, 3]))
    outcomes = Outcomes([1.0, 2.0], tails={1: "hello\n"})
    lab.journal().append(encode(outcomes, ("mse",), declaration=1, ranges=[(0, 2)], meta={"version": "v1"}))
    snapshot = Snapshot(lab.sweep)
    assert snapshot.output(1) == "hello\n"
    assert snapshot.output(0) == snapshot.output(2) == ""


def test_threads_look_while_another_reads(lab):
    import threading

    lab.declare(grid(n=list(range(2000))))
    snapshot = Snapshot(lab.sweep)
    errors, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            ds = snapshot.dataset()
            known = ds.status.values == Status.DONE
            if not np.array_equal(known, np.isfinite(ds.mse.values)):
                errors.append("a torn look")

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(0, 2000, 50):
        lab.record([float(i) for i in range(start, start + 50)], (start, start + 50))
        snapshot.update()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert snapshot.counts()[Status.DONE] == 2000


def test_a_design_without_points(lab):
    from mce_notebook.view.mime import bundle
    from mce_notebook.view.progress import Progress

    lab.declare(grid(n=[1, 2, 3]).where("n > 5"))
    snapshot = Snapshot(lab.sweep)
    assert snapshot.dataset().mse.size == 0
    assert "0 points" in Progress.of(lab.sweep, snapshot).text()
    assert bundle(lab.sweep)["image/png"]


def test_names_and_labels_of_all_kinds(lab):
    lab.declare(
        grid(σ=[0.1, 0.2], метод=["α", "日本"], flag=[True, False], when=np.array(["2026-01-01"], "M8[D]")),
        outputs=("größe",),
    )
    lab.record(range(8), (0, 8), names=("größe",))
    ds = Snapshot(lab.sweep).dataset()
    assert ds["größe"].sel(σ=0.2, метод="日本", flag=True, when="2026-01-01") == 6
    assert ds.flag.dtype == bool


def test_outcomes_of_a_declaration_that_cannot_be_read_are_told(lab):
    lab.declare(grid(n=[1, 2]))
    lab.record([1.0], (0, 1), declaration=7)
    lab.record([2.0], (1, 2))
    snapshot = Snapshot(lab.sweep)
    assert snapshot.dataset().status.values.tolist() == [0, 2]
    assert any("declaration 7" in problem for problem in snapshot.problems)


def test_a_sweep_that_was_never_declared(lab):
    from mce_notebook.errors import UnknownSweep

    with pytest.raises(UnknownSweep, match="never declared"):
        Snapshot(lab.sweep)


def test_dims_that_clash_get_names_of_their_own(lab):
    names = ("a", "b", "c")
    dims = {"a": ("n",), "b": ("t",), "c": ("t",)}
    lab.declare(grid(n=[1, 2]), outputs=names, dims=dims)
    lab.record([(np.arange(3), np.arange(4), np.arange(5))], (0, 1), names=names)
    ds = Snapshot(lab.sweep).dataset()
    assert ds.a.dims == ("n", "a_0")
    assert ds.b.dims == ("n", "t")
    assert ds.c.dims == ("n", "c_0")


def test_many_failures_alike_share_their_record(lab, failure):
    lab.declare(grid(n=list(range(1000))))
    same = failure(Status.FAILED)
    lab.record([None] * 1000, (0, 1000), failures=dict.fromkeys(range(1000), same))
    failures = Snapshot(lab.sweep).failures()
    assert len(failures) == 1000
    assert len({id(one) for one in failures.values()}) == 1
