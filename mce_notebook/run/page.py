"""One page of memory shared by a slot and its supervisor: what the slot is doing right now, and its output.

It outlives the slot, so that whatever killed it, the supervisor can name the point and show what it printed.
"""

import mmap
import os
import struct
import tempfile
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from mce_notebook.run.output import RING, Ring

_STATE = struct.Struct("<qqqdq")
_RING_AT = 64
SIZE = _RING_AT + Ring.HEAD + RING


class Phase(IntEnum):
    """What a slot is busy with."""

    IDLE = 0
    LOADING = 1
    SETUP = 2
    POINT = 3
    POINTS = 4
    WRITING = 5


@dataclass(frozen=True)
class State:
    """A reading of the page.

    Parameters
    ----------
    phase : Phase
    position : int
        Where in the block, counted from its first point.
    count : int
        Points under way (`POINTS`), or the depth of the setup (`SETUP`).
    since : float
        `time.monotonic()` when this began; the clock is the machine's, hence the same for both processes.
    mark : int
        Bytes printed before this began.
    """

    phase: Phase
    position: int
    count: int
    since: float
    mark: int


class Page:
    """The shared page, seen from either side.

    Parameters
    ----------
    descriptor : int, optional
        File descriptor of an existing page, which is then kept open by the caller; a new page is made without it.
    """

    def __init__(self, descriptor: int | None = None):
        if descriptor is None:
            with tempfile.TemporaryFile() as file:
                file.truncate(SIZE)
                self._map = mmap.mmap(file.fileno(), SIZE)
                self.descriptor = os.dup(file.fileno())
        else:
            self._map = mmap.mmap(descriptor, SIZE)
            self.descriptor = descriptor
        self.output = Ring(memoryview(self._map)[_RING_AT:])

    def enter(self, phase: Phase, position: int = 0, count: int = 1) -> None:
        """Say what the slot does from now on."""
        _STATE.pack_into(self._map, 0, phase, position, count, time.monotonic(), self.output.written)

    def state(self) -> State:
        """Return what the slot is doing; exact once it is dead, else possibly torn between two states."""
        phase, position, count, since, mark = _STATE.unpack_from(self._map, 0)
        return State(Phase(phase), position, count, since, mark)

    def close(self) -> None:
        """Unmap the page and close its descriptor."""
        self.output.release()
        self._map.close()
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
