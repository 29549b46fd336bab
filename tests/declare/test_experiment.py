"""What a function or a cell of loops means as an experiment."""

import functools
import math
import operator
import traceback
from typing import NamedTuple

import numpy as np
import pytest

from mce_notebook.declare import pickles
from mce_notebook.declare.experiment import MISSING, SKIP, Experiment, from_function, from_nest
from mce_notebook.declare.routine import Setup
from mce_notebook.declare.seeds import root_seed
from mce_notebook.errors import DeclarationError
from tests.declare.cells import nest, routine, run_cell


def define(text: str, name: str = "f"):
    return run_cell(text, {})[name]


# ---- parameters


def test_axes_come_first_then_rng_and_seed() -> None:
    fn = define("def f(seed, b, *, rng, a=5, c=7):\n    return seed, b, rng, a, c")
    experiment = from_function(fn, ("a", "b"))
    assert experiment.parameters == ("a", "b", "rng", "seed")
    assert experiment.streams == "both"
    assert experiment.generator_names == ("rng",)
    assert experiment.constants == {"c": 7}
    assert experiment.compiled().point(1, 2, "generator", 3) == (3, 2, "generator", 1, 7)


def test_a_function_in_grid_order_is_called_without_an_adapter() -> None:
    fn = define("def f(a, b, rng):\n    return a, b, rng")
    assert from_function(fn, ("a", "b")).compiled().point is fn
    assert from_function(fn, ("b", "a")).compiled().point(1, 2, 3) == (2, 1, 3)


def test_rng_and_seed_can_be_axes() -> None:
    experiment = from_function(define("def f(seed, rng):\n    return seed"), ("seed", "rng"))
    assert experiment.streams == "none"
    assert experiment.generator_names == ()


def test_a_replicate_axis_need_not_be_a_parameter() -> None:
    experiment = from_function(define("def f(n, rng):\n    return n"), ("n", "replicate"))
    assert experiment.parameters == ("n", "rng")
    taken = from_function(define("def f(n, replicate):\n    return n"), ("n", "replicate"))
    assert taken.parameters == ("n", "replicate")


def test_keyword_arguments_take_all_axes() -> None:
    experiment = from_function(define("def f(n, **rest):\n    return n, rest"), ("n", "p", "replicate"))
    assert experiment.parameters == ("n", "p")
    assert experiment.compiled().point(1, 2) == (1, {"p": 2})


def test_positional_only_parameters() -> None:
    fn = define("def f(a, b=2, c=3, /, d=4, *, e=5):\n    return a, b, c, d, e")
    assert from_function(fn, ("c", "a")).compiled().point(30, 10) == (10, 2, 30, 4, 5)
    assert from_function(fn, ("e", "a")).compiled().point(50, 10) == (10, 2, 3, 4, 50)


def test_names_of_axes_may_be_anything() -> None:
    fn = define("def f(function, p0, fixed0, adapter):\n    return function, p0, fixed0, adapter")
    experiment = from_function(fn, ("p0", "function", "adapter"), constants={"fixed0": 9})
    assert experiment.compiled().point(1, 2, 3) == (2, 1, 9, 3)
    assert from_function(define("def f(λ, 数):\n    return λ - 数"), ("数", "λ")).compiled().point(1, 3) == 2


def test_fixed_arguments() -> None:
    fn = define("def f(n, mode, data, k=1):\n    return n, mode, data.sum(), k")
    experiment = from_function(fn, ("n",), constants={"mode": "fast", "data": np.ones(3), "k": 2})
    assert experiment.constants == {"mode": "fast", "k": 2}
    assert experiment.compiled().point(1) == (1, "fast", 3.0, 2)
    other = from_function(fn, ("n",), constants={"mode": "slow", "data": np.ones(3), "k": 3})
    third = from_function(fn, ("n",), constants={"mode": "fast", "data": np.zeros(3), "k": 2})
    assert experiment.version.hash == other.version.hash != third.version.hash
    assert pickles.copy(experiment).compiled().point(1) == (1, "fast", 3.0, 2)


def test_defaults_that_are_objects_belong_to_the_version() -> None:
    text = "import numpy as np\ndef f(n, table={'a': 1}, k=2):\n    return n"
    one = from_function(define(text), ("n",))
    other = from_function(define(text.replace("'a': 1", "'a': 2")), ("n",))
    assert one.constants == {"k": 2}
    assert one.version.hash != other.version.hash
    # The default of a parameter that an axis gives is never used.
    assert (
        from_function(define(text), ("n", "table")).version.hash
        == from_function(define(text.replace("'a': 1", "'a': 2")), ("n", "table")).version.hash
    )


