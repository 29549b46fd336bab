import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.axes import LONG, Natives, add_keys, match_number, nearest, suggest
from mce_notebook.declare.columns import axis_from, coordinate

words = st.integers(0, 2**128 - 1)


def pair(number: int) -> list[int]:
    return [number & (2**64 - 1), number >> 64]


@settings(deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=20))
def test_keys_add_with_carry(numbers: list[tuple[int, int]]) -> None:
    total = np.array([pair(left) for left, _ in numbers], dtype=np.uint64)
    add_keys(total, np.array([pair(right) for _, right in numbers], dtype=np.uint64))
    assert total.tolist() == [pair((left + right) % 2**128) for left, right in numbers]


def test_long_columns_are_kept_as_arrays_and_look_like_lists() -> None:
    numbers = [value * 0.5 for value in range(LONG + 10)]
    column = coordinate("x", numbers)
    assert isinstance(column.listed, Natives)
    assert column.take(np.array([3, 0])) == [1.5, 0.0]
    assert type(column.listed[5]) is float
    assert list(column.listed[2:4]) == [1.0, 1.5]
    assert len(column.listed) == len(numbers)


def test_digests_of_some_rows_are_those_of_all() -> None:
    column = coordinate("x", range(LONG * 2))
    rows = np.array([5, LONG + 7, 4096, 4095, 5])
    few = column.digests_at(rows)
    assert "digests" not in column.__dict__
    assert (few == column.digests[rows]).all()
    assert (coordinate("x", range(10)).digests == column.digests[:10]).all()
    assert not (coordinate("y", range(10)).digests == column.digests[:10]).any()


def test_what_is_cached_does_not_travel() -> None:
    column = coordinate("x", range(LONG * 2))
    before = len(pickle.dumps(column))
    column.digests_at(np.array([1]))
    assert column.digests.shape == (LONG * 2, 2)
    assert len(column.listed) == LONG * 2
    assert len(pickle.dumps(column)) == before
    assert (pickle.loads(pickle.dumps(column)).digests == column.digests).all()


def test_numbers_match_within_twelve_digits() -> None:
    labels = np.array([0.1, 0.2, 0.3, 0.0, np.inf, np.nan])
    assert match_number(labels, 0.30000000000000004).tolist() == [2]
    assert match_number(labels, 0.3000001).tolist() == []
    assert match_number(labels, -0.0).tolist() == [3]
    assert match_number(labels, 1e-300).tolist() == []
    assert match_number(labels, float("inf")).tolist() == [4]
    assert match_number(labels, float("nan")).tolist() == [5]
    assert match_number(labels, False).tolist() == []
    assert match_number(np.array([True, False]), False).tolist() == [1]
    assert match_number(np.array([1, 2]), 2.0).tolist() == [1]
    assert match_number(np.array([0.3, 0.30000000000000004]), 0.3).tolist() == [0]


def test_rows_of_an_axis() -> None:
    axis = axis_from(("a", "b"), [(1, "x"), (2, None), (3, "z")])
    some = axis.rows(np.array([2, 1]))
    assert [column.listed for column in some.coordinates] == [(3, 2), ("z", None)]
    assert (some.keys_at(np.arange(2), some.names) == axis.keys_at(np.array([2, 1]), axis.names)).all()
    assert (axis.name, axis.names, axis.size) == ("a", ("a", "b"), 3)


def test_hints() -> None:
    assert nearest("rh", ["rho", "n"]) == "did you mean 'rho'?"
    assert nearest("zzz", ["rho", "n"]) == "there is rho, n."
    assert nearest("x", []) == "there is none."
    assert suggest("a-b") == "a_b"
    assert suggest("1").isidentifier()
    assert suggest("../").isidentifier()
