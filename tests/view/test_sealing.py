import numpy as np
import pytest
import xarray as xr

from mce_notebook.declare.grid import Status, grid
from mce_notebook.errors import IncompleteGrid
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.sealing import seal


def test_a_complete_sweep_is_sealed_with_native_types(lab, failure):
    names = ("count", "label", "path")
    lab.declare(grid(n=[1, 2], k=["a", "b"]), outputs=names)
    values = [(i, f"é{i}", np.arange(3) + i) for i in range(4)]
    lab.record(values, (0, 4), names=names)
    folder = seal(Snapshot(lab.sweep))
    with xr.open_zarr(folder / "data.zarr") as found:
        assert found["count"].dtype == np.int64
        assert found["count"].values.tolist() == [[0, 1], [2, 3]]
        assert found["label"].sel(n=2, k="b") == "é3"
        assert found["path"].sel(n=1, k="b").values.tolist() == [1, 2, 3]
        assert found["status"].attrs["flag_meanings"].startswith("pending running done")
        assert found.attrs["sweep"] == "recovery"


def test_failed_points_are_sealed_as_such(lab, failure):
    lab.declare(grid(n=[1, 2]))
    lab.record([1.0, None], (0, 2), failures={1: failure(Status.FAILED)})
    with xr.open_zarr(seal(Snapshot(lab.sweep)) / "data.zarr") as found:
        assert found.status.values.tolist() == [2, 3]
        assert np.isnan(found.mse.values[1])


def test_what_is_incomplete_is_not_sealed(lab):
    lab.declare(grid(n=[1, 2, 3]), version="old")
    lab.record([1.0, 2.0], (0, 2), version="old")
    with pytest.raises(IncompleteGrid, match="1 of 3 points are not known"):
        seal(Snapshot(lab.sweep))
    lab.record([3.0], (2, 3), version="old")
    lab.declare(grid(n=[1, 2, 3]), version="new")
    with pytest.raises(IncompleteGrid, match="older version"):
        seal(Snapshot(lab.sweep))
    assert seal(Snapshot(lab.sweep), stale=True).exists()


def test_guarded_and_ragged_designs_are_sealed(lab):
    lab.declare(grid(n=[1, 2, 3], k=[1, 2, 3]).where("k <= n"), outputs=("path",))
    lab.record([np.arange(i % 3 + 1.0) for i in range(6)], [0, 3, 4, 6, 7, 8], names=("path",))
    with xr.open_zarr(seal(Snapshot(lab.sweep)) / "data.zarr") as found:
        assert found.path_length.values.tolist() == [[1, 0, 0], [2, 3, 0], [1, 2, 3]]
        assert found.status.values[0].tolist() == [2, 255, 255]
