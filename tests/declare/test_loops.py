"""A cell read, bound and run point by point leaves what the plain cell leaves."""

import collections
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid

from mce_notebook.declare.loops import read, rebuild, sink_names
from mce_notebook.declare.routine import MISSING, SKIP
from mce_notebook.declare.seeds import replicates


def namespace():
    """What the notebook holds before the cell runs."""
    return {
        "__name__": "__main__",
        "np": np,
        "math": math,
        "itertools": itertools,
        "product": itertools.product,
        "defaultdict": collections.defaultdict,
        "ParameterGrid": ParameterGrid,
        "replicates": replicates,
        "tqdm": lambda values=(), **options: values,
        "print": lambda *words, **options: None,
    }


def run_points(nest, names):
    """Run all points in listed order in this process: indices done, outputs, what was bound."""
    exec(nest.head, names)
    bound = nest.bind(names)
    mask = bound.grid.mask()
    listed = np.arange(bound.grid.size) if mask is None else np.flatnonzero(mask)
    point = bound.point.compile(names)
    setups = [(setup, setup.routine.compile(names)) for setup in bound.setups]
    done, columns = [], {name: [] for name in bound.outputs}
    for index, values in zip(listed.tolist(), bound.grid.points_at(listed), strict=True):
        known = dict(zip(bound.grid.names, values, strict=True))
        for setup, function in setups:
            arguments = [known[name] for name in setup.routine.parameters]
            known.update(zip(setup.provides, function(*arguments), strict=True))
        known.update({name: np.random.default_rng(index) for name in bound.generator_names})
        result = point(*[known[name] for name in bound.parameters])
        if result is SKIP:
            continue
        done.append(index)
        row = (result,) if len(bound.outputs) == 1 else result
        for name, value in zip(bound.outputs, row, strict=True):
            columns[name].append(None if value is MISSING else value)
    return bound, np.array(done, dtype=np.int64), columns


def swept(cell):
    """What `rows()` gives for every sink of a cell, and the bound nest."""
    nest = read(cell)
    bound, done, columns = run_points(nest, namespace())
    record = json.loads(json.dumps(bound.sinks))
    return bound, {name: rebuild(record, name, bound.grid, done, columns) for name in sink_names(record)}


def plain(cell):
    names = namespace()
    exec(cell, names)
    return names


def same(left, right):
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        equal = np.array_equal(left, right, equal_nan=np.asarray(right).dtype.kind == "f")
        return type(left) is type(right) and left.dtype == right.dtype and equal
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return left == right


def cells():
    text = Path(__file__).with_name("loop_cells.txt").read_text(encoding="utf-8")
    for number, block in enumerate(text.split("#: ")[1:]):
        line, _, cell = block.partition("\n")
        yield pytest.param(line, cell, id=f"{number}-{line.split(';')[0].replace(' ', '-')}")


@pytest.mark.parametrize(("line", "cell"), list(cells()))
def test_cell_as_a_sweep(line, cell):
    bound, made = swept(cell)
    assert bound.notes[0] == line
    wanted = plain(cell)
    for name, value in made.items():
        assert same(value, wanted[name]), f"{name}: {value!r} is not {wanted[name]!r}"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("out = []\nfor i in [3, 5, 7]:\n    out.append(i)", [3, 5, 7]),
        ("out = {}\nfor i in ['a', 'b']:\n    out[i] = i", ["a", "b"]),
        ("out = []\nfor n, x in enumerate([1.5, 2.5]):\n    out.append(n)", [0, 1]),
        # Rows of axes alone, and objects that no dataset holds: that the point was there is all there is to tell.
        ("out = []\nfor i in [3, 5]:\n    out.append((i, 'x'))", [True, True]),
        ("out = []\nfor f in [abs, len]:\n    out.append(f)", [True, True]),
        ("out = []\nfor i in [3, None]:\n    out.append(i)", [True, True]),
    ],
)
def test_what_is_written_is_told_where_it_is_only_an_axis(cell, told):
    bound, _, columns = run_points(read(cell), namespace())
    assert bound.outputs == ("out",)
    assert columns["out"] == told
