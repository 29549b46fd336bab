import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pickle
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mce_notebook.declare.grid import Status
from mce_notebook.declare.routine import MISSING
from mce_notebook.errors import CorruptStore
from mce_notebook.store.big import Payload
from mce_notebook.store.frames import Batch, Failure, Frame, Outcomes, decode, encode, spill
from mce_notebook.store.messages import unpack


def read(frame: Frame, big: Path | None = None) -> Batch:
    ((batch, meta),) = unpack(frame.head + frame.body)
    return decode(batch, meta, big=big)


def store(values: list[Any], names: tuple[str, ...] | None = ("x",), **given: Any) -> list[Batch]:
    made = encode(Outcomes(values, **given), names, declaration=7, ranges=[(10, 10 + len(values))])
    return [read(frame) for frame in made]


def rows(batches: list[Batch], name: str = "x") -> dict[int, Any]:
    """What is stored for each listed index; None where there is no value."""
    found: dict[int, Any] = {}
    for batch in batches:
        column = batch.columns.get(name)
        for at, index in enumerate(batch.index):
            assert index not in found
            missing = column is None or (column.valid is not None and not column.valid[at])
            found[int(index)] = None if missing else column.values()[at]
    return found


def failures(batches: list[Batch]) -> dict[int, Failure]:
    return {int(batch.index[at]): failure for batch in batches for at, failure in batch.failures.items()}


def same(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype.kind == "O":
        return left.shape == right.shape and bool(np.all(left == right.astype(object)))
    if left.dtype.kind in "fc":
        # Bit for bit, so that a sign of zero or a payload of NaN counts.
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    return left.dtype == right.dtype and bool(np.array_equal(left, right))


INTS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMPY = [
    np.dtype(name).type
    for name in (
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128", "bool"),
    )
]
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(),
    "int": INTS,
    "bool": st.booleans(),
    "complex": st.complex_numbers(),
    "text": TEXT,
    "bytes": st.binary(),
    **{f"numpy {kind.__name__}": hnp.from_dtype(np.dtype(kind)) for kind in NUMPY},
}


@pytest.mark.parametrize("kind", SCALARS)
@given(data=st.data())
def test_scalars_of_one_kind_come_back_as_they_were(kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | SCALARS[kind], min_size=1, max_size=60))
    (batch,) = store(values)
    found = rows([batch])
    assert list(found) == list(range(10, 10 + len(values)))
    for value, back in zip(values, found.values(), strict=True):
        if isinstance(value, str | bytes):
            assert back == value
        else:
            assert same(back, None if value is None else np.asarray(value)[()])
    if any(value is not None for value in values):
        assert batch.status is None


@given(
    st.lists(
        st.none() | st.booleans() | INTS | st.floats() | TEXT | st.complex_numbers() | hnp.from_dtype(np.dtype("f4")),
        max_size=30,
    )
)
def test_kinds_are_never_mixed(values: list[Any]) -> None:
    batches = store(values)
    found = rows(batches)
    assert sorted(found) == list(range(10, 10 + len(values)))
    for at, value in enumerate(values):
        back = found[10 + at]
        assert back == value if isinstance(value, str) else same(back, value)


ARRAYS = hnp.arrays(
    st.sampled_from(NUMPY), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4), elements={}
)


@given(st.lists(st.none() | ARRAYS, max_size=12))
def test_arrays_come_back_whatever_their_shapes(values: list[Any]) -> None:
    found = rows(store(values))
    assert all(same(found[10 + at], value) for at, value in enumerate(values))


@given(st.integers(0, 3).flatmap(lambda side: st.lists(hnp.arrays("f8", (2, side)), min_size=1, max_size=9)))
def test_arrays_of_one_shape_are_one_array(values: list[np.ndarray]) -> None:
    (batch,) = store(values)
    column = batch.columns["x"]
    assert column.shape == values[0].shape
    assert same(column.values(), np.stack(values))


