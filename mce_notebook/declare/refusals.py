"""Refusals: the line, the cause, and the rewritten cell that would be accepted."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mce_notebook.declare.lifting import LIFTS
from mce_notebook.declare.names import bindings, callee, mutations, read_names, stores, targets
from mce_notebook.declare.nesting import Level, Problem, descend, find_noise
from mce_notebook.declare.rewriting import Edits
from mce_notebook.declare.sinks import head_bindings
from mce_notebook.errors import LoopError


@dataclass(frozen=True)
class Offer:
    """A rewriting of the cell that would make more of it.

    Parameters
    ----------
    title : str
        What it does, one sentence.
    line : int
        Line of the cell it is about.
    cell : str
        The cell as it would be.
    """

    title: str
    line: int
    cell: str


def refusal(problem: Problem, source: str, first_line: int, after: str = "") -> LoopError:
    """Make the error a person meets."""
    line = int(getattr(problem.node, "lineno", 1)) + first_line - 1
    return LoopError(problem.cause, line, problem.fix, source, after)


class Page:
    """A cell being rewritten: its text, tree, outermost loop and the chain below it.

    Parameters
    ----------
    source : str
        The cell.
    tree : ast.Module
        Its tree, whose nodes are not shared with any reading.
    number : int
        Which statement is the outermost loop.
    problem : Problem
        What is wrong; its node comes from another tree of the same text.
    """

    def __init__(self, source: str, tree: ast.Module, number: int, problem: Problem):
        self.source, self.tree, self.problem = source, tree, problem
        self.edits = Edits(source, tree)
        self.head, self.tail = tree.body[:number], tree.body[number + 1 :]
        loop = tree.body[number]
        assert isinstance(loop, ast.For)
        self.loop = loop
        self.made = head_bindings(self.head)

    @property
    def levels(self) -> list[Level]:
        """The chain of loops as its form gives it."""
        return descend(self.loop, find_noise(self.head, self.loop), None)

    @property
    def variables(self) -> list[str]:
        """Loop variables that say which point a result belongs to."""
        names = [n.id for level in self.levels for n in targets(level.node.target)]
        return [name for name in dict.fromkeys(names) if name != "_"]

    def statement(self) -> ast.stmt:
        """Find the innermost statement around the problem."""
        line, column = _position(self.problem.node)
        found: ast.stmt = self.loop
        for node in ast.walk(self.tree):
            if isinstance(node, ast.stmt) and _contains(node, line, column) and node.lineno >= found.lineno:
                found = node
        return found

    def free(self, name: str) -> str:
        """Find a name like `name` that the cell does not use."""
        used = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name)}
        number = 2
        candidate = name
        while candidate in used:
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def rename(self, where: ast.AST, old: str, new: str) -> None:
        """Replace a name below a node."""
        for node in ast.walk(where):
            if isinstance(node, ast.Name) and node.id == old:
                self.edits.replace(node, new)


def _contains(node: ast.stmt, line: int, column: int) -> bool:
    begin, end = (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or 0)
    return begin <= (line, column) < end


Rewrite = Callable[[Page], str]


def rewritten(problem: Problem, source: str, tree: ast.Module) -> str:
    """Write the cell as it should be, empty where only the author can know."""
    lift = LIFTS.get(problem.kind)
    if lift is not None:
        return lift(source, tree, problem)
    rewrite = _REWRITES.get(problem.kind)
    if rewrite is None:
        return ""
    loops = [n for n, s in enumerate(tree.body) if isinstance(s, ast.For)]
    number = next((n for n in loops if _contains(tree.body[n], *_position(problem.node))), loops[0] if loops else -1)
    return rewrite(Page(source, tree, number, problem)) if loops else ""


def _position(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 1), getattr(node, "col_offset", 0)


def _keep_rows(page: Page) -> str:
    """Let every point append its own result, with the loop variables that tell it apart."""
    statement = page.statement()
    if not isinstance(statement, ast.Assign | ast.AugAssign):
        return ""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    if not isinstance(target, ast.Subscript | ast.Name):
        return ""
    rows = page.free(f"{page.problem.name}_rows")
    keys = list(page.variables)
    if isinstance(target, ast.Subscript):
        index = target.slice.elts if isinstance(target.slice, ast.Tuple) else [target.slice]
        keys += [k for k in map(page.edits.text, index) if k not in keys and ":" not in k]
    value = page.edits.text(statement.value)
    page.edits.replace(statement, f"{rows}.append(({', '.join([*keys, value])}))")
    page.edits.before(page.loop, f"{rows} = []")
    if isinstance(statement, ast.AugAssign):
        names = [key if key.isidentifier() else f"key_{n}" for n, key in enumerate(keys)]
        operator = page.edits.text(statement)[len(page.edits.text(target)) :].split("=")[0].strip()
        place = page.edits.text(target)
        for key, name in zip(keys, names, strict=True):
            place = place.replace(key, name) if not key.isidentifier() else place
        page.edits.after(page.loop, f"for {', '.join([*names, 'part'])} in {rows}:\n    {place} {operator}= part")
    return page.edits.apply()


def _start_inside(page: Page) -> str:
    """Give a carried name its first value inside the loop."""
    name = page.problem.name
    first = page.loop.body[0]
    made = page.made.get(name)
    simple = made is not None and not (read_names(made) & stores(page.loop))
    if made is not None and simple:
        page.edits.before(first, f"{name} = {page.edits.text(made)}")
    else:
        start = page.free(f"{name}_start")
        page.edits.before(page.loop, f"{start} = {name}")
        page.edits.before(first, f"{name} = {start}")
    return page.edits.apply()


def _copy_inside(page: Page) -> str:
    """Let every point change a copy."""
    name = page.problem.name
    own = page.free(f"{name}_here")
    inner = page.levels[-1].node
    body = inner.body[0]
    inside = {id(n) for s in inner.body for n in ast.walk(s)}
    if any(isinstance(n, ast.Name) and n.id == name and id(n) not in inside for n in ast.walk(page.loop)):
        body = page.loop.body[0]
    for statement in page.loop.body:
        page.rename(statement, name, own)
    page.edits.before(body, f"{own} = copy.deepcopy({name})")
    if "copy" not in stores(page.head):
        page.edits.top("import copy")
    return page.edits.apply()


def _replicate(page: Page) -> str:
    """Take a generator from `replicates` instead of threading one through the points."""
    name = page.problem.name
    inner = page.levels[-1].node
    makers = [s for s in ast.walk(page.tree) if isinstance(s, ast.Assign) and _binds(s, name)]
    others = [s for s in page.head if s not in makers and name in read_names(s)]
    for maker in makers:
        if maker not in page.head or not others:
            page.edits.delete(maker)
    count = _repetitions(inner)
    if count is not None:
        page.edits.replace(inner.target, name)
        page.edits.replace(inner.iter, f"replicates({page.edits.text(count)})")
    else:
        first = next((s for s in inner.body if s not in makers), inner.body[0])
        if first.lineno == inner.lineno:
            return ""
        page.edits.before(first, f"for {name} in replicates(1):").deeper([first, inner.body[-1]])
    if "replicates" not in stores(page.head):
        page.edits.top("from mce_notebook import replicates")
    return page.edits.apply()


def _binds(node: ast.Assign, name: str) -> bool:
    return len(node.targets) == 1 and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name


def _repetitions(node: ast.For) -> ast.expr | None:
    """Return the R of ``for trial in range(R)`` where nothing reads the counter."""
    if not isinstance(node.target, ast.Name) or node.target.id in read_names(node.body):
        return None
    if isinstance(node.iter, ast.Call) and callee(node.iter) == "range" and len(node.iter.args) == 1:
        return node.iter.args[0]
    return None


def _read_after(page: Page) -> str:
    """Move what reads the results out of the loops, or leave the warm start away."""
    name = page.problem.name
    for node in ast.walk(page.loop):
        if isinstance(node, ast.IfExp) and name in read_names(node.test):
            cold = node.body if isinstance(node.test, ast.UnaryOp) else node.orelse
            return page.edits.replace(node, page.edits.text(cold)).apply()
        if isinstance(node, ast.Call):
            warm = [k for k in node.keywords if k.arg and name in read_names(k.value)]
            if warm and not isinstance(node.func, ast.Name | ast.Attribute):
                return ""
            if warm and isinstance(page.statement(), ast.Assign):
                kept = [*map(page.edits.text, node.args)]
                kept += [page.edits.text(k) for k in node.keywords if k not in warm]
                return page.edits.replace(node, f"{page.edits.text(node.func)}({', '.join(kept)})").apply()
    statement = page.statement()
    while (around := _around(page.loop, statement)) is not None and around is not page.loop:
        if isinstance(around, ast.For):
            break
        statement = around
    moved = statement.body if isinstance(statement, ast.If) and not statement.orelse else [statement]
    if not all(_movable(s, page.loop) for s in moved):
        return ""
    texts = [_dedented(page.edits.text(s), page.edits.indentation(s)) for s in moved]
    return page.edits.delete(statement).after(page.loop, "\n".join(texts)).apply()


def _around(tree: ast.stmt, node: ast.stmt) -> ast.stmt | None:
    """Return the statement directly around another."""
    for parent in ast.walk(tree):
        if isinstance(parent, ast.stmt) and any(child is node for child in ast.iter_child_nodes(parent)):
            return parent
    return None


def _movable(node: ast.stmt, loop: ast.For) -> bool:
    """Whether a statement can follow the loops: it needs nothing of one point, and nothing in them needs it."""
    if any(isinstance(n, ast.Continue | ast.Break | ast.Return) for n in ast.walk(node)):
        return False
    bound = {name for name, _ in bindings(node)}
    if read_names(node) & (stores(loop) - bound) or any(True for _ in mutations(node)):
        return False
    inside = {id(n) for n in ast.walk(node)}
    rest = (n for n in ast.walk(loop) if isinstance(n, ast.Name) and id(n) not in inside)
    return not any(n.id in bound for n in rest)


def _dedented(text: str, margin: str) -> str:
    return "\n".join(line.removeprefix(margin) for line in text.splitlines())


def _no_best(page: Page) -> str:
    """Leave the search for the best out; the value it compares is the result."""
    statement = page.statement()
    if isinstance(statement, ast.Assign):
        return _no_running(page, statement)
    while isinstance(around := _around(page.loop, statement), ast.If):
        statement = around
    if not isinstance(statement, ast.If):
        return ""
    compared = [n for n in ast.walk(statement.test) if isinstance(n, ast.Name) and n.id != page.problem.name]
    inside = stores(page.loop)
    value = next((n.id for n in compared if n.id in inside), "")
    if not value:
        return ""
    page.edits.delete(statement)
    last = page.levels[-1].node.body[-1]
    writes = _writes(page, statement)
    if not writes:
        if last is statement:
            page.edits.before(statement, value)
        else:
            page.edits.after(last, value)
    place = "argmin" if any(isinstance(n, ast.Lt | ast.LtE) for n in ast.walk(statement.test)) else "argmax"
    page.edits.after(page.loop, f'# NAME.dataset["{value}"].{place}(...) finds the best afterwards')
    return page.edits.apply()


def _no_running(page: Page, statement: ast.Assign) -> str:
    """``low = min(low, f(n))`` -> the value alone."""
    assert isinstance(statement.value, ast.Call)
    values = [a for a in statement.value.args if page.problem.name not in read_names(a)]
    if len(values) != 1:
        return ""
    name = page.free(f"{page.problem.name}_value")
    page.edits.replace(statement, f"{name} = {page.edits.text(values[0])}")
    last = page.levels[-1].node.body[-1]
    if not _writes(page, statement):
        page.edits.after(last, name)
    return page.edits.apply()


def _writes(page: Page, without: ast.stmt) -> bool:
    """Whether some other statement of the loops puts a result into something made above."""
    outside = {id(n) for n in ast.walk(without)}
    for node in ast.walk(page.loop):
        if id(node) in outside:
            continue
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            return True
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"append", "extend"}
        ):
            return True
    return False


def _continue(page: Page) -> str:
    statement = page.statement()
    return page.edits.replace(statement, "continue").apply() if isinstance(statement, ast.Break) else ""


def _delete(page: Page) -> str:
    return page.edits.delete(page.statement()).apply()


def _rename_axis(page: Page) -> str:
    """Call the inner of two loops of one name, or a loop of a reserved one, differently."""
    name = page.problem.name
    loops = [level.node for level in page.levels if name in {n.id for n in targets(level.node.target)}]
    if not loops:
        return ""
    inner = loops[-1]
    new = page.free(f"{name}_value" if page.problem.kind == "reserved" else f"{name}_inner")
    page.rename(inner.target, name, new)
    for statement in inner.body:
        page.rename(statement, name, new)
    return page.edits.apply()


def _else_after(page: Page) -> str:
    """Put what stands under `else` after the loops."""
    loop = next(level for level in ast.walk(page.loop) if isinstance(level, ast.For) and level.orelse)
    if loop is not page.loop:
        return ""
    lines = page.source.splitlines(keepends=True)
    first = loop.orelse[0].lineno
    keyword = next(n for n in range(first - 1, 0, -1) if lines[n - 1].lstrip().startswith("else"))
    margin = page.edits.indentation(loop.orelse[0])
    last = loop.end_lineno or first
    body = [
        _dedented(line, margin) + ("" if line.endswith("\n") is False else "\n") for line in lines[first - 1 : last]
    ]
    return "".join([*lines[: keyword - 1], *body, *lines[last:]])


def _first_only(page: Page) -> str:
    """End the cell before its second sweep."""
    lines = page.source.splitlines(keepends=True)
    return "".join(lines[: page.problem.node.lineno - 1])  # type: ignore[attr-defined]


def _name_results(page: Page) -> str:
    """End the body with the names of what it only prints, plots, saves or computes."""
    level = page.levels[-1]
    last = level.node.body[-1]
    known = set(page.variables)
    shown = [s for s in level.node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    names: list[str] = []
    for statement in shown:
        assert isinstance(statement.value, ast.Call)
        for argument in _shown(statement.value):
            text = page.edits.text(argument) if hasattr(argument, "lineno") else ""
            if isinstance(argument, ast.Name):
                names += [argument.id] if argument.id not in known else []
            elif isinstance(argument, ast.Call) and text and not names:
                page.edits.before(statement, f"result = {text}").replace(argument, "result")
                names.append("result")
    if not names:
        assigned = [n for s in level.node.body for n, _ in bindings(s)]
        names = [assigned[-1]] if assigned else []
    if not names and shown:
        return (
            page.edits.replace(shown[-1], f"result = {page.edits.text(shown[-1])}")
            .after(last, "result", margin=page.edits.indentation(last))
            .apply()
        )
    if not names:
        return ""
    if last.lineno == level.node.lineno:
        return ""
    found = list(dict.fromkeys(names))
    return page.edits.after(last, ", ".join(found)).apply()


def _shown(call: ast.Call) -> Sequence[ast.expr]:
    """Expressions whose values a call shows."""
    found: list[ast.expr] = []
    for argument in (*call.args, *(k.value for k in call.keywords)):
        if isinstance(argument, ast.JoinedStr):
            found += [part.value for part in argument.values if isinstance(part, ast.FormattedValue)]
        elif isinstance(argument, ast.Dict):
            found += argument.values
        elif isinstance(argument, ast.List | ast.Tuple):
            found += argument.elts
        else:
            found.append(argument)
    return found


def _enumerate(page: Page) -> str:
    """``k += 1`` -> ``enumerate``, where there is one loop to count."""
    step = page.statement()
    if len(page.levels) > 1 or not isinstance(step, ast.AugAssign):
        return ""
    name = page.problem.name
    made = page.made.get(name)
    begun = made.value if isinstance(made, ast.Constant) and isinstance(made.value, int) else 0
    first = begun + 1 if step is page.loop.body[0] else begun
    target, values = page.edits.text(page.loop.target), page.edits.text(page.loop.iter)
    target = f"({target})" if isinstance(page.loop.target, ast.Tuple) else target
    page.edits.replace(page.loop.target, f"{name}, {target}")
    page.edits.replace(page.loop.iter, f"enumerate({values}, {first})" if first else f"enumerate({values})")
    return page.edits.delete(step).apply()


def _make_sink(page: Page) -> str:
    name = page.problem.name
    called = any(
        isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == name
        for n in ast.walk(page.loop)
    )
    return page.edits.before(page.loop, f"{name} = {'[]' if called else '{}'}").apply()


def _list_once(page: Page) -> str:
    name = page.problem.name
    return page.edits.before(page.loop, f"{name} = list({name})").apply()


_REWRITES: dict[str, Rewrite] = {
    "accumulate": _keep_rows,
    "overwrite": _keep_rows,
    "index": _keep_rows,
    "carried": _start_inside,
    "mutated": _copy_inside,
    "generator": _replicate,
    "reads": _read_after,
    "best": _no_best,
    "break": _continue,
    "global": _delete,
    "twice": _rename_axis,
    "reserved": _rename_axis,
    "else": _else_after,
    "second": _first_only,
    "nothing": _name_results,
    "undefined": _make_sink,
    "once": _list_once,
    "counter": _enumerate,
}
