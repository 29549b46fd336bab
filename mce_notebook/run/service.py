"""What a slot does with a request: opens the store, loads the code once, evaluates, reports."""

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Imported while the slot is a spare, so that its first block does not wait for them.
import numpy as np
import pyarrow as pa  # noqa: F401

from mce_notebook.declare import bundle
from mce_notebook.declare.experiment import Experiment
from mce_notebook.run.asking import asker
from mce_notebook.run.causes import Causes
from mce_notebook.run.evaluator import Evaluator
from mce_notebook.run.outcome import meta
from mce_notebook.run.page import Page, Phase
from mce_notebook.run.protocol import Entering, Evaluate, Handed, Prefix, Refused, Report, Task
from mce_notebook.run.setups import Span
from mce_notebook.store.catalog import Store
from mce_notebook.store.folder import LocalFolder
from mce_notebook.store.frames import Frame

_KEPT = 4


class Service:
    """Answers a supervisor's requests.

    Parameters
    ----------
    connection : Connection
    page : Page
    """

    def __init__(self, connection: Connection, page: Page):
        self._connection = connection
        self._page = page
        self._evaluators: OrderedDict[Task, Evaluator] = OrderedDict()

    def evaluate(self, request: Evaluate) -> None:
        """Evaluate one block, sending outcomes as they come and a report at the end."""
        self._page.enter(Phase.LOADING)
        mark = self._page.output.written
        answer: Report | Refused
        try:
            answer = self._evaluator(request.task).run(
                request.block,
                each=request.each,
                budget=request.budget,
                singly=request.singly,
                flush=self._hand,
                entering=self._enter,
                dead=request.dead,
            )
        except BaseException as error:
            answer = Refused(Causes().failure(error, where="slot", output=self._page.output.text(mark)))
        self._say(answer)

    def _hand(self, frames: list[Frame], done: int, failed: int) -> None:
        self._say(Handed(frames, done, failed))

    def _enter(self, prefix: Prefix, span: Span) -> None:
        self._say(Entering(prefix, span.start, span.stop))

    def _say(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            # The supervisor is gone, or user code closed our descriptors: nobody is left to report to.
            os._exit(0)

    def _evaluator(self, task: Task) -> Evaluator:
        # The epoch changes when the writer begins, after the first blocks; nothing is loaded again for that.
        key = replace(task, epoch=None)
        evaluator = self._evaluators.get(key)
        if evaluator is None:
            if os.path.isdir(task.cwd):
                os.chdir(task.cwd)
            evaluator = opened(task, alone=True, page=self._page, cwd=task.cwd)
            self._evaluators[key] = evaluator
            while len(self._evaluators) > _KEPT:
                self._evaluators.popitem(last=False)
        self._evaluators.move_to_end(key)
        evaluator.write_to(task.epoch)
        return evaluator


def opened(task: Task, *, alone: bool = False, **options: Any) -> Evaluator:
    """Return an evaluator for a declaration in the store, its code loaded into this process.

    Parameters
    ----------
    task : Task
    alone : bool
        Whether this process is there for the sweep only: its imports and its `__main__` then are the sweep's.
    **options
        Passed to `Evaluator`.

    Raises
    ------
    StoreError, UntrustedCode
        If there is no such declaration, or its code is not signed by this user.
    """
    sweep = Store(Path(task.store), LocalFolder()).sweep(task.name)
    declaration = sweep.declaration(task.declaration)
    code, objects = sweep.code_folder(declaration.code), sweep.paths.objects
    experiment, values = loaded(code, objects, first=alone)
    if alone:
        publish(experiment.namespace)
    grid = declaration.grid.with_object_values(values)
    if task.guard is not None:
        return asker(grid, values, task, **options)
    evaluator = Evaluator(
        experiment,
        grid,
        task.declaration,
        meta(task),
        reload=lambda: loaded(code, objects)[0],
        artifacts=artifact_folder(sweep, grid, experiment),
        big=sweep.paths.big_epoch,
        **options,
    )
    evaluator.write_to(task.epoch)
    return evaluator


def loaded(code: Path, objects: Path, *, first: bool = False) -> tuple[Experiment, dict[Any, Any]]:
    """Load a bundle; only the `first` time leave the finder of its modules in place."""
    before = list(sys.meta_path)
    try:
        return bundle.load(code, objects)
    finally:
        if not first:
            sys.meta_path[:] = before


def artifact_folder(sweep: Any, grid: Any, experiment: Experiment) -> Callable[[int], Path]:
    """Return a function from a listed index to the folder that keeps the point's files."""

    def folder(index: int) -> Path:
        ((low, high),) = grid.keys(np.array([index]), constants=experiment.constants)
        path: Path = sweep.paths.artifact(f"{int(high):016x}{int(low):016x}")
        return path

    return folder


def publish(namespace: Mapping[str, Any]) -> None:
    """Show functions and classes of the notebook in `__main__`, where pickles of `multiprocessing` look for them."""
    main = vars(sys.modules["__main__"])
    for name, value in namespace.items():
        if not name.startswith("__") and getattr(value, "__module__", None) == "__main__" and callable(value):
            main[name] = value
