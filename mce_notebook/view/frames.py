"""One state of a plot as plain arrays: what is known at every place, with its interval, and what is not known yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.errors import ViewError
from mce_notebook.view.questions import CURVES, PANELS, Layout, Question, position
from mce_notebook.view.scales import Scale, factorized, label_text, merged
from mce_notebook.view.statistics import Floats, Integers, grouped

if TYPE_CHECKING:
    import xarray as xr

# More places than this along a curve or a side of a heatmap cannot be seen, and would make pages heavy.
PLACES = 400
CELLS = 96
SCATTERED = 3000
ANSWERS = 12
BAD = (Status.FAILED, Status.KILLED, Status.TIMEOUT)
EXCLUDED = 255


class State(IntEnum):
    """What is known at one place of a plot."""

    PENDING = 0
    PARTIAL = 1
    WHOLE = 2
    STALE = 3
    FAILED = 4
    NONE = 5


@dataclass(frozen=True, eq=False)
class Frame:
    """One state of a plot.

    Parameters
    ----------
    question : Question
    x, y, by : Scale
        `y` and `by` have one empty label where there is no such axis.
    mean, low, high, stale : float64[by, y, x]
        What is drawn, its interval, and the mean of values of older code; NaN where there is none.
    state : uint8[by, y, x]
    points : float64[4, k] or None
        Outcomes one by one: x, y, value, place in `by`; for plots of scattered points.
    title, subtitle : str
        What is drawn, and how complete it is.
    running : bool
    share : bool
        Whether values are shares.
    at : mapping of str to label
        The labels chosen by selectors.
    options : mapping
        Options of hvplot the caller gave.
    """

    question: Question
    x: Scale
    y: Scale
    by: Scale
    mean: Floats
    low: Floats
    high: Floats
    stale: Floats
    state: npt.NDArray[np.uint8]
    points: Floats | None
    title: str
    subtitle: str
    running: bool
    share: bool
    at: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def band(self) -> bool:
        """Whether there is an interval to draw."""
        return bool(np.isfinite(self.low).any())

    @property
    def value_name(self) -> str:
        """Name of what is drawn, for its axis."""
        question = self.question
        if question.answers:
            return f"share of {question.value}"
        name = {"abs": "|{}|", "real": "Re {}", "imag": "Im {}", "angle": "arg {}"}.get(question.part, "{}")
        return ("share of " if self.share else "") + name.format(question.value)


def labels_of(dataset: "xr.Dataset", question: Question, name: str) -> list[Any]:
    """Labels that a selector offers, in the order they are drawn."""
    if name == question.answers:
        return list(_answers(dataset, question))
    labels = Layout.of(dataset, question.value).axes[name][1]
    scale, _ = factorized(name, labels, np.arange(labels.size))
    return [label.item() if isinstance(label, np.generic) else label for label in scale.labels]


def frame(
    dataset: "xr.Dataset",
    question: Question,
    at: Mapping[str, Any] | None = None,
    *,
    running: bool = False,
    incomplete: bool | None = None,
    heading: str = "",
) -> Frame:
    """Answer a question with what is known now.

    Parameters
    ----------
    dataset : xarray.Dataset
    question : Question
    at : mapping of str to label, optional
        Choices of the selectors; the first label by default.
    running : bool
        Whether more is to come.
    incomplete : bool or None
        Whether places are drawn of which not all replicates are known; None: while it runs.
    heading : str
        Written before what is drawn.
    """
    chosen = {name: labels_of(dataset, question, name)[0] for name in question.selectors} | dict(at or {})
    table = _Table(dataset, question, chosen)
    partial = running if incomplete is None else incomplete
    if question.kind == "points":
        return _scattered(table, chosen, running, heading)
    found = grouped(table.values, table.group[table.shown], table.size, share=table.share)
    expected = np.bincount(table.group, minlength=table.size)
    stale = grouped(table.all[table.old], table.group[table.old], table.size).mean
    bad = np.bincount(table.group[table.bad], minlength=table.size)
    state = np.full(table.size, State.PENDING, np.uint8)
    state[expected == 0] = State.NONE
    state[(expected > 0) & (bad == expected)] = State.FAILED
    state[np.isfinite(stale)] = State.STALE
    state[found.count > 0] = State.PARTIAL
    state[(found.count > 0) & (found.count >= expected)] = State.WHOLE
    hidden = (state == State.PARTIAL) & (not partial)
    mean, low, high = (
        np.where(hidden, np.nan, each).reshape(table.shape) for each in (found.mean, found.low, found.high)
    )
    notes = table.notes(state, hidden=int(hidden.sum()), band=bool(np.isfinite(low).any()))
    return Frame(
        question,
        table.x,
        table.y,
        table.by,
        mean,
        low,
        high,
        stale.reshape(table.shape),
        state.reshape(table.shape),
        None,
        _title(question, chosen, heading, table.share),
        notes,
        running,
        table.share,
        chosen,
    )


def _title(question: Question, chosen: Mapping[str, Any], heading: str, share: bool) -> str:
    held = {**question.fixed, **chosen}
    at = ", ".join(f"{name} = {label_text(label)}" for name, label in held.items())
    return " · ".join(part for part in (heading, at) if part)


class _Table:
    """The points that are drawn, each with its group (by, y, x) and its values."""

    def __init__(self, dataset: "xr.Dataset", question: Question, chosen: Mapping[str, Any]):
        self.question = question
        self.layout = Layout.of(dataset, question.value)
        variable = dataset[question.value]
        shape = tuple(dataset.sizes[dim] for dim in self.layout.dims)
        size = int(np.prod(shape))
        own = tuple(variable.sizes[dim] for dim in question.own)
        values = np.asarray(variable.transpose(*self.layout.dims, *question.own).values).reshape(size, *own)
        status = np.asarray(dataset["status"].values).reshape(size) if "status" in dataset else None
        self.dataset_status = status
        self._shape = shape
        self.share = str(variable.attrs.get("native_dtype", variable.dtype)) == "bool" or bool(question.answers)
        held = {name: label for name, label in {**question.fixed, **chosen}.items() if name != question.answers}
        rows = self._rows(held, status)
        self._answers = _answers(dataset, question) if question.answers else []
        codes = {name: self._codes(name, rows) for name in self.layout.axes if name in self._places(question)}
        values = values[rows]
        status = np.full(rows.size, Status.DONE, np.uint8) if status is None else status[rows]
        if question.answers:
            values, status, codes = self._by_answer(values, status, codes, chosen)
        elif own:
            values, status, codes = self._along(values, status, codes, dataset)
        self.all = _numbers(values, question.part)
        self.old = status == Status.STALE
        self.bad = np.isin(status, BAD)
        self.shown = (status == Status.DONE) & ~np.isnan(self.all)
        self.values = self.all[self.shown]
        self._group(codes)

    @staticmethod
    def _places(question: Question) -> tuple[str, ...]:
        return tuple(name for name in (question.x, question.y, question.by) if name is not None)

    def _rows(self, held: Mapping[str, Any], status: npt.NDArray[Any] | None) -> Integers:
        keep = np.ones(int(np.prod(self._shape)), bool) if status is None else status != EXCLUDED
        for name, label in held.items():
            place = position(self.layout.axes[name][1], label)
            if place is None:
                raise ViewError(f"The axis `{name}` has no label {label!r}.")
            labels = self.layout.axes[name][1]
            same = np.array([one == labels[place] for one in labels.tolist()])
            keep &= same[self._along_dim(self.layout.axes[name][0])]
        return np.flatnonzero(keep)

    def _along_dim(self, dim: str) -> Integers:
        axis = self.layout.dims.index(dim)
        inner = int(np.prod(self._shape[axis + 1 :]))
        return np.arange(int(np.prod(self._shape))) // inner % self._shape[axis]

    def _codes(self, name: str, rows: Integers) -> tuple[Scale, Integers]:
        dim, labels = self.layout.axes[name]
        return factorized(name, labels, self._along_dim(dim)[rows])

    def _by_answer(self, values: Any, status: Any, codes: dict[str, Any], chosen: Mapping[str, Any]) -> Any:
        """One row per point and answer: whether it was given."""
        answers = self._answers
        if self.question.answers in chosen:
            answers = [chosen[self.question.answers]]
        missing = np.array([each is None for each in values.tolist()])
        share = np.array([[str(each) == answer for answer in answers] for each in values.tolist()], float)
        share = share.reshape(len(values), len(answers))
        share[missing] = np.nan
        repeated = {name: (scale, np.repeat(code, len(answers))) for name, (scale, code) in codes.items()}
        repeated[self.question.answers] = (
            Scale(self.question.answers, np.array(answers or [""])),
            np.tile(np.arange(len(answers)), len(values)),
        )
        return share.ravel(), np.repeat(status, len(answers)), repeated

    def _along(self, values: Any, status: Any, codes: dict[str, Any], dataset: "xr.Dataset") -> Any:
        """One row per point and element of its array."""
        lengths = values.shape[1:]
        size = int(np.prod(lengths))
        spread = {name: (scale, np.repeat(code, size)) for name, (scale, code) in codes.items()}
        for axis, dim in enumerate(self.question.own):
            labels = np.asarray(dataset[dim].values) if dim in dataset.coords else np.arange(lengths[axis])
            place = np.arange(size) // int(np.prod(lengths[axis + 1 :])) % lengths[axis]
            spread[dim] = factorized(dim, labels, np.tile(place, len(values)))
        return values.reshape(-1), np.repeat(status, size), spread

    def _group(self, codes: Mapping[str, tuple[Scale, Integers]]) -> None:
        question = self.question
        most = CELLS if question.kind == "heatmap" else PLACES
        self.merged: list[str] = []
        rows = self.all.size
        none = (Scale("", np.array([""])), np.zeros(rows, np.int64))
        self.x, x = self._fewer(codes[question.x], most)
        self.y, y = self._fewer(codes[question.y], most) if question.y is not None else none
        self.by, by = codes[question.by] if question.by is not None else none
        limit = PANELS if question.kind == "heatmap" else CURVES
        self.left_out = 0
        if self.by.labels.size > limit:
            self.by, by = self._chosen(self.by, by, limit)
        self.shape = (self.by.labels.size, self.y.labels.size, self.x.labels.size)
        self.size = int(np.prod(self.shape))
        self.place = (by, y, x)
        self.group = np.ravel_multi_index((np.maximum(by, 0), y, x), self.shape) if rows else np.empty(0, np.int64)
        if (by < 0).any():
            # Points of curves that are not drawn belong to no group.
            keep = by >= 0
            self.values = self.all[self.shown & keep]
            self.shown, self.old, self.bad = self.shown[keep], self.old[keep], self.bad[keep]
            self.all, self.group = self.all[keep], self.group[keep]
            self.place = (by[keep], y[keep], x[keep])

    def _fewer(self, found: tuple[Scale, Integers], most: int) -> tuple[Scale, Integers]:
        scale, codes, factor = merged(*found, most)
        if factor > 1:
            self.merged.append(f"{factor} neighbours of {scale.name} are one")
        return scale, codes

    def _chosen(self, scale: Scale, codes: Integers, limit: int) -> tuple[Scale, Integers]:
        kept = np.unique(np.linspace(0, scale.labels.size - 1, limit).round().astype(int))
        table = np.full(scale.labels.size, -1, np.int64)
        table[kept] = np.arange(kept.size)
        self.left_out = int(scale.labels.size)
        return Scale(scale.name, scale.labels[kept]), table[codes]

    def notes(self, state: npt.NDArray[np.uint8], *, hidden: int, band: bool) -> str:
        """Say how complete the picture is, and what it averages."""
        notes = [progress_text(self.dataset_status)] if self.dataset_status is not None else []
        if self.question.over:
            over = ", ".join(self.question.over)
            how = "Wilson" if self.share else "t"
            notes.append(
                f"mean over {over}" + (f" with 95 % {how} interval" if band and self.question.kind == "curve" else "")
            )
        partial = int((state == State.PARTIAL).sum())
        if partial:
            notes.append(f"{partial:,} incomplete" + (" left out (incomplete=True draws them)" if hidden else ""))
        if self.left_out:
            notes.append(f"{self.by.labels.size} of {self.left_out:,} values of {self.by.name}")
        return " · ".join(notes + self.merged)


def progress_text(status: npt.NDArray[Any]) -> str:
    """Say how much is known: `812 of 1,000 points; 12 stale; 3 failed`."""
    counts = np.bincount(status.ravel(), minlength=EXCLUDED + 1)
    total = int(counts.sum() - counts[EXCLUDED])
    known = total - int(counts[Status.PENDING] + counts[Status.RUNNING])
    failed = int(counts[list(BAD)].sum())
    parts = [f"{known:,} of {total:,} points" if known < total else f"{total:,} point{'' if total == 1 else 's'}"]
    parts += [
        f"{count:,} {word}" for count, word in ((int(counts[Status.STALE]), "stale"), (failed, "failed")) if count
    ]
    return "; ".join(parts)


def _scattered(table: _Table, chosen: Mapping[str, Any], running: bool, heading: str) -> Frame:
    """Every outcome by itself, at most SCATTERED of them, evenly chosen."""
    rows = np.flatnonzero(table.shown)
    step = max(1, -(-rows.size // SCATTERED))
    rows = rows[::step]
    by, y, x = (place[rows] for place in table.place)
    across = table.x.positions.astype(np.float64)[x] if table.x.kind != "time" else x.astype(np.float64)
    values = table.all[rows]
    upwards = table.y.positions.astype(np.float64)[y] if table.question.y is not None else values
    points = np.stack([across, upwards, values, by.astype(np.float64)])
    empty = np.full((table.shape[0], 0, 0), np.nan)
    notes = [progress_text(table.dataset_status)] if table.dataset_status is not None else []
    notes += [f"every {step}th is drawn"] if step > 1 else []
    return Frame(
        table.question,
        table.x,
        table.y,
        table.by,
        empty,
        empty,
        empty,
        empty,
        empty.astype(np.uint8),
        points,
        _title(table.question, chosen, heading, table.share),
        " · ".join(notes),
        running,
        table.share,
        chosen,
    )


def _answers(dataset: "xr.Dataset", question: Question) -> list[str]:
    """Return the most frequent answers of an output that is text."""
    values = np.asarray(dataset[question.value].values).ravel().tolist()
    given, counts = np.unique([str(each) for each in values if each is not None], return_counts=True)
    ranked = sorted(range(given.size), key=lambda place: (-counts[place], given[place]))
    return [str(given[place]) for place in ranked[:ANSWERS]]


def _numbers(values: npt.NDArray[Any], part: str) -> Floats:
    if values.dtype.kind == "c":
        missing = np.isnan(values)
        parts: dict[str, Any] = {"real": np.real, "imag": np.imag, "angle": np.angle}
        found = parts.get(part, np.abs)(values)
        return np.where(missing, np.nan, found)
    found = np.asarray(values, np.float64)
    # What overflowed has no place on an axis.
    return np.where(np.isinf(found), np.nan, found)
