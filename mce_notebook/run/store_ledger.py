"""The ledger of an engine, kept in the sweep's folder of the store."""

import contextlib
import ctypes
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mce_notebook.declare.grid import Status
from mce_notebook.declare.options import Options
from mce_notebook.errors import StoreError, SweepError, UnknownSweep
from mce_notebook.plan import Plan
from mce_notebook.run.guarding import Guarding, of_guard
from mce_notebook.run.ledger import Assignment, Orders
from mce_notebook.run.protocol import Task
from mce_notebook.run.registry import Process, machine, start_time
from mce_notebook.run.schedule import Schedule, Verdict
from mce_notebook.run.tally import Tally
from mce_notebook.store.catalog import Store, SweepStore, pid_space
from mce_notebook.store.compact import compact
from mce_notebook.store.coverage import known, todo
from mce_notebook.store.frames import Failure, Outcomes, encode
from mce_notebook.store.journal import claim_epoch, open_journal
from mce_notebook.store.litter import tidy

if TYPE_CHECKING:
    from mce_notebook.plan import Block
    from mce_notebook.store.bucket_journal import BucketJournal
    from mce_notebook.store.declaration import Declaration
    from mce_notebook.store.frames import Frame
    from mce_notebook.store.journal import Journal

log = logging.getLogger(__name__)

# Segments of this many frames are worth writing again in large batches: reading a frame costs far more than its bytes.
COMPACTED = 256


