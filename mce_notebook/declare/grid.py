"""Grids: products, zips and concatenations of axes, with guards, that number their points without ever listing them.

The *listed index* of a point is its position in the unguarded grid: parts one after another, each in C order of
its axes, first axis slowest, as nested loops would visit them.
"""

import itertools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare import matching, records, selection
from mce_notebook.declare.axes import Axis, Coordinate, Natives, add_keys, check_rows
from mce_notebook.declare.columns import axis_from, coordinate
from mce_notebook.declare.guards import Guard, Mask, Slow, make_guard
from mce_notebook.declare.parts import Indices, Keys, Part, constant_key
from mce_notebook.declare.seeds import Replicates, replicates
from mce_notebook.declare.values import Token
from mce_notebook.errors import GridError

__all__ = [
    "Axis",
    "Coordinate",
    "Grid",
    "Guard",
    "Natives",
    "Part",
    "Status",
    "axis_from",
    "coordinate",
    "grid",
    "zipped",
]


class Status(IntEnum):
    """What is known about a point; the codes are written in stores and never change."""

    PENDING = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3
    KILLED = 4
    TIMEOUT = 5
    SKIPPED = 6
    STALE = 7


@dataclass(frozen=True, eq=False)
class Grid:
    """A design: the points at which an experiment is evaluated.

    Combine grids with `*` (every combination), `+` (one after the other) and `where` (conditions).

    Examples
    --------
    >>> design = grid(n=[100, 200], rho=[0.1, 0.5]) * zipped(a=[1, 2], b=[3, 4])
    >>> design.size, design.names
    (8, ('n', 'rho', 'a', 'b'))
    >>> int(design.where("rho * n > 10").mask().sum())
    6
    """

    parts: tuple[Part, ...]
    _mask: Mask | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise GridError("A grid needs at least one axis; write grid(n=[1, 2, 3]).")
        selection.check_parts(self.parts)

    def __repr__(self) -> str:
        shown = " + ".join(
            " x ".join(f"{'/'.join(axis.names)} ({axis.size})" for axis in part.axes) for part in self.parts
        )
        guards = {str(guard) for part in self.parts for guard in part.guards}
        return f"<grid {shown}{' where ' + ' and '.join(sorted(guards)) if guards else ''}: {self.size} listed points>"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates in order of first appearance."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(part.names for part in self.parts)))

    @cached_property
    def size(self) -> int:
        """Number of listed points, before guards."""
        return int(self.starts[-1])

    @cached_property
    def starts(self) -> Indices:
        """Listed index at which each part starts, and the size at the end; int64[parts + 1]."""
        return np.cumsum([0, *(part.size for part in self.parts)], dtype=np.int64)

    @property
    def shared(self) -> tuple[str, ...]:
        """Axes that random streams do not depend on (common random numbers)."""
        axes = itertools.chain.from_iterable(part.axes for part in self.parts)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(axis.shared for axis in axes)))

    # Algebra

    def __mul__(self, other: "Grid") -> "Grid":
        return Grid(
            tuple(
                Part((*left.axes, *right.axes), (*left.guards, *right.guards))
                for left, right in itertools.product(self.parts, other.parts)
            )
        )

    def __add__(self, other: "Grid") -> "Grid":
        return Grid((*self.parts, *other.parts))

    def where(self, condition: str | Callable[..., Any], **constants: Any) -> "Grid":
        """Keep only points that meet a condition.

        Parameters
        ----------
        condition : str or callable
            A Python expression over axes, such as `"rho * n > 5"`, or a function whose parameters are axes.
        **constants
            Other names the expression reads.

        Raises
        ------
        GridError
            If the condition is no expression or reads what is no axis.
        """
        guard = make_guard(condition, self.names, constants)
        # A part without one of its axes has nothing the condition could be about.
        return Grid(tuple(part.guarded(guard) if set(guard.names) <= set(part.names) else part for part in self.parts))

    def extended(self, **values: Any) -> "Grid":
        """Return this grid with more values on some axes; values already there count once.

        `replicates=n` raises the number of repetitions to `n`. Coordinates of one zipped axis are extended together.

        Raises
        ------
        GridError
            For a name that is no axis, or some but not all coordinates of a zipped axis.
        """
        return selection.extended(self, values)

    # Points

    def mask(self, *, slow: Slow | None = None) -> Mask | None:
        """Return which listed points belong to the design, bool[size]; None if all do.

        Guards leave points out, and so does a part that repeats a point of an earlier one.

        Parameters
        ----------
        slow : callable, optional
            Called with (guard, iterator of tuples of its axes) instead of running a guard that NumPy cannot
            evaluate here; returns one bool a tuple.

        Raises
        ------
        GridError
            If a guard raises, naming the point; or if its code is not known here.
        """
        if self._mask is None:
            object.__setattr__(self, "_mask", matching.mask(self.parts, slow))
        # An empty array stands for `all points`, so that looking twice does not evaluate twice.
        return None if self._mask is None or not len(self._mask) else self._mask

    def points(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[Any, ...]]:
        """Yield the values of `names` of a range of listed indices, about 6 ns a point; None where a part lacks one."""
        stop = self.size if stop is None else min(stop, self.size)
        for part, low in zip(self.parts, self.starts.tolist(), strict=False):
            if start < low + part.size and stop > low:
                yield from part.span(max(start - low, 0), min(stop - low, part.size), self.names)

    def points_at(self, indices: Indices) -> Iterator[tuple[Any, ...]]:
        """Yield the values of `names` at listed indices in any order."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(self.parts) == 1:
            return self.parts[0].tuples(indices, self.names)
        owners = np.searchsorted(self.starts, indices, side="right") - 1
        cuts = np.flatnonzero(np.diff(owners)) + 1
        runs = zip(np.split(indices, cuts), np.split(owners, cuts), strict=True)
        return itertools.chain.from_iterable(
            self.parts[owner[0]].tuples(run - self.starts[owner[0]], self.names) for run, owner in runs if len(run)
        )

    def points_in(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of `names` over half-open ranges of listed indices, the faster way for their lengths."""
        ranges = list(ranges)
        if sum(stop - start for start, stop in ranges) >= 64 * len(ranges):
            return itertools.chain.from_iterable(itertools.starmap(self.points, ranges))
        return self.points_at(np.concatenate([np.arange(*bounds) for bounds in ranges] or [np.empty(0, np.int64)]))

    def point(self, index: int) -> dict[str, Any]:
        """Return the labels of one point by name."""
        part, local = self.locate(index)
        labels = part.labels_at(local)
        return {name: labels[name] for name in self.names if name in labels}

    def locate(self, index: int) -> tuple[Part, int]:
        """Return the part that holds a listed index, and the index inside it."""
        if not 0 <= index < self.size:
            raise GridError(f"There is no point {index}; the grid lists points 0 to {self.size - 1}.")
        owner = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[owner], int(index - self.starts[owner])

    def prefixes(self, depth: int) -> int:
        """Return how many listed points share the values of the first `depth` axes, in the first part."""
        return int(np.prod(self.parts[0].shape[depth:], dtype=np.int64))

    def names_below(self, index: int, depth: int) -> tuple[str, ...]:
        """Return the names of the axes inside the first `depth` ones, in the part that holds a listed index."""
        part, _ = self.locate(index)
        return tuple(itertools.chain.from_iterable(axis.names for axis in part.axes[depth:]))

    # Identity

    def keys(
        self,
        indices: Indices | slice,
        *,
        without: Collection[str] = (),
        constants: Mapping[str, Any] | None = None,
    ) -> Keys:
        """Return point keys, uint64[n, 2] (low, high word): the sum mod 2**128 of blake2b-128(name, canonical value).

        A sum does not mind order, and constants are added like axes, so a constant that becomes an axis keeps the keys.

        Parameters
        ----------
        indices : ndarray or slice
            Listed indices.
        without : collection of str
            Names left out, for streams that do not depend on them.
        constants : mapping, optional
            Simple values that belong to the identity; an axis of the same name wins.
        """
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(self.size))
        indices = np.asarray(indices, dtype=np.int64)
        named = [name for name in self.names if name not in without]
        total = np.empty((len(indices), 2), dtype=np.uint64)
        owners = np.searchsorted(self.starts, indices, side="right") - 1 if len(self.parts) > 1 else None
        for number, part in enumerate(self.parts):
            here: Any = slice(None) if owners is None else np.flatnonzero(owners == number)
            keys = part.keys(indices[here] - self.starts[number], named)
            # A part that lacks a name gives the function None for it.
            absent = {name: None for name in named if name not in part.names}
            add_keys(keys, constant_key({**absent, **_kept(constants, without, self.names)}, ()))
            total[here] = keys
        return total

    def index(self, **labels: Any) -> int:
        """Return the listed index of the point with these labels.

        Floats match within 1e-12 relative. Axes with a single value may be left out.

        Raises
        ------
        GridError
            For names that are no axes, axes left open, labels that are not there; the nearest label is named.
        """
        return selection.index(self, labels)

    def positions(
        self,
        other: "Grid",
        constants: Mapping[str, Any] | None = None,
        other_constants: Mapping[str, Any] | None = None,
    ) -> Indices:
        """Return the listed index in this grid of every point of another, int64[other.size]; -1 where absent.

        Parameters
        ----------
        other : Grid
        constants, other_constants : mapping, optional
            Simple values that belong to the identity of the points of this grid, and of the other. Where one
            side has an axis and the other a constant of the same name, points match at that value.
        """
        return matching.positions(self, other, constants or {}, other_constants or {})

    def snap(self, earlier: Iterable["Grid"]) -> "Grid":
        """Return this grid with floats that lie within 1e-12 relative of a label of an earlier grid replaced by it."""
        return selection.snap(self, earlier)

    def with_tokens(self, token: Token) -> "Grid":
        """Return this grid with objects identified by `token`, such as a digest of the code they reach."""
        return selection.with_tokens(self, token)

    # Records

    def to_record(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Return a JSON form without objects, and the columns of more than 1,000 entries that it refers to by name."""
        return records.grid_record(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], tables: Mapping[str, Any]) -> "Grid":
        """Return the grid that `to_record` wrote; nothing in it is executed, and objects come back as labels."""
        parts, mask = records.read_grid(record, tables)
        return cls(parts, mask)

    def object_values(self) -> dict[str, list[Any]]:
        """Return what records cannot hold, to be pickled: values by `part/name`, guards by `part/all guards`."""
        values: dict[str, list[Any]] = {
            key: list(column.values)
            for key, column in self._columns()
            if column.kind == "object" and column.values is not None
        }
        for number, part in enumerate(self.parts):
            if not all(guard.recordable for guard in part.guards):
                # No name of a coordinate has a blank in it.
                values[f"{number}/all guards"] = list(part.guards)
        return values

    @property
    def whole(self) -> bool:
        """Whether every value and every guard is here, and not only what records keep of them."""
        known = all(column.values is not None for _, column in self._columns())
        return known and all(guard.whole for part in self.parts for guard in part.guards)

    def with_object_values(self, values: Mapping[str, Sequence[Any]], live: "Grid | None" = None) -> "Grid":
        """Return this grid with the values that `object_values` gave; those `live` has too are taken from there."""
        return selection.with_object_values(self, values, live)

    def _columns(self) -> Iterator[tuple[str, Coordinate]]:
        for number, part in enumerate(self.parts):
            for name, (_, column) in part.coordinates.items():
                yield f"{number}/{name}", column


def _kept(constants: Mapping[str, Any] | None, without: Collection[str], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in (constants or {}).items() if name not in without and name not in names}


def grid(**axes: Any) -> Grid:
    """Return the grid of every combination of the values of some axes, the last axis fastest.

    Parameters
    ----------
    **axes
        Values of each axis: any list, range or array; `{"label": object}` or a list of `("label", object)` for
        objects with names of their own; `replicates=20` to repeat every point with independent random streams.

    Raises
    ------
    GridError
        For an axis without values or with one twice, a name that cannot be used, values that cannot be listed.

    Examples
    --------
    >>> grid(n=[10, 20], rho=[0.1, 0.2, 0.3], replicates=2).size
    12
    """
    if not axes:
        raise GridError("A grid needs at least one axis; write grid(n=[1, 2, 3]).")
    return reduce(operator.mul, [_factor(name, values) for name, values in axes.items()])


def _factor(name: str, values: Any) -> Grid:
    if isinstance(values, Grid):
        raise GridError(f"{name}=... got a grid; multiply grids instead: grid(...) * other.")
    if name == "replicates" and not isinstance(values, Replicates):
        values = replicates(values)
    if name == "replicates":
        name = "replicate"
    return Grid((Part((axis_from(name, values, pairs=True),)),))


def zipped(**columns: Any) -> Grid:
    """Return the grid of one axis with several coordinates that advance together.

    Raises
    ------
    GridError
        If the columns have different lengths, or a row is there twice.

    Examples
    --------
    >>> list(zipped(a=[1, 2], b=["x", "y"]).points())
    [(1, 'x'), (2, 'y')]
    """
    if len(columns) < 2:
        raise GridError(
            "zipped needs at least two columns; write zipped(a=[1, 2], b=[3, 4]), or grid(a=[1, 2]) for one."
        )
    found = tuple(coordinate(name, values, pairs=True) for name, values in columns.items())
    return Grid((Part((check_rows(Axis(found, "zip")),)),))
