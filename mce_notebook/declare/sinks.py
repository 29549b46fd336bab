"""Where a cell puts its results: the statements that write into objects made before the loops."""

import ast
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mce_notebook.declare.names import Group, Write, bindings, callee, read_names, reads, root, stores, targets
from mce_notebook.declare.nesting import Level, Problem, is_empty_list, row_stored

_LIST_CALLS = {"list", "deque", "collections.deque"}


@dataclass
class Sinks:
    """The sinks of a cell and the steps that lead to them.

    Parameters
    ----------
    bases : set of str
        Names bound before the loops that the loops only write to.
    rows : dict of str to (str, list of ast.expr)
        Lists begun anew for every outer value: the sink they end up in and the path to them.
    made : list of (str, list of ast.expr, str, int)
        Containers put into a sink between the loops: sink, path, kind, levels around.
    """

    bases: set[str]
    rows: dict[str, tuple[str, list[ast.expr]]] = field(default_factory=dict)
    made: list[tuple[str, list[ast.expr], str, int]] = field(default_factory=list)

    def path(self, node: ast.expr) -> tuple[str, list[ast.expr]] | None:
        """Sink and steps of ``base[a][b]``, ``row`` or ``base.setdefault(a, [])``."""
        if isinstance(node, ast.Name):
            if node.id in self.rows:
                base, steps = self.rows[node.id]
                return base, list(steps)
            return (node.id, []) if node.id in self.bases else None
        if isinstance(node, ast.Subscript):
            inner = self.path(node.value)
            return None if inner is None else (inner[0], [*inner[1], node.slice])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setdefault":
            inner = self.path(node.func.value)
            return None if inner is None or not node.args else (inner[0], [*inner[1], node.args[0]])
        return None


def head_bindings(head: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    """Return what plain assignments above the loops bind, the last one of each name."""
    found: dict[str, ast.expr] = {}
    for statement in head:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            found[statement.target.id] = statement.value
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name):
                found[target.id] = statement.value
            elif isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                for name, value in zip(target.elts, statement.value.elts, strict=False):
                    if isinstance(name, ast.Name):
                        found[name.id] = value
    return found


def is_list(node: ast.expr | None) -> bool:
    """Whether an expression makes a list, as far as its form tells."""
    if isinstance(node, ast.BinOp):
        return is_list(node.left) or is_list(node.right)
    return isinstance(node, ast.List | ast.ListComp) or (node is not None and callee(node) in _LIST_CALLS)


def find_sinks(levels: Sequence[Level], head: Mapping[str, ast.expr]) -> Sinks:
    """Names that the loops write to and that nothing inside them binds.

    Rows put away between the loops are followed to the sink they end up in.
    """
    loop = levels[0].node
    own = _own_forms(loop, head)
    bound = {name for name, node in bindings(loop) if id(node) not in own}
    sinks = Sinks({name for name in _written(loop, head) if name not in bound})
    for depth, level in enumerate(levels, 1):
        for statement in level.after:
            name = row_stored(statement)
            place = _place(statement, sinks)
            if name is None or place is None:
                continue
            group = Group()
            group.depth = depth
            base, steps = place
            sinks.rows[name] = (base, [*steps, group] if _is_append(statement) else steps)
            if not _is_append(statement):
                sinks.made.append((base, steps, "list", depth))
    return sinks


def _is_append(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr)


def _place(node: ast.stmt, sinks: Sinks) -> tuple[str, list[ast.expr]] | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        return sinks.path(node.value.func.value)
    return sinks.path(node.targets[0]) if isinstance(node, ast.Assign) else None


def _own_forms(loop: ast.For, head: Mapping[str, ast.expr]) -> set[int]:
    """Bindings that only add to a list: ``rows += […]`` and ``rows = rows + […]``."""
    found: set[int] = set()
    for node in ast.walk(loop):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and isinstance(node.op, ast.Add):
            if is_list(node.value) or is_list(head.get(node.target.id)):
                found.add(id(node.target))
        elif isinstance(node, ast.Assign) and _added(node) is not None:
            found.add(id(node.targets[0]))
    return found


def _added(node: ast.Assign) -> ast.expr | None:
    """Return the list of ``rows = rows + […]``."""
    if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name) or not isinstance(node.value, ast.BinOp):
        return None
    left = node.value.left
    same = isinstance(left, ast.Name) and left.id == node.targets[0].id
    return node.value.right if same and isinstance(node.value.op, ast.Add) and is_list(node.value.right) else None


