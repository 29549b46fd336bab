"""Where the setups of one part of a grid begin, of any lengths: rows of ragged loops are grouped by their outer ones.

Points of one prefix are consecutive in the *arranged* listing: the listing itself wherever loops made it, and the rows
of the ragged axis gathered by their outer labels where somebody lengthened it afterwards. Nothing here is an object per
point or per prefix; what is computed for all prefixes is an array.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.axes import Axis, Coordinate
from mce_notebook.declare.parts import Part
from mce_notebook.lanes import Block, Lane, Mask, blocks_of
from mce_notebook.order import Indices, Ordering, Tiles, spread

# How many outermost axes are around a setup, and which coordinates of the next one, of ragged loops, are too.
Level = tuple[int, tuple[str, ...]]


class Prefixes:
    """The setup prefixes of one part.

    Parameters
    ----------
    part : Part
    base : int
        Listed index at which the part starts.
    todo : ndarray of bool, shape (part.size,)
        What is to compute, changed here when points are taken and given back.
    ordering : Ordering
        Of prefixes, and of the points in each.
    levels : sequence of Level
        The setups, outermost first; blocks are made for the innermost.

    Attributes
    ----------
    count : int
        Number of prefixes of the innermost setup.
    totals : ndarray of int64, shape (count,)
        How many points of each are to compute.
    """

    def __init__(self, part: Part, base: int, todo: Mask, ordering: Ordering, levels: Sequence[Level]):
        self.base = base
        self.shape = part.shape
        self.levels = [fitted(part, level) for level in levels]
        depth, names = self.levels[-1]
        self.depth = depth
        self.split = bool(names)
        self.rows = self.shape[depth] if names else 1
        self.inner = math.prod(self.shape[depth + self.split :])
        self.codes = [group_codes(part.axes[axis], inside) if inside else None for axis, inside in self.levels]
        self.rank = self._arrangement(ordering) if names else None
        self.sorted_rows = None if self.rank is None else np.argsort(self.rank)
        self.starts = self._group_starts()
        self.groups = len(self.starts) - 1
        self.count = math.prod(self.shape[:depth]) * self.groups
        self.todo = todo if self.sorted_rows is None else self._arranged(todo)
        costs = None if ordering.costs is None else ordering.costs[base : base + part.size]
        self.ordering = replace(ordering, costs=costs if costs is None else self._arranged(costs))
        self.lows = self._lows()
        self.totals: Indices = np.add.reduceat(self.todo, self.lows, dtype=np.int64)

    # Rows of the ragged axis

    def _arrangement(self, ordering: Ordering) -> Indices | None:
        """Return the place of every row of the ragged axis once its groups are together; None where they are."""
        own = [code for (axis, _), code in zip(self.levels, self.codes, strict=True) if axis == self.depth]
        codes = [code for code in own if code is not None]
        if all(bool((code[1:] >= code[:-1]).all()) for code in codes) or ordering.name == "listed":
            # In listed order a group that comes twice is set up twice.
            return None
        rows = np.lexsort(codes[::-1])
        rank = np.empty_like(rows)
        rank[rows] = np.arange(len(rows))
        return rank

    def _group_starts(self) -> Indices:
        """Return the first arranged row of every innermost group, and the number of rows at the end."""
        code = self.codes[-1]
        if code is None:
            return np.array([0, 1], dtype=np.int64)
        code = code if self.sorted_rows is None else code[self.sorted_rows]
        return np.concatenate([[0], np.flatnonzero(code[1:] != code[:-1]) + 1, [self.rows]]).astype(np.int64)

    def _arranged(self, flags: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.sorted_rows is None:
            return flags
        return np.ascontiguousarray(flags.reshape(-1, self.rows, self.inner)[:, self.sorted_rows]).reshape(-1)

    # Prefixes

    def _lows(self) -> Indices:
        outer = np.arange(self.count // self.groups, dtype=np.int64) * self.rows
        lows: Indices = ((outer[:, None] + self.starts[:-1]) * self.inner).reshape(-1)
        return lows

    def lengths(self, numbers: Indices) -> Indices:
        """Return how many listed points prefixes have."""
        groups = numbers % self.groups
        lengths: Indices = (self.starts[groups + 1] - self.starts[groups]) * self.inner
        return lengths

    def number(self, indices: Indices) -> Indices:
        """Return the prefix of listed indices."""
        return np.searchsorted(self.lows, self._places(indices), side="right") - 1

    def _places(self, indices: Indices) -> Indices:
        """Return where listed indices are in the arranged listing."""
        local = indices - self.base
        if self.rank is None:
            return local
        rows, offsets = np.divmod(local, self.inner)
        outer, row = np.divmod(rows, self.rows)
        found: Indices = (outer * self.rows + self.rank[row]) * self.inner + offsets
        return found

    def order(self) -> tuple[Indices, Indices]:
        """Return the prefixes with something to do in the order they are begun in, and the outermost one of each.

        Prefixes of an inner setup that share an outer one follow each other.
        """
        numbers = self._first_order()
        numbers = numbers[self.totals[numbers] > 0]
        families = [self._family(numbers, level) for level in range(len(self.levels) - 1)]
        if not families or self.ordering.name == "listed":
            return numbers, families[0] if families else numbers
        ranks = [_first_seen(family) for family in families]
        along = np.lexsort(ranks[::-1])
        return numbers[along], families[0][along]

    def _first_order(self) -> Indices:
        """Return all prefixes in the order that the innermost setup alone would have."""
        costs = self.ordering.costs
        if self.ordering.name == "longest-first" and costs is not None:
            sums = np.add.reduceat(np.where(self.todo, np.nan_to_num(costs), 0.0), self.lows)
            return np.argsort(-sums, kind="stable")
        shape = (*self.shape[: self.depth], self.groups)
        return replace(self.ordering, costs=None).of(Tiles(shape, 0, 1)).window(0, self.count)[0]

    def _family(self, numbers: Indices, level: int) -> Indices:
        """Return the prefix of an outer setup that prefixes of the innermost one belong to."""
        axis, _ = self.levels[level]
        outer, group = np.divmod(numbers, self.groups)
        code = self.codes[level]
        around = outer // math.prod(self.shape[axis : self.depth])
        if code is None:
            return around
        if axis == self.depth:
            first = self.starts[:-1] if self.sorted_rows is None else self.sorted_rows[self.starts[:-1]]
            inside = code[first][group]
        else:
            inside = code[outer // math.prod(self.shape[axis + 1 : self.depth]) % self.shape[axis]]
        family: Indices = around * (int(code.max()) + 1) + inside
        return family

    # Points

    def lane(self, number: int) -> Lane:
        """Return what draws the points of a prefix."""
        low = int(self.lows[number])
        inner = self.shape[self.depth + self.split :]
        group = number % self.groups
        shape = (int(self.starts[group + 1] - self.starts[group]), *inner) if self.split else inner
        return Lane(shape or (1,), low, self.todo, self.ordering)

    def whole(self, numbers: Indices) -> list[Block]:
        """Take all that is left of some prefixes."""
        numbers = np.sort(numbers)
        places = spread(self.lows[numbers], self.lengths(numbers))
        places = places[self.todo[places]]
        self.todo[places] = False
        return self.listed(blocks_of(places))

    def listed(self, blocks: list[Block]) -> list[Block]:
        """Return blocks of arranged places as blocks of listed indices."""
        if self.sorted_rows is None:
            return [_moved(block, self.base) for block in blocks] if self.base else blocks
        return [found for block in blocks for found in self._relisted(block)]

    def _relisted(self, block: Block) -> list[Block]:
        assert self.sorted_rows is not None
        rows, offsets = np.divmod(block.indices(), self.inner)
        outer, row = np.divmod(rows, self.rows)
        indices = (outer * self.rows + self.sorted_rows[row]) * self.inner + offsets + self.base
        return blocks_of(np.sort(indices))

    def restore(self, indices: Indices) -> tuple[Indices, Indices]:
        """Note that points are to do again; return their prefixes and how many points of each."""
        places = self._places(indices)
        self.todo[places] = True
        return np.unique(np.searchsorted(self.lows, places, side="right") - 1, return_counts=True)


def _moved(block: Block, by: int) -> Block:
    return Block(tuple((start + by, stop + by) for start, stop in block.ranges))


def _first_seen(families: Indices) -> Indices:
    """Return numbers that grow as families appear."""
    _, first, inverse = np.unique(families, return_index=True, return_inverse=True)
    ranks: Indices = first[inverse]
    return ranks


def fitted(part: Part, level: Level) -> Level:
    """Return how deep a setup is in a part: around it are the first axes, and some coordinates of the next.

    A part whose axes are others, or in another order, gets finer prefixes than it need have, never coarser ones.
    """
    depth, names = level
    around = {name for axis in part.axes[:depth] for name in axis.names} | set(names)
    last = max((at for at, axis in enumerate(part.axes) if around & set(axis.names)), default=-1)
    if last < 0:
        return 0, ()
    inside = tuple(name for name in part.axes[last].names if name in around)
    return (last + 1, ()) if len(inside) == len(part.axes[last].names) else (last, inside)


def group_codes(axis: Axis, names: Sequence[str]) -> Indices:
    """Return a number for every row of an axis: the same where some coordinates are, in the order they appear."""
    columns = [column for column in axis.coordinates if column.name in names]
    breaks = np.zeros(max(axis.size - 1, 0), dtype=np.bool_)
    for column in columns:
        breaks |= _differs(column)
    runs = np.cumsum(np.concatenate([[0], breaks])).astype(np.int64)
    heads = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    keys = np.zeros(len(heads), dtype=np.int64)
    for column in columns:
        _, inverse = np.unique(_identity(column, heads), return_inverse=True)
        # Renumbered after each column, so that products of many cannot overflow.
        _, keys = np.unique(keys * (int(inverse.max()) + 1) + inverse, return_inverse=True)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(heads):
        return runs
    # A group that comes again later has the number of its first appearance.
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    found: Indices = rank[inverse][runs]
    return found


def _identity(column: Coordinate, rows: Indices) -> npt.NDArray[Any]:
    """Return what tells values of a column apart, for some rows."""
    if column.typed is None:
        return column.labels[rows]
    digests = column.digests_at(rows)
    return digests[:, 0] ^ digests[:, 1]


def _differs(column: Coordinate) -> Mask:
    """Return where a column changes from one row to the next."""
    values = _identity(column, np.arange(len(column)))
    changes: Mask = values[1:] != values[:-1]
    if values.dtype.kind in "fcMm":
        changes &= ~(np.isnan(values[1:]) & np.isnan(values[:-1]))
    return changes
