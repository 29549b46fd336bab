"""What each point gives to each sink: the places written, the shape of what is put there, the names of the outputs."""

import ast
import builtins
import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mce_notebook.declare.names import Group, Write, callee, read_names, stores, targets

Template = dict[str, Any]
"""JSON that says how a value or a key is put together: one entry, its kind and what belongs to it."""

RESERVED = {"status", "point", "seconds", "host", "attempt", "version", "outcome", "replicate"}

_PURE_CALLS = {"str", "int", "float", "round", "abs", "tuple", "repr", "min", "max"}
_PURE_NODES = (
    ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.JoinedStr,
    ast.FormattedValue, ast.Tuple, ast.Call,
)  # fmt: skip


@dataclass
class Site:
    """A statement that fills a slot.

    Parameters
    ----------
    write : Write
        The statement.
    leaves : list of (template or None, ast.expr, str)
        What stands at the leaves of its value: how it follows from the point's place (None: it does not), the
        expression, what it would be called.
    values : list of ast.expr
        The expressions that are outputs, in the order of the slot's outputs.
    """

    write: Write
    leaves: list[tuple[Template | None, ast.expr, str]] = field(default_factory=list)
    values: list[ast.expr] = field(default_factory=list)


@dataclass
class Slot:
    """One place of one sink that a point fills, once or in the turns of a loop of its own.

    Parameters
    ----------
    base, op : str
        The sink and what is done at the end of the path.
    path, value : templates
        Where and what; ``{"output": k}`` in `value` stands for the k-th output of the slot.
    dims : tuple of str
        Loop variables around the writing, empty for a plain place.
    sites : list of Site
        The statements that fill it.
    hints, outputs : list of str
        What each output would be called, and is.
    always : bool
        Whether every point that has an outcome fills it.
    """

    base: str
    op: str
    path: list[Template]
    value: Template
    dims: tuple[str, ...] = ()
    sites: list[Site] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    always: bool = False

    def settle(self) -> None:
        """Decide which leaves are outputs: those that some site computes, or that differ between sites."""
        leaves: list[Template] = []
        for column in zip(*(site.leaves for site in self.sites), strict=True):
            first = column[0][0]
            if first is not None and all(known == first for known, _, _ in column):
                leaves.append(first)
                continue
            hint = next((h for known, e, h in column if known is None and name_of(e)), column[0][2])
            leaves.append({"output": len(self.hints)})
            self.hints.append(hint)
            for site, (_, expression, _) in zip(self.sites, column, strict=True):
                site.values.append(expression)
        self.value = _filled(self.value, leaves)
        if len(self.hints) == 1 and re.fullmatch(rf"{re.escape(self.base)}_\d+", self.hints[0]) and not self.constants:
            # The only result of a row needs no number.
            self.hints[0] = self.base
        if not self.hints and (self.dims or not self.always):
            self.mark()

    def mark(self) -> None:
        """Add an output that tells whether the slot was filled, where there is nothing else to tell."""
        self.hints.append(self.base)
        for site in self.sites:
            site.values.append(ast.copy_location(ast.Constant(True), site.write))

    @property
    def constants(self) -> list[str]:
        """Constants of path and value, which tell it from its like."""
        parts = [*self.path, *_elements(self.path), *_elements([self.value])]
        return [str(t["constant"]) for t in parts if "constant" in t]


def _filled(value: Template, leaves: Sequence[Template]) -> Template:
    if "leaf" in value:
        return leaves[value["leaf"]]
    for kind in ("tuple", "list"):
        if kind in value:
            return {kind: [_filled(v, leaves) for v in value[kind]]}
    return {"dict": [[key, _filled(v, leaves)] for key, v in value["dict"]]}


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

    def key(self, node: ast.expr, dims: Sequence[str]) -> Template:
        """Template of one subscript."""
        if isinstance(node, Group):
            return {"group": node.depth}
        if isinstance(node, ast.Name) and node.id in dims:
            return {"dim": node.id}
        if isinstance(node, ast.Name) and node.id in self.aliases:
            return self.key(self.aliases[node.id], dims)
        leaf = self.leaf(node)
        if leaf is not None:
            return leaf
        if isinstance(node, ast.Tuple):
            return {"tuple": [self.key(e, dims) for e in node.elts]}
        if isinstance(node, ast.Constant) and node.value is Ellipsis:
            return {"slice": None}
        if isinstance(node, ast.Slice):
            return self._slice(node)
        shifted = self._shifted(node)
        return shifted if shifted is not None else self._pure(node)

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