@pytest.mark.parametrize(
    ("text", "axes", "message"),
    [
        ("def f(n, rho): pass", ("n",), r"nothing gives its parameter `rho`: add rho=\[\.\.\.\]"),
        ("def f(n, a, b): pass", ("n",), r"parameters `a`, `b`"),
        ("def f(rho): pass", ("rho", "alpha"), r"no parameter `alpha`"),
        ("def f(delta, rho=1): pass", ("delta", "rhoo"), r"did you mean `rho`\?"),
        ("def f(): pass", ("n",), r"it takes none"),
        ("def f(n, rho): pass", ("n", "roh"), r"did you mean `rho`.*nothing gives its parameter `rho`"),
    ],
)
def test_parameters_that_do_not_match_are_all_listed(text: str, axes: tuple[str, ...], message: str) -> None:
    with pytest.raises(DeclarationError, match=message) as caught:
        from_function(define(text), axes)
    assert "`f`" in str(caught.value)


def test_an_axis_cannot_be_fixed_too() -> None:
    with pytest.raises(DeclarationError, match="both an axis and a fixed argument"):
        from_function(define("def f(n): pass"), ("n",), constants={"n": 1})


@pytest.mark.parametrize("thing", [3, None, "f", [len]])
def test_only_callables(thing) -> None:
    with pytest.raises(DeclarationError, match="needs a function"):
        from_function(thing, ("n",))


@pytest.mark.parametrize(("text", "kind"), [("async def f(n): return n", "async"), ("def f(n): yield n", "generator")])
def test_functions_that_return_no_values_are_refused(text: str, kind: str) -> None:
    with pytest.raises(DeclarationError, match=kind):
        from_function(define(text), ("n",))


# ---- kinds of callables


class Model:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x, offset=1):
        return x * self.scale + offset

    def method(self, x):
        return x * self.scale

    @staticmethod
    def static(x):
        return x

    @classmethod
    def of(cls, x):
        return cls(x).scale


@pytest.mark.parametrize(
    ("fn", "axes", "arguments", "expected"),
    [
        (math.sqrt, ("x",), (4,), 2.0),
        (np.sin, ("x",), (0.0,), 0.0),
        (np.hypot, ("a", "b"), (3, 4), 5.0),
        (operator.add, ("a", "b"), (1, 2), 3),
        (max, ("a", "b"), (1, 2), 2),
        (functools.partial(pow, 2), ("exp",), (3,), 8),
        (functools.partial(lambda a, b, c: (a, b, c), 1, c=3), ("b",), (2,), (1, 2, 3)),
        (Model(3), ("x",), (2,), 7),
        (Model(3).method, ("x",), (2,), 6),
        (Model.static, ("x",), (2,), 2),
        (Model.of, ("x",), (2,), 2),
        (lambda x: x + 1, ("x",), (2,), 3),
        (functools.lru_cache(lambda x: x + 1), ("x",), (2,), 3),
        (np.vectorize(lambda x: x + 1), ("x",), (2,), 3),
        (complex, ("real", "imag"), (1, 2), 1 + 2j),
        ("{}".format, ("x",), (2,), "2"),
        (lambda *values: values, ("b", "a"), (2, 1), (2, 1)),
        (lambda *values, **named: (values, named), ("b", "a"), (2, 1), ((), {"a": 1, "b": 2})),
    ],
)
def test_any_callable(fn, axes, arguments, expected) -> None:
    experiment = from_function(fn, axes)
    assert experiment.compiled().point(*arguments) == expected
    assert pickles.copy(experiment).compiled().point(*arguments) == expected
    assert experiment.name.isidentifier()
    assert experiment.outputs


def test_the_state_of_a_callable_object_is_version() -> None:
    assert from_function(Model(3), ("x",)).version.hash != from_function(Model(4), ("x",)).version.hash
    assert from_function(Model(3).method, ("x",)).version.hash != from_function(Model(4).method, ("x",)).version.hash
    assert from_function(Model(3), ("x",)).constants == {"offset": 1}


# ---- outputs


class Out(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("return mse, time", ("mse", "time")),
        ("return mse", ("mse",)),
        ("return mse ** 2", ("f",)),
        ("return mse, time * 2", ("mse", "f_1")),
        ("return mse, mse", ("mse", "mse_1")),
        ("if mse:\n        return mse, time\n    return mse, None", ("mse", "time")),
        ("if mse:\n        return mse, time\n    return time", ("f",)),
        ("return {'a': mse}", None),
        ("return dict(a=mse)", None),
        ("out = {'a': mse}\n    return out", None),
        ("out = {k: 1 for k in 'ab'}\n    out['c'] = 3\n    return out", None),
        ("import xarray as xr\n    return xr.Dataset()", None),
        ("return Out(1, 2)", None),
        ("def g():\n        return 1, 2, 3\n    return mse", ("mse",)),
        ("print(mse)", ("f",)),
    ],
)
def test_outputs_are_named_by_what_is_returned(body: str, outputs) -> None:
    namespace = run_cell(f"def f(n):\n    mse, time = n, n\n    {body}\n", {"Out": Out})
    assert from_function(namespace["f"], ("n",)).outputs == outputs


