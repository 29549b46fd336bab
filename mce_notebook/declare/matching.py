"""Which points of one grid are points of another, by arithmetic on labels instead of a comparison of points.

Axes of the two grids that share names form a *component*; the points of two products match exactly where every
component matches. A component is small (one axis against one axis, as a rule), so a million points cost a few
broadcast additions; a grid matched against a table is one component, and is matched by sorted keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mce_notebook.declare.axes import Axis, Coordinate, add_keys
from mce_notebook.declare.guards import Mask, Slow, part_mask
from mce_notebook.declare.parts import Indices, Keys, Part, constant_key
from mce_notebook.declare.values import canonical

if TYPE_CHECKING:
    from mce_notebook.declare.grid import Grid

ABSENT = -(2**55)  # added instead of an offset where there is no match; a few hundred of them cannot overflow


def positions(grid: "Grid", other: "Grid", constants: Mapping[str, Any], other_constants: Mapping[str, Any]) -> Indices:
    """Return the listed index in `grid` of every point of `other`, -1 where absent; see `Grid.positions`."""
    if len(grid.parts) == len(other.parts) == 1:
        (part,), (theirs,) = grid.parts, other.parts
        alone = _match(part, theirs, _given(part, grid, constants), _given(theirs, other, other_constants))
        return np.full(other.size, -1, dtype=np.int64) if alone is None else alone
    found = np.full(other.size, -1, dtype=np.int64)
    kept = grid.mask() if len(grid.parts) > 1 else None
    for theirs, low in zip(other.parts, other.starts.tolist(), strict=False):
        target = found[low : low + theirs.size]
        for part, start in zip(grid.parts, grid.starts.tolist(), strict=False):
            matched = _match(part, theirs, _given(part, grid, constants), _given(theirs, other, other_constants))
            if matched is None:
                continue
            hit = matched >= 0
            matched += start
            # A point listed twice is computed where its first unguarded occurrence is.
            better = target < 0 if kept is None else (target < 0) | ~kept[target]
            np.copyto(target, matched, where=hit & better)
    return found


def mask(parts: Sequence[Part], slow: Slow | None) -> Mask:
    """Return which listed points belong to the design, bool[size]; an empty array if all do."""
    masks = [part_mask(part, slow) for part in parts]
    for later in range(1, len(parts)):
        for earlier in range(later):
            overlap = _overlap(parts[earlier], parts[later], parts)
            if overlap is None:
                continue
            repeated = overlap >= 0
            first = masks[earlier]
            if first is not None:
                repeated[repeated] = first[overlap[repeated]]
            if repeated.any():
                known = masks[later]
                masks[later] = ~repeated if known is None else known & ~repeated
    if all(found is None for found in masks):
        return np.empty(0, dtype=np.bool_)
    filled = [
        np.ones(part.size, dtype=np.bool_) if found is None else found for part, found in zip(parts, masks, strict=True)
    ]
    return filled[0] if len(filled) == 1 else np.concatenate(filled)


def _overlap(earlier: Part, later: Part, parts: Sequence[Part]) -> Indices | None:
    names = {name for part in parts for name in part.names}
    return _match(earlier, later, dict.fromkeys(names - set(earlier.names)), dict.fromkeys(names - set(later.names)))


def _given(part: Part, grid: "Grid", constants: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything but axes that identifies the points of a part: constants, and None for names of other parts."""
    outside = {name: value for name, value in constants.items() if name not in grid.names}
    return outside | {name: None for name in grid.names if name not in part.names}


def _match(part: Part, theirs: Part, given: Mapping[str, Any], their_given: Mapping[str, Any]) -> Indices | None:
    """Return the index in `part` of every point of `theirs`, -1 or less where absent; None if no point matches."""
    ours, other = {*part.names, *given}, {*theirs.names, *their_given}
    if ours != other:
        return None
    fixed = [name for name in given if name in their_given]
    if any(canonical(given[name]) != canonical(their_given[name]) for name in fixed):
        return None
    total = np.zeros((1,) * len(theirs.shape), dtype=np.int64)
    for component in _components(part, theirs):
        offsets = component.offsets(part, theirs, given, their_given)
        if offsets is None:
            return None
        total = total + offsets
    full = total if total.shape == theirs.shape else np.broadcast_to(total, theirs.shape).copy()
    flat: Indices = full.reshape(-1)
    return np.maximum(flat, -1, out=flat)


