"""From a grid, what is left to do and the speed seen, to ordered blocks of points; pure, and never an object per point. See `order` for what coarse means."""

import itertools
import math
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Grid, Status
from mce_notebook.errors import OptionError
from mce_notebook.order import ORDERS, Indices, Ordering, Tiles, spread

Mask = npt.NDArray[np.bool_]

SECONDS = 0.5  # of measured work in a block
SHORTEST = 0.02  # seconds; below, the round trip costs more than a better balance gives
TASKS_PER_SECOND = 325  # half of what a Dask scheduler handled
TAIL_SHARE = 3  # blocks a worker should still get before the end
BYTES = 16_000_000
PROBE = 4096  # points in a block of unknown speed; the evaluator stops early and gives the rest back
GROWTH = 16  # a block is at most this many times the largest one before it
RANGES = 256  # index ranges wished for in a block
MOST_RANGES = 16_384  # ... and allowed, where guards cut tiles to pieces
WINDOW = 131_072  # units of the order looked at together
SETUP_SHARE = 0.1  # of the computing time of a prefix that setting it up again may cost
MOST_PASSES = 8


@dataclass(frozen=True)
class Block:
    """Points sent to a worker together, as half-open ranges of listed indices."""

    ranges: tuple[tuple[int, int], ...]

    @cached_property
    def count(self) -> int:
        """Number of points."""
        return sum(stop - start for start, stop in self.ranges)

    def indices(self) -> Indices:
        """Return the listed indices, int64[count], in the order of the ranges."""
        bounds = np.array(self.ranges, dtype=np.int64).reshape(-1, 2)
        return spread(bounds[:, 0], bounds[:, 1] - bounds[:, 0])

    def split(self, k: int) -> tuple["Block", "Block"]:
        """Return the first `k` points and the others."""
        first: list[tuple[int, int]] = []
        second: list[tuple[int, int]] = []
        for start, stop in self.ranges:
            cut = min(max(start + k, start), stop)
            k -= cut - start
            if start < cut:
                first.append((start, cut))
            if cut < stop:
                second.append((cut, stop))
        return Block(tuple(first)), Block(tuple(second))


def blocks_of(indices: Indices) -> list[Block]:
    """Return sorted distinct listed indices as blocks of at most `MOST_RANGES` ranges."""
    if not len(indices):
        return []
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    starts = indices[np.concatenate([[0], cuts])]
    stops = indices[np.concatenate([cuts - 1, [len(indices) - 1]])] + 1
    return _blocks(starts, stops)


def _blocks(starts: Indices, stops: Indices) -> list[Block]:
    pairs = list(zip(starts.tolist(), stops.tolist(), strict=True))
    return [Block(tuple(pairs[low : low + MOST_RANGES])) for low in range(0, len(pairs), MOST_RANGES)]


