import base64
import json
import re
import struct
import threading
import zlib
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

import mce_notebook as mce
from mce_notebook.declare.grid import Status, grid
from mce_notebook.errors import ViewError
from mce_notebook.view import embedding
from mce_notebook.view.charts import WIDTH, Artist, chart, holoviews
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.frames import State, frame, labels_of
from mce_notebook.view.plots import DatasetSource, Plot, SweepSource, _replace_earlier, _Screen
from mce_notebook.view.questions import ask
from mce_notebook.view.scales import Scale, label_text, logarithmic
from mce_notebook.view.stills import png

PNG = b"\x89PNG\r\n\x1a\n"


def filled(lab, design, value, *, upto=None, names=("mse",), failures=None, **fields):
    """Declare a grid and record what `value` gives at its points, the first `upto` of them."""
    lab.declare(design, outputs=names, **fields)
    mask = design.mask()
    listed = (np.arange(design.size) if mask is None else np.flatnonzero(mask))[:upto]
    values = [value(**design.point(int(index))) for index in listed]
    lab.record(values, listed, names=names, failures=failures)
    return Snapshot(lab.sweep).dataset()


def drawn(dataset, **request):
    return frame(dataset, ask(dataset, **request))


# What is drawn when nobody says


def test_one_axis_is_a_curve_of_means_with_an_interval(lab):
    dataset = filled(lab, grid(n=[40, 10, 20], replicates=4), lambda n, replicate: n + [-1, 0, 0, 1][replicate])
    found = drawn(dataset)
    assert (found.question.kind, found.question.x, found.question.over) == ("curve", "n", ("replicate",))
    assert found.x.labels.tolist() == [10, 20, 40], "numbers in order, whatever the list's"
    assert found.mean[0, 0].tolist() == [10, 20, 40]
    # t(3) at 0.975 is 3.182446; s is sqrt(2/3).
    assert (found.high - found.mean)[0, 0] == pytest.approx(3.182446 * np.sqrt(2 / 3) / 2)
    assert "95 % t interval" in found.subtitle


def test_two_axes_are_a_heatmap_and_more_get_selectors(lab):
    design = grid(k=[1, 2], y=[1, 2, 3], x=[1, 2, 3, 4])
    dataset = filled(lab, design, lambda k, x, y: 100 * k + 10 * y + x)
    question = ask(dataset)
    assert (question.kind, question.y, question.x, question.selectors) == ("heatmap", "y", "x", ("k",))
    assert labels_of(dataset, question, "k") == [1, 2]
    first, second = frame(dataset, question), frame(dataset, question, {"k": 2})
    assert first.mean[0].tolist() == [[111, 112, 113, 114], [121, 122, 123, 124], [131, 132, 133, 134]]
    assert (second.mean - first.mean == 100).all()
    assert "k = 2" in second.title


def test_a_category_beside_an_axis_makes_curves(lab):
    dataset = filled(lab, grid(method=["b", "a"], n=[1, 2, 3]), lambda method, n: n + (method == "a") * 10.0)
    found = drawn(dataset)
    assert (found.question.kind, found.question.by) == ("curve", "method")
    assert found.by.labels.tolist() == ["b", "a"], "categories as listed"
    assert found.mean[:, 0].tolist() == [[1, 2, 3], [11, 12, 13]]


def test_arrays_are_drawn_over_their_own_dimension(lab):
    dataset = filled(
        lab, grid(n=[1, 2], replicates=3), lambda n, replicate: n * np.arange(5.0), dims={"mse": ("step",)}
    )
    found = drawn(dataset, by="n")
    assert found.x.name == "step"
    assert found.mean[:, 0].tolist() == [[0, 1, 2, 3, 4], [0, 2, 4, 6, 8]]
    pictures = filled_again(lab)
    assert drawn(pictures).mean[0].shape == (2, 3)


def filled_again(lab):
    from mce_notebook.store.catalog import Store

    sweep = Store(lab.sweep.paths.folder.parent).create("images", 1)
    other = type(lab)(sweep)
    try:
        return filled(other, grid(n=[1, 2]), lambda n: np.ones((2, 3)) * n)
    finally:
        other.close()


def test_bools_are_shares_and_text_is_counted(lab):
    dataset = filled(lab, grid(n=[1, 2], replicates=4), lambda n, replicate: replicate < n)
    found = drawn(dataset)
    assert found.share
    assert found.value_name == "share of mse"
    assert found.mean[0, 0].tolist() == [0.25, 0.5]
    assert found.low.min() >= 0


