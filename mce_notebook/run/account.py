"""What a cluster has cost so far, and for which sweep."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any


class Account:
    """Adds up what is paid for, and divides it among the sweeps that run.

    What is paid while no sweep runs (jobs that come up, or wait for the next sweep) is the cluster's alone.

    Parameters
    ----------
    price : float or None
        Of a core for an hour; None: not known, or told from outside.
    most : float or None
        What the cluster may cost in all.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self, price: float | None = None, most: float | None = None, clock: Callable[[], float] = time.monotonic
    ):
        self.most = most
        # So far, and for an hour as things are now; None as long as nobody knows.
        self.total: float | None = None if price is None else 0.0
        self.hourly: float | None = None if price is None else 0.0
        self._price = price
        self._clock = clock
        self._at = clock()
        self._parts: dict[Hashable, float] = {}

    def look(self, cores: float, shares: Mapping[Any, int]) -> None:
        """Take in that so many cores are paid for from now on.

        Parameters
        ----------
        cores : float
        shares : mapping of hashable to int
            Slots that each sweep keeps busy now.
        """
        now = self._clock()
        since, self._at = now - self._at, now
        if self._price is not None:
            self._add((self.hourly or 0.0) * since / 3600.0, shares)
            self.hourly = self._price * cores

    def told(self, total: float, hourly: float | None, shares: Mapping[Any, int]) -> None:
        """Take in what whoever counts for itself has counted so far."""
        more = total - (self.total or 0.0)
        self.total = self.total or 0.0
        self.hourly = hourly
        self._add(more, shares)

    def of(self, sweep: Hashable) -> float | None:
        """Return what a sweep has cost on this cluster; None where nobody knows prices."""
        return None if self.total is None else self._parts.get(sweep, 0.0)

    def forget(self, sweep: Hashable) -> None:
        """Begin anew for a sweep: whoever needs to know has taken down what it cost."""
        self._parts.pop(sweep, None)

    @property
    def spent(self) -> bool:
        """Whether it has cost as much as it may."""
        return self.most is not None and self.total is not None and self.total >= self.most

    def _add(self, more: float, shares: Mapping[Any, int]) -> None:
        assert self.total is not None
        self.total += more
        weights = {sweep: max(1, slots) for sweep, slots in shares.items()}
        whole = sum(weights.values())
        for sweep, weight in weights.items():
            self._parts[sweep] = self._parts.get(sweep, 0.0) + more * weight / whole
