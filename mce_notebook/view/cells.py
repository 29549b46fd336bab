"""Where the points of a grid live in a labelled array: dimensions, coordinates, cells of listed indices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xarray as xr

    from mce_notebook.declare.grid import Axis, Grid, Part

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

# A cube that is emptier than this would be mostly padding: its points become one dimension instead.
SPARSEST = 0.1


@dataclass(frozen=True, eq=False)
class Column:
    """A coordinate variable: `labels` along dimension `dim`; `index` if selections go through it."""

    name: str
    dim: str
    labels: npt.NDArray[Any]
    index: bool


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of the array that shows a grid.

    Parameters
    ----------
    dims, shape
        Names and sizes of the dimensions, in order.
    columns
        The coordinates, in the order of the grid's names.
    positions : int64[grid.size] or None
        Flat cell of each listed index, -1 for a guarded one; None when they are the same number.
    excluded : bool[size] or None
        Cells that are no point of the design: guarded out, or holes of a ragged grid.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    columns: tuple[Column, ...]
    positions: Integers | None
    excluded: Booleans | None

    @property
    def size(self) -> int:
        """Number of cells, the excluded ones included."""
        return math.prod(self.shape)

    @cached_property
    def total(self) -> int:
        """Number of points of the design."""
        return self.size - (0 if self.excluded is None else int(self.excluded.sum()))

    def of(self, indices: Integers) -> Integers:
        """Flat cells of listed indices; -1 for a negative or excluded one."""
        cells = indices if self.positions is None else np.where(indices < 0, -1, self.positions[indices])
        if self.excluded is None:
            return cells
        return np.where((cells >= 0) & ~self.excluded[cells], cells, -1)

    def indices(self, cells: Integers) -> Integers:
        """Return the listed indices of flat cells; -1 for a cell that is no point."""
        return cells if self.positions is None else self._indices[cells]

    @cached_property
    def _indices(self) -> Integers:
        assert self.positions is not None
        found = np.full(self.size, -1, np.int64)
        listed = np.flatnonzero(self.positions >= 0)
        # Backwards, so that of two listed indices in one cell the first is kept.
        found[self.positions[listed[::-1]]] = listed[::-1]
        return found

    @cached_property
    def coordinates(self) -> "xr.Coordinates":
        """The coordinates as xarray wants them, with their indexes built once.

        Made of variables and indexes that need no conversion: for anything else xarray asks whether it is an array of
        Dask, and imports Dask for that, which takes as long as a third of the other imports of a first look.
        """
        import pandas as pd
        import xarray as xr
        from xarray.indexes import PandasIndex

        variables: dict[str, Any] = {}
        indexes: dict[str, Any] = {}
        for column in self.columns:
            if column.name == column.dim:
                # xarray indexes a coordinate named like its dimension; the others are labels only.
                kind = column.labels.dtype.kind
                labels = pd.Index(column.labels, dtype=object) if kind == "O" else pd.Index(column.labels)
                index = PandasIndex(labels, column.dim, coord_dtype=column.labels.dtype)
                indexes[column.name] = index
                variables.update(index.create_variables())
            else:
                variables[column.name] = xr.Variable((column.dim,), column.labels, fastpath=True)
        return xr.Coordinates(variables, indexes)

    def codes(self, cells: Integers) -> dict[str, tuple[Integers, npt.NDArray[Any]]]:
        """For every coordinate, the position of its label in each of these cells, and the labels."""
        along = dict(zip(self.dims, np.unravel_index(cells, self.shape), strict=True)) if self.dims else {}
        return {column.name: (along[column.dim], column.labels) for column in self.columns}

    def point(self, cell: int) -> dict[str, Any]:
        """Labels of one cell by name."""
        return {name: labels[codes[0]] for name, (codes, labels) in self.codes(np.array([cell])).items()}


def cells_of(grid: "Grid", mask: Booleans | None) -> Cells:
    """Lay a grid out: a cube where its points fill a tenth of one or more; one `point` dimension else and for designs.

    Parameters
    ----------
    grid : Grid
    mask : bool[grid.size] or None
        The points kept by the guards.
    """
    kinds = {axis.kind for part in grid.parts for axis in part.axes}
    if "design" in kinds:
        # Points scattered on purpose: a cube of them would be empty but for a diagonal.
        return _listed(grid, mask)
    product = len(grid.parts) == 1 and "table" not in kinds
    cells = _product(grid.parts[0], mask) if product else _unstacked(grid, mask)
    return _listed(grid, mask) if cells is None else cells


def _product(part: "Part", mask: Booleans | None) -> Cells | None:
    if mask is not None and mask.sum() < SPARSEST * mask.size:
        return None
    columns = [
        Column(coordinate.name, axis.name, coordinate.labels, index=coordinate.name == axis.name)
        for axis in part.axes
        for coordinate in axis.coordinates
    ]
    dims = tuple(axis.name for axis in part.axes)
    return Cells(dims, tuple(axis.size for axis in part.axes), tuple(columns), None, _negated(mask))


def _negated(mask: Booleans | None) -> Booleans | None:
    return None if mask is None or mask.all() else ~mask


def _unstacked(grid: "Grid", mask: Booleans | None) -> Cells | None:
    groups = _groups(grid)
    if groups is None:
        return None
    codes, columns, shape = [], [], []
    for group in groups:
        code, labels = _factorized(grid, group)
        shape.append(len(labels[0]))
        codes.append(code)
        columns += [
            Column(name, group[0], values, name == group[0]) for name, values in zip(group, labels, strict=True)
        ]
    kept = grid.size if mask is None else int(mask.sum())
    size = float(np.prod([float(length) for length in shape]))
    if kept < SPARSEST * size:
        return None
    positions: Integers = np.ravel_multi_index(tuple(codes), tuple(shape)).astype(np.int64)
    excluded = np.ones(int(size), bool)
    if mask is not None:
        # A part may repeat a point of an earlier one, and then be masked there: the cell belongs to the first.
        positions = np.where(mask, positions, -1)
    excluded[positions[positions >= 0]] = False
    in_order = sorted(columns, key=lambda column: grid.names.index(column.name))
    return Cells(
        tuple(group[0] for group in groups),
        tuple(shape),
        tuple(in_order),
        positions,
        excluded if excluded.any() else None,
    )


def _listed(grid: "Grid", mask: Booleans | None) -> Cells:
    """One dimension `point`, the points of the design in listed order."""
    kept = np.ones(grid.size, bool) if mask is None else mask
    columns = []
    for name in grid.names:
        values, codes = _column(grid, name)
        columns.append(Column(name, "point", values[codes[kept]], index=False))
    positions = None if kept.all() else np.where(kept, np.cumsum(kept) - 1, -1)
    return Cells(("point",), (int(kept.sum()),), tuple(columns), positions, None)


def _groups(grid: "Grid") -> list[tuple[str, ...]] | None:
    """Names that share a dimension; None when the parts do not have the same names."""
    if any(set(_names(part)) != set(grid.names) for part in grid.parts):
        return None
    zipped = {frozenset(_zipped(part)) for part in grid.parts}
    if len(zipped) > 1:
        return [(name,) for name in grid.names]
    groups = next(iter(zipped))
    inside = {name for group in groups for name in group}
    leaders = {group[0]: group for group in groups}
    return [leaders.get(name, (name,)) for name in grid.names if name in leaders or name not in inside]


def _names(part: "Part") -> list[str]:
    return [coordinate.name for axis in part.axes for coordinate in axis.coordinates]


def _zipped(part: "Part") -> list[tuple[str, ...]]:
    return [tuple(axis.names) for axis in part.axes if axis.kind == "zip" and len(axis.names) > 1]


def _factorized(grid: "Grid", group: Sequence[str]) -> tuple[Integers, list[npt.NDArray[Any]]]:
    """Codes of every listed point among the distinct labels of a group of names, and those labels."""
    values, codes = zip(*(_column(grid, name) for name in group), strict=True)
    if len(group) == 1:
        return codes[0], [values[0]]
    joint = np.asarray(np.ravel_multi_index(codes, tuple(len(each) for each in values)))
    _, first, inverse = np.unique(joint, return_index=True, return_inverse=True)
    # In order of first appearance, as the user listed the pairs.
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    chosen = first[order]
    return place[inverse], [each[code[chosen]] for each, code in zip(values, codes, strict=True)]


def _column(grid: "Grid", name: str) -> tuple[npt.NDArray[Any], Integers]:
    """Distinct labels of a name over all parts, and the code of each listed point among them."""
    found = [_within(part, name) for part in grid.parts]
    labels = _unified([labels for labels, _ in found])
    keys = [_key(label) for label in labels]
    distinct = {key: code for code, key in reversed(list(enumerate(keys)))}
    chosen = labels[sorted(distinct.values())]
    if chosen.dtype.kind in "ifuMm":
        # Several lists are merged, so that no single listed order exists: sorted, ranges can be selected.
        chosen = np.sort(chosen)
    code_of = {_key(label): code for code, label in enumerate(chosen)}
    table = np.array([code_of[key] for key in keys], np.int64)
    codes, offset = [], 0
    for values, local in found:
        codes.append(table[offset + local])
        offset += len(values)
    return chosen, np.concatenate(codes) if codes else np.empty(0, np.int64)


def _within(part: "Part", name: str) -> tuple[npt.NDArray[Any], Integers]:
    """Labels of a name in one part and the codes of its points; a missing name has one empty label."""
    for position, axis in enumerate(part.axes):
        for coordinate in axis.coordinates:
            if coordinate.name == name:
                return coordinate.labels, _spread(part, position, axis)
    return np.array([""]), np.zeros(part.size, np.int64)


def _spread(part: "Part", position: int, axis: "Axis") -> Integers:
    inner = int(np.prod([other.size for other in part.axes[position + 1 :]], dtype=np.int64))
    return np.arange(part.size, dtype=np.int64) // max(inner, 1) % max(axis.size, 1)


def _key(label: Any) -> Any:
    # True equals 1 in a dictionary, but they are different labels; NaN never equals itself, but is one label.
    if isinstance(label, (bool, np.bool_)):
        return ("bool", bool(label))
    return "nan" if label != label else label


def _unified(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Join the labels of several parts; kinds that do not mix become strings, as in one mixed axis."""
    missing = any(part.dtype.kind == "U" and part.size == 1 and part[0] == "" for part in parts)
    present = [part for part in parts if not (part.dtype.kind == "U" and part.size == 1 and part[0] == "")]
    kinds = {part.dtype.kind for part in present}
    if missing and present and kinds <= set("iuf"):
        # NaN is to numbers what the empty string is to text.
        return np.concatenate([part if part.dtype.kind in "iuf" else np.array([np.nan]) for part in parts])
    if not missing and (len(kinds) <= 1 or kinds <= set("iufc")):
        return np.concatenate(parts) if parts else np.empty(0)
    return np.concatenate([part.astype(str) for part in parts])
