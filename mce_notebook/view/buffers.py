"""Arrays that fill while people look at them, and the values of one kind in a cell each."""

import copy
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.columns import python_values
from mce_notebook.store.spans import Move, Where, put, take
from mce_notebook.view.cells import Integers

Array = npt.NDArray[Any]

# Integers beyond this have no exact float64.
EXACT = 2**53
_NO_INTEGER = {"i": np.iinfo(np.int64).min, "u": np.iinfo(np.uint64).max}


class Buffer:
    """An array handed out as read-only views, copied before a write only if somebody still holds such a view.

    A dataset must not change in its owner's hands, and copying everything for every look would cost more than
    the look: so the copy is made by the next write, and only when a look is still alive.
    """

    __slots__ = ("_array",)

    def __init__(self, array: Array):
        # A view would hide the references of its own views behind its base.
        self._array = array if array.base is None else array.copy()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._array.dtype

    def view(self, shape: tuple[int, ...]) -> Array:
        """Return a read-only view of this shape, true for ever."""
        view = self._array.reshape(shape)
        view.flags.writeable = False
        return view

    def read(self, where: Where) -> Array:
        """Return some elements, for reading at once."""
        return take(self._array, where)

    def write(self, where: Where, values: Any) -> None:
        """Store values, leaving every view handed out as it was."""
        if self.references() > _ALONE:
            self._array = self._array.copy()
        put(self._array, where, values)

    def convert(self, dtype: npt.DTypeLike) -> None:
        """Change the element type."""
        if self._array.dtype != np.dtype(dtype):
            self._array = self._array.astype(dtype)

    def moved(self, move: Move, missing: Any) -> "Buffer":
        """Return the elements at their places in a larger array."""
        return Buffer(move.array(self._array, missing))

    def references(self) -> int:
        """Count references to the array, as the interpreter does."""
        return sys.getrefcount(self._array)


_ALONE = Buffer(np.empty(0)).references()


def shown_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type that can also say `missing`: integers and bools as float64, text and bytes as objects."""
    if dtype.kind in "biuf":
        return np.dtype(np.float64)
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    if dtype.kind in "Mm":
        return dtype if np.datetime_data(dtype)[0] in ("s", "ms", "us", "ns") else np.dtype(f"{dtype.kind}8[s]")
    return np.dtype(object)


def fill(dtype: np.dtype[Any]) -> Any:
    """Value that means `missing` in a shown type."""
    if dtype.kind == "f":
        return np.nan
    if dtype.kind == "c":
        return complex(np.nan, np.nan)
    if dtype.kind in "Mm":
        return np.array("NaT", dtype)[()]
    return None


def filled(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a new array in which everything is missing."""
    return np.full(shape, fill(dtype), dtype)


class Scalars:
    """One value of one kind per cell.

    Parameters
    ----------
    size : int
        Number of cells.
    dtype : numpy.dtype
        Type of the first values; later ones widen it (bool, int, float, complex).
    """

    rank = 0

    def __init__(self, size: int, dtype: np.dtype[Any]):
        self.native = dtype
        self.shown = Buffer(filled((size,), shown_dtype(dtype)))
        self.exact: Buffer | None = None
        self._size = size

    def put(self, where: Where, values: Array) -> None:
        """Store values[k] in the k-th of the cells `where`."""
        self._widen(values.dtype)
        self.shown.write(where, values)
        if self.native.kind not in "iu":
            self.exact = None
        elif self.exact is not None:
            self.exact.write(where, values)
        elif values.dtype.kind in "iu" and values.size and _beyond(values):
            self._start_exact()
            self.put(where, values)

    def take(self, cells: Integers) -> list[Any]:
        """Return the values of cells that have one, as Python objects of their native kind; dates as NumPy's."""
        if self.exact is not None:
            values = self.exact.read(cells)
        else:
            values = self.shown.read(cells)
            values = values.astype(self.native) if self.native.kind in "biu" else values
        return python_values(values)

    def clear(self, where: Where) -> None:
        """Forget the values of some cells."""
        self.shown.write(where, fill(self.shown.dtype))
        if self.exact is not None:
            self.exact.write(where, _NO_INTEGER[self.native.kind])

    def moved(self, move: Move) -> "Scalars":
        """Return the same for the cells of a larger grid."""
        grown = copy.copy(self)
        grown._size = move.size
        grown.shown = self.shown.moved(move, fill(self.shown.dtype))
        if self.exact is not None:
            grown.exact = self.exact.moved(move, self.missing_integer)
        return grown

    def _widen(self, dtype: np.dtype[Any]) -> None:
        if dtype == self.native or self.shown.dtype.kind == "O":
            return
        before = self.native
        self.native = np.promote_types(before, dtype)
        self.shown.convert(shown_dtype(self.native))
        if self.exact is not None and self.native.kind != before.kind:
            self.exact = None

    def _start_exact(self) -> None:
        kind = self.native.kind
        known = self.shown.read(slice(None))
        exact = np.full(self._size, _NO_INTEGER[kind], np.int64 if kind == "i" else np.uint64)
        # What was there before is exact in float64; what is not is stored again by the caller.
        there = np.abs(known) <= EXACT
        exact[there] = known[there].astype(exact.dtype)
        self.exact = Buffer(exact)

    @property
    def missing_integer(self) -> int:
        """The value of `exact` where nothing is known."""
        return int(_NO_INTEGER[self.native.kind])


