"""Parts of a grid: products of axes with guards; listed indices to rows of axes, points and keys."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.axes import Axis, Coordinate, add_keys, check_names
from mce_notebook.declare.guards import Guard
from mce_notebook.declare.values import canonical, digests
from mce_notebook.errors import GridError

Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

TUPLE_CHUNK = 8192
MOST_POINTS = 2**50


@dataclass(frozen=True, eq=False)
class Part:
    """The product of some axes, first axis slowest, of which guards keep some points."""

    axes: tuple[Axis, ...]
    guards: tuple[Guard, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_names(self.names)
        if self.size > MOST_POINTS:
            raise GridError(f"The grid has {self.size:.1e} points, more than can be numbered; list fewer values.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all coordinates, in the order of the axes."""
        return tuple(itertools.chain.from_iterable(axis.names for axis in self.axes))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(axis.size for axis in self.axes)

    @cached_property
    def size(self) -> int:
        """Number of combinations, guarded or not."""
        return math.prod(self.shape)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """How far apart in the listing two neighbouring values of each axis are."""
        return tuple(math.prod(self.shape[dimension + 1 :]) for dimension in range(len(self.shape)))

    @cached_property
    def coordinates(self) -> dict[str, tuple[int, Coordinate]]:
        """The dimension and column of every name."""
        return {
            coordinate.name: (dimension, coordinate)
            for dimension, axis in enumerate(self.axes)
            for coordinate in axis.coordinates
        }

    def with_axes(self, axes: Sequence[Axis]) -> "Part":
        """Return an unguarded part over other axes."""
        return Part(tuple(axes))

    def guarded(self, guard: Guard) -> "Part":
        """Return this part with one guard more."""
        return replace(self, guards=(*self.guards, guard), _cache={})

    def rows(self, indices: Indices, dimension: int) -> Indices:
        """Return the row of one axis at each listed index."""
        rows: Indices = indices // self.strides[dimension]
        return rows if dimension == 0 else rows % self.shape[dimension]

    def labels_at(self, index: int) -> dict[str, Any]:
        """Return the labels of one point by name, as Python values where they are numbers."""
        found = {}
        for name, (dimension, coordinate) in self.coordinates.items():
            label = coordinate.labels[index // self.strides[dimension] % self.shape[dimension]]
            found[name] = label if label.dtype.kind in "Mm" else label.item()
        return found

    def tuples(self, indices: Indices, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of `names` at listed indices in any order; None for a name this part has not.

        Columns are gathered a chunk at a time, so no more than a few thousand points exist as objects.
        """
        for start in range(0, len(indices), TUPLE_CHUNK):
            chunk = indices[start : start + TUPLE_CHUNK]
            columns: list[Any] = []
            for name in names:
                if name in self.coordinates:
                    dimension, coordinate = self.coordinates[name]
                    columns.append(coordinate.take(self.rows(chunk, dimension)))
                else:
                    columns.append(itertools.repeat(None, len(chunk)))
            yield from zip(*columns, strict=True) if columns else itertools.repeat((), len(chunk))

    def span(self, start: int, stop: int, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of `names` from one listed index to another.

        Plain axes in their own order decode as a few `itertools.product` over sub-ranges, about 6 ns a point;
        zipped ones and other orders are gathered.
        """
        if tuple(names) != self.names or any(len(axis.coordinates) > 1 for axis in self.axes):
            chunks = (np.arange(low, min(low + TUPLE_CHUNK, stop)) for low in range(start, stop, TUPLE_CHUNK))
            return itertools.chain.from_iterable(self.tuples(chunk, names) for chunk in chunks)
        lists: list[Any] = [axis.coordinates[0].listed for axis in self.axes]
        if not lists:
            return iter([()][start:stop])
        return itertools.chain.from_iterable(itertools.product(*piece) for piece in pieces(lists, start, stop))

    def keys(self, indices: Indices, names: Collection[str]) -> Keys:
        """Return the sum mod 2**128 of the digests of `names` at listed indices."""
        total = np.zeros((len(indices), 2), dtype=np.uint64)
        for dimension, axis in enumerate(self.axes):
            if set(axis.names) & set(names):
                add_keys(total, self._axis_keys(axis, self.rows(indices, dimension), names))
        return total

    def _axis_keys(self, axis: Axis, rows: Indices, names: Collection[str]) -> Keys:
        if axis.size > len(rows):
            return axis.keys_at(rows, names)
        return axis.keys_at(np.arange(axis.size), names)[rows]


def pieces(lists: Sequence[Any], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
    """Yield sub-lists whose products, chained, are the range [start, stop) of the product of `lists`.

    At most 2 * len(lists) - 1 pieces: a ragged start, a body of whole inner products, a ragged end, at each level.
    """
    if start >= stop:
        return
    if len(lists) == 1:
        yield (lists[0][start:stop],)
        return
    inner = math.prod(map(len, lists[1:]))
    first, head = divmod(start, inner)
    last, tail = divmod(stop, inner)
    if first == last:
        yield from _under(lists, first, head, tail)
        return
    if head:
        yield from _under(lists, first, head, inner)
        first += 1
    if first < last:
        yield (lists[0][first:last], *lists[1:])
    yield from _under(lists, last, 0, tail)


def _under(lists: Sequence[Any], row: int, start: int, stop: int) -> Iterator[tuple[Sequence[Any], ...]]:
    for piece in pieces(lists[1:], start, stop):
        yield (lists[0][row : row + 1], *piece)


def constant_key(constants: Mapping[str, Any], names: Collection[str]) -> Keys:
    """Return the sum mod 2**128 of the digests of constants that are not among `names`, uint64[2]."""
    total = np.zeros((1, 2), dtype=np.uint64)
    for name, value in constants.items():
        if name not in names:
            add_keys(total, digests(name, [canonical(value)]))
    key: Keys = total[0]
    return key
