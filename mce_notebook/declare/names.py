"""Which names statements read, bind and change; the questions that decide whether points are independent."""

import ast
from collections.abc import Iterable, Iterator, Sequence

_MUTATORS = {
    "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "fill", "insert", "pop", "popitem",
    "popleft", "remove", "reverse", "setdefault", "sort", "update",
}  # fmt: skip

_Scope = ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Write(ast.stmt):
    """A statement that puts a result of the point into a sink; it never reaches the compiler.

    Attributes
    ----------
    base : str
        The sink.
    op : {"append", "extend", "set"}
        What was done with `value` at the end of the path.
    path : list of ast.expr
        Subscripts from the sink inwards, one per pair of brackets.
    value : ast.expr
        What was written.
    """

    _fields = ("path", "value")
    _attributes = ("lineno", "col_offset", "end_lineno", "end_col_offset")
    base: str
    op: str
    path: list[ast.expr]
    value: ast.expr

    @classmethod
    def at(cls, node: ast.stmt, base: str, op: str, path: list[ast.expr], value: ast.expr) -> "Write":
        """Make a write in the place of a statement."""
        write = cls()
        write.base, write.op, write.path, write.value = base, op, path, value
        return ast.copy_location(write, node)


class Group(ast.expr):
    """A step of a path: the list made anew for every combination of the first `depth` levels."""

    _fields = ()
    depth: int


def root(node: ast.AST) -> ast.Name | None:
    """Return the name at the left end of ``a.b[c].d``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node if isinstance(node, ast.Name) else None


def callee(node: ast.AST) -> str:
    """Dotted name of what a call calls, empty when it has none."""
    return dotted(node.func) if isinstance(node, ast.Call) else ""


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a chain of attributes, empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def targets(node: ast.AST) -> Iterator[ast.Name]:
    """Names bound by an assignment target."""
    if isinstance(node, ast.Name):
        yield node
    elif isinstance(node, ast.Tuple | ast.List):
        for element in node.elts:
            yield from targets(element)
    elif isinstance(node, ast.Starred):
        yield from targets(node.value)


def reads(node: ast.AST | Iterable[ast.AST]) -> Iterator[ast.Name]:
    """Names looked up outside, in order of appearance; inner scopes keep their own names."""
    if not isinstance(node, ast.AST):
        for each in node:
            yield from reads(each)
        return
    if isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Store):
            yield node
        return
    inner = _bound_inside(node)
    for child in ast.iter_child_nodes(node):
        yield from (name for name in reads(child) if name.id not in inner)
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        yield node.target


def read_names(node: ast.AST | Iterable[ast.AST]) -> set[str]:
    """Return the same as a set of strings."""
    return {name.id for name in reads(node)}


def _bound_inside(node: ast.AST) -> set[str]:
    if isinstance(node, _Comprehension):
        return {name.id for g in node.generators for name in targets(g.target)}
    if isinstance(node, _Scope):
        arguments = node.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        own = {a.arg for a in every if a is not None}
        return own if isinstance(node, ast.Lambda) else own | stores(node.body) | {node.name}
    if isinstance(node, ast.ClassDef):
        return stores(node.body)
    return set()


def stores(node: ast.AST | Iterable[ast.AST]) -> set[str]:
    """Names bound in this scope by the statements."""
    return {name for name, _ in bindings(node)}


def bindings(node: ast.AST | Iterable[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Names bound in this scope, each with the node that binds it."""
    if not isinstance(node, ast.AST):
        for each in node:
            yield from bindings(each)
        return
    yield from ((name, node) for name in _bound_by(node))
    if isinstance(node, ast.Lambda | _Comprehension):
        # A walrus inside still binds outside.
        yield from ((child.target.id, child) for child in ast.walk(node) if isinstance(child, ast.NamedExpr))
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            yield from bindings(child)