@given(st.lists(st.tuples(st.floats(), INTS, TEXT), max_size=40))
def test_tuples_become_columns(values: list[tuple[Any, ...]]) -> None:
    batches = store(values, ("a", "b", "c"))
    for at, name in enumerate("abc"):
        found = rows(batches, name)
        for row, value in enumerate(values):
            assert found[10 + row] == value[at] or math.isnan(value[at])


def test_repeated_strings_share_a_dictionary_and_come_back() -> None:
    values = [f"solver {at % 3}" for at in range(1000)]
    (frame,) = encode(Outcomes(values), ("x",), declaration=1, ranges=[(0, 1000)])
    assert frame.nbytes < 6000
    assert list(rows([read(frame)]).values()) == values


# Foreign containers


def test_dicts_name_their_outputs_and_missing_keys_are_missing() -> None:
    batches = store([{"a": 1, "b": 2.5}, {"a": 2}, {"b": 1.5, "c": {"d": True}}], None)
    assert rows(batches, "a") == {10: 1, 11: 2, 12: None}
    assert rows(batches, "b") == {10: 2.5, 11: None, 12: 1.5}
    assert rows(batches, "c.d") == {10: None, 11: None, 12: True}


def test_dicts_inside_tuples_are_taken_apart() -> None:
    batches = store([(1.0, {"u": 1, "v": np.arange(3.0)}), (2.0, {"u": 2, "v": np.arange(2.0)})], ("e", "s"))
    assert rows(batches, "e") == {10: 1.0, 11: 2.0}
    assert rows(batches, "s.u") == {10: 1, 11: 2}
    assert rows(batches, "s.v")[11].tolist() == [0.0, 1.0]


def test_a_dict_with_the_names_of_the_outputs_is_a_row() -> None:
    assert rows(store([{"b": 2, "a": 1}], ("a", "b")), "b") == {10: 2}


def test_namedtuples_and_dataclasses_name_their_outputs() -> None:
    fit = collections.namedtuple("fit", "slope error")
    made = dataclasses.make_dataclass("made", [("slope", float), ("error", float)])
    for value in (fit(1.0, 2.0), made(1.0, 2.0)):
        batches = store([value], None)
        assert rows(batches, "slope") == {10: 1.0}
        assert rows(batches, "error") == {10: 2.0}


def test_bare_values_without_names() -> None:
    assert rows(store([1.0, 2.0], None), "value") == {10: 1.0, 11: 2.0}
    assert rows(store([np.arange(2)], None), "value")[10].tolist() == [0, 1]
    assert rows(store([(1, "a")], None), "value_1") == {10: "a"}


def test_dataarrays_keep_dims_and_coordinates() -> None:
    array = xr.DataArray([[1.0, 2.0]], dims=("k", "t"), coords={"t": [0.5, 1.5]}, name="trace")
    (batch,) = store([array, array + 1], None)
    column = batch.columns["trace"]
    assert column.kind.dims == ("k", "t")
    assert column.kind.coords == '{"t": [0.5, 1.5]}'
    assert column.values().tolist() == [[[1.0, 2.0]], [[2.0, 3.0]]]


def test_datasets_and_tables_are_several_outputs() -> None:
    data = xr.Dataset({"u": ("t", [1, 2]), "v": 3.0})
    assert rows(store([data], None), "u")[10].tolist() == [1, 2]
    assert rows(store([data], None), "v")[10] == 3.0
    table = pd.DataFrame({"u": [1, 2], "w": ["a", "b"]}, index=pd.Index([5, 6], name="k"))
    (batch,) = store([table], None)
    assert batch.columns["u"].kind.dims == ("k",)
    assert batch.columns["w"].values()[0].tolist() == ["a", "b"]


def test_series_are_arrays_with_a_dimension() -> None:
    (batch,) = store([pd.Series([1.5, 2.5])])
    assert batch.columns["x"].kind.dims == ("index",)
    assert batch.columns["x"].kind.coords == ""


