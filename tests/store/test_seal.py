import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from mce_notebook.errors import CorruptStore, StoreError, StoreFull
from mce_notebook.store import seal as module
from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.seal import check, chunks, logical_id, seal, seals


def cube() -> xr.Dataset:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(30, 40))
    values[3, 4] = np.nan
    return xr.Dataset(
        {
            "error": (("n", "rho"), values, {"units": "m"}),
            "single": (("n", "rho"), values.astype("f4")),
            "count": (("n", "rho"), rng.integers(0, 9, (30, 40))),
            "big": ("n", np.arange(30, dtype="u8") + 2**63),
            "converged": (("n", "rho"), values > 0),
            "phase": (("n",), np.exp(1j * np.arange(30))),
            "label": (("n",), np.array(["α", None, "c"] * 10, object)),
            "raw": (("n",), np.array([b"\x00\xff"] * 30, object)),
            "when": (("n",), np.array(["2024-01-01", "NaT", "1999-12-31T23:59:59.000000001"] * 10, "M8[ns]")),
            "spent": (("n",), np.array([1, "NaT", 3] * 10, "m8[ns]")),
            "trace": (("n", "rho", "t"), rng.normal(size=(30, 40, 7))),
            "scalar": ((), np.float64(2.5)),
            "status": (("n", "rho"), np.full((30, 40), 2, "u1"), {"flag_values": np.arange(8, dtype="u1")}),
        },
        coords={"n": np.arange(30), "rho": np.linspace(0, 1, 40), "name": ("n", [f"run {at}" for at in range(30)])},
        attrs={"sweep": "recovery", "numpy": np.float64(1.5), "object": object},
    )


@pytest.mark.anywhere
def test_a_sealed_cube_needs_nothing_of_ours(sweep: SweepStore) -> None:
    data = cube()
    identity = seal(sweep, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        back = xr.open_zarr(sweep.paths.sealed_cube(identity)).load()
    for name in set(data.variables) - {"label", "raw", "name"}:
        assert back[name].dtype == data[name].dtype, name
        np.testing.assert_array_equal(back[name].values, data[name].values)
        assert back[name].dims == data[name].dims
    assert back["label"].values.tolist() == ["α", "", "c"] * 10
    assert back["raw"].values.tolist() == ["00ff"] * 30
    assert back["name"].values.tolist() == data["name"].values.tolist()
    assert back["error"].attrs == {"units": "m"}
    assert back.attrs["sweep"] == "recovery"
    assert back["status"].attrs["flag_values"] == list(range(8))


@pytest.mark.anywhere
def test_the_manifest_can_be_checked_without_us(sweep: SweepStore) -> None:
    identity = seal(sweep, cube())
    folder = sweep.paths.sealed / identity
    manifest = (folder / "manifest-sha256.txt").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == identity
    assert manifest.splitlines() == sorted(manifest.splitlines(), key=lambda line: line.split(b"  ")[1])
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "manifest-sha256.txt"], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert check(sweep, identity) == []


@pytest.mark.anywhere
def test_changes_of_a_sealed_cube_are_named(sweep: SweepStore) -> None:
    identity = seal(sweep, cube())
    root = sweep.paths.sealed_cube(identity)
    (root / "error" / "zarr.json").write_text("{}")
    (root / "single" / "zarr.json").unlink()
    (root / "new").write_text("x")
    said = "\n".join(check(sweep, identity))
    assert "error/zarr.json was changed" in said
    assert "single/zarr.json is missing" in said
    assert "new was added" in said
    manifest = sweep.paths.sealed / identity / "manifest-sha256.txt"
    manifest.write_bytes(manifest.read_bytes()[:-70])
    assert "not the manifest of this id" in check(sweep, identity)[0]
    assert "no sealed cube" in check(sweep, "0" * 64)[0]


