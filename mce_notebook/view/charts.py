"""A frame of a plot as HoloViews elements, and the picture of a stream of frames."""

import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mce_notebook.view.frames import Frame, State
from mce_notebook.view.scales import Scale, label_text
from mce_notebook.view.stills import COLOURMAP, COLOURS, FAILED, INK, MARKED, PALE, PENDING, RULE, STALE, wide

WIDTH, HEIGHT = 640, 360
PANEL, BAR = 270, 80


def holoviews() -> Any:
    """Return the module, with Bokeh as the place where things are drawn."""
    import holoviews as hv
    import holoviews.plotting.bokeh  # registers the backend

    if not hv.Store.current_backend or hv.Store.current_backend == "matplotlib":
        hv.Store.set_current_backend("bokeh")
    return hv


def chart(frame: Frame, panel: int = 0) -> Any:
    """Draw a frame, or one panel of it, as an overlay whose parts are the same for all frames of a plot.

    Returns
    -------
    holoviews.Overlay
    """
    hv = holoviews()
    if frame.points is not None:
        parts = _points(hv, frame)
    elif frame.question.kind == "heatmap":
        parts = _heatmap(hv, frame, panel)
    else:
        parts = _curves(hv, frame)
    return hv.Overlay(parts).opts(**_frame_options(frame, panel), backend="bokeh")


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
        def callback(*chosen: Any, **stream: Any) -> Any:
            at = {name: _taken(selectors[name], label) for name, label in zip(names, chosen, strict=True)}
            return chart(draw(stream["data"], at), panel)

        return hv.DynamicMap(callback, kdims=dimensions, streams=[pipe])

    maps = [one(panel) for panel in range(panels(first))]
    return maps[0] if len(maps) == 1 else hv.Layout(maps).cols(3)


def _offered(labels: list[Any]) -> list[Any]:
    """Return labels as selectors take them: numbers on a slider, anything else by name."""
    numbers = all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels)
    return labels if numbers else [str(label) for label in labels]


def _taken(labels: list[Any], chosen: Any) -> Any:
    return next((label for label in labels if label == chosen or str(label) == str(chosen)), labels[0])


def _frame_options(frame: Frame, panel: int) -> dict[str, Any]:
    heat = frame.question.kind == "heatmap"
    many = panels(frame) > 1
    title = f"{frame.by.name} = {label_text(frame.by.labels[panel])}" if many else frame.title
    if not many or panel == 0:
        above = (frame.title, frame.subtitle, title) if many else (title, *textwrap.wrap(frame.subtitle, 100))
        title = "\n".join(part for part in above if part)
    found: dict[str, Any] = {
        "title": title,
        "width": PANEL + BAR * (panel == panels(frame) - 1) if many else WIDTH,
        "height": HEIGHT - 60 if many else HEIGHT,
        "xlabel": frame.x.name,
        "ylabel": frame.y.name if frame.question.y is not None else frame.value_name,
        "framewise": True,
        "toolbar": "right",
        "default_tools": ["pan", "wheel_zoom", "box_zoom", "reset", "save"],
        "active_tools": [],
        "show_grid": not heat,
        "fontsize": {"title": 9, "labels": 10, "ticks": 8, "legend": 9, "legend_title": 9},
        "hooks": [_styled],
        "shared_axes": False,
    }
    if heat:
        found |= {"xticks": frame.x.ticks(4 if many else 8), "yticks": frame.y.ticks(6)}
        return found
    found |= {"logx": frame.x.log, "legend_position": "right", "show_legend": frame.question.by is not None}
    if frame.x.marks is not None:
        found["xticks"] = frame.x.marks
    if frame.question.y is None:
        values = frame.points[2] if frame.points is not None else frame.mean
        found["logy"] = not frame.share and wide(values)
    elif frame.y.marks is not None:
        found["yticks"] = frame.y.marks
        found["logy"] = frame.y.log
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


