"""Refusals: for every cause the rewriting of the cell that would be accepted."""

import ast
from collections.abc import Callable

from mce_notebook.declare.lifting import LIFTS
from mce_notebook.declare.names import callee, read_names, stores, targets
from mce_notebook.declare.nesting import Problem
from mce_notebook.declare.pages import Page, contains, position
from mce_notebook.declare.repairs import (
    dedented,
    enumerate_points,
    frame_after,
    grow_after,
    keep_rows,
    name_results,
    no_best,
    read_after,
)

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
    number = next((n for n in loops if contains(tree.body[n], *position(problem.node))), loops[0] if loops else -1)
    return rewrite(Page(source, tree, number, problem)) if loops else ""


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
    body = [dedented(line, margin) + ("" if line.endswith("\n") is False else "\n") for line in lines[first - 1 : last]]
    return "".join([*lines[: keyword - 1], *body, *lines[last:]])


def _first_only(page: Page) -> str:
    """End the cell before its second sweep."""
    lines = page.source.splitlines(keepends=True)
    return "".join(lines[: page.problem.node.lineno - 1])  # type: ignore[attr-defined]


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
    "accumulate": keep_rows,
    "overwrite": keep_rows,
    "index": keep_rows,
    "carried": _start_inside,
    "mutated": _copy_inside,
    "generator": _replicate,
    "reads": read_after,
    "best": no_best,
    "break": _continue,
    "global": _delete,
    "twice": _rename_axis,
    "reserved": _rename_axis,
    "else": _else_after,
    "second": _first_only,
    "nothing": name_results,
    "undefined": _make_sink,
    "once": _list_once,
    "counter": enumerate_points,
    "grow": grow_after,
    "frame": frame_after,
}
