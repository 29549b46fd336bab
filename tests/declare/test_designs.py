import numpy as np
import pytest

from mce_notebook.declare.designs import latin_hypercube, random_design, sobol, star
from mce_notebook.declare.grid import grid
from mce_notebook.errors import GridError


@pytest.mark.parametrize("design", [latin_hypercube, sobol, random_design])
def test_designs_fill_the_box_and_are_repeatable(design) -> None:
    points = np.array(list(design(64, seed=3, x=(0, 1), y=(-2.0, 2.0)).points()))
    assert points.shape == (64, 2)
    assert (points >= [0, -2]).all()
    assert (points <= [1, 2]).all()
    again = np.array(list(design(64, seed=3, x=(0, 1), y=(-2.0, 2.0)).points()))
    assert (points == again).all()
    other = np.array(list(design(64, seed=4, x=(0, 1), y=(-2.0, 2.0)).points()))
    assert not (points == other).any()


def test_latin_hypercubes_have_one_point_in_every_slice() -> None:
    points = np.array(list(latin_hypercube(20, x=(0, 20), y=(0, 20)).points()))
    assert (np.sort(points.astype(int), axis=0) == np.arange(20)[:, None]).all()


def test_sobol_points_are_balanced() -> None:
    points = np.array(list(sobol(64, x=(0, 8), y=(0, 8)).points())).astype(int)
    assert (np.bincount(points[:, 0] * 8 + points[:, 1], minlength=64) == 1).all()


@pytest.mark.parametrize("design", [sobol, random_design])
def test_longer_designs_contain_shorter_ones(design) -> None:
    long, short = design(50, x=(0, 1), k=["a", "b"]), design(7, x=(0, 1), k=["a", "b"])
    assert long.positions(short).tolist() == list(range(7))


def test_choices_and_whole_numbers() -> None:
    design = latin_hypercube(30, k=["a", "b", "c"], n=range(1, 4), flag=[True, False])
    assert design.size <= 18
    assert {point[0] for point in design.points()} == {"a", "b", "c"}
    assert {point[1] for point in design.points()} == {1, 2, 3}
    assert (design * grid(z=[1, 2])).size == 2 * design.size
    assert design.parts[0].axes[0].kind == "design"


def test_stars_vary_one_axis_at_a_time() -> None:
    design = star({"x": 0, "y": "m"}, x=[-1, 0, 1], y=["l", "m"])
    assert list(design.points()) == [(0, "m"), (-1, "m"), (1, "m"), (0, "l")]
    assert star({"x": 0.5, "fixed": None}, x=np.array([1.0])).size == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: latin_hypercube(0, x=(0, 1)), "at least 1, not 0"),
        (lambda: sobol(2.5, x=(0, 1)), "whole number of points"),
        (lambda: random_design(True, x=(0, 1)), "whole number of points"),
        (lambda: random_design(5), "at least one axis"),
        (lambda: random_design(5, x=(1, 0)), "from a lower to a higher"),
        (lambda: random_design(5, x=(0, float("inf"))), "finite"),
        (lambda: random_design(5, x=[]), "has no values"),
        (lambda: random_design(5, x=3), "one value, not a list"),
        (lambda: random_design(5, status=(0, 1)), "cannot name an axis"),
        (lambda: random_design(5, n=(0, 1), N=(0, 1)), "case only"),
        (lambda: random_design(5, x=(0, 1), seed=-1), "seed of a design"),
        (lambda: star({"x": 0}), "centre and axes"),
        (lambda: star({"x": 0}, y=[1]), "no value of 'y'"),
        (lambda: star({}, y=[1]), "centre and axes"),
    ],
)
def test_bad_designs_are_refused(call, message: str) -> None:
    with pytest.raises(GridError, match=message):
        call()
