"""Options of hvplot that a plot takes: which there are, and what they mean for both of its pictures."""

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mce_notebook.errors import ViewError
from mce_notebook.view.frames import Frame
from mce_notebook.view.palette import COLOURMAP, CURVES
from mce_notebook.view.questions import position
from mce_notebook.view.scales import Scale, wide

ARGUMENTS = ("x", "y", "value", "by", "kind", "over", "incomplete")
_DRAWN_BY = {"curve": "Curve", "heatmap": "Image", "points": "Scatter"}
_PLURAL = {"curve": "curves", "heatmap": "heatmaps", "points": "scattered points"}
# What a plot of a sweep decides itself: columns, the widgets, and colours of categories.
_OURS = frozenset(
    {
        *("c", "color_key", "hover_cols", "subplots", "widget_location"),
        *("check_symmetric_max", "rescale_discrete_levels", "robust", "symmetric", "subcoordinate_y"),
        *("angle", "hit_dilation", "palette", "radius", "radius_dimension", "visible"),
    }
)
_OF_VALUES = frozenset({"cmap", "colormap", "clim", "clabel", "cticks", "cnorm", "colorbar", "logz"})
# Cells of a heatmap lie side by side, whatever their labels, and have the colour of their value.
_NOT_OF = {
    "heatmap": frozenset({"logx", "logy", "loglog", "color", "legend", "legend_cols", "legend_opts"}),
    "curve": _OF_VALUES,
}


@functools.cache
def known(kind: str) -> frozenset[str]:
    """Names of the options that a kind of plot takes, as the installed hvplot and HoloViews have them."""
    import holoviews as hv
    import holoviews.plotting.bokeh  # registers what styles there are
    from hvplot.converter import HoloViewsConverter

    groups = ("axis_config", "size_layout", "color", "interactivity", "legend", "style")
    names = {name for group in groups for name in getattr(HoloViewsConverter, f"_{group}_options")}
    styles = set(hv.Store.registry["bokeh"][getattr(hv, _DRAWN_BY[kind])].style_opts)
    if kind == "curve":
        styles |= {"size", "marker"}
    several = re.compile("^(hover|muted|selection|nonselection)_(?!tooltips|formatters)|^muted$")
    return frozenset((names | {"logz"} | {each for each in styles if not several.match(each)}) - _OURS) - _NOT_OF.get(
        kind, frozenset()
    )


