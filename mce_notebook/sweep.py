"""The ways to get a sweep: a call, a cell, and by name from disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mce_notebook.calls import read_call, read_cell
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.options import Options
from mce_notebook.handle import Sweep
from mce_notebook.launch import Proposal, launch
from mce_notebook.preview import confirm
from mce_notebook.store.catalog import Store
from mce_notebook.store.layout import find_root
from mce_notebook.store.places import root_path
from mce_notebook.store.roots import remember_root

__all__ = ["Sweep", "declare_cell", "open", "sweep", "sweeps"]


def sweep(
    fn: Callable[..., Any],
    grid: Grid | None = None,
    *,
    name: str | None = None,
    replicates: int | None = None,
    outputs: Sequence[str] | None = None,
    store: str | Path | None = None,
    **axes_and_options: Any,
) -> Sweep:
    """Run a function over a grid and return the sweep at once.

    Parameters
    ----------
    fn : callable
        Its parameters are the axes; a parameter named `rng` receives a `numpy.random.Generator` of its own per point,
        one named `seed` an int.
    grid : Grid, optional
        From `grid`, `zipped`, `latin_hypercube`...; else give the axes by name.
    name : str, optional
        Name in the store; the function's name by default.
    replicates : int, optional
        Adds an axis `replicate` of that many independent streams.
    outputs : sequence of str, optional
        Names of what the function returns; else read from its `return`, or from the dict it returns.
    store : path, optional
        Root of the store, a folder or the address of a bucket (`"s3://lab/experiments"`); else `experiments` here or
        above, or MCE_STORE.
    **axes_and_options
        A list, array or range for an axis; a single value for a parameter that stays fixed; and the options of
        `%%sweep` (`on="local"`, `timeout="10m"`, `retries=2`, ...).

    Returns
    -------
    Sweep
        Its `dataset` fills while it runs; `result()` waits.

    Examples
    --------
    >>> import mce_notebook as mce
    >>> def mse(n, sigma, rng):
    ...     return rng.normal(0, sigma, n).mean() ** 2
    >>> run = mce.sweep(mse, n=[10, 100], sigma=[1.0, 2.0], replicates=50, on="inline")  # doctest: +SKIP
    >>> run.result().mse.mean("replicate")  # doctest: +SKIP
    """
    proposal = read_call(fn, grid, name, replicates, outputs, axes_and_options)
    return _launched(proposal, store)


def declare_cell(
    name: str,
    cell: str,
    namespace: dict[str, Any],
    options: Options,
    *,
    store: str | Path | None = None,
    **words: Any,
) -> Sweep:
    """Declare the sweep that the loops of a cell spell out.

    Parameters
    ----------
    name, cell, namespace, options, **words
        As for `mce_notebook.calls.read_cell`.
    store : path, optional
        Root of the store.

    Raises
    ------
    LoopError
        If the loops cannot be a sweep, with the line and the rewritten cell.
    """
    return _launched(read_cell(name, cell, namespace, options, **words), store)


def open(name: str, store: str | Path | None = None) -> Sweep:
    """Return the sweep of that name, live from disk; nothing is executed and nothing is started.

    Parameters
    ----------
    name : str
        Name of the sweep.
    store : path, optional
        Root of the store; else `experiments` here or above, or MCE_STORE.

    Raises
    ------
    UnknownSweep
        If there is none, with the names there are.
    """
    found = Store(_root(store))
    handle = Sweep(found.sweep(name))
    remember_root(found.root)
    return handle


def sweeps(store: str | Path | None = None) -> list[Sweep]:
    """Return every sweep of the store, by name."""
    found = Store(_root(store))
    return [Sweep(found.sweep(name)) for name in found.names()]


def _root(store: str | Path | None) -> Path:
    return find_root() if store is None else root_path(store)


def _launched(proposal: Proposal, store: str | Path | None) -> Sweep:
    confirm(proposal, _root(store))
    launched = launch(proposal, _root(store))
    handle = Sweep(launched.sweep, experiment=proposal.experiment, launched=launched)
    if proposal.options.block:
        handle.wait()
    return handle
