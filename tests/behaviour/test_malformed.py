"""Cells and calls that cannot be sweeps: one clear message, and nothing left behind."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.declare.options import Options
from mce_notebook.errors import DeclarationError, LoopError, SweepError
from mce_notebook.sweep import declare_cell

HEAD = """
import numpy as np
from itertools import count
from mce_notebook import replicates
default_rng = np.random.default_rng
def f(*a): return 1.0
"""

# name: (cell, words its message must hold, line it must name or None)
CELLS: dict[str, tuple[str, tuple[str, ...], int | None]] = {
    "no loop": ("x = f(1)\n", ("loop",), None),
    "empty cell": ("", ("loop",), None),
    "only a comment": ("# for a in b\n", ("loop",), None),
    "syntax": ("for a in [1, 2:\n    f(a)\n", (), 1),
    "tabs and spaces": ("for a in [1]:\n    if a:\n\tf(a)\n", (), None),
    "while": ("r = []\na = 0\nwhile a < 3:\n    a += 1\n    r.append(f(a))\n", ("while",), None),
    "break": ("r = []\nfor a in [1, 2]:\n    if a > 1: break\n    r.append(f(a))\n", ("break",), 3),
    "empty axis": ("r = []\nfor a in []:\n    r.append(f(a))\n", ("no values",), 2),
    "infinite axis": ("r = []\nfor a in count():\n    r.append(f(a))\n", ("never end",), 2),
    "duplicate labels": ("r = []\nfor a in [1, 1.0]:\n    r.append(f(a))\n", ("1",), None),
    "nan twice": ("r = []\nfor a in [float('nan'), float('nan')]:\n    r.append(f(a))\n", ("nan",), None),
    "axis is a number": ("r = []\nfor a in 3:\n    r.append(f(a))\n", (), 2),
    "axis is undefined": ("r = []\nfor a in nowhere:\n    r.append(f(a))\n", ("nowhere",), 2),
    "axis raises": ("r = []\nfor a in [1 / 0]:\n    r.append(f(a))\n", ("division",), 2),
    "nothing comes out": ("for a in [1, 2]:\n    f(a)\n    pass\n", (), None),
    "reads earlier points": ("r = [0]\nfor a in [1, 2]:\n    r.append(r[-1] + a)\n", ("r",), 3),
    "warm start": ("x = 0.0\nr = []\nfor a in [1, 2]:\n    x = f(x, a)\n    r.append(x)\n", ("x",), 4),
    "neighbour": ("Z = np.zeros(3)\nfor i in range(2):\n    Z[i] = Z[i - 1] + f(i)\n", ("Z",), 3),
    "same cell twice": ("Z = np.zeros(3)\nfor i in range(3):\n    Z[0] = f(i)\n", ("Z",), 3),
    "shared generator": (
        "rng = np.random.default_rng(1)\nr = []\nfor a in [1, 2]:\n    r.append(rng.normal() + a)\n",
        ("rng",),
        None,
    ),
    "generator in setup": (
        "r = []\nfor a in [1]:\n    rng = default_rng(a)\n    for b in [1]:\n        r.append(rng.normal())\n",
        ("rng",),
        3,
    ),
    "undefined helper": ("r = []\nfor a in [1]:\n    r.append(nowhere(a))\n", ("nowhere",), None),
    "axis called status": ("r = []\nfor status in [1, 2]:\n    r.append(f(status))\n", ("status",), None),
    "two axes but for case": (
        "r = []\nfor a in [1]:\n    for A in [1]:\n        r.append(f(a, A))\n",
        ("case",),
        None,
    ),
    "mutates above": (
        "state = {}\nr = []\nfor a in [1, 2]:\n    state[0] = a\n    r.append(len(state))\n",
        ("state",),
        4,
    ),
    "global statement": ("r = []\nfor a in [1]:\n    global z\n    z = a\n    r.append(z)\n", (), None),
    "return outside": ("r = []\nfor a in [1]:\n    return a\n", (), None),
    "async for": ("r = []\nasync for a in f():\n    r.append(a)\n", (), None),
    "await": ("r = []\nfor a in [1]:\n    r.append(await f(a))\n", ("coroutine",), None),
    "yield": ("r = []\nfor a in [1]:\n    r.append((yield a))\n", (), None),
}


@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str, root: Path) -> None:
    cell, words, line = CELLS[name]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(HEAD, namespace)
    before = set(namespace)
    with pytest.raises(SweepError) as caught:
        declare_cell("wrong", cell, namespace, Options.parse(on="inline"))
    said = str(caught.value)
    first = said.split("\n\n")[0]
    assert all(word in said for word in words), said
    assert 15 < len(first) < 500, first
    assert "Traceback" not in said
    if line is not None:
        assert isinstance(caught.value, LoopError), type(caught.value)
        assert caught.value.line == line, said
    if isinstance(caught.value, LoopError) and caught.value.after:
        ast.parse(caught.value.after)
        assert caught.value.diff
    assert not root.exists() or not list(root.iterdir())
    # Only what the cell's own earlier statements bind may be new.
    assert set(namespace) - before <= {"r", "x", "Z", "a", "rng", "state", "__builtins__"}


def two(a: int, b: int = 1) -> float:
    return a * b * 1.0


CALLS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown axis": ({"a": [1], "c": [2]}, ("`c`", "two")),
    "misspelt option": ({"a": [1], "timeuot": "3s"}, ("timeout",)),
    "nothing to sweep": ({}, ("several values",)),
    "one value only": ({"a": 3}, ("several values",)),
    "missing argument": ({"b": [1, 2]}, ("a",)),
    "empty axis": ({"a": []}, ("a",)),
    "bad duration": ({"a": [1], "timeout": "soon"}, ("soon", "timeout")),
    "negative timeout": ({"a": [1], "timeout": -3}, ("timeout",)),
    "bad memory": ({"a": [1], "memory": "2 bananas"}, ("bananas",)),
    "bad share": ({"a": [1], "max_failures": "120%"}, ("max-failures",)),
    "bad order": ({"a": [1], "order": "sideways"}, ("sideways", "coarse")),
    "bad rerun": ({"a": [1], "rerun": "some"}, ("failed",)),
    "no cores": ({"a": [1], "cores": 0}, ("cores",)),
    "bad seed": ({"a": [1], "seed": "seven"}, ("seven",)),
    "unknown cluster": ({"a": [1], "on": "mars"}, ("mars", "local")),
    "path as name": ({"a": [1], "name": "../x"}, ("../x",)),
    "keyword as name": ({"a": [1], "name": "class"}, ("class",)),
    "empty name": ({"a": [1], "name": " "}, ()),
    "unicode look-alike name": ({"a": [1], "name": "ﬁt me"}, ()),
    "long name": ({"a": [1], "name": "x" * 300}, ("200",)),
    "nan twice": ({"a": [float("nan"), float("nan")]}, ("nan",)),
    "duplicates": ({"a": [1, 2, 2]}, ("2",)),
    "negative replicates": ({"a": [1], "replicates": -1}, ("replicate",)),
    "no replicates": ({"a": [1], "replicates": 0}, ("replicate",)),
    "inline with timeout": ({"a": [1], "on": "inline", "timeout": "3s"}, ("timeout",)),
    "generator without end": ({"a": iter(int, 1)}, ("a",)),
    "two-dimensional": ({"a": np.zeros((2, 2))}, ("a",)),
    "missing file": ({"a": [1], "depends": "nowhere.csv"}, ("nowhere.csv",)),
    "same outputs": ({"a": [1], "outputs": ["y", "y"]}, ("y",)),
    "output called like an axis": ({"a": [1], "outputs": ["a"]}, ("a",)),
}


@pytest.mark.parametrize("name", CALLS)
def test_call(name: str, root: Path) -> None:
    words, expected = CALLS[name]
    with pytest.raises(DeclarationError) as caught:
        mce.sweep(two, **{"on": "inline", **words})
    said = str(caught.value)
    assert all(word.lower() in said.lower() for word in expected), said
    assert 15 < len(said) < 600
    assert not root.exists() or not list(root.iterdir())
