"""Choosing and changing values of a grid: one point by its labels, more values on an axis, labels recorded earlier."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mce_notebook.declare.axes import Axis, Coordinate, check_names, check_rows, nearest
from mce_notebook.declare.columns import axis_from, coordinate
from mce_notebook.declare.matching import match_labels
from mce_notebook.declare.parts import Part
from mce_notebook.declare.seeds import Replicates, replicates
from mce_notebook.declare.values import Token, canonical, is_simple
from mce_notebook.errors import GridError

if TYPE_CHECKING:
    from mce_notebook.declare.grid import Grid

SAME = 1e-12  # relative distance within which two floats are one label


def check_parts(parts: Sequence[Part]) -> None:
    """Refuse parts whose names differ in case only."""
    check_names(list(dict.fromkeys(name for part in parts for name in part.names)))


def with_parts(grid: "Grid", parts: Iterable[Part]) -> "Grid":
    """Return a grid with other parts and nothing remembered of the old ones."""
    return replace(grid, parts=tuple(parts), _mask=None)


def _with_coordinates(part: Part, columns: Mapping[str, Coordinate]) -> Part:
    axes = [
        replace(axis, coordinates=tuple(columns.get(column.name, column) for column in axis.coordinates))
        for axis in part.axes
    ]
    return Part(tuple(axes), part.guards)


# One point


def index(grid: "Grid", labels: Mapping[str, Any]) -> int:
    """Return the listed index of a point; see `Grid.index`."""
    unknown = [name for name in labels if name not in grid.names]
    if unknown:
        raise GridError(f"There is no axis {unknown[0]!r}; {nearest(unknown[0], grid.names)}")
    first: GridError | None = None
    for part, start in zip(grid.parts, grid.starts.tolist(), strict=False):
        try:
            return int(start) + _index(part, labels)
        except GridError as error:
            first = first or error
    assert first is not None
    raise first


def _index(part: Part, labels: Mapping[str, Any]) -> int:
    foreign = [name for name in labels if name not in part.names and labels[name] is not None]
    if foreign:
        raise GridError(f"No point with {', '.join(part.names)} has a value of {foreign[0]!r}.")
    total = 0
    for axis, stride in zip(part.axes, part.strides, strict=True):
        total += _row(axis, labels) * stride
    return total


def _row(axis: Axis, labels: Mapping[str, Any]) -> int:
    given = [column for column in axis.coordinates if column.name in labels]
    if not given:
        if axis.size == 1:
            return 0
        raise GridError(
            f"Say which {axis.name!r} is meant; it has {axis.size} values, such as {_some(axis.coordinates[0])}."
        )
    rows = np.arange(axis.size)
    for column in given:
        rows = np.intersect1d(rows, rows_with(column, labels[column.name]))
    if len(rows) == 1:
        return int(rows[0])
    asked = ", ".join(f"{column.name}={labels[column.name]!r}" for column in given)
    open_names = [column.name for column in axis.coordinates if column.name not in labels]
    if len(rows):
        raise GridError(f"{asked} is the label of {len(rows)} points; give {' and '.join(open_names)} too.")
    raise GridError(f"No point has {asked}; the axis has {_some(given[0])}.")


def rows_with(column: Coordinate, label: Any) -> Any:
    """Return the rows of a column with this label, int64[n]; GridError naming the nearest label if there is none."""
    rows = column.match(label)
    if len(rows):
        return rows
    raise GridError(f"The axis {column.name!r} has no label {label!r}; {_closest(column, label)}")


def _closest(column: Coordinate, label: Any) -> str:
    kind = column.labels.dtype.kind
    if kind in "if" and isinstance(label, int | float | np.number):
        apart = np.abs(column.labels.astype(np.float64) - float(label))
        if not np.isnan(apart).all():
            return f"the nearest is {column.labels[np.nanargmin(apart)].item()!r}."
    if kind == "U":
        return nearest(label, column.labels[:1000].tolist())
    return f"it has {_some(column)}."


def _some(column: Coordinate) -> str:
    shown = [str(label) for label in column.labels[:5]]
    return ", ".join(shown) + (f", ... {column.labels[-1]}" if len(column) > 5 else "")


# More values


def extended(grid: "Grid", values: Mapping[str, Any]) -> "Grid":
    """Return the grid with more values; see `Grid.extended`."""
    values = _renamed(values)
    unknown = [name for name in values if name not in grid.names]
    if unknown:
        raise GridError(f"There is no axis {unknown[0]!r} to extend; {nearest(unknown[0], grid.names)}")
    parts = []
    for part in grid.parts:
        axes = [_longer(axis, values) if set(axis.names) & set(values) else axis for axis in part.axes]
        parts.append(Part(tuple(axes), part.guards))
    return with_parts(grid, parts)


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    if "replicates" in found:
        more = found.pop("replicates")
        found["replicate"] = more if isinstance(more, Replicates) else replicates(more)
    return found


def _longer(axis: Axis, values: Mapping[str, Any]) -> Axis:
    if axis.kind == "replicate":
        more = values[axis.name]
        count = more.n if isinstance(more, Replicates) else replicates(more).n
        return axis_from(axis.name, replace(replicates(max(count, axis.size)), shared=axis.shared))
    missing = [name for name in axis.names if name not in values]
    if missing:
        raise GridError(
            f"{', '.join(axis.names)} advance together; extend them together too: {missing[0]!r} is missing."
        )
    added = Axis(tuple(coordinate(name, values[name], pairs=True) for name in axis.names), axis.kind, axis.shared)
    check_rows(added)
    fresh = added.rows(_new_rows(axis, added))
    return check_rows(_joined(axis, fresh)) if fresh.size else axis


def _new_rows(axis: Axis, added: Axis) -> Any:
    if len(axis.coordinates) == 1:
        return np.flatnonzero(_same_rows(axis.coordinates[0], added.coordinates[0]) < 0)
    known = {tuple(row) for row in axis.keys_at(np.arange(axis.size), axis.names).tolist()}
    rows = added.keys_at(np.arange(added.size), axis.names).tolist()
    return np.array([number for number, row in enumerate(rows) if tuple(row) not in known], dtype=np.int64)


def _same_rows(known: Coordinate, added: Coordinate) -> Any:
    snapped = _snapped(added, _recorded([known]))
    return match_labels(known, snapped if snapped is not None else added)


def _joined(axis: Axis, fresh: Axis) -> Axis:
    columns = []
    for old, new in zip(axis.coordinates, fresh.coordinates, strict=True):
        objects = "object" in (old.kind, new.kind) or old.typed is not None or new.typed is not None
        if objects and old.values is None:
            raise GridError(
                f"The values of axis {old.name!r} are objects; extend it by running its cell with more of them."
            )
        columns.append(_labelled_join(old, new) if objects else coordinate(old.name, [*old.listed, *new.listed]))
    return replace(axis, coordinates=tuple(columns))


def _labelled_join(old: Coordinate, new: Coordinate) -> Coordinate:
    def typed(column: Coordinate) -> tuple[bytes, ...]:
        return column.typed if column.typed is not None else tuple(canonical(value) for value in column.listed)

    labels = np.array([*map(str, old.labels), *map(str, new.labels)], dtype=np.str_)
    if len(np.unique(labels)) < len(labels):
        raise GridError(f"The axis {old.name!r} already has one of these labels for another value; rename it.")
    kind = "object" if "object" in (old.kind, new.kind) else "mixed"
    return Coordinate(old.name, [*old.listed, *new.listed], labels, kind, (*typed(old), *typed(new)))


# Labels recorded earlier


def snap(grid: "Grid", earlier: Iterable["Grid"]) -> "Grid":
    """Return the grid with floats replaced by recorded ones that they nearly equal; see `Grid.snap`."""
    columns: dict[str, list[Coordinate]] = {}
    for old in earlier:
        for part in old.parts:
            for name, (_, column) in part.coordinates.items():
                columns.setdefault(name, []).append(column)
    parts = []
    for part in grid.parts:
        changed = {}
        for name, (_, column) in part.coordinates.items():
            snapped = _snapped(column, _recorded(columns.get(name, [])))
            if snapped is not None:
                changed[name] = snapped
        parts.append(_with_coordinates(part, changed) if changed else part)
    return grid if all(new is old for new, old in zip(parts, grid.parts, strict=True)) else with_parts(grid, parts)


def _recorded(columns: Sequence[Coordinate]) -> Any:
    numbers = [column.labels.astype(np.float64) for column in columns if column.labels.dtype.kind in "if"]
    joined = np.unique(np.concatenate(numbers)) if numbers else np.empty(0)
    return joined[np.isfinite(joined)]


def _snapped(column: Coordinate, recorded: Any) -> Coordinate | None:
    """Return the column with labels moved to recorded ones, or None if none moves."""
    if column.labels.dtype.kind != "f" or column.kind not in ("float", "numpy:<f8", "mixed") or not len(recorded):
        return None
    labels = column.labels
    at = np.searchsorted(recorded, labels)
    below, above = recorded[np.maximum(at - 1, 0)], recorded[np.minimum(at, len(recorded) - 1)]
    with np.errstate(invalid="ignore"):
        near = np.where(np.abs(labels - below) < np.abs(above - labels), below, above)
        moved = (near != labels) & (np.abs(near - labels) <= SAME * np.abs(near))
    # Two labels of one axis never become one: those are meant to differ.
    moved &= ~np.isin(near, labels)
    targets, counts = np.unique(near[moved], return_counts=True)
    moved &= ~np.isin(near, targets[counts > 1])
    if not moved.any():
        return None
    snapped = np.where(moved, near, labels)
    if column.values is None:
        return replace(column, labels=snapped, _hashed={})
    values: Any = np.where(moved, near, column.values) if isinstance(column.values, np.ndarray) else list(column.values)
    if not isinstance(values, np.ndarray):
        for row in np.flatnonzero(moved).tolist():
            values[row] = type(values[row])(near[row])
    return replace(column, labels=snapped, values=values, _hashed={})


# Objects


def with_tokens(grid: "Grid", token: Token) -> "Grid":
    """Return the grid with objects identified by a token; see `Grid.with_tokens`."""
    parts = []
    for part in grid.parts:
        changed = {
            name: _tokenised(column, token)
            for name, (_, column) in part.coordinates.items()
            if column.kind == "object" and column.values is not None and column.typed is not None
        }
        parts.append(_with_coordinates(part, changed) if changed else part)
    return grid if all(new is old for new, old in zip(parts, grid.parts, strict=True)) else with_parts(grid, parts)


def _tokenised(column: Coordinate, token: Token) -> Coordinate:
    assert column.typed is not None
    typed = []
    for value, label, known in zip(column.listed, column.labels.tolist(), column.typed, strict=True):
        if is_simple(value):
            typed.append(known)
        else:
            head = b"l" + label.encode() + b"\0" if known.startswith(b"l") else b"o"
            typed.append(head + token(value))
    return replace(column, typed=tuple(typed), _hashed={})


def with_object_values(grid: "Grid", values: Mapping[str, Sequence[Any]], live: "Grid | None" = None) -> "Grid":
    """Return the grid with objects put back; see `Grid.with_object_values`."""
    parts = []
    own = {} if live is None else _objects(live)
    for number, part in enumerate(grid.parts):
        changed = {}
        for name, (_, column) in part.coordinates.items():
            given = values.get(f"{number}/{name}")
            if given is not None:
                if len(given) != len(column):
                    raise GridError(f"The axis {name!r} has {len(column)} labels but {len(given)} values.")
                typed = column.typed or (b"",) * len(given)
                here = [own.get((name, known), value) for known, value in zip(typed, given, strict=True)]
                changed[name] = replace(column, values=here, _hashed={})
        changed_part = _with_coordinates(part, changed) if changed else part
        guards = values.get(f"{number}/all guards")
        if guards is not None:
            if len(guards) != len(part.guards):
                raise GridError(f"The grid has {len(part.guards)} guards but {len(guards)} were kept.")
            changed_part = Part(changed_part.axes, tuple(guards))
        parts.append(changed_part)
    return replace(grid, parts=tuple(parts))


def _objects(grid: "Grid") -> dict[tuple[str, bytes], Any]:
    """Return the values of axes of objects by name and canonical bytes."""
    columns = [(name, column) for part in grid.parts for name, (_, column) in part.coordinates.items()]
    return {
        (name, known): value
        for name, column in columns
        if column.kind == "object" and column.values is not None and column.typed is not None
        for known, value in zip(column.typed, column.listed, strict=True)
    }