def _curves(hv: Any, frame: Frame) -> list[Any]:
    parts: list[Any] = []
    x = frame.x.positions
    name, value = frame.x.name or "x", f"{frame.value_name} "
    for place in range(frame.by.labels.size):
        colour = COLOURS[place % len(COLOURS)]
        label = label_text(frame.by.labels[place]) if frame.question.by is not None else ""
        mean, low, high, state = (each[place, 0] for each in (frame.mean, frame.low, frame.high, frame.state))
        known = np.isfinite(mean)
        line = known if frame.running else np.ones(known.size, bool)
        banded = known & np.isfinite(low)
        partial = known & (state == State.PARTIAL)
        whole = known & ~partial if known.sum() <= MARKED else np.zeros(known.size, bool)
        old = state == State.STALE
        area = hv.Area((x[banded], low[banded], high[banded]), name, ["low ", "high "])
        parts += [
            area.opts(color=colour, alpha=0.2, line_alpha=0, backend="bokeh"),
            hv.Curve((x[line], mean[line]), name, value, label=label).opts(color=colour, line_width=2, backend="bokeh"),
            _dots(hv, (x[whole], mean[whole]), name, value, color=colour, size=6, tools=["hover"]),
            _dots(
                hv, (x[partial], mean[partial]), name, value, color="white", line_color=colour, size=6, tools=["hover"]
            ),
            _dots(hv, (x[old], frame.stale[place, 0][old]), name, value, marker="x", color=STALE, size=8),
        ]
    return parts


def _dots(hv: Any, data: Any, x: str, value: str, **options: Any) -> Any:
    return hv.Scatter(data, x, value).opts(backend="bokeh", show_legend=False, **options)


def _heatmap(hv: Any, frame: Frame, panel: int) -> list[Any]:
    known = frame.mean[np.isfinite(frame.mean)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    rows, columns = frame.mean.shape[1:]
    x, y = frame.x.name or "x", frame.y.name or "y"
    image = hv.Image(
        np.flipud(frame.mean[panel]).astype(np.float32),
        bounds=(-0.5, -0.5, columns - 0.5, rows - 0.5),
        kdims=[hv.Dimension("__x", label=x), hv.Dimension("__y", label=y)],
        vdims=[hv.Dimension("__value", label=frame.value_name, range=(low, high))],
    ).opts(
        cmap=COLOURMAP,
        colorbar=panel == panels(frame) - 1,
        clim=(low, high),
        bgcolor=PENDING,
        clabel=frame.value_name,
        logz=not frame.share and wide(frame.mean),
        tools=[_hover(frame)],
        backend="bokeh",
    )
    parts = [image]
    for state, options in (
        (State.STALE, {"color": PENDING, "hooks": [partial(_hatched, "/", STALE)]}),
        (State.FAILED, {"color": PENDING, "hooks": [partial(_hatched, "x", FAILED)]}),
        (State.NONE, {"color": "white"}),
    ):
        boxes = [(c - 0.5, r - 0.5, c + 0.5, r + 0.5) for r, c in np.argwhere(frame.state[panel] == state).tolist()]
        parts.append(
            hv.Rectangles(boxes, ["__x0", "__y0", "__x1", "__y1"]).opts(line_alpha=0, backend="bokeh", **options)
        )
    return parts


def _hatched(pattern: str, colour: str, plot: Any, _: Any) -> None:
    glyph = plot.handles["glyph"]
    glyph.hatch_pattern, glyph.hatch_color, glyph.hatch_scale, glyph.hatch_weight = pattern, colour, 8.0, 1.0


def _hover(frame: Frame) -> Any:
    """Labels of the cell under the pointer, which has only numbers."""
    from bokeh.models import CustomJSHover, HoverTool

    formatters: dict[str, Any] = {}
    for letter, scale in (("x", frame.x), ("y", frame.y)):
        code = f"return labels[Math.round(special_vars.{letter})] ?? ''"
        formatters[f"$__{letter}"] = CustomJSHover(args={"labels": _texts(scale)}, code=code)
    tips = [(frame.x.name, "$x{custom}"), (frame.y.name, "$y{custom}"), (frame.value_name, "@image")]
    return HoverTool(tooltips=tips, formatters={"$x": formatters["$__x"], "$y": formatters["$__y"]})


def _texts(scale: Scale) -> list[str]:
    return scale.texts


def _points(hv: Any, frame: Frame) -> list[Any]:
    assert frame.points is not None
    x, y, value, by = frame.points
    if frame.question.y is not None:
        names = [frame.x.name, frame.y.name]
        coloured = hv.Points((x, y, value), names, f"{frame.value_name} ")
        return [
            coloured.opts(
                color=f"{frame.value_name} ",
                cmap=COLOURMAP,
                colorbar=True,
                clabel=frame.value_name,
                size=7,
                tools=["hover"],
                backend="bokeh",
            )
        ]
    parts = []
    for place in range(frame.by.labels.size):
        mine = by == place
        label = label_text(frame.by.labels[place]) if frame.question.by is not None else ""
        scatter = hv.Scatter((x[mine], value[mine]), frame.x.name, f"{frame.value_name} ", label=label)
        parts.append(
            scatter.opts(color=COLOURS[place % len(COLOURS)], size=5, alpha=0.6, tools=["hover"], backend="bokeh")
        )
    return parts
