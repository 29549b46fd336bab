"""How values and keys are put together, as JSON: from a point's place in the grid, and from what it computes."""

import ast
import builtins
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mce_notebook.declare.names import Group, callee, read_names

Template = dict[str, Any]
"""JSON that says how a value or a key is put together: one entry, its kind and what belongs to it."""


RESERVED = {"status", "point", "seconds", "host", "attempt", "version", "outcome", "replicate"}


_PURE_CALLS = {"str", "int", "float", "round", "abs", "tuple", "repr", "min", "max"}


_PURE_NODES = (
    ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.JoinedStr,
    ast.FormattedValue, ast.Tuple, ast.Call,
)  # fmt: skip


@dataclass
class Scope:
    """What the names in a point stand for.

    Parameters
    ----------
    axes : set of str
        Coordinates that the body does not rebind.
    positions : dict of str to (int, int)
        Counters: the number of their iterable and the start.
    counters : dict of str to (int, int)
        Names counted up once per point: start and step.
    aliases : dict of str to ast.expr
        Names bound once, to an expression of axes.
    records : dict of str to list of str
        Names that stand for a dictionary of several axes, and its keys.
    """

    axes: set[str]
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    counters: dict[str, tuple[int, int]] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    records: dict[str, list[str]] = field(default_factory=dict)

    def leaf(self, node: ast.expr) -> Template | None:
        """Template of an expression known from the point's place in the grid, None for a result."""
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
            return {"constant": node.value}
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return {"constant": -node.operand.value} if isinstance(node.operand.value, int | float) else None
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and isinstance(node.slice, ast.Constant)
        ):
            known = self.records.get(node.value.id, ())
            return {"axis": node.slice.value} if node.slice.value in known else None
        return None

    def _name(self, node: ast.Name) -> Template | None:
        if node.id in self.axes:
            return {"axis": node.id}
        if node.id in self.positions:
            spec, start = self.positions[node.id]
            return {"position": spec, "start": start}
        if node.id in self.counters:
            start, step = self.counters[node.id]
            return {"counter": start, "step": step}
        if node.id in self.records:
            return {"record": self.records[node.id]}
        return self.leaf(self.aliases[node.id]) if node.id in self.aliases else None

    def key(
        self, node: ast.expr, dims: Sequence[str], computed: Callable[[ast.expr], Template] | None = None
    ) -> Template:
        """Template of one subscript."""
        if isinstance(node, Group):
            return {"group": node.depth}
        if isinstance(node, ast.Name) and node.id in dims:
            return {"dim": node.id}
        if isinstance(node, ast.Name) and node.id in self.aliases:
            return self.key(self.aliases[node.id], dims, computed)
        leaf = self.leaf(node)
        if leaf is not None:
            return leaf
        if isinstance(node, ast.Tuple):
            return {"tuple": [self.key(e, dims, computed) for e in node.elts]}
        if isinstance(node, ast.Constant) and node.value is Ellipsis:
            return {"slice": None}
        if isinstance(node, ast.Slice):
            return self._slice(node)
        shifted = self._shifted(node)
        known = shifted if shifted is not None else self._pure(node)
        return computed(node) if computed is not None and "unknown" in known else known

    def _slice(self, node: ast.Slice) -> Template:
        parts: list[int | None] = []
        for part in (node.lower, node.upper, node.step):
            leaf = {"constant": None} if part is None else self.leaf(part)
            if leaf is None or "constant" not in leaf:
                return {"unknown": ast.unparse(node)}
            parts.append(leaf["constant"])
        return {"slice": parts}

    def _shifted(self, node: ast.expr) -> Template | None:
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Sub):
            return None
        left, right = self.leaf(node.left), self.leaf(node.right)
        if left is None or right is None or "position" not in left or not isinstance(right.get("constant"), int):
            return None
        step = right["constant"] if isinstance(node.op, ast.Add) else -right["constant"]
        return {**left, "start": left["start"] + step}

    def _pure(self, node: ast.expr) -> Template:
        if isinstance(node, ast.Name):
            return {"unknown": node.id}
        for child in ast.walk(node):
            pure = isinstance(child, _PURE_NODES)
            if isinstance(child, ast.Call):
                pure = callee(child) in _PURE_CALLS and not child.keywords
            if not pure:
                return {"unknown": ast.unparse(node)}
        known: dict[str, Template] = {}
        for name in sorted(read_names(node) - _PURE_CALLS):
            leaf = self.key(ast.Name(name, ast.Load()), ())
            if "unknown" in leaf:
                return {"unknown": ast.unparse(node)}
            known[name] = leaf
        return {"expression": ast.unparse(node), "names": known}


def pairs_of(node: ast.expr) -> list[tuple[ast.expr | None, ast.expr]] | None:
    """Return keys and values of a dictionary written out, or None."""
    if isinstance(node, ast.Dict):
        return list(zip(node.keys, node.values, strict=True))
    if isinstance(node, ast.Call) and callee(node) == "dict" and not node.args:
        return [(None if k.arg is None else ast.Constant(k.arg), k.value) for k in node.keywords]
    return None


def name_of(node: ast.expr) -> str:
    """Return what an expression would be called: a variable, an attribute, a key, the function it calls."""
    if isinstance(node, ast.Name):
        return "" if node.id.startswith("_mce_") else node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return node.slice.value
    if isinstance(node, ast.Call):
        called = name_of(node.func)
        wraps = called in {"float", "int", "bool", "str", "round", "abs"} or called in {"item", "copy", "tolist"}
        if wraps:
            inner = node.func.value if isinstance(node.func, ast.Attribute) else (node.args[0] if node.args else None)
            return name_of(inner) if inner is not None else ""
        return called
    return ""


def own_name(base: str, path: Sequence[Template]) -> str:
    """Name of a bare value: the last key written as a constant, or the sink with its constant indices."""
    words = [t["constant"] for t in [*path, *elements(path)] if "constant" in t]
    text = [w for w in words if isinstance(w, str)]
    if text:
        return text[-1]
    return "_".join([base, *(str(w) for w in words)])


def elements(templates: Sequence[Template]) -> Iterator[Template]:
    """Yield what stands inside tuples and lists."""
    for template in templates:
        for kind in ("tuple", "list"):
            if kind in template:
                yield from template[kind]


def find_aliases(statements: Sequence[ast.stmt], known: set[str]) -> dict[str, ast.expr]:
    """Names bound once, at the top of the body, to an expression that only depends on `known` names."""
    found: dict[str, ast.expr] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name) and _is_key(statement.value, known | found.keys()):
                found[target.id] = statement.value
    counts: dict[str, int] = {}
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                counts[node.id] = counts.get(node.id, 0) + 1
    return {name: value for name, value in found.items() if counts.get(name) == 1}


def _is_key(node: ast.expr, known: set[str]) -> bool:
    if not isinstance(node, ast.Name | ast.JoinedStr | ast.Tuple | ast.BinOp | ast.Call):
        return False
    names = read_names(node)
    pure = all(isinstance(child, _PURE_NODES) for child in ast.walk(node))
    called = {callee(child) for child in ast.walk(node) if isinstance(child, ast.Call)}
    text = isinstance(node, ast.Name | ast.JoinedStr | ast.Tuple) or called <= {"str"}
    return pure and text and called <= _PURE_CALLS and names - set(dir(builtins)) <= known and bool(names)
