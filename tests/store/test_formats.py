"""Stores of released formats stay readable: committed once, read by every later version with the same values."""

import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mce_notebook as mce
from mce_notebook.declare.grid import Status
from mce_notebook.sweep import sweeps

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy: reading writes nothing, but a fixture must not depend on that."""
    shutil.copytree(FIXTURES / "store-1", tmp_path / "experiments")
    return tmp_path / "experiments"


def data(store: Path, name: str) -> xr.Dataset:
    return mce.open(name, store).dataset


def test_the_store_is_small_and_names_no_machine() -> None:
    files = [path for path in (FIXTURES / "store-1").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert not [path for path in files if path.suffix == ".pickle"]


def test_every_sweep_is_listed_and_done(store: Path) -> None:
    found = {run.name: run.state for run in sweeps(store)}
    assert found == dict.fromkeys(("axes", "drawn", "failing", "kinds", "large", "ragged", "stale"), "done")


def test_every_kind_of_value(store: Path) -> None:
    found = data(store, "kinds")
    assert found["truth"].values.tolist() == [1, 0, 0]
    assert found.whole.values.tolist() == [1, 2, 3]
    assert found.large_exact.values.tolist() == [2**62 + 1, 2**62 + 2, 2**62 + 3]
    assert found["real"].values.tolist() == [0.25, 0.5, 0.75]
    assert found.both.values.tolist() == [1 - 1j, 2 - 2j, 3 - 3j]
    assert found["text"].values.tolist() == ["ä", "ää", "äää"]
    assert np.array_equal(found.missing.values, [1, np.nan, 3], equal_nan=True)
    assert found.date.values.astype("M8[D]").astype(str).tolist() == ["2026-01-02", "2026-01-03", "2026-01-04"]
    assert found.span.values.astype("m8[s]").astype(int).tolist() == [1, 2, 3]
    assert found.array.values.tolist() == [[0, 1, 2], [0, 2, 4], [0, 3, 6]]
    uneven = found.uneven.values
    assert [row[~np.isnan(row)].tolist() for row in uneven] == [[0], [0, 1], [0, 1, 2]]


def test_axes_of_every_kind(store: Path) -> None:
    run = mce.open("axes", store)
    found = run.dataset
    assert found.sizes == {"day": 2, "colour": 2, "size": 3, "lag": 2}
    assert (found.day.dtype.kind, found.lag.dtype.kind) == ("M", "m")
    chosen = found["axes"].sel(day=np.datetime64("2026-01-03"), colour="BLUE", size="auto", lag=np.timedelta64(60, "s"))
    assert float(chosen) == 3 + 2 + 4 + 60
    assert run.grid.index(day=dt.date(2026, 1, 3), colour="RED", size=None, lag=dt.timedelta(seconds=1)) == 12 + 4


def test_failures_and_what_they_printed(store: Path) -> None:
    run = mce.open("failing", store)
    assert run.dataset.status.values.tolist() == [[2, 2], [3, 2], [3, 2]]
    assert "2 failures" in run.failures.text()
    assert "diverged at 2.5" in run.failures.text()
    assert run.log(x=1.5, solver="euler") == "about to diverge\n"


def test_streams_extension_and_the_sealed_cube(store: Path) -> None:
    run = mce.open("drawn", store)
    values = run.dataset.drawn
    assert values.sizes == {"sigma": 3, "replicate": 3}
    # Identity and streams belong to the format: the same root and labels give these bits on this CPU family.
    assert np.allclose(values.sel(sigma=0.5), [0.041314483253946106, -0.7663450812734105, -0.07006400363181886])
    assert np.allclose(values.sel(sigma=2.0), [1.7311969893393324, -3.485319875407727, 1.7739127595669755])
    (sealed,) = (run.folder / "sealed").iterdir()
    with xr.open_zarr(sealed / "data.zarr") as cube:
        assert np.array_equal(cube.drawn.values, values.values)


def test_ragged_loops_give_their_rows(store: Path) -> None:
    assert mce.open("ragged", store).rows() == [(1, 0, 100), (2, 0, 200), (3, 0, 300), (3, 1, 301), (3, 2, 302)]


def test_stale_points(store: Path) -> None:
    found = data(store, "stale")
    assert set(found.status.values.tolist()) == {Status.STALE}
    assert found.first.values.tolist() == [1, 2]


def test_payloads_in_files_of_their_own(store: Path) -> None:
    assert data(store, "large").payload.sum("payload_0").values.tolist() == [200, 400]
    assert len(list((store / "large" / "big").rglob("*.arrows"))) == 1


def test_points_keep_their_identity(store: Path) -> None:
    """What is computed today is found to be the same points: nothing recorded is computed again."""
    again = mce.grid(n=[3, 2, 1, 4])
    places = again.positions(mce.open("kinds", store).grid)
    assert places.tolist() == [2, 1, 0]
    assert again.keys(slice(2, 3)).tolist() == mce.open("kinds", store).grid.keys(slice(0, 1)).tolist()
