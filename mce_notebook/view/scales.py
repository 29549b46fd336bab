"""The labels of an axis as a scale of a plot: order, positions, ticks; logarithmic where they are spaced like that."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Names that people give to loops that only repeat.
REPLICATES = frozenset({"replicate", "rep", "reps", "replicates", "trial", "repeat", "seed"})
STEPS = (1, 2, 4, 5, 8, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
LONGEST = 16
# So many numbers get a tick each.
FEW = 8


@dataclass(frozen=True, eq=False)
class Scale:
    """One axis of a plot.

    Parameters
    ----------
    name : str
    labels : array
        In the order they are drawn.
    """

    name: str
    labels: Array

    @cached_property
    def kind(self) -> str:
        """`number`, `time` or `category`."""
        letter = self.labels.dtype.kind
        if letter in "iuf" and bool(np.isfinite(self.labels).all()):
            return "number"
        return "time" if letter == "M" else "category"

    @cached_property
    def log(self) -> bool:
        """Whether a logarithmic scale shows the labels more evenly."""
        return logarithmic(self.labels)

    @cached_property
    def positions(self) -> Array:
        """Where the labels lie: at their values, or side by side when they are no numbers."""
        if self.kind == "number":
            return self.labels.astype(np.float64)
        return self.labels if self.kind == "time" else np.arange(self.labels.size, dtype=np.float64)

    @cached_property
    def texts(self) -> list[str]:
        """Labels for people."""
        return [label_text(label) for label in self.labels]

    @cached_property
    def marks(self) -> list[tuple[float, str]] | None:
        """Ticks at the labels themselves: of categories, of few numbers, of numbers on a logarithmic scale."""
        if self.kind == "time" or (self.kind == "number" and self.labels.size > FEW and not self.log):
            return None
        return [(float(self.positions[place]), text) for place, text in self.ticks()]

    def ticks(self, most: int = 8) -> list[tuple[int, str]]:
        """Ticks at some of the labels, for scales that put labels side by side."""
        step = next((step for step in STEPS if self.labels.size <= step * most), -(-self.labels.size // most))
        return [(place, label_text(self.labels[place])) for place in range(0, self.labels.size, step)]


def logarithmic(labels: Array) -> bool:
    """Whether numbers are spaced by ratios rather than by differences, over at least a factor of ten."""
    if labels.dtype.kind not in "iuf" or labels.size < 3 or not bool((labels > 0).all() and np.isfinite(labels).all()):
        return False
    ordered = np.unique(labels.astype(np.float64))
    if ordered.size < 3 or ordered[-1] / ordered[0] < 10:
        return False
    steps, ratios = np.diff(ordered), np.diff(np.log(ordered))
    return bool(np.ptp(ratios) / ratios.mean() < np.ptp(steps) / steps.mean())


def wide(values: Array) -> bool:
    """Whether values, all above zero, span more than three decades, so that most of them would lie on the axis."""
    known = values[np.isfinite(values)]
    return bool(known.size > 2 and known.min() > 0 and known.max() / known.min() > 1000)


def label_text(label: Any) -> str:
    """Write a label so that it fits beside an axis."""
    if isinstance(label, (bool, np.bool_)):
        return str(bool(label))
    if isinstance(label, (float, np.floating)):
        return f"{label:.4g}"
    text = str(label)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def factorized(name: str, labels: Array, codes: npt.NDArray[np.int64]) -> tuple[Scale, npt.NDArray[np.int64]]:
    """Order labels for drawing: numbers and dates by value, the rest as listed; equal labels become one.

    Parameters
    ----------
    name : str
    labels : array
    codes : int64 array
        Places among `labels`.

    Returns
    -------
    scale : Scale
    codes : int64 array
        Places among `scale.labels`.
    """
    if labels.dtype.kind in "iufMm":
        distinct, place = np.unique(labels, return_inverse=True)
        return Scale(name, distinct), place.astype(np.int64)[codes]
    # Strings stand for values of mixed kinds too; their order is the user's.
    first: dict[Any, int] = {}
    place = np.array([first.setdefault(key, len(first)) for key in labels.tolist()], np.int64)
    kept = np.unique(place, return_index=True)[1]
    return Scale(name, labels[kept]), place[codes] if labels.size else codes


def merged(scale: Scale, codes: npt.NDArray[np.int64], most: int) -> tuple[Scale, npt.NDArray[np.int64], int]:
    """Merge neighbours until no more than `most` labels are left; also return how many became one."""
    factor = max(1, -(-scale.labels.size // most))
    if factor == 1:
        return scale, codes, 1
    labels = scale.labels[::factor]
    if scale.kind == "number":
        starts = np.arange(0, scale.labels.size, factor)
        sizes = np.diff(np.append(starts, scale.labels.size))
        labels = np.add.reduceat(scale.labels.astype(np.float64), starts) / sizes
    return Scale(scale.name, labels), codes // factor, factor
