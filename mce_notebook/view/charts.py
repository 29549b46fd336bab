"""A frame of a plot as elements made by hvplot, and the picture of a stream of frames."""

import functools
import textwrap
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mce_notebook.view.frames import Frame, State
from mce_notebook.view.options import (
    colour_name,
    colour_range,
    colours,
    limits,
    log,
    ticks,
    title,
    x_name,
    y_name,
)
from mce_notebook.view.palette import COLOURMAP, FAILED, INK, PALE, PENDING, RULE, STALE
from mce_notebook.view.scales import label_text

# Longer curves go without markers.
MARKED = 40

# Around everything HoloViews does: its tables of options are shared, and it is not made for several threads.
LOCK = threading.RLock()
WIDTH, HEIGHT = 640, 360
PANEL, BAR = 270, 80
_FONTS = {"title": 9, "labels": 10, "ticks": 8, "legend": 9, "legend_title": 9}
_LEGEND = ("legend", "legend_cols", "legend_opts")
_HOVER = ("hover", "hover_tooltips", "hover_formatters", "tools")
# Columns beside those of the user.
_X, _BY, _FILL, _EDGE = "mce_x", "mce_by", "mce_fill", "mce_edge"


def holoviews() -> Any:
    """Return the module, with Bokeh as the place where things are drawn."""
    import holoviews as hv
    import holoviews.plotting.bokeh  # registers the backend

    if not hv.Store.current_backend or hv.Store.current_backend == "matplotlib":
        hv.Store.set_current_backend("bokeh")
    return hv


def chart(frame: Frame, panel: int = 0) -> Any:
    """Draw a frame, or one panel of it.

    Returns
    -------
    holoviews.Overlay
    """
    return Artist(panel).draw(frame)


@dataclass(frozen=True)
class Part:
    """One element of a picture: its data, and what makes it of them the first time."""

    data: Any
    make: Callable[[Any], Any]
    again: Mapping[str, Any] = field(default_factory=dict)


class Artist:
    """Draws frame after frame of one panel.

    hvplot makes the elements of the first frame. Reading its options takes 5 ms for every element, which five frames a
    second of a dozen curves cannot afford: later frames are copies of the first ones with other data, 0.7 ms each.
    """

    def __init__(self, panel: int = 0):
        self._panel = panel
        self._elements: list[Any] = []
        self._options: dict[str, Any] = {}
        self._made: Any = None

    def draw(self, frame: Frame) -> Any:
        """Draw a frame as an overlay whose parts are the same for all frames of a plot."""
        hv = holoviews()
        if frame.points is not None:
            parts = _points(frame)
        elif frame.question.kind == "heatmap":
            parts = _heatmap(hv, frame, self._panel)
        else:
            parts = _curves(frame)
        made = _structure(frame)
        if made == self._made:
            drawn = [old.clone(part.data, **part.again) for old, part in zip(self._elements, parts, strict=True)]
        else:
            drawn = self._elements = [part.make(part.data) for part in parts]
            self._options = _frame_options(hv, frame, self._panel, next(one for one in drawn if _main(hv, one)))
            self._made = made
        return hv.Overlay(drawn).opts(title=_title(frame, self._panel), **self._options, backend="bokeh")


def _structure(frame: Frame) -> Any:
    """All that only new elements can show."""
    scales = tuple((scale.name, tuple(scale.texts)) for scale in (frame.x, frame.y, frame.by))
    return frame.question, frame.running, scales, log(frame, "y"), log(frame, "z"), frame.options


def _main(hv: Any, element: Any) -> bool:
    """Whether the options of the caller went to this element."""
    curve = isinstance(element, hv.Curve) and not isinstance(element, hv.Area)
    return curve or isinstance(element, hv.Image | hv.Points) or element.group == "points"


def panels(frame: Frame) -> int:
    """Return the number of pictures side by side."""
    return frame.by.labels.size if frame.question.kind == "heatmap" else 1


