"""Evaluates blocks: the one loop that calls user code, used by slots and by inline runs alike.

Cheap points run in bulk, `values.extend(starmap(point, arguments))` resumed after every exception: an error costs no
recomputation, and nothing of ours runs between two points. Points of a millisecond or more run one by one, with
their time, their output and their working directory looked after. Both ways give the same outcomes, bit for bit.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mce_notebook.declare import seeds
from mce_notebook.declare.experiment import Experiment
from mce_notebook.declare.grid import Grid
from mce_notebook.errors import DeclarationError
from mce_notebook.plan import Block
from mce_notebook.run import scratch
from mce_notebook.run.arguments import Arguments, Streams, mirror
from mce_notebook.run.batch import Batch, Encoder, Flush, hand, size
from mce_notebook.run.causes import Causes, Interruption
from mce_notebook.run.outcome import cut
from mce_notebook.run.output import Ring
from mce_notebook.run.page import Page, Phase
from mce_notebook.run.protection import Protection
from mce_notebook.run.protocol import Prefix, Report
from mce_notebook.run.setups import Setups, Span
from mce_notebook.store.frames import Failure

# From this many seconds a point on, points run one by one even when a block was sent as cheap.
SLOW = 1e-3
# After so many points in a row of less than this (seconds), the rest of a block of unknown cost runs in bulk.
LOOKED_AT, FAST = 64, 2e-5
CHUNK_SECONDS = 0.05
CHUNK_GROWTH = 8
FLUSH_EACH = 0.25
FLUSH_BULK = 1.0
# So few that what was computed is still in the processor's cache when it is encoded, and its memory used again.
FLUSH_BYTES = 4_000_000
BUDGET_BYTES = 2_000_000
BUDGET_RATE = 50_000_000
TAIL = 8 * 1024


@dataclass
class _Work:
    """One block under way."""

    block: Block
    each: bool
    budget: float | None
    singly: bool
    flush: Flush
    entering: Callable[[Prefix, Span], None]
    batch: Batch
    begun: float = field(default_factory=time.perf_counter)
    flushed: float = field(default_factory=time.perf_counter)
    spent: float = 0.0
    setup: float = 0.0
    set_up: bool = False
    failed: int = 0
    nbytes: int = 0

    def looks(self, fast: int) -> bool:
        """Whether the next point runs by itself, when so many before it were fast; always where no time is set."""
        return self.each and (self.budget is None or fast < LOOKED_AT)

    def over(self) -> bool:
        """Whether the budget is used up; a block always gets one point further."""
        if self.budget is None or (not self.batch.values and not self.nbytes):
            return False
        limit = BUDGET_BYTES + self.budget * BUDGET_RATE
        return time.perf_counter() - self.begun > self.budget or self.nbytes + self.batch.nbytes > limit

    def due(self, *, bulk: bool) -> bool:
        """Whether finished points should be handed on, so that a crash later on does not take them along."""
        if self.singly or self.batch.nbytes > FLUSH_BYTES:
            return True
        return time.perf_counter() - self.flushed > (FLUSH_BULK if bulk else FLUSH_EACH)


class Evaluator:
    """Evaluates points of one declaration's grid.

    Parameters
    ----------
    experiment : Experiment
    grid : Grid
    declaration : int
        Number of the declaration; goes into every frame.
    meta : dict of str to str
        Kept with every frame: version, generation, worker.
    page : Page, optional
        Told what is going on, so that a supervisor can name the point that ended this process.
    output : Ring, optional
        Where prints of user code arrive.
    reload : callable, optional
        Returns the experiment as it was declared, for points that change what they share.
    cwd : str, optional
        Working directory of every point.
    big : callable, optional
        Returns the folder for large payloads of an epoch.
    artifacts : callable, optional
        Returns the folder that keeps the files of a listed index; see `scratch`.
    """

    def __init__(
        self,
        experiment: Experiment,
        grid: Grid,
        declaration: int,
        meta: dict[str, str],
        *,
        page: Page | None = None,
        output: Ring | None = None,
        reload: Callable[[], Experiment] | None = None,
        cwd: str | None = None,
        big: Callable[[int], Path] | None = None,
        artifacts: Callable[[int], Path] | None = None,
    ):
        self.stopping = False
        self._experiment = experiment
        self._page = page
        self._ring = page.output if page is not None else output if output is not None else Ring()
        self._cwd = cwd if cwd is not None else os.getcwd()
        self._pid = os.getpid()
        self._streams = sys.stdout, sys.stderr
        self._artifacts = artifacts
        self._causes = Causes()
        self._protection = Protection(experiment, reload)
        stream = seeds.Stream()
        self._setups = Setups(experiment, self._protection.compiled, grid, self._causes, stream, self._listen)
        self._arguments = Arguments(experiment.parameters, grid, Streams(experiment, grid, stream))
        self._encoder = Encoder(experiment.outputs, declaration, meta, self._protection.marks)
        self._big = big
        self._files = False
        # How many points in a row were fast.
        self._fast = 0
        self._pace = 0.0
        self._chunk = 1
        self._nbytes = 1

    def write_to(self, epoch: int | None) -> None:
        """Say which epoch large payloads belong to from now on; None where no file is to be written."""
        self._encoder.big = None if epoch is None or self._big is None else self._big(epoch)

    def run(
        self,
        block: Block,
        *,
        each: bool,
        budget: float | None = None,
        singly: bool = False,
        flush: Flush,
        entering: Callable[[Prefix, Span], None] | None = None,
        dead: Mapping[Prefix, Failure] | None = None,
    ) -> Report:
        """Evaluate a block.

        Parameters
        ----------
        block : Block
        each : bool
            Run points one by one, with time and output per point. With a budget, only until they prove fast.
        budget : float, optional
            Seconds after which the rest is handed back.
        singly : bool
            Hand every point over before the next begins.
        flush : callable
            Receives frames, how many points of the block are done with them, and how many of these failed.
        entering : callable, optional
            Told before a setup is computed.
        dead : mapping, optional
            Setups that are not to be tried, and why.

        Returns
        -------
        Report
        """
        work = _Work(block, each, budget, singly, flush, entering or (lambda prefix, span: None), Batch(0))
        self._setups.dead = dead or {}
        self._streams = sys.stdout, sys.stderr
        cpu = time.process_time()
        try:
            for span in self._setups.spans(block):
                if work.over() or self.stopping or not self._span(work, span):
                    break
        except Interruption:
            self.stopping = True
        self._hand_over(work)
        stop = work.batch.start
        return Report(
            stop,
            cut(block, stop, block.count),
            work.spent,
            time.process_time() - cpu,
            work.failed,
            work.nbytes,
            tuple(self._protection.notes),
            work.setup,
        )

    def _span(self, work: _Work, span: Span) -> bool:
        """Evaluate points that share their setups; False when the block ends before they do."""
        index = _index(work.block, span.start)
        while True:
            begun = time.perf_counter()
            # From the first position that is not safe yet: after a change was seen, some points run again.
            rest = Span(work.batch.stop, span.stop)
            work.set_up = False
            provided = self._setups.values(index, partial(self._enter, work, rest))
            self._after()
            seconds = time.perf_counter() - begun
            work.spent += seconds
            work.setup += seconds if work.set_up else 0.0
            if isinstance(provided, Failure):
                while work.batch.stop < span.stop:
                    work.batch.fail(provided)
                return True
            self._protection.watch(self._setups.names, provided)
            if self._points(work, rest, index, provided):
                return work.batch.stop == span.stop
            self._setups.forget()

    def _enter(self, work: _Work, span: Span, prefix: Prefix) -> None:
        work.set_up = True
        if self._page is not None:
            self._page.enter(Phase.SETUP, span.start, prefix.depth)
        work.entering(prefix, span)

    def _points(self, work: _Work, span: Span, index: int, provided: tuple[Any, ...]) -> bool:
        """Evaluate points one after another; False when they changed what they share and have to run again."""
        calls = self._calls(work, span, index, provided)
        safe = work.batch.mark()
        try:
            while work.batch.stop < span.stop and not self.stopping:
                bulk = not (self._files or work.looks(self._fast)) and self._pace < SLOW
                if bulk:
                    self._bulk(work, calls, span.stop)
                    if self._files:
                        calls = self._calls(work, span, index, provided)
                else:
                    self._step(work, calls)
                due = work.due(bulk=bulk)
                if (due or self._protection.canary) and not self._protection.intact():
                    work.batch.rewind(safe)
                    return False
                if due:
                    self._hand_over(work)
                    safe = work.batch.mark()
                if work.over():
                    break
        except Interruption:
            self.stopping = True
        if not self._protection.intact():
            work.batch.rewind(safe)
            return False
        return True

    def _calls(self, work: _Work, span: Span, index: int, provided: tuple[Any, ...]) -> Iterator[Any]:
        """Return an iterator whose every step evaluates one point, and which goes on after exceptions."""
        part = cut(work.block, work.batch.stop, span.stop)
        if part is None:
            return iter(())
        experiment, protection = self._experiment, self._protection
        shared = {**experiment.constants, **dict(zip(self._setups.names, provided, strict=True))}
        names = [name for name in experiment.parameters if name in shared]
        if protection.copying:
            values = protection.copies(names, shared, lambda: self._setups.again(index), self._setups.names)
        else:
            values = itertools.repeat(tuple(shared[name] for name in names))
        rows = self._arguments.rows(part, names, values)
        if protection.reloading:
            return itertools.starmap(protection.call, rows)
        compiled = protection.compiled()
        if experiment.mirrored:
            rows = map(mirror(experiment.mirrored, experiment.parameters, compiled.namespace), rows)
        return itertools.starmap(compiled.point, rows)

    def _bulk(self, work: _Work, calls: Iterator[Any], stop: int) -> None:
        """Evaluate a chunk of points without looking at them one by one."""
        batch = work.batch
        room = CHUNK_SECONDS
        if work.budget is not None:
            room = min(room, max(0.0, work.budget - (time.perf_counter() - work.begun)))
        wanted = int(room / self._pace) if self._pace else 1
        few = FLUSH_BYTES // self._nbytes + 1
        count = max(1, min(wanted, self._chunk * CHUNK_GROWTH, stop - batch.stop, few))
        if self._page is not None:
            self._page.enter(Phase.POINTS, batch.stop, count)
        begun = time.perf_counter()
        with scratch.point(None):
            self._extend(batch, calls, len(batch.values) + count)
        seconds = time.perf_counter() - begun
        self._after()
        self._pace = seconds / count
        self._fast = self._fast if self._pace < FAST else 0
        self._chunk = count
        batch.spent += seconds
        work.spent += seconds
        self._nbytes = max(1, size(batch.values[-1])) if batch.values else 1
        batch.nbytes += self._nbytes * count

    def _extend(self, batch: Batch, calls: Iterator[Any], target: int) -> None:
        """Evaluate points until there are `target` values."""
        values = batch.values
        printed = self._listen()
        while len(values) < target:
            try:
                values.extend(itertools.islice(calls, target - len(values)))
                # `extend` takes a StopIteration of user code for the end.
                if len(values) < target:
                    raise StopIteration
            except Interruption:
                raise
            except scratch.OneByOne:
                # This point asked for a folder of its own; it begins again, looked after.
                self._files = True
                return
            except BaseException as error:
                batch.fail(self._causes.failure(error, output=printed()))
                printed = self._listen()

    def _step(self, work: _Work, calls: Iterator[Any]) -> None:
        """Evaluate one point, with telemetry."""
        batch = work.batch
        place = len(batch.values)
        if self._page is not None:
            self._page.enter(Phase.POINT, batch.stop)
        printed = self._listen()
        begun = time.perf_counter()
        home = partial(self._artifacts or _no_artifacts, _index(work.block, batch.stop))
        with scratch.point(home) as files:
            try:
                batch.values.append(next(calls))
            except Interruption:
                raise
            except BaseException as error:
                self._after()
                batch.fail(self._causes.failure(error, output=printed()))
        seconds = time.perf_counter() - begun
        self._after()
        if files.error is not None and place not in batch.failures:
            batch.values.pop()
            batch.fail(self._causes.failure(files.error, output=printed()))
        elif place not in batch.failures and (tail := printed()[-TAIL:]):
            batch.tails[place] = tail
        batch.seconds.append(seconds)
        batch.spent += seconds
        work.spent += seconds
        batch.nbytes += size(batch.values[-1])
        self._pace = 0.5 * self._pace + 0.5 * seconds if self._pace else seconds
        self._fast = self._fast + 1 if seconds < FAST else 0

    def _after(self) -> None:
        """Put back what points must not change: output streams, which process this is, its working directory."""
        if sys.stdout is not self._streams[0] or sys.stderr is not self._streams[1]:
            sys.stdout, sys.stderr = self._streams
        if os.getpid() != self._pid:
            # User code forked and the child came back: it must neither go on with our points nor run exit handlers.
            os._exit(0)
        try:
            moved = os.getcwd() != self._cwd
        except FileNotFoundError:
            moved = True
        if moved and os.path.isdir(self._cwd):
            os.chdir(self._cwd)

    def _listen(self) -> Callable[[], str]:
        mark = self._ring.written
        ring = self._ring
        return lambda: ring.text(mark) if ring.written != mark else ""

    def _hand_over(self, work: _Work) -> None:
        """Encode finished points and hand them on."""
        batch = work.batch
        begun = time.perf_counter()
        if self._page is not None:
            self._page.enter(Phase.WRITING, batch.stop)
        failed, nbytes = hand(self._encoder, batch, work.block, work.flush)
        work.failed += failed
        work.nbytes += nbytes
        work.flushed = time.perf_counter()
        # Part of what a point costs here: large outcomes take longer to store than to compute.
        work.spent += work.flushed - begun
        work.batch = Batch(batch.stop)


def _index(block: Block, position: int) -> int:
    """Return the listed index at a position of a block."""
    part = cut(block, position, position + 1)
    assert part is not None
    return part.ranges[0][0]


def _no_artifacts(index: int) -> Path:
    raise DeclarationError(f"There is no folder for files of point {index}: no store keeps them here.")
