"""Some elements of an array over points: a slice, runs of neighbours, or a list of indices.

Blocks are runs of neighbours. Copying runs takes a tenth of the time of an index per point, and a hundred runs are a
kilobyte of the log where half a million indices are four megabytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_CODES = 256
_CHUNK = 1 << 16


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
        pieces = [np.arange(start, stop, dtype=np.int64) for start, stop in self.pairs]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


Where = slice | Integers | Spans


def indices_of(where: Where) -> Integers:
    """Return indices one by one, int64[k]."""
    if isinstance(where, slice):
        return np.arange(where.start, where.stop)
    return where.listed if isinstance(where, Spans) else where


def take(array: npt.NDArray[Any], where: Where) -> npt.NDArray[Any]:
    """Return elements of an array, a view of it for a slice."""
    if isinstance(where, Spans):
        return np.concatenate([array[start:stop] for start, stop in where.pairs] or [array[:0]])
    return array[where]


def put(array: npt.NDArray[Any], where: Where, values: Any) -> None:
    """Set elements of an array to one value each, or to one for all."""
    if not isinstance(where, Spans):
        array[where] = values
        return
    values = np.asarray(values)
    at = 0
    for start, stop in where.pairs:
        # One value for all has fewer dimensions than the array, or one along it.
        single = values.ndim < array.ndim or len(values) == 1
        array[start:stop] = values if single else values[at : at + stop - start]
        at += stop - start


def tallied(codes: npt.NDArray[np.uint8]) -> Integers:
    """Count codes, int64[256]; `numpy.bincount` would make eight bytes of every one of them first."""
    counts = np.zeros(_CODES, np.int64)
    if not codes.any():
        counts[0] = codes.size
        return counts
    for start in range(0, codes.size, _CHUNK):
        counts += np.bincount(codes[start : start + _CHUNK], minlength=_CODES)
    return counts