def test_text_gives_one_curve_per_answer(lab):
    dataset = filled(lab, grid(n=[1, 2], replicates=4), lambda n, replicate: "yes" if replicate < n else "<no>")
    found = drawn(dataset)
    assert found.by.labels.tolist() == ["<no>", "yes"]
    assert found.mean[:, 0].tolist() == [[0.75, 0.5], [0.25, 0.5]]


@pytest.mark.parametrize(("value", "expected"), [("mse", 5.0), ("mse.real", 3.0), ("mse.imag", 4.0)])
def test_complex_outputs_by_part(lab, value, expected):
    dataset = filled(lab, grid(n=[1, 2]), lambda n: 3 + 4j)
    assert drawn(dataset, value=value).mean[0, 0].tolist() == [expected, expected]


def test_designs_are_points_coloured_by_value(lab):
    design = mce.latin_hypercube(40, a=(0.0, 1.0), b=(0.0, 5.0), seed=1)
    dataset = filled(lab, design, lambda a, b: a + b)
    found = drawn(dataset)
    assert found.question.kind == "points"
    x, y, value, _ = found.points
    assert value == pytest.approx(x + y)
    assert png(found).startswith(PNG)


def test_ragged_grids_are_drawn_too(lab):
    design = grid(n=list(range(30)), k=list(range(30))).where("n == k")
    found = drawn(filled(lab, design, lambda n, k: float(n)), x="n", kind="curve", over="k")
    assert found.mean[0, 0].tolist() == list(range(30))


def test_scales_are_guessed_from_the_labels():
    assert logarithmic(np.logspace(-3, 0, 7))
    assert logarithmic(np.array([10, 20, 40, 80, 160]))
    assert not logarithmic(np.linspace(0.1, 10, 7))
    assert not logarithmic(np.array([1, 2, 4]))
    assert not logarithmic(np.array([-1.0, 10, 100]))
    assert Scale("n", np.array([1, 2, 3])).marks == [(1.0, "1"), (2.0, "2"), (3.0, "3")]
    assert len(Scale("n", np.arange(1000)).ticks()) <= 8


# What is not known


def test_incomplete_places_are_left_out_unless_told(lab):
    dataset = filled(lab, grid(n=[1, 2], replicates=4), lambda n, replicate: float(n), upto=6)
    question = ask(dataset)
    refused = frame(dataset, question)
    assert refused.state[0, 0].tolist() == [State.WHOLE, State.PARTIAL]
    assert np.isnan(refused.mean[0, 0, 1])
    assert "1 incomplete left out" in refused.subtitle
    assert frame(dataset, question, incomplete=True).mean[0, 0].tolist() == [1, 2]
    running = frame(dataset, question, running=True)
    assert running.mean[0, 0].tolist() == [1, 2]
    assert "6 of 8 points" in running.subtitle
    assert "1 incomplete" in running.subtitle


def test_failed_and_stale_places_are_told_apart(lab, failure):
    lab.declare(grid(x=[1, 2, 3], y=[1, 2]))
    lab.record([1.0], (0, 1), version="v0")
    lab.record([2.0, None], (1, 3), failures={1: failure(Status.FAILED)})
    found = drawn(Snapshot(lab.sweep).dataset(), x="y", y="x")
    assert found.state[0].tolist() == [[State.STALE, State.WHOLE], [State.FAILED, State.PENDING], [State.PENDING] * 2]
    assert np.isnan(found.mean[0, 0, 0]), "what older code gave is not mixed in"
    assert "3 of 6 points; 1 stale; 1 failed" in found.subtitle
    shown = chart(found)
    assert len(shown.Rectangles.I.data) + len(shown.Rectangles.II.data) == 2
    assert png(found).startswith(PNG)


def test_nothing_known_is_an_empty_picture(lab):
    lab.declare(grid(n=[1, 2], k=[1, 2]))
    found = drawn(Snapshot(lab.sweep).dataset())
    assert not np.isfinite(found.mean).any()
    assert png(found).startswith(PNG)
    # Rendering computes ranges, which warns where everything is NaN; warnings are errors here.
    holoviews().renderer("bokeh").get_plot(chart(found))


# Names


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"value": "msee"}, r"no output `msee`; did you mean `mse`\? Outputs are `mse`"),
        ({"x": "nn"}, r"x=`nn` is no axis; did you mean `n`\? Axes are `n`, `delta`"),
        ({"kind": "heatmp"}, r"no kind of plot `heatmp`; did you mean `heatmap`"),
        ({"fixed": {"vlaue": 1}}, r"`vlaue` is neither an argument of `plot` nor an axis; did you mean `value`"),
        ({"fixed": {"n": 7}}, r"`n` has no label 7; it has `1` and `2`"),
        ({"x": "n", "by": "n"}, "`n` is asked for twice"),
        ({"value": "mse.real"}, r"no part of `mse`"),
        ({"kind": "heatmap", "fixed": {"n": 1, "delta": 0.5}}, "A heatmap needs two axes"),
    ],
)
def test_wrong_names_get_one_sentence(lab, request_, sentence):
    dataset = filled(lab, grid(n=[1, 2], delta=[0.5, 0.6], replicates=2), lambda n, delta, replicate: 1.0)
    with pytest.raises(ViewError, match=sentence):
        ask(dataset, **request_)


