import numpy as np
import pytest
import xarray as xr

import mce_notebook as mce
from mce_notebook.errors import DeclarationError, SweepError
from mce_notebook.frontends.abbreviations import LINEAR, LOGARITHMIC, ONE, parameter
from mce_notebook.frontends.slices import AUTOMATIC, Slices


def mse(n, sigma=1.0, method="mean", *, clip=False, rng):
    x = rng.normal(0, sigma, n)
    error = (x.mean() if method == "mean" else np.median(x)) ** 2
    return error * (not clip)


def values(abbreviation, **widgets):
    found = parameter("a", abbreviation, lambda: None)
    for name, value in widgets.items():
        getattr(found, f"_{name}").value = value
    return found.values()


@pytest.mark.parametrize(
    ("abbreviation", "expected"),
    [
        ((1, 10, 3), [1, 4, 7, 10]),
        ((1, 9, 3), [1, 4, 7]),
        ((0, 3), [0, 1, 2, 3]),
        ((0.0, 1.0, 0.25), [0.0, 0.25, 0.5, 0.75, 1.0]),
        ([3, 1, 2], [3, 1, 2]),
        (np.array([1.5, 2.5]), [1.5, 2.5]),
        (range(3), [0, 1, 2]),
        ({"one": 1, "two": 2}, [1, 2]),
        ([("short", 1), ("long", 2)], [1, 2]),
        (True, [True]),
        (5, [5]),
        (0.5, [0.5]),
        ("ols", ["ols"]),
        ("ols, ridge", ["ols", "ridge"]),
        (None, [None]),
    ],
)
def test_abbreviations_are_those_of_interact(abbreviation, expected):
    assert values(abbreviation) == expected


def test_numbers_are_spaced_as_chosen():
    assert values((1, 1000), spacing=LOGARITHMIC, number=4) == [1, 10, 100, 1000]
    assert values((0.0, 1.0), spacing=LINEAR, number=3) == [0.0, 0.5, 1.0]
    assert values((0.0, 1.0), spacing=ONE) == [0.0]
    assert values((1, 3), spacing=LINEAR, number=50) == [1, 2, 3], "whole numbers stay whole, and no two are equal"
    with pytest.raises(DeclarationError, match="have to be above zero"):
        values((0, 10), spacing=LOGARITHMIC)


@pytest.mark.parametrize(
    ("abbreviation", "sentence"), [((3, 1), "smaller one first"), ((1, 3, 0), "above zero"), ([], "empty list")]
)
def test_impossible_abbreviations_are_refused(abbreviation, sentence):
    with pytest.raises(DeclarationError, match=sentence):
        parameter("a", abbreviation, lambda: None)


def test_points_are_counted_and_told(here):
    explorer = mce.explore(mse, n=(10, 30, 10), sigma=[0.5, 1.0])
    assert explorer.points == 3 * 2 * 10
    assert "60 points = 3 n × 2 sigma × 10 replicates" in explorer._points.value
    explorer._replicates.value = 4
    assert explorer.points == 24
    explorer._parameters[1]._select.value = ()
    assert "No value of `sigma` is chosen" in explorer._points.value


def test_the_estimate_tries_some_points_and_starts_nothing(here):
    explorer = mce.explore(mse, n=(10, 30, 10))
    explorer._estimate.click()
    assert "30 points: 30 new" in explorer._told.value
    assert "points tried here" in explorer._told.value
    assert explorer.sweep is None
    assert not (here / "experiments" / "mse_sweep").exists()


def test_launching_runs_the_chosen_grid_and_shows_it(here):
    explorer = mce.explore(mse, n=(10, 30, 10), method=["mean", "median"])
    explorer._on.value = "inline"
    explorer._replicates.value = 3
    explorer._launch.click()
    assert "Launched" in explorer._told.value
    dataset = explorer.sweep.result()
    assert dict(dataset.sizes) == {"n": 3, "method": 2, "replicate": 3}
    assert "done" in explorer._live.children[0].value
    assert "data:image/png" in explorer._live.children[1]._picture.value


