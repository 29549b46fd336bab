"""What an engine does with the store: orders, the declaration to work on, the log, the heartbeat."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mce_notebook.run.protocol import Task
from mce_notebook.run.schedule import Schedule, Verdict
from mce_notebook.run.tally import Tally, covered
from mce_notebook.store.spans import take

if TYPE_CHECKING:
    from mce_notebook.declare.options import Options
    from mce_notebook.plan import Block
    from mce_notebook.store.frames import Frame

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
    """What the store says now: the latest intent, who had it, and the number of the latest declaration."""

    verb: str
    by: str
    declaration: int


@dataclass
class Assignment:
    """One declaration to work on: what is missing of it, and how it is to be computed."""

    task: Task
    schedule: Schedule
    tally: Tally
    options: "Options"
    outputs: tuple[str, ...] | None = None
    # Listed index in this grid of every point of an earlier declaration that still had blocks on their way.
    places: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def serial(self) -> bool:
        """Whether one slot computes everything, in listed order."""
        return bool(self.options.serial)

    def count(self, covers: Iterable[Mapping[str, Any]]) -> None:
        """Take in what became safe, whichever declaration it was computed for."""
        for cover in covers:
            number = int(cover["declaration"])
            if number == self.task.declaration:
                self.tally.add(covered(cover), cover.get("status"))
            elif number in self.places:
                self.tally.add(take(self.places[number], covered(cover)), cover.get("status"))


class Ledger(Protocol):
    """The folder of one sweep, as its engine needs it; every method may block and is called in a thread."""

    name: str
    root: str

    @property
    def epoch(self) -> int | None:
        """Number of the epoch that is open, None before."""

    def look(self) -> Orders:
        """Return the orders that hold now.

        Raises
        ------
        UnknownSweep
            If the sweep was removed.
        """

    def assignment(self, flying: Sequence[tuple[Task, "Block"]]) -> Assignment:
        """Return the latest declaration with what is missing of it and not in blocks on their way."""

    def claim(self) -> None:
        """Open a new epoch to write in, unless one is open; `append` does so too."""

    def append(self, frames: Sequence["Frame"]) -> None:
        """Make outcomes durable."""

    def killed(self, work: Assignment, verdict: Verdict) -> Sequence["Frame"]:
        """Return the outcome of a point that the host gives up."""

    def hold(self, why: str) -> None:
        """Leave the intent that the sweep waits for `resume`."""

    def beat(self, beat: Mapping[str, Any]) -> None:
        """Replace the heartbeat."""

    def note(self, event: str, message: str) -> None:
        """Leave an event for people to read."""

    def close(self, state: str, message: str) -> None:
        """Close the epoch and note how it ended."""