def test_y_may_name_the_output(lab):
    dataset = filled(lab, grid(n=[1, 2], k=[1, 2]), lambda n, k: 1.0)
    question = ask(dataset, x="n", y="mse")
    assert (question.value, question.y, question.kind) == ("mse", None, "curve")


# Pictures


def test_charts_are_holoviews_elements(lab):
    dataset = filled(
        lab, grid(method=["a", "b"], n=[1, 10, 100], replicates=3), lambda method, n, replicate: n + replicate
    )
    overlay = chart(drawn(dataset))
    assert [type(one).__name__ for one in overlay].count("Curve") == 2
    curve = overlay.Curve.A
    assert curve.dimension_values(0).tolist() == [1, 10, 100]
    assert curve.dimension_values(1).tolist() == [2, 11, 101]
    options = overlay.opts.get("plot").kwargs
    assert options["logx"]
    assert options["width"] == WIDTH


@pytest.mark.parametrize("label", ["$x^", "<b>bold</b>", "{x}", "日本語", "a" * 200, ""])
def test_labels_of_users_are_text(lab, label):
    dataset = filled(lab, grid(method=[label, "b"], n=[1, 2, 3]), lambda method, n: float(n))
    found = drawn(dataset)
    assert png(found).startswith(PNG)
    chart(found)
    held = drawn(dataset, fixed={"method": label})
    rendered = holoviews().renderer("bokeh").get_plot(chart(held))
    assert rendered.state.title.text.startswith(f"method = {label_text(label)}\n")


def test_large_grids_stay_small_pictures(lab):
    dataset = filled(lab, grid(x=list(range(700)), y=list(range(600))), lambda x, y: float(x + y))
    found = drawn(dataset)
    assert max(found.mean.shape) <= 96
    assert np.nanmax(found.mean) <= 699 + 599
    assert "neighbours of x are one" in found.subtitle
    assert len(png(found)) < 60_000


def test_threads_may_draw_at_once(lab):
    found = drawn(filled(lab, grid(x=[1, 2, 3], y=[1, 2]), lambda x, y: float(x)))
    images = []
    threads = [threading.Thread(target=lambda: images.append(png(found))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(images)) == 1
    assert len(images) == 4


# Options of hvplot


def optioned(dataset, **request):
    options = request.pop("options", {})
    return Plot(DatasetSource(dataset), {**request, "fixed": options})


def test_options_reach_both_pictures(lab):
    dataset = filled(lab, grid(method=["a", "b"], n=[1, 2, 3, 4]), lambda method, n: float(n))
    plain = optioned(dataset)
    options = {"title": "Mine", "width": 500, "xlabel": "size", "ylim": (1, 3), "logy": True, "color": ["red", "blue"]}
    plot = optioned(dataset, options=options)
    figure = holoviews().renderer("bokeh").get_plot(plot.object).state
    assert figure.title.text.startswith("Mine\n8 points"), "what is known is said all the same"
    assert (figure.width, figure.xaxis[0].axis_label) == (500, "size")
    assert (figure.y_range.start, figure.y_range.end) == (1, 3)
    assert type(figure.y_scale).__name__ == "LogScale"
    lines = [one.glyph.line_color for one in figure.renderers if type(one.glyph).__name__ == "Line"]
    assert lines == ["red", "blue"]
    assert plot.png() != plain.png()
    assert struct.unpack(">I", plot.png()[16:20]) == (500,)


def test_limits_of_heatmaps_are_labels(lab):
    dataset = filled(lab, grid(y=[10, 20, 30], x=[0.1, 0.2, 0.3, 0.4]), lambda y, x: y * x)
    plot = optioned(dataset, options={"xlim": (0.2, 0.3), "xticks": [0.3], "clim": (0, 9), "cmap": "fire"})
    figure = holoviews().renderer("bokeh").get_plot(plot.object).state
    assert (figure.x_range.start, figure.x_range.end) == (0.5, 2.5)
    assert figure.xaxis[0].ticker.ticks == [2]
    mapper = figure.renderers[0].glyph.color_mapper
    assert (mapper.low, mapper.high) == (0, 9)
    assert plot.png().startswith(PNG)


def test_an_axis_called_like_an_option_is_the_axis(lab):
    dataset = filled(lab, grid(width=[1, 2], n=[1, 2, 3]), lambda width, n: float(n * width))
    plot = optioned(dataset, options={"width": 2})
    assert plot.frame.mean[0, 0].tolist() == [2, 4, 6]
    assert plot.frame.options == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"wdith": 3},
            "`wdith` is neither an argument of `plot` nor an axis nor an option of hvplot; did you mean `width`",
        ),
        ({"logz": True}, "`logz` means nothing for curves; the nearest option is `log[xy]`"),
        ({"ylim": 3}, r"ylim=3 is no pair; write ylim=\(low, high\)"),
        ({"ylim": (0, 1), "logy": True}, "begins at or below zero"),
        ({"logx": True}, "labels above zero, and not all of `n` are"),
        ({"width": "wide"}, "cannot draw with width='wide'"),
        ({"color": "no colour"}, "cannot draw with color='no colour'"),
    ],
)
def test_wrong_options_get_one_sentence(lab, options, sentence):
    dataset = filled(lab, grid(n=[0, 1, 2]), lambda n: float(n))
    with pytest.raises(ViewError, match=sentence):
        optioned(dataset, options=options)