def test_dates_are_nanoseconds() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    moments = [
        datetime.datetime(2024, 2, 29, 12, 0, 0, 5),  # noqa: DTZ001
        datetime.datetime(2024, 2, 29, 14, tzinfo=zone),
        datetime.date(2024, 2, 29),
        np.datetime64("2024-02-29T12:00"),
        pd.Timestamp("2024-02-29T12:00:00.000000007"),
        pd.NaT,
    ]
    found = rows(store(moments))
    noon = np.datetime64("2024-02-29T12", "ns")
    assert found[10] == noon + np.timedelta64(5, "us")
    assert found[11] == noon
    assert found[12] == np.datetime64("2024-02-29", "ns")
    assert found[13] == noon
    assert found[14] == noon + 7
    assert found[15] is None
    spans = rows(store([datetime.timedelta(hours=1), np.timedelta64(1, "h")]))
    assert set(spans.values()) == {np.timedelta64(3600 * 10**9, "ns")}


class Solver(enum.Enum):
    EULER = 1


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Solver.EULER, "EULER"),
        (Level.HIGH, 3),
        (2**64 - 1, np.uint64(2**64 - 1)),
        (np.longdouble(0.5), 0.5),
        (pd.NA, None),
        (MISSING, None),
        (np.array(2.5), 2.5),
        ([1, 2], np.array([1, 2])),
        ((1.5, 2), np.array([1.5, 2.0])),
        ([], np.empty(0)),
        (["a", "bc"], np.array(["a", "bc"], object)),
        (np.array(["x", "y"], object), np.array(["x", "y"], object)),
        (np.array([1, None], object), np.array([1, np.nan])),
        (range(3), np.arange(3)),
        (np.ma.masked_array([1.0, 2.0], [True, False]), np.array([np.nan, 2.0])),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="i4")),
        (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T),
    ],
)
def test_unusual_values(value: Any, stored: Any) -> None:
    found = rows(store([value]))[10]
    assert found == stored if isinstance(stored, str) else same(found, stored)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (matplotlib.figure.Figure(), "returned a Figure, which cannot be stored; return numbers, strings or arrays"),
        (open, "returned a builtin_function_or_method"),
        ({1, 2}, "return sorted(...) of it"),
        (decimal.Decimal(1), "return float(...) of it"),
        (fractions.Fraction(1, 3), "return float(...) of it"),
        (2**64, "an int of more than 64 bits"),
        ([[1], [2, 3]], "its rows differ in length"),
        ([1, "a"], "numbers and strings"),
        (np.array([object()]), "it holds objects"),
        (np.zeros(2, "i4,f8"), "its records have fields"),
        (np.ma.masked_array([1], [True]), "filled(...)"),
        (datetime.date(1, 1, 1), "nanoseconds cannot hold"),
        ("\ud800", "lone surrogates"),
        ([["\ud800"]], "lone surrogates"),
        (np.array([2**70], object), "64 bits"),
        (object(), "returned an object"),
    ],
    # Not by repr, which holds addresses: two test processes would not agree on the names.
    ids=lambda item: type(item).__name__,
)
def test_what_cannot_be_stored_is_a_failure_of_its_point(value: Any, said: str) -> None:
    batches = store([(1.0, 2.0), (1.0, value), (3.0, 4.0)], ("a", "b"))
    failed = failures(batches)
    assert list(failed) == [11]
    assert failed[11].status is Status.FAILED
    assert failed[11].message.startswith("b: ")
    assert said in failed[11].message
    assert rows(batches, "a") == {10: 1.0, 11: None, 12: 3.0}
    assert rows(batches, "b") == {10: 2.0, 11: None, 12: 4.0}


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"do not touch {name}")