@pytest.mark.anywhere
def test_the_same_data_are_one_seal(sweep: SweepStore) -> None:
    first = seal(sweep, cube())
    assert seal(sweep, cube()) == first
    assert [one.id for one in seals(sweep)] == [first]
    assert seals(sweep)[0].sweep_id == sweep.id
    assert [path.name for path in sweep.paths.sealed.iterdir()] == [first]


def test_the_logical_id_sees_values_only() -> None:
    data = cube()
    other = data.copy(deep=True)
    other.attrs = {"created": "later"}
    other["status"][0, 0] = 3
    other["error"].attrs = {}
    assert logical_id(other) == logical_id(data) == logical_id(data[sorted(data.data_vars, reverse=True)])
    other["error"][0, 0] += 1e-12
    assert logical_id(other) != logical_id(data)
    assert logical_id(data.rename(error="fault")) != logical_id(data)
    assert logical_id(data.assign_coords(rho=data.rho + 1)) != logical_id(data)


@pytest.mark.anywhere
def test_designs_of_points_are_sealed(sweep: SweepStore) -> None:
    index = pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["n", "method"])
    data = xr.Dataset({"x": ("point", [1.0, 2.0])}).assign_coords(xr.Coordinates.from_pandas_multiindex(index, "point"))
    back = xr.open_zarr(sweep.paths.sealed_cube(seal(sweep, data)))
    assert back["method"].values.tolist() == ["a", "b"]
    assert back["n"].values.tolist() == [1, 2]


@pytest.mark.anywhere
def test_objects_are_refused_and_leave_nothing(sweep: SweepStore) -> None:
    data = xr.Dataset({"x": ("i", np.array([np.arange(2), np.arange(3)], object))})
    with pytest.raises(StoreError, match="'x' holds ndarray objects"):
        seal(sweep, data)
    assert list(sweep.paths.sealed.glob("*")) == []


@pytest.mark.anywhere
def test_a_full_disk_leaves_nothing(sweep: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "sync_folder", full)
    with pytest.raises(StoreFull):
        seal(sweep, cube())
    assert [path.name for path in sweep.paths.sealed.iterdir()] == []


@pytest.mark.anywhere
def test_what_is_not_read_back_is_not_sealed(sweep: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module._write

    def wrong(plain: xr.Dataset, path: Path) -> None:
        plain = plain.copy(deep=True)
        plain["error"][5, 5] += 1
        write(plain, path)

    monkeypatch.setattr(module, "_write", wrong)
    with pytest.raises(CorruptStore, match="'error' was not read back"):
        seal(sweep, cube())
    assert [path.name for path in sweep.paths.sealed.iterdir()] == []


def test_chunks_hold_whole_inner_dimensions() -> None:
    assert chunks((100, 100, 1000), 8) == (1, 100, 1000)
    assert chunks((1000, 1000), 8) == (100, 1000)
    assert chunks((10, 10), 8) == (10, 10)
    assert chunks((1_000_000,), 8) == (100_000,)
    assert chunks((5, 10_000_000), 8) == (1, 100_000)
    assert chunks((1_000_000,), 1) == (800_000,)
    assert chunks((), 8) == ()
    assert chunks((0, 3), 8) == (1, 3)


@pytest.mark.anywhere
def test_half_a_million_points_open_fast(sweep: SweepStore) -> None:
    values = np.random.default_rng(0).normal(size=(500, 1000))
    data = xr.Dataset({f"v{at}": (("a", "b"), values + at) for at in range(3)}, coords={"a": np.arange(500)})
    identity = seal(sweep, data)
    code = (
        "import sys, time, xarray as xr, zarr\n"
        "start = time.perf_counter()\n"
        "data = xr.open_zarr(sys.argv[1])\n"
        "print(time.perf_counter() - start)"
    )
    path = str(sweep.paths.sealed_cube(identity))
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 5
    record = json.loads((sweep.paths.sealed / identity / "seal.json").read_text())
    assert record["files"] < 100
