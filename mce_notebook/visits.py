"""Which slot works on which setup prefix, where prefixes have any lengths and setups lie inside one another.

A slot *visits* a prefix: it computes a good share of it, then moves on to one that nobody has begun, inside the same
outer setup as long as there are some. What a visit leaves waits for the slot that has the setup. A slot takes over what
another has set up only where that pays: setting up again must be won back by working side by side.

A block holds points of one prefix. Only where prefixes are so short that a block of one would be over at once it holds
several, and all that is left of each, so that nothing is set up twice for it.
"""

import math
from collections import deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mce_notebook.declare.grid import Grid
from mce_notebook.lanes import RANGES, RECENT, Block, Lane, Mask
from mce_notebook.order import Indices, Ordering
from mce_notebook.prefixes import Level, Prefixes

SETUP_SHARE = 0.1  # of the computing time that repeated setups may cost
MOST_VISITS = 8  # to a prefix
SHORT = 0.02  # seconds; a visit that is planned takes longer, and less left than this is not worth a second slot
LONG = 0.5  # seconds; a block of several prefixes takes less
TAIL_SHARE = 3  # blocks a worker should still get before the end
GAIN = 2.0  # how much longer than a setup the rest of a prefix must take, for each slot on it, to be shared


@dataclass(frozen=True)
class Ask:
    """Who asks for a block, and what is known of the speed.

    Parameters
    ----------
    slot : hashable
    workers : int
        Slots that ask for blocks.
    seconds, setup : float or None
        Measured per point and per setup.
    idle : bool
        Whether the slot has nothing to compute now: only then it may take over what others have set up.
    alone : bool
        Whether nothing is on its way, so that nobody but this slot will do what is left.
    """

    slot: Hashable
    workers: int
    seconds: float | None
    setup: float | None
    idle: bool = True
    alone: bool = True


@dataclass
class _Stay:
    """Prefixes a slot looks after, by their places in the order, and the one it works on."""

    start: int
    stop: int
    at: int
    drawn: int = 0
    # Whether another slot looks after the prefix.
    guest: bool = False


@dataclass(frozen=True)
class _Waiting:
    """Prefixes that a slot will come to; those that came back before all others."""

    start: int
    stop: int
    back: bool = False


