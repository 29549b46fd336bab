"""Orders in which the points of a product of axes are visited, computed for any window of the order at a time.

*Coarse* order spreads every prefix of the work over the whole grid. Consecutive points walk through the longest
axis in bit-reversed order (van der Corput), and every shorter axis follows with a shift coprime to its size, as
in a rank-1 lattice. So each run of as many points as the longest axis has values visits every value of every
axis equally often, up to one; later runs start at bit-reversed offsets. The rows visited first are multiples of large
powers of two, which alone would leave an axis of two, four or eight values where it is: see `steps`. The rule is a
bijection computed for any window of the order at a time, so nothing is permuted in memory. Where points are cheap it
orders *tiles* of consecutive listed indices instead of points, so that a block remains a few index ranges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

ORDERS = ("coarse", "listed", "random", "longest-first")


def spread(starts: Indices, lengths: Indices) -> Indices:
    """Return the concatenation of `arange(start, start + length)`."""
    offsets = np.cumsum(lengths) - lengths
    indices: Indices = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - offsets, lengths)
    return indices


def bit_reversed(size: int) -> Indices:
    """Return the numbers below `size` in bit-reversed order: 0, a half, a quarter, three quarters, ..."""
    order = np.zeros(1, dtype=np.int64)
    while len(order) < size:
        # One bit more: the low bit of a place is the high bit of its number.
        order = np.stack([order, order + len(order)], axis=1).reshape(-1)
    return order[order < size]


def steps(rows: Indices, size: int) -> Indices:
    """Return how many steps an axis of `size` values takes while a longer one comes to its rows, modulo `size`.

    One for each row, so that among `size` rows in a row none is like another. Where `size` is even, rows that are
    multiples of powers of two would be alike nonetheless; so from one lot of `size` rows to the next its even part goes
    on by the sum of the digits of the lot's number.
    """
    even = size & -size
    taken = rows
    lots = rows // size
    while even > 1 and lots.any():
        taken = taken + size // even * (lots % even)
        lots = lots // even
    return taken


def coprime_near(target: float, size: int) -> int:
    """Return the whole number coprime to `size` nearest to `target`, below `size`; 0 if `size` is 1."""
    if size == 1:
        return 0
    middle = min(max(round(target), 1), size - 1)
    for distance in range(size):
        for candidate in (middle + distance, middle - distance):
            if 0 < candidate < size and math.gcd(candidate, size) == 1:
                return candidate
    return 1


class Tiles:
    """A product of axes cut into runs of consecutive indices: whole inner axes, some labels of the one around them."""

    def __init__(self, shape: Sequence[int], base: int, length: int):
        cut = len(shape)
        inner = 1
        while cut and inner * shape[cut - 1] <= length:
            cut -= 1
            inner *= shape[cut]
        self.base = base
        self.outer = tuple(shape[: max(cut - 1, 0)])
        edge = shape[cut - 1] if cut else 1
        self.edge = edge
        pieces = -(-edge // max(1, length // inner))
        self.run = -(-edge // pieces)
        self.inner = inner
        self.counts = (*self.outer, -(-edge // self.run))
        self.units = math.prod(self.counts)
        self.strides = [math.prod(shape[dimension + 1 :]) for dimension in range(len(self.outer))]

    def spans(self, rows: Sequence[Indices]) -> tuple[Indices, Indices]:
        """Return start and length of the tiles with these rows along each axis."""
        last = rows[-1] * self.run
        starts = self.base + last * self.inner
        for row, stride in zip(rows, self.strides, strict=False):
            starts = starts + row * stride
        return starts, np.minimum(self.run, self.edge - last) * self.inner

    def spans_of(self, units: Indices) -> tuple[Indices, Indices]:
        """Return start and length of tiles by their number in listed order."""
        return self.spans([row.astype(np.int64) for row in np.unravel_index(units, self.counts)])


class _Coarse:
    """The order that covers a grid evenly; see the module."""

    def __init__(self, tiles: Tiles):
        self.tiles = tiles
        sizes = tiles.counts
        self.axes = sorted(range(len(sizes)), key=lambda axis: -sizes[axis])
        self.reversed = [bit_reversed(sizes[axis]) for axis in self.axes]
        # The root of x**(d+1) = x + 1 makes the best known rank-1 lattice rule of this simple form in any dimension.
        root = 2.0
        for _ in range(64):
            root = (1 + root) ** (1 / (len(sizes) + 1))
        self.shifts = [
            [coprime_near(sizes[axis] * (root ** -(place + number + 1) % 1), sizes[axis]) for number in range(place)]
            for place, axis in enumerate(self.axes)
        ]

    def window(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Return start and length of the tiles from one place of the order to another."""
        time = np.arange(start, stop, dtype=np.int64)
        rows: list[Indices] = [time] * len(self.axes)
        found: list[Indices] = []
        for order, axis, shifts in zip(self.reversed, self.axes, self.shifts, strict=True):
            time, digit = np.divmod(time, len(order))
            row = order[digit]
            # Within a run only the longest axis moves, so it alone shifts the others; later digits shift whole runs.
            found.append(row)
            for shift, earlier in zip(shifts, found, strict=False):
                row = row + shift * steps(earlier, len(order))
            rows[axis] = row % len(order)
        return self.tiles.spans(rows)


class _Listed:
    """Listed order."""

    def __init__(self, tiles: Tiles):
        self.tiles = tiles

    def window(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Return start and length of the tiles from one place of the order to another."""
        return self.tiles.spans_of(np.arange(start, stop, dtype=np.int64))


class _Permuted:
    """An explicit permutation of tiles."""

    def __init__(self, tiles: Tiles, permutation: npt.NDArray[Any]):
        self.tiles = tiles
        self.permutation = permutation

    def window(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Return start and length of the tiles from one place of the order to another."""
        return self.tiles.spans_of(self.permutation[start:stop].astype(np.int64))


Order = _Coarse | _Listed | _Permuted


@dataclass(frozen=True)
class Ordering:
    """Which order, and what it needs to know."""

    name: str
    seed: int
    costs: npt.NDArray[np.float64] | None = None

    def of(self, tiles: Tiles) -> Order:
        """Return the order of some tiles."""
        if self.name == "coarse":
            return _Coarse(tiles)
        if self.name == "listed":
            return _Listed(tiles)
        numbers = np.arange(tiles.units, dtype=np.int32 if tiles.units < 2**31 else np.int64)
        if self.name == "random":
            np.random.default_rng([self.seed, tiles.base]).shuffle(numbers)
            return _Permuted(tiles, numbers)
        if self.costs is None:
            # Nothing is known; people list sizes upwards, so the last points are the best guess at the long ones.
            return _Permuted(tiles, numbers[::-1])
        starts, lengths = tiles.spans_of(numbers.astype(np.int64))
        sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(self.costs))])
        mean = (sums[starts + lengths] - sums[starts]) / lengths
        return _Permuted(tiles, np.argsort(-mean, kind="stable"))
