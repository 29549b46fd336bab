"""A block that nobody asked for, evaluated by a slot before it says that it is ready.

The first block of a new process takes ten times as long as the next one: libraries set themselves up, and in a copy of
another process every page that is read or written for the first time costs a few microseconds. A spare slot has time
for that while nobody waits.
"""

import pickle

from mce_notebook.declare import pickles
from mce_notebook.declare.experiment import from_function
from mce_notebook.declare.grid import grid
from mce_notebook.plan import Block
from mce_notebook.run.evaluator import Evaluator
from mce_notebook.store.frames import Frame

_META = {"version": "", "generation": "0", "worker": ""}


def rehearse() -> None:
    """Pickle, load and evaluate a small experiment of ours; nothing of it stays."""
    points = grid(a=[0.0, 1.0], b=[1, 2])
    experiment = from_function(_point, points.names, name="rehearsal")
    content, _ = pickles.dumps((experiment, {}), lambda _: True)
    experiment, _ = pickle.loads(content)
    Evaluator(experiment, points, 1, _META).run(Block(((0, 4),)), each=True, budget=1.0, flush=_drop)


def _point(a: float, b: int) -> float:
    return a * b


def _drop(frames: list[Frame], done: int, failed: int) -> None:
    """Take outcomes, which nobody keeps."""