def test_later_frames_differ_from_the_first_by_their_data_only(lab):
    lab.declare(grid(n=[1, 2, 3, 4], replicates=3))
    lab.record(list(range(4)), range(4))
    first = frame(dataset := Snapshot(lab.sweep).dataset(), ask(dataset), running=True)
    lab.record(list(range(4, 12)), range(4, 12))
    later = frame(dataset := Snapshot(lab.sweep).dataset(), ask(dataset), running=True)
    artist = Artist()
    begun, gone_on = artist.draw(first), artist.draw(later)
    for cloned, anew in zip(gone_on, chart(later), strict=True):
        assert (cloned.id, cloned.label) == (next(one.id for one in begun if one.id == cloned.id), anew.label)
        assert cloned.dframe().equals(anew.dframe())
    rendered = [holoviews().renderer("bokeh").get_plot(each).state.title.text for each in (begun, gone_on)]
    assert "4 of 12" in rendered[0]
    assert "12 points" in rendered[1]


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 1)])
def test_heatmaps_of_one_row_are_as_high_as_a_cell(lab, shape):
    design = grid(y=list(range(shape[0])), x=list(range(shape[1])))
    dataset = filled(lab, design, lambda y, x: float(x + y))
    image = chart(drawn(dataset, x="x", y="y", kind="heatmap")).Image.I
    assert image.bounds.lbrt() == (-0.5, -0.5, shape[1] - 0.5, shape[0] - 0.5)


# Outputs of cells


def packed(page):
    code = re.search(r'class="mce-plot-code">([^<]*)<', page)[1]
    return json.loads(zlib.decompress(base64.b64decode(code)))


@pytest.mark.parametrize("selectors", [False, True])
def test_a_live_output_is_small_and_asks_nobody_outside(lab, selectors, monkeypatch):
    axes = {"k": [1, 2]} if selectors else {}
    filled(lab, grid(**axes, x=list(range(20)), y=list(range(20))), lambda x, y, k=0: float(x + y + k))
    monkeypatch.setattr(embedding, "interactive", lambda: True)
    plot = Plot(SweepSource(lab.sweep), {})
    screen = _Screen(plot)
    data, metadata = screen._bundle(plot._look, plot._question(plot._look))
    page = data["text/html"]
    assert len(page) < 60_000
    assert embedding.EXEC_TYPE in metadata
    assert 'alt="recovery' in page
    assert base64.b64decode(re.search(r"data:image/png;base64,([^\"]*)", page)[1]).startswith(PNG)
    assert "http" not in page, "every address is relative to the server of the page"
    content = packed(page)
    code = content["code"]
    for address, _ in content["styles"]:
        code = code.replace(address, "")
    # A comment of Panel's is all that may be left.
    assert set(re.findall(r"https?://[\w.]+", code)) <= {"https://jupyterlab.readthedocs.io"}
    assert ("Slider" in code) == selectors