class _Lane:
    """The points left in one product of axes, drawn in order."""

    def __init__(self, shape: Sequence[int], base: int, todo: Mask, ordering: Ordering):
        self.shape = shape
        self.base = base
        self.todo = todo
        self.ordering = ordering
        self.size = math.prod(shape)
        self.left = int(np.count_nonzero(todo[base : base + self.size]))
        self.length = 0

    def draw(self, k: int) -> list[Block]:
        """Take about `k` points, at most, out of `todo`; an empty list when none are left."""
        wished = max(1, k // RANGES)
        if not self.length or wished > 4 * self.length or self.length > 4 * wished:
            self._restart(wished)
        starts: list[Indices] = []
        lengths: list[Indices] = []
        need = min(k, self.left)
        while need > 0 and self._fill():
            reach = self.before + need
            end = int(np.searchsorted(self.cumulative, reach, side="right"))
            if end > self.at:
                starts.append(self.starts[self.at : end])
                lengths.append(self.lengths[self.at : end])
                need = reach - int(self.cumulative[end - 1])
                self.before, self.at = int(self.cumulative[end - 1]), end
                continue
            if starts:
                break
            return self._part_of_tile(need)
        if not starts:
            return []
        return self._take(np.concatenate(starts), np.concatenate(lengths))

    def restore(self, block: Block) -> None:
        """Note that the points of a block are to do again."""
        self.left += block.count
        self.length = 0

    def _restart(self, length: int) -> None:
        """Begin the order anew with tiles of another length; what is no longer to do is passed over."""
        self.length = length
        tiles = Tiles(self.shape, self.base, length)
        self.order = self.ordering.of(tiles)
        self.units = tiles.units
        self.windowed = 0
        self.at = self.before = 0
        self.cumulative = self.starts = self.lengths = np.empty(0, dtype=np.int64)

    def _fill(self) -> bool:
        """See that the window has a tile with something to do."""
        while self.at >= len(self.cumulative):
            if self.windowed >= self.units:
                return False
            stop = min(self.units, self.windowed + max(64, WINDOW // self.length))
            starts, lengths = self.order.window(self.windowed, stop)
            counts = self._counts(starts, lengths)
            some = counts > 0
            self.windowed, self.at, self.before = stop, 0, 0
            self.starts, self.lengths, self.cumulative = starts[some], lengths[some], np.cumsum(counts[some])
        return True

    def _counts(self, starts: Indices, lengths: Indices) -> Indices:
        if self.length >= 64:
            pairs = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            return np.array([np.count_nonzero(self.todo[low:high]) for low, high in pairs], dtype=np.int64)
        flags = self.todo[spread(starts, lengths)]
        return np.add.reduceat(flags, np.cumsum(lengths) - lengths, dtype=np.int64)

    def _part_of_tile(self, need: int) -> list[Block]:
        start, length = int(self.starts[self.at]), int(self.lengths[self.at])
        found = np.flatnonzero(self.todo[start : start + length])[:need] + start
        self.cumulative[self.at :] -= need
        return self._taken(found)

    def _take(self, starts: Indices, lengths: Indices) -> list[Block]:
        order = np.argsort(starts)
        indices = spread(starts[order], lengths[order])
        return self._taken(indices[self.todo[indices]])

    def _taken(self, indices: Indices) -> list[Block]:
        self.todo[indices] = False
        self.left -= len(indices)
        return blocks_of(indices)


class _Prefixed:
    """The points left in one product of axes whose outer axes carry a setup; no block holds two of its prefixes."""

    def __init__(self, shape: Sequence[int], depth: int, base: int, todo: Mask, ordering: Ordering):
        self.inner = tuple(shape[depth:])
        self.span = math.prod(self.inner)
        self.todo = todo
        self.base = base
        self.ordering = ordering
        outer = tuple(shape[:depth])
        self.order = ordering.of(Tiles(outer, 0, 1)) if ordering.costs is None else _Listed(Tiles(outer, 0, 1))
        self.prefixes = math.prod(outer)
        flags = todo[base : base + self.prefixes * self.span].reshape(self.prefixes, self.span)
        self.totals = np.count_nonzero(flags, axis=1)
        self.left = int(self.totals.sum())
        self.lanes: dict[int, _Lane] = {}
        self.quotas: dict[int, int] = {}
        self.open: dict[Hashable, int] = {}
        self.turn = 0
        self.cursor = self._walk()

    def draw(self, k: int, share: float, workers: int, slot: Hashable | None) -> list[Block]:
        """Take about `k` points of one prefix: the one this slot has set up, as long as its pass lasts."""
        if slot is None:
            # Nobody says who asks: as many prefixes as workers are kept open, in turn.
            self.turn = (self.turn + 1) % max(1, workers)
            slot = ("turn", self.turn)
        while self.left:
            prefix = self.open.get(slot)
            if prefix is None or not self.quotas.get(prefix):
                prefix = self._next(share)
                self.open[slot] = prefix
            lane = self._lane(prefix)
            blocks = lane.draw(min(k, self.quotas[prefix]))
            drawn = sum(block.count for block in blocks)
            self.quotas[prefix] -= drawn
            self.left -= drawn
            if not lane.left:
                del self.lanes[prefix]
                self.quotas[prefix] = 0
            if drawn:
                return blocks
        return []

    def restore(self, block: Block) -> None:
        """Note that the points of a block, all of one prefix, are to do again."""
        prefix = (block.ranges[0][0] - self.base) // self.span
        self.left += block.count
        self.quotas[prefix] = self.quotas.get(prefix, 0) + block.count
        if prefix in self.lanes:
            self.lanes[prefix].restore(block)

    def _lane(self, prefix: int) -> _Lane:
        if prefix not in self.lanes:
            base = self.base + prefix * self.span
            self.lanes[prefix] = _Lane(self.inner, base, self.todo, self.ordering)
        return self.lanes[prefix]

    def _next(self, share: float) -> int:
        """Return a prefix nobody works on, else the open one with most left."""
        for prefix in self.cursor:
            if self._lane(prefix).left and not self.quotas.get(prefix):
                self.quotas[prefix] = max(1, math.ceil(share * int(self.totals[prefix])))
                return prefix
            if not self.lanes[prefix].left:
                del self.lanes[prefix]
        busy = [prefix for prefix, quota in self.quotas.items() if quota]
        if busy:
            return max(busy, key=self.quotas.__getitem__)
        self.cursor = self._walk()
        return self._next(share)

    def _walk(self) -> Iterator[int]:
        """Yield the prefixes with something left, in order: one pass."""
        for low in range(0, self.prefixes, WINDOW):
            starts, _ = self.order.window(low, min(self.prefixes, low + WINDOW))
            yield from starts[self.totals[starts] > 0].tolist()


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
        self._prefix = _Cutter(grid, prefix)
        ordering = Ordering(order, seed, costs)
        self._regions = [
            self._region(part.shape, base, depth, ordering)
            for part, base, depth in zip(grid.parts, grid.starts.tolist(), self._prefix.depths, strict=False)
        ]
        self._totals = [region.left for region in self._regions]
        self.remaining = sum(self._totals)

    def _region(self, shape: Sequence[int], base: int, depth: int | None, ordering: Ordering) -> "_Lane | _Prefixed":
        if depth is None or not shape:
            return _Lane(shape, base, self._todo, ordering)
        return _Prefixed(shape, depth, base, self._todo, ordering)

    def take(
        self,
        *,
        seconds: float | None = None,
        nbytes: float | None = None,
        workers: int | None = None,
        setup: float | None = None,
        slot: Hashable | None = None,
    ) -> Block | None:
        """Return the next block, or None when nothing is left.

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
        """
        if not self.remaining:
            return None
        self._workers = max(1, self._workers if workers is None else workers)
        k = self._size(seconds, nbytes, setup)
        self._put_back(2 * k)
        block = self._again(k) if self._returned else None
        if block is None:
            block = self._fresh(k, self._share(seconds, setup), slot)
        self.remaining -= block.count
        self._largest = max(self._largest, block.count)
        return block

    def give_back(self, block: Block) -> None:
        """Take back points that were not computed; they come first again, cut to what is then the right size."""
        if block.count:
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

    def _size(self, seconds: float | None, nbytes: float | None, setup: float | None) -> int:
        """Return how many points the next block should have."""
        if seconds is None:
            k = min(PROBE, -(-self.remaining // (2 * self._workers)))
        else:
            seconds = max(seconds, 1e-9)
            target = max(SECONDS, self._workers / TASKS_PER_SECOND)
            tail = seconds * self.remaining / (TAIL_SHARE * self._workers)
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
        lengths = [region.totals.max(initial=1) for region in self._regions if isinstance(region, _Prefixed)]
        if seconds is None or setup is None or not lengths:
            return 1.0
        return min(1.0, max(1 / MOST_PASSES, setup / (SETUP_SHARE * max(seconds, 1e-9) * float(max(lengths)))))

    def _again(self, k: int) -> Block:
        first = self._returned.popleft()
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

    def _fresh(self, k: int, share: float, slot: Hashable | None) -> Block:
        """Return points never taken, from the part of which the smallest share is done."""
        number = max(range(len(self._regions)), key=lambda at: self._regions[at].left / max(1, self._totals[at]))
        region = self._regions[number]
        blocks = region.draw(k, share, self._workers, slot) if isinstance(region, _Prefixed) else region.draw(k)
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
