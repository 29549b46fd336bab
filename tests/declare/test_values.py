import datetime as dt
import enum
import functools
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.values import (
    Labelled,
    canonical,
    canonical_column,
    digests,
    kind_of,
    pack_value,
    text_label,
    text_labels,
    unpack_value,
)
from mce_notebook.errors import GridError
from tests.declare.grids import naive, same, scalars


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Model:
    def __init__(self, alpha: float):
        self.alpha = alpha


@pytest.mark.parametrize(
    "equal",
    [
        (1, 1.0, np.int8(1), np.float32(1), np.uint64(1), 1 + 0j, Fraction(1), Decimal("1.00"), np.longdouble(1)),
        (0, 0.0, -0.0, np.float64(-0.0), complex(-0.0, -0.0), complex(0, -0.0)),
        (0.5, np.float64(0.5), np.float16(0.5), Fraction(1, 2), Decimal("0.5")),
        (True, np.True_),
        ("a", np.str_("a")),
        (2**70, float(2**70), np.float64(2**70)),
        (float("nan"), np.float32("nan"), Decimal("nan")),
        (float("inf"), np.float64("inf"), Decimal("inf")),
        (dt.date(2020, 1, 2), naive(2020, 1, 2), np.datetime64("2020-01-02"), np.datetime64("2020-01-02", "ns")),
        (naive(2020, 1, 2, 3), pd.Timestamp("2020-01-02 03:00"), np.datetime64("2020-01-02T03", "s")),
        (dt.timedelta(seconds=1), np.timedelta64(1, "s"), np.timedelta64(1000, "ms")),
        (1.5 - 2j, np.complex128(1.5 - 2j), np.complex64(1.5 - 2j)),
    ],
)
def test_equal_values_are_one_label(equal: tuple) -> None:
    assert len({canonical(value) for value in equal}) == 1


def test_different_values_differ() -> None:
    values = [
        True,
        False,
        None,
        0,
        1,
        "1",
        "True",
        "None",
        "",
        b"1",
        0.1,
        np.float32(0.1),
        Fraction(1, 3),
        Fraction(1, 10),
        Decimal("0.11"),
        1j,
        Colour.RED,
        Colour.BLUE,
        Level.LOW,
        dt.date(2020, 1, 1),
        naive(2020, 1, 1, 1),
        dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        dt.time(1),
        dt.timedelta(1),
        (),
        (1,),
        (1, 2),
        ("1",),
        [1, [2]],
        [[1], 2],
        {"a": 1},
        {"a": "1"},
        {1, 2},
        np.arange(3),
        np.arange(3.0),
        np.arange(4).reshape(2, 2),
        np.arange(4),
        Model(1.0),
        Model(2.0),
        Model,
        canonical,
        lambda x: x + 1,
        lambda x: x * 2,
        functools.partial(int, base=2),
        functools.partial(int, base=3),
        np.nan,
        np.inf,
        -np.inf,
        2**64,
        2**64 + 1,
        Labelled("1", 1),
        Labelled("1", 2),
        Labelled("2", 1),
    ]
    assert len({canonical(value) for value in values}) == len(values)


def test_aware_times_are_compared_as_instants() -> None:
    east = dt.timezone(dt.timedelta(hours=2))
    assert canonical(dt.datetime(2020, 1, 1, 2, tzinfo=east)) == canonical(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))


def test_sets_and_dicts_do_not_depend_on_their_order() -> None:
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({"x", "y", "z", "w"}) == canonical({"w", "z", "y", "x"})


def test_cycles_end() -> None:
    loop: list = [1]
    loop.append(loop)
    other: list = [1]
    other.append(other)
    assert canonical(loop) == canonical(other)


def test_a_token_replaces_the_walk() -> None:
    assert canonical(Model(1.0), lambda value: b"!") == b"o!"
    assert canonical(Labelled("m", Model(1.0)), lambda value: b"!") == b"lm\0!"
    assert canonical(3, lambda value: b"!") == canonical(3)


def test_values_without_state_are_refused_with_a_way_out(tmp_path) -> None:
    with (tmp_path / "file").open("w") as stream, pytest.raises(GridError, match=r"no state to compare.*'name', value"):
        canonical(stream)


def test_named_objects_are_their_label() -> None:
    assert canonical(Labelled("ridge", Model(1.0))) == canonical(Labelled("ridge", Model(2.0)))


@settings(deadline=None)
@given(st.lists(st.floats() | st.integers(-(2**53), 2**53).map(float), max_size=30))
def test_columns_agree_with_single_values(numbers: list) -> None:
    assert canonical_column(np.array(numbers, dtype=float)) == [canonical(number) for number in numbers]


@settings(deadline=None)
@given(st.lists(st.datetimes(), max_size=10), st.lists(st.integers(-(2**62), 2**62)), st.lists(st.text(max_size=3)))
def test_other_columns_agree_with_single_values(dates: list, whole: list, texts: list) -> None:
    assert canonical_column(np.array(dates, dtype="M8[us]")) == [canonical(date) for date in dates]
    assert canonical_column(np.array(whole, dtype=np.int64)) == [canonical(number) for number in whole]
    texts = [text.rstrip("\0") for text in texts]
    assert canonical_column(np.array(texts, dtype=str)) == [canonical(text) for text in texts]
    assert canonical_column(np.array([True, False])) == [canonical(True), canonical(False)]


@settings(deadline=None)
@given(scalars, scalars)
def test_canonical_is_equality(left: object, right: object) -> None:
    assert (canonical(left) == canonical(right)) == same(left, right)


def test_digests_are_the_documented_hash() -> None:
    import hashlib

    expected = hashlib.blake2b(b"rho\0i1", digest_size=16).digest()
    low, high = digests("rho", [canonical(1.0)])[0].tolist()
    assert low | high << 64 == int.from_bytes(expected, "little")


@settings(deadline=None)
@given(scalars)
def test_packed_values_come_back_with_their_type(value: object) -> None:
    packed = pack_value(value)
    assert packed is not None
    back = unpack_value(packed)
    assert type(back) is type(value)
    assert canonical(back) == canonical(value)


def test_values_that_only_pickle_keeps() -> None:
    for value in (Model(1.0), [1], Colour.RED, dt.datetime(2020, 1, 1, tzinfo=dt.UTC), (1, Model(1.0)), b"x"):
        assert pack_value(value) is None
    assert kind_of(pd.Timestamp("2020-01-01")) == "object"


def test_labels_are_readable_and_unique() -> None:
    values = [
        1,
        "1",
        None,
        Colour.RED,
        canonical,
        Model,
        Model(1.0),
        Model(2.0),
        functools.partial(int, base=2),
        (1, 2),
    ]
    labels = text_labels(values).tolist()
    assert labels == ["1", "'1'", "None", "RED", "canonical", "Model", "Model#2", "Model#3", "int(base=2)", "(1, 2)"]
    assert len(text_label("x" * 1000)) == 200


def test_functions_of_numpy_are_told_apart_by_name():
    assert canonical(np.sqrt) == canonical(np.sqrt) != canonical(np.exp)
