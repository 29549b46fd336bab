import base64
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mce_notebook as mce
from mce_notebook.declare.grid import Status, grid, zipped
from mce_notebook.errors import ViewError
from mce_notebook.view import heatmap as module
from mce_notebook.view.cells import cells_of
from mce_notebook.view.gathered import EXCLUDED
from mce_notebook.view.heatmap import TELLING, Heatmap, Request
from mce_notebook.view.sides import sides_of


def reference(cells, sides, heatmap, status, at):
    """Cell by cell in plain Python, as LIVE.md tells it."""
    shown = np.full((heatmap.height, heatmap.width), EXCLUDED, np.uint8)
    known, total = np.zeros(shown.shape, int), np.zeros(shown.shape, int)
    dims = dict(zip(cells.dims, np.unravel_index(np.arange(cells.size), cells.shape), strict=True))
    codes = {side.name: dims[side.name] if side.codes is None else side.codes for side in sides}
    bins = heatmap.told(status)["bin"]
    for cell in range(cells.size):
        if status[cell] == EXCLUDED or any(codes[name][cell] != place for name, place in at.items()):
            continue
        column = codes[heatmap.x.name][cell] // bins[0]
        row = 0 if heatmap.y is None else codes[heatmap.y.name][cell] // bins[1]
        total[row, column] += 1
        known[row, column] += status[cell] not in (Status.PENDING, Status.RUNNING)
        before = shown[row, column]
        if before == EXCLUDED or TELLING.index(status[cell]) > TELLING.index(before):
            shown[row, column] = status[cell]
    return shown, known, total


def check(design, x, y, at, seed=0):
    cells = cells_of(design, design.mask())
    sides = sides_of(cells)
    status = np.random.default_rng(seed).integers(0, 8, cells.size).astype(np.uint8)
    if cells.excluded is not None:
        status[cells.excluded] = EXCLUDED
    heatmap = Heatmap(cells, sides, Request.of(x, y, at))
    shown, share = heatmap.paint(status)
    expected, known, total = reference(cells, sides, heatmap, status, heatmap.at)
    assert (shown == expected).all()
    assert ((share == 0) == (known == 0)).all()
    assert ((share == 255) == ((known == total) & (total > 0))).all()
    assert (abs(share.astype(int) - 255 * known / np.maximum(total, 1)) <= 1).all()
    told = heatmap.told(status)
    sent = np.frombuffer(zlib.decompress(base64.b64decode(told["cells"])), np.uint8)
    assert (sent.reshape(told["height"], told["width"], 2) == np.stack([shown, share], -1)).all()


@st.composite
def designs(draw):
    """Cubes, guarded cubes, sums of parts, zips, scattered points."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axes = {name: range(size) for name, size in zip("abcd", sizes, strict=False)}
    design = grid(**axes)
    kind = draw(st.sampled_from(["cube", "guarded", "sum", "zip", "points"]))
    if kind == "guarded":
        return design.where(f"a % {draw(st.integers(2, 3))} == 0")
    if kind == "sum":
        return design + grid(**{name: [10 * len(axes) + size] for name, size in zip(axes, sizes, strict=True)})
    if kind == "zip":
        return design * zipped(u=[3, 1, 2], v=["p", "q", "r"])
    if kind == "points":
        return mce.random_design(draw(st.integers(1, 30)), p=(0, 1), q=(1, 2), seed=1) * design
    return design


@settings(max_examples=150, deadline=None)
@given(designs(), st.data())
def test_the_same_as_cell_by_cell(design, data):
    sides = sides_of(cells_of(design, design.mask()))
    names = [side.name for side in sides]
    x = data.draw(st.sampled_from(names))
    y = data.draw(st.sampled_from([None, *names]))
    largest = data.draw(st.sampled_from([1, 2, 3, 1024]))
    fixed = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
    size = {side.name: side.size for side in sides}
    at = {name: data.draw(st.integers(0, size[name] - 1)) for name in fixed}
    before, module.LARGEST = module.LARGEST, largest
    try:
        check(design, x, y, at, data.draw(st.integers(0, 5)))
    finally:
        module.LARGEST = before


def test_the_two_longest_axes_are_chosen_and_replicates_come_last():
    design = grid(a=range(3), b=range(7), replicate=range(50), c=range(5))
    cells = cells_of(design, None)
    heatmap = Heatmap(cells, sides_of(cells), Request())
    assert (heatmap.x.name, heatmap.y.name) == ("c", "b")
    assert heatmap.told(np.zeros(cells.size, np.uint8))["at"] == {"a": None, "replicate": None}


def test_a_cell_of_the_picture_stands_for_points():
    design = grid(a=range(4), b=range(6)).where("a != 2")
    cells = cells_of(design, design.mask())
    heatmap = Heatmap(cells, sides_of(cells), Request.of("b", None, {}))
    assert heatmap.cells_in(5, 0).tolist() == [5, 11, 23]
    both = Heatmap(cells, sides_of(cells), Request.of("a", "b", {}))
    assert both.cells_in(1, 2).tolist() == [8]
    assert both.cells_in(2, 2).tolist() == []
    with pytest.raises(ViewError, match="4 x 6"):
        both.cells_in(4, 0)


@pytest.mark.parametrize(
    ("x", "y", "at"),
    [("z", None, None), ("a", "z", None), ("a", "b", {"c": 9}), ("a", "b", {"c": -1}), ("a", "b", {"z": 1})],
)
def test_what_there_is_not_is_said(x, y, at):
    cells = cells_of(grid(a=range(2), b=range(2), c=range(2)), None)
    with pytest.raises(ViewError, match=r"axis|position"):
        Heatmap(cells, sides_of(cells), Request.of(x, y, at))


@pytest.mark.parametrize(("x", "at"), [(3, None), (["a"], None), ("a", [1]), ("a", {"b": "1"}), ("a", {"b": True})])
def test_malformed_requests_are_refused(x, at):
    with pytest.raises(ViewError):
        Request.of(x, None, at)


@pytest.mark.parametrize(
    "design",
    [
        grid(a=range(1000), b=range(1000)),
        grid(a=range(100), b=range(100), c=range(100)),
        grid(a=range(1_000_000)),
    ],
)
def test_a_million_points_in_a_few_hundredths_of_a_second(design):
    cells = cells_of(design, None)
    heatmap = Heatmap(cells, sides_of(cells), Request())
    status = np.repeat(np.array([2, 0, 3, 2], np.uint8), 250_000)
    spent = []
    for _ in range(5):
        start = time.thread_time()
        told = heatmap.told(status)
        spent.append(time.thread_time() - start)
    assert told["width"] * told["height"] <= 1024 * 1024
    # Processor time; other work on this machine makes it two or three times what it is on a quiet one.
    assert min(spent) < 0.05
