"""A sweep in this process, without host or slots: for debugging, tests and very small work.

The same evaluator, plan and log as everywhere else, on a copy of the code loaded from the store. What only a slot can
do is refused: a point that hangs or takes all memory cannot be stopped from inside its own process.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np

from mce_notebook.errors import OptionError, SweepStopped
from mce_notebook.run.causes import Interruption
from mce_notebook.run.evaluator import Evaluator
from mce_notebook.run.output import Ring, captured
from mce_notebook.run.protocol import BlockResult, Report
from mce_notebook.run.schedule import Job
from mce_notebook.run.service import opened
from mce_notebook.run.store_ledger import StoreLedger
from mce_notebook.run.tally import covered
from mce_notebook.store.frames import Frame
from mce_notebook.store.places import root_path

if TYPE_CHECKING:
    from mce_notebook.declare.options import Options
    from mce_notebook.run.ledger import Assignment

_BEAT_SECONDS = 1.0


def run_inline(store: str | os.PathLike[str], name: str, options: "Options") -> None:
    """Compute what is missing of a sweep here and now.

    An interrupt (Ctrl-C) ends it after the point under way; what is done is kept, and running it again goes on.

    Parameters
    ----------
    store : str or path
        Root of the store.
    name : str
        Name of the sweep.
    options : Options

    Raises
    ------
    OptionError
        For `--timeout` and `--memory`.
    SweepStopped
        When more points failed than `--max-failures` allows.
    KeyboardInterrupt
        After an interrupt.
    """
    refuse_limits(options)
    run = _Inline(StoreLedger(str(root_path(store)), name))
    if not run.finished:
        run.compute()


def refuse_limits(options: "Options") -> None:
    """Refuse options that only a slot can honour.

    Raises
    ------
    OptionError
        For `--timeout` and `--memory`.
    """
    for word, value in (("--timeout", options.timeout), ("--memory", options.memory)):
        if value is not None:
            raise OptionError(
                f"{word} needs a process of its own for each point, which `--on inline` does not have; "
                f"leave {word} out, or write --on local."
            )


class _Inline:
    """One run of a sweep in this process."""

    def __init__(self, ledger: StoreLedger):
        self._ledger = ledger
        self._work: Assignment = ledger.assignment([])
        self._frames: list[Frame] = []
        self._counter = 0
        self._beaten = 0.0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._work.schedule.finished

    def compute(self) -> None:
        """Evaluate block after block until nothing is left, or somebody says stop."""
        ring = Ring()
        evaluator = opened(self._work.task, output=ring, cwd=self._work.task.cwd)
        self._ledger.claim()
        state, message = "interrupted", ""
        try:
            with _interruptible(evaluator), _surroundings(), captured(ring, echo=True):
                os.chdir(self._work.task.cwd)
                state, message = self._blocks(evaluator)
        finally:
            self._beat(state, message)
            self._ledger.close(state, message)
        if state == "interrupted":
            raise KeyboardInterrupt
        if state == "paused" and message:
            raise SweepStopped(message)

    def _blocks(self, evaluator: Evaluator) -> tuple[str, str]:
        """Evaluate blocks; return the state the sweep is left in, and why."""
        schedule = self._work.schedule
        while (job := schedule.next(1)) is not None:
            self._beat("running", "")
            report = evaluator.run(job.block, each=job.each, budget=job.budget, flush=self._flush)
            schedule.returned(job, self._result(job, report))
            if evaluator.stopping:
                return "interrupted", ""
            if schedule.too_many_failures:
                message = (
                    f"{schedule.failures} of {schedule.outcomes} outcomes are failures, more than --max-failures allows"
                )
                self._ledger.hold(message)
                return "paused", message
            verb = self._ledger.look().verb
            if verb in {"pause", "cancel"}:
                return ("paused" if verb == "pause" else "cancelled"), ""
        return "done", ""

    def _flush(self, frames: list[Frame], done: int, failed: int) -> None:
        self._ledger.append(frames)
        for frame in frames:
            self._work.tally.add(covered(frame.cover), frame.cover.get("status"))
        if time.monotonic() - self._beaten > _BEAT_SECONDS:
            self._beat("running", "")

    def _result(self, job: Job, report: Report) -> BlockResult:
        rest = () if report.leftover is None else (report.leftover,)
        return BlockResult([], report.done, rest, report.seconds, report.cpu, report.failed, report.nbytes)

    def _beat(self, state: str, message: str) -> None:
        self._counter += 1
        self._beaten = time.monotonic()
        tally = self._work.tally
        self._ledger.beat(
            {
                "counter": self._counter,
                "state": state,
                "workers": 1,
                "in_flight": [],
                "done": tally.done,
                "failed": tally.failed,
                "total": tally.total,
                "rate": tally.rate(),
                "message": message,
                "time": time.time(),
            }
        )


@contextlib.contextmanager
def _interruptible(evaluator: Evaluator) -> Iterator[None]:
    """Let Ctrl-C end the evaluation cleanly; a point that raises KeyboardInterrupt itself is a failure as any other."""

    def stop(number: int, frame: FrameType | None) -> None:
        evaluator.stopping = True
        raise Interruption

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Interruption:
        # It came between two points, in our own code.
        evaluator.stopping = True
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """Give the notebook back its working directory and its random numbers."""
    folder, python, numpy = os.getcwd(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        os.chdir(folder)
        random.setstate(python)
        np.random.set_state(numpy)
