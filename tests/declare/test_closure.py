"""What changes a version and what does not."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mce_notebook.declare.closure import Walk
from mce_notebook.declare.code_text import code_text
from mce_notebook.declare.experiment import from_function, from_nest
from mce_notebook.declare.version import Version, explain
from mce_notebook.errors import DeclarationError
from tests.declare.cells import nest, run_cell

BASE = '''
import functools
import math
import collections
import dataclasses
import enum
import numpy as np
import pandas as pd
from numpy import linalg as la

A = np.arange(6.0).reshape(2, 3)
TABLE = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})
SETTINGS = {"alpha": 0.1, "names": ["p", "q"], "nested": {"deep": (1, 2, [3])}}
KINDS = {"red", "green", "blue"}
LIMIT = 10
UNUSED = 1

def leaf(x, scale=2):
    """Scale x."""
    y = x * scale
    return y + 1

def middle(x):
    return leaf(x) + LIMIT

def top(x):
    return middle(x)

class Shape:
    """A shape."""
    sides = 3
    def area(self):
        return self.sides * 1.5
    @property
    def twice(self):
        return 2 * self.area()
    @staticmethod
    def helper(v):
        return v + 4
    @classmethod
    def make(cls):
        return cls()

class Square(Shape):
    sides = 4
    def area(self):
        return super().area() + 1

@dataclasses.dataclass
class Params:
    rate: float = 0.5
    steps: int = 3

class Color(enum.Enum):
    RED = 1
    BLUE = 2

Pair = collections.namedtuple("Pair", ["left", "right"])

def times(k):
    def decorate(f):
        @functools.wraps(f)
        def wrapper(*args, **kwargs):
            return k * f(*args, **kwargs)
        return wrapper
    return decorate

@times(3)
def decorated(x):
    return x + 7

@functools.lru_cache(maxsize=None)
def cached(x):
    return x * 11

square_plus = functools.partial(leaf, scale=5)
shape = Square()
callbacks = [lambda v: v + 1, lambda v: v + 2]

def recursive(n):
    return 1 if n < 2 else n * recursive(n - 1)

def even(n):
    return True if n == 0 else odd(n - 1)

def odd(n):
    return False if n == 0 else even(n - 1)

def with_inner(x):
    def inner(v):
        return v * LIMIT
    return inner(x)

def guarded(x):
    from math import floor
    import math as m
    return floor(x) + m.ceil(x)

def comprehends(x):
    return sum(SETTINGS["alpha"] * i for i in range(3)) + len([c for c in KINDS])

def text_of(x: int) -> str:
    return f"{x:>{3}}" + "tail"

def point(n, k=1):
    total = top(n) + shape.area() + Shape.helper(n) + Square.make().twice
    total += decorated(n) + cached(n) + square_plus(n) + callbacks[0](n)
    total += recursive(3) + even(4) + with_inner(n) + guarded(n) + comprehends(n)
    total += A.sum() + TABLE["a"].sum() + SETTINGS["alpha"] + la.norm(A)
    total += Params().rate + Color.RED.value + Pair(1, 2).left + math.pi + len(text_of(3))
    return total * k
'''

# (what, text, replacement)
# ruff: noqa: E501 - a case is a line
SAME = [
    ("comment", "    return middle(x)", "    # explain\n    return middle(x)  # more"),
    ("docstring changed", '"""Scale x."""', '"""Something else."""'),
    ("docstring removed", '    """Scale x."""\n', ""),
    ("class docstring", '"""A shape."""', '"""Other."""'),
    ("blank lines", "    y = x * scale\n", "\n\n    y = x * scale\n\n"),
    ("spaces", "y = x * scale", "y  =  x*scale"),
    ("parentheses", "y = x * scale", "y = (x * scale)"),
    ("line continuation", "return y + 1", "return (y +\n            1)"),
    ("argument annotation", "def leaf(x, scale=2)", "def leaf(x: float, scale: int = 2)"),
    ("return annotation", "def text_of(x: int) -> str", "def text_of(x: int) -> 'str | None'"),
    ("no annotations", "def text_of(x: int) -> str", "def text_of(x)"),
    ("variable annotation", "    y = x * scale", "    y: float = x * scale"),
    ("quotes", '"tail"', "'tail'"),
    ("unused global", "UNUSED = 1", "UNUSED = 2"),
    ("constant read by the point alone", "def point(n, k=1)", "import sys\ndef point(n, k=1)"),
    ("default that is identity", "def point(n, k=1)", "def point(n, k=2)"),
    ("pass", "    return middle(x)", "    pass\n    return middle(x)"),
    ("new function", "def top(x)", "def extra(x):\n    return 1\n\ndef top(x)"),
    ("line numbers", "import functools\n", "import functools\n\n\n\n\n"),
    ("order of definitions", "LIMIT = 10\nUNUSED = 1\n", "UNUSED = 1\nLIMIT = 10\n"),
    ("order of a set", '{"red", "green", "blue"}', '{"blue", "red", "green"}'),
    ("array made otherwise", "np.arange(6.0).reshape(2, 3)", "np.array([[0.0, 1, 2], [3, 4, 5]])"),
    ("array in Fortran order", "np.arange(6.0).reshape(2, 3)", "np.asfortranarray(np.arange(6.0).reshape(2, 3))"),
    ("frame made otherwise", '{"a": [1, 2, 3], "b"', '{"a": np.array([1, 2, 3]), "b"'),
    ("equal value spelled otherwise", '"alpha": 0.1', '"alpha": 1e-1'),
    ("equal number spelled otherwise", "LIMIT = 10", "LIMIT = 5 + 5"),
    ("method docstring", "    def area(self):\n        return self.sides", '    def area(self):\n        "Doc."\n        return self.sides'),
    ("order of methods", "    @staticmethod\n    def helper(v):\n        return v + 4\n    @classmethod\n    def make(cls):\n        return cls()\n", "    @classmethod\n    def make(cls):\n        return cls()\n    @staticmethod\n    def helper(v):\n        return v + 4\n"),
    ("rename of a parameter's annotation only", "def with_inner(x)", "def with_inner(x: 'anything')"),
    ("inner docstring", "    def inner(v):\n", "    def inner(v):\n        'doc'\n"),
    ("data class docstring", "class Params:\n", 'class Params:\n    """Doc."""\n'),
    ("another import style above", "import math\n", "import math, math as again\n"),
    ("name bound to the same object", "callbacks = [", "alias = shape\ncallbacks = ["),
    ("string concatenation folded", '"tail"', '"ta" "il"'),
]  # fmt: skip

CHANGED = [
    ("helper three calls away", "return y + 1", "return y + 2", "`leaf` changed"),
    ("helper operator", "y = x * scale", "y = x / scale", "`leaf` changed"),
    ("middle helper", "return leaf(x) + LIMIT", "return leaf(x) - LIMIT", "`middle` changed"),
    ("default of a helper", "def leaf(x, scale=2)", "def leaf(x, scale=3)", "default `scale` of `leaf` changed"),
    ("global read by a helper", "LIMIT = 10", "LIMIT = 11", "captured `LIMIT` changed"),
    ("kind of a global", "LIMIT = 10", "LIMIT = 10.0", "captured `LIMIT` changed"),
    ("bool in place of int", "LIMIT = 10", "LIMIT = True", "captured `LIMIT` changed"),
    ("array value", "np.arange(6.0)", "np.arange(1.0, 7.0)", "captured `A` changed"),
    ("array kind", "np.arange(6.0)", "np.arange(6)", "captured `A` changed"),
    ("array shape", "reshape(2, 3)", "reshape(3, 2)", "captured `A` changed"),
    ("frame value", '"a": [1, 2, 3]', '"a": [1, 2, 4]', "captured `TABLE` changed"),
    ("frame missing value", '["x", "y", None]', '["x", "y", "z"]', "captured `TABLE` changed"),
    ("frame column", 'DataFrame({"a"', 'DataFrame({"c": [1, 1, 1], "a"', "captured `TABLE` changed"),
    ("dict value", '"alpha": 0.1', '"alpha": 0.2', "captured `SETTINGS` changed"),
    ("dict key", '"names"', '"labels"', "captured `SETTINGS` changed"),
    ("deep value", "(1, 2, [3])", "(1, 2, [4])", "captured `SETTINGS` changed"),
    ("list for tuple", "(1, 2, [3])", "[1, 2, [3]]", "captured `SETTINGS` changed"),
    ("set member", '"blue"}', '"black"}', "captured `KINDS` changed"),
    ("method", "return self.sides * 1.5", "return self.sides * 2.5", "`Shape.area` changed"),
    ("overridden method", "super().area() + 1", "super().area() + 2", "`Square.area` changed"),
    ("class attribute", "sides = 4", "sides = 5", "`Square.sides` changed"),
    ("base class attribute", "sides = 3", "sides = 2", "`Shape.sides` changed"),
    ("property", "return 2 * self.area()", "return 3 * self.area()", "`Shape.twice` changed"),
    ("static method", "return v + 4", "return v + 5", "`Shape.helper` changed"),
    ("class method", "return cls()", "made = cls()\n        return made", "`Shape.make` changed"),
    ("base class", "class Square(Shape)", "class Square(Shape, object)", None),
    ("new method", "    def area(self):\n        return super()", "    def more(self): return 1\n    def area(self):\n        return super()", "class `Square` changed"),
    ("data class default", "rate: float = 0.5", "rate: float = 0.6", "`Params.rate default` changed"),
    ("data class field", "steps: int = 3", "steps: int = 3\n    extra: int = 1", "class `Params` changed"),
    ("data class frozen", "@dataclasses.dataclass\n", "@dataclasses.dataclass(frozen=True)\n", "class `Params` changed"),
    ("enum value", "RED = 1", "RED = 3", "`Color.RED` changed"),
    ("enum member", "BLUE = 2", "BLUE = 2\n    GREEN = 3", "class `Color` changed"),
    ("named tuple fields", '["left", "right"]', '["left", "other"]', "class `Pair` changed"),
    ("decorator argument", "@times(3)", "@times(4)", "captured `k` changed"),
    ("decorator body", "return k * f(", "return k + f(", "`times.decorate.wrapper` changed"),
    ("decorated body", "return x + 7", "return x + 8", "`decorated` changed"),
    ("decorator removed", "@times(3)\n", "", None),
    ("cached body", "return x * 11", "return x * 12", "`cached` changed"),
    ("cache size", "maxsize=None", "maxsize=3", None),
    ("partial argument", "scale=5", "scale=6", "captured `square_plus` changed"),
    ("function in a list", "lambda v: v + 1,", "lambda v: v + 3,", "`<lambda>` changed"),
    ("order in a list", "[lambda v: v + 1, lambda v: v + 2]", "[lambda v: v + 2, lambda v: v + 1]", "`<lambda>` changed"),
    ("recursive", "n * recursive(n - 1)", "n + recursive(n - 1)", "`recursive` changed"),
    ("mutual recursion", "False if n == 0", "None if n == 0", "`odd` changed"),
    ("inner function", "return v * LIMIT", "return v + LIMIT", "`with_inner` changed"),
    ("import in a function", "from math import floor", "from math import trunc as floor", "`guarded` changed"),
    ("alias of an import", "import math as m\n    return floor(x) + m.ceil", "import numpy as m\n    return floor(x) + m.ceil", "`guarded` changed"),
    ("generator expression", "SETTINGS[\"alpha\"] * i", "SETTINGS[\"alpha\"] + i", "`comprehends` changed"),
    ("loop bound", "range(3)", "range(4)", "`comprehends` changed"),
    ("string constant", '"tail"', '"tale"', "`text_of` changed"),
    ("format", "{x:>{3}}", "{x:<{3}}", "`text_of` changed"),
    ("point body", "return total * k", "return total / k", "`point` changed"),
    ("point calls another", "total = top(n)", "total = middle(n)", "`point` changed"),
    ("attribute of a library", "la.norm(A)", "la.det(A @ A.T)", "`point` changed"),
    ("library function swapped under its name", "from numpy import linalg as la", "from scipy import linalg as la", None),
    ("star argument", "def leaf(x, scale=2)", "def leaf(x, scale=2, *rest)", "`leaf` changed"),
    ("keyword only", "def leaf(x, scale=2)", "def leaf(x, *, scale=2)", "`leaf` changed"),
    ("instance state", "shape = Square()", "shape = Square()\nshape.sides = 7", "captured `shape` changed"),
    ("function attribute", "def middle(x)", "leaf.mode = 3\n\ndef middle(x)", "attribute `mode` of `leaf` is new"),
    ("statement order", "    y = x * scale\n    return y + 1", "    y = x + 1\n    return y * scale", "`leaf` changed"),
    ("local name", "    y = x * scale\n    return y + 1", "    z = x * scale\n    return z + 1", "`leaf` changed"),
    ("negated condition", "1 if n < 2", "1 if not n < 2", "`recursive` changed"),
    ("negative zero", '"alpha": 0.1', '"alpha": -0.0', "captured `SETTINGS` changed"),
    ("global replaced by a function of that name", "def top(x):\n    return middle(x)", "def top(x):\n    return leaf(x)", "`top` changed"),
    ("lambda argument", "lambda v: v + 2", "lambda v, w=1: v + 2", None),
    ("power", "x * 11", "x ** 11", "`cached` changed"),
]  # fmt: skip


def version_of(text: str) -> Version:
    return from_function(run_cell(text, {})["point"], ("n",)).version


@pytest.fixture(scope="module")
def base() -> Version:
    return version_of(BASE)


@pytest.mark.parametrize(("text", "replacement"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_what_means_the_same_keeps_the_version(base: Version, text: str, replacement: str) -> None:
    assert BASE.count(text) >= 1
    mutated = version_of(BASE.replace(text, replacement, 1))
    assert explain(base, mutated) == []
    assert mutated.hash == base.hash


@pytest.mark.parametrize(
    ("text", "replacement", "reason"), [case[1:] for case in CHANGED], ids=[case[0] for case in CHANGED]
)
def test_what_means_something_else_changes_the_version(
    base: Version, text: str, replacement: str, reason: str | None
) -> None:
    assert BASE.count(text) >= 1
    mutated = version_of(BASE.replace(text, replacement, 1))
    assert mutated.hash != base.hash
    reasons = explain(base, mutated)
    assert reasons
    if reason is not None:
        assert reason in reasons
    # A change of one thing is not reported as a change of everything that uses it.
    assert len(reasons) <= 6, reasons


def test_there_are_a_hundred_mutations() -> None:
    assert len(SAME) + len(CHANGED) >= 100


def test_the_base_is_complete(base: Version) -> None:
    assert base.complete
    assert set(base.packages) == {"numpy", "pandas"}
    assert Version.from_json(base.to_json()) == base


# ---- constants, parameters, setups


def test_constants_the_point_reads_are_identity_and_not_version() -> None:
    text = "import numpy as np\nK = 3\nname = 'a'\ndef point(n):\n    return n * K + len(name)\n"
    one = from_function(run_cell(text, {})["point"], ("n",))
    other = from_function(run_cell(text.replace("3", "4"), {})["point"], ("n",))
    assert one.constants == {"K": 3, "name": "a"}
    assert other.constants == {"K": 4, "name": "a"}
    assert one.version.hash == other.version.hash


def test_a_constant_made_an_axis_keeps_version_and_root() -> None:
    fixed = from_function(run_cell("K = 3\ndef f(n):\n    return n * K", {})["f"], ("n",))
    default = from_function(run_cell("def f(n, K=3):\n    return n * K", {})["f"], ("n",))
    axis = from_function(run_cell("def f(n, K):\n    return n * K", {})["f"], ("n", "K"))
    assert fixed.version.hash == default.version.hash == axis.version.hash
    assert fixed.constants == default.constants == {"K": 3}
    assert axis.constants == {}
    assert fixed.root == axis.root


def test_a_constant_of_a_cell_made_an_axis_keeps_the_version() -> None:
    namespace = run_cell("K = 3\ndef helper(x):\n    return x + 1", {})
    body = "y = helper(n) * K\nreturn y"
    fixed = from_nest(nest("n", "n", body), namespace, name="s")
    axis = from_nest(nest("n K", "n, K", body), namespace, name="s")
    assert fixed.constants == {"K": 3}
    assert axis.constants == {}
    assert fixed.version.hash == axis.version.hash
    assert fixed.root == axis.root


def test_what_helpers_read_is_version() -> None:
    text = "K = 3\ndef helper(x):\n    return x + K\ndef point(n):\n    return helper(n)"
    one = from_function(run_cell(text, {})["point"], ("n",))
    other = from_function(run_cell(text.replace("3", "4"), {})["point"], ("n",))
    assert one.constants == {}
    assert explain(one.version, other.version) == ["captured `K` changed"]


def test_parameters_that_helpers_read_as_globals_are_mirrored() -> None:
    namespace = run_cell("n = 1\ndef helper(x):\n    return x + n + m", {})
    one = from_nest(nest("n m", "n, m", "y = helper(2)\nreturn y"), namespace, name="s")
    namespace["n"] = 5
    other = from_nest(nest("n m", "n, m", "y = helper(2)\nreturn y"), namespace, name="s")
    assert one.mirrored == ("m", "n")
    assert one.version.hash == other.version.hash


def test_axes_around_a_random_setup_belong_to_the_version() -> None:
    from mce_notebook.declare.routine import Setup
    from tests.declare.cells import routine

    namespace = run_cell("import numpy as np\ndef make(n):\n    return np.zeros(n)", {})

    def declare(axes: str, depth: int, body: str):
        setup = Setup(depth, routine("n", body), ("A",))
        return from_nest(nest(axes, "n, A", "y = A.sum()\nreturn y", setups=(setup,)), namespace, name="s")

    quiet, drawn = "A = make(n)\nreturn (A,)", "A = np.random.normal(size=n)\nreturn (A,)"
    assert declare("n x", 1, quiet).version.hash == declare("m n x", 2, quiet).version.hash
    assert not declare("n x", 1, quiet).draws_in_setup
    one, wider = declare("n x", 1, drawn), declare("m n x", 2, drawn)
    assert one.draws_in_setup
    assert one.version.hash != wider.version.hash
    assert "axes around the random setup" in " ".join(explain(one.version, wider.version))


# ---- data, sharing and cycles


def hash_of(value) -> str:
    def point(n):
        return n, value

    return from_function(point, ("n",)).version.hash


def test_cycles_end() -> None:
    one: list = [1]
    one.append(one)
    two: list = [1]
    two.append(two)
    assert hash_of(one) == hash_of(two)
    assert hash_of(one) != hash_of([1, [1]])


def test_equal_immutable_parts_may_be_shared_or_not() -> None:
    part = ("a" * 5, 1.5)
    assert hash_of([part, part]) == hash_of([("aaaaa", 1.5), ("".join(["aa", "aaa"]), 1.5)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
        (
            np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
            np.array([(1, 3.0)], dtype=[("a", int), ("b", float)]),
        ),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0])),
        (np.float32(1), np.float64(1)),
        (np.datetime64("2020-01-01"), np.datetime64("2020-01-02")),
        (Path("a"), Path("b")),
        (range(3), range(4)),
        (slice(1), slice(2)),
        (bytearray(b"a"), bytearray(b"b")),
        (1.0, 1),
        (float("nan"), float("inf")),
        ({1: {2}}, {1: {3}}),
        (frozenset({(1, 2)}), frozenset({(1, 3)})),
        (np.array([]), np.array([], dtype=int)),
        (lambda: 1, lambda: 2),
        (re_compile := __import__("re").compile("a"), __import__("re").compile("b")),
    ],
)
def test_different_data_differ_and_copies_do_not(one, other) -> None:
    import copy

    assert hash_of(one) != hash_of(other)
    assert hash_of(one) == hash_of(copy.deepcopy(one))


def test_frames_are_hashed_by_content() -> None:
    import pandas as pd

    def frame(**changes) -> pd.DataFrame:
        columns = {
            "i": [1, 2, 3],
            "s": ["a", None, "c"],
            "c": pd.Categorical(["u", "v", "u"]),
            "t": pd.to_datetime(["2020-01-01", "2020-01-02", None]),
            "m": pd.array([1, None, 3], dtype="Int64"),
            "o": [1, "x", (2,)],
        }
        return pd.DataFrame({**columns, **changes})

    assert hash_of(frame()) == hash_of(frame())
    assert hash_of(frame()) == hash_of(pd.concat([frame(), frame()]).iloc[3:])
    assert hash_of(frame()) != hash_of(frame(i=[1, 2, 4]))
    assert hash_of(frame()) != hash_of(frame(s=["a", "b", "c"]))
    assert hash_of(frame()) != hash_of(frame(m=pd.array([1, 2, 3], dtype="Int64")))
    assert hash_of(frame()) != hash_of(frame(o=[1, "x", (3,)]))
    assert hash_of(frame()) != hash_of(frame().set_index("i"))
    assert hash_of(frame()["i"]) != hash_of(frame()["i"].rename("j"))
    assert hash_of(pd.MultiIndex.from_tuples([(1, "a")])) != hash_of(pd.MultiIndex.from_tuples([(1, "b")]))


def test_arrow_sparse_and_labelled_data_are_hashed_by_content() -> None:
    import pyarrow as pa
    import scipy.sparse as sp
    import xarray as xr

    assert hash_of(pa.table({"a": [1, 2]})) == hash_of(pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2]})]))
    assert hash_of(pa.table({"a": [1, 2]})) != hash_of(pa.table({"a": [1, 3]}))
    assert hash_of(sp.eye(3, format="csr")) != hash_of(2 * sp.eye(3, format="csr"))
    assert hash_of(xr.DataArray([1, 2], dims="x")) == hash_of(xr.DataArray([1, 2], dims="x").copy())
    assert hash_of(xr.DataArray([1, 2], dims="x")) != hash_of(xr.DataArray([1, 2], dims="y"))
    assert hash_of(xr.Dataset({"a": ("x", [1])})) != hash_of(xr.Dataset({"a": ("x", [2])}))


def test_functions_inside_library_objects_are_followed() -> None:
    text = """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    def twice(x):
        return 2 * x
    pipe = make_pipeline(FunctionTransformer(lambda x: x + 1), FunctionTransformer(twice))
    def point(n):
        return pipe.fit_transform([[n]])[0, 0]
    """
    one = from_function(run_cell(text, {})["point"], ("n",)).version
    other = from_function(run_cell(text.replace("2 * x", "3 * x"), {})["point"], ("n",)).version
    third = from_function(run_cell(text.replace("x + 1", "x + 2"), {})["point"], ("n",)).version
    assert explain(one, other) == ["`twice` changed"]
    assert explain(one, third) == ["`<lambda>` changed"]
    assert one.packages["scikit-learn"]


def test_what_cannot_be_hashed_is_named_once_and_the_version_is_incomplete() -> None:
    text = "import threading\nlock = threading.Lock()\ndef helper():\n    return lock\ndef point(n):\n    return lock, helper()"
    version = from_function(run_cell(text, {})["point"], ("n",)).version
    assert not version.complete
    assert [warning for warning in version.warnings if "lock" in warning] == [version.warnings[0]]


def test_objects_that_answer_to_every_name() -> None:
    text = "class A:\n    def __getattr__(self, name):\n        return 3\na = A()\ndef f(n):\n    return a.x"
    one = from_function(run_cell(text, {})["f"], ("n",)).version
    assert from_function(run_cell(text.replace("3", "4"), {})["f"], ("n",)).version.hash != one.hash


def test_data_nested_too_deeply_is_refused_by_name() -> None:
    namespace = run_cell("x = []\nfor _ in range(5000):\n    x = [x]\ndef f(n):\n    return x", {})
    with pytest.raises(DeclarationError, match="`x` is nested too deeply"):
        from_function(namespace["f"], ("n",))


# ---- what is never part of a version


def test_the_notebook_and_this_package_are_never_part_of_it() -> None:
    text = """
    from mce_notebook import replicates
    from IPython.display import display
    def point(n):
        display(n)
        return replicates
    """
    version = from_function(run_cell(text, {})["point"], ("n",)).version
    assert version.complete
    assert set(version.dependencies) == {"`point`"}
    assert version.packages == {}


def test_the_shell_is_left_out() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    namespace = run_cell("def point(n):\n    get_ipython()\n    return n", {"get_ipython": shell.get_ipython})
    experiment = from_function(namespace["point"], ("n",))
    assert experiment.version.complete
    from mce_notebook.declare.pickles import copy

    assert copy(experiment).compiled().point(3) == 3


# ---- sources


def test_an_edit_that_was_not_run_is_not_seen(tmp_path: Path) -> None:
    text = "def point(n):\n    return n + 1\n"
    namespace = run_cell(text, {}, "<edited>")
    before = from_function(namespace["point"], ("n",)).version
    run_cell("def other(n):\n    return n + 99\n", {}, "<edited>")
    assert from_function(namespace["point"], ("n",)).version.hash != ""
    assert "99" not in str(from_function(namespace["point"], ("n",)).version.dependencies)
    again = run_cell(text, {}, "<edited>")
    assert from_function(again["point"], ("n",)).version.hash == before.hash


def test_lambdas_on_one_line_are_told_apart() -> None:
    namespace = run_cell("f, g = (lambda n: n + 1), (lambda n: n + 2)", {})
    assert from_function(namespace["f"], ("n",)).version.hash != from_function(namespace["g"], ("n",)).version.hash
    assert [code_text(namespace[name].__code__) for name in "fg"] == [f"def _(n):\nreturn n + {k}" for k in (1, 2)]


def test_the_base_is_hashed_from_its_source_alone() -> None:
    # Bytecode, and what a Python version generates, would make versions differ between Pythons.
    walk = Walk()
    walk.add(run_cell(BASE, {})["point"], "point")
    assert not [node.label for node in walk._nodes if any("bytecode" in text for text in node.own)]
    listed = walk.finish().version.dependencies
    assert not [label for label in listed if "__create_fn__" in label or "_generate_next_value_" in label]


def test_code_without_source_is_compared_by_bytecode() -> None:
    one, same, other = {}, {}, {}
    exec("def f(n):\n    return n in {'a', 'b', 'c'}", one)
    exec("def f(n):\n\n\n    return n in {'c', 'b', 'a'}", same)
    exec("def f(n):\n    return n in {'a', 'b', 'd'}", other)
    hashes = [from_function(space["f"], ("n",)).version.hash for space in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_cells_with_await_and_future_imports_keep_their_source() -> None:
    import __future__

    text = "from __future__ import annotations\ndef f(n: Undefined):\n    'doc'\n    return n\n"
    plain = "def f(n):\n    return n\n"
    one = from_function(run_cell(text, {})["f"], ("n",)).version
    assert one.hash == from_function(run_cell(plain, {})["f"], ("n",)).version.hash
    assert __future__.annotations


# ---- determinism

PROCESS = """
import sys
sys.path.insert(0, {root!r})
from mce_notebook.declare.experiment import from_function
from tests.declare.cells import run_cell
from tests.declare.test_closure import BASE
text = BASE + {extra!r}
print(from_function(run_cell(text, {{}})["point"], ("n",)).version.hash)
"""

EXTRA = """
mixed = {("a", 1), ("b", 2), Color.RED, frozenset({"x", "y"}), leaf, middle}
by_type = {int: {"p", "q"}, str: {("r", 1)}}
old = point
def point(n):
    return old(n) + len(mixed) + len(by_type)