@pytest.mark.parametrize(
    "value",
    [Hostile(), np.array([2**2000, None], object), {"a": Hostile()}, [Hostile()]],
    ids=["object", "number", "dict", "list"],
)
@pytest.mark.parametrize("names", [("a",), None])
def test_what_does_not_let_itself_be_read_is_a_failure(value: Any, names: Any) -> None:
    assert list(failures(store([1.0, value], names))) == [11]


def test_a_tuple_of_another_length_is_a_failure() -> None:
    batches = store([(1, 2), (1, 2, 3), 5], ("a", "b"))
    assert {at: failure.message for at, failure in failures(batches).items()} == {
        11: "returned 3 values where the outputs are a, b; return 2 values",
        12: "returned one value where the outputs are a, b; return 2 values",
    }


def test_a_value_that_contains_itself_is_a_failure() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    (failure,) = failures(store([loop], None)).values()
    assert "nested" in failure.message


# Failures, statuses, indices


def test_failures_share_a_frame_with_the_rest() -> None:
    failed = Failure(Status.KILLED, "SIGSEGV", "crashed", "trace", "tail", "slot", "SIGSEGV in f")
    setup = Failure(Status.FAILED, "ValueError", "no", where="setup")
    (batch,) = store(
        [1.0, "ignored", 3.0, None, 5.0], failures={1: failed, 3: setup}, skipped=[4], tails={0: "hello\n"}
    )
    assert batch.status is not None
    assert batch.status.tolist() == [2, 4, 2, 3, 6]
    assert batch.failures == {1: failed, 3: setup}
    assert batch.outputs == {0: "hello\n", 1: "tail"}
    assert rows([batch]) == {10: 1.0, 11: None, 12: 3.0, 13: None, 14: None}


def test_a_thousand_equal_failures_keep_one_traceback() -> None:
    failure = Failure(Status.FAILED, "ValueError", "boo", "t" * 5000, "o" * 60_000)
    (frame,) = encode(
        Outcomes([None] * 1000, failures=dict.fromkeys(range(1000), failure)), ("x",), declaration=1, ranges=[(0, 1000)]
    )
    assert frame.nbytes < 100_000
    assert read(frame).failures[999] == failure
    assert read(frame).columns == {}


def test_text_that_is_no_unicode_does_not_hinder_a_failure() -> None:
    failure = Failure(Status.FAILED, "ValueError", "bad \ud800", "", "tail \udcff")
    (batch,) = store([None], failures={0: failure}, tails={0: "\udcff"})
    assert batch.failures[0].message == "bad \ud800"
    assert batch.outputs[0] == "\\udcff"


@pytest.mark.parametrize(
    ("ranges", "index"),
    [
        ([(5, 8)], range(5, 8)),
        ([(5, 7), (7, 8)], range(5, 8)),
        ([(5, 6), (9, 11)], [5, 9, 10]),
        (np.array([3, 1, 2]), [3, 1, 2]),
        (np.array([3, 4, 5]), range(3, 6)),
    ],
)
def test_indices_are_a_range_where_they_can(ranges: Any, index: Any) -> None:
    (frame,) = encode(Outcomes([1, 2, 3]), ("x",), declaration=1, ranges=ranges)
    assert (read(frame).index == index) if isinstance(index, range) else read(frame).index.tolist() == index
    assert frame.count == 3


def test_a_block_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 outcomes for the 3 points"):
        encode(Outcomes([1, 2]), ("x",), declaration=1, ranges=[(0, 3)])
    with pytest.raises(ValueError, match="2 outcomes for 3 points"):
        encode(Outcomes([1, 2]), ("x",), declaration=1, ranges=np.arange(0, 6, 2))


def test_mixed_kinds_keep_their_own_indices_and_seconds() -> None:
    seconds = np.array([1, 2, 3], np.float32)
    batches = store([1, 2.5, 3], seconds=seconds)
    assert {tuple(batch.index): batch.seconds.tolist() for batch in batches if batch.seconds is not None} == {
        (10, 12): [1.0, 3.0],
        (11,): [2.0],
    }
    assert sum(batch.total or 0 for batch in batches) == 6.0


