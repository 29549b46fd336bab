"""A still picture of a sweep for places where nothing is live: GitHub, nbviewer, exported pages, e-mail.

One axis: a curve, the mean with a 95 % band over replicates. Two or more: a heatmap over the two longest axes, the
others averaged. No number to draw: the status of every point. Drawn with Matplotlib's Agg canvas on a Figure of its
own, never through pyplot: no global state is touched, and any thread may draw.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.view.palette import INK, PALE, RULE, STATUS

# Labels may have signs that Matplotlib's font lacks; the live view shows them. Only warnings about this module.
warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning, r"mce_notebook\.view\.picture$")

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from mce_notebook.view.cells import Booleans
    from mce_notebook.view.progress import Progress

SIZE = (6.4, 3.4)
DPI = 100
# A picture is at most this many cells wide or high: more could not be seen, and would not stay small.
CELLS = 256
BYTES = 60_000
REPLICATES = frozenset({"replicate", "rep", "reps", "replicates", "trial", "repeat", "seed"})

LINE = "#1f6f8b"


@dataclass(frozen=True)
class Subject:
    """What is drawn: values over one or two dimensions, with what varies besides averaged.

    Parameters
    ----------
    name : str
    dims : tuple of str
        x, or y and x.
    labels : sequence of arrays
        Along `dims`.
    mean : array over `dims`
    spread : array over `dims` or None
        Half width of the 95 % band of the mean.
    averaged : tuple of str
    """

    name: str
    dims: tuple[str, ...]
    labels: tuple[npt.NDArray[Any], ...]
    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64] | None
    averaged: tuple[str, ...]


def png(dataset: "xr.Dataset", progress: "Progress", value: str | None = None) -> bytes:
    """Draw a dataset.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `Snapshot.dataset` gives it.
    progress : Progress
        Said above the picture.
    value : str, optional
        The output to draw, where it holds single numbers; the first one that does otherwise.
    """
    about = subject(dataset, value)
    image = b""
    for cells in (CELLS, CELLS // 2, CELLS // 4):
        # Noise does not compress: draw it coarser rather than make every saved notebook heavy.
        image = _drawn(dataset, progress, about, cells)
        if len(image) <= BYTES:
            break
    return image


def _drawn(dataset: "xr.Dataset", progress: "Progress", about: Subject | None, cells: int) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from PIL import Image

    # Titles find their place only while drawing, after the layout: without the padding (inches) their top is cut.
    figure = Figure(figsize=SIZE, dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.12))
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if about is None:
        _draw_status(axes, dataset, cells)
    elif len(about.dims) == 1:
        _draw_curve(axes, about)
    else:
        _draw_heatmap(axes, about, cells)
    _title(axes, progress, about)
    canvas.draw()
    # 256 colours cannot be told from all of them here, and make the file a third as large.
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    few = pixels.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def subject(dataset: "xr.Dataset", value: str | None = None) -> Subject | None:
    """Choose what to draw; None when no output holds a number that is known."""
    dims = tuple(map(str, dataset["status"].dims))
    names = sorted((name for name in dataset.data_vars if name != "status"), key=lambda name: name != value)
    for name in names:
        variable = dataset[name]
        if tuple(variable.dims) == dims and variable.dtype.kind == "f" and bool(np.isfinite(variable.values).any()):
            break
    else:
        return None
    # Not `isin`, which loads Dask: two threads that do so at the same time get in each other's way.
    known = dataset["status"].values == int(Status.DONE)
    values = np.where(known & np.isfinite(variable.values), variable.values, np.nan)
    if dims == ("point",):
        return _scattered(dataset, str(name), values)
    return _averaged(dataset, str(name), values, _chosen(dataset, dims))


def _chosen(dataset: "xr.Dataset", dims: Sequence[str]) -> tuple[str, ...]:
    """Choose the dimensions drawn: the two longest ones that are no replicates, in their own order."""
    real = [dim for dim in dims if dim not in REPLICATES and dataset.sizes[dim] > 1] or list(dims[:1])
    longest = sorted(real, key=lambda dim: -dataset.sizes[dim])[:2]
    return tuple(dim for dim in dims if dim in longest)


def _averaged(dataset: "xr.Dataset", name: str, values: npt.NDArray[Any], chosen: tuple[str, ...]) -> Subject:
    dims = [str(dim) for dim in dataset["status"].dims]
    rest = tuple(axis for axis, dim in enumerate(dims) if dim not in chosen)
    count = np.isfinite(values).sum(axis=rest)
    total = np.nansum(values, axis=rest)
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    spread = None
    if rest and len(chosen) == 1:
        shaped = mean.reshape([size if axis not in rest else 1 for axis, size in enumerate(values.shape)])
        squares = np.nansum((values - shaped) ** 2, axis=rest)
        spread = np.full(total.shape, np.nan)
        np.divide(1.96 * np.sqrt(squares), np.sqrt(np.maximum(count - 1, 1) * count), out=spread, where=count > 1)
    averaged = tuple(dims[axis] for axis in rest if values.shape[axis] > 1)
    return Subject(name, chosen, tuple(_labels(dataset, dim) for dim in chosen), mean, spread, averaged)


def _scattered(dataset: "xr.Dataset", name: str, values: npt.NDArray[Any]) -> Subject:
    """Points of no cube, over the one or two coordinates with most distinct values, binned."""
    columns = {str(key): np.asarray(item.values) for key, item in dataset.coords.items() if item.dims == ("point",)}
    distinct = {key: np.unique(column, return_inverse=True) for key, column in columns.items() if key not in REPLICATES}
    best = sorted(distinct, key=lambda key: -len(distinct[key][0]))[:2]
    chosen = [key for key in columns if key in best]
    if len(chosen) > 1 and values.size < 4 * len(distinct[chosen[0]][0]) * len(distinct[chosen[1]][0]):
        binned = {key: _bins(*distinct[key], most=max(4, int(values.size**0.5 / 2))) for key in chosen}
    else:
        binned = {key: _bins(*distinct[key], most=CELLS) for key in chosen}
    shape = tuple(len(binned[key][0]) for key in chosen)
    known = np.isfinite(values)
    cells = np.ravel_multi_index(tuple(binned[key][1][known] for key in chosen), shape)
    count = np.bincount(cells, minlength=int(np.prod(shape)))
    total = np.bincount(cells, values[known], minlength=int(np.prod(shape)))
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    averaged = tuple(key for key in columns if key not in chosen)
    return Subject(name, tuple(chosen), tuple(binned[key][0] for key in chosen), mean.reshape(shape), None, averaged)


def _bins(labels: npt.NDArray[Any], codes: npt.NDArray[Any], most: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if len(labels) <= most:
        return labels, codes
    if labels.dtype.kind in "iuf":
        edges = np.linspace(float(labels[0]), float(labels[-1]), most + 1)
        place = np.clip(np.searchsorted(edges, labels, side="right") - 1, 0, most - 1)
        return (edges[:-1] + edges[1:]) / 2, place[codes]
    return labels[:: -(-len(labels) // most)], codes // -(-len(labels) // most)


def _labels(dataset: "xr.Dataset", dim: str) -> npt.NDArray[Any]:
    return np.asarray(dataset[dim].values)


def _draw_curve(axes: "Axes", about: Subject) -> None:
    labels, mean = about.labels[0], about.mean
    if labels.dtype.kind in "iufM":
        order = np.argsort(labels, kind="stable")
        x: npt.NDArray[Any] = labels[order]
        mean = mean[order]
        spread = None if about.spread is None else about.spread[order]
        if _logarithmic(labels):
            axes.set_xscale("log")
    else:
        x, spread = np.arange(labels.size), about.spread
        _named_ticks(axes, "x", labels)
    few = np.isfinite(mean).sum() <= 60
    axes.plot(x, mean, color=LINE, linewidth=1.6, marker="o" if few else None, markersize=3.5)
    if spread is not None and np.isfinite(spread).any():
        axes.fill_between(x, mean - spread, mean + spread, color=LINE, alpha=0.2, linewidth=0)
    axes.margins(x=0.02)
    _axis_names(axes, about.dims[0], about.name)
    _frame(axes)


def _draw_heatmap(axes: "Axes", about: Subject, most: int) -> None:
    rows, columns = (_order(labels) for labels in about.labels)
    image = _shrunk(about.mean[np.ix_(rows, columns)], most)
    shown = axes.imshow(
        np.ma.masked_invalid(image), origin="lower", aspect="auto", cmap="viridis", interpolation="nearest"
    )
    axes.set_facecolor(STATUS[Status.PENDING])
    for which, labels, size in (
        ("y", about.labels[0][rows], image.shape[0]),
        ("x", about.labels[1][columns], image.shape[1]),
    ):
        _named_ticks(axes, which, labels, size)
    bar = axes.figure.colorbar(shown, ax=axes, pad=0.02)
    bar.set_label(about.name, color=INK, parse_math=False)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=PALE, labelsize=8)
    _axis_names(axes, about.dims[1], about.dims[0])
    _frame(axes)


def _draw_status(axes: "Axes", dataset: "xr.Dataset", most: int) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    status = dataset["status"]
    dims = [str(dim) for dim in status.dims]
    codes = np.asarray(status.values).astype(np.int16)
    codes[codes >= len(Status)] = -1
    order = sorted(range(codes.ndim), key=lambda axis: -codes.shape[axis])
    kept = sorted(order[:2])
    # What went wrong must not hide behind what went well: where cells share a pixel the highest code is shown.
    rest = tuple(axis for axis in range(codes.ndim) if axis not in kept)
    flat = codes.max(axis=rest) if rest else codes
    image = _highest(flat if flat.ndim > 1 else _wrapped(flat), most)
    colours = ["#ffffff", *(STATUS[each] for each in Status)]
    colormap = ListedColormap(colours)
    axes.imshow(image + 1, origin="lower", aspect="auto", cmap=colormap, vmin=-0.5, vmax=len(colours) - 0.5)
    present = [each for each in Status if (flat == each).any()]
    handles = [Patch(color=STATUS[each], label=each.name.lower()) for each in present]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)
    if flat.ndim > 1:
        for which, axis, size in (("y", kept[0], image.shape[0]), ("x", kept[1], image.shape[1])):
            if dims[axis] in dataset.coords:
                _named_ticks(axes, which, _labels(dataset, dims[axis]), size)
        _axis_names(axes, dims[kept[1]], dims[kept[0]])
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        _axis_names(axes, dims[kept[0]] if kept else "", "")
    _frame(axes)


def _wrapped(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Show a long line of cells as a block, row by row."""
    width = max(1, min(flat.size, round((flat.size * 3) ** 0.5)))
    rows = max(1, -(-flat.size // width))
    out = np.full(rows * width, -1, flat.dtype)
    out[: flat.size] = flat.ravel()
    return out.reshape(rows, width)


def _highest(image: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    for axis in (0, 1):
        starts = np.arange(0, image.shape[axis], -(-image.shape[axis] // most))
        image = np.maximum.reduceat(image, starts, axis=axis)
    return image


def _shrunk(image: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Average neighbours until no side is longer than `most`."""
    for axis in (0, 1):
        factor = -(-image.shape[axis] // most)
        if factor > 1:
            groups = np.arange(image.shape[axis]) // factor
            known: Booleans = np.isfinite(image)
            starts = np.flatnonzero(np.diff(groups, prepend=-1))
            total = np.add.reduceat(np.where(known, image, 0), starts, axis=axis)
            count = np.add.reduceat(known.astype(float), starts, axis=axis)
            image = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return image


def _order(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.argsort(labels, kind="stable") if labels.dtype.kind in "iufM" else np.arange(labels.size)


def _logarithmic(labels: npt.NDArray[Any]) -> bool:
    if labels.dtype.kind not in "iuf" or labels.size < 4 or not (labels > 0).all():
        return False
    ordered = np.sort(labels.astype(float))
    steps, ratios = np.diff(ordered), np.diff(np.log(ordered))
    return bool(ordered[-1] / ordered[0] >= 10 and np.ptp(ratios) / ratios.mean() < np.ptp(steps) / steps.mean())


def _named_ticks(axes: "Axes", which: str, labels: npt.NDArray[Any], size: int | None = None) -> None:
    """Ticks at some of the cells, with the labels they stand for."""
    from matplotlib.ticker import MaxNLocator

    cells = labels.size if size is None else size
    locator = MaxNLocator(7 if which == "x" else 6, steps=[1, 2, 4, 5, 10], integer=True)
    marks = np.asarray(locator.tick_values(0, labels.size - 1)).round().astype(int)
    chosen = np.unique(marks[(marks >= 0) & (marks < labels.size)])
    texts = [_text(labels[place]) for place in chosen]
    places = chosen * (cells / labels.size)
    ticks = axes.set_xticks if which == "x" else axes.set_yticks
    ticks(places, texts, parse_math=False)


def _text(label: Any) -> str:
    if isinstance(label, (float, np.floating)):
        return f"{label:.4g}"
    text = str(label)
    return text if len(text) <= 14 else text[:13] + "…"


def _axis_names(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, color=INK, parse_math=False)
    axes.set_ylabel(y, color=INK, parse_math=False)


def _frame(axes: "Axes") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.tick_params(colors=PALE, labelsize=8)


def _title(axes: "Axes", progress: "Progress", about: Subject | None) -> None:
    share = progress.extent if progress.pending or progress.guard else f"{progress.total:,} points"
    parts = [share]
    bad = progress.failed + progress.killed + progress.timeout
    if bad:
        parts.append(f"{bad:,} failed")
    if progress.state not in ("running", "done"):
        parts.append(progress.state)
    axes.set_title(progress.name, loc="left", color=INK, fontsize=11, fontweight="bold", parse_math=False)
    axes.set_title(" · ".join(parts), loc="right", color=PALE, fontsize=8, parse_math=False)
    if about is not None and about.averaged:
        over = ", ".join(about.averaged)
        note = f"mean over {over}" if len(over) < 60 else f"mean over {len(about.averaged)} other axes"
        axes.annotate(
            note,
            (1, 0),
            (0, -26),
            "axes fraction",
            "offset points",
            ha="right",
            va="top",
            fontsize=7,
            color=PALE,
            parse_math=False,
        )
