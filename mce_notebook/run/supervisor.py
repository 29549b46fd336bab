"""The parent side of one slot: gives it blocks, watches it, and names what killed it.

Nothing user code does gets further than here: a block always comes back as a `BlockResult`. A slot is kept while
tasks of the same version come; a spare one, already warm, stands by for the next version or the next crash.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache
from signal import SIGKILL
from typing import Any

from mce_notebook.declare.grid import Status
from mce_notebook.errors import CorruptStore, RunError, StoreError, UnknownSweep, UntrustedCode
from mce_notebook.plan import Block
from mce_notebook.run import causes, limits, processes
from mce_notebook.run.budget import machine_cores
from mce_notebook.run.child import Child
from mce_notebook.run.outcome import cut, failure_frames
from mce_notebook.run.page import Phase, State
from mce_notebook.run.protocol import (
    NO_SLOT,
    SLOT_KILLED,
    BlockResult,
    Entering,
    Evaluate,
    Handed,
    Prefix,
    Refused,
    Report,
    Task,
)
from mce_notebook.run.walltime import Walltime
from mce_notebook.store.frames import Failure, Frame

__all__ = ["BlockResult", "Supervisor", "Task", "default_memory"]

# Seconds between two looks at a slot: fewer, the less room it has left. It may fill this many bytes a second.
_POLL = 0.03
_SELDOM = 0.25
_FASTEST = 8e9
_KEPT = 2
_STARTS = 3
_PAUSE = 0.5
# Where slots are forked, a spare takes the place of the one that was taken as soon as the block is done. Elsewhere it
# is started when its supervisor has had nothing to do for a while, or has gone without one for long (seconds): among
# the first blocks of a sweep it would take a third of a second of a core from them.
_SOON = 0.002
_QUIET = 0.1
_LONG = 60.0


@dataclass
class _Run:
    """A block under way in a slot."""

    task: Task
    block: Block
    each: bool
    budget: float | None
    timeout: float | None
    memory: int
    on_frames: Callable[[list[Frame]], None] | None
    singly: bool = False
    begun: float = field(default_factory=time.monotonic)
    frames: list[Frame] = field(default_factory=list)
    handed: int = 0
    failed: int = 0
    nbytes: int = 0
    entering: Entering | None = None
    printed: int = 0
    verdict: tuple[Status, str, str] | None = None
    blamed: State | None = None
    cancelled: bool = False
    walltime: Walltime | None = None
    # What is told of a block that was cut short by the walltime.
    cut: str = ""

    def take(self, frames: list[Frame]) -> None:
        """Keep frames, or pass them on."""
        self.nbytes += sum(frame.stored for frame in frames)
        if self.on_frames is None:
            self.frames += frames
        else:
            self.on_frames(frames)


# Errors of ours while a slot opens the store and loads the code.
_NOT_THE_POINTS = {
    f"{one.__module__}.{one.__qualname__}" for one in (UntrustedCode, StoreError, CorruptStore, UnknownSweep)
}


class Supervisor:
    """Runs blocks in a slot, one at a time; used by one worker thread, `cancel` and `close` by any.

    Parameters
    ----------
    nice : int
        Added to the niceness of slots; 5 or so on the machine somebody works at.
    spare : bool
        Keep a warm slot ready beside the one in use.
    """

    def __init__(self, *, nice: int = 0, spare: bool = True):
        self._nice = nice
        self._spares = spare
        self._spare: Child | None = None
        self._children: dict[Hashable, Child] = {}
        self._dead: dict[Hashable, dict[Prefix, Failure]] = {}
        self._lock = threading.Lock()
        self._current: tuple[_Run, Child] | None = None
        self._closed = False
        self._busy = threading.Lock()
        self._renewed = 0.0
        self._pending: threading.Timer | None = None
        # Slots no longer wanted, killed but not waited for: that is done while nobody waits for a block.
        self._retired: list[Child] = []

    def run(
        self,
        task: Task,
        block: Block,
        *,
        each: bool,
        budget: float | None = None,
        timeout: float | None = None,
        memory: int | None = None,
        on_frames: Callable[[list[Frame]], None] | None = None,
        walltime: Walltime | None = None,
    ) -> BlockResult:
        """Evaluate a block in the slot; whatever happens there is told in the result.

        Parameters
        ----------
        task : Task
        block : Block
        each : bool
            Telemetry per point: for points of a millisecond or more.
        budget : float, optional
            Seconds after which the slot hands back what it has not begun.
        timeout : float, optional
            Seconds one point, or one setup, may take.
        memory : int, optional
            Bytes of physical memory the slot and its children may use; a share of the machine by default.
        on_frames : callable, optional
            Receives outcomes as they come, instead of `BlockResult.frames`.
        walltime : Walltime, optional
            Of the job this runs in: a point that still runs when it is over is stopped.
        """
        limit = memory if memory is not None else default_memory(task.cores)
        run = _Run(task, block, each, budget, timeout, limit, on_frames, walltime=walltime)
        if self._pending is not None:
            self._pending.cancel()
        with self._busy:
            result = self._attempt(run)
            if (self._retired or (self._spares and self._spare is None)) and not self._closed:
                self._stand_by(task.cores)
        return result

    def cancel(self, store: str | None = None, name: str | None = None) -> bool:
        """Kill the slot that is evaluating a block now (of that sweep, if named); True if there was one."""
        with self._lock:
            if self._current is None:
                return False
            run, child = self._current
            if (store is not None and run.task.store != store) or (name is not None and run.task.name != name):
                return False
            run.cancelled = True
        child.kill()
        return True

    def warm(self, cores: int = 1) -> None:
        """Start a spare slot, or what it will be forked from; it warms up by itself."""
        # Not having one only costs the next version some time.
        with contextlib.suppress(OSError):
            if processes.prepare(cores):
                self._stand_by(cores)
            else:
                self._keep_spare(cores)

    def _keep_spare(self, cores: int) -> None:
        if self._spares and self._spare is None and not self._closed:
            self._spare = Child(cores=cores, nice=self._nice)

    def _stand_by(self, cores: int) -> None:
        forks = processes.forks(cores)
        if not forks and time.monotonic() - self._renewed > _LONG:
            self._tidy(cores)
            return
        self._pending = threading.Timer(_SOON if forks else _QUIET, self._tidy_idle, (cores,))
        self._pending.daemon = True
        # Without room for a thread there is no spare; the block that is done must not be lost to that.
        with contextlib.suppress(RuntimeError):
            self._pending.start()

    def _tidy_idle(self, cores: int) -> None:
        if self._busy.acquire(blocking=False):
            try:
                self._tidy(cores)
            finally:
                self._busy.release()

    def _tidy(self, cores: int) -> None:
        """Start the next spare and bury what was retired."""
        with contextlib.suppress(OSError):
            self._keep_spare(cores)
        while self._retired:
            self._retired.pop().close()

    def close(self) -> None:
        """End all slots; a block under way comes back as cancelled."""
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()
        self.cancel()
        with self._busy:
            for child in [*self._children.values(), *self._retired, *([self._spare] if self._spare else [])]:
                child.close()
            self._children.clear()
            self._retired.clear()
            self._spare = None

    def _attempt(self, run: _Run) -> BlockResult:
        said, trouble = NO_SLOT, ""
        for _ in range(_STARTS):
            if self._closed:
                return self._rest(run, reason="cancelled")
            try:
                child = self._child(run.task)
            except OSError as error:
                # Too many processes, or no memory for one more: a fork bomb of an earlier point may be dying.
                said, trouble = NO_SLOT, f"{type(error).__name__}: {error}"
                time.sleep(_PAUSE)
                continue
            report = self._converse(run, child)
            if report is not None:
                return self._finished(run, report)
            returncode = child.bury()
            state = child.page.state()
            output = self._output(run, child, state)
            self._drop(child)
            if run.cut:
                start, _, where = self._victims(run, state)
                point = int(run.block.indices()[start]) if where == "point" and start < run.block.count else None
                return self._rest(run, reason=run.cut, lost=True, killed_point=point)
            if run.cancelled:
                return self._rest(run, reason="cancelled")
            # A slot that died between two blocks (a thread of the last one, the machine) has nothing to do with this
            # one; a new slot takes it.
            if state.phase != Phase.IDLE or run.handed or run.verdict is not None:
                return self._died(run, state, returncode, output)
            said = SLOT_KILLED if returncode == -SIGKILL else NO_SLOT
            trouble = f"{causes.exit_cause(returncode)}\n{output}"
        return self._rest(run, reason=f"{said}: {trouble}", lost=True)

    def _converse(self, run: _Run, child: Child) -> Report | Refused | None:
        """Have the slot evaluate the block; None when it died."""
        run.printed = child.printed.written
        with self._lock:
            self._current = (run, child)
        try:
            if not child.send(
                Evaluate(
                    run.task, run.block, run.each, run.budget, run.singly, self._dead.get(_attempted(run.task), {})
                )
            ):
                child.kill()
                return None
            return self._listen(run, child)
        except EOFError:
            if not child.dying():
                run.verdict = (
                    Status.KILLED,
                    "Descriptors",
                    "closed file descriptors that were not its own (os.closerange?)",
                )
                run.blamed = child.page.state()
                child.kill()
            return None
        finally:
            with self._lock:
                self._current = None

    def _listen(self, run: _Run, child: Child) -> Report | Refused:
        checked, pause = 0.0, _POLL
        while True:
            message: Any = child.receive(pause)
            match message:
                case Report() | Refused():
                    return message
                case Handed():
                    run.handed = message.done
                    run.failed += message.failed
                    run.take(message.frames)
                case Entering():
                    run.entering = message
                case _:
                    pass
            now = time.monotonic()
            if now - checked >= pause:
                checked = now
                pause = self._check(run, child, now)

    def _check(self, run: _Run, child: Child, now: float) -> float:
        """Kill the slot if its point takes too long or too much; return in how many seconds to look again."""
        if run.verdict is not None:
            return _POLL
        pause = _SELDOM
        state = child.page.state()
        timed = state.phase in {Phase.POINT, Phase.POINTS, Phase.SETUP}
        if run.timeout is not None and timed and now - state.since > run.timeout:
            # Read twice: a state torn between two points must not blame the second.
            if child.page.state() == state:
                run.verdict = (Status.TIMEOUT, "Timeout", f"timed out after {run.timeout:g} s")
                run.blamed = state
        elif run.walltime is not None and run.walltime.over:
            run.cut = run.cut or run.walltime.cut(now - state.since if timed else 0.0)
            child.kill()
        else:
            room = run.memory - child.memory()
            pause = min(pause, room / _FASTEST)
            if room < 0 and child.exact_memory() > run.memory:
                run.verdict = (Status.KILLED, "MemoryLimit", f"exceeded the memory limit of {causes.size(run.memory)}")
                run.blamed = state if child.page.state() == state else None
        if run.verdict is not None:
            child.kill()
        if run.timeout is not None:
            # A point that begins meanwhile has all of its time before it.
            pause = min(pause, run.timeout - (now - state.since if timed else 0.0))
        return max(_POLL, pause)

    def _finished(self, run: _Run, report: Report | Refused) -> BlockResult:
        if isinstance(report, Refused):
            if report.failure.type in _NOT_THE_POINTS:
                # Nothing any point did, and the same for all of them: the sweep is to stop and say so.
                raise RunError(report.failure.message)
            return self._failing(run, report.failure, run.handed, run.block.count, reason=report.failure.cause)
        return BlockResult(
            run.frames,
            report.done,
            (report.leftover,) if report.leftover is not None else (),
            report.seconds,
            report.cpu,
            report.failed,
            run.nbytes,
            reason="; ".join(report.notes),
            setup=report.setup,
        )

    def _died(self, run: _Run, state: State, returncode: int, output: str) -> BlockResult:
        """Tell the death of the slot: as an outcome, or as a loss."""
        died = (Status.KILLED, causes.exit_kind(returncode), causes.exit_cause(returncode))
        status, kind, cause = run.verdict or died
        lost = run.verdict is None and returncode == -SIGKILL
        if run.verdict is not None and run.blamed is not None:
            # The next point may have begun between the decision and the kill.
            state = run.blamed
            if state.phase in {Phase.POINT, Phase.POINTS} and state.position < run.handed:
                return self._rest(run, reason=f"the slot was stopped ({cause}) after the point had ended")
        if state.phase == Phase.POINTS and state.count > 1:
            return self._careful(run, state.position, state.position + state.count)
        if state.phase == Phase.WRITING and state.position - run.handed > 1:
            return self._careful(run, run.handed, state.position, singly=True)
        start, stop, where = self._victims(run, state)
        if lost or where is None:
            index = int(run.block.indices()[start]) if start < run.block.count else None
            return self._rest(run, lost=True, killed_point=index, reason=f"the slot was lost: {cause}")
        failure = causes.killed(cause, where=where, output=output, kind=kind, status=status)
        if where == "setup" and run.entering is not None:
            self._dead.setdefault(_attempted(run.task), {})[run.entering.prefix] = failure
        return self._failing(run, failure, start, stop, reason=cause)

    def _victims(self, run: _Run, state: State) -> tuple[int, int, causes.Where | None]:
        """Return the positions in the block that a dead slot leaves without values, and what they were in."""
        match state.phase:
            case Phase.POINT | Phase.POINTS:
                return state.position, state.position + 1, "point"
            case Phase.WRITING if state.position > run.handed:
                # The value of the point was being encoded.
                return state.position - 1, state.position, "point"
            case Phase.SETUP if run.entering is not None:
                return max(run.handed, run.entering.start), run.entering.stop, "setup"
            case Phase.LOADING:
                return run.handed, run.block.count, "slot"
            case _:
                return run.handed, run.handed + 1, None

    def _careful(self, run: _Run, start: int, stop: int, *, singly: bool = False) -> BlockResult:
        """Find the point that killed the slot: run the points that were under way once more, one by one."""
        chunk = cut(run.block, start, stop)
        if chunk is None:
            return self._rest(run, lost=True, reason="the slot died between two points")
        again = _Run(run.task, chunk, True, None, run.timeout, run.memory, run.on_frames, singly, run.begun)
        found = self._attempt(again)
        around = (cut(run.block, run.handed, start), cut(run.block, stop, run.block.count))
        return BlockResult(
            run.frames + found.frames,
            run.handed + found.done,
            tuple(part for part in (around[0], *found.leftover, around[1]) if part is not None),
            time.monotonic() - run.begun,
            found.cpu,
            run.failed + found.failed,
            run.nbytes + found.nbytes,
            found.lost,
            found.killed_point,
            found.reason,
        )

    def _failing(self, run: _Run, failure: Failure, start: int, stop: int, *, reason: str) -> BlockResult:
        """Record one failure for some points of the block and hand back the others."""
        struck = cut(run.block, start, stop)
        if struck is None:
            return self._rest(run, reason=reason)
        run.take(failure_frames(run.task, struck, failure))
        run.failed += struck.count
        around = (cut(run.block, run.handed, start), cut(run.block, stop, run.block.count))
        return BlockResult(
            run.frames,
            run.handed + struck.count,
            tuple(part for part in around if part is not None),
            time.monotonic() - run.begun,
            0.0,
            run.failed,
            run.nbytes,
            killed_point=int(struck.indices()[0]) if failure.status != Status.FAILED else None,
            reason=reason,
        )

    def _rest(self, run: _Run, *, reason: str, lost: bool = False, killed_point: int | None = None) -> BlockResult:
        """Hand back everything that has no outcome yet."""
        rest = cut(run.block, run.handed, run.block.count)
        return BlockResult(
            run.frames,
            run.handed,
            () if rest is None else (rest,),
            time.monotonic() - run.begun,
            0.0,
            run.failed,
            run.nbytes,
            lost,
            killed_point,
            reason,
        )

    def _output(self, run: _Run, child: Child, state: State) -> str:
        """Return what the point printed, then what came through the file descriptors (C code, child processes)."""
        printed = child.page.output.text(state.mark)
        return printed + child.printed.text(run.printed)

    def _child(self, task: Task) -> Child:
        key = (task.store, task.name, task.sweep, task.version, task.cores)
        child = self._children.pop(key, None)
        if child is None:
            while len(self._children) >= _KEPT:
                self._retire(next(iter(self._children)))
            child = self._new(task.cores)
        self._children[key] = child
        return child

    def _new(self, cores: int) -> Child:
        spare, self._spare = self._spare, None
        self._renewed = time.monotonic()
        if spare is not None and spare.cores == cores and not spare.process.ended(0):
            return spare
        if spare is not None:
            spare.close()
        return Child(cores=cores, nice=self._nice)

    def _retire(self, key: Hashable) -> None:
        child = self._children.pop(key)
        child.kill()
        self._retired.append(child)
        while len(self._retired) > _KEPT:
            self._retired.pop(0).close()

    def _drop(self, child: Child) -> None:
        for key in [key for key, other in self._children.items() if other is child]:
            del self._children[key]
        child.close()


@cache
def default_memory(cores: int) -> int:
    """Return the bytes one slot may use when nothing is said: its share of 90 % of the memory there is for us."""
    told = os.environ.get("MCE_SLOT_MEMORY", "")
    if told.isdigit():
        # Of a job: the machine may have far more than the job was given.
        return int(told)
    return int(0.9 * limits.memory() / max(1, machine_cores() // max(1, cores)))


def _attempted(task: Task) -> Hashable:
    """Return what a setup is tried once for: a rerun is another generation and tries again."""
    return task.store, task.name, task.sweep, task.version, task.generation