def test_outputs_named_like_our_columns() -> None:
    names = ("_index", "_status", "_seconds", "_failure", "_output")
    (batch,) = store([(1, 2, 3, 4, 5), None], names, failures={1: Failure(Status.FAILED, "E", "m")})
    assert [batch.columns[name].values()[0] for name in names] == [1, 2, 3, 4, 5]
    assert batch.failures[1].type == "E"


def test_no_outputs_still_leave_a_record() -> None:
    (batch,) = store([(), ()], ())
    assert len(batch) == 2
    assert batch.status is None


def test_frames_travel_by_pickle_and_any_arrow_reader_opens_them() -> None:
    (frame,) = encode(Outcomes([1.5, 2.5]), ("x",), declaration=1, ranges=[(0, 2)], meta={"worker": "w"})
    assert pickle.loads(pickle.dumps(frame)) == frame
    assert pa.ipc.open_stream(frame.head + frame.body).read_all().column("x").to_pylist() == [1.5, 2.5]
    assert read(frame).worker == "w"


def test_encoding_is_the_same_every_time() -> None:
    made = [encode(Outcomes([(1, "a"), (2.0, "b")]), ("x", "y"), declaration=1, ranges=[(0, 2)]) for _ in range(2)]
    assert made[0] == made[1]


# Payloads


def test_spilled_outputs_are_read_from_their_file(tmp_path: Path) -> None:
    values = [(np.full(1000, at, float), at) for at in range(300)]
    failed = {3: Failure(Status.FAILED, "E", "m")}
    (frame,) = encode(Outcomes(values, failures=failed), ("x", "y"), declaration=1, ranges=[(0, 300)])
    small = spill(frame, tmp_path / "e000001")
    assert small.nbytes < 10_000
    assert {**frame.cover, "big": small.cover["big"]} == small.cover
    batch = read(small, tmp_path)
    assert batch.failures == failed
    assert batch.columns["x"].values()[7].tolist() == [7.0] * 1000
    assert batch.columns["y"].values()[299] == 299
    (file,) = (tmp_path / "e000001").iterdir()
    assert pa.ipc.open_stream(file.read_bytes()).read_all().num_rows == 300


def test_a_damaged_payload_is_told(tmp_path: Path) -> None:
    (frame,) = encode(Outcomes([np.zeros(100)]), ("x",), declaration=1, ranges=[(0, 1)])
    small = spill(frame, tmp_path / "e000001")
    (file,) = (tmp_path / "e000001").iterdir()
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptStore, match="checksum"):
        _ = read(small, tmp_path).columns
    file.write_bytes(data[:-8])
    with pytest.raises(CorruptStore, match="shorter"):
        _ = read(small, tmp_path).columns
    file.unlink()
    with pytest.raises(CorruptStore, match="cannot be read"):
        _ = read(small, tmp_path).columns


def test_a_frame_without_outputs_is_not_spilled(tmp_path: Path) -> None:
    failed = {0: Failure(Status.FAILED, "E", "m")}
    (frame,) = encode(Outcomes([None], failures=failed), ("x",), declaration=1, ranges=[(0, 1)])
    assert spill(frame, tmp_path / "big") is frame
    assert not (tmp_path / "big").exists()


def test_a_block_of_runs_is_recorded_by_its_runs():
    ranges = [(100, 140), (0, 40)]
    (frame,) = encode(Outcomes([float(n) for n in range(80)]), ("y",), declaration=1, ranges=ranges, meta={})
    ((record_batch, record),) = unpack(frame.head + frame.body)
    batch = decode(record_batch, record)
    assert record["ranges"] == frame.cover["ranges"] == [100, 140, 0, 40]
    assert frame.count == len(batch) == 80
    assert batch.index.tolist() == [*range(100, 140), *range(40)]
    assert record_batch.schema.names == ["y"]


