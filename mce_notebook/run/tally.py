"""How far a sweep is: counts of outcomes that are safe, and the heartbeat made of them."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mce_notebook.declare.grid import Status
from mce_notebook.store.spans import Spans, Where, put, take, tallied

RATE_SECONDS = 10.0
FAILED = (Status.FAILED, Status.KILLED, Status.TIMEOUT)


class Tally:
    """Status of every point of the declared grid, as far as it is safe, and the rate at which it changes.

    Parameters
    ----------
    status : uint8[size]
        What was known when the sweep started; changed in place.
    total : int
        Points of the design (guards taken into account).
    """

    def __init__(self, status: np.ndarray, total: int):
        self._status = status
        self.total = total
        self._counts = tallied(status)
        self._recent: deque[tuple[float, int]] = deque()
        self._since = time.monotonic()

    @property
    def done(self) -> int:
        """Points with values, or skipped at run time."""
        return int(self._counts[Status.DONE] + self._counts[Status.SKIPPED])

    @property
    def failed(self) -> int:
        """Points that failed, were killed or timed out."""
        return int(sum(self._counts[status] for status in FAILED))

    def add(self, index: Where, told: bytes | None = None) -> None:
        """Take in that outcomes are safe; twice the same changes nothing.

        Parameters
        ----------
        index : slice, Spans or int64[n]
            Listed indices; -1 where a point is not in this grid.
        told : bytes or None
            One status per outcome; None when all are done.
        """
        old = take(self._status, index)
        new = np.frombuffer(told, np.uint8) if told is not None else np.full(len(old), Status.DONE, np.uint8)
        if isinstance(index, np.ndarray) and (index < 0).any():
            here = index >= 0
            index, old, new = index[here], old[here], new[here]
        # A good outcome is never hidden by a later failure of the same point.
        new = np.where(old == Status.DONE, old, new)
        self._counts += tallied(new) - tallied(old)
        put(self._status, index, new)
        self._recent.append((time.monotonic(), len(new)))

    def rate(self) -> float:
        """Points a second over the last ten seconds, or since the start where that is shorter."""
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - RATE_SECONDS:
            self._recent.popleft()
        span = min(RATE_SECONDS, now - self._since)
        return sum(fresh for _, fresh in self._recent) / span if span > 0 else 0.0


def covered(cover: Mapping[str, Any]) -> Where:
    """Return the listed indices of a frame: a slice, Spans, or int64[n]."""
    if "ranges" in cover:
        return Spans.of(cover["ranges"])
    index = cover.get("index")
    if index is not None:
        return np.frombuffer(index, np.int64)
    start = int(cover["start"])
    return slice(start, start + int(cover["count"]))


def spans(ranges: Sequence[tuple[int, int]], limit: int = 64) -> list[list[int]]:
    """Return the first `limit` of these half-open ranges, as JSON likes them."""
    return [[int(start), int(stop)] for start, stop in ranges[:limit]]