def dynamic(
    draw: Callable[..., Frame],
    first: Frame,
    pipe: Any,
    selectors: dict[str, list[Any]],
    chosen: Mapping[str, Any],
) -> Any:
    """Make a picture that follows a stream.

    Parameters
    ----------
    draw : callable
        Called with the content of the stream and the labels chosen by name; returns a frame.
    first : Frame
        Decides how many panels there are.
    pipe : holoviews.streams.Pipe
    selectors : mapping of str to list of labels
    chosen : mapping of str to label
        Where the selectors stand at first.
    """
    hv = holoviews()
    names = list(selectors)
    # Names of users may be those of the arguments of HoloViews; positions cannot clash.
    dimensions = []
    for name, labels in selectors.items():
        offered = _offered(labels)
        first_label = offered[labels.index(chosen[name])] if chosen.get(name) in labels else offered[0]
        dimensions.append(hv.Dimension(name, values=offered, default=first_label))

    def one(panel: int) -> Any:
        artist = Artist(panel)

        def callback(*chosen: Any, **stream: Any) -> Any:
            at = {name: _taken(selectors[name], label) for name, label in zip(names, chosen, strict=True)}
            return artist.draw(draw(stream["data"], at))

        return hv.DynamicMap(callback, kdims=dimensions, streams=[pipe])

    maps = [one(panel) for panel in range(panels(first))]
    return maps[0] if len(maps) == 1 else hv.Layout(maps).cols(3)


@functools.cache
def pane() -> Any:
    """Return the pane of Panel, with selectors that answer under the lock.

    They are moved in the thread that runs cells, while another one draws what is new.
    """
    from panel.pane import HoloViews

    made: Any = HoloViews

    class Locked(made):  # type: ignore[misc]
        def _widget_callback(self, event: Any) -> None:
            with LOCK:
                super()._widget_callback(event)

    return Locked


def _offered(labels: list[Any]) -> list[Any]:
    """Return labels as selectors take them: numbers on a slider, anything else by name."""
    numbers = all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels)
    return labels if numbers else [str(label) for label in labels]


def _taken(labels: list[Any], chosen: Any) -> Any:
    return next((label for label in labels if label == chosen or str(label) == str(chosen)), labels[0])


def _title(frame: Frame, panel: int) -> str:
    many = panels(frame) > 1
    own = f"{frame.by.name} = {label_text(frame.by.labels[panel])}" if many else title(frame)
    lines = [own]
    if not many:
        lines = [own, *textwrap.wrap(frame.subtitle, 100)]
    elif panel == 0:
        lines = [title(frame), frame.subtitle, own]
    # HoloViews takes a title as a template.
    return "\n".join(line for line in lines if line).replace("{", "{{").replace("}", "}}")


def _common(frame: Frame, panel: int = 0) -> dict[str, Any]:
    """Options of hvplot for the element that stands for the picture: ours, and those of the caller instead of them."""
    heat = frame.question.kind == "heatmap"
    asked = {name: value for name, value in frame.options.items() if name not in ("title", *_LEGEND)}
    many = panels(frame) > 1
    found: dict[str, Any] = {
        "xlabel": frame.x.name,
        "ylabel": frame.y.name if frame.question.y is not None else frame.value_name,
        "toolbar": "right",
        "grid": not heat,
        "shared_axes": False,
    }
    if not asked.keys() & {"frame_width", "responsive"}:
        found["width"] = PANEL + BAR * (panel == panels(frame) - 1) if many else WIDTH
    if not asked.keys() & {"frame_height", "aspect", "data_aspect"}:
        found["height"] = HEIGHT - 60 if many else HEIGHT
    if heat:
        found |= {"xticks": frame.x.ticks(4 if many else 8), "yticks": frame.y.ticks(6)}
    else:
        found |= {"logx": log(frame, "x"), "logy": log(frame, "y")}
        found |= {"xticks": frame.x.marks} if frame.x.marks is not None else {}
        if frame.question.y is not None and frame.y.marks is not None:
            found["yticks"] = frame.y.marks
    found |= asked
    for which in ("x", "y"):
        found |= {f"{which}lim": limits(frame, which)} if f"{which}lim" in asked else {}
        found |= {f"{which}ticks": ticks(frame, which)} if f"{which}ticks" in asked else {}
    found["fontsize"] = _FONTS | (asked["fontsize"] if isinstance(asked.get("fontsize"), dict) else {})
    return found


def _frame_options(hv: Any, frame: Frame, panel: int, main: Any) -> dict[str, Any]:
    """Options of the overlay: what hvplot made of those of the element, and what it has no names for."""
    takes = hv.Store.registry["bokeh"][hv.Overlay].param
    found = {name: value for name, value in main.opts.get("plot", backend="bokeh").kwargs.items() if name in takes}
    legend = frame.options.get("legend", True)
    # What hvplot offers beside a figure belongs to its elements.
    found = {name: value for name, value in found.items() if name not in ("tools", "title", "hover_tooltips")}
    found |= {
        "framewise": frame.options.get("framewise", True),
        "default_tools": ["pan", "wheel_zoom", "box_zoom", "reset", "save"],
        "active_tools": [],
        "hooks": [_styled],
        "show_grid": frame.options.get("grid", frame.question.kind != "heatmap"),
        "fontsize": _FONTS if not isinstance(frame.options.get("fontsize"), dict) else found["fontsize"],
    }
    if frame.question.kind != "heatmap":
        found |= {
            "show_legend": frame.question.by is not None and legend is not False,
            "legend_position": legend if isinstance(legend, str) else "right",
        }
        found |= {name: frame.options[name] for name in ("legend_cols", "legend_opts") if name in frame.options}
    return found


