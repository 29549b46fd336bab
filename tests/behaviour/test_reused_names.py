"""A warm host meets a name whose sweep is gone: what slots loaded for the old one must not answer for the new."""

from pathlib import Path

import numpy as np

import mce_notebook as mce


def double(x: int) -> int:
    return 2 * x


def triple(x: int) -> int:
    return 3 * x


def apply(function: object, x: int) -> int:
    return function(x)  # type: ignore[operator, no-any-return]


def test_removed_sweep_and_its_successor_share_nothing(root: Path) -> None:
    first = mce.sweep(double, x=[1, 2, 3], name="again")
    assert first.result(timeout=60).double.values.tolist() == [2, 4, 6]
    first.remove()
    # The same number of points: a slot that still used the old grid would answer without complaint.
    second = mce.sweep(double, x=[10, 20, 30], name="again")
    assert second.result(timeout=60).double.values.tolist() == [20, 40, 60]
    assert not second.failures


def test_functions_as_values_reach_the_slots(root: Path) -> None:
    found = mce.sweep(apply, function=[double, triple], x=[1, 2], name="functions").result(timeout=60)
    assert found.function.values.tolist() == ["double", "triple"]
    assert np.array_equal(found["apply"].values, [[2, 4], [3, 6]])