class Visits:
    """The points left in a grid whose setups have prefixes of any lengths.

    Parameters
    ----------
    grid : Grid
    todo : ndarray of bool, shape (grid.size,)
        Changed here.
    ordering : Ordering
    levels : sequence of Level
        The setups, outermost first.
    """

    def __init__(self, grid: Grid, todo: Mask, ordering: Ordering, levels: Sequence[Level]):
        bounds = zip(grid.parts, grid.starts.tolist(), strict=False)
        self.parts = [Prefixes(part, base, todo[base : base + part.size], ordering, levels) for part, base in bounds]
        self.bases = grid.starts
        self.coarse = ordering.name == "coarse"
        self.owner, self.number, self.edges = self._begin()
        size = len(self.number)
        self.totals = np.zeros(size, dtype=np.int64)
        self.place = [np.full(part.count, -1, dtype=np.int64) for part in self.parts]
        for at, part in enumerate(self.parts):
            here = np.flatnonzero(self.owner == at)
            self.totals[here] = part.totals[self.number[here]]
            self.place[at][self.number[here]] = here
        self.rest = self.totals.copy()
        self.listed = self.left = int(self.totals.sum())
        # Whether a prefix will be come to: it waits in a queue, or a slot looks after it.
        self.covered = np.ones(size, dtype=np.bool_)
        self.fresh = 0
        self.lanes: dict[int, Lane] = {}
        self.stays: dict[Hashable, _Stay] = {}
        self.recent: dict[Hashable, deque[int]] = {}
        self.queues: dict[Hashable, deque[_Waiting]] = {}
        self.orphans: deque[_Waiting] = deque()
        # The slot that set a prefix up last, as its place in `named`.
        self.home = np.full(size, -1, dtype=np.int32)
        self.named: list[Hashable] = []
        self.slots: dict[Hashable, int] = {}
        # Seconds that setups taken over have cost, or will.
        self.repeated = 0.0
        # Blocks that begin with all the setups around a point, by their first point, and what these took lately.
        self.arrivals: set[int] = set()
        self.chain = 0.0
        # What the innermost setup alone took lately, where there are others around it.
        self.innermost = 0.0
        self.turn = 0
        self.declined: tuple[object, ...] = ()

    def _begin(self) -> tuple[Indices, Indices, Indices]:
        """Return part and number of the prefixes in order, and where those of each outermost one begin and end."""
        orders = [part.order() for part in self.parts]
        numbers = np.concatenate([order for order, _ in orders])
        families = np.concatenate([family for _, family in orders])
        owners = np.repeat(np.arange(len(orders)), [len(order) for order, _ in orders])
        if not len(numbers):
            return owners, numbers, np.zeros(1, dtype=np.int64)
        cuts = np.flatnonzero((np.diff(owners) != 0) | (np.diff(families) != 0)) + 1
        edges = np.concatenate([[0], cuts, [len(numbers)]]).astype(np.int64)
        if len(orders) > 1:
            # All parts advance alike, whatever their sizes.
            when = np.concatenate([(np.arange(len(order)) + 0.5) / max(1, len(order)) for order, _ in orders])
            lengths = np.diff(edges)
            along = np.argsort(np.repeat(when[edges[:-1]], lengths), kind="stable")
            turns = np.argsort(when[edges[:-1]], kind="stable")
            owners, numbers = owners[along], numbers[along]
            edges = np.concatenate([[0], np.cumsum(lengths[turns])])
        return owners, numbers, edges

    # Blocks

    def draw(self, k: int, ask: Ask) -> list[Block]:
        """Take about `k` points of one prefix, or all of several short ones; nothing where the slot had better wait."""
        before = self.stays.get(ask.slot)
        stay = self._stay(ask) if self.left else None
        if stay is None:
            return []
        blocks = self._some(stay, k, ask)
        if stay is not before and len(self.parts[0].levels) > 1:
            self.arrivals.add(blocks[0].ranges[0][0])
        if len(blocks) == 1 and not self.rest[stay.at] and ask.seconds is not None and ask.setup is not None:
            blocks = [self._filled(blocks[0], stay, k, ask)]
        return blocks

    def _some(self, stay: _Stay, k: int, ask: Ask) -> list[Block]:
        at = stay.at
        wish = min(int(self.rest[at]), max(1, self._quota(stay, ask) - stay.drawn))
        # No crumbs: a block a little longer costs less than one more.
        blocks = self._lane(at).draw(wish if wish <= k + k // 2 else k)
        count = sum(block.count for block in blocks)
        stay.drawn += count
        self._took(at, count)
        return self.parts[int(self.owner[at])].listed(blocks)

    def _filled(self, block: Block, stay: _Stay, k: int, ask: Ask) -> Block:
        """Add whole prefixes to a block that would be over at once: those that follow, then some nobody has begun."""
        seconds, setup = ask.seconds or 0.0, ask.setup or 0.0
        ranges, points = list(block.ranges), k - block.count
        # Where setups take most of the time, points alone say little of how long a block will take.
        everything = self.left * seconds + self.left / self.listed * len(self.rest) * setup
        room = max(SHORT, k * seconds, min(LONG, everything / (TAIL_SHARE * ask.workers)))
        room -= setup + block.count * seconds
        if room <= 0 or stay.guest:
            return block
        for first, stop in ((stay.at + 1, stay.stop), (int(self.edges[self.fresh]), int(self.edges[-1]))):
            low, high = self._fitting(first, stop, len(ranges), points, room, ask)
            if low < high:
                taken, some = int(self.rest[low:high].sum()), self.rest[low:high] > 0
                points -= taken
                room -= taken * seconds + np.count_nonzero(some) * setup
                ranges += self._whole(low, high)
                self._go_to(stay, low, high, ask.slot)
                self.home[low:high][some] = self.home[high - 1]
            if self._next(stay.at + 1, stay.stop) < stay.stop:
                break
        return Block(tuple(ranges))

    def _go_to(self, stay: _Stay, low: int, high: int, slot: Hashable) -> None:
        """Have a stay be at the last of the prefixes just taken whole, though they begin behind its own."""
        if low >= stay.stop:
            self._leave(stay, slot)
            family = int(np.searchsorted(self.edges, high - 1, side="right")) - 1
            stay.start, stay.stop = int(self.edges[family]), int(self.edges[family + 1])
            self.covered[low : stay.start] = False
            self.fresh = family + 1
        self._move(stay, high - 1, slot)

    def _fitting(self, low: int, stop: int, ranges: int, points: int, room: float, ask: Ask) -> tuple[int, int]:
        """Return which prefixes from `low` on can be computed whole, in so many points and seconds."""
        low = self._next(low, stop)
        high = min([stop, low + max(0, RANGES - ranges), *(at for at in self.lanes if at >= low)])
        counts = self.rest[low:high]
        seconds = np.cumsum(counts * (ask.seconds or 0.0) + (ask.setup or 0.0) * (counts > 0))
        fitting = min(np.searchsorted(seconds, room, "right"), np.searchsorted(np.cumsum(counts), points, "right"))
        # The last of them has something left, as the first has.
        return low, low + int(np.flatnonzero(counts[:fitting])[-1]) + 1 if fitting else low

    def _whole(self, low: int, high: int) -> list[tuple[int, int]]:
        """Take all that is left of some prefixes that follow each other in the order; return its ranges."""
        ranges: list[tuple[int, int]] = []
        owners = self.owner[low:high]
        for owner in np.unique(owners).tolist():
            for block in self.parts[owner].whole(self.number[low:high][owners == owner]):
                ranges += block.ranges
        self.left -= int(self.rest[low:high].sum())
        self.rest[low:high] = 0
        return ranges

    def _took(self, at: int, count: int) -> None:
        self.rest[at] -= count
        self.left -= count

    def _lane(self, at: int) -> Lane:
        if at not in self.lanes:
            self.lanes[at] = self.parts[int(self.owner[at])].lane(int(self.number[at]))
        return self.lanes[at]

    def _quota(self, stay: _Stay, ask: Ask) -> int:
        """Return how many points of a prefix a visit computes, so that setting up again stays cheap."""
        total = int(self.totals[stay.at])
        if not self.coarse or ask.seconds is None or ask.setup is None:
            return total
        setup = max(ask.setup, self.chain / (stay.stop - stay.start))
        least = max(SHORT, setup / SETUP_SHARE) / max(ask.seconds, 1e-9)
        return min(total, math.ceil(max(total / MOST_VISITS, least)))

    # Who is where

    def _stay(self, ask: Ask) -> _Stay | None:
        """Return where the slot works from now on, at a prefix with something left; None where it had better wait."""
        stay = self.stays.get(ask.slot)
        if stay is not None and self._goes_on(stay, ask):
            return stay
        if stay is not None:
            del self.stays[ask.slot]
            self._leave(stay, ask.slot)
        for waiting in self._waiting(ask.slot):
            stay = self._arrive(ask.slot, _Stay(waiting.start, waiting.stop, waiting.start))
            if stay is not None:
                return stay
        if not (ask.idle or ask.alone):
            return None
        stay = self._rejoined(ask.slot)
        state = (self.left, ask.seconds, ask.setup, ask.workers)
        if stay is not None or (not ask.alone and self.declined == state):
            # Many idle slots ask again and again; what the first was told holds for them.
            return stay
        stay = self._taken_over(ask)
        self.declined = () if stay is not None else state
        return stay

    def _goes_on(self, stay: _Stay, ask: Ask) -> bool:
        """Whether a stay has something left, moving to the next prefix after a visit."""
        if self.rest[stay.at] and stay.drawn < self._quota(stay, ask):
            return True
        at = self._next(stay.at + 1, stay.stop)
        if at >= stay.stop:
            return False
        self._move(stay, at, ask.slot)
        return True

    def _next(self, low: int, stop: int) -> int:
        """Return the first place from `low` on with something left, `stop` if there is none."""
        while low < stop:
            high = min(stop, low + 1024)
            found = np.flatnonzero(self.rest[low:high])
            if len(found):
                return low + int(found[0])
            low = high
        return stop

    def _arrive(self, slot: Hashable, stay: _Stay) -> _Stay | None:
        """Have a slot look after prefixes; None if nothing is left there."""
        at = self._next(stay.start, stay.stop)
        if at >= stay.stop:
            self._leave(stay, slot)
            return None
        self._move(stay, at, slot)
        self.stays[slot] = stay
        return stay

    def _move(self, stay: _Stay, at: int, slot: Hashable) -> None:
        before, stay.at, stay.drawn = stay.at, at, 0
        self._close(before)
        self.recent.setdefault(slot, deque(maxlen=RECENT)).append(at)
        if not stay.guest:
            if slot not in self.slots:
                self.slots[slot] = len(self.named)
                self.named.append(slot)
            self.home[at] = self.slots[slot]

    def _close(self, at: int) -> None:
        """Forget the order in a prefix that nobody works on."""
        if at in self.lanes and all(other.at != at for other in self.stays.values()):
            del self.lanes[at]

    def _leave(self, stay: _Stay, slot: Hashable) -> None:
        """Put what a stay has left in the slot's queue."""
        self._close(stay.at)
        if stay.guest:
            return
        self.covered[stay.start : stay.stop] = False
        some = np.flatnonzero(self.rest[stay.start : stay.stop])
        if len(some):
            self._queue(slot, _Waiting(stay.start + int(some[0]), stay.start + int(some[-1]) + 1))

    def _queue(self, slot: Hashable, waiting: _Waiting) -> None:
        self.covered[waiting.start : waiting.stop] = True
        queue = self.queues.setdefault(slot, deque())
        if waiting.back:
            queue.appendleft(waiting)
        else:
            queue.append(waiting)

    def _waiting(self, slot: Hashable) -> Iterator[_Waiting]:
        """Yield what the slot should do next: what came back, what nobody has begun, the rest of what it has set up."""
        queue = self.queues.setdefault(slot, deque())
        while queue and queue[0].back:
            yield queue.popleft()
        while self.fresh < len(self.edges) - 1:
            self.fresh += 1
            yield _Waiting(int(self.edges[self.fresh - 1]), int(self.edges[self.fresh]))
        while self.orphans:
            yield self.orphans.popleft()
        while queue:
            yield queue.popleft()

    # Sharing what others have set up

    def _rejoined(self, slot: Hashable) -> _Stay | None:
        """Return a place beside another slot at what this one has set up too, None where there is none."""
        for at in reversed(self.recent.get(slot, ())):
            if self.rest[at] and any(stay.at == at for stay in self.stays.values()):
                return self._arrive(slot, _Stay(at, at + 1, at, guest=True))
        return None

    def _taken_over(self, ask: Ask) -> _Stay | None:
        """Return work of another slot that is worth a second setup, None where there is none."""
        stay = self._from_queues(ask) or self._beside(ask)
        if stay is None and ask.alone:
            # What came back of prefixes that slots have passed.
            for slot in list(self.stays):
                self._leave(self.stays.pop(slot), slot)
            stay = self._from_queues(ask)
        return stay

    def _from_queues(self, ask: Ask) -> _Stay | None:
        for queue in self.queues.values():
            while queue:
                waiting = queue[-1]
                work = self._work(waiting.start, waiting.stop, ask)
                if work and not self._pays(work, self._again(waiting.start, waiting.stop, ask), 1, ask):
                    break
                queue.pop()
                stay = self._arrive(ask.slot, _Stay(waiting.start, waiting.stop, waiting.start))
                if stay is not None:
                    return stay
        return None

    def _beside(self, ask: Ask) -> _Stay | None:
        """Return half of what another slot still has to come to, or a place at the prefix it works on."""
        best: tuple[float, int, _Stay | None] = (0.0, 1, None)
        users: dict[int, int] = {}
        for other in self.stays.values():
            users[other.at] = users.get(other.at, 0) + 1
        for other in self.stays.values():
            several = self.rest[other.at + 1 : other.stop].any()
            count = 1 if several else users[other.at]
            work = self._work(other.at, other.stop, ask)
            best = max(best, (work / count, count, other), key=lambda found: found[0])
        work_each, count, stay = best
        if stay is None:
            return None
        ahead = self._next(stay.at + 1, stay.stop)
        again = self._again(ahead if ahead < stay.stop else stay.at, stay.stop, ask)
        if not self._pays(work_each * count, again, count, ask):
            return None
        return self._arrive(ask.slot, self._half(stay))

    def _half(self, stay: _Stay) -> _Stay:
        """Return a stay for the later half of what a slot has still to come to, else a place beside it."""
        low = stay.at + 1
        ahead = np.cumsum(self.rest[low : stay.stop])
        if not len(ahead) or not ahead[-1]:
            return _Stay(stay.at, stay.at + 1, stay.at, guest=True)
        # The slot has what it works on to finish first.
        half = (int(ahead[-1]) - int(self.rest[stay.at])) / 2
        cut = low + int(np.searchsorted(ahead, half, side="left")) + (half > 0)
        cut = min(cut, self._last(low, stay.stop))
        stop, stay.stop = stay.stop, cut
        return _Stay(cut, stop, cut)

    def _last(self, low: int, stop: int) -> int:
        """Return the last place below `stop` with something left."""
        return low + int(np.flatnonzero(self.rest[low:stop])[-1])

    def _work(self, start: int, stop: int, ask: Ask) -> float:
        """Return the seconds that what is left of some prefixes takes, with the setups that nobody has made yet."""
        rest = self.rest[start:stop]
        fresh = np.count_nonzero((rest > 0) & (rest == self.totals[start:stop])) if self.innermost else 0
        return float(rest.sum()) * (ask.seconds or SHORT) + fresh * self.innermost

    def _again(self, start: int, stop: int, ask: Ask) -> float:
        """Return the seconds of the setups of some prefixes that would be made once more by another slot."""
        rest = self.rest[start:stop]
        begun = np.count_nonzero((rest > 0) & (rest < self.totals[start:stop]))
        setup = max(ask.setup or 0.0, self.chain)
        return max(0.0, setup - self.innermost) + begun * self.innermost

    def _pays(self, work: float, again: float, users: int, ask: Ask) -> bool:
        """Whether setups made again are won back: by time, and within what all that may cost."""
        if not ask.alone:
            if ask.seconds is None or ask.setup is None or work <= max(SHORT, GAIN * users * again):
                return False
            # With fewer prefixes than slots, some slots would have nothing to do from the start.
            needed = self.listed * ask.seconds + len(self.rest) * self.innermost
            if self.repeated + again > SETUP_SHARE * needed and len(self.edges) - 1 >= ask.workers:
                return False
        self.repeated += again
        return True

    def measured(self, block: Block, setup: float) -> None:
        """Note how long the setups of a block took; those around its points from the outermost in are told apart."""
        if block.ranges[0][0] in self.arrivals:
            self.arrivals.remove(block.ranges[0][0])
            if setup > 0:
                self.chain = 0.5 * self.chain + 0.5 * setup if self.chain else setup
        elif setup > 0 and len(self.parts[0].levels) > 1:
            each = setup / self.prefixes_of(block)
            self.innermost = 0.5 * self.innermost + 0.5 * each if self.innermost else each

    # Points and slots that come and go

    def restore(self, block: Block) -> None:
        """Take back points that were not computed; the slot that set their prefix up comes to it next."""
        indices = block.indices()
        owners = np.searchsorted(self.bases, indices, side="right") - 1
        for owner in np.unique(owners).tolist():
            numbers, counts = self.parts[owner].restore(indices[owners == owner])
            for at, count in zip(self.place[owner][numbers].tolist(), counts.tolist(), strict=True):
                self._restored(at, count)

    def _restored(self, at: int, count: int) -> None:
        self.rest[at] += count
        self.left += count
        home = self._home(at)
        stay = self.stays.get(home)
        if stay is not None and stay.at == at:
            stay.drawn = max(0, stay.drawn - count)
        if at in self.lanes:
            self.lanes[at].restore(Block(((0, count),)))
        if not self.covered[at]:
            self._queue(home, _Waiting(at, at + 1, back=True))

    def _home(self, at: int) -> Hashable:
        return self.named[int(self.home[at])]

    def keep(self, slots: Collection[Hashable]) -> None:
        """Give what slots that are gone looked after to the others."""
        for slot in [slot for slot in self.stays if slot not in slots]:
            self._leave(self.stays.pop(slot), slot)
        for slot in [slot for slot in self.queues if slot not in slots]:
            self.orphans.extend(self.queues.pop(slot))
        for slot in [slot for slot in self.recent if slot not in slots]:
            del self.recent[slot]

    def busy(self, workers: int) -> int:
        """Return how many slots of all there are may get something to do now."""
        return workers if self.fresh < len(self.edges) - 1 else min(workers, len(self.stays) + 1)

    def begun_by(self, ask: Ask) -> Ask:
        """Return who asks where nobody says: as many prefixes as workers are kept open, in turn."""
        self.turn = (self.turn + 1) % max(1, ask.workers)
        return Ask(("turn", self.turn), ask.workers, ask.seconds, ask.setup)

    def prefixes_of(self, block: Block) -> int:
        """Return how many prefixes a block has points of."""
        indices = block.indices()
        owners = np.searchsorted(self.bases, indices, side="right") - 1
        return sum(
            len(np.unique(self.parts[owner].number(indices[owners == owner]))) for owner in np.unique(owners).tolist()
        )
