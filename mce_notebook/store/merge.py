"""Which of several outcomes of one point counts: for hosts that look for work and for views alike.

The current version comes before any other, among others the one declared last; then the highest generation, good before
failed, and the lowest (epoch, segment, offset). Logs only grow and writers never look at each other, so two hosts may
both have computed a point. The rule looks at what the records are and not at when they are read, so every reader comes
to the same.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.store.spans import Move, Spans, Where, indices_of, put, take

GOOD = (int(Status.DONE), int(Status.SKIPPED))
_GROWTH = 1024


@dataclass(frozen=True)
class Source:
    """Where a batch of outcomes comes from.

    Parameters
    ----------
    current : bool
        Made by the version that is current.
    recency : int
        Number of the last declaration of another version; 0 for the current one.
    generation : int
    order : tuple of int
        (epoch, segment, offset) of the record.
    version, worker : str
    attempt : int
    seconds : float
        Mean of a point of the batch.
    """

    current: bool
    recency: int
    generation: int
    order: tuple[int, int, int]
    version: str = ""
    worker: str = ""
    attempt: int = 1
    seconds: float = float("nan")

    @property
    def head(self) -> int:
        """Sorts sources of different version or generation; the larger counts."""
        return int(self.current) << 60 | self.recency << 32 | self.generation

    @property
    def place(self) -> int:
        """Sorts sources of equal head; the smaller counts.

        Frames start at multiples of eight bytes, and one that was not spilled may be far larger than a segment: 17 bits
        for the epoch, 14 for the segment, 35 for the offset (32 GiB).
        """
        epoch, segment, offset = self.order
        return epoch << 46 | segment << 32 | offset >> 3


@dataclass(eq=False)
class Standing:
    """For each point, the source of the outcome that counts so far, and whether that outcome is good.

    Parameters
    ----------
    size : int
        Number of points.
    sources : list of Source
        In the order they came.
    """

    size: int
    sources: list[Source] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = np.full(self.size, -1, np.int32)
        self.good = np.zeros(self.size, bool)
        self._heads = np.empty(0, np.int64)
        self._places = np.empty(0, np.int64)

    def admit(
        self, where: Where, status: npt.NDArray[np.uint8] | None, source: Source
    ) -> tuple[npt.NDArray[np.bool_] | None, bool]:
        """Enter the outcomes of a batch.

        Parameters
        ----------
        where : slice, Spans or int64[k]
            Distinct points; -1 for outcomes of points that are not there.
        status : uint8[k] or None
            None when all are done. Of other versions only good outcomes are admitted: a failure says nothing about the
            code as it is now.
        source : Source

        Returns
        -------
        counts : bool[k] or None
            The outcomes that count now; None for all.
        fresh : bool
            None of those points had an outcome before.
        """
        good = True if status is None else np.isin(status, GOOD)
        keep = _admissible(where, good, source.current)
        if keep is not None:
            if not keep.any():
                return keep, False
            where = indices_of(where)[keep]
            good = good if isinstance(good, bool) else good[keep]
        number = self._register(source)
        before = take(self.source, where)
        if not before.size or int(before.max()) < 0:
            put(self.source, where, number)
            put(self.good, where, good)
            return keep, True
        good = np.broadcast_to(np.asarray(good), before.shape)
        won = self._wins(before, take(self.good, where), good, source)
        points = indices_of(where)[won]
        self.source[points] = number
        self.good[points] = good[won]
        if keep is None:
            return won, False
        keep[keep] = won
        return keep, False

    def moved(self, move: Move) -> "Standing":
        """Return the same for the points of a larger grid."""
        grown = Standing(0, list(self.sources))
        grown.size = move.size
        grown.source, grown.good = move.array(self.source, -1), move.array(self.good, False)
        grown._heads, grown._places = self._heads.copy(), self._places.copy()
        return grown

    def generations(self) -> npt.NDArray[np.int64]:
        """Return the generation of the outcome that counts, at the current version; -1 where there is none."""
        table = np.array([*(each.generation if each.current else -1 for each in self.sources), -1], np.int64)
        return table[self.source]

    def _wins(
        self,
        before: npt.NDArray[np.int32],
        was_good: npt.NDArray[np.bool_],
        good: npt.NDArray[np.bool_],
        source: Source,
    ) -> npt.NDArray[np.bool_]:
        heads, places = self._heads[before], self._places[before]
        head, place = source.head, source.place
        equal = heads == head
        better = (heads < head) | (equal & good & ~was_good) | (equal & (good == was_good) & (place < places))
        won: npt.NDArray[np.bool_] = (before < 0) | better
        return won

    def _register(self, source: Source) -> int:
        number = len(self.sources)
        if number == self._heads.size:
            spare = np.zeros(max(_GROWTH, number), np.int64)
            self._heads = np.concatenate([self._heads, spare])
            self._places = np.concatenate([self._places, spare])
        self._heads[number], self._places[number] = source.head, source.place
        self.sources.append(source)
        return number


def _admissible(where: Where, good: npt.NDArray[np.bool_] | bool, current: bool) -> npt.NDArray[np.bool_] | None:
    """Return which outcomes can count at all; None for all."""
    keep: npt.NDArray[np.bool_] | None = None
    if not isinstance(where, slice | Spans) and where.size and int(where.min()) < 0:
        keep = where >= 0
    if not current and not isinstance(good, bool) and not good.all():
        keep = good.copy() if keep is None else keep & good
    return keep