def _bound_by(node: ast.AST) -> list[str]:
    """Return the names that a node itself binds."""
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store | ast.Del) else []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    return [node.name] if isinstance(node, ast.ExceptHandler) and node.name else []


def mutations(node: ast.AST | Iterable[ast.AST]) -> Iterator[tuple[str, ast.AST, bool]]:
    """Objects visibly changed in place: name, the statement or call, and whether it is through a method."""
    if not isinstance(node, ast.AST):
        for each in node:
            yield from mutations(each)
        return
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute | ast.Subscript) and isinstance(child.ctx, ast.Store | ast.Del):
            name = root(child)
            if name is not None:
                yield name.id, child, False
        elif isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr in _MUTATORS:
            name = root(child.func.value)
            if name is not None:
                yield name.id, child, True


def exposed(statements: Sequence[ast.stmt], known: Iterable[str] = ()) -> dict[str, ast.Name]:
    """Names that may be read before the statements themselves bind them, each with its first such reading."""
    flow = _Flow()
    flow.block(statements, set(known))
    return flow.found


class _Flow:
    """Definite assignment along the statements. Loops count as run at least once: the rest is the user's bug."""

    def __init__(self) -> None:
        self.found: dict[str, ast.Name] = {}

    def block(self, statements: Sequence[ast.stmt], known: set[str]) -> set[str] | None:
        """Names bound after the statements, None where control does not get there."""
        for statement in statements:
            after = self.statement(statement, known)
            if after is None:
                return None
            known = after
        return known

    def look(self, node: ast.AST | None, known: set[str]) -> None:
        if node is None:
            return
        for name in reads(node):
            if name.id not in known:
                self.found.setdefault(name.id, name)

    def statement(self, node: ast.stmt, known: set[str]) -> set[str] | None:
        if isinstance(node, ast.If):
            return self._if(node, known)
        if isinstance(node, ast.For | ast.AsyncFor):
            self.look(node.iter, known)
            inside = self.block(node.body, known | stores(node.target))
            after = inside if inside is not None else known | stores(node.target)
            return self.block(node.orelse, after) if node.orelse else after
        if isinstance(node, ast.While):
            self.look(node.test, known)
            inside = self.block(node.body, known | stores(node.test))
            return inside if inside is not None else known
        if isinstance(node, ast.Try | ast.TryStar):
            return self._try(node, known)
        if isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self.look(item.context_expr, known)
            return self.block(node.body, known | {n for i in node.items for n in stores(i)})
        if isinstance(node, ast.Match):
            return self._match(node, known)
        self.look(node, known)
        if isinstance(node, ast.Continue | ast.Break | ast.Return | ast.Raise):
            return None
        return known | stores(node)

    def _if(self, node: ast.If, known: set[str]) -> set[str] | None:
        self.look(node.test, known)
        known = known | stores(node.test)
        return _meet([self.block(node.body, known), self.block(node.orelse, known)])

    def _try(self, node: ast.Try | ast.TryStar, known: set[str]) -> set[str] | None:
        whole = self.block([*node.body, *node.orelse], known)
        ends = [whole]
        ends += [self.block(h.body, known | ({h.name} if h.name else set())) for h in node.handlers]
        after = _meet(ends)
        if node.finalbody:
            ended = self.block(node.finalbody, after if after is not None else known)
            return None if after is None else ended
        return after

    def _match(self, node: ast.Match, known: set[str]) -> set[str] | None:
        self.look(node.subject, known)
        ends: list[set[str] | None] = [known]
        for case in node.cases:
            bound = known | {
                p.name
                for p in ast.walk(case.pattern)
                if isinstance(p, ast.MatchAs | ast.MatchStar) and p.name is not None
            }
            self.look(case.guard, bound)
            ends.append(self.block(case.body, bound))
        return _meet(ends)


def _meet(ends: Sequence[set[str] | None]) -> set[str] | None:
    alive = [end for end in ends if end is not None]
    return set.intersection(*alive) if alive else None
