import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mce_notebook.declare.columns import coordinate
from mce_notebook.declare.vectors import Unvectorisable, column_of, evaluate

MODULES = {"np": np, "math": math}

names = st.sampled_from(["n", "x", "flag", "k"])


def binary(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "<", "<=", "==", "!=", ">", "and", "or"])
    return st.tuples(children, operators, children).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")


def calls(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = st.tuples(
        st.sampled_from(
            ["abs", "not ", "-", "int", "float", "round", "math.sqrt", "math.floor", "np.sqrt", "np.floor", "bool"]
        ),
        children,
    ).map(lambda parts: f"({parts[0]}({parts[1]}))")
    two = st.tuples(st.sampled_from(["min", "max", "math.pow", "np.hypot"]), children, children).map(
        lambda parts: f"{parts[0]}({parts[1]}, {parts[2]})"
    )
    power = st.tuples(children, st.sampled_from(["2", "3", "0.5", "-1", "flag"])).map("**".join).map("({})".format)
    chains = st.tuples(children, children, children).map(lambda parts: f"({parts[0]} < {parts[1]} <= {parts[2]})")
    member = st.tuples(children, children).map(lambda parts: f"({parts[0]} in (1, 0.5, {parts[1]}))")
    return st.one_of(one, two, power, chains, member)


expressions = st.recursive(
    st.one_of(names, st.integers(-3, 3).map(str), st.sampled_from(["0.5", "True", "2.0", "9007199254740993"])),
    lambda children: st.one_of(binary(children), calls(children)),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    expressions,
    st.lists(st.integers(-4, 4) | st.sampled_from([2**40, 2**62, -(2**63)]), min_size=1, max_size=4, unique=True),
    st.lists(
        st.sampled_from([0.0, 0.5, -1.5, 1e200, float("inf"), float("nan"), 3.0]), min_size=1, max_size=4, unique=True
    ),
)
@example("flag == (np.floor(flag) > 0)", [0], [0.0])
def test_vectors_give_what_python_gives(expression: str, whole: list[int], real: list[float]) -> None:
    flags, constant = [False, True], 3
    columns = {
        "n": np.array(whole, dtype=np.int64).reshape(-1, 1, 1),
        "x": np.array(real).reshape(1, -1, 1),
        "flag": np.array(flags).reshape(1, 1, -1),
    }
    try:
        found = evaluate(expression, columns, {**MODULES, "k": constant}, 100)
    except Unvectorisable:
        return
    shape = (len(whole), len(real), 2)
    expected = []
    code = compile(expression, "guard", "eval")
    with np.errstate(all="ignore"):
        for n, x, flag in itertools.product(whole, real, flags):
            expected.append(bool(eval(code, {**MODULES, "n": n, "x": x, "flag": flag, "k": constant})))
    assert np.broadcast_to(found, shape).reshape(-1).tolist() == expected


@pytest.mark.parametrize(
    "expression",
    [
        "n * x > 2",
        "0 < x <= 1 and n % 2 == 0 or flag",
        "not flag",
        "n in (1, 2, 3)",
        "n not in sizes",
        "n in (1, k)",
        "math.log(n + 5) > np.log(2)",
        "np.sqrt(abs(x)) < 1",
        "x ** 2 + n ** 2 < 4",
        "min(n, 2) == max(0, n)",
        "word == 'a'",
        "word in ('a', 'c') and word < 'd'",
        "n // 2 >= -n % 3",
        "round(x) == 1",
        "flag + flag == 2",
        "+x > -1",
        "(n > 1) == flag",
        "math.pi > x",
        "True",
    ],
)
def test_common_guards_are_vectorised(expression: str) -> None:
    columns = {
        "n": np.array([1, 2, 3]).reshape(-1, 1, 1, 1),
        "x": np.array([0.1, 0.7]).reshape(1, -1, 1, 1),
        "flag": np.array([True, False]).reshape(1, 1, -1, 1),
        "word": np.array(["a", "b"]).reshape(1, 1, 1, -1),
    }
    constants = {**MODULES, "k": 2, "sizes": [1, 5]}
    found = evaluate(expression, columns, constants, 24)
    expected = [
        bool(eval(expression, {**constants, "n": n, "x": x, "flag": flag, "word": word}))
        for n, x, flag, word in itertools.product([1, 2, 3], [0.1, 0.7], [True, False], ["a", "b"])
    ]
    assert np.broadcast_to(found, (3, 2, 2, 2)).reshape(-1).tolist() == expected


@pytest.mark.parametrize(
    "expression",
    [
        "1 / n > 0",
        "n * 2**62 > 0",
        "2**70 > n",
        "n + word",
        "word",
        "n < word",
        "f(n)",
        "n.real > 0",
        "np.random.rand() > n",
        "np.linalg.norm(n) > 1",
        "[n for n in range(3)]",
        "(lambda: n)()",
        "unknown > n",
        "n if n else 2",
        "n & 1",
        "~n",
        "'a' in word",
        "n ** -1 > 0",
        "x % big",
        "__import__('os').getcwd()",
        "n is None",
        "f'{n}' == '1'",
        "max(n, x) > 1",
        "n == 1 + 0j",
        "abs(n, 2)",
        "min(n)",
        "max(*[n, 2])",
        "round(x, ndigits=1) > 1",
    ],
)
def test_everything_else_is_left_to_python(expression: str) -> None:
    columns = {
        "n": np.array([0, 1, 2]).reshape(-1, 1, 1),
        "x": np.array([0.5, np.inf]).reshape(1, -1, 1),
        "word": np.array(["a", "b"]).reshape(1, 1, -1),
    }
    with pytest.raises(Unvectorisable):
        evaluate(expression, columns, {**MODULES, "f": lambda n: n, "big": np.float32(2)}, 12)


def test_columns_of_unusual_numbers_are_left_to_python() -> None:
    for values in (np.float32([1, 2]), np.uint8([1]), [1, 0.5], [None, 1], np.array([True]), [2**70]):
        with pytest.raises(Unvectorisable):
            column_of(coordinate("x", values))
    assert column_of(coordinate("x", [1, 2])).tolist() == [1, 2]
