"""Some elements of an array over points: a slice, runs of neighbours, or a list of indices.

Blocks are runs of neighbours. Copying long runs takes a tenth of the time of an index per point, and a hundred runs are
a kilobyte of the log where half a million indices are four megabytes. Runs shorter than about 300 points are copied by
their indices all the same: a slice costs a quarter of a microsecond, an index less than a nanosecond.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_CODES = 256
_CHUNK = 1 << 16
# Runs shorter than this on average cost more one by one than an index per element.
_LONG = 300


@dataclass(frozen=True, eq=False)
class Spans:
    """Half-open ranges of distinct indices, one after another.

    Parameters
    ----------
    pairs : tuple of (int, int)
    """

    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, flat: Iterable[int]) -> "Spans":
        """Read what `flat` gave.

        Raises
        ------
        ValueError
            If a stop is missing.
        """
        numbers = [int(number) for number in flat]
        return cls(tuple(zip(numbers[::2], numbers[1::2], strict=True)))

    @property
    def flat(self) -> list[int]:
        """Starts and stops in one list, for JSON."""
        return [number for pair in self.pairs for number in pair]

    @cached_property
    def size(self) -> int:
        """Number of indices."""
        return sum(stop - start for start, stop in self.pairs)

    @cached_property
    def listed(self) -> Integers:
        """All of them, int64[size]."""
        pairs = np.array(self.pairs, np.int64).reshape(-1, 2)
        lengths = pairs[:, 1] - pairs[:, 0]
        ends = np.cumsum(lengths)
        found: Integers = np.arange(self.size) + np.repeat(pairs[:, 0] - (ends - lengths), lengths)
        return found

    @cached_property
    def long(self) -> bool:
        """Whether the ranges are worth to be copied one by one."""
        return self.size >= _LONG * len(self.pairs)


Where = slice | Integers | Spans


@dataclass(frozen=True, eq=False)
class Table:
    """Where each index of one array stands in another.

    Extending a grid keeps most neighbours together. Then runs stay runs, which are copied in a tenth of the time.

    Parameters
    ----------
    places : int64[n]
        -1 for what is not there.
    """

    places: Integers

    @cached_property
    def complete(self) -> bool:
        """Whether everything is there."""
        return not self.places.size or int(self.places.min()) >= 0

    @cached_property
    def _runs(self) -> tuple[list[int], list[int]] | None:
        """Starts of runs, one more for the end, and the place of each start; None where indices are cheaper."""
        places = self.places
        if not places.size or not self.complete:
            return None
        found, count = [np.zeros(1, np.int64)], 1
        # Piece by piece: fresh megabytes cost more than the arithmetic.
        for low in range(0, places.size - 1, _CHUNK):
            piece = places[low : low + _CHUNK + 1]
            found.append(np.flatnonzero(piece[1:] - piece[:-1] != 1) + (low + 1))
            count += found[-1].size
            if count * _LONG > places.size:
                return None
        starts = np.concatenate(found)
        return [*starts.tolist(), places.size], places[starts].tolist()

    def of(self, index: "range | Where") -> Where:
        """Return the places of some indices, one for each; -1 for those that are outside of the table."""
        pairs = _pairs(index)
        if pairs is not None and all(start >= 0 and stop <= self.places.size for start, stop in pairs):
            if self._runs is not None:
                return Spans(tuple(_through(pairs, *self._runs)))
            if len(pairs) == 1:
                return self.places[slice(*pairs[0])]
        listed = np.arange(index.start, index.stop) if isinstance(index, range) else indices_of(index)
        inside = (listed >= 0) & (listed < self.places.size)
        if inside.all():
            return self.places[listed]
        found = np.full(listed.size, -1, np.int64)
        found[inside] = self.places[listed[inside]]
        return found


def _pairs(index: "range | Where") -> Sequence[tuple[int, int]] | None:
    if isinstance(index, Spans):
        return index.pairs
    return [(index.start, index.stop)] if isinstance(index, range | slice) else None


def _through(pairs: Iterable[tuple[int, int]], starts: list[int], places: list[int]) -> Iterator[tuple[int, int]]:
    """Yield where ranges go, cut where runs of a table end."""
    for start, stop in pairs:
        run = bisect_right(starts, start) - 1
        while start < stop:
            end = min(stop, starts[run + 1])
            place = places[run] + start - starts[run]
            yield place, place + end - start
            start, run = end, run + 1


def indices_of(where: Where) -> Integers:
    """Return indices one by one, int64[k]."""
    if isinstance(where, slice):
        return np.arange(where.start, where.stop)
    return where.listed if isinstance(where, Spans) else where


def take(array: npt.NDArray[Any], where: Where) -> npt.NDArray[Any]:
    """Return elements of an array, a view of it for a slice."""
    if not isinstance(where, Spans):
        return array[where]
    if not where.long:
        return array[where.listed]
    return np.concatenate([array[start:stop] for start, stop in where.pairs] or [array[:0]])


def put(array: npt.NDArray[Any], where: Where, values: Any) -> None:
    """Set elements of an array to one value each, or to one for all."""
    if not isinstance(where, Spans):
        array[where] = values
        return
    values = np.asarray(values)
    if not where.long:
        array[where.listed] = values
        return
    at = 0
    for start, stop in where.pairs:
        # One value for all has fewer dimensions than the array, or one along it.
        single = values.ndim < array.ndim or len(values) == 1
        array[start:stop] = values if single else values[at : at + stop - start]
        at += stop - start


@dataclass(frozen=True, eq=False)
class Move:
    """Where the elements of an array are in a larger one.

    Parameters
    ----------
    size : int
        Of the larger one.
    kept : int64[k] or None
        The elements that move, ascending; None for all.
    where : slice, Spans or int64[k]
        The place of each of these.
    """

    size: int
    kept: Integers | None
    where: Where

    def taken(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the elements that move."""
        return array if self.kept is None else array[self.kept]

    def array(self, array: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        """Return the larger array, `fill` where nothing moved to."""
        found = np.full((self.size, *array.shape[1:]), fill, array.dtype)
        put(found, self.where, self.taken(array))
        return found

    def of(self, indices: Integers) -> Integers:
        """Return the places of elements that move."""
        rows = indices if self.kept is None else np.searchsorted(self.kept, indices)
        return indices_of(self.where)[rows]


def tallied(codes: npt.NDArray[np.uint8]) -> Integers:
    """Count codes, int64[256]; `numpy.bincount` would make eight bytes of every one of them first."""
    counts = np.zeros(_CODES, np.int64)
    if not codes.any():
        counts[0] = codes.size
        return counts
    for start in range(0, codes.size, _CHUNK):
        counts += np.bincount(codes[start : start + _CHUNK], minlength=_CODES)
    return counts
