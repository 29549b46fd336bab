import datetime as dt
import enum
import itertools

import numpy as np
import pandas as pd
import pytest

from mce_notebook.declare.columns import axis_from, coordinate
from mce_notebook.declare.grid import grid, zipped
from mce_notebook.declare.seeds import replicates
from mce_notebook.errors import GridError
from tests.declare.grids import naive


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def solve() -> None: ...


def refine() -> None: ...


@pytest.mark.parametrize(
    ("values", "kind", "labels"),
    [
        ([1, 2], "i", [1, 2]),
        (range(3), "i", [0, 1, 2]),
        ([0.5, 1], "f", [0.5, 1.0]),
        ([True, False], "b", [True, False]),
        (["a", "β"], "U", ["a", "β"]),
        ([1, 2 + 1j], "c", [1, 2 + 1j]),
        (np.array([1, 2], dtype=np.uint8), "i", [1, 2]),
        (np.array([0.5, 1.5], dtype=np.float16), "f", [0.5, 1.5]),
        ([True, 1], "U", ["True", "1"]),
        ([None, 1, "a"], "U", ["None", "1", "a"]),
        ([1, "1"], "U", ["1", "'1'"]),
        ([2**70, 1], "U", [str(2**70), "1"]),
        ([2**53 + 1, 0.5], "U", [str(2**53 + 1), "0.5"]),
        (np.array([2**63 + 5], dtype=np.uint64), "U", [str(2**63 + 5)]),
        ([Colour.RED, Colour.BLUE], "U", ["RED", "BLUE"]),
        ([solve, refine], "U", ["solve", "refine"]),
        ([(1, 2), (3, 4)], "U", ["(1, 2)", "(3, 4)"]),
        ([[1, 2], [3]], "U", ["[1, 2]", "[3]"]),
        ([dt.date(2020, 1, 1)], "M", [dt.date(2020, 1, 1)]),
        ([dt.date(2020, 1, 1), naive(2020, 1, 1, 5)], "M", None),
        ([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], "U", ["2020-01-01T00:00:00+00:00"]),
        (pd.date_range("2020-01-01", periods=2), "M", None),
        (pd.Series([0.1, 0.2]), "f", [0.1, 0.2]),
        (["x\0", "x"], "U", None),
        ([[1.0, 2.0], [3.0, 4.0]], "U", None),
        (np.eye(2), "U", None),
        ((value for value in [3, 4]), "i", [3, 4]),
        ({3, 4}, "i", [3, 4]),
        ({"a": 1}.keys(), "U", ["a"]),
    ],
)
def test_labels_of_every_kind(values: object, kind: str, labels: list | None) -> None:
    column = coordinate("x", values)
    assert column.labels.dtype.kind == kind
    if labels is not None:
        assert column.labels.tolist() == labels


def test_functions_receive_what_a_loop_would_yield() -> None:
    for values in (
        [1, 2.5, np.float32(2)],
        np.linspace(0, 1, 3),
        range(4),
        [True, None, "x"],
        [solve, (1, 2)],
        pd.date_range("2020", periods=2),
    ):
        got = [point for (point,) in grid(x=values).points()]
        expected = list(values)
        assert [type(value) for value in got] == [type(value) for value in expected]
        assert got == expected


def test_zero_has_no_sign() -> None:
    for values in (
        [-0.0],
        np.array([-0.0]),
        np.float32([-0.0]),
        [-0.0, "x"],
        [complex(-0.0, -0.0)],
        [np.float32(-0.0)],
    ):
        (got, *_) = next(grid(x=values).points())
        assert type(got) is type(next(iter(values)))
        assert str(got) in ("0.0", "0j")


def test_pairs_and_dicts_name_objects() -> None:
    one, two = object(), object()
    for values in ([("one", one), ("two", two)], {"one": one, "two": two}):
        design = grid(solver=values)
        assert list(design.points()) == [(one,), (two,)]
        assert design.parts[0].axes[0].coordinates[0].labels.tolist() == ["one", "two"]
        assert design.index(solver="two") == 1


def test_loops_keep_tuples_as_they_are() -> None:
    rows = [("one", object()), ("two", [1])]
    assert axis_from("pair", [("a", [1])]).coordinates[0].listed == (("a", [1]),)
    names, things = axis_from(("name", "thing"), rows[1:]).coordinates
    assert (names.listed, things.listed) == (("two",), ([1],))


