"""Arrow arrays made of buffers are those `pyarrow.array` makes, and pandas is not imported for them."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.store.arrays import from_list, from_numpy

KINDS = {
    pa.float64(): st.floats(allow_nan=False),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"])),
    pa.binary(): st.binary(),
}
LISTS = st.sampled_from(list(KINDS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(st.none() | KINDS[kind], max_size=40))
)


@given(LISTS)
def test_a_list_becomes_what_arrow_makes_of_it(found: tuple[pa.DataType, list]) -> None:
    kind, values = found
    made = from_list(values, kind)
    made.validate(full=True)
    assert made.equals(pa.array(values, kind))
    assert made.null_count == values.count(None)


@given(
    st.sampled_from(["f8", "f4", "f2", "i1", "u2", "i8", "u8", ">f8", ">i4", "?", "M8[s]", "m8[ns]"]),
    st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=40),
)
def test_an_array_becomes_what_arrow_makes_of_it(dtype: str, rows: list[tuple[int, bool]]) -> None:
    values = np.array([value for value, _ in rows], np.int64).astype(dtype)
    missing = np.array([gone for _, gone in rows], bool)
    native = values.astype(values.dtype.newbyteorder("="))
    for mask in (None, missing):
        made = from_numpy(values, mask)
        made.validate(full=True)
        assert made.equals(pa.array(native, mask=mask))


def test_a_slice_with_gaps_is_copied() -> None:
    values = np.arange(10.0)
    assert from_numpy(values[::2]).to_pylist() == [0, 2, 4, 6, 8]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        from_list([2**63], pa.int64())
    with pytest.raises(UnicodeEncodeError):
        from_list(["é\ud800"], pa.string())


def test_encoding_outcomes_imports_no_pandas() -> None:
    script = """
import sys
import numpy as np
from mce_notebook.store.frames import Outcomes, encode
values = [(1.0, k, "text", np.arange(3), None, k > 1) for k in range(3)]
frames = encode(Outcomes(values, seconds=np.ones(3, np.float32)), tuple("abcdef"), declaration=1,
                ranges=[(0, 2), (4, 5)], meta={"version": "v"})
assert len(frames) == 1, frames
print("pandas" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False"]
