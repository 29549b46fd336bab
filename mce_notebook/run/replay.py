"""One point computed again in this process, for a debugger to look at."""

from typing import Any

import cloudpickle

from mce_notebook.declare import seeds
from mce_notebook.declare.experiment import Experiment
from mce_notebook.declare.grid import Grid
from mce_notebook.plan import Block
from mce_notebook.run.arguments import Arguments, Streams, mirror
from mce_notebook.run.causes import Causes
from mce_notebook.run.output import Ring
from mce_notebook.run.setups import Setups


def replay(experiment: Experiment, grid: Grid, index: int) -> Any:
    """Compute the point at a listed index with the stream it has in the sweep; what it raises is not caught.

    The point works on a copy of what it captured, as it does in a slot: looking at a failure changes nothing in the
    notebook. Nothing is recorded.

    Parameters
    ----------
    experiment : Experiment
    grid : Grid
        With the objects its axes may hold.
    index : int
        Listed index.

    Returns
    -------
    object
        What the point returns.
    """
    # Debuggers and IPython leave such frames out, so that the user's own come first.
    __tracebackhide__ = True
    own: Experiment = cloudpickle.loads(cloudpickle.dumps(experiment, protocol=5))
    compiled = own.compiled()
    stream = seeds.Stream()
    setups = Setups(own, lambda: compiled, grid, Causes(), stream, lambda: Ring().text)
    provided = setups.again(index)
    shared = {**own.constants, **dict(zip(setups.names, provided, strict=True))}
    names = [name for name in own.parameters if name in shared]
    arguments = Arguments(own.parameters, grid, Streams(own, grid, stream))
    (row,) = arguments.rows(Block(((index, index + 1),)), names, [tuple(shared[name] for name in names)])
    if own.mirrored:
        mirror(own.mirrored, own.parameters, compiled.namespace)(row)
    return compiled.point(*row)
