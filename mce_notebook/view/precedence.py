"""Which outcome of a cell is shown: current version, highest generation, good over failed, lowest position.

Logs only grow and writers never look at each other, so two hosts may both have computed a point. The rule
looks at what the records are and not at when they are read, so every reader shows the same.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mce_notebook.view.buffers import Where
from mce_notebook.view.cells import Booleans

_GROWTH = 1024


@dataclass(frozen=True)
class Source:
    """Where a batch of outcomes comes from.

    Parameters
    ----------
    current : bool
        Made by the version that is current.
    recency : int
        Number of the last declaration of another version: the latest of them is shown.
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
        """Sorts sources of different version or generation; the larger is shown."""
        return int(self.current) << 60 | self.recency << 32 | self.generation

    @property
    def place(self) -> int:
        """Sorts sources of equal head; the smaller is shown. Segments roll at 64 MiB: offsets fit 27 bits."""
        epoch, segment, offset = self.order
        return epoch << 43 | segment << 27 | offset


@dataclass(eq=False)
class Precedence:
    """For every cell, the source it is shown from and whether that outcome is good."""

    size: int
    sources: list[Source] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = np.full(self.size, -1, np.int32)
        self.good = np.zeros(self.size, bool)
        self._heads = np.empty(0, np.int64)
        self._places = np.empty(0, np.int64)

    def admit(self, where: Where, good: Booleans | bool, source: Source) -> tuple[Booleans | None, bool]:
        """Let a batch claim cells.

        Parameters
        ----------
        where : slice or int64[k]
            Distinct cells.
        good : bool or bool[k]
            Which of the outcomes are results rather than failures.

        Returns
        -------
        won : bool[k] or None
            The rows to show; None for all.
        fresh : bool
            No cell of those rows showed anything before.
        """
        number = self._register(source)
        before = self.source[where]
        if not before.size or int(before.max()) < 0:
            self.source[where] = number
            self.good[where] = good
            return None, True
        won = self._wins(before, self.good[where], np.broadcast_to(np.asarray(good), before.shape), source)
        cells = (np.arange(where.start, where.stop) if isinstance(where, slice) else where)[won]
        self.source[cells] = number
        self.good[cells] = np.broadcast_to(np.asarray(good), before.shape)[won]
        return won, False

    def generations(self) -> npt.NDArray[np.int64]:
        """Return the generation of what each cell shows, -1 where it shows nothing; int64[size]."""
        table = np.array([*(source.generation for source in self.sources), -1], np.int64)
        return table[self.source]

    def _wins(self, before: npt.NDArray[np.int32], was_good: Booleans, good: Booleans, source: Source) -> Booleans:
        heads, places = self._heads[before], self._places[before]
        head, place = source.head, source.place
        equal = heads == head
        better = (heads < head) | (equal & good & ~was_good) | (equal & (good == was_good) & (place < places))
        won: Booleans = (before < 0) | better
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
