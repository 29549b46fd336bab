"""The axes of a grid as live views tell them: labels as text, their kind, where each cell lies along them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mce_notebook.view.scales import REPLICATES, logarithmic

if TYPE_CHECKING:
    from mce_notebook.view.cells import Cells, Integers

# Up to so many labels are all told; of more, so many evenly spaced ones, both ends included.
MOST_LABELS = 512
SOME_LABELS = 65
LONGEST_LABEL = 200
UNITS: tuple[Literal["h", "m", "s", "ms", "us", "ns"], ...] = ("h", "m", "s", "ms", "us", "ns")


@dataclass(frozen=True, eq=False)
class Side:
    """One axis.

    Parameters
    ----------
    name : str
    labels : array
        Distinct labels, in the order in which they are drawn.
    codes : int64[cells] or None
        Position of the label of every cell; None for a dimension of a cube, where the shape tells.
    """

    name: str
    labels: npt.NDArray[Any]
    codes: "Integers | None" = None

    @property
    def size(self) -> int:
        """Number of labels."""
        return len(self.labels)

    @property
    def kind(self) -> str:
        """One of number, time, bool, category."""
        letter = self.labels.dtype.kind
        if letter in "iuf":
            return "number"
        return {"M": "time", "m": "time", "b": "bool"}.get(letter, "category")

    def told(self) -> dict[str, Any]:
        """Describe the axis in JSON."""
        chosen = np.arange(self.size)
        if self.size > MOST_LABELS:
            chosen = np.linspace(0, self.size - 1, SOME_LABELS).round().astype(np.int64)
        return {
            "name": self.name,
            "size": self.size,
            "kind": self.kind,
            "labels": [exact_text(label) for label in self.labels[chosen]],
            "positions": chosen.tolist(),
            "log": self.kind == "number" and bool(logarithmic(self.labels)),
        }


def sides_of(cells: "Cells") -> list[Side]:
    """Return the axes of a grid: the dimensions of a cube; of scattered points, each of their names."""
    indexed = [column for column in cells.columns if column.index]
    if indexed or not cells.columns:
        by_name = {column.name: Side(column.name, column.labels) for column in indexed}
        return [by_name[dim] for dim in cells.dims]
    return [_factorized(column.name, column.labels) for column in cells.columns]


def _factorized(name: str, values: npt.NDArray[Any]) -> Side:
    """Distinct values of a column: sorted where they have an order, else as they come first."""
    if values.dtype.kind == "O":
        values = np.array([str(value) for value in values], dtype=np.str_)
    labels, first, codes = np.unique(values, return_index=True, return_inverse=True)
    codes = codes.reshape(-1).astype(np.int64)
    if labels.dtype.kind in "iufMmb":
        return Side(name, labels, codes)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    return Side(name, labels[order], place[codes])


def preferred(sides: Sequence[Side]) -> tuple[str | None, str | None]:
    """Name the axes (x, y) to show first: the two longest that are no replicates, in their order."""
    ranked = sorted(sides, key=lambda side: (side.name in REPLICATES, -side.size))
    chosen = [side.name for side in sides if side in ranked[:2]]
    if not chosen:
        return None, None
    return (chosen[0], None) if len(chosen) == 1 else (chosen[1], chosen[0])


def exact_text(label: Any) -> str:
    """Write a label for people: twelve digits of a number tell apart what counts as different labels."""
    if isinstance(label, (float, np.floating)):
        return f"{label:.12g}"
    if isinstance(label, np.timedelta64):
        return _length(label)
    return shortened(str(label), LONGEST_LABEL)


def _length(label: np.timedelta64) -> str:
    """Write a length of time in the largest unit that takes a whole number of it, no larger than hours."""
    unit = np.datetime_data(label.dtype)[0]
    if np.isnat(label) or unit not in UNITS:
        return str(label)
    for larger in UNITS:
        count = int(label // np.timedelta64(1, larger))
        if count and count * np.timedelta64(1, larger) == label:
            return f"{count} {'min' if larger == 'm' else larger}"
    return "0 s"


def literal(label: Any) -> str:
    """Write a label as one would type it in a call."""
    if isinstance(label, (bool, np.bool_)):
        return str(bool(label))
    # To NumPy it is an integer.
    if isinstance(label, np.timedelta64) and not np.isnat(label):
        unit, step = np.datetime_data(label.dtype)
        return f"np.timedelta64({int(label.astype(np.int64)) * step}, {unit!r})"
    if isinstance(label, (int, np.integer)):
        return str(int(label))
    if isinstance(label, (float, np.floating)):
        text = f"{label:.12g}"
        return text if np.isfinite(label) else f'float("{text}")'
    if isinstance(label, (complex, np.complexfloating)):
        return repr(complex(label))
    return repr(str(label))


def shortened(text: str, most: int) -> str:
    """Cut a text that is longer than `most` characters, visibly."""
    return text if len(text) <= most else text[: most - 1] + "…"