class Outline:
    """The slots of a point, found by following every way through its body.

    Parameters
    ----------
    scope : Scope
        Meaning of names.
    """

    def __init__(self, scope: Scope):
        self.scope = scope
        self.slots: list[Slot] = []
        self.ends: dict[int, bool] = {}
        self._ends: list[frozenset[int]] = []
        self._keys: dict[str, int] = {}
        self._loops: list[str] = []
        self._depth = 0

    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Find the slots of a body; `ends` tells of each `continue` whether the point has an outcome there."""
        state = self._block(statements, _State())
        if state is not None:
            self._ends.append(state.surely)
        for number, slot in enumerate(self.slots):
            slot.always = bool(slot.dims) or all(number in end for end in self._ends)
            slot.settle()
        if self.slots and not any(slot.hints for slot in self.slots):
            self.slots[0].mark()

    def slot_of(self, write: Write) -> tuple[Slot, "Site"]:
        """Return the slot a statement fills, and what it fills it with."""
        return next((slot, site) for slot in self.slots for site in slot.sites if site.write is write)

    def _block(self, statements: Sequence[ast.stmt], state: "_State") -> "_State | None":
        for statement in statements:
            after = self._statement(statement, state)
            if after is None:
                return None
            state = after
        return state

    def _statement(self, node: ast.stmt, state: "_State") -> "_State | None":
        if isinstance(node, Write):
            return self._write(node, state)
        if isinstance(node, ast.If):
            return _join([self._block(node.body, state), self._block(node.orelse, state)])
        if isinstance(node, ast.For | ast.While):
            return self._loop(node, state)
        if isinstance(node, ast.With):
            return self._block(node.body, state)
        if isinstance(node, ast.Try | ast.TryStar):
            return self._try(node, state)
        if isinstance(node, ast.Match):
            return _join([state, *(self._block(case.body, state) for case in node.cases)])
        if isinstance(node, ast.Continue) and not self._depth:
            self.ends[id(node)] = bool(state.maybe)
            if state.maybe:
                self._ends.append(state.surely)
            return None
        if isinstance(node, ast.Raise | ast.Continue | ast.Break):
            return None
        return state

    def _loop(self, node: ast.For | ast.While, state: "_State") -> "_State":
        names = [n.id for n in targets(node.target)] if isinstance(node, ast.For) else []
        self._depth += 1
        self._loops += names or ["step"]
        after = _join([state, self._block(node.body, state)])
        del self._loops[-len(names or ["step"]) :]
        self._depth -= 1
        last = self._block(node.orelse, after or state)
        return last or after or state

    def _try(self, node: ast.Try | ast.TryStar, state: "_State") -> "_State | None":
        whole = self._block([*node.body, *node.orelse], state)
        # A row appended at the end of the `try` and one in the handler exclude each other.
        started = state if not node.body or isinstance(node.body[-1], Write) or node.orelse else _join([state, whole])
        after = _join([whole, *(self._block(h.body, started or state) for h in node.handlers)])
        return self._block(node.finalbody, after) if after is not None else None

    def _write(self, node: Write, state: "_State") -> "_State":
        path = [self.scope.key(step, self._loops) for step in node.path]
        site = Site(node)
        name = _own_name(node.base, path)
        if node.op == "extend":
            site.leaves.append((None, node.value, name))
            value: Template = {"leaf": 0}
        else:
            value = self._value(node.value, site, name, top=True)
        place = json.dumps(path)
        turn = "" if self._loops or node.op == "set" else str(state.counts.get(node.base + place, 0))
        key = "|".join([node.base, node.op, place, turn, json.dumps(value), *self._loops])
        number = self._keys.setdefault(key, len(self.slots))
        if number == len(self.slots):
            self.slots.append(Slot(node.base, node.op, path, value, tuple(self._loops)))
        self.slots[number].sites.append(site)
        if self._loops:
            return state
        counts = {**state.counts, node.base + place: state.counts.get(node.base + place, 0) + 1}
        return _State(counts, state.surely | {number}, state.maybe | {number})

    def _value(self, node: ast.expr, site: Site, name: str, *, top: bool = False) -> Template:
        if isinstance(node, ast.Name) and node.id in self.scope.aliases and self.scope.leaf(node) is None:
            node = self.scope.aliases[node.id]
        leaf = self.scope.leaf(node)
        if leaf is None:
            inner = self._display(node, site, name, top)
            if inner is not None:
                return inner
        elif top and "constant" in leaf:
            leaf = None
        site.leaves.append((leaf, node, name))
        return {"leaf": len(site.leaves) - 1}

    def _display(self, node: ast.expr, site: Site, name: str, top: bool) -> Template | None:
        """Template of a tuple, list or dictionary written out."""
        if isinstance(node, ast.Tuple | ast.List) and not any(isinstance(e, ast.Starred) for e in node.elts):
            if not isinstance(node, ast.Tuple) and not top:
                return None
            own = [name_of(e) or f"{name}_{i}" for i, e in enumerate(node.elts)]
            kind = "tuple" if isinstance(node, ast.Tuple) else "list"
            return {kind: [self._value(e, site, own[i]) for i, e in enumerate(node.elts)]}
        pairs = _pairs(node)
        if pairs is None:
            return None
        keys = [None if key is None else self.scope.key(key, ()) for key, _ in pairs]
        spread = [value for key, value in pairs if key is None]
        if any(key is not None and "constant" not in key for key in keys) or not all(map(self._is_record, spread)):
            return None
        items = []
        for key, (_, value) in zip(keys, pairs, strict=True):
            own_name = name if key is None else str(key["constant"])
            items.append([key, self._value(value, site, own_name)])
        return {"dict": items}

    def _is_record(self, node: ast.expr) -> bool:
        return "record" in (self.scope.leaf(node) or {})


@dataclass(frozen=True)
class _State:
    """What was written on the way to a statement."""

    counts: Mapping[str, int] = field(default_factory=dict)
    surely: frozenset[int] = frozenset()
    maybe: frozenset[int] = frozenset()


def _join(states: Sequence[_State | None]) -> _State | None:
    alive = [state for state in states if state is not None]
    if not alive:
        return None
    names = {name for state in alive for name in state.counts}
    counts = {name: max(state.counts.get(name, 0) for state in alive) for name in names}
    surely = frozenset.intersection(*(s.surely for s in alive))
    return _State(counts, surely, frozenset().union(*(s.maybe for s in alive)))


def _elements(templates: Sequence[Template]) -> Iterator[Template]:
    for template in templates:
        for kind in ("tuple", "list"):
            if kind in template:
                yield from template[kind]


def _pairs(node: ast.expr) -> list[tuple[ast.expr | None, ast.expr]] | None:
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


def _own_name(base: str, path: Sequence[Template]) -> str:
    """Name of a bare value: the last key written as a constant, or the sink with its constant indices."""
    words = [t["constant"] for t in [*path, *_elements(path)] if "constant" in t]
    text = [w for w in words if isinstance(w, str)]
    if text:
        return text[-1]
    return "_".join([base, *(str(w) for w in words)])


def name_outputs(slots: Sequence[Slot], taken: set[str]) -> list[str]:
    """Give every leaf a name that is an identifier and nobody else's.

    Parameters
    ----------
    slots : sequence of Slot
        Their `outputs` are filled.
    taken : set of str
        Names of axes.
    """
    count: dict[str, int] = {}
    for slot in slots:
        for hint in set(slot.hints):
            count[hint] = count.get(hint, 0) + 1
    used = set(taken) | RESERVED
    names: list[str] = []
    for slot in slots:
        slot.outputs = []
        for hint in slot.hints:
            shared = count[hint] > 1 and slot.constants and hint not in slot.constants
            name = _unique(f"{hint}_{slot.constants[-1]}" if shared else hint, slot.base, used)
            used.add(name)
            slot.outputs.append(name)
            names.append(name)
    return names


def _unique(name: str, base: str, used: set[str]) -> str:
    name = re.sub(r"\W+", "_", name).strip("_") or base
    if not name.isidentifier():
        name = f"{base}_{name}"
    if keyword.iskeyword(name):
        name += "_"
    if name not in used:
        return name
    if base != name and f"{base}_{name}" not in used:
        return f"{base}_{name}"
    number = 1
    while f"{name}_{number}" in used:
        number += 1
    return f"{name}_{number}"


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
    return {name: value for name, value in found.items() if counts.get(name) == 1 and name not in stores([])}


def _is_key(node: ast.expr, known: set[str]) -> bool:
    if not isinstance(node, ast.Name | ast.JoinedStr | ast.Tuple | ast.BinOp | ast.Call):
        return False
    names = read_names(node)
    pure = all(isinstance(child, _PURE_NODES) for child in ast.walk(node))
    called = {callee(child) for child in ast.walk(node) if isinstance(child, ast.Call)}
    text = isinstance(node, ast.Name | ast.JoinedStr | ast.Tuple) or called <= {"str"}
    return pure and text and called <= _PURE_CALLS and names - set(dir(builtins)) <= known and bool(names)
