"""Designs: points spread over a box instead of a full grid; seeded, so the same call gives the same points.

Latin hypercubes and Sobol sequences come from `scipy.stats.qmc`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.axes import Axis, check_name, check_names, check_rows
from mce_notebook.declare.columns import coordinate, listed
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.parts import Part
from mce_notebook.errors import GridError

Unit = npt.NDArray[np.float64]


def latin_hypercube(n: int, /, *, seed: int = 0, **axes: Any) -> Grid:
    """Return `n` points of which every axis is divided into `n` equal slices, one point in each.

    Parameters
    ----------
    n : int
        Number of points.
    seed : int
    **axes
        A range `(low, high)`, or a list of choices, for each axis. `range(low, high)` draws whole numbers.

    Raises
    ------
    GridError
        If a range is empty or not finite, or `n` is not a positive whole number.

    Examples
    --------
    >>> latin_hypercube(5, x=(0, 1), kind=["a", "b"]).size
    5
    """
    from scipy.stats import qmc

    return _design(n, axes, lambda dimensions: qmc.LatinHypercube(dimensions, rng=_generator(seed)).random(n))


def sobol(n: int, /, *, seed: int = 0, **axes: Any) -> Grid:
    """Return the first `n` points of a scrambled Sobol sequence; `n` is best a power of two.

    A larger `n` with the same seed contains the points of a smaller one, so extending computes only what is new.
    Parameters and errors as in `latin_hypercube`.
    """
    from scipy.stats import qmc

    def draw(dimensions: int) -> Unit:
        sampler = qmc.Sobol(dimensions, scramble=True, rng=_generator(seed))
        # Drawn as a power of two, as the sequence wants; its beginning does not depend on how many follow.
        return sampler.random_base2(max(n - 1, 1).bit_length())[:n]

    return _design(n, axes, draw)


def random_design(n: int, /, *, seed: int = 0, **axes: Any) -> Grid:
    """Return `n` points drawn uniformly and independently; a larger `n` contains the points of a smaller one.

    Parameters and errors as in `latin_hypercube`.
    """
    return _design(n, axes, lambda dimensions: _generator(seed).random((n, dimensions)))


def star(centre: Mapping[str, Any], /, **axes: Any) -> Grid:
    """Return the points that differ from a centre along one axis at a time.

    Parameters
    ----------
    centre : mapping
        A value for every axis.
    **axes
        Values of each axis that is varied.

    Raises
    ------
    GridError
        If the centre lacks an axis.

    Examples
    --------
    >>> star({"x": 0, "y": 0}, x=[-1, 1], y=[-1, 1]).size
    5
    """
    if not centre or not axes:
        raise GridError('star needs a centre and axes; write star({"x": 0, "y": 0}, x=[-1, 1], y=[-1, 1]).')
    missing = [name for name in axes if name not in centre]
    if missing:
        raise GridError(f"The centre of the star has no value of {missing[0]!r}; add {missing[0]!r}: ... to it.")
    rows = [dict(centre)]
    seen = {name: [value] for name, value in centre.items()}
    for name, values in axes.items():
        for value in listed(name, values):
            if not _has(seen[name], value):
                seen[name].append(value)
                rows.append({**centre, name: value})
    return _table({name: [row[name] for row in rows] for name in centre})


def _has(values: list[Any], value: Any) -> bool:
    return any(value is known or (type(value) is type(known) and bool(value == known)) for known in values)


def _design(n: Any, axes: Mapping[str, Any], draw: Callable[[int], Unit]) -> Grid:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise GridError(f"A design needs a whole number of points, at least 1, not {n!r}.")
    if not axes:
        raise GridError("A design needs at least one axis, such as x=(0, 1).")
    ranges = {check_name(name): _range(name, values) for name, values in axes.items()}
    unit = draw(len(ranges))
    columns = {name: scale(unit[:, number]) for number, (name, scale) in enumerate(ranges.items())}
    return _table(columns)


def _range(name: str, values: Any) -> Callable[[Unit], Any]:
    """Return the function that carries [0, 1) to an axis."""
    if isinstance(values, tuple) and len(values) == 2 and all(_is_number(value) for value in values):
        low, high = float(values[0]), float(values[1])
        if not (np.isfinite([low, high]).all() and low < high):
            raise GridError(f"The range of {name!r} must run from a lower to a higher finite number, not {values!r}.")
        return lambda unit: low + (high - low) * unit
    choices = listed(name, values)
    if not len(choices):
        raise GridError(f"The axis {name!r} has no values; give it a range (low, high) or a list of choices.")
    return lambda unit: [
        choices[row] for row in np.minimum((unit * len(choices)).astype(int), len(choices) - 1).tolist()
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _generator(seed: Any) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise GridError(f"The seed of a design must be a whole number, zero or more, not {seed!r}.")
    return np.random.default_rng(int(seed))


def _table(columns: Mapping[str, Any]) -> Grid:
    check_names([check_name(name) for name in columns])
    found = tuple(coordinate(name, values) for name, values in columns.items())
    return Grid((Part((_distinct(Axis(found, "design")),)),))


def _distinct(axis: Axis) -> Axis:
    # Choices are few, so a design may draw a row twice; the first one stands for both.
    keys = axis.keys_at(np.arange(axis.size), axis.names)
    _, first = np.unique(keys, axis=0, return_index=True)
    return check_rows(axis if len(first) == axis.size else axis.rows(np.sort(first)))
