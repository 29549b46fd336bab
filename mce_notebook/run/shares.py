"""Who may send the next block: the sweeps of one host share its slots evenly."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

# One block computed and one waiting in each slot: it starts on the next without waiting for the host.
DEPTH = 2


@dataclass
class _Waiter:
    who: Hashable
    eager: bool
    granted: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Shares:
    """Grants places in the queues of the slots: to who holds the fewest, then to who waited longest for one.

    Parameters
    ----------
    slots : callable
        Returns how many slots there are now; none while a cluster starts.
    depth : int
        Places per slot.

    Attributes
    ----------
    allowed : int or None
        How many slots may be busy at once where that is fewer than there are: another host has the others' cores.
    """

    def __init__(self, slots: Callable[[], int], depth: int = DEPTH):
        self._slots = slots
        self._depth = depth
        self.allowed: int | None = None
        self._held: dict[Hashable, int] = {}
        self._grants = 0
        self._latest: dict[Hashable, int] = {}
        self._waiting: list[_Waiter] = []

    @property
    def held(self) -> int:
        """Places taken now, by all sweeps together."""
        return sum(self._held.values())

    @property
    def busy(self) -> int:
        """Slots that have something to compute."""
        return min(self.held, self._slots())

    @property
    def wanted(self) -> int:
        """Slots that the sweeps could use now."""
        return self._slots() if self._waiting else self.busy

    async def acquire(self, who: Hashable, *, eager: bool = True) -> bool:
        """Wait for a place; False if `wake` was called instead.

        With `eager` false the place is granted only where a slot is free, not to wait behind another block:
        for blocks so long that waiting in the host costs nothing and keeps the queue open to other sweeps.
        """
        waiter = _Waiter(who, eager)
        self._waiting.append(waiter)
        self.changed()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.result():
                self.release(who)
            raise

    def release(self, who: Hashable) -> None:
        """Give a place back."""
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]
        self.changed()

    def wake(self, who: Hashable) -> None:
        """Let every `acquire` of `who` return False now: something else needs its attention."""
        for waiter in [waiter for waiter in self._waiting if waiter.who == who]:
            self._waiting.remove(waiter)
            waiter.granted.set_result(False)

    def leave(self, who: Hashable) -> None:
        """Forget a sweep that ended and holds nothing."""
        self.wake(who)
        self._latest.pop(who, None)

    def changed(self) -> None:
        """Grant what can be granted; called whenever the number of slots may have changed."""
        while (waiter := self._next()) is not None:
            self._waiting.remove(waiter)
            if waiter.granted.done():
                continue
            self._held[waiter.who] = self._held.get(waiter.who, 0) + 1
            self._grants += 1
            self._latest[waiter.who] = self._grants
            waiter.granted.set_result(True)

    def _next(self) -> _Waiter | None:
        slots = self._slots()
        held = self.held
        if self.allowed is not None and self.allowed < slots:
            # Nothing waits in a slot then: an idle worker would take it from there and use one core too many.
            fitting = self._waiting if held < self.allowed else []
        else:
            fitting = [w for w in self._waiting if held < (slots * self._depth if w.eager else slots)]
        return min(fitting, key=self._claim, default=None)

    def _claim(self, waiter: _Waiter) -> tuple[int, int]:
        return self._held.get(waiter.who, 0), self._latest.get(waiter.who, 0)
