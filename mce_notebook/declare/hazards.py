"""What makes a version or a stream less than it seems: hidden generators, fixed seeds, computed names, files."""

import ast
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mce_notebook.declare.references import Reference, References
from mce_notebook.errors import DeclarationError

_DYNAMIC = frozenset({"eval", "exec", "globals", "locals", "vars", "__import__", "import_module"})
_FILES = frozenset(
    {
        "open", "read_csv", "read_parquet", "read_json", "read_excel", "read_pickle", "read_feather", "read_hdf",
        "read_text", "read_bytes", "loadtxt", "genfromtxt", "fromfile", "memmap", "loadmat", "imread", "open_dataset",
        "open_zarr",
    }
)  # fmt: skip
_SEEDED = frozenset({"seed", "default_rng", "RandomState", "Random", "manual_seed"})
_UNSEEDED = frozenset({"default_rng", "RandomState"})


def is_generator(value: Any) -> bool:
    """Whether a value carries the state of a random generator."""
    kinds = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
    return isinstance(value, kinds) and not isinstance(value, random.SystemRandom)


def is_compiled(value: Any) -> bool:
    """Whether a value is a function compiled by Numba, and not an object that answers to every name."""
    return callable(getattr(value, "py_func", None)) and isinstance(getattr(value, "targetoptions", None), dict)


def captured_generator(value: Any, label: str) -> DeclarationError:
    """Explain why a generator made outside the points is refused."""
    kind = type(value).__name__
    return DeclarationError(
        f"{label} is a {kind} made outside the points: every point would draw the same numbers from a copy of it. "
        "Write `for rng in replicates(20):` as the innermost loop, or give the function a parameter named `rng`, "
        "and draw from that."
    )


def seed_notes(text: str, label: str) -> Iterator[str]:
    """Warn of generators that are seeded alike in every point, or not at all."""
    if not any(name in text for name in _SEEDED):
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # bytecode, or a body that needs its function around it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _seed_note(node, label)


def _seed_note(call: ast.Call, label: str) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    if (
        name in _SEEDED
        and given
        and isinstance(given[0], ast.Constant)
        and isinstance(given[0].value, int | float | str)
    ):
        yield f"seed fixed at {given[0].value} in every point: points share noise ({label} calls `{name}`)"
    elif name in _UNSEEDED and not given:
        yield (
            f"{label} calls `{name}()` without a seed: its draws cannot be repeated; "
            "use an `rng` parameter or `for rng in replicates(..)`"
        )


def reach_notes(read: References, user: str) -> Iterator[str]:
    """Warn of code whose reach cannot be known by reading it."""
    used = {part for reference in read.names for part in (reference.root, *reference.path)}
    user = f"`{user.strip('`')}`"
    if dynamic := used & _DYNAMIC:
        yield f"{user} uses {', '.join(sorted(dynamic))}: names computed while it runs are not part of the version"
    if files := used & _FILES:
        yield f"{user} reads files ({', '.join(sorted(files))}): name them with --depends FILE to track their content"


def soft_references(read: References, namespace: Mapping[str, Any]) -> list[Reference]:
    """Globals whose names occur as strings in code that looks names up while it runs."""
    used = {part for reference in read.names for part in (reference.root, *reference.path)}
    if not used & _DYNAMIC:
        return []
    known = {reference.root for reference in read.names}
    return [Reference("global", name) for name in sorted(read.strings) if name in namespace and name not in known]


def keeps_generator(node: ast.AST | None, names: Collection[str]) -> bool:
    """Whether code might keep a generator beyond its point, where a reused one would change under it.

    Methods may be called on it and it may be an argument of a function. Anything else counts as keeping: a class that
    is called with it, a container, an attribute, a nested function, a return; and code without a source.
    """
    if node is None:
        return True
    harmless: set[int] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute):
            harmless.add(id(child.value))
        elif isinstance(child, ast.Call):
            called = child.func.attr if isinstance(child.func, ast.Attribute) else getattr(child.func, "id", "")
            # Classes are told by their capital, as almost everybody writes them.
            if called and not called[0].isupper() and called not in _KEEPING:
                harmless |= {id(argument) for argument in (*child.args, *(k.value for k in child.keywords))}
    nested = [child for child in ast.walk(node) if isinstance(child, _FUNCTIONS) and child is not node]
    inside = {id(name) for function in nested for name in ast.walk(function)}
    uses = [child for child in ast.walk(node) if isinstance(child, ast.Name) and child.id in names]
    return any(id(use) not in harmless or id(use) in inside for use in uses)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_KEEPING = frozenset({"append", "add", "extend", "insert", "setdefault", "put", "partial", "setattr", "update"})
