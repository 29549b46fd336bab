"""Lengths of time on axes: timedelta64 labels, whatever they were written as."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mce_notebook as mce
from mce_notebook.declare.grid import Grid, grid
from mce_notebook.declare.values import canonical, pack_value, unpack_value
from mce_notebook.errors import GridError

DAY = dt.timedelta(days=1)
WRITTEN = {
    "timedelta": [dt.timedelta(seconds=90), dt.timedelta(hours=2), -DAY],
    "numpy": [np.timedelta64(90, "s"), np.timedelta64(2, "h"), np.timedelta64(-1, "D")],
    "array": np.array([90, 7200, -86_400], "m8[s]"),
    "pandas": [pd.Timedelta(seconds=90), pd.Timedelta(hours=2), pd.Timedelta(days=-1)],
    "index": pd.to_timedelta(["90s", "2h", "-1D"]),
}


def column(design: Grid) -> Any:
    return design.parts[0].coordinates["t"][1]


@pytest.mark.parametrize("how", WRITTEN)
def test_labels_are_lengths_of_time_and_points_are_the_same_however_written(how: str) -> None:
    design = grid(t=WRITTEN[how])
    labels = column(design).labels
    assert labels.dtype.kind == "m"
    assert labels.astype("m8[s]").astype(int).tolist() == [90, 7200, -86_400]
    assert (design.keys(slice(None)) == grid(t=WRITTEN["timedelta"]).keys(slice(None))).all()
    assert design.point(1) == {"t": np.timedelta64(7200, "s")}
    for label in (dt.timedelta(hours=2), np.timedelta64(120, "m"), pd.Timedelta(hours=2)):
        assert design.index(t=label) == 1


@pytest.mark.parametrize("how", WRITTEN)
def test_functions_receive_what_was_listed(how: str) -> None:
    given = list(WRITTEN[how])
    received = [value for (value,) in grid(t=WRITTEN[how]).points()]
    assert received == given
    assert [type(value) for value in received] == [type(value) for value in given]


@pytest.mark.parametrize("how", ["timedelta", "numpy", "array"])
@pytest.mark.parametrize("times", [1, 1000])
def test_records(how: str, times: int) -> None:
    listed = WRITTEN[how]
    if times > 1:
        listed = [listed[0] * factor for factor in range(1, 1500)] if how != "array" else listed[0] * np.arange(1, 1500)
    design = grid(t=listed)
    record, tables = design.to_record()
    back = Grid.from_record(json.loads(json.dumps(record)), tables)
    assert column(back).labels.dtype == column(design).labels.dtype
    assert (column(back).labels == column(design).labels).all()
    assert list(back.points()) == list(design.points())
    assert [type(value) for (value,) in back.points()] == [type(value) for (value,) in design.points()]
    assert design.positions(back).tolist() == list(range(design.size))


def test_the_keys_of_stores_written_before_stay() -> None:
    # Recorded when their labels were text.
    assert canonical(dt.timedelta(seconds=1)) == b"d1000000000"
    assert canonical(np.timedelta64(2, "m")) == b"d120000000000"
    low, high = grid(t=[dt.timedelta(seconds=1)]).keys(slice(None))[0].tolist()
    assert (low, high) == (544507097719400110, 18403873316872346372)


def test_lengths_beyond_nanoseconds_do_not_wrap_around() -> None:
    years = [np.timedelta64(400 * 365, "D"), np.timedelta64(1, "ns")]
    assert canonical(years[0]) == b"d12614400000000000000"
    assert len(set(map(bytes, grid(t=years).keys(slice(None))))) == 2
    assert grid(t=[dt.timedelta.max, dt.timedelta.min]).index(t=dt.timedelta.max) == 0
    assert canonical(pd.Timedelta(1, "ns")) == canonical(np.timedelta64(1, "ns"))


@pytest.mark.parametrize("value", [dt.timedelta(1, 2, 3), np.timedelta64(5, "h"), np.timedelta64("NaT", "s")])
def test_packed_values(value: Any) -> None:
    back = unpack_value(json.loads(json.dumps(pack_value(value))))
    assert type(back) is type(value)
    assert back == value or np.isnat(back)


def test_months_and_mixed_kinds_stay_text() -> None:
    assert column(grid(t=np.array([1, 2], "m8[M]"))).labels.dtype.kind == "U"
    assert column(grid(t=[DAY, "auto"])).labels.dtype.kind == "U"


def test_guards_and_extension() -> None:
    design = grid(t=[DAY, 2 * DAY, 3 * DAY]).where("t > limit", limit=DAY)
    mask = design.mask()
    assert mask is not None
    assert mask.tolist() == [False, True, True]
    assert column(grid(t=[DAY]).extended(t=[2 * DAY])).labels.tolist() == [DAY, 2 * DAY]
    with pytest.raises(GridError):
        grid(t=[DAY, DAY / 1])
    with pytest.raises(GridError):
        grid(t=[DAY]).where("t > 5").mask()


def seconds(t: dt.timedelta, n: int) -> float:
    return t.total_seconds() * n


def test_a_sweep_from_declaration_to_zarr(root: Path) -> None:
    run = mce.sweep(seconds, t=[dt.timedelta(seconds=s) for s in (30, 10, 20)], n=[1, 2], on="inline")
    data = run.result()
    assert data.t.dtype.kind == "m"
    assert data.seconds.sel(t=np.timedelta64(10, "s"), n=2) == 20
    again = mce.open("seconds").dataset
    assert again.seconds.sel(t=dt.timedelta(seconds=30), n=1) == 30
    run.extend(t=[dt.timedelta(minutes=1)])
    assert run.result().seconds.sel(t=pd.Timedelta(minutes=1), n=1) == 60
    sealed = xr.open_zarr(run.seal() / "data.zarr", decode_timedelta=True)
    assert sealed.t.values.tolist() == run.dataset.t.astype(sealed.t.dtype).values.tolist()
    assert sealed.seconds.sel(t=pd.Timedelta(minutes=1), n=2) == 120
    assert run.replay(t=dt.timedelta(seconds=10), n=1) == 10