def _styled(plot: Any, _: Any) -> None:
    """Colours of the page around the data: quiet lines, text in grey that reads on white."""
    figure = plot.handles["plot"]
    figure.outline_line_color = None
    figure.toolbar.logo = None
    figure.title.text_color = PALE
    figure.title.text_font_style = "normal"
    for axis in [*figure.xaxis, *figure.yaxis]:
        axis.axis_line_color = axis.major_tick_line_color = RULE
        axis.minor_tick_line_color = None
        axis.major_label_text_color = PALE
        axis.axis_label_text_color = INK
        axis.axis_label_text_font_style = "normal"
    for grid in figure.grid:
        grid.grid_line_color = RULE
        grid.grid_line_alpha = 0.6


def _hvplot(kind: str, **options: Any) -> Callable[[Any], Any]:
    """Return what makes an element of a table or an array."""

    def make(data: Any) -> Any:
        from hvplot import hvPlot

        return getattr(hvPlot(data), kind)(**options)

    return make


def _columns(frame: Frame) -> tuple[str, str]:
    """Names of the columns; the blank keeps an output apart from an axis that is called like it."""
    return frame.x.name or "x", f"{frame.value_name} "


def _curves(frame: Frame) -> list[Part]:
    import pandas as pd

    x = frame.x.positions
    name, value = _columns(frame)
    asked = _common(frame)
    styles: dict[str, Any] = {key: asked.pop(key) for key in ("size", "marker") if key in asked}
    asked.pop("color", None)
    parts: list[Part] = []
    dots: list[Any] = []
    stale: list[Any] = []
    palette = colours(frame)
    for place in range(frame.by.labels.size):
        colour = palette[place % len(palette)]
        label = label_text(frame.by.labels[place]) if frame.question.by is not None else ""
        mean, low, high, state = (each[place, 0] for each in (frame.mean, frame.low, frame.high, frame.state))
        known = np.isfinite(mean)
        line = known if frame.running else np.ones(known.size, bool)
        banded = known & np.isfinite(low)
        partial = known & (state == State.PARTIAL)
        shown = known if known.sum() <= MARKED else partial
        old = state == State.STALE
        band = pd.DataFrame({name: x[banded], "low ": low[banded], "high ": high[banded]})
        area: dict[str, Any] = {"x": name, "y": "low ", "y2": "high ", "stacked": False, "hover": False}
        parts.append(Part(band, _hvplot("area", **area, color=colour, alpha=0.2, line_alpha=0)))
        curve = pd.DataFrame({name: x[line], value: mean[line]})
        options: dict[str, Any] = {"line_width": 2, **asked, "hover": False, "color": colour, "label": label}
        parts.append(Part(curve, _hvplot("line", x=name, y=value, **options)))
        labels = np.array(frame.x.texts, object)
        marks = np.where(partial, "white", colour)
        row: dict[str, Any] = {
            name: x[shown],
            value: mean[shown],
            _X: labels[shown],
            _BY: label,
            _FILL: marks[shown],
            _EDGE: colour,
        }
        dots.append(pd.DataFrame(row))
        stale.append(pd.DataFrame({name: x[old], value: frame.stale[place, 0][old], _X: labels[old], _BY: label}))
    hover = _tooltips(frame, f"@{{{value}}}")
    hover |= {key: asked[key] for key in _HOVER if key in asked}
    marks_options: dict[str, Any] = {"color": _FILL, "line_color": _EDGE, "size": 36, **styles, **hover}
    parts.append(Part(pd.concat(dots), _hvplot("scatter", x=name, y=value, **marks_options)))
    crosses: dict[str, Any] = {"color": STALE, "marker": "x", "size": 64, "hover": False}
    parts.append(Part(pd.concat(stale), _hvplot("scatter", x=name, y=value, **crosses)))
    return parts


