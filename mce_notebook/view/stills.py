"""A frame of a plot as a PNG: what a saved notebook shows, and what there is where no JavaScript runs."""

import functools
import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.view.frames import Frame, State
from mce_notebook.view.options import (
    colour_name,
    colour_range,
    colourmap,
    colours,
    limits,
    log,
    ticks,
    title,
    x_name,
    y_name,
)
from mce_notebook.view.palette import COLOURMAP, FAILED, INK, PALE, PENDING, RULE, STALE
from mce_notebook.view.scales import Scale, label_text

# Labels may have signs that Matplotlib's font lacks; the live view shows them. Only warnings about this module.
warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning, r"mce_notebook\.view\.stills$")

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (7.0, 4.0)
DPI = 100
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
    figure = Figure(
        figsize=_size(frame, columns, rows), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    )
    canvas: Any = FigureCanvasAgg(figure)
    if frame.points is not None:
        _points(figure.add_subplot(), frame)
    elif frame.question.kind == "heatmap":
        grid = figure.subplots(rows, columns, squeeze=False)
        _heatmaps(figure, list(grid.ravel()), frame)
    else:
        _curves(figure.add_subplot(), frame)
    head = figure.suptitle(_heading(frame), x=0.01, ha="left", fontsize=9, color=PALE)
    head.set_parse_math(False)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    pixels.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _size(frame: Frame, columns: int, rows: int) -> tuple[float, float]:
    """Inches: ours, or the pixels the caller asks for, where they make a picture."""
    own = (3.6 * columns, 2.9 * rows + 0.5) if columns * rows > 1 else SIZE
    asked = [frame.options.get(f"frame_{name}", frame.options.get(name)) for name in ("width", "height")]
    counts = (columns, rows)
    given = [None if each is None else min(max(float(each), 150), 2000) / DPI for each in asked]
    width, height = (mine if each is None else each * n for mine, each, n in zip(own, given, counts, strict=True))
    return width, height


def _heading(frame: Frame) -> str:
    lines = [title(frame), *textwrap.wrap(frame.subtitle, 110)]
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
    palette, width = colours(frame), 0.8 * float(frame.options.get("line_width", 2))
    for place in range(frame.by.labels.size):
        colour = palette[place % len(palette)]
        mean, low, high, state = (each[place, 0] for each in (frame.mean, frame.low, frame.high, frame.state))
        known = np.isfinite(mean)
        # While it fills, known neighbours are joined; in the end a gap is a gap.
        line = known if frame.running else np.ones(known.size, bool)
        label = drawable(label_text(frame.by.labels[place])) if frame.question.by else None
        axes.plot(x[line], mean[line], color=colour, linewidth=width)
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
    _scaled(axes, "x", frame)
    if _legend(frame):
        legend = axes.legend(
            title=drawable(frame.by.name), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1)
        )
        _plain([legend.get_title(), *legend.get_texts()])
        for handle in legend.legend_handles:
            handle.set_marker("o")  # type: ignore[union-attr]
    if log(frame, "y"):
        axes.set_yscale("log")
    _finish(axes, frame)


def _legend(frame: Frame) -> bool:
    return frame.question.by is not None and frame.options.get("legend", True) is not False


def _heatmaps(figure: "Figure", panels: list["Axes"], frame: Frame) -> None:
    norm = _norm(frame)
    shown = None
    for axes in panels[frame.by.labels.size :]:
        axes.set_visible(False)
    for place, axes in enumerate(panels[: frame.by.labels.size]):
        image = np.ma.masked_invalid(frame.mean[place])
        axes.set_facecolor(PENDING)
        shown = axes.imshow(image, origin="lower", aspect="auto", cmap=_map(frame), norm=norm, interpolation="nearest")
        _hatched(axes, frame.state[place] == State.STALE, STALE, "////")
        _hatched(axes, frame.state[place] == State.FAILED, FAILED, "xxxx")
        _hatched(axes, frame.state[place] == State.NONE, "white", "", filled=True)
        for which, scale in (("x", frame.x), ("y", frame.y)):
            _ticks(axes, which, scale.ticks(8 if frame.by.labels.size == 1 else 5))
        _finish(axes, frame, grid=False)
        if frame.question.by is not None:
            axes.set_title(
                drawable(f"{frame.by.name} = {label_text(frame.by.labels[place])}"),
                fontsize=9,
                color=INK,
                parse_math=False,
            )
    if shown is not None:
        _bar(figure, shown, panels, frame)


def _norm(frame: Frame) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    low, high = colour_range(frame)
    return LogNorm(low, high) if log(frame, "z") and low > 0 else Normalize(low, high)


def _map(frame: Frame) -> Any:
    asked = colourmap(frame)
    if asked == COLOURMAP:
        return asked
    from holoviews.plotting.util import process_cmap
    from matplotlib.colors import ListedColormap

    # Names of Bokeh and colorcet too, as in the live picture.
    return ListedColormap(process_cmap(asked, ncolors=256))


def _bar(figure: Any, shown: Any, axes: Any, frame: Frame) -> None:
    if not frame.options.get("colorbar", True):
        return
    bar = figure.colorbar(shown, ax=axes, pad=0.02)
    bar.set_label(drawable(colour_name(frame)), color=INK, parse_math=False)
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
        shown = axes.scatter(x, y, c=value, cmap=_map(frame), norm=_norm(frame), s=18, linewidths=0)
        _bar(axes.figure, shown, axes, frame)
        _scaled(axes, "y", frame)
    else:
        palette = colours(frame)
        for place in range(frame.by.labels.size):
            mine = by == place
            label = drawable(label_text(frame.by.labels[place])) if frame.question.by else None
            colour = palette[place % len(palette)]
            axes.plot(x[mine], y[mine], "o", color=colour, markersize=3, alpha=0.6, label=label)
        if _legend(frame):
            legend = axes.legend(
                title=drawable(frame.by.name), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1)
            )
            _plain([legend.get_title(), *legend.get_texts()])
        if log(frame, "y"):
            axes.set_yscale("log")
    _scaled(axes, "x", frame)
    _finish(axes, frame)


def _plain(texts: list[Any]) -> None:
    """Labels of users are text, not mathematics."""
    for text in texts:
        text.set_parse_math(False)
        text.set_color(INK)


def _scaled(axes: "Axes", which: str, frame: Frame) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    scale: Scale = frame.x if which == "x" else frame.y
    if log(frame, which):
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


def _finish(axes: "Axes", frame: Frame, *, grid: bool = True) -> None:
    axes.set_xlabel(drawable(x_name(frame)), color=INK, parse_math=False)
    axes.set_ylabel(drawable(y_name(frame)), color=INK, parse_math=False)
    _asked(axes, frame)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.tick_params(colors=PALE, labelsize=8)
    if frame.options.get("grid", grid):
        axes.grid(color=RULE, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)


def _asked(axes: "Axes", frame: Frame) -> None:
    """Apply what the caller wants of the axes."""
    for which, set_limits in (("x", axes.set_xlim), ("y", axes.set_ylim)):
        pair = limits(frame, which)
        if pair is not None:
            set_limits(*pair)
        marks = ticks(frame, which)
        if isinstance(marks, list | tuple) and marks:
            pairs = [each if isinstance(each, tuple) else (each, f"{each}") for each in marks]
            _ticks(axes, which, pairs)
    if frame.options.get("flip_xaxis"):
        axes.invert_xaxis()
    if frame.options.get("flip_yaxis"):
        axes.invert_yaxis()
    if frame.options.get("bgcolor"):
        axes.set_facecolor(frame.options["bgcolor"])
