"""Cells run the way a notebook runs them, for tests of code that reads live functions."""

import ast
import itertools
import linecache
import textwrap
from dataclasses import dataclass, field
from typing import Any

from mce_notebook.declare.routine import Routine, Setup

_numbers = itertools.count(1)


def run_cell(text: str, namespace: dict[str, Any], filename: str | None = None) -> dict[str, Any]:
    """Execute a cell, with its text where tracebacks and `linecache` find it."""
    text = textwrap.dedent(text)
    filename = filename or f"<cell {next(_numbers)}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    namespace.setdefault("__name__", "__main__")
    exec(compile(text, filename, "exec", dont_inherit=True), namespace)
    return namespace


def routine(parameters: str, body: str, name: str = "point") -> Routine:
    """A routine with the given body, as reading loops makes it."""
    text = f"def {name}({parameters}):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"
    tree = ast.parse(text).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return Routine(tree, text, f"<cell {next(_numbers)}>")


@dataclass
class Coordinate:
    name: str


@dataclass
class Axis:
    coordinates: tuple[Coordinate, ...]


@dataclass
class Part:
    axes: tuple[Axis, ...]


@dataclass
class Grid:
    names: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(tuple(Axis((Coordinate(name),)) for name in self.names)),)


@dataclass
class Nest:
    """What `from_nest` reads of loops."""

    point: Routine
    grid: Grid
    setups: tuple[Setup, ...] = ()
    outputs: tuple[str, ...] | None = ("y",)
    generator_names: tuple[str, ...] = ()
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


def nest(names: str, parameters: str, body: str, **rest: Any) -> Nest:
    return Nest(routine(parameters, body), Grid(tuple(names.split())), **rest)
