"""Arrow arrays from NumPy arrays and lists, by their buffers.

`pyarrow.array` asks of everything whether it is a pandas object, and imports pandas for that: a quarter of a second and
40 MB in every slot, before its first outcome. So the arrays of the log are put together from their buffers, as
https://arrow.apache.org/docs/format/Columnar.html lays them out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_LARGEST = 2**31 - 1
_NUMBERS: dict[pa.DataType, Any] = {pa.float64(): np.float64, pa.int64(): np.int64, pa.bool_(): np.bool_}
_TEXTS: dict[pa.DataType, Any] = {pa.string(): "", pa.binary(): b""}


def from_numpy(values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """Return a one-dimensional array as an Arrow array, without a copy where possible.

    Parameters
    ----------
    values : ndarray[n]
        Of numbers, bools, dates or times.
    missing : ndarray[n] of bool, optional
        Where there is no value.
    """
    if values.dtype.kind not in "biuf":
        # Dates have units that Arrow lacks, and NaT: only Arrow itself knows what becomes of them.
        return pa.array(values, mask=missing)
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    data = np.packbits(plain, bitorder="little") if plain.dtype.kind == "b" else plain
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(plain.dtype), len(plain), [_validity(missing), pa.py_buffer(data)], _count(missing)
    )


def from_list(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return Python values of one type, None where there is none, as an Arrow array.

    Parameters
    ----------
    values : sequence of length n
    kind : pyarrow.DataType
        float64, int64, bool, string or binary.

    Raises
    ------
    OverflowError, UnicodeEncodeError
        If a value does not fit.
    """
    try:
        return _whole(values, kind, None)
    except TypeError:
        # Trying costs less than looking for a None first, which is rare.
        missing = np.fromiter((value is None for value in values), bool, len(values))
        filler = _TEXTS.get(kind, 0)
        return _whole([filler if value is None else value for value in values], kind, missing)


def _whole(values: Sequence[Any], kind: pa.DataType, missing: np.ndarray | None) -> pa.Array:
    """Return values without a None among them as an Arrow array; TypeError where there is one."""
    if kind in _TEXTS:
        return _texts(values, kind, missing)
    array = np.fromiter(values, _NUMBERS[kind], len(values))
    # NumPy takes None for False and for NaN.
    doubtful = missing is None and (array.dtype.kind == "b" or (array.dtype.kind == "f" and np.isnan(array).any()))
    if doubtful and type(None) in set(map(type, values)):
        raise TypeError("there is no value for some")
    return from_numpy(array, missing)


def _texts(values: Sequence[Any], kind: pa.DataType, missing: np.ndarray | None) -> pa.Array:
    joined: Any = _TEXTS[kind].join(values)
    if isinstance(joined, str) and not joined.isascii():
        # A character may be several bytes: lengths have to be taken of what is kept.
        values = [value.encode() for value in values]
        joined = b"".join(values)
    data = joined.encode() if isinstance(joined, str) else joined
    if len(data) > _LARGEST:
        raise OverflowError(f"{len(data)} bytes of text in one block are more than an Arrow column holds")
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
    buffers = [_validity(missing), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(values), buffers, _count(missing))


def _validity(missing: np.ndarray | None) -> pa.Buffer | None:
    return None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))


def _count(missing: np.ndarray | None) -> int:
    return 0 if missing is None else int(np.count_nonzero(missing))