class StoreLedger:
    """One sweep in a store, as its engine sees it.

    Parameters
    ----------
    root : str
        Root of the store.
    name : str
        Name of the sweep.

    Raises
    ------
    UnknownSweep
        If there is none of that name.
    """

    def __init__(self, root: str, name: str):
        self.root = root
        self._sweep = Store(root).sweep(name)
        self.name = self._sweep.name
        self._claiming = threading.Lock()
        self._journal: Journal | BucketJournal | None = None
        self._epoch = 0
        self._beating = threading.Lock()
        # Of the last heartbeat.
        self._counter = 0
        # What earlier hosts cost; None before anybody looked.
        self._paid: float | None = None
        # Frozen, hence read once.
        self._declarations: dict[int, Declaration] = {}
        # Slow guards of the latest declaration, which are evaluated before its points.
        self._guarding: Guarding | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells this sweep from others: where its folder really is, and the id it was made with."""
        return os.path.realpath(self._sweep.paths.folder), self._sweep.id

    @property
    def epoch(self) -> int | None:
        """Number of the epoch that is open, None before."""
        return self._epoch if self._journal is not None else None

    def look(self) -> Orders:
        """Return the latest intent and the number of the latest declaration.

        Raises
        ------
        UnknownSweep
            If the sweep was removed, or archived and its name used again.
        """
        if SweepStore(self._sweep.paths).id != self._sweep.id:
            raise UnknownSweep(f"The sweep {self.name!r} was replaced by another of that name.")
        intent = self._sweep.latest_intent()
        numbers = self._sweep.numbers()
        if not numbers:
            raise StoreError(f"Nothing was declared for {self.name!r} yet.")
        return Orders(intent.verb if intent else "run", intent.by if intent else "", numbers[-1])

    def _replaced(self) -> bool:
        """Whether the folder is gone, or belongs to another sweep by now."""
        try:
            return SweepStore(self._sweep.paths).id != self._sweep.id
        except UnknownSweep:
            return True

    def note(self, event: str, message: str) -> None:
        """Leave an event for people to read."""
        if self._guarding is not None and event == "remark":
            self._guarding.noticed(message)
        if not self._replaced():
            self._sweep.add_event(self._epoch, {"event": event, "message": message})

    def intend(self, verb: str, by: str = "") -> None:
        """Leave an intent, unless the latest says the same."""
        latest = self._sweep.latest_intent()
        if latest is None or latest.verb != verb:
            self._sweep.add_intent(verb, by or f"host {os.getpid()}")

    def hold(self, why: str) -> None:
        """Leave the intent that the sweep waits for `resume`."""
        self.intend("stop", why)

    def assignment(self, flying: Sequence[tuple[Task, "Block"]]) -> Assignment:
        """Return the latest declaration with what is missing of it and not in blocks on their way."""
        number = self._sweep.numbers()[-1]
        declaration = self._declaration(number)
        if declaration.deferred:
            work = self._guards(declaration, flying)
            if work is not None:
                return work
            declaration = self._declaration(number)
        self._guarding = None
        flying = [(task, block) for task, block in flying if task.guard is None]
        options = _options(declaration)
        found = known(self._sweep, declaration)
        missing = todo(found, declaration)
        places = {task.declaration: self._places(declaration, task) for task, _ in flying}
        for task, block in flying:
            if task.version == declaration.version and task.generation == declaration.generation:
                here = places[task.declaration][block.indices()]
                missing[here[here >= 0]] = False
        grid = declaration.grid
        mask = grid.mask()
        plan = Plan(
            grid,
            missing,
            order=options.order if not options.serial else "listed",
            prefix=_prefix(declaration),
            setups=declaration.setups,
            seed=declaration.root,
        )
        schedule = Schedule(plan, retries=options.retries, max_failures=options.max_failures)
        tally = Tally(np.array(found.status), int(grid.size if mask is None else np.count_nonzero(mask)))
        return Assignment(self._task(declaration, options), schedule, tally, options, declaration.outputs, places)

    def _guards(self, declaration: "Declaration", flying: Sequence[tuple[Task, "Block"]]) -> Assignment | None:
        """Return what slow guards are still to be asked; None once it is known which points there are."""
        if self._guarding is None or self._guarding.key != declaration.deferred:
            if self._guarding is not None:
                self._guarding.keep()
            self._guarding = Guarding(self._sweep, declaration, lambda why: self.intend("stop", why))
        options = _options(declaration)
        return self._guarding.assignment(self._task(declaration, options), options, flying)

    def claim(self) -> None:
        """Open a new epoch to write in, unless one is open."""
        with self._claiming:
            if self._journal is None:
                self._open()

    def _open(self) -> None:
        if self._replaced():
            raise UnknownSweep(f"The folder of the sweep {self.name!r} was moved or deleted.")
        me = Process.current()
        self._epoch = claim_epoch(
            self._sweep.paths,
            {
                "host": socket.gethostname(),
                "boot": me.machine.partition("/")[0],
                "space": pid_space(),
                "pid": me.pid,
                "start": me.start,
                "time": time.time(),
            },
        )
        self._journal = open_journal(self._sweep.paths, self._epoch)
        if self._epoch > 1:
            # Reading what earlier writers left may take a while, and nobody waits for it.
            threading.Thread(target=self._tidy, args=(self._epoch,), name="mce-tidy", daemon=True).start()

    def _tidy(self, epoch: int) -> None:
        try:
            if count := tidy(self._sweep, epoch, _gone):
                log.info("%s: %d files of writers that were killed are removed", self.name, count)
        except (SweepError, OSError) as error:
            log.warning("%s: what killed writers left stays: %s", self.name, error)

    def append(self, frames: Sequence["Frame"]) -> None:
        """Make outcomes durable."""
        if self._guarding is not None:
            frames = self._guarding.take(frames)
        # What slots said late of guards that somebody else has evaluated by now.
        frames = [frame for frame in frames if not of_guard(frame)]
        if not frames:
            return
        self.claim()
        assert self._journal is not None
        self._journal.append(frames)

    def killed(self, work: Assignment, verdict: Verdict) -> Sequence["Frame"]:
        """Return the outcome of a point that the host gives up."""
        failure = Failure(
            status=Status.KILLED,
            type="",
            message=verdict.reason,
            traceback="",
            output="",
            where="slot",
            cause=verdict.reason,
        )
        return encode(
            Outcomes([None], {0: failure}),
            work.outputs,
            declaration=work.task.declaration,
            ranges=[(verdict.point, verdict.point + 1)],
            meta={"version": work.task.version, "generation": str(work.task.generation), "worker": "host"},
        )

    def beat(self, beat: Mapping[str, Any]) -> None:
        """Replace the heartbeat of the epoch, unless a later one has: by `counter`."""
        with self._beating:
            # A look that is cancelled leaves its thread behind; what that writes must not outlast the end.
            if self._journal is None or int(beat.get("counter", 0)) < self._counter or self._replaced():
                return
            self._counter = int(beat.get("counter", 0))
            if self._guarding is not None:
                beat = self._guarding.told(beat)
            self._sweep.beat(self._epoch, {**beat, "cost": self._cost(beat.get("cost"))})

    def _cost(self, here: float | None) -> float | None:
        """Return what the sweep has cost with all its hosts, None where nobody ever knew prices."""
        if self._paid is None:
            # Heartbeats of earlier hosts hold what it had cost until then; one that was killed early has none.
            told = (self._sweep.heartbeat(one.number).get("cost") for one in reversed(self._sweep.epochs()[:-1]))
            self._paid = next((float(cost) for cost in told if cost is not None), 0.0)
        return None if here is None and not self._paid else self._paid + (here or 0.0)

    def close(self, state: str, message: str) -> None:
        """Close the epoch and note how it ended."""
        with self._beating:
            journal, self._journal, self._paid, self._counter = self._journal, None, None, 0
        if journal is not None:
            if self._guarding is not None:
                self._guarding.keep()
            # Who goes on with this ledger, because the sweep was asked for again meanwhile, writes in a new epoch.
            journal.close()
            give_back_memory()
            if self._replaced():
                return
            self._sweep.add_event(self._epoch, {"event": state, "message": message})
            try:
                compact(self._sweep, least=COMPACTED)
            except SweepError as error:
                # It only makes later readers faster.
                log.warning("%s: segments stay as they are: %s", self.name, error)

    def _declaration(self, number: int) -> "Declaration":
        known = self._declarations.get(number)
        if known is None or known.deferred:
            known = self._declarations[number] = self._sweep.declaration(number)
        return known

    def _places(self, declaration: "Declaration", task: Task) -> np.ndarray:
        """Return int64[n]: where each point of an earlier declaration is listed in this one, -1 if nowhere."""
        earlier = self._declaration(task.declaration)
        if earlier.number == declaration.number:
            return np.arange(declaration.grid.size)
        found = declaration.grid.positions(
            earlier.grid, constants=declaration.constants, other_constants=earlier.constants
        )
        if task.version != declaration.version or task.generation != declaration.generation:
            # What it computes says nothing about points of the present version.
            return np.full_like(found, -1)
        return found

    def _task(self, declaration: "Declaration", options: Options) -> Task:
        return Task(
            store=self.root,
            name=self.name,
            declaration=declaration.number,
            version=declaration.version,
            generation=declaration.generation,
            cwd=declaration.cwd or str(Path(self.root).parent),
            cores=options.cores,
            sweep=self._sweep.id,
        )


def give_back_memory() -> None:
    """Return memory that is free to the system: glibc keeps what the arrays of a large sweep took in every thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _gone(claim: Mapping[str, Any]) -> bool:
    """Whether the process that made a claim has ended; False of another machine or container: nobody can tell."""
    here = (socket.gethostname(), machine().partition("/")[0], pid_space())
    known = (claim.get("host"), claim.get("boot"), claim.get("space")) == here
    return known and start_time(int(claim.get("pid", 0))) != claim.get("start")


def _options(declaration: "Declaration") -> Options:
    told = declaration.options
    return told if isinstance(told, Options) else Options.from_json(dict(told))


def _prefix(declaration: "Declaration") -> int:
    """Points that share a setup; 0 where the experiment has none."""
    depth = declaration.setup_depth
    return declaration.grid.prefixes(depth) if depth else 0