def test_the_cell_is_the_same_sweep(here, notebook):
    notebook.shell.user_ns["mse"] = mse
    explorer = mce.explore(mse, n=(10, 30, 10), method=["mean", "median"], sigma=2.0)
    explorer._replicates.value = 2
    cell = explorer.cell
    assert notebook.run(cell.replace("%%sweep mse_sweep", "%%sweep mse_sweep --on inline")), notebook.error
    dataset = notebook["mse_sweep"].result()
    assert {str(name): size for name, size in dataset.sizes.items()} == {"n": 3, "method": 2, "replicate": 2}
    assert bool(dataset.status.isin([2]).all())


def double(a, b=1):
    return 2 * a * b


def test_the_cell_of_a_function_without_chance_needs_no_loops(here, notebook):
    notebook.shell.user_ns["double"] = double
    explorer = mce.explore(double, a=(1, 4))
    assert explorer.cell == "%%sweep double_sweep a=[1, 2, 3, 4]\ndouble(a=a, b=1)"
    assert notebook.run(explorer.cell.replace("sweep a=", "sweep --on inline a=")), notebook.error
    assert notebook["double_sweep"].result().double_sweep.values.tolist() == [2, 4, 6, 8]
    explorer.insert()
    assert notebook.shell.rl_next_input.startswith("%%sweep double_sweep")


def broken(a):
    raise ValueError("<script>alert(1)</script>")


def test_what_the_user_wrote_is_text(here):
    explorer = mce.explore(broken, a=(1, 3))
    explorer._estimate.click()
    assert "&lt;script&gt;" in explorer._told.value
    assert "<script>" not in explorer._told.value
    explorer._name.value = "not a name"
    explorer._launch.click()
    assert "cannot name a sweep" in explorer._told.value


@pytest.mark.parametrize(
    ("words", "sentence"),
    [({"m": 1}, "`m` is no parameter of mse, which has n, sigma"), ({}, "`n` has no default: give it values")],
)
def test_parameters_have_to_exist_and_to_have_values(words, sentence):
    with pytest.raises(DeclarationError, match=sentence):
        mce.explore(mse, **words)


def test_data_have_no_parameters():
    with pytest.raises(DeclarationError, match="Data have no parameters"):
        mce.explore(xr.Dataset({"a": ("x", [1.0])}), n=3)
    with pytest.raises(SweepError, match=r"a function, a sweep or an xarray\.Dataset, and this is a int"):
        mce.explore(3)


# Slices


def cube():
    values = np.arange(24.0).reshape(2, 3, 4)
    coords = {"k": ["<a>", "b"], "y": [1, 2, 3], "x": [1.0, 10.0, 100.0, 1000.0]}
    return xr.Dataset({"out": (("k", "y", "x"), values), "other": (("k", "y", "x"), -values)}, coords=coords)


def test_slices_cut_any_dataset():
    slices = mce.explore(cube())
    assert isinstance(slices, Slices)
    question = slices.frame.question
    assert (question.kind, question.y, question.x, question.selectors) == ("heatmap", "y", "x", ("k",))
    assert slices.frame.mean[0].tolist() == cube().out.values[0].tolist()
    slices._sliders["k"].value = "b"
    assert slices.frame.mean[0].tolist() == cube().out.values[1].tolist()
    slices._choices["output"].value = "other"
    assert slices.frame.mean.max() < 0
    slices._choices["kind"].value = "curve"
    slices._choices["x"].value = "y"
    assert set(slices._sliders) == {"x"}
    assert "&lt;" not in slices._choices["x"].value
    assert "<a>" not in slices._picture.value


def test_what_cannot_be_drawn_is_said_and_the_picture_stays():
    slices = mce.explore(cube())
    before = slices._picture.value
    slices._choices["x"].value = "y"
    slices._choices["y"].value = "y"
    assert "asked for twice" in slices._note.value
    slices._choices["y"].value = AUTOMATIC
    assert slices._note.value == ""
    assert slices._picture.value != before


def test_an_array_is_a_dataset_of_one():
    assert mce.explore(cube().out).frame.question.value == "out"
