"""The points of a grid that have given labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.axes import nearest
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.parts import Part
from mce_notebook.declare.selection import rows_with
from mce_notebook.errors import GridError


def selected(grid: Grid, labels: Mapping[str, Sequence[Any]]) -> npt.NDArray[np.bool_]:
    """Return which points have one of the given labels on each of the given axes.

    Parameters
    ----------
    grid : Grid
    labels : mapping of str to sequence
        Wanted labels by name; axes that are not named take any. What is not there selects nothing.

    Returns
    -------
    ndarray of bool, shape (grid.size,)
    """
    return np.concatenate([_in_part(part, labels) for part in grid.parts])


def check_labels(grid: Grid, labels: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a selection by names or labels that are not there.

    Raises
    ------
    GridError
        For a name that is no axis, or labels that no point has.
    """
    for name, wanted in labels.items():
        if name not in grid.names:
            raise GridError(f"There is no axis {name!r}; {nearest(name, grid.names)}")
        columns = [column for part in grid.parts for axis in part.axes for column in axis.coordinates]
        columns = [column for column in columns if column.name == name]
        for label in wanted:
            if not any(len(column.match(label)) for column in columns):
                rows_with(columns[0], label)
    if not selected(grid, labels).any():
        shown = ", ".join(f"{name}={list(wanted)!r}" for name, wanted in labels.items())
        raise GridError(f"No point has {shown}; look at the coordinates of the dataset for the labels there are.")


def _in_part(part: Part, labels: Mapping[str, Sequence[Any]]) -> npt.NDArray[np.bool_]:
    if any(name not in part.names for name in labels):
        return np.zeros(part.size, bool)
    chosen = np.ones(part.shape, bool)
    for dimension, axis in enumerate(part.axes):
        rows = np.ones(axis.size, bool)
        for column in axis.coordinates:
            if column.name in labels:
                hits = np.zeros(axis.size, bool)
                for label in labels[column.name]:
                    hits[column.match(label)] = True
                rows &= hits
        chosen &= rows.reshape([-1 if place == dimension else 1 for place in range(len(part.axes))])
    return chosen.ravel()
