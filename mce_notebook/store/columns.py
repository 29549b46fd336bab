"""Columns of a frame: values of one kind to an Arrow array, and back to NumPy, without a copy where possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mce_notebook.store.arrays import from_list, from_numpy
from mce_notebook.store.kinds import Kind

# Strings are worth a dictionary once there are enough of them and few are distinct.
_REPEATED = 32
_SIMPLE = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "str": pa.string(),
    "bytes": pa.binary(),
}

Shapes = list[int] | list[list[int]] | None


def convert(kind: Kind, values: list[Any]) -> pa.Array | None:
    """Values of a plain Python kind as an Arrow array; None if one of them does not fit.

    Arrow looks at every value anyway, so trying costs less than checking.
    """
    try:
        return from_list(values, _SIMPLE[kind.dtype])
    except (OverflowError, UnicodeEncodeError):
        return None


def build(kind: Kind, values: list[Any] | pa.Array) -> tuple[pa.Array, Shapes]:
    """Arrow array of values of one kind (None where there is none), and the shapes of arrays.

    Parameters
    ----------
    kind : Kind
    values : list or pyarrow.Array, length n

    Returns
    -------
    array : pyarrow.Array, length n
    shapes : list or None
        One shape for all, or one for each when they differ; None for scalars and one-dimensional ragged arrays.
    """
    if isinstance(values, pa.Array):
        return (_dictionary(values) if kind.dtype == "str" else values), None
    if kind.dtype == "null":
        return pa.nulls(len(values)), None
    if kind.ndim:
        return _build_arrays(kind, values)
    simple = _SIMPLE.get(kind.dtype)
    if simple is None:
        return _build_numpy(kind, values), None
    array = from_list(values, simple)
    return (_dictionary(array) if kind.dtype == "str" else array), None


def _dictionary(array: pa.Array) -> pa.Array:
    if len(array) < _REPEATED:
        return array
    encoded = array.dictionary_encode()
    return encoded if len(encoded.dictionary) * 4 <= len(array) else array


def repeated(values: Sequence[str | None]) -> pa.Array:
    """Texts as a dictionary column: a thousand points that fail alike keep one traceback."""
    return from_list(values, pa.string()).dictionary_encode()


def _build_numpy(kind: Kind, values: list[Any]) -> pa.Array:
    missing = np.fromiter((value is None for value in values), bool, len(values))
    filler = np.zeros((), kind.dtype)[()]
    plain = np.array([filler if value is None else value for value in values], dtype=kind.dtype)
    mask = missing if missing.any() else None
    if plain.dtype.kind == "c":
        pairs = from_numpy(plain.view(plain.real.dtype))
        return pa.FixedSizeListArray.from_arrays(pairs, 2, mask=None if mask is None else from_numpy(mask))
    return from_numpy(plain, mask)


def _build_arrays(kind: Kind, values: list[Any]) -> tuple[pa.Array, Shapes]:
    present = [value for value in values if value is not None]
    shapes: Shapes = None
    if len({value.shape for value in present}) == 1:
        shapes = list(present[0].shape)
    elif kind.ndim > 1:
        shapes = [[] if value is None else list(value.shape) for value in values]
    sizes = np.fromiter((0 if value is None else value.size for value in values), np.int64, len(values))
    if kind.dtype.startswith("complex"):
        sizes *= 2
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    flat = np.concatenate([value.ravel() for value in present] or [np.empty(0, _plain(kind))])
    mask = None
    if len(present) < len(values):
        mask = from_list([value is None for value in values], pa.bool_())
    small = offsets[-1] < 2**31
    make = pa.ListArray if small else pa.LargeListArray
    typed = from_numpy(offsets.astype(np.int32) if small else offsets)
    return make.from_arrays(typed, _leaf(kind, flat), mask=mask), shapes


def _plain(kind: Kind) -> str:
    return "object" if kind.dtype in ("str", "bytes") else kind.dtype


def _leaf(kind: Kind, flat: np.ndarray) -> pa.Array:
    if kind.dtype in ("str", "bytes"):
        return from_list(flat.tolist(), _SIMPLE[kind.dtype])
    if flat.dtype.kind == "c":
        return from_numpy(flat.view(flat.real.dtype))
    return from_numpy(flat)


@dataclass(frozen=True, eq=False)
class Column:
    """One output of the points of a batch.

    Parameters
    ----------
    kind : Kind
    data : pyarrow.Array, length n
    shapes : list or None
        As `build` gives them.
    """

    kind: Kind
    data: pa.Array
    shapes: Shapes = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def valid(self) -> np.ndarray | None:
        """Where there is a value, bool[n]; None when there is one everywhere."""
        if not self.data.null_count:
            return None
        return np.asarray(self.data.is_valid())

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of each value; None when they differ."""
        if not self.kind.ndim:
            return ()
        if self.shapes is None or (self.shapes and isinstance(self.shapes[0], list)):
            return None
        return tuple(int(size) for size in self.shapes if not isinstance(size, list))

    def values(self) -> np.ndarray:
        """Values as an array of shape (n, *shape), an arbitrary filler where `valid` is False.

        Ragged arrays come as an object array of ndarrays (None where there is none), strings as objects.
        """
        if self.kind.dtype == "null":
            return np.full(len(self), None, dtype=object)
        if not self.kind.ndim:
            return _scalars(self.kind, self.data)
        shape = self.shape
        if shape is None:
            return self._ragged()
        flat = _flat(self.kind, self.data)
        if self.data.null_count:
            out = np.zeros((len(self), *shape), flat.dtype)
            out[self.valid] = flat.reshape(len(self) - self.data.null_count, *shape)
            return out
        return flat.reshape(len(self), *shape)

    def _ragged(self) -> np.ndarray:
        out = np.full(len(self), None, dtype=object)
        step = 2 if self.kind.dtype.startswith("complex") else 1
        offsets = np.asarray(self.data.offsets) // step
        flat = _leaves(self.kind, self.data.values)
        valid = self.valid
        for row in range(len(self)):
            if valid is None or valid[row]:
                piece = flat[offsets[row] : offsets[row + 1]]
                out[row] = piece.reshape(self.shapes[row]) if self.shapes else piece
        return out


def _scalars(kind: Kind, data: pa.Array) -> np.ndarray:
    if isinstance(data, pa.DictionaryArray):
        data = data.dictionary_decode()
    if kind.dtype in ("str", "bytes"):
        return np.asarray(data.to_numpy(zero_copy_only=False), dtype=object)
    if kind.dtype.startswith("complex"):
        # `values` keeps the fillers under nulls, so rows stay where they are; `flatten` would drop them.
        flat = np.asarray(data.values)[2 * data.offset : 2 * (data.offset + len(data))]
        return flat.view(kind.dtype)
    if data.null_count:
        data = data.fill_null(pa.scalar(0, pa.int64()).cast(data.type) if kind.dtype != "bool" else False)
    return np.asarray(data.to_numpy(zero_copy_only=False)).astype(kind.dtype, copy=False)


def _flat(kind: Kind, data: pa.Array) -> np.ndarray:
    return _leaves(kind, data.flatten())


def _leaves(kind: Kind, leaf: pa.Array) -> np.ndarray:
    if kind.dtype in ("str", "bytes"):
        return np.asarray(leaf.to_numpy(zero_copy_only=False), dtype=object)
    flat = np.asarray(leaf.to_numpy(zero_copy_only=False))
    return flat.view(kind.dtype) if kind.dtype.startswith("complex") else flat
