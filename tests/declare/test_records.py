import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.designs import latin_hypercube
from mce_notebook.declare.grid import Grid, grid, zipped
from mce_notebook.declare.records import LONG
from mce_notebook.declare.seeds import replicates
from mce_notebook.errors import CorruptStore, GridError
from tests.declare.grids import naive, products


def travelled(design: Grid) -> Grid:
    record, tables = design.to_record()
    return Grid.from_record(json.loads(json.dumps(record, allow_nan=False)), tables)


def check_same(design: Grid) -> None:
    back = travelled(design)
    expected = list(design.points())
    got = list(back.points())
    assert [tuple(map(type, point)) for point in got] == [tuple(map(type, point)) for point in expected]
    assert list(map(repr, got)) == list(map(repr, expected))
    assert (back.keys(slice(None)) == design.keys(slice(None))).all()
    assert back.names == design.names
    assert back.shared == design.shared
    mask, known = back.mask(), design.mask()
    assert (mask is None) == (known is None)
    assert mask is None or (mask == known).all()
    assert [axis.kind for part in back.parts for axis in part.axes] == [
        axis.kind for part in design.parts for axis in part.axes
    ]
    assert travelled(back).to_record()[0] == design.to_record()[0]


@settings(deadline=None)
@given(products(3))
def test_any_grid_comes_back(design: Grid) -> None:
    check_same(design)


@settings(deadline=None, max_examples=30)
@given(products(2), products(2), st.booleans())
def test_concatenations_and_guards_come_back(first: Grid, second: Grid, guarded: bool) -> None:
    design = first + second
    check_same(design.where(f"repr({design.names[0]}) < 'F'") if guarded else design)


@pytest.mark.parametrize(
    "values",
    [
        [float("inf"), float("nan"), -0.0, 5e-324, 0.1],
        [1j, complex("nan"), complex("inf")],
        [2**62, -(2**63)],
        [2**70, 1],
        [True, False],
        [True, None, 1.5, "x", (1, "a", (None,)), np.float32(0.1), dt.date(2020, 1, 1)],
        ["a", "", "μ", "line\nbreak", "'quoted'"],
        ["x" * 5000, "y"],
        ["a\0", "a"],
        [dt.date(2020, 1, 1), dt.date(1, 1, 1)],
        [naive(2020, 1, 1, 2, 3, 4, 5)],
        np.array(["2020-01-01", "NaT"], dtype="M8[ns]"),
        np.array(["2020"], dtype="M8[Y]"),
        np.float32([0.1, 0.2]),
        np.float16([0.1]),
        np.uint8([0, 255]),
        np.array([2**63 + 1], dtype=np.uint64),
        np.array([True]),
        np.array(["a", "bc"]),
        np.complex64([1j]),
        range(5, 0, -2),
        range(3000),
        np.linspace(0, 1, 3000),
        [f"name {number}" for number in range(3000)],
        [*range(1500), "x"],
        [np.float64(0.1), np.float64(0.2)],
        [np.int32(1), np.int64(2)],
    ],
)
def test_values_come_back_with_their_types(values: object) -> None:
    check_same(grid(x=values, y=[1, 2]))


def test_long_columns_go_to_tables() -> None:
    record, tables = grid(x=np.linspace(0, 1, LONG + 1), y=np.linspace(0, 1, LONG)).to_record()
    assert list(tables) == ["0/x/labels"]
    assert len(json.dumps(record)) < 30 * LONG
    record, tables = grid(x=range(10**6)).to_record()
    assert not tables


def test_masks_are_kept_and_guards_are_not_run() -> None:
    ran = []
    design = grid(a=range(200), b=range(200)).where(lambda a, b: ran.append(1) or a > b)
    back = travelled(design)
    assert (back.mask() == design.mask()).all()
    assert len(ran) == 40_000
    evil = grid(a=[1, 2]).where("a > 1")
    record, tables = evil.to_record()
    record["parts"][0]["guards"][0]["expression"] = "__import__('os').abort()"
    assert Grid.from_record(record, tables).mask().tolist() == [False, True]
    with pytest.raises(GridError, match="not known here"):
        back.where("a > 0").mask()


def test_kinds_and_shared_names_come_back() -> None:
    design = grid(method=["x", "y"], replicates=replicates(2, shared="method")) * zipped(a=[1, 2], b=[3, 4])
    check_same(design)
    check_same(latin_hypercube(7, x=(0, 1), k=["a", "b"]))


def test_objects_come_back_as_labels() -> None:
    back = travelled(grid(f=[abs, len], when=pd.date_range("2020", periods=2), who=[object, None]))
    columns = [axis.coordinates[0] for axis in back.parts[0].axes]
    assert [column.values for column in columns] == [None, None, None]
    assert columns[0].labels.tolist() == ["abs", "len"]
    assert back.index(f="len", when="2020-01-02", who="None") == 7
    assert back.point(7)["who"] == "None"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"format": 99, "parts": []},
        {"format": 1},
        {"format": 1, "parts": [{"axes": [{"kind": "single"}]}]},
        {"format": 1, "parts": [{"axes": 5, "guards": []}]},
    ],
)
def test_broken_records_say_so(broken: dict) -> None:
    with pytest.raises(CorruptStore, match="grid"):
        Grid.from_record(broken, {})


def test_a_missing_table_is_corruption() -> None:
    record, _ = grid(x=np.linspace(0, 1, 2000)).to_record()
    with pytest.raises(CorruptStore, match="cannot be read"):
        Grid.from_record(record, {})
