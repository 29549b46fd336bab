import base64
import importlib
import threading
import warnings

import numpy as np
import pytest

from mce_notebook.declare.grid import Status, grid
from mce_notebook.view import picture as picture_module
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.mime import SWEEP_TYPE, bundle
from mce_notebook.view.picture import BYTES, subject

PNG = b"\x89PNG\r\n\x1a\n"


def picture(lab):
    image = base64.b64decode(bundle(lab.sweep)["image/png"])
    assert image.startswith(PNG)
    assert len(image) <= BYTES
    return image


def test_the_bundle_names_the_sweep_and_stands_alone(lab):
    lab.declare(grid(n=[1, 2], k=[1, 2, 3]))
    lab.record([1.0] * 4, (0, 4))
    found = bundle(lab.sweep)
    state = found[SWEEP_TYPE].pop("state")
    assert (state["known"], state["total"], state["counts"]["done"]) == (4, 6, 4)
    assert found[SWEEP_TYPE] == {
        "name": "recovery",
        "root": str(lab.sweep.paths.folder.parent),
        "id": lab.sweep.id,
    }
    assert set(found) == {SWEEP_TYPE, "text/plain", "text/html", "image/png"}
    assert "4 of 6 points" in found["text/plain"]
    assert found["image/png"] in found["text/html"]
    assert "image/png" not in bundle(lab.sweep, picture=False)


def test_one_axis_is_a_curve_with_a_band_over_replicates(lab):
    lab.declare(grid(n=[10, 20, 40], replicates=4))
    lab.record([1.0, 2.0, 3.0, 4.0] * 3, (0, 12))
    about = subject(Snapshot(lab.sweep).dataset())
    assert about.dims == ("n",)
    assert about.averaged == ("replicate",)
    assert about.mean.tolist() == [2.5, 2.5, 2.5]
    # 1.96 s / sqrt(m), s the sample standard deviation of 1, 2, 3, 4.
    assert about.spread == pytest.approx(1.96 * np.std([1, 2, 3, 4], ddof=1) / 2)
    picture(lab)


def test_two_axes_are_a_heatmap_and_the_rest_is_averaged(lab):
    lab.declare(grid(kind=["a", "b"], x=list(range(5)), y=list(range(7))))
    values = np.arange(70.0).reshape(2, 5, 7)
    lab.record(values.ravel().tolist()[:60], (0, 60))
    about = subject(Snapshot(lab.sweep).dataset())
    assert about.dims == ("x", "y")
    assert about.mean[0].tolist() == values.mean(axis=0)[0].tolist()
    assert about.mean[4].tolist() == values[0, 4].tolist(), "only what is known counts"
    picture(lab)


def test_no_number_no_values_no_problem(lab, failure):
    lab.declare(grid(n=list(range(300)), k=["$x^", "<b>", "\\frac{"]), outputs=("label",))
    picture(lab)
    failures = {1: failure(Status.FAILED)}
    lab.record(["a", None, "c"], (0, 3), names=("label",), failures=failures)
    assert subject(Snapshot(lab.sweep).dataset()) is None
    picture(lab)


@pytest.mark.parametrize(
    "design",
    [
        grid(n=[1]),
        grid(n=list(range(5000))),
        grid(kind=["a", "b", "c"]),
        grid(n=list(range(40)), k=list(range(40))).where("n == k"),
        grid(day=np.arange("2026-01-01", "2026-01-09", dtype="M8[D]")),
        grid(n=list(range(700)), k=list(range(700))),
        grid(flag=[True, False], z=[1 + 1j, 2.0]),
    ],
    ids=lambda design: "x".join(map(str, design.parts[0].shape)),
)
def test_every_shape_of_grid_has_a_picture(lab, design):
    lab.declare(design)
    mask = design.mask()
    listed = np.arange(design.size) if mask is None else np.flatnonzero(mask)
    lab.record(np.random.default_rng(0).normal(size=listed.size).tolist(), listed)
    picture(lab)


def test_infinite_and_missing_values_are_left_out(lab):
    lab.declare(grid(n=[1, 2, 3, 4]))
    lab.record([np.inf, np.nan, 1.0, None], (0, 4))
    assert subject(Snapshot(lab.sweep).dataset()).mean[2] == 1.0
    picture(lab)


def test_threads_may_draw_at_once(lab):
    lab.declare(grid(n=[1, 2], k=[1, 2, 3]))
    lab.record([1.0] * 4, (0, 4))
    images = []
    threads = [threading.Thread(target=lambda: images.append(picture(lab))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(images)) == 1


def test_signs_that_no_font_has_are_no_warning_in_a_cell(lab):
    lab.declare(grid(名=["数", "据"], k=[1, 2]))
    lab.record([1.0] * 4, (0, 4))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        importlib.reload(picture_module)
        picture(lab)
    assert [str(one.message) for one in said if "Glyph" in str(one.message)] == []