def _written(loop: ast.For, head: Mapping[str, ast.expr]) -> Iterable[str]:
    for node in ast.walk(loop):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            yield from _base(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _called(node.value, head)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            if is_list(node.value) or is_list(head.get(node.target.id)):
                yield node.target.id
        elif isinstance(node, ast.Assign) and _added(node) is not None:
            yield from (n.id for n in targets(node.targets[0]))


def _called(node: ast.Call, head: Mapping[str, ast.expr]) -> Iterable[str]:
    if not isinstance(node.func, ast.Attribute):
        return
    known = {"append", "extend"}
    base = root(node.func.value)
    if base is not None and node.func.attr in {"update", "add"} and isinstance(node.func.value, ast.Name):
        made = head.get(base.id)
        if isinstance(made, ast.Dict) or (made is not None and callee(made) in {"dict", "set"}):
            known |= {"update", "add"}
    if node.func.attr in known:
        yield from _base(node.func.value)


def _base(node: ast.expr) -> Iterable[str]:
    """Return the name under subscripts alone; an attribute on the way is somebody's state."""
    while isinstance(node, ast.Subscript) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setdefault"
    ):
        node = node.value if isinstance(node, ast.Subscript) else _receiver(node)
    if isinstance(node, ast.Name):
        yield node.id


def _receiver(node: ast.Call) -> ast.expr:
    assert isinstance(node.func, ast.Attribute)
    return node.func.value


class Extraction:
    """Replaces statements that write to a sink by `Write` nodes."""

    def __init__(self, sinks: Sinks):
        self.sinks = sinks
        self.temporaries = 0

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Return the statements with every writing one replaced."""
        return [new for statement in statements for new in self.statement(statement)]

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        """Return what one statement becomes."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self._call(node, node.value)
        if isinstance(node, ast.Assign):
            return self._assign(node)
        if isinstance(node, ast.AugAssign):
            return self._augmented(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return [node]
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if block:
                setattr(node, name, self.block(block))
        for child in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            child.body = self.block(child.body)
        return [node]

    def _write(self, node: ast.stmt, op: str, place: tuple[str, list[ast.expr]], value: ast.expr) -> Write:
        return Write.at(node, place[0], op, place[1], value)

    def _call(self, node: ast.stmt, call: ast.Call) -> list[ast.stmt]:
        if not isinstance(call.func, ast.Attribute):
            return [node]
        place = self.sinks.path(call.func.value)
        if place is None or len(call.args) + len(call.keywords) < 1:
            return [node]
        if call.func.attr in {"append", "add"} and len(call.args) == 1:
            return [self._write(node, "append", place, call.args[0])]
        if call.func.attr == "extend" and len(call.args) == 1:
            return self._extend(node, place, call.args[0])
        if call.func.attr == "update":
            return self._update(node, place, call)
        return [node]

    def _extend(self, node: ast.stmt, place: tuple[str, list[ast.expr]], value: ast.expr) -> list[ast.stmt]:
        if isinstance(value, ast.List | ast.Tuple) and not any(isinstance(e, ast.Starred) for e in value.elts):
            return [self._write(node, "append", (place[0], list(place[1])), e) for e in value.elts]
        return [self._write(node, "extend", place, value)]

    def _update(self, node: ast.stmt, place: tuple[str, list[ast.expr]], call: ast.Call) -> list[ast.stmt]:
        pairs: list[tuple[ast.expr, ast.expr]] = []
        for argument in call.args:
            if not isinstance(argument, ast.Dict) or any(k is None for k in argument.keys):
                return [node]
            pairs += [(k, v) for k, v in zip(argument.keys, argument.values, strict=True) if k is not None]
        for keyword in call.keywords:
            if keyword.arg is None:
                return [node]
            pairs.append((ast.copy_location(ast.Constant(keyword.arg), keyword.value), keyword.value))
        return [self._write(node, "set", (place[0], [*place[1], k]), v) for k, v in pairs]

    def _assign(self, node: ast.Assign) -> list[ast.stmt]:
        added = _added(node)
        if added is not None and isinstance(node.targets[0], ast.Name):
            place = self.sinks.path(node.targets[0])
            if place is not None:
                return self._extend(node, place, added)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
            place = self.sinks.path(node.targets[0])
            return [node] if place is None else [self._write(node, "set", place, node.value)]
        writes: list[ast.stmt] = []
        node.targets = [self._retarget(t, node, writes) for t in node.targets]
        return [node, *writes]

    def _retarget(self, target: ast.expr, node: ast.Assign, writes: list[ast.stmt]) -> ast.expr:
        """Return a target without subscripts of sinks; what they receive goes through a local name."""
        if isinstance(target, ast.Tuple | ast.List):
            target.elts = [self._retarget(e, node, writes) for e in target.elts]
            return target
        place = self.sinks.path(target) if isinstance(target, ast.Subscript) else None
        if place is None:
            return target
        name = f"_mce_part_{self.temporaries}"
        self.temporaries += 1
        value = ast.copy_location(ast.Name(name, ast.Load()), target)
        writes.append(self._write(node, "set", place, value))
        return ast.copy_location(ast.Name(name, ast.Store()), target)

    def _augmented(self, node: ast.AugAssign) -> list[ast.stmt]:
        place = self.sinks.path(node.target)
        if place is None:
            return [node]
        if isinstance(node.op, ast.Add) and (isinstance(node.target, ast.Name) or is_list(node.value)):
            return self._extend(node, place, node.value)
        raise Problem(
            "accumulate",
            node,
            f"`{ast.unparse(node.target)}` adds up the results of several points.",
            "Let every point keep its own result, and add up after the loops.",
            name=place[0],
        )


def take_rows(level: Level, sinks: Sinks, depth: int) -> None:
    """Take ``row = []`` and the empty containers put into sinks out of what stands between the loops."""
    kept: list[ast.stmt] = []
    for statement in level.before:
        if any(is_empty_list(statement, name) for name in sinks.rows):
            continue
        made = containers_made(statement, sinks)
        if not made:
            kept.append(statement)
        sinks.made += [(*one, depth) for one in made]
    level.before = kept


Made = tuple[str, list[ast.expr], str]


def containers_made(node: ast.stmt, sinks: Sinks) -> list[Made]:
    """Find ``D[a] = {}``, ``D[a] = {"x": [], "y": []}`` and their like, also behind ``if a not in D``."""
    if isinstance(node, ast.If) and not node.orelse and len(node.body) == 1:
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.NotIn):
            over = sinks.path(test.comparators[0])
            return containers_made(node.body[0], sinks) if over is not None else []
        return []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and callee(node.value).endswith(".setdefault"):
        place = sinks.path(node.value)
        return _made_at(place, node.value.args[1]) if len(node.value.args) > 1 else []
    if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Subscript):
        return []
    return _made_at(sinks.path(node.targets[0]), node.value)