def split(given: Mapping[str, Any], axes: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell labels of axes from options; where an axis is called like an option, the axis is meant.

    Raises
    ------
    ViewError
        For a name that is neither, with the nearest one that is.
    """
    axes = list(axes)
    held = {name: label for name, label in given.items() if name in axes}
    options = {name: value for name, value in given.items() if name not in held}
    # hvplot takes a second to load, and most plots have no options.
    if options:
        every = frozenset().union(*map(known, _DRAWN_BY))
        for name in options:
            if name not in every:
                near = difflib.get_close_matches(name, [*ARGUMENTS, *axes, *sorted(every)], 1)
                hint = f"; did you mean `{near[0]}`?" if near else "."
                listed = ", ".join(f"`{axis}`" for axis in axes)
                raise ViewError(
                    f"`{name}` is neither an argument of `plot` nor an axis nor an option of hvplot{hint} "
                    f"Axes are {listed}."
                )
    return held, options


def check_kind(options: Mapping[str, Any], kind: str) -> None:
    """Refuse options that mean nothing for a kind of plot.

    Raises
    ------
    ViewError
        Naming the option, and the nearest one there is.
    """
    for name in options:
        if name not in known(kind):
            near = difflib.get_close_matches(name, sorted(known(kind)), 1)
            hint = f"; the nearest option is `{near[0]}`." if near else "."
            raise ViewError(f"`{name}` means nothing for {_PLURAL[kind]}{hint}")


def check_values(frame: Frame) -> None:
    """Refuse values that cannot be drawn.

    Raises
    ------
    ViewError
        Naming the option.
    """
    for which, scale in (("x", frame.x), ("y", frame.y)):
        if not asked_log(frame, which) or (which == "y" and frame.question.y is None):
            continue
        if scale.kind != "number" or not (scale.labels > 0).all():
            raise ViewError(f"log{which}=True needs labels above zero, and not all of `{scale.name}` are.")
    for name in ("xlim", "ylim", "clim"):
        pair = frame.options.get(name)
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ViewError(f"{name}={pair!r} is no pair; write {name}=(low, high), None for a side left open.")
    sides = {"clim": frame.options.get("logz"), "xlim": asked_log(frame, "x"), "ylim": asked_log(frame, "y")}
    for name, logarithmic in sides.items():
        low = (frame.options.get(name) or (None,))[0]
        if logarithmic and low is not None and low <= 0:
            raise ViewError(f"{name}={frame.options[name]!r} begins at or below zero, where no logarithmic scale can.")


def asked_log(frame: Frame, which: str) -> bool:
    """Whether the caller wants one side of the picture logarithmic."""
    return bool(frame.options.get(f"log{which}", frame.options.get("loglog", False)))


def log(frame: Frame, which: str) -> bool:
    """Whether `x`, `y` or the colours of values, `z`, are logarithmic, by themselves or as the caller wants."""
    of_values = which == "z" or (which == "y" and frame.question.y is None)
    if of_values:
        values = frame.points[2] if frame.points is not None else frame.mean
        guess = not frame.share and wide(values)
    else:
        guess = (frame.x if which == "x" else frame.y).log
    return bool(frame.options.get(f"log{which}", frame.options.get("loglog", guess) if which != "z" else guess))


def title(frame: Frame) -> str:
    """Heading, without what is known."""
    return str(frame.options.get("title", frame.title))


def x_name(frame: Frame) -> str:
    """Return what is written below."""
    return str(frame.options.get("xlabel", frame.x.name))


def y_name(frame: Frame) -> str:
    """Return what is written on the left."""
    return str(frame.options.get("ylabel", frame.y.name if frame.question.y is not None else frame.value_name))


def colour_name(frame: Frame) -> str:
    """Return what is written beside the colours of values."""
    return str(frame.options.get("clabel", frame.value_name))


def colours(frame: Frame) -> list[str]:
    """Colours of curves, one after another."""
    asked = frame.options.get("color")
    if asked is None:
        return list(CURVES)
    return [asked] if isinstance(asked, str) else list(asked)


def colourmap(frame: Frame) -> Any:
    """Colours of values: a name, or a list."""
    return frame.options.get("cmap", frame.options.get("colormap", COLOURMAP))


def colour_range(frame: Frame) -> tuple[float, float]:
    """Lowest and highest value that has a colour of its own."""
    values = frame.points[2] if frame.points is not None else frame.mean
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    asked = frame.options.get("clim") or (None, None)
    low, high = low if asked[0] is None else asked[0], high if asked[1] is None else asked[1]
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def limits(frame: Frame, which: str) -> tuple[Any, Any] | None:
    """Return the part that is shown, in the coordinates of the picture; None for everything."""
    pair = frame.options.get(f"{which}lim")
    if pair is None:
        return None
    if frame.question.kind != "heatmap":
        return tuple(pair)
    scale = frame.x if which == "x" else frame.y
    if scale.kind != "number":
        return tuple(pair)
    places = np.arange(scale.labels.size, dtype=np.float64)
    ends = [None if end is None else float(np.interp(end, scale.positions, places)) for end in pair]
    # Whole cells, from edge to edge.
    return (
        -0.5 if ends[0] is None else np.floor(ends[0]) - 0.5,
        scale.labels.size - 0.5 if ends[1] is None else np.ceil(ends[1]) + 0.5,
    )


def ticks(frame: Frame, which: str) -> Any:
    """Ticks the caller wants; labels become places where cells lie side by side."""
    asked = frame.options.get(f"{which}ticks")
    scale = frame.x if which == "x" else frame.y
    beside = frame.question.kind == "heatmap" or scale.kind == "category"
    if not beside or not isinstance(asked, tuple | list | np.ndarray):
        return asked
    return [pair for each in asked if (pair := _tick(scale, each)) is not None]


def _tick(scale: Scale, label: Any) -> tuple[float, str] | None:
    if isinstance(label, tuple):
        return label
    place = position(scale.labels, label)
    return None if place is None else (float(place), scale.texts[place])