@dataclass(frozen=True)
class _Component:
    """Dimensions of our part and of theirs that are connected by names."""

    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    def offsets(
        self, part: Part, theirs: Part, given: Mapping[str, Any], their_given: Mapping[str, Any]
    ) -> Indices | None:
        """Return what the component adds to the listed index in `part`, shaped to broadcast over `theirs`."""
        rows = self._rows(
            [part.axes[axis] for axis in self.ours],
            [theirs.axes[axis] for axis in self.theirs],
            given,
            their_given,
        )
        if not (rows >= 0).any():
            return None
        shape = [part.shape[axis] for axis in self.ours]
        offset = np.zeros(len(rows), dtype=np.int64)
        for axis, row in zip(self.ours, np.unravel_index(np.maximum(rows, 0), shape) if shape else (), strict=True):
            offset += row * part.strides[axis]
        offset[rows < 0] = ABSENT
        spread = [theirs.shape[axis] if axis in self.theirs else 1 for axis in range(len(theirs.shape))]
        return offset.reshape(spread)

    def _rows(
        self,
        ours: Sequence[Axis],
        theirs: Sequence[Axis],
        given: Mapping[str, Any],
        their_given: Mapping[str, Any],
    ) -> Indices:
        """Return the row in the product of our axes of each row in the product of theirs, -1 where absent."""
        if len(ours) == len(theirs) == 1 and len(ours[0].coordinates) == len(theirs[0].coordinates) == 1:
            return match_labels(ours[0].coordinates[0], theirs[0].coordinates[0])
        names = {name for axis in (*ours, *theirs) for name in axis.names}
        return _match_keys(_product_keys(ours, names, given), _product_keys(theirs, names, their_given))


def _components(part: Part, theirs: Part) -> list[_Component]:
    """Return the connected components of the axes of two parts, linked by shared names."""
    groups: list[tuple[set[str], set[int], set[int]]] = []
    for side, axes in enumerate((part.axes, theirs.axes)):
        for dimension, axis in enumerate(axes):
            names, dimensions = set(axis.names), (set[int](), set[int]())
            dimensions[side].add(dimension)
            touching = [group for group in groups if group[0] & names]
            groups = [group for group in groups if not group[0] & names]
            for known, ours, others in touching:
                names |= known
                dimensions[0].update(ours)
                dimensions[1].update(others)
            groups.append((names, *dimensions))
    return [_Component(tuple(sorted(ours)), tuple(sorted(others))) for _, ours, others in groups]


def _product_keys(axes: Sequence[Axis], names: set[str], given: Mapping[str, Any]) -> Keys:
    product = Part(tuple(axes))
    keys = product.keys(np.arange(product.size), names)
    here = {name: value for name, value in given.items() if name in names}
    add_keys(keys, constant_key(here, product.names))
    return keys


def _match_keys(known: Keys, wanted: Keys) -> Indices:
    """Return the first position in `known` of every key of `wanted`, -1 where absent."""
    order = np.lexsort((known[:, 1], known[:, 0]))
    low = known[order, 0]
    # Equal low words are so rare (2**-64 a pair) that looking at a few neighbours finds the high word.
    at = np.searchsorted(low, wanted[:, 0])
    found = np.full(len(wanted), -1, dtype=np.int64)
    for _ in range(4):
        inside = np.flatnonzero((at < len(low)) & (found < 0))
        rows = order[at[inside]]
        same = (known[rows] == wanted[inside]).all(axis=1)
        found[inside[same]] = rows[same]
        at += 1
    return found


def match_labels(ours: Coordinate, theirs: Coordinate) -> Indices:
    """Return the row in one column of every label of another of the same name, -1 where absent."""
    if ours.typed is not None or theirs.typed is not None or ours.labels.dtype.kind != theirs.labels.dtype.kind:
        return _match_keys(ours.digests, theirs.digests)
    known, wanted = ours.labels, theirs.labels
    if known.dtype.kind == "c":
        return _match_keys(ours.digests, theirs.digests)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    rows = order[at]
    same = known[rows] == wanted
    if known.dtype.kind in "fMm":
        # Missing values sort last and equal nothing, themselves included.
        same |= np.isnan(known[rows]) & np.isnan(wanted)
    return np.where(same, rows, -1)
