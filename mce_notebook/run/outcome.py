"""From what points gave to frames: the one place where slots, supervisors and inline runs encode."""

import socket
from functools import cache

import numpy as np

from mce_notebook.declare.grid import Status
from mce_notebook.plan import Block
from mce_notebook.run.protocol import Task
from mce_notebook.store.frames import Failure, Frame, Outcomes, encode

_FAILED = (int(Status.FAILED), int(Status.KILLED), int(Status.TIMEOUT))


def cut(block: Block, start: int, stop: int) -> Block | None:
    """Return the points of a block between two positions, None where there are none."""
    start, stop = max(start, 0), min(stop, block.count)
    if start >= stop:
        return None
    ranges = []
    for first, last in block.ranges:
        size = last - first
        low, high = max(start, 0), min(stop, size)
        if low < high:
            ranges.append((first + low, first + high))
        start, stop = start - size, stop - size
        if stop <= 0:
            break
    return Block(tuple(ranges))


def meta(task: Task) -> dict[str, str]:
    """Return what every batch of a task says about itself."""
    return {"version": task.version, "generation": str(task.generation), "worker": hostname()}


@cache
def hostname() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def failure_frames(task: Task, block: Block, failure: Failure) -> list[Frame]:
    """Return the frames that record one failure for all points of a block."""
    outcomes = Outcomes([None] * block.count, dict.fromkeys(range(block.count), failure))
    return encode(outcomes, (), declaration=task.declaration, ranges=block.ranges, meta=meta(task))


def failed_count(frames: list[Frame]) -> int:
    """Return how many points of some frames have no values because of a failure."""
    statuses = [np.frombuffer(frame.cover["status"], np.uint8) for frame in frames if frame.cover["status"] is not None]
    return sum(int(np.isin(status, _FAILED).sum()) for status in statuses)
