"""What each point gives to each sink: the places written, the shape of what is put there, the names of the outputs."""

import ast
import json
import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mce_notebook.declare.names import Write, callee, targets
from mce_notebook.declare.templates import RESERVED, Scope, Template, elements, name_of, own_name, pairs_of


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
        self.path = [_filled(step, leaves) for step in self.path]
        if len(self.hints) == 1 and re.fullmatch(rf"{re.escape(self.base)}_\d+", self.hints[0]) and not self.constants:
            # The only result of a row needs no number.
            self.hints[0] = self.base
        silent = any(all(isinstance(v, ast.Constant) and v.value is None for v in site.values) for site in self.sites)
        if silent and (self.dims or not self.always):
            # Nothing written and None written would look alike.
            self.mark()

    def mark(self, plain: Collection[str] = ()) -> None:
        """Add an output where there is nothing else to tell: that the slot was filled.

        Where all that is written is an axis of `plain`, or a counter, its value tells that as well.
        """
        self.hints.append(self.base)
        known = self.value.get("axis") in plain or not {"position", "counter"}.isdisjoint(self.value)
        for site in self.sites:
            always = known and self.always and not self.dims
            told = site.leaves[0][1] if always else ast.copy_location(ast.Constant(True), site.write)
            site.values.append(told)

    @property
    def constants(self) -> list[str]:
        """Constants of path and value, which tell it from its like."""
        parts = [*self.path, *elements(self.path), *elements([self.value])]
        return [str(t["constant"]) for t in parts if "constant" in t]


def _filled(value: Template, leaves: Sequence[Template]) -> Template:
    if "leaf" in value:
        return leaves[value["leaf"]]
    for kind in ("tuple", "list"):
        if kind in value:
            return {kind: [_filled(v, leaves) for v in value[kind]]}
    if "dict" in value:
        return {"dict": [[key, _filled(v, leaves)] for key, v in value["dict"]]}
    return value


def _shifted_keys(step: Template, by: int) -> Template:
    """Return a step with its computed keys numbered behind the leaves of the value."""
    if "key" in step:
        return {"leaf": step["key"] + by}
    return {"tuple": [_shifted_keys(t, by) for t in step["tuple"]]} if "tuple" in step else step


def turns_in_order(loops: Sequence[ast.For | ast.While], write: ast.stmt) -> tuple[str, ...]:
    """Return the name that counts the turns 0, 1, 2 of the one loop around a statement reached in every turn."""
    if len(loops) != 1 or not isinstance(loops[0], ast.For) or not any(s is write for s in loops[0].body):
        return ()
    loop = loops[0]
    if any(isinstance(n, ast.Continue | ast.Break) for n in ast.walk(loop)) or not isinstance(loop.iter, ast.Call):
        return ()
    name = callee(loop.iter)
    if name == "range" and len(loop.iter.args) == 1 and isinstance(loop.target, ast.Name):
        return (loop.target.id,)
    pair = isinstance(loop.target, ast.Tuple) and len(loop.target.elts) == 2 and len(loop.iter.args) == 1
    if name == "enumerate" and pair and not loop.iter.keywords and isinstance(loop.target, ast.Tuple):
        return tuple(n.id for n in targets(loop.target.elts[0]))
    return ()


def _dims(loops: Sequence[ast.For | ast.While]) -> tuple[str, ...]:
    """Return a name for the turns of each loop."""
    names = []
    for loop in loops:
        own = [n.id for n in targets(loop.target)] if isinstance(loop, ast.For) else []
        counted = isinstance(loop, ast.For) and callee(loop.iter) == "enumerate" and len(own) > 1
        name = own[1 if counted else 0] if own else "step"
        names.append("turn" if name == "_" else name)
    return tuple(names)


class Outline:
    """The slots of a point, found by following every way through its body.

    Parameters
    ----------
    scope : Scope
        Meaning of names.
    plain : collection of str
        Axes whose values are of one kind that can be an output.
    """

    def __init__(self, scope: Scope, plain: Collection[str] = ()):
        self.scope = scope
        self.plain = plain
        self.slots: list[Slot] = []
        self.ends: dict[int, bool] = {}
        self._ends: list[frozenset[int]] = []
        self._keys: dict[str, int] = {}
        self._loops: list[ast.For | ast.While] = []
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
            self.slots[0].mark(self.plain)

    def slot_of(self, write: Write) -> tuple[Slot, "Site"] | None:
        """Return the slot a statement fills and what it fills it with, None where control never gets."""
        return next(((slot, site) for slot in self.slots for site in slot.sites if site.write is write), None)

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
        self._depth += 1
        self._loops.append(node)
        after = _join([state, self._block(node.body, state)])
        self._loops.pop()
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
        site = Site(node)
        name = own_name(node.base, [self.scope.key(step, ()) for step in node.path])
        places: list[str] = []

        def computed(key: ast.expr) -> Template:
            # A place that only the point knows is kept beside the value.
            places.append(ast.unparse(key))
            keys.append((None, key, name_of(key) or f"{node.base}_key"))
            return {"key": len(keys) - 1}

        keys: list[tuple[Template | None, ast.expr, str]] = []
        path = [self.scope.key(step, turns_in_order(self._loops, node), computed) for step in node.path]
        if node.op == "extend":
            site.leaves.append((None, node.value, name))
            value: Template = {"leaf": 0}
        else:
            value = self._value(node.value, site, name, top=True)
        path = [_shifted_keys(step, len(site.leaves)) for step in path]
        site.leaves += keys
        place = json.dumps([path, places])
        dims = () if node.op == "set" and not places and '"dim"' not in place else _dims(self._loops)
        turn = "" if dims or node.op == "set" else str(state.counts.get(node.base + place, 0))
        key = "|".join([node.base, node.op, place, turn, json.dumps(value), *dims])
        number = self._keys.setdefault(key, len(self.slots))
        if number == len(self.slots):
            self.slots.append(Slot(node.base, node.op, path, value, dims))
        self.slots[number].sites.append(site)
        if dims:
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
        pairs = pairs_of(node)
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
    used = set(taken) | RESERVED | {"_".join(slot.dims) for slot in slots}
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
