"""Single points of a sweep, for people to look into: failures row by row, and everything known of one point."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mce_notebook.declare.grid import Status
from mce_notebook.errors import ViewError
from mce_notebook.view.causes import grouped, names, pattern
from mce_notebook.view.gathered import cause_of
from mce_notebook.view.sides import exact_text, literal, shortened

if TYPE_CHECKING:
    from mce_notebook.store.frames import Failure
    from mce_notebook.view.dataset import Snapshot
    from mce_notebook.view.heatmap import Heatmap

MOST_ROWS = 500
LONGEST_CAUSE = 300
LONGEST_MESSAGE = 4_000
LONGEST_TEXT = 1 << 16
LONGEST_VALUE = 500
SHOWN_VALUES = 8
# Points of one cell of a heatmap that are told one by one.
IN_CELL = 50


def failure_rows(snapshot: "Snapshot", cause: str | None, offset: int, limit: int) -> dict[str, Any]:
    """Failures in listed order, of one cause if it is given: how many there are, and some of them.

    Raises
    ------
    ViewError
        For a negative offset or limit.
    """
    if offset < 0 or limit < 0:
        raise ViewError("offset and limit are 0 or more.")
    found = snapshot.failures()
    cells = sorted(found) if cause is None else _caused(found, cause)
    shown = np.array(cells[offset : offset + min(limit, MOST_ROWS)], np.int64)
    indices = snapshot.cells.indices(shown)
    rows = [
        {"index": index, **_place(snapshot, cell), **_failure(found[cell])}
        for index, cell in zip(indices.tolist(), shown.tolist(), strict=True)
    ]
    return {"total": len(cells), "rows": rows}


def point_detail(snapshot: "Snapshot", index: int) -> dict[str, Any]:
    """Everything known of the point at a listed index.

    Raises
    ------
    ViewError
        If the grid has no such point.
    """
    size = snapshot.declaration.grid.size
    cell = int(snapshot.cells.of(np.array([index]))[0]) if 0 <= index < size else -1
    if cell < 0:
        raise ViewError(f"There is no point {index} in `{snapshot.name}`: it lists {size:,}, some may be guarded out.")
    status = Status(int(snapshot.status()[cell]))
    failure = snapshot.failures().get(cell)
    seconds, worker = snapshot.origin(index)
    detail: dict[str, Any] = {"index": index, **_place(snapshot, cell)}
    detail |= {"cause": "", "type": "", "message": "", "where": ""} if failure is None else _failure(failure)
    traceback = "" if failure is None else failure.traceback
    values = {name: value_text(found[0]) for name, found in snapshot.values(np.array([index])).items()}
    return detail | {
        "status": status.name.lower(),
        "traceback": traceback[-LONGEST_TEXT:],
        "output": snapshot.output(index)[-LONGEST_TEXT:],
        "seconds": seconds,
        "worker": worker,
        "values": values,
    }


def cell_detail(snapshot: "Snapshot", heatmap: "Heatmap", column: int, row: int) -> dict[str, Any]:
    """Points that one cell of a heatmap stands for, the most telling first."""
    cells = heatmap.cells_in(column, row)
    status = snapshot.status()[cells]
    order = np.argsort(-heatmap.rank(status), kind="stable")[:IN_CELL]
    indices = snapshot.cells.indices(cells[order])
    rows = [
        {"index": index, "status": Status(code).name.lower(), **_place(snapshot, cell)}
        for index, code, cell in zip(indices.tolist(), status[order].tolist(), cells[order].tolist(), strict=True)
    ]
    return {"total": len(cells), "rows": rows}


def causes(found: Mapping[str, int], most: int = 50) -> list[dict[str, Any]]:
    """Return failures by cause, the most frequent ones; causes that differ in a number, or far on, are one."""
    counts: dict[str, int] = {}
    for cause, count in grouped(found).items():
        short = shortened(cause, LONGEST_CAUSE)
        counts[short] = counts.get(short, 0) + count
    return [{"cause": cause, "count": count} for cause, count in list(counts.items())[:most]]


def value_text(value: Any) -> str:
    """Write one output of one point, an array by its shape and first values."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray):
        first = ", ".join(exact_text(each) for each in value.ravel()[:SHOWN_VALUES].tolist())
        more = ", …" if value.size > SHOWN_VALUES else ""
        shape = ", ".join(map(str, value.shape))
        return shortened(f"{value.dtype}[{shape}] {first}{more}", LONGEST_VALUE)
    return shortened(exact_text(value), LONGEST_VALUE)


def _place(snapshot: "Snapshot", cell: int) -> dict[str, Any]:
    labels = snapshot.cells.point(cell)
    # A name that only other parts of the grid have shows as an empty label.
    words = ", ".join(f"{name}={literal(label)}" for name, label in labels.items() if str(label) != "")
    return {
        "labels": {name: exact_text(label) for name, label in labels.items()},
        "replay": f"{snapshot.name}.replay({words})",
    }


def _caused(found: Mapping[int, "Failure"], cause: str) -> list[int]:
    """Return the cells with failures of a cause: an exact one, or what `causes` tells several under."""
    told = names(Counter(map(cause_of, found.values())))
    wanted = {exact for exact, name in told.items() if cause in (shortened(name, LONGEST_CAUSE), exact)}
    if not wanted:
        # It was told under its own name until another came that differs from it in a number.
        wanted = {exact for exact in told if pattern(exact) == pattern(cause)}
    return sorted(cell for cell, failure in found.items() if cause_of(failure) in wanted)


def _cause(failure: "Failure") -> str:
    return shortened(cause_of(failure), LONGEST_CAUSE)


def _failure(failure: "Failure") -> dict[str, Any]:
    return {
        "status": failure.status.name.lower(),
        "cause": _cause(failure),
        "type": failure.type,
        "message": shortened(failure.message, LONGEST_MESSAGE),
        "where": failure.where,
    }
