"""What the VMs of a cluster have cost so far, from the prices of the profile."""

import time
from collections.abc import Callable

# Google bills by the second, and a minute at least: https://cloud.google.com/compute/vm-instance-pricing.
LEAST_SECONDS = 60.0


class Bill:
    """Sums up prices of an hour over the lives of VMs.

    Parameters
    ----------
    clock : callable
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._open: dict[str, tuple[float, float | None]] = {}
        self._past = 0.0

    def begin(self, name: str, price: float | None) -> None:
        """Take in that a VM is there from now on, at so much for an hour; None where the profile does not say."""
        self._open.setdefault(name, (self._clock(), price))

    def end(self, name: str) -> None:
        """Take in that a VM is gone; once more does not matter."""
        found = self._open.pop(name, None)
        if found is not None:
            self._past += self._cost(*found)

    @property
    def total(self) -> float:
        """What all VMs have cost so far."""
        return self._past + sum(self._cost(*one) for one in self._open.values())

    @property
    def hourly(self) -> float:
        """What those that are there now cost for an hour."""
        return sum(price or 0.0 for _, price in self._open.values())

    def _cost(self, began: float, price: float | None) -> float:
        return (price or 0.0) * max(LEAST_SECONDS, self._clock() - began) / 3600.0