def _made_at(place: tuple[str, list[ast.expr]] | None, value: ast.expr) -> list[Made]:
    """List the containers that an expression puts into a place, outermost first."""
    if place is None:
        return []
    kind = container_kind(value)
    if kind:
        return [(*place, kind)]
    if not isinstance(value, ast.Dict):
        return []
    found: list[Made] = [(*place, "dict")]
    for key, inner in zip(value.keys, value.values, strict=True):
        below = _made_at((place[0], [*place[1], key]), inner) if isinstance(key, ast.Constant) else []
        if not below:
            return []
        found += below
    return found


def container_kind(node: ast.expr) -> str:
    """``list``, ``dict`` or ``set`` for an expression that makes an empty one, else nothing."""
    if isinstance(node, ast.List) and not node.elts:
        return "list"
    if isinstance(node, ast.Dict) and not node.keys:
        return "dict"
    name = callee(node).rpartition(".")[2]
    if name in {"list", "set"} and isinstance(node, ast.Call) and not node.args:
        return name
    if name in {"dict", "OrderedDict", "Counter"} and isinstance(node, ast.Call) and not node.args:
        return "dict"
    if name == "defaultdict":
        return "dict"
    return ""


def check_reads(sinks: Sinks, statements: Sequence[ast.AST]) -> None:
    """Refuse a sink that the loops also read, after its writes were taken out."""
    names = sinks.bases | sinks.rows.keys()
    for name in reads(statements):
        if name.id in names:
            raise Problem(
                "reads",
                name,
                f"`{name.id}` is written by some points and read by others, so they cannot run on their own.",
                f"Read `{name.id}` after the loops.",
                name=name.id,
            )


def copied(node: ast.stmt) -> ast.stmt:
    """Return a private copy of a statement, so that one attempt at reading a cell leaves no trace in the next."""
    return copy.deepcopy(node)


def rebinds(statements: Sequence[ast.AST], name: str) -> bool:
    """Whether the statements give a name another value."""
    return name in stores(statements)


def uses(statements: Sequence[ast.AST], name: str) -> bool:
    """Whether the statements look a name up."""
    return name in read_names(statements)