def test_outputs_and_dims_can_be_given() -> None:
    experiment = from_function(
        lambda n: (n, n), ("n",), name="e", outputs=["x", "y"], dims={"x": "iteration", "y": ("i", "j")}
    )
    assert experiment.outputs == ("x", "y")
    assert experiment.dims == {"x": ("iteration",), "y": ("i", "j")}
    assert experiment.root == root_seed("e")
    assert from_function(lambda n: n, ("n",), name="e", seed=3).root == root_seed("e", 3)


# ---- generators


@pytest.mark.parametrize(
    ("body", "fresh"),
    [
        ("return rng.normal()", False),
        ("return helper(n, rng) + rng.integers(3)", False),
        ("x = rng.normal\n    return x()", False),
        ("return Model(rng)", True),
        ("KEPT.append(rng)", True),
        ("keep = rng\n    return keep", True),
        ("return lambda: rng.normal()", True),
        ("self.rng = rng", True),
        ("return [rng]", True),
        ("return rng", True),
    ],
)
def test_generators_are_fresh_where_they_might_be_kept(body: str, fresh: bool) -> None:
    space = {"helper": len, "Model": Model, "KEPT": [], "self": Model(1)}
    fn = run_cell(f"def f(n, rng):\n    {body}\n", space)["f"]
    assert from_function(fn, ("n",)).fresh_generators is fresh


# ---- loops


def test_routines_show_the_lines_of_the_cell() -> None:
    namespace = run_cell("K = 2", {})
    experiment = from_nest(nest("n", "n", "x = n\ny = x / (n - K)\nreturn y"), namespace, name="e")
    try:
        experiment.compiled().point(2)
    except ZeroDivisionError:
        assert "y = x / (n - K)" in traceback.format_exc()
    else:
        raise AssertionError("the point must fail")


def test_marks_come_back_as_themselves() -> None:
    body = "if n > 1: return __mce_skip__\nreturn __mce_missing__"
    experiment = from_nest(nest("n", "n", body), run_cell("", {}), name="e")
    for one in (experiment, pickles.copy(experiment)):
        assert one.compiled().point(2) is SKIP
        assert one.compiled().point(1) is MISSING


def test_compiling_binds_no_name_in_the_notebook() -> None:
    namespace = run_cell("def point(x):\n    return 'mine'\n", {})
    experiment = from_nest(nest("n", "n", "y = point(n)\nreturn y"), namespace, name="e")
    assert experiment.compiled().point(1) == "mine"
    assert namespace["point"](1) == "mine"


def test_undefined_names_are_refused_before_anything_runs() -> None:
    with pytest.raises(DeclarationError, match="`K`, `helper` are not defined"):
        from_nest(nest("n", "n", "y = helper(n) + K\nreturn y"), run_cell("", {}), name="e")
    from_nest(nest("n", "n", "y = len([n]) + sum(k for k in [n])\nreturn y"), run_cell("", {}), name="e")


def test_a_copy_is_independent_and_shares_one_namespace() -> None:
    namespace = run_cell("state = [0]\ndef bump():\n    state[0] += 1\n    return state[0]\n", {})
    experiment = from_nest(nest("n", "n", "a = bump()\nreturn a, state[0]", outputs=("a", "b")), namespace, name="e")
    copied = pickles.copy(experiment).compiled()
    assert copied.point(0) == (1, 1)
    assert copied.point(0) == (2, 2)
    assert namespace["state"] == [0]


def test_setups_are_compiled_in_order() -> None:
    setups = (
        Setup(1, routine("a", "A = [a]\nreturn (A,)"), ("A",)),
        Setup(2, routine("a, b, A", "B = A + [b]\nreturn (B,)"), ("B",)),
    )
    experiment = from_nest(nest("a b c", "B, c", "y = sum(B) + c\nreturn y", setups=setups), run_cell("", {}), name="e")
    compiled = pickles.copy(experiment).compiled()
    (one,) = compiled.setups[0](1)
    (two,) = compiled.setups[1](1, 2, one)
    assert compiled.point(two, 3) == 6
    assert len(experiment.version.dependencies) == 3


def test_generators_and_shared_axes_of_loops() -> None:
    loops = nest(
        "n method", "n, method, rng", "y = rng.normal()\nreturn y", generator_names=("rng",), shared=("method",)
    )
    experiment = from_nest(loops, run_cell("", {}), name="e", dims={"y": ["t"]}, seed=1)
    assert experiment.streams == "rng"
    assert experiment.shared == ("method",)
    assert experiment.dims == {"y": ("t",)}
    assert not experiment.fresh_generators


def test_experiments_compare_by_version_not_by_value() -> None:
    one = from_function(define("def f(n): return n"), ("n",))
    assert one != from_function(define("def f(n): return n"), ("n",))
    assert isinstance(one, Experiment)


def test_a_parameter_that_is_returned_names_no_output():
    def square(x):
        x **= 2
        return x

    def both(x, y):
        return x, x + y, y

    assert from_function(square, ("x",)).outputs == ("square",)
    assert from_function(both, ("x", "y")).outputs == ("both_0", "both_1", "both_2")
