"""What a plot shows: which output over which axes; chosen from the data, checked where somebody says."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.errors import ViewError
from mce_notebook.view.scales import REPLICATES

if TYPE_CHECKING:
    import xarray as xr

KINDS = ("curve", "points", "heatmap")
PARTS = ("abs", "real", "imag", "angle")
# More curves in one picture cannot be told apart, more panels not be read.
CURVES = 12
PANELS = 6
# Labels that make an axis a set of curves rather than a direction of a heatmap.
FEW = 8


@dataclass(frozen=True)
class Question:
    """What a plot shows.

    Parameters
    ----------
    value : str
        The output.
    part : str
        Of a complex output: abs, real, imag or angle; empty for others.
    x : str
    y : str or None
    by : str or None
        An axis told apart by colour, or by panels of a heatmap.
    kind : {"curve", "points", "heatmap"}
    fixed : mapping of str to label
        Axes held at one label by the caller.
    selectors : tuple of str
        Axes held at one label that the reader chooses.
    over : tuple of str
        Axes that are averaged.
    own : tuple of str
        Dimensions of the output itself.
    answers : str
        How the answers of an output that is text are called as an axis; empty for numbers.
    """

    value: str
    x: str
    y: str | None = None
    by: str | None = None
    kind: str = "curve"
    part: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    selectors: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    answers: str = ""


@dataclass(frozen=True, eq=False)
class Layout:
    """The shape of a dataset as plots see it.

    Parameters
    ----------
    dims : tuple of str
        Dimensions of the design.
    axes : mapping of str to (dim, labels)
        Every axis by name, zipped ones included.
    """

    dims: tuple[str, ...]
    axes: Mapping[str, tuple[str, npt.NDArray[Any]]]

    @classmethod
    def of(cls, dataset: "xr.Dataset", value: str | None = None) -> "Layout":
        """Read it from a dataset; one without `status` is taken as a whole."""
        if "status" in dataset:
            dims = tuple(map(str, dataset["status"].dims))
        else:
            dims = tuple(map(str, dataset[value].dims if value is not None else dataset.dims))
        axes: dict[str, tuple[str, npt.NDArray[Any]]] = {}
        for name, item in dataset.coords.items():
            if len(item.dims) == 1 and item.dims[0] in dims:
                axes[str(name)] = (str(item.dims[0]), np.asarray(item.values))
        for dim in dims:
            if dim not in axes and dim != "point":
                axes[dim] = (dim, np.arange(dataset.sizes[dim]))
        return cls(dims, axes)

    @property
    def listed(self) -> bool:
        """Whether the points have one dimension of their own instead of a cube."""
        return self.dims == ("point",)

    def distinct(self, name: str) -> int:
        """Count the different labels of an axis."""
        labels = self.axes[name][1]
        return len(set(labels.tolist())) if self.listed else int(labels.size)

    def category(self, name: str) -> bool:
        """Whether the labels of an axis are no numbers."""
        return self.axes[name][1].dtype.kind not in "iufM"

    def free(self, taken: Sequence[str]) -> list[str]:
        """Axes not decided yet, one for each dimension, without those that only repeat or have one label."""
        used = {self.axes[name][0] for name in taken if name in self.axes and not self.listed}
        found: list[str] = []
        for name, (dim, _) in self.axes.items():
            if name in REPLICATES or name in taken or self.distinct(name) < 2 or dim in used:
                continue
            if not self.listed:
                used.add(dim)
            found.append(name)
        return found


def outputs(dataset: "xr.Dataset") -> list[str]:
    """Names of what can be drawn: outputs, without the variables that only accompany them."""
    names = [str(name) for name in dataset.data_vars if name != "status"]
    extra = {f"{name}{end}" for name in names for end in ("_exact", "_length", "_length_0", "_length_1")}
    return [name for name in names if name not in extra]


def ask(
    dataset: "xr.Dataset",
    *,
    x: str | None = None,
    y: str | None = None,
    value: str | None = None,
    by: str | None = None,
    kind: str | None = None,
    over: Sequence[str] = (),
    fixed: Mapping[str, Any] | None = None,
) -> Question:
    """Decide what to draw.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `Snapshot.dataset` gives it, or any other.
    x, y, value, by, kind, over, fixed
        As for `Sweep.plot`.

    Raises
    ------
    ViewError
        For a name that does not exist, with those that do; for what cannot be drawn, with what can.
    """
    fixed = dict(fixed or {})
    known = outputs(dataset)
    if value is None and y is not None and y in known:
        # As in pandas and hvplot, where y is what is drawn.
        value, y = y, None
    name, part = _value(dataset, known, value)
    layout = Layout.of(dataset, name)
    variable = dataset[name]
    own = tuple(str(dim) for dim in variable.dims if dim not in layout.dims)
    _drawable(name, variable, layout, own)
    over = (over,) if isinstance(over, str) else tuple(over)
    text = variable.dtype.kind in "OUT" and not part
    _check_names(layout, own, x=x, y=y, by=by, fixed=fixed, over=over, answers=name if text else "")
    if kind is not None and kind not in KINDS:
        raise ViewError(f"There is no kind of plot `{kind}`{_hint(kind, KINDS)} Kinds are {_list(KINDS)}.")
    question = Question(name, x or "", y, by, kind or "", part, fixed, (), over, own, name if text else "")
    return _completed(question, layout)


def _value(dataset: "xr.Dataset", known: Sequence[str], value: str | None) -> tuple[str, str]:
    if not known:
        raise ViewError("There is no output to draw yet.")
    if value is None:
        numbers = [name for name in known if dataset[name].dtype.kind in "biufc"]
        name, part = (numbers or list(known))[0], ""
    else:
        name, dot, part = value.rpartition(".") if value not in known else (value, "", "")
        if name not in known:
            raise ViewError(f"There is no output `{value}`{_hint(value, known)} Outputs are {_list(known)}.")
        if dot and (part not in PARTS or dataset[name].dtype.kind != "c"):
            raise ViewError(f"`{value}` is no part of `{name}`; of complex outputs there is {_list(PARTS)}.")
    return name, part or ("abs" if dataset[name].dtype.kind == "c" else "")


def _drawable(name: str, variable: "xr.DataArray", layout: Layout, own: Sequence[str]) -> None:
    if variable.dtype.kind not in "biufcOUT":
        raise ViewError(f"`{name}` holds {variable.dtype} values, and only numbers, bools and text can be drawn.")
    if not set(layout.dims) <= set(variable.dims):
        raise ViewError(f"The arrays of `{name}` differ too much in length to be drawn together; draw one of them.")
    if len(own) > 2 or (own and variable.dtype.kind in "OUT"):
        raise ViewError(
            f"`{name}` has {len(own)} dimensions of its own at every point; at most two of numbers are drawn."
        )


def _check_names(
    layout: Layout,
    own: Sequence[str],
    *,
    fixed: Mapping[str, Any],
    over: Sequence[str],
    answers: str,
    **places: str | None,
) -> None:
    known = [*layout.axes, *own, *([answers] if answers else [])]
    arguments = ("x", "y", "value", "by", "kind", "over", "incomplete")
    for place, name in places.items():
        if name is not None and name not in known:
            raise ViewError(f"{place}=`{name}` is no axis{_hint(name, known)} Axes are {_list(known)}.")
    for name in (*fixed, *over):
        if name not in layout.axes:
            hint = _hint(name, [*arguments, *known])
            raise ViewError(f"`{name}` is neither an argument of `plot` nor an axis{hint} Axes are {_list(known)}.")
    for name, label in fixed.items():
        if position(layout.axes[name][1], label) is None:
            shown = _list([str(one) for one in dict.fromkeys(layout.axes[name][1].tolist())][:8])
            raise ViewError(f"The axis `{name}` has no label {label!r}; it has {shown}.")
    chosen = [name for name in (*places.values(), *fixed, *over) if name is not None]
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise ViewError(f"`{twice}` is asked for twice; an axis has one place in a plot.")


def position(labels: npt.NDArray[Any], label: Any) -> int | None:
    """Place of a label; numbers match within 1e-12, as everywhere."""
    if labels.dtype.kind in "iuf" and isinstance(label, int | float | np.number) and not isinstance(label, bool):
        found = np.flatnonzero(np.isclose(labels.astype(float), float(label), rtol=1e-12, atol=0))
    else:
        text = [str(one) for one in labels.tolist()]
        found = np.array([place for place, one in enumerate(text) if one == str(label)])
    return int(found[0]) if found.size else None


def _completed(question: Question, layout: Layout) -> Question:
    """Give every axis that was not mentioned a place."""
    chosen = [name for name in (question.x, question.y, question.by) if name]
    taken = [*chosen, *question.fixed, *question.over]
    free = layout.free(taken)
    question = _with_kind(question, layout, free)
    question = _with_axes(question, layout, free)
    used = {question.x, question.y, question.by, *taken}
    left = layout.free([name for name in used if name])
    if layout.listed and question.kind == "points":
        # Scattered points have no others at the same place: all are shown.
        left = []
    if question.answers and question.answers not in used:
        if question.kind == "heatmap":
            left.append(question.answers)
        elif question.by is None:
            question = replace(question, by=question.answers)
        else:
            left.append(question.answers)
    shown = {question.x, question.y, question.by, *question.fixed, *left}
    repeats = [name for name in layout.axes if name in REPLICATES and name not in shown and layout.distinct(name) > 1]
    over = tuple(dict.fromkeys([*question.over, *repeats]))
    if layout.listed and question.kind == "points":
        over = ()
    return replace(question, selectors=tuple(left), over=over)


def _with_kind(question: Question, layout: Layout, free: Sequence[str]) -> Question:
    if question.kind:
        if (
            question.kind == "heatmap"
            and question.answers == ""
            and len(free) + bool(question.x) + bool(question.y) + len(question.own) < 2
        ):
            raise ViewError("A heatmap needs two axes, and only one is left; leave out kind, or fix fewer axes.")
        return question
    if question.y is not None:
        design = layout.listed and _scattered(layout, [question.x, question.y])
        return replace(question, kind="points" if design else "heatmap")
    if question.x or question.by:
        scattered = layout.listed and bool(question.x) and _scattered(layout, [question.x])
        return replace(question, kind="points" if scattered else "curve")
    if question.own:
        return replace(question, kind="curve" if len(question.own) == 1 else "heatmap")
    if layout.listed and _scattered(layout, free[:2]):
        return replace(question, kind="points")
    few = [name for name in free if layout.category(name) and layout.distinct(name) <= FEW]
    if len(free) < 2 or question.answers or (len(free) == 2 and few):
        return replace(question, kind="curve")
    return replace(question, kind="heatmap")


def _scattered(layout: Layout, names: Sequence[str]) -> bool:
    """Whether listed points hardly ever share labels, as in random designs."""
    names = [name for name in names if name]
    if not names:
        return False
    columns = [layout.axes[name][1].tolist() for name in names]
    together = list(zip(*columns, strict=True))
    return len(set(together)) > 0.5 * len(together) and len(together) > FEW


def _with_axes(question: Question, layout: Layout, free: Sequence[str]) -> Question:
    mine = [name for name in question.own[::-1] if name not in (question.x, question.y, question.by)]
    rest = [name for name in free if name not in (question.x, question.y, question.by)]
    # Numbers and long axes make the better directions; those of the output itself come first.
    ranked = [*mine, *sorted(rest, key=lambda name: (layout.category(name), -layout.distinct(name)))]
    if not question.x:
        if not ranked:
            ranked = [name for name in layout.axes if name not in (question.y, question.by, *question.fixed)]
        if not ranked:
            raise ViewError("There is no axis left to draw over; fix fewer of them.")
        if question.kind == "heatmap" and question.y is None and not question.own and len(ranked) > 1:
            # Two directions in the order of the loops: the outer one upwards, the inner one to the right.
            question = replace(question, x=max(ranked[:2], key=rest.index))
        else:
            question = replace(question, x=ranked[0])
        ranked = [name for name in ranked if name != question.x]
    scattered = layout.listed and question.kind == "points" and not question.own
    if question.y is None and (question.kind == "heatmap" or (scattered and ranked)):
        if not ranked:
            raise ViewError("A heatmap needs two axes, and only one is left; leave out kind, or fix fewer axes.")
        question = replace(question, y=ranked[0])
    if question.by is None and question.kind == "curve" and not question.answers and not question.own:
        few = [name for name in ranked if layout.category(name) and layout.distinct(name) <= FEW and name != question.x]
        # One category beside the axis: curves in one picture tell more than a selector.
        question = replace(question, by=few[0]) if few else question
    return question


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1, cutoff=0.5)
    return f"; did you mean `{near[0]}`?" if near else "."


def _list(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names]
    if len(shown) > 12:
        shown = [*shown[:12], f"{len(shown) - 12} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"