def test_points_of_a_block_of_runs_that_fail_apart_keep_their_indices():
    values = [float(n) if n % 3 else f"text {n}" for n in range(80)]
    frames = encode(Outcomes(values), ("y",), declaration=1, ranges=[(100, 140), (0, 40)], meta={})
    listed = [*range(100, 140), *range(40)]
    found = {}
    for frame in frames:
        for record_batch, record in unpack(frame.head + frame.body):
            batch = decode(record_batch, record)
            found |= dict(zip(np.asarray(batch.index).tolist(), batch.columns["y"].values().tolist(), strict=True))
    assert found == dict(zip(listed, values, strict=True))


@given(
    st.lists(hnp.arrays(st.sampled_from(["f8", "f4", "i8", "u1", "?", "c16", ">f8"]), st.integers(0, 3)), max_size=6),
    st.sets(st.integers(0, 5)),
)
def test_arrays_come_back_as_they_were(arrays, missing):
    values = [None if at in missing else array for at, array in enumerate(arrays)]
    found: dict[int, Any] = {}
    for frame in encode(Outcomes(list(values)), ("y",), declaration=1, ranges=[(0, len(values))]):
        batch = read(frame)
        if "y" in batch.columns:
            column = batch.columns["y"]
            rows = column.values()
            valid = column.valid
            found |= {int(i): rows[at] for at, i in enumerate(batch.index) if valid is None or valid[at]}
    expected = {at: value for at, value in enumerate(values) if value is not None}
    # A type nothing was stored for has no rows; nulls are shown as None.
    assert {at for at, value in found.items() if value is not None} == set(expected)
    for at, value in expected.items():
        assert found[at].dtype == value.dtype.newbyteorder("=")
        assert np.array_equal(found[at], value, equal_nan=value.dtype.kind in "fc")


def test_large_outputs_go_to_a_file_of_their_own_at_once(tmp_path: Path) -> None:
    values = [np.full(1000, at, float) for at in range(300)]
    (frame,) = encode(Outcomes(values), ("x",), declaration=1, ranges=[(0, 300)], big=tmp_path / "e000001")
    (plain,) = encode(Outcomes(values), ("x",), declaration=1, ranges=[(0, 300)])
    assert frame.nbytes < 10_000 < 2_400_000 < frame.stored
    assert frame.cover["big"] == Payload.from_json(frame.cover["big"]).to_json()
    assert (read(frame, tmp_path).columns["x"].values() == read(plain).columns["x"].values()).all()
    few = encode(Outcomes(values[:10]), ("x",), declaration=1, ranges=[(0, 10)], big=tmp_path / "e000001")
    assert "big" not in few[0].cover


def test_where_no_file_can_be_written_large_outputs_stay_in_the_frame(tmp_path: Path) -> None:
    (tmp_path / "e000001").write_text("in the way")
    values = [np.full(1000, at, float) for at in range(300)]
    (frame,) = encode(Outcomes(values), ("x",), declaration=1, ranges=[(0, 300)], big=tmp_path / "e000001")
    assert frame.nbytes > 2_400_000
    assert (read(frame).columns["x"].values()[299] == 299).all()


def test_arrays_of_one_kind_beside_an_output_that_takes_a_closer_look() -> None:
    # Nothing but the looks of the other output sends these rows the slow way; the arrays must come along.
    values = [{"a": np.arange(3.0) * n, "d": np.datetime64("2026-01-01") + n} for n in (1, 2, 3)]
    (frame,) = encode(Outcomes(list(values)), None, declaration=1, ranges=[(0, 3)], meta={"version": "v"})
    ((data, record),) = unpack(frame.head + frame.body)
    found = decode(data, record).columns["a"].values()
    assert [list(row) for row in found] == [[0, 1, 2], [0, 2, 4], [0, 3, 6]]