def _tooltips(frame: Frame, value: str) -> dict[str, Any]:
    by = [(frame.by.name, f"@{_BY}")] if frame.question.by is not None else []
    return {"hover_tooltips": [*by, (frame.x.name, f"@{_X}"), (frame.value_name, value)]}


def _heatmap(hv: Any, frame: Frame, panel: int) -> list[Part]:
    import xarray as xr

    low, high = colour_range(frame)
    rows, columns = frame.mean.shape[1:]
    image = np.flipud(frame.mean[panel]).astype(np.float32)
    names = {
        "kdims": [hv.Dimension("__x", label=x_name(frame) or "x"), hv.Dimension("__y", label=y_name(frame) or "y")],
        "vdims": [hv.Dimension("__value", label=colour_name(frame), range=(low, high))],
        "bounds": (-0.5, -0.5, columns - 0.5, rows - 0.5),
    }
    options = {
        "cmap": COLOURMAP,
        "colorbar": panel == panels(frame) - 1,
        "bgcolor": PENDING,
        "clabel": frame.value_name,
        "logz": log(frame, "z"),
        "symmetric": False,
        "tools": [_hover(frame)],
        **_common(frame, panel),
    }
    options.pop("clim", None)

    def make(data: Any) -> Any:
        # Coordinates of one cell do not tell how wide it is: hvplot gets two, and its element then ours with bounds.
        coordinates = {"__x": np.arange(2.0), "__y": np.arange(2.0)}
        cells = xr.DataArray(np.eye(2), coordinates, ("__y", "__x"), "__value")
        return _hvplot("image", x="__x", y="__y", hover=False, **options)(cells).clone(data, **names)

    parts = [Part(image, make, names)]
    for state, style in (
        (State.STALE, {"color": PENDING, "hooks": [partial(_hatched, "/", STALE)]}),
        (State.FAILED, {"color": PENDING, "hooks": [partial(_hatched, "x", FAILED)]}),
        (State.NONE, {"color": "white"}),
    ):
        boxes = [(c - 0.5, r - 0.5, c + 0.5, r + 0.5) for r, c in np.argwhere(frame.state[panel] == state).tolist()]
        parts.append(Part(boxes, partial(_boxes, hv, style)))
    return parts


def _boxes(hv: Any, style: Mapping[str, Any], data: Any) -> Any:
    return hv.Rectangles(data, ["__x0", "__y0", "__x1", "__y1"]).opts(line_alpha=0, backend="bokeh", **style)


def _hatched(pattern: str, colour: str, plot: Any, _: Any) -> None:
    glyph = plot.handles["glyph"]
    glyph.hatch_pattern, glyph.hatch_color, glyph.hatch_scale, glyph.hatch_weight = pattern, colour, 8.0, 1.0


def _hover(frame: Frame) -> Any:
    """Labels of the cell under the pointer, which has only numbers."""
    from bokeh.models import CustomJSHover, HoverTool

    formatters: dict[str, Any] = {}
    for letter, scale in (("x", frame.x), ("y", frame.y)):
        code = f"return labels[Math.round(special_vars.{letter})] ?? ''"
        formatters[f"$__{letter}"] = CustomJSHover(args={"labels": scale.texts}, code=code)
    tips = [(frame.x.name, "$x{custom}"), (frame.y.name, "$y{custom}"), (frame.value_name, "@image")]
    return HoverTool(tooltips=tips, formatters={"$x": formatters["$__x"], "$y": formatters["$__y"]})


def _points(frame: Frame) -> list[Part]:
    import pandas as pd

    assert frame.points is not None
    x, y, values, by = frame.points
    name, value = _columns(frame)
    asked = _common(frame)
    if frame.question.y is not None:
        table = pd.DataFrame({name: x, frame.y.name: y, value: values})
        options = {"cmap": COLOURMAP, "clabel": frame.value_name, "size": 49, "logz": log(frame, "z"), **asked}
        options |= {"clim": colour_range(frame)} if "clim" in asked else {}
        options["color"] = value
        return [Part(table, _hvplot("points", x=name, y=frame.y.name, colorbar=True, **options))]
    parts = []
    palette = colours(frame)
    for place in range(frame.by.labels.size):
        mine = by == place
        label = label_text(frame.by.labels[place]) if frame.question.by is not None else ""
        table = pd.DataFrame({name: x[mine], value: values[mine]})
        options = {"size": 25, "alpha": 0.6, **asked, "color": palette[place % len(palette)], "label": label}
        parts.append(Part(table, _hvplot("scatter", x=name, y=value, group="points", **options)))
    return parts