def test_frames_go_through_one_pipe_and_the_end_replaces_the_output(lab, monkeypatch):
    lab.declare(grid(n=[1, 2, 3, 4]))
    lab.record([1.0], (0, 1))
    monkeypatch.setattr(embedding, "interactive", lambda: True)
    monkeypatch.setattr(embedding, "connected", lambda metadata: True)
    plot = Plot(SweepSource(lab.sweep), {})
    screen = _Screen(plot)
    updates = []

    class Handle:
        def update(self, data, **_):
            updates.append(data)

    screen._bundle(plot._look, plot._question(plot._look))
    screen._handle = Handle()
    sent = []
    screen._pipe.add_subscriber(lambda data: sent.append(int(data[0].dataset.mse.count())))
    lab.record([2.0], (1, 2))
    look = replace(plot._newest(), running=True)
    screen.update(look, plot._question(look))
    assert sent == [2]
    assert updates == []
    screen.update(replace(look, number=look.number - 1), plot._question(look))
    assert sent == [2], "an older frame is never drawn over a newer one"
    screen.update(replace(plot._newest(), running=False), plot._question(look))
    assert [set(each) for each in updates] == [
        {"image/png", "text/plain"},
        {embedding.EXEC_TYPE, "text/html", "text/plain"},
    ]


def test_looking_at_a_plot_takes_nothing_from_its_output(lab, monkeypatch):
    lab.declare(grid(n=[1, 2, 3, 4]))
    lab.record([1.0], (0, 1))
    plot = Plot(SweepSource(lab.sweep), {})
    screen = _Screen(plot)
    updates = []

    class Handle:
        def update(self, data, **_):
            updates.append(data["text/plain"])

    screen._handle = Handle()
    lab.record([2.0, 3.0, 4.0], (1, 4))
    assert np.isfinite(plot.frame.mean).all(), "somebody asks for the newest state first"
    assert screen._refresh()
    assert "4 points" in updates[-1]


def test_a_plot_is_shown_again_after_its_first_output_was_replaced(lab, monkeypatch):
    filled(lab, grid(n=[1, 2]), lambda n: float(n))
    plot = Plot(SweepSource(lab.sweep), {})
    screens = [_Screen(plot), _Screen(plot)]
    header = {"metadata": {"cellId": "c"}, "header": {"msg_id": "1"}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: header))
    monkeypatch.setattr(embedding, "_shell", lambda: shell)
    _replace_earlier(screens[0])
    header["header"] = {"msg_id": "2"}
    _replace_earlier(screens[1])
    assert [screen.stop.is_set() for screen in screens] == [True, False]


KERNEL = """
import time
%load_ext mce_notebook
"""
SWEEP = """
%%sweep slow --no-block
rows = []
for n in [1, 2, 4, 8, 16, 32]:
    for k in range(10):
        time.sleep(0.05)
        rows.append((n, k, float(n)))
"""


def test_a_notebook_executed_end_to_end_keeps_the_last_frame(root, tmp_path):
    book = nbformat.v4.new_notebook()
    cells = [KERNEL, SWEEP, "slow.plot(x='n', over='k')", "slow.plot(value='rwos_n')"]
    book.cells = [nbformat.v4.new_code_cell(text.strip()) for text in cells]
    client = NotebookClient(
        book, timeout=100, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [output for output in book.cells[2].outputs if "data" in output]
    assert len(shown) == 1
    assert set(shown[0]["data"]) == {"image/png", "text/plain"}
    assert "60 points" in shown[0]["data"]["text/plain"], "the last frame, not the first"
    assert "did you mean `rows_n`" in book.cells[3].outputs[-1]["evalue"]
    assert len(nbformat.writes(book)) < 200_000


def test_a_plot_moves_while_a_cell_blocks_the_kernel(root, tmp_path):
    manager, client = start_new_kernel(cwd=str(tmp_path))
    try:
        for cell in (KERNEL, SWEEP.replace("0.05", "0.25")):
            client.execute_interactive(cell.strip(), allow_stdin=True, stdin_hook=lambda _: None, timeout=60)
        shown = []

        def run(cell):
            request = client.execute(cell, allow_stdin=True)
            while True:
                message = client.get_iopub_msg(timeout=90)
                if message["msg_type"] in ("display_data", "update_display_data"):
                    shown.append((message["parent_header"]["msg_id"], message["content"]["data"]["text/plain"]))
                idle = message["content"].get("execution_state") == "idle"
                if idle and message["parent_header"].get("msg_id") == request:
                    return request

        mine = run("slow.plot(x='n', over='k')")
        # Blocked all the time, also when the last frame is drawn.
        run("slow.wait(); time.sleep(6)")
        # The cell of the sweep has an output of its own that moves.
        texts = [text for parent, text in shown if parent == mine]
        counts = [int(found[1]) for text in texts if (found := re.search(r"(\d+) (?:of 60 )?points", text))]
        assert len(set(counts)) >= 2, "it moved while the cell waited"
        assert counts == sorted(counts)
        assert counts[0] < 60
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
