"""From a grid, what is left to do and the speed seen, to ordered blocks of points; pure, never an object per point.

`order` says what the orders are, `lanes` draws points from them; here is how many points, of which part of the grid.
"""

import itertools
import math
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Grid, Status
from mce_notebook.errors import OptionError
from mce_notebook.lanes import Block, Lane, Mask, Prefixed
from mce_notebook.order import ORDERS, Ordering
from mce_notebook.prefixes import Level
from mce_notebook.visits import Ask, Visits

__all__ = ["Block", "Plan", "Preview", "preview"]

SECONDS = 0.5  # of measured work in a block
SHORTEST = 0.02  # seconds; below, the round trip costs more than a better balance gives
TASKS_PER_SECOND = 325  # half of what a Dask scheduler handled
TAIL_SHARE = 3  # blocks a worker should still get before the end
BYTES = 16_000_000
PROBE = 4096  # points in a block of unknown speed; the evaluator stops early and gives the rest back
GROWTH = 16  # a block is at most this many times the largest one before it
SETUP_SHARE = 0.1  # of the computing time of a prefix that setting it up again may cost
MOST_PASSES = 8


class Plan:
    """The points of a grid that are left to do, handed out in blocks.

    Parameters
    ----------
    grid : Grid
    todo : ndarray of bool, shape (grid.size,), or None
        What to compute; None: every point of the design.
    order : {"coarse", "listed", "random", "longest-first"}
    prefix : int
        Points per setup prefix (`grid.prefixes(depth)`), 0 without setup: no block spans two prefixes.
    setups : sequence of Level
        The setups, outermost first. Where one lies between ragged loops, prefixes have any lengths, and where there are
        several, slots stay with the outer ones too; `prefix` is not looked at then.
    workers : int
        Slots, until `take` says otherwise.
    seed : int
        Of the random order.
    costs : ndarray of float, shape (grid.size,), optional
        Seconds expected of each point, for `longest-first`; without it the last listed points count as the longest.

    Raises
    ------
    OptionError
        For an unknown order.
    """

    def __init__(
        self,
        grid: Grid,
        todo: Mask | None = None,
        *,
        order: str = "coarse",
        prefix: int = 0,
        setups: Sequence[Level] = (),
        workers: int = 1,
        seed: int = 0,
        costs: npt.NDArray[np.float64] | None = None,
    ):
        if order not in ORDERS:
            raise OptionError(f"There is no order {order!r}; write one of {', '.join(ORDERS)}.")
        if todo is None:
            todo = grid.mask()
        self._todo = np.ones(grid.size, dtype=np.bool_) if todo is None else np.array(todo, dtype=np.bool_)
        if self._todo.shape != (grid.size,):
            raise ValueError(f"todo has shape {self._todo.shape}, the grid lists {grid.size} points")
        self._workers = workers
        self._largest = 0
        self._returned: deque[Block] = deque()
        self._coarse = order == "coarse"
        ordering = Ordering(order, seed, costs)
        self._visits: Visits | None = None
        levels = tuple(dict.fromkeys(setups))
        if len(levels) > 1 or any(names for _, names in levels):
            self._visits = Visits(grid, self._todo, ordering, levels)
            self.remaining = self._listed = self._visits.left
            return
        self._prefix = _Cutter(grid, prefix)
        self._regions = [
            self._region(part.shape, base, depth, ordering)
            for part, base, depth in zip(grid.parts, grid.starts.tolist(), self._prefix.depths, strict=False)
        ]
        self._totals = [region.left for region in self._regions]
        self.remaining = self._listed = sum(self._totals)

    def _region(self, shape: Sequence[int], base: int, depth: int | None, ordering: Ordering) -> "Lane | Prefixed":
        if depth is None or not shape:
            return Lane(shape, base, self._todo, ordering)
        return Prefixed(shape, depth, base, self._todo, ordering)

    def take(
        self,
        *,
        seconds: float | None = None,
        nbytes: float | None = None,
        workers: int | None = None,
        setup: float | None = None,
        slot: Hashable | None = None,
        idle: bool = True,
        alone: bool = True,
    ) -> Block | None:
        """Return the next block, or None when nothing is left, or nothing that `slot` had better not leave to others.

        Parameters
        ----------
        seconds : float or None
            Measured per point; None: unknown, and the block is a probe that should be stopped after a short while.
        nbytes : float or None
            Measured per point.
        workers : int, optional
            Slots that ask for blocks.
        setup : float or None
            Measured seconds of a setup. With it, prefixes are visited in several passes as far as this is cheap.
        slot : hashable, optional
            Who asks; it keeps getting points of the prefix it has set up.
        idle, alone : bool
            Whether no block of `slot`, and no block at all, is on its way; where prefixes have any lengths, a slot only
            gets what another has set up if it is idle and that pays, or alone.
        """
        if not self.remaining:
            return None
        self._workers = max(1, self._workers if workers is None else workers)
        if self._visits is not None:
            ask = Ask(slot, self._workers, seconds, setup, idle, alone)
            k = self._size(seconds, nbytes, None, self._visits.busy(self._workers))
            return self._visited(self._visits, k, ask)
        k = self._size(seconds, nbytes, setup, self._workers)
        self._put_back(2 * k)
        block = self._again(k, slot)
        if block is None:
            block = self._fresh(k, self._share(seconds, setup), slot)
        self.remaining -= block.count
        self._largest = max(self._largest, block.count)
        return block

    def _visited(self, visits: Visits, k: int, ask: Ask) -> Block | None:
        blocks = visits.draw(k, visits.begun_by(ask) if ask.slot is None else ask)
        for block in blocks[1:]:
            # More ranges than a block should have.
            visits.restore(block)
        if not blocks:
            return None
        self.remaining -= blocks[0].count
        self._largest = max(self._largest, blocks[0].count)
        return blocks[0]

    def keep(self, slots: Collection[Hashable]) -> None:
        """Note which slots there are: what others had set up goes to these."""
        if self._visits is not None:
            self._visits.keep(slots)

    def measured(self, block: Block, setup: float) -> None:
        """Note how long the setups of a block that came back took."""
        if self._visits is not None:
            self._visits.measured(block, setup)

    def setups_of(self, block: Block) -> int:
        """Return how many setup prefixes a block has points of; 1 without setups."""
        return 1 if self._visits is None else self._visits.prefixes_of(block)

    @property
    def prefixed(self) -> bool:
        """Whether points share setups, so that `slot` matters."""
        return self._visits is not None or self._prefix.depths[0] is not None

    def give_back(self, block: Block) -> None:
        """Take back points that were not computed; they come first again, cut to what is then the right size.

        Those of a setup prefix come first to the slot that works on it, to others when nothing else is left.
        """
        if block.count:
            if self._visits is not None:
                self._visits.restore(block)
            else:
                self._returned.extend(self._prefix.cut(block))
            self.remaining += block.count

    def _put_back(self, most: int) -> None:
        """Return the points of large leftovers to the order: a block lists its points by index, not coarse to fine."""
        kept = deque(block for block in self._returned if block.count <= most)
        for block in self._returned if len(kept) < len(self._returned) else ():
            if block.count > most:
                self._todo[block.indices()] = True
                self._regions[self._prefix.place(block.ranges[0][0])[0]].restore(block)
        self._returned = kept

    def _size(self, seconds: float | None, nbytes: float | None, setup: float | None, workers: int) -> int:
        """Return how many points the next block should have."""
        if seconds is None:
            # Stopped early where points are slow; where they are few and fast, nobody waits for a second round.
            k = min(PROBE, max(1, self._listed // workers))
        else:
            seconds = max(seconds, 1e-9)
            target = max(SECONDS, workers / TASKS_PER_SECOND)
            tail = seconds * self.remaining / (TAIL_SHARE * workers)
            if setup is not None:
                # A block may land on a slot that has to set its prefix up again.
                target = max(target, setup / SETUP_SHARE)
            k = int(min(target, max(SHORTEST, tail)) / seconds)
            k = min(k, GROWTH * self._largest) if self._largest else k
        if nbytes is not None and nbytes > 0:
            k = min(k, int(BYTES / nbytes))
        return max(1, min(k, self.remaining))

    def _share(self, seconds: float | None, setup: float | None) -> float:
        """Return the share of a prefix that one pass computes, so that repeated setup stays cheap."""
        lengths = [region.totals.max(initial=1) for region in self._regions if isinstance(region, Prefixed)]
        if seconds is None or setup is None or not lengths or not self._coarse:
            return 1.0
        return min(1.0, max(1 / MOST_PASSES, setup / (SETUP_SHARE * max(seconds, 1e-9) * float(max(lengths)))))

    def _again(self, k: int, slot: Hashable | None) -> Block | None:
        """Return points that were given back, None if `slot` has better to do."""
        at = self._first(slot)
        if at is None:
            return None
        first = self._returned[at]
        del self._returned[at]
        if first.count > k:
            first, rest = first.split(k)
            self._returned.appendleft(rest)
            return first
        parts = [first]
        room = k - first.count
        while self._returned and self._returned[0].count <= room and self._prefix.same(first, self._returned[0]):
            parts.append(self._returned.popleft())
            room -= parts[-1].count
        return Block(tuple(itertools.chain.from_iterable(part.ranges for part in parts))) if len(parts) > 1 else first

    def _first(self, slot: Hashable | None) -> int | None:
        """Return which of the returned blocks `slot` should take: not one of a prefix that another slot has set up."""
        if not self._returned:
            return None
        if slot is None or not self.prefixed:
            return 0
        for at, block in enumerate(self._returned):
            part, prefix = self._prefix.place(block.ranges[0][0])
            region = self._regions[part]
            users = region.users(prefix) if isinstance(region, Prefixed) else []
            if slot in users or not users:
                return at
        return None if any(region.left for region in self._regions) else 0

    def _fresh(self, k: int, share: float, slot: Hashable | None) -> Block:
        """Return points never taken, from the part of which the smallest share is done."""
        number = max(range(len(self._regions)), key=lambda at: self._regions[at].left / max(1, self._totals[at]))
        region = self._regions[number]
        blocks = region.draw(k, share, self._workers, slot) if isinstance(region, Prefixed) else region.draw(k)
        self._returned.extend(blocks[1:])
        return blocks[0]


class _Cutter:
    """Where setup prefixes begin in each part."""

    def __init__(self, grid: Grid, prefix: int):
        self.starts = grid.starts
        self.depths: list[int | None] = [None] * len(grid.parts)
        self.spans = [part.size for part in grid.parts]
        if prefix > 0:
            shape = grid.parts[0].shape
            fitting = [depth for depth in range(len(shape) + 1) if math.prod(shape[depth:]) == prefix]
            if not fitting:
                raise ValueError(f"no setup has {prefix} points in a grid of shape {shape}")
            self.depths = [min(fitting[0], len(part.shape)) for part in grid.parts]
            self.spans = [
                math.prod(part.shape[depth:])
                for part, depth in zip(grid.parts, self.depths, strict=True)
                if depth is not None
            ]

    def place(self, index: int) -> tuple[int, int]:
        """Return the part and the prefix of a listed index."""
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return part, (index - int(self.starts[part])) // self.spans[part]

    def same(self, first: Block, second: Block) -> bool:
        """Return whether two blocks belong to one prefix; without setup, all do."""
        if self.depths[0] is None:
            return True
        return self.place(first.ranges[0][0]) == self.place(second.ranges[0][0])

    def cut(self, block: Block) -> list[Block]:
        """Return a block as blocks of one prefix each; without setup, of one part each."""
        if self.depths[0] is None and len(self.spans) == 1:
            return [block]
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for start, stop in block.ranges:
            low = start
            while low < stop:
                part, prefix = self.place(low)
                end = int(self.starts[part]) + (prefix + 1) * self.spans[part]
                found.setdefault((part, prefix), []).append((low, min(end, stop)))
                low = end
        return [Block(tuple(ranges)) for ranges in found.values()]


class Known(Protocol):
    """What the store knows of the points of a grid."""

    status: npt.NDArray[np.uint8]
    stale: Mask


@dataclass(frozen=True)
class Preview:
    """What a launch would do: counts of points, and the labels of the first and last that would be computed."""

    points: int
    new: int
    reused: int
    stale: int
    skipped: int
    first: dict[str, Any] | None
    last: dict[str, Any] | None


def preview(grid: Grid, mask: Mask | None, known: Known | None) -> Preview:
    """Return what is new, reused, stale and left out by guards in a grid.

    Parameters
    ----------
    grid : Grid
    mask : ndarray of bool, shape (grid.size,), or None
        Points of the design.
    known : Known or None
        Status codes uint8[grid.size] at the current version, and which points have outcomes of other versions only.
    """
    wanted = np.ones(grid.size, dtype=np.bool_) if mask is None else mask
    points = int(np.count_nonzero(wanted))
    status = np.zeros(grid.size, dtype=np.uint8) if known is None else known.status
    open_points = wanted & ((status == Status.PENDING) | (status == Status.RUNNING) | (status == Status.STALE))
    stale = wanted & (status == Status.STALE) if known is None else open_points & known.stale
    new = open_points & ~stale
    at = np.flatnonzero(new)
    count = len(at)
    return Preview(
        points=points,
        new=count,
        reused=points - int(np.count_nonzero(open_points)),
        stale=int(np.count_nonzero(stale)),
        skipped=grid.size - points,
        first=grid.point(int(at[0])) if count else None,
        last=grid.point(int(at[-1])) if count else None,
    )