def _beyond(values: Array) -> bool:
    return int(values.max()) > EXACT or int(values.min()) < -EXACT


class Arrays:
    """An array of one rank per cell: a dense block while shapes agree and it fits, else a pool of elements.

    Parameters
    ----------
    size : int
        Number of cells.
    rank : int
        Number of dimensions of every value.
    dtype : numpy.dtype
        Element type of the first values.
    """

    # A dense block larger than this is not reserved in advance: most of it may never be computed.
    DENSE_BYTES = 1 << 28
    # Padding may cost this many times the data, and no more.
    PADDING = 4
    SMALL_BYTES = 1 << 24

    def __init__(self, size: int, rank: int, dtype: np.dtype[Any]):
        self.rank = rank
        self.native = dtype
        self._size = size
        self._shown = shown_dtype(dtype)
        self._dense: Buffer | None = None
        self._chunks: list[Array] = []
        self._used = 0
        self._start = np.full(size, -1, np.int64)
        self._shape: tuple[int, ...] | None = None
        self._shapes: npt.NDArray[np.int64] | None = None
        self._padded: Array | None = None

    def put(self, where: Where, values: Array, shapes: Integers | None = None) -> None:
        """Store arrays in cells.

        Parameters
        ----------
        where : slice or int64[k]
        values : array[k, *shape], or array[elements] with `shapes`
        shapes : int64[k, rank], optional
            Shape of every value, when they differ; `values` then holds their elements one after another.
        """
        self._widen(values.dtype)
        self._padded = None
        if shapes is None:
            self._put_equal(where, values)
            return
        distinct = np.unique(shapes, axis=0)
        if len(distinct) == 1:
            self._put_equal(where, values.reshape(len(shapes), *distinct[0]))
        elif len(distinct):
            self._to_pool()
            counts = shapes.prod(axis=1)
            self._put_pool(where, values, np.cumsum(counts) - counts, shapes)

    def take(self, cells: Integers) -> list[Array]:
        """Return the arrays of cells that have one, of their native kind."""
        native = self.native if self.native.kind in "biu" else self._shown
        if self._dense is not None:
            return [self._dense.read(cell).astype(native) for cell in cells.tolist()]
        pool, found = self._pool(), []
        shapes = self._known_shapes(cells)
        for start, shape in zip(self._start[cells].tolist(), shapes.tolist(), strict=True):
            found.append(pool[start : start + int(np.prod(shape))].reshape(shape).astype(native))
        return found

    def clear(self, where: Where) -> None:
        """Forget the values of some cells."""
        self._padded = None
        put(self._start, where, -1)
        if self._dense is not None:
            self._dense.write(where, fill(self._shown))

    def moved(self, move: Move) -> "Arrays":
        """Return the same for the cells of a larger grid."""
        grown = copy.copy(self)
        grown._size, grown._padded, grown._chunks = move.size, None, list(self._chunks)
        start = self._start
        if self._dense is not None and self._shape is not None:
            if self._fits(move.size, self._shape):
                grown._dense = self._dense.moved(move, fill(self._shown))
            else:
                block, start = self._undense(self._dense, self._shape)
                grown._chunks, grown._used, grown._dense = [block], block.size, None
        grown._start = move.array(start, -1)
        grown._shapes = None if self._shapes is None else move.array(self._shapes, 0)
        return grown

    def _fits(self, size: int, shape: tuple[int, ...]) -> bool:
        return size * int(np.prod(shape)) * self._shown.itemsize <= self.DENSE_BYTES

    def _undense(self, dense: Buffer, shape: tuple[int, ...]) -> tuple[Array, Integers]:
        """Return a dense block as elements, and where those of each cell start."""
        starts = np.arange(self._size, dtype=np.int64) * int(np.prod(shape))
        return dense.read(slice(None)).reshape(-1), np.where(self._start >= 0, starts, -1)

    def _put_equal(self, where: Where, values: Array) -> None:
        shape = values.shape[1:]
        if self._shape is None and self._shapes is None:
            self._shape = shape
            if self._fits(self._size, shape):
                self._dense = Buffer(filled((self._size, *shape), self._shown))
        if self._dense is not None and shape == self._shape:
            self._dense.write(where, values)
            put(self._start, where, 0)
            return
        if shape != self._shape or self._dense is not None:
            self._to_pool()
        count = int(np.prod(shape))
        starts = np.arange(len(values), dtype=np.int64) * count
        self._put_pool(where, values.reshape(-1), starts, np.array(shape, np.int64))

    def _put_pool(self, where: Where, elements: Array, starts: Integers, shapes: Integers) -> None:
        self._chunks.append(elements.astype(self._shown))
        put(self._start, where, self._used + starts)
        if self._shapes is not None:
            put(self._shapes, where, shapes)
        self._used += elements.size

    def _to_pool(self) -> None:
        """From now on shapes differ: the dense block, if any, becomes the first chunk of the pool."""
        if self._shapes is not None:
            return
        self._shapes = np.zeros((self._size, self.rank), np.int64)
        if self._shape is not None:
            self._shapes[self._start >= 0] = self._shape
        if self._dense is not None and self._shape is not None:
            block, self._start = self._undense(self._dense, self._shape)
            self._chunks, self._used, self._dense = [block], block.size, None

    def _widen(self, dtype: np.dtype[Any]) -> None:
        if dtype == self.native or self._shown.kind == "O":
            return
        self.native = np.promote_types(self.native, dtype)
        self._shown = shown_dtype(self.native)
        if self._dense is not None:
            self._dense.convert(self._shown)
        self._chunks = [chunk.astype(self._shown, copy=False) for chunk in self._chunks]

    def shapes(self) -> Integers | None:
        """int64[size, rank] of shapes, zero where nothing is known; None while all are equal."""
        return None if self._shapes is None else np.where(self._start[:, None] >= 0, self._shapes, 0)

    def padded(self) -> Array | None:
        """array[size, *largest shape], missing elements filled; None where that wastes too much memory."""
        if self._dense is not None and self._shape is not None:
            return self._dense.view((self._size, *self._shape))
        if self._padded is None:
            self._padded = self._pad()
        return self._padded

    def _pad(self) -> Array | None:
        there = np.flatnonzero(self._start >= 0)
        shapes = self._known_shapes(there)
        largest = tuple(int(length) for length in shapes.max(axis=0)) if there.size else self._shape or (0,) * self.rank
        elements = float(self._size) * float(np.prod([float(length) for length in largest]))
        allowed = max(self.PADDING * int(shapes.prod(axis=1).sum()), self.SMALL_BYTES // self._shown.itemsize)
        if elements > allowed:
            return None
        out = filled((self._size, *largest), self._shown)
        pool = self._pool()
        distinct, which = np.unique(shapes, axis=0, return_inverse=True)
        for number, shape in enumerate(distinct):
            cells = there[which.reshape(-1) == number]
            block = pool[self._start[cells][:, None] + np.arange(int(shape.prod()))]
            out[(cells, *(slice(length) for length in shape))] = block.reshape(cells.size, *shape)
        out.flags.writeable = False
        return out

    def contiguous(self) -> Array:
        """Return the elements of all known values in the order of their cells (CF 9.3.3, contiguous)."""
        there = np.flatnonzero(self._start >= 0)
        counts = self._known_shapes(there).prod(axis=1)
        ends = np.cumsum(counts)
        total = int(ends[-1]) if ends.size else 0
        offsets = np.arange(total) - np.repeat(ends - counts, counts)
        elements: Array = self._pool()[np.repeat(self._start[there], counts) + offsets]
        return elements

    def row_shapes(self) -> Integers:
        """int64[size, rank] of shapes, zero where nothing is known."""
        rows = np.zeros((self._size, self.rank), np.int64)
        there = np.flatnonzero(self._start >= 0)
        rows[there] = self._known_shapes(there)
        return rows

    def _known_shapes(self, there: Integers) -> Integers:
        if self._shapes is not None:
            return self._shapes[there]
        return np.tile(np.array(self._shape or (0,) * self.rank, np.int64), (there.size, 1))

    def _pool(self) -> Array:
        if len(self._chunks) != 1:
            self._chunks = [np.concatenate(self._chunks) if self._chunks else np.empty(0, self._shown)]
        return self._chunks[0]