def test_tables_repeat_labels_but_not_rows() -> None:
    axis = axis_from(("n", "k"), [(n, k) for n in range(4) for k in range(n)], kind="table")
    assert axis.size == 6
    assert axis.coordinates[0].labels.tolist() == [1, 2, 2, 3, 3, 3]
    with pytest.raises(GridError, match=r"lists 1, 2 twice \(positions 1 and 3\)"):
        axis_from(("n", "k"), [(1, 2), (1, 3), (1, 2)])


def test_replicates_become_an_axis() -> None:
    axis = axis_from("rng", replicates(3, shared="method"))
    assert (axis.name, axis.kind, axis.size, axis.shared) == ("replicate", "replicate", 3, ("method",))
    assert grid(n=[1], replicates=4).names == ("n", "replicate")
    assert grid(n=[1], trial=replicates(4)).names == ("n", "trial")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "has no values"),
        (range(0), "has no values"),
        (np.array([]), "has no values"),
        ({}, "has no values"),
        ([1, 1.0], "lists 1.0 twice"),
        ([0.0, -0.0], "twice"),
        ([np.nan, np.nan], "lists nan twice"),
        ([1, np.nan, float("nan")], "lists nan twice"),
        (["a", "b", "a"], r"lists a twice \(positions 1 and 3\)"),
        ([None, 1, None], "lists None twice"),
        ([dt.date(2020, 1, 1), naive(2020, 1, 1)], "twice"),
        ([solve, solve], "lists solve twice"),
        (5, r"write x=\[5\]"),
        ("abc", r"write x=\['abc'\]"),
        (None, r"write x=\[None\]"),
        (np.float64(2), "one value, not a list"),
        (np.array(2), "one value, not a list"),
        (itertools.count(), "never end"),
        (itertools.cycle([1]), "never end"),
        (itertools.repeat(1), "never end"),
        (object(), "not iterable"),
        (["\ud800"], "no valid text"),
        (iter(int, 1), "did not end after"),
    ],
)
def test_bad_values_are_refused(values: object, message: str) -> None:
    with pytest.raises(GridError, match=message) as caught:
        grid(x=values)
    assert "\n" not in str(caught.value)


def test_a_finite_repeat_is_still_a_duplicate() -> None:
    with pytest.raises(GridError, match="twice"):
        grid(x=itertools.repeat(1, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../x", "cannot name an axis"),
        ("", "cannot name an axis"),
        ("1a", "cannot name an axis"),
        ("a b", "use letters"),
        ("for", "use 'for_'"),
        ("None", "Python keeps"),
        ("__class__", "two underscores"),
        ("status", "use 'status_value'"),
        ("rng", "results carry"),
        ("point", "results carry"),
        ("a;b", "such as 'a_b'"),
        ("é\0", "cannot name"),
    ],
)
def test_hostile_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        grid(**{name: [1]})


def test_names_that_look_alike() -> None:
    assert grid(ﬁt=[1]).names == ("fit",)
    assert grid(σ=[1], λ=[2]).names == ("σ", "λ")
    with pytest.raises(GridError, match="'n' and 'N' differ in upper and lower case only"):
        grid(n=[1], N=[2])
    with pytest.raises(GridError, match="'n' is there twice"):
        grid(n=[1]) * grid(n=[2])
    with pytest.raises(GridError, match="case only"):
        grid(n=[1]) + grid(N=[2])


def test_zips_need_equal_lengths() -> None:
    with pytest.raises(GridError, match="a has 2, b has 3"):
        zipped(a=[1, 2], b=[1, 2, 3])
    with pytest.raises(GridError, match=r"needs rows of 2 values, but one has 3: \(1, 2, 3\)"):
        axis_from(("a", "b"), [(1, 2), (1, 2, 3)])
    with pytest.raises(GridError, match="at least two"):
        zipped(a=[1])


def test_what_is_given_may_change_afterwards() -> None:
    values = np.array([1.0, 2.0])
    more = [1, 2]
    design = grid(x=values, y=more)
    values[0] = 99
    more[0] = 99
    assert next(design.points()) == (1.0, 1)
