"""A frame of a plot as a PNG: what a saved notebook shows, and what there is where no JavaScript runs."""

import functools
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.view.frames import Frame, State
from mce_notebook.view.scales import Scale, label_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (7.0, 4.0)
DPI = 100
INK, PALE, RULE = "#263238", "#607d8b", "#cfd8dc"
PENDING, STALE, FAILED = "#e4e7e9", "#b7950b", "#c0392b"
# Paul Tol's bright scheme, distinct for colour-blind readers too, in an order that keeps neighbours apart.
COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#aa3377",
    "#ccbb44",
    "#66ccee",
    "#994455",
    "#117733",
    "#bbbbbb",
    "#332288",
    "#ddcc77",
    "#44aa99",
)
COLOURMAP = "viridis"
# Longer curves go without markers.
MARKED = 40


def png(frame: Frame) -> bytes:
    """Draw a frame with Matplotlib, without pyplot, so that any thread may."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from PIL import Image

    panels = frame.by.labels.size if frame.question.kind == "heatmap" else 1
    columns = min(panels, 3)
    rows = -(-panels // columns)
    size = (SIZE[0] if panels == 1 else 3.6 * columns, SIZE[1] if panels == 1 else 2.9 * rows + 0.5)
    figure = Figure(figsize=size, dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    canvas: Any = FigureCanvasAgg(figure)
    if frame.points is not None:
        _points(figure.add_subplot(), frame)
    elif frame.question.kind == "heatmap":
        grid = figure.subplots(rows, columns, squeeze=False)
        _heatmaps(figure, list(grid.ravel()), frame)
    else:
        _curves(figure.add_subplot(), frame)
    title = figure.suptitle(_heading(frame), x=0.01, ha="left", fontsize=9, color=PALE)
    title.set_parse_math(False)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    pixels.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _heading(frame: Frame) -> str:
    lines = [frame.title, *textwrap.wrap(frame.subtitle, 110)]
    return drawable("\n".join(line for line in lines if line))


def drawable(text: str) -> str:
    """Replace what the font of the picture lacks by boxes, as would be drawn anyway, with a warning each."""
    glyphs = _glyphs()
    return "".join(one if one.isspace() or ord(one) in glyphs else "□" for one in text)


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _curves(axes: "Axes", frame: Frame) -> None:
    x = frame.x.positions
    for place in range(frame.by.labels.size):
        colour = COLOURS[place % len(COLOURS)]
        mean, low, high, state = (each[place, 0] for each in (frame.mean, frame.low, frame.high, frame.state))
        known = np.isfinite(mean)
        # While it fills, known neighbours are joined; in the end a gap is a gap.
        line = known if frame.running else np.ones(known.size, bool)
        label = drawable(label_text(frame.by.labels[place])) if frame.question.by else None
        axes.plot(x[line], mean[line], color=colour, linewidth=1.6)
        banded = known & np.isfinite(low)
        if banded.any():
            axes.fill_between(x[banded], low[banded], high[banded], color=colour, alpha=0.2, linewidth=0)
        partial = known & (state == State.PARTIAL)
        few = known.sum() <= MARKED
        axes.plot(
            x[known & ~partial], mean[known & ~partial], "o" if few else "", color=colour, markersize=4, label=label
        )
        axes.plot(x[partial], mean[partial], "o", color=colour, markersize=4, markerfacecolor="white")
        old = state == State.STALE
        axes.plot(x[old], frame.stale[place, 0][old], "x", color=STALE, markersize=5)
    _scaled(axes, "x", frame.x)
    if frame.question.by is not None:
        legend = axes.legend(
            title=drawable(frame.by.name), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1)
        )
        _plain([legend.get_title(), *legend.get_texts()])
        for handle in legend.legend_handles:
            handle.set_marker("o")  # type: ignore[union-attr]
    if not frame.share and wide(frame.mean):
        axes.set_yscale("log")
    _finish(axes, frame.x.name, frame.value_name)


def wide(values: npt.NDArray[np.float64]) -> bool:
    """Whether values, all above zero, span more than three decades, so that most of them would lie on the axis."""
    known = values[np.isfinite(values)]
    return bool(known.size > 2 and known.min() > 0 and known.max() / known.min() > 1000)


def _heatmaps(figure: "Figure", panels: list["Axes"], frame: Frame) -> None:
    from matplotlib.colors import LogNorm, Normalize

    known = frame.mean[np.isfinite(frame.mean)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    norm = LogNorm(low, high) if not frame.share and wide(frame.mean) else Normalize(low, high)
    shown = None
    for axes in panels[frame.by.labels.size :]:
        axes.set_visible(False)
    for place, axes in enumerate(panels[: frame.by.labels.size]):
        image = np.ma.masked_invalid(frame.mean[place])
        axes.set_facecolor(PENDING)
        shown = axes.imshow(image, origin="lower", aspect="auto", cmap=COLOURMAP, norm=norm, interpolation="nearest")
        _hatched(axes, frame.state[place] == State.STALE, STALE, "////")
        _hatched(axes, frame.state[place] == State.FAILED, FAILED, "xxxx")
        _hatched(axes, frame.state[place] == State.NONE, "white", "", filled=True)
        for which, scale in (("x", frame.x), ("y", frame.y)):
            ticks = scale.ticks(8 if frame.by.labels.size == 1 else 5)
            _ticks(axes, which, ticks)
        _finish(axes, frame.x.name, frame.y.name, grid=False)
        if frame.question.by is not None:
            axes.set_title(
                drawable(f"{frame.by.name} = {label_text(frame.by.labels[place])}"),
                fontsize=9,
                color=INK,
                parse_math=False,
            )
    if shown is not None:
        bar = figure.colorbar(shown, ax=panels, pad=0.02)
        bar.set_label(drawable(frame.value_name), color=INK, parse_math=False)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=PALE, labelsize=8)


def _hatched(axes: "Axes", cells: npt.NDArray[np.bool_], colour: str, hatch: str, *, filled: bool = False) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in np.argwhere(cells)]
    if boxes:
        face = colour if filled else PENDING
        axes.add_collection(PatchCollection(boxes, facecolor=face, edgecolor=colour, hatch=hatch, linewidth=0))


def _points(axes: "Axes", frame: Frame) -> None:
    assert frame.points is not None
    x, y, value, by = frame.points
    if frame.question.y is not None:
        shown = axes.scatter(x, y, c=value, cmap=COLOURMAP, s=18, linewidths=0)
        bar = axes.figure.colorbar(shown, ax=axes, pad=0.02)
        bar.set_label(drawable(frame.value_name), color=INK, parse_math=False)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=PALE, labelsize=8)
        _scaled(axes, "y", frame.y)
    else:
        for place in range(frame.by.labels.size):
            mine = by == place
            label = drawable(label_text(frame.by.labels[place])) if frame.question.by else None
            axes.plot(x[mine], y[mine], "o", color=COLOURS[place % len(COLOURS)], markersize=3, alpha=0.6, label=label)
        if frame.question.by is not None:
            legend = axes.legend(
                title=drawable(frame.by.name), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1)
            )
            _plain([legend.get_title(), *legend.get_texts()])
        if not frame.share and wide(value):
            axes.set_yscale("log")
    _scaled(axes, "x", frame.x)
    _finish(axes, frame.x.name, frame.y.name if frame.question.y is not None else frame.value_name)


def _plain(texts: list[Any]) -> None:
    """Labels of users are text, not mathematics."""
    for text in texts:
        text.set_parse_math(False)
        text.set_color(INK)


def _scaled(axes: "Axes", which: str, scale: Scale) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    if scale.log:
        axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
    if scale.kind == "time":
        from matplotlib import dates

        made: Any = dates
        locator = made.AutoDateLocator(maxticks=8)
        axis.set_major_locator(locator)
        axis.set_major_formatter(made.ConciseDateFormatter(locator))
    elif scale.marks is not None:
        from matplotlib.ticker import NullLocator

        axis.set_minor_locator(NullLocator())
        _ticks(axes, which, scale.marks)


def _ticks(axes: "Axes", which: str, ticks: Sequence[tuple[float, str]]) -> None:
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks([place for place, _ in ticks], [drawable(text) for _, text in ticks], parse_math=False)


def _finish(axes: "Axes", x: str, y: str, *, grid: bool = True) -> None:
    axes.set_xlabel(drawable(x), color=INK, parse_math=False)
    axes.set_ylabel(drawable(y), color=INK, parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.tick_params(colors=PALE, labelsize=8)
    if grid:
        axes.grid(color=RULE, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)