"""


def test_versions_do_not_depend_on_the_process() -> None:
    root = str(Path(__file__).resolve().parents[2])
    seen = set()
    for seed in ("0", "1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROCESS.format(root=root, extra=EXTRA)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout.strip())
    assert len(seen) == 1
    assert version_of(BASE + EXTRA).hash in seen


# ---- random numbers


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("import random\ndef f(n): return random.random()", True),
        ("from random import gauss\ndef f(n): return gauss(0, 1)", True),
        ("import numpy as np\ndef f(n): return np.random.normal()", True),
        ("from numpy.random import normal\ndef f(n): return normal()", True),
        ("from numpy import random as r\ndef f(n): return r.rand()", True),
        ("def f(n):\n    import numpy as np\n    return np.random.rand()", True),
        ("def f(n):\n    import random\n    return random.choice([1])", True),
        ("import numpy as np\ndef g(): return np.random.rand()\ndef f(n): return g()", True),
        ("import numpy as np\ndef f(n): np.random.seed(n); return 1", True),
        ("import scipy.stats as st\ndef f(n): return st.norm.rvs()", True),
        ("from sklearn.linear_model import LinearRegression\ndef f(n): return LinearRegression()", True),
        ("import numpy as np\ndef f(n): return np.sin(n)", False),
        ("import numpy as np\ndef f(n): return np.linalg.norm([n])", False),
        ("import numpy as np\ndef f(n, rng): return rng.normal()", False),
        ("import numpy as np\ndef f(n): return np.random.default_rng(n).normal()", False),
        ("from scipy.special import erf\ndef f(n): return erf(n)", False),
        ("import math\ndef f(n): return math.sin(n)", False),
    ],
)
def test_use_of_the_global_generators_is_seen(text: str, uses: bool) -> None:
    experiment = from_function(run_cell(text, {})["f"], ("n",))
    assert experiment.version.uses_global_rng is uses
    assert experiment.global_rng == ("seeded" if uses else "none")


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("import random\ndef f(n): return random.random()", True),
        ("from numpy.random import normal\ndef f(n): return normal()", True),
        ("import numpy as np\ndef g(): return np.random.rand()\ndef f(n): return g()", True),
        ("import numpy as np\ndef f(n): np.random.shuffle([n]); return 1", True),
        ("import random\ndef f(n, source=random): return source.random()", True),
        ("from sklearn.linear_model import LinearRegression\ndef f(n): return LinearRegression()", False),
        ("import pandas as pd\ndef f(n): return pd.Series([n]).sum()", False),
        ("import numpy as np\nimport pandas as pd\ndef f(n, rng): return pd.Series(rng.normal(size=n)).mean()", False),
        ("def f(n): return eval('n + 1')", False),
    ],
)
def test_only_what_the_user_draws_is_said_to_be_drawn(text: str, sure: bool) -> None:
    experiment = from_function(run_cell(text, {})["f"], ("n",))
    assert experiment.version.draws_globally is sure
    # Seeding costs microseconds, hence is done wherever it might be needed.
    assert experiment.global_rng == "seeded"
    assert Version.from_json(experiment.version.to_json()) == experiment.version


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nrng = np.random.default_rng(0)\ndef f(n): return rng.normal()",
        "import numpy as np\nstate = np.random.RandomState(0)\ndef g(): return state.rand()\ndef f(n): return g()",
        "import random\nr = random.Random(1)\ndef f(n): return r.random()",
        "import numpy as np\nclass A:\n    rng = np.random.default_rng()\ndef f(n): return A.rng.normal()",
        "import numpy as np\ndef f(n, source=np.random.default_rng(3)): return source.normal()",
    ],
)
def test_a_captured_generator_is_refused_with_the_edit(text: str) -> None:
    with pytest.raises(DeclarationError, match=r"replicates\(20\)") as caught:
        from_function(run_cell(text, {})["f"], ("n",))
    assert "rng" in str(caught.value)


def test_fixed_and_missing_seeds_are_announced() -> None:
    fixed = from_function(
        run_cell("import numpy as np\ndef f(n):\n    np.random.seed(42)\n    return n", {})["f"], ("n",)
    )
    assert any("seed fixed at 42 in every point: points share noise" in note for note in fixed.version.warnings)
    free = from_function(
        run_cell("import numpy as np\ndef f(n):\n    return np.random.default_rng().normal()", {})["f"], ("n",)
    )
    assert any("cannot be repeated" in note for note in free.version.warnings)


def test_computed_names_and_files_are_announced(tmp_path: Path) -> None:
    text = (
        "import pandas as pd\nK = 2\nQ = 3\ndef f(n):\n    pd.read_csv('x.csv')\n    return globals()['Q'] + eval('K')"
    )
    version = from_function(run_cell(text, {})["f"], ("n",)).version
    assert any("eval, globals" in note for note in version.warnings)
    assert any("read_csv" in note and "--depends" in note for note in version.warnings)
    changed = from_function(run_cell(text.replace("Q = 3", "Q = {'a': 4}"), {})["f"], ("n",)).version
    assert changed.hash != version.hash
    data = tmp_path / "x.csv"
    data.write_text("a\n1\n")
    with_file = from_function(run_cell(text, {})["f"], ("n",), depends=[data]).version
    data.write_text("a\n2\n")
    edited = from_function(run_cell(text, {})["f"], ("n",), depends=[data]).version
    assert explain(with_file, edited) == [f"file `{data}` changed"]
    with pytest.raises(DeclarationError, match="cannot be read"):
        from_function(run_cell(text, {})["f"], ("n",), depends=[tmp_path / "absent"])


def test_functions_of_libraries_are_not_listed_as_data() -> None:
    text = "import random, math\nimport numpy as np\ndef f(n):\n    return np.random.normal() + random.gauss(0, 1) + math.pi"
    assert set(from_function(run_cell(text, {})["f"], ("n",)).version.dependencies) == {"`f`"}


def test_a_function_put_into_a_package_is_followed() -> None:
    text = "import math\ndef mine(x):\n    return x + 1\nmath.mine = mine\ndef f(n):\n    return math.mine(n)"
    import math

    try:
        one = from_function(run_cell(text, {})["f"], ("n",)).version
        other = from_function(run_cell(text.replace("+ 1", "+ 2"), {})["f"], ("n",)).version
    finally:
        del math.mine
    assert explain(one, other) == ["`mine` changed"]


# ---- packages


def test_packages_do_not_change_the_hash_but_are_named() -> None:
    version = version_of("import numpy as np\ndef point(n):\n    return np.sin(n)")
    newer = Version.from_json({**version.to_json(), "packages": {"numpy": "99.0"}})
    assert explain(version, newer) == [f"numpy {version.packages['numpy']} -> 99.0 (environment)"]


def test_local_modules_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "closure_sample"
    package.mkdir()
    (package / "__init__.py").write_text("from . import deep\nK = 2\n")
    (package / "deep.py").write_text("FACTOR = 3\ndef inner(x):\n    return x * FACTOR\ndef unused():\n    return 1\n")
    (package / "lazy.py").write_text("def late(x):\n    return x - 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = """
    import closure_sample
    def point(n):
        import closure_sample.lazy as lazy
        return closure_sample.deep.inner(n) + closure_sample.K + lazy.late(n)
    """

    def declare() -> Version:
        for name in [name for name in sys.modules if name.partition(".")[0] == "closure_sample"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return from_function(run_cell(text, {})["point"], ("n",)).version

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    first = declare()
    (package / "deep.py").write_text("# moved\n" + (package / "deep.py").read_text().replace("return 1", "return 2"))
    assert declare().hash == first.hash
    (package / "deep.py").write_text((package / "deep.py").read_text().replace("FACTOR = 3", "FACTOR = 4"))
    second = declare()
    assert explain(first, second) == ["captured `closure_sample.deep.FACTOR` changed"]
    (package / "lazy.py").write_text("def late(x):\n    return x - 2\n")
    assert explain(second, declare()) == ["`closure_sample.lazy.late` changed"]
