"""Which of several outcomes of one point counts."""

from typing import Any

import numpy as np

from mce_notebook.declare.grid import Status

_GOOD = (int(Status.DONE), int(Status.SKIPPED))


class Standing:
    """For each point, the rank of the outcome that counts so far.

    The current version comes before any other, among others the one declared last; then the highest generation, good
    before failed, and the lowest (epoch, segment, offset). The order in which outcomes arrive does not matter.

    Parameters
    ----------
    size : int
        Number of listed points.
    """

    def __init__(self, size: int):
        self._rank = np.zeros(size, np.int64)
        self._place = np.zeros(size, np.int64)

    def admit(
        self,
        positions: np.ndarray,
        status: np.ndarray | None,
        *,
        generation: int,
        order: tuple[int, int, int],
        current: bool = True,
        recency: int = 0,
    ) -> np.ndarray:
        """Enter outcomes; returns which of them count now, bool[n].

        Parameters
        ----------
        positions : ndarray[n] of int64
            Listed indices; -1 for points that are not in the grid.
        status : ndarray[n] of uint8, or None when all are done
        generation : int
        order : tuple of int
            (epoch, segment, offset).
        current : bool
            Whether the outcomes belong to the current version. Of other versions only good ones are admitted.
        recency : int
            Number of the last declaration of that version.
        """
        good = np.ones(len(positions), bool) if status is None else np.isin(status, _GOOD)
        admitted = (positions >= 0) & (good | current)
        first = (1 << 40 if current else min(recency, (1 << 20) - 1) << 20) + (min(generation, (1 << 18) - 1) << 1) + 1
        rank = np.where(good, first + 1, first)
        place = _place(order)
        held_rank, held_place = self._rank[positions], self._place[positions]
        # Ranks start at 1, so that 0 stands for no outcome at all.
        admitted &= (rank > held_rank) | ((rank == held_rank) & (place < held_place))
        chosen: Any = positions[admitted]
        self._rank[chosen] = rank[admitted]
        self._place[chosen] = place
        return admitted


def _place(order: tuple[int, int, int]) -> int:
    # Frames start at multiples of eight bytes; 19 + 16 + 28 bits.
    epoch, segment, offset = order
    return (epoch << 44) | (segment << 28) | (offset >> 3)
