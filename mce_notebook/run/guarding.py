"""Slow guards, evaluated by the host of a sweep in its slots, before it plans: only they tell which points there are.

To an engine this is work as any other: an assignment whose points are the combinations of the axes a guard reads, in
blocks over all slots, supervised as points are. What comes back is no outcome and not logged, but gathered in a draft
beside the declaration, from which whoever comes after a crash goes on. Guards are evaluated one after another, each
only where those before it hold, as in the loop. With the last answer the bitmap is stored, and points follow.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mce_notebook.declare.grid import Grid, Status
from mce_notebook.declare.guards import Asking, Mask, Question, questions
from mce_notebook.declare.matching import joined
from mce_notebook.plan import Plan
from mce_notebook.run.asking import OUTPUT, asked_grid
from mce_notebook.run.ledger import Assignment
from mce_notebook.run.schedule import Schedule
from mce_notebook.run.tally import Tally
from mce_notebook.store.answers import Pieces, drop_draft, read_draft, same_guards, write_draft, write_mask
from mce_notebook.store.frames import Failure, decode
from mce_notebook.store.messages import unpack

if TYPE_CHECKING:
    from mce_notebook.declare.options import Options
    from mce_notebook.plan import Block
    from mce_notebook.run.protocol import Task
    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.store.declaration import Declaration
    from mce_notebook.store.frames import Frame

log = logging.getLogger(__name__)

# How often the draft is written (seconds), and the share of the time that this may take.
DRAFT_SECONDS = 5.0
DRAFT_SHARE = 0.05
# What tells answers of guards from outcomes: they are of this version, and its key.
_MARK = "guard"
# How a slot tells that something captured was changed; see `Protection`.
CHANGES = "points change "
Place = tuple[int, int]


def of_guard(frame: "Frame") -> bool:
    """Whether a frame holds what a guard said, and not outcomes of points."""
    return str(frame.cover["version"]).startswith(f"{_MARK} ")


class Guarding:
    """What the slow guards of one declared grid say, as far as it is known.

    Parameters
    ----------
    sweep : SweepStore
    declaration : Declaration
        One whose guards are left to the host.
    stop : callable
        Told the sentence when a guard raised, or had to be stopped, at a point.
    """

    def __init__(self, sweep: "SweepStore", declaration: "Declaration", stop: Callable[[str], None]):
        self.key = declaration.deferred
        self._sweep = sweep
        self._grid: Grid = declaration.grid
        self._always: Sequence[Sequence[int]] = declaration.grid_record["asked"]
        self._stop = stop
        self._current: tuple[Place, Question] | None = None
        self._failed = False
        # Answers come in the thread that writes, while another may plan.
        self._lock = threading.RLock()
        pieces = read_draft(sweep, self.key)
        self._answers = {(place, number): [pieces[place, number, 0], pieces[place, number, 1]]
                         for place, number, kind in pieces if kind == 0}  # fmt: skip
        if not self._answers:
            self._answers = inherited(sweep, declaration, self._always)
        self._written = time.monotonic()
        self._pause = DRAFT_SECONDS
        self._dirty = False

    @property
    def busy(self) -> bool:
        """Whether a guard is being evaluated."""
        return self._current is not None

    def assignment(self, task: "Task", options: "Options", flying: "Sequence[tuple[Task, Block]]") -> Assignment | None:
        """Return what is still to be asked of the next guard; None once all is known, and stored."""
        with self._lock:
            return self._assignment(task, options, flying)

    def _assignment(
        self, task: "Task", options: "Options", flying: "Sequence[tuple[Task, Block]]"
    ) -> Assignment | None:
        self._failed = False
        self._current = self._next()
        if self._current is None:
            return None
        place, question = self._current
        task = replace(task, version=f"{_MARK} {self.key} {place[0]} {place[1]}", guard=place)
        grid = asked_grid(question.part, question.guard)
        known, _ = self._piece(place, grid.size)
        missing, status = np.zeros(grid.size, np.bool_), np.zeros(grid.size, np.uint8)
        missing[question.wanted] = True
        status[missing & known] = Status.DONE
        missing &= ~known
        for other, block in flying:
            if other.version == task.version:
                missing[block.indices()] = False
        schedule = Schedule(Plan(grid, missing, order="listed"), retries=options.retries)
        return Assignment(task, schedule, Tally(status, question.wanted.size), options, (OUTPUT,))

    def _next(self) -> tuple[Place, Question] | None:
        """Return the first guard of which not all is known; with all of them known, store what they keep."""
        masks: list[Mask | None] = []
        for at, part in enumerate(self._grid.parts):
            asking = questions(part, self._always[at])
            said: Mask | None = None
            while True:
                try:
                    question = next(asking) if said is None else asking.send(said)
                except StopIteration as end:
                    masks.append(end.value)
                    break
                place = (at, question.number)
                known, kept = self._piece(place, asked_grid(question.part, question.guard).size)
                if not known[question.wanted].all():
                    return place, question
                said = kept[question.wanted]
        mask = joined(self._grid.parts, masks)
        write_mask(self._sweep, self.key, mask)
        answer_smaller(self._sweep, self.key, self._grid, mask)
        self._dirty = False
        log.info("%s: the guards keep %d of %d points", self._sweep.name, np.count_nonzero(mask), mask.size)
        return None

    def _piece(self, place: Place, size: int) -> list[Mask]:
        if place not in self._answers:
            self._answers[place] = [np.zeros(size, np.bool_), np.zeros(size, np.bool_)]
        return self._answers[place]

    def take(self, frames: "Sequence[Frame]") -> "list[Frame]":
        """Take in what guards said; return the frames that are outcomes of points."""
        with self._lock:
            return self._take(frames)

    def _take(self, frames: "Sequence[Frame]") -> "list[Frame]":
        outcomes = []
        for frame in frames:
            if not of_guard(frame):
                outcomes.append(frame)
                continue
            _, key, part, number = str(frame.cover["version"]).split()
            if key == self.key:
                self._enter((int(part), int(number)), frame)
        if self._dirty and time.monotonic() - self._written > self._pause:
            self._keep()
        return outcomes

    def _enter(self, place: Place, frame: "Frame") -> None:
        if place not in self._answers:
            return
        known, kept = self._answers[place]
        for data, record in unpack(frame.head + frame.body):
            batch = decode(data, record)
            index = np.asarray(batch.index)
            good = np.ones(len(index), np.bool_) if batch.status is None else batch.status == Status.DONE
            if good.any():
                kept[index[good]] = np.asarray(batch.columns[OUTPUT].values(), np.bool_)[good]
                known[index[good]] = True
            if batch.failures:
                row = min(batch.failures)
                self._fail(place, int(index[row]), batch.failures[row])
        self._dirty = True

    def _fail(self, place: Place, index: int, failure: Failure) -> None:
        name = failure.type.rpartition(".")[2]
        why = f"{name}: {failure.message}" if failure.status == Status.FAILED else failure.cause or failure.message
        if self._current is not None and self._current[0] == place:
            self.give_up(self._current[1].failed(index, why))

    def noticed(self, what: str) -> None:
        """Take in what slots noticed: a guard that changes what it reads says something else in another order."""
        with self._lock:
            if self._current is None or not what.startswith(CHANGES):
                return
            guard, names = str(self._current[1].guard), what.removeprefix(CHANGES).partition(",")[0]
            self.give_up(
                f"The guard {guard!r} changes {names}, so what it says would depend on the order in which slots ask; "
                "write one that depends on the axes alone."
            )
            # What it has said so far is worth nothing.
            self._answers.clear()
            self._dirty = False
            drop_draft(self._sweep, self.key)

    def give_up(self, why: str) -> None:
        """Have the sweep stop for a reason; the first one counts."""
        if not self._failed:
            self._stop(why)
            self._failed = True

    def keep(self) -> None:
        """Write the draft, if there is anything new."""
        with self._lock:
            if self._dirty:
                self._keep()

    def _keep(self) -> None:
        begun = time.monotonic()
        pieces: Pieces = {
            (*place, kind): bits for place, both in self._answers.items() for kind, bits in enumerate(both)
        }
        write_draft(self._sweep, self.key, pieces)
        self._dirty, self._written = False, time.monotonic()
        self._pause = max(DRAFT_SECONDS, (self._written - begun) / DRAFT_SHARE)

    def told(self, beat: Mapping[str, Any]) -> dict[str, Any]:
        """Return a heartbeat that says how far the guard is; of points nothing is known yet."""
        current = self._current
        if current is None:
            return dict(beat)
        guard = {"text": str(current[1].guard), "done": beat["done"], "total": beat["total"]}
        return {**beat, "guard": guard, "in_flight": [], "done": 0, "failed": 0, "total": 0, "rate": 0.0}


def inherited(
    sweep: "SweepStore", declaration: "Declaration", always: Sequence[Sequence[int]]
) -> dict[Place, list[Mask]]:
    """Return what the same guards said of the points of earlier declarations that this one has, too.

    Of a point that they keep, all of them said yes; of one they do not keep, the only slow one said no where the others
    hold.
    """
    grid = declaration.grid
    if len(grid.parts) > 1:
        return {}
    (part,) = grid.parts
    asked = _all_questions(questions(part, always[0]))
    answers = _drafted(sweep, declaration, asked)
    found, kept = _said_before(sweep, declaration)
    if not found.any():
        return answers
    most = grid.candidates()
    for question in asked:
        others = tuple(at for at, axis in enumerate(part.axes) if not set(axis.names) & set(question.guard.names))
        yes = kept.reshape(part.shape).any(axis=others).reshape(-1)
        no = np.zeros_like(yes)
        if len(asked) == 1:
            left_out = found & ~kept if most is None else found & ~kept & most
            no = left_out.reshape(part.shape).any(axis=others).reshape(-1)
        known, said = answers.get((0, question.number), [yes, yes])
        answers[0, question.number] = [known | yes | no, said | yes]
    return answers


def _drafted(sweep: "SweepStore", declaration: "Declaration", asked: Sequence[Question]) -> dict[Place, list[Mask]]:
    """Return what the same guards said for earlier declarations that this one took over from before all was known."""
    answers: dict[Place, list[Mask]] = {}
    for earlier in _unanswered(sweep, declaration.deferred):
        pieces = read_draft(sweep, earlier.deferred)
        for question in asked:
            if (0, question.number, 0) not in pieces:
                continue
            grid = asked_grid(question.part, question.guard)
            places = grid.positions(asked_grid(earlier.grid.parts[0], question.guard))
            known, said = answers.setdefault((0, question.number), [np.zeros(grid.size, np.bool_) for _ in range(2)])
            here = (places >= 0) & pieces[0, question.number, 0]
            known[places[here]] = True
            said[places[here]] = pieces[0, question.number, 1][here]
    return answers


def answer_smaller(sweep: "SweepStore", key: str, grid: Grid, mask: Mask) -> None:
    """Store what the same guards keep of earlier declarations, of which this grid has every point.

    No host evaluates those any more, and whoever declared them waits to know which points they have.
    """
    for earlier in _unanswered(sweep, key) if len(grid.parts) == 1 else ():
        places = grid.positions(earlier.grid)
        if (places >= 0).all():
            write_mask(sweep, earlier.deferred, mask[places])


def _unanswered(sweep: "SweepStore", key: str) -> "Iterator[Declaration]":
    """Yield other declarations of the guards of a key of which it is not known yet what they keep."""
    for number in sweep.numbers():
        earlier = sweep.declaration(number)
        if earlier.deferred not in ("", key) and same_guards(key, earlier.deferred) and len(earlier.grid.parts) == 1:
            yield earlier


def _said_before(sweep: "SweepStore", declaration: "Declaration") -> tuple[Mask, Mask]:
    """Return the points of which earlier declarations of the same guards tell, and which of these they keep."""
    grid, key = declaration.grid, declaration.deferred
    found, kept = np.zeros(grid.size, np.bool_), np.zeros(grid.size, np.bool_)
    for number in sweep.numbers():
        earlier = sweep.declaration(number)
        if earlier.deferred or not same_guards(key, str(earlier.grid_record.get("guarded", ""))):
            continue
        if len(earlier.grid.parts) == 1:
            mask = earlier.grid.mask()
            places = grid.positions(earlier.grid, declaration.constants, earlier.constants)
            here = places >= 0
            found[places[here]] = True
            kept[places[here]] = True if mask is None else mask[here]
    return found, kept


def _all_questions(asking: Asking) -> list[Question]:
    found: list[Question] = []
    try:
        found.append(next(asking))
        while True:
            found.append(asking.send(np.ones(found[-1].wanted.size, np.bool_)))
    except StopIteration:
        return found
