import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Grid, Guard, Part, grid, zipped
from mce_notebook.errors import GridError
from tests.declare.grids import listed_points, products


def kept(design: Grid) -> list[tuple]:
    mask = design.mask()
    points = list(design.points())
    return points if mask is None else [point for point, keep in zip(points, mask, strict=True) if keep]


def test_no_guard_no_mask() -> None:
    assert grid(a=[1, 2]).mask() is None


def test_expressions_and_functions_agree() -> None:
    design = grid(n=[1, 2, 3], rho=[0.1, 0.5], name=["x", "y"])
    expected = [point for point in design.points() if point[0] * point[1] > 0.4 and point[2] == "y"]
    assert kept(design.where("n * rho > 0.4 and name == 'y'")) == expected
    assert kept(design.where("n * rho > 0.4").where("name == 'y'")) == expected
    assert kept(design.where(lambda rho, name, n: n * rho > 0.4 and name == "y")) == expected
    assert kept(design.where("n * rho > least and name == 'y'", least=0.4)) == expected
    assert kept(design.where("check(n, rho, name)", check=lambda n, r, s: n * r > 0.4 and s == "y")) == expected


def test_guards_over_zips_objects_and_missing_values() -> None:
    design = zipped(a=[1, 2, 3], b=[3, 2, 1]) * grid(kind=[None, "x", (1, 2)])
    assert kept(design.where("a <= b and kind is None")) == [(1, 3, None), (2, 2, None)]
    assert kept(design.where("kind == (1, 2)").where("a == 1")) == [(1, 3, (1, 2))]
    assert kept(grid(f=[abs, len]).where("f(-1) == 1 if f is abs else False")) == [(abs,)]


def test_a_later_guard_sees_only_what_earlier_ones_kept() -> None:
    design = grid(n=[0, 1, 2], m=[1, 2])
    assert kept(design.where("n != 0").where("1 / n > 0.6")) == [(1, 1), (1, 2)]
    assert kept(design.where("n != 0 and 1 / n > 0.6")) == [(1, 1), (1, 2)]
    seen = []
    design.where("n > 0").where(lambda n: seen.append(n) or True).mask()
    assert seen == [1, 2]


def test_python_guards_look_at_no_more_axes_than_they_read() -> None:
    calls = []
    design = grid(a=range(50), b=range(50), c=range(50)).where(lambda b: calls.append(b) or b % 2 == 0)
    assert int(design.mask().sum()) == 50 * 25 * 50
    assert calls == list(range(50))


def test_masks_are_computed_once() -> None:
    calls = []
    design = grid(a=[1, 2]).where(lambda a: calls.append(a) or True)
    assert design.mask() is design.mask()
    assert calls == [1, 2]
    whole = grid(a=[1, 2]) + grid(a=[3])
    assert whole.mask() is None


def test_slow_guards_can_be_run_elsewhere() -> None:
    design = grid(a=[1, 2, 3]).where("a > 1").where(lambda a: 1 / 0)
    asked = []

    def slow(guard: Guard, rows: object) -> list[bool]:
        asked.append((guard.names, list(rows)))
        return [True, False]

    assert design.mask(slow=slow).tolist() == [False, True, False]
    assert asked == [(("a",), [(2,), (3,)])]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("n >", "no Python expression"),
        ("n = 1", "no Python expression"),
        ("", "no Python expression"),
        ("n\0", "no Python expression"),
        ("(" * 500 + "n" + ")" * 500, "no Python expression"),
        ("missing > 1", r"reads 'missing', which is no axis \(n, m\); pass it as a constant"),
        (5, "expression such as"),
        (None, "expression such as"),
        (lambda k: True, "takes 'k', which is no axis"),
        (lambda *n: True, r"\*n of .* cannot be filled"),
        (lambda n, *, m: True, "cannot be filled"),
        (max, "cannot be (read|filled)"),
    ],
)
def test_bad_guards_are_refused(condition: object, message: str) -> None:
    with pytest.raises(GridError, match=message):
        grid(n=[1], m=[2]).where(condition)


def test_failing_guards_name_the_point() -> None:
    design = grid(n=[2, 1, 0], m=["a"]).where("1 / n > 0")
    with pytest.raises(GridError, match=r"'1 / n > 0' failed at n=0: ZeroDivisionError: division by zero"):
        design.mask()
    with pytest.raises(GridError, match=r"failed at n=1: KeyError: 1"):
        grid(n=[0, 1]).where(lambda n: {0: True}[n]).mask()


def test_expressions_cannot_close_the_function_made_of_them() -> None:
    for text in ("n): print(1", "n)(1", "n, m: n"):
        with pytest.raises(GridError, match="no Python expression"):
            grid(n=[1], m=[1]).where(text)


def test_guards_stay_with_their_factor() -> None:
    design = grid(a=[1, 2]).where("a == 1") * grid(b=[1, 2]).where("b == 2")
    assert kept(design) == [(1, 2)]
    design = (grid(a=[1, 2]) + grid(b=[1, 2])).where("a == 1")
    assert kept(design) == [(1, None), (None, 1), (None, 2)]


def test_repeated_points_of_later_parts_are_left_out() -> None:
    assert kept(grid(a=[1, 2]) + grid(a=[2.0, 3])) == [(1,), (2,), (3,)]
    assert kept(grid(a=[1, 2]).where("a == 1") + grid(a=[2, 3])) == [(1,), (2,), (3,)]
    assert kept(grid(a=[1, 2]) + grid(b=[None, 1], a=[1])) == [(1, None), (2, None), (1, 1)]
    assert kept(zipped(a=[1, 2], b=[1, 2]) + grid(a=[1, 2], b=[1, 2])) == [(1, 1), (2, 2), (1, 2), (2, 1)]


@settings(deadline=None)
@given(products(3), st.integers(0, 10**6))
def test_python_guards_match_a_loop(design: Grid, salt: int) -> None:
    names = design.names[:2]

    def guard(*values: object) -> bool:
        return hash((salt, *map(repr, values))) % 3 != 0

    part = design.parts[0].guarded(Guard(None, guard, names))
    mask = Grid((part,)).mask()
    assert mask.tolist() == [guard(*(point[name] for name in names)) for point in listed_points(design)]


def test_a_part_without_axes_is_no_grid() -> None:
    with pytest.raises(GridError, match="at least one axis"):
        grid()
    with pytest.raises(GridError, match="at least one axis"):
        Grid(())
    assert Part(()).size == 1


def test_a_million_points() -> None:
    design = grid(a=range(100), b=np.linspace(0, 1, 100), c=list(range(100)))
    start = time.perf_counter()
    vector = design.where("a * b > 5 and c % 3 != 0").mask()
    middle = time.perf_counter()
    python = design.where(lambda a, b, c: a * b > 5 and c % 3 != 0).mask()
    end = time.perf_counter()
    assert (vector == python).all()
    assert middle - start < 5
    assert end - middle < 20
