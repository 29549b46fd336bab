"""Drawing blocks of points from an order, prefix by prefix where outer axes carry a setup."""

import math
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mce_notebook.order import Indices, Order, Ordering, Tiles, spread

Mask = npt.NDArray[np.bool_]

RANGES = 256  # index ranges wished for in a block
LARGE = 16_384  # points; in a larger block they are so cheap that finding them in many short ranges would show
LARGE_RANGES = 16  # ... wished for in such a block
MOST_RANGES = 16_384  # ... and allowed, where guards cut tiles to pieces
RECENT = 8  # prefixes that a slot is taken to have still set up
WINDOW = 131_072  # units of the order looked at together


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


class _Cursor:
    """A place in the order of the tiles of one product of axes; tiles with nothing to do are passed over."""

    def __init__(self, order: Order, length: int, todo: Mask):
        self.order = order
        self.length = length
        self.todo = todo
        self.windowed = 0
        self.at = 0
        self.before = 0
        self.starts: Indices = np.empty(0, dtype=np.int64)
        self.lengths: Indices = np.empty(0, dtype=np.int64)
        self.cumulative: Indices = np.empty(0, dtype=np.int64)

    def fill(self) -> bool:
        """See that the window has a tile with something to do; False at the end of the order."""
        while self.at >= len(self.cumulative):
            units = self.order.tiles.units
            if self.windowed >= units:
                return False
            stop = min(units, self.windowed + max(64, WINDOW // self.length))
            starts, lengths = self.order.window(self.windowed, stop)
            counts = self._counts(starts, lengths)
            some = counts > 0
            self.windowed, self.at, self.before = stop, 0, 0
            self.starts, self.lengths = starts[some], lengths[some]
            self.cumulative = np.cumsum(counts[some])
        return True

    def _counts(self, starts: Indices, lengths: Indices) -> Indices:
        if self.length >= 64:
            pairs = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            return np.array([np.count_nonzero(self.todo[low:high]) for low, high in pairs], dtype=np.int64)
        flags = self.todo[spread(starts, lengths)]
        counts: Indices = np.add.reduceat(flags, np.cumsum(lengths) - lengths, dtype=np.int64)
        return counts

    def whole_tiles(self, need: int) -> tuple[Indices, Indices, int]:
        """Pass over the next tiles of this window that hold at most `need` points; return starts, lengths, points."""
        end = int(np.searchsorted(self.cumulative, self.before + need, side="right"))
        if end == self.at:
            return self.starts[:0], self.lengths[:0], 0
        tiles = slice(self.at, end)
        count = int(self.cumulative[end - 1]) - self.before
        self.at, self.before = end, self.before + count
        return self.starts[tiles], self.lengths[tiles], count

    def part_of_tile(self, need: int) -> Indices:
        """Return the first `need` points of the next tile, which holds more."""
        start, length = int(self.starts[self.at]), int(self.lengths[self.at])
        self.cumulative[self.at :] -= need
        return np.flatnonzero(self.todo[start : start + length])[:need] + start


class Lane:
    """The points left in one product of axes, drawn in order."""

    def __init__(self, shape: Sequence[int], base: int, todo: Mask, ordering: Ordering):
        self.shape = shape
        self.base = base
        self.todo = todo
        self.ordering = ordering
        self.left = int(np.count_nonzero(todo[base : base + math.prod(shape)]))
        self.cursor: _Cursor | None = None

    def draw(self, k: int) -> list[Block]:
        """Take at most `k` points, a little fewer where tiles do not fit; an empty list if none are left."""
        cursor = self._cursor(max(1, k // (RANGES if k <= LARGE else LARGE_RANGES)))
        starts: list[Indices] = []
        lengths: list[Indices] = []
        need = wanted = min(k, self.left)
        while need > 0 and cursor.fill():
            start, length, count = cursor.whole_tiles(need)
            if not count:
                break
            starts.append(start)
            lengths.append(length)
            need -= count
        if starts:
            start, length = np.concatenate(starts), np.concatenate(lengths)
            if int(length.sum()) == wanted - need:
                return self._taken_whole(start, start + length)
            return self._taken(self._points(start, length))
        return self._taken(cursor.part_of_tile(need)) if need else []

    def restore(self, block: Block) -> None:
        """Note that the points of a block are to do again."""
        self.left += block.count
        self.cursor = None

    def _cursor(self, length: int) -> _Cursor:
        """Return the place in the order; it begins anew when blocks ask for tiles of quite another length."""
        known = self.cursor
        if known is None or length > 4 * known.length or known.length > 4 * length:
            known = _Cursor(self.ordering.of(Tiles(self.shape, self.base, length)), length, self.todo)
            self.cursor = known
        return known

    def _points(self, starts: Indices, lengths: Indices) -> Indices:
        order = np.argsort(starts)
        indices = spread(starts[order], lengths[order])
        return indices[self.todo[indices]]

    def _taken_whole(self, starts: Indices, stops: Indices) -> list[Block]:
        """Take tiles with all their points: a block of a million is a few dozen ranges, and is made of these."""
        order = np.argsort(starts)
        starts, stops = starts[order], stops[order]
        cuts = starts[1:] != stops[:-1]
        starts = starts[np.concatenate([[True], cuts])]
        stops = stops[np.concatenate([cuts, [True]])]
        blocks = _blocks(starts, stops)
        for block in blocks:
            for start, stop in block.ranges:
                self.todo[start:stop] = False
            self.left -= block.count
        return blocks

    def _taken(self, indices: Indices) -> list[Block]:
        self.todo[indices] = False
        self.left -= len(indices)
        return blocks_of(indices)


class Prefixed:
    """The points left in one product of axes whose outer axes carry a setup; no block holds two of its prefixes."""

    def __init__(self, shape: Sequence[int], depth: int, base: int, todo: Mask, ordering: Ordering):
        self.inner = tuple(shape[depth:])
        self.span = math.prod(self.inner)
        self.todo = todo
        self.base = base
        self.ordering = ordering
        outer = tuple(shape[:depth])
        self.order = (
            ordering.of(Tiles(outer, 0, 1)) if ordering.costs is None else Ordering("listed", 0).of(Tiles(outer, 0, 1))
        )
        self.prefixes = math.prod(outer)
        flags = todo[base : base + self.prefixes * self.span].reshape(self.prefixes, self.span)
        self.totals = np.count_nonzero(flags, axis=1)
        self.left = int(self.totals.sum())
        self.lanes: dict[int, Lane] = {}
        self.quotas: dict[int, int] = {}
        self.recent: dict[Hashable, deque[int]] = {}
        self.turn = 0
        self.cursor = self._walk()

    def draw(self, k: int, share: float, workers: int, slot: Hashable | None) -> list[Block]:
        """Take about `k` points of one prefix: the one this slot has set up, as long as its pass lasts."""
        if slot is None:
            # Nobody says who asks: as many prefixes as workers are kept open, in turn.
            self.turn = (self.turn + 1) % max(1, workers)
            slot = ("turn", self.turn)
        while self.left:
            prefix = self._own(slot)
            if prefix is None:
                prefix = self._next(share)
                self.recent.setdefault(slot, deque(maxlen=RECENT)).append(prefix)
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

    def users(self, prefix: int) -> list[Hashable]:
        """Return the slots that have set this prefix up lately, as far as blocks drawn tell."""
        return [slot for slot, held in self.recent.items() if prefix in held]

    def _own(self, slot: Hashable) -> int | None:
        """Return the prefix this slot set up last of those that have something left."""
        return next((held for held in reversed(self.recent.get(slot, ())) if self.quotas.get(held)), None)

    def restore(self, block: Block) -> None:
        """Note that the points of a block, all of one prefix, are to do again."""
        prefix = (block.ranges[0][0] - self.base) // self.span
        self.left += block.count
        self.quotas[prefix] = self.quotas.get(prefix, 0) + block.count
        if prefix in self.lanes:
            self.lanes[prefix].restore(block)

    def _lane(self, prefix: int) -> Lane:
        if prefix not in self.lanes:
            base = self.base + prefix * self.span
            self.lanes[prefix] = Lane(self.inner, base, self.todo, self.ordering)
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
