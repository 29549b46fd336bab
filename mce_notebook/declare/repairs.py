"""Rewritings of where results go: every point keeps its own, and what needs all of them follows the loops."""

import ast
from collections.abc import Iterator, Sequence

from mce_notebook.declare.independence import grows
from mce_notebook.declare.names import bindings, callee, mutations, read_names, stores
from mce_notebook.declare.pages import Page

_FILE_METHODS = {"write", "writelines", "writerow", "writerows"}
_COMPUTED = (ast.Call, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript)


def keep_rows(page: Page) -> str:
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


def read_after(page: Page) -> str:
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
    texts = [dedented(page.edits.text(s), page.edits.indentation(s)) for s in moved]
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


def dedented(text: str, margin: str) -> str:
    """Take a margin off every line."""
    return "\n".join(line.removeprefix(margin) for line in text.splitlines())


def no_best(page: Page) -> str:
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


def name_results(page: Page) -> str:
    """End the body with the names of what it only prints, plots, saves or computes."""
    level = page.levels[-1]
    last = level.node.body[-1]
    known = set(page.variables)
    shown = [s for s in level.node.body if isinstance(s, ast.Expr) and not isinstance(s.value, ast.Constant)]
    names: list[str] = []
    for statement in shown:
        for argument, inside_text in _shown(statement.value):
            if isinstance(argument, ast.Name):
                names += [argument.id] if argument.id not in known else []
            elif isinstance(argument, _COMPUTED) and not names:
                # Where Python 3.11 says an expression inside a text stands is not to be relied on.
                text = ast.unparse(argument) if inside_text else page.edits.text(argument)
                page.edits.before(statement, f"result = {text}")
                if not inside_text:
                    page.edits.replace(argument, "result")
                names.append("result")
    if not names:
        assigned = [n for s in level.node.body for n, _ in bindings(s)]
        names = [assigned[-1]] if assigned else []
    valued = [s for s in shown if callee(s.value) != "print"]
    if not names and valued:
        return (
            page.edits.replace(valued[-1], f"result = {page.edits.text(valued[-1])}")
            .after(last, "result", margin=page.edits.indentation(last))
            .apply()
        )
    if not names:
        return ""
    if last.lineno == level.node.lineno:
        return ""
    _drop_files(page, shown)
    found = list(dict.fromkeys(names))
    return page.edits.after(last, ", ".join(found)).apply()


def _drop_files(page: Page, shown: Sequence[ast.Expr]) -> None:
    for statement in shown:
        # A file opened above the loops cannot go to a worker.
        if callee(statement.value).rpartition(".")[2] in _FILE_METHODS:
            page.edits.delete(statement)


def _shown(value: ast.expr) -> Iterator[tuple[ast.expr, bool]]:
    """Yield expressions whose values a call shows, and whether they stand inside a text."""
    if not isinstance(value, ast.Call):
        return
    # What `print` is told by name is how, not what.
    named = () if callee(value) == "print" else value.keywords
    for argument in (*value.args, *(keyword.value for keyword in named)):
        if isinstance(argument, ast.JoinedStr):
            yield from ((part.value, True) for part in argument.values if isinstance(part, ast.FormattedValue))
        elif isinstance(argument, ast.Dict):
            yield from ((item, False) for item in argument.values)
        elif isinstance(argument, ast.List | ast.Tuple):
            yield from ((item, False) for item in argument.elts)
        else:
            yield argument, False


def grow_after(page: Page) -> str:
    """``x = np.append(x, y)`` -> append to a list, and the same statement for all of them after the loops."""
    statement = page.statement()
    added = grows(statement, page.problem.name) if isinstance(statement, ast.Assign) else None
    if added is None:
        return ""
    rows = page.free(f"{page.problem.name}_rows")
    (begin, end), (first, last) = page.edits.span(statement), page.edits.span(added)
    again = page.source[begin:first] + "part" + page.source[last:end]
    page.edits.replace(statement, f"{rows}.append({page.edits.text(added)})").before(page.loop, f"{rows} = []")
    return page.edits.after(page.loop, f"for part in {rows}:\n    {again}").apply()


def frame_after(page: Page) -> str:
    """``df.loc[len(df)] = row`` -> append to a list, and fill the frame after the loops."""
    statement = page.statement()
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return ""
    rows, frame = page.free(f"{page.problem.name}_rows"), page.problem.name
    keys = page.variables
    target, value = page.edits.text(statement.targets[0]), page.edits.text(statement.value)
    index = statement.targets[0].slice if isinstance(statement.targets[0], ast.Subscript) else statement.value
    if read_names(index) & set(keys):
        page.edits.replace(statement, f"{rows}.append(({', '.join([*keys, value])}))")
        again = f"for {', '.join([*keys, 'part'])} in {rows}:\n    {target} = part"
    else:
        page.edits.replace(statement, f"{rows}.append({value})")
        again = f"for part in {rows}:\n    {frame}.loc[len({frame})] = part"
    return page.edits.before(page.loop, f"{rows} = []").after(page.loop, again).apply()


def enumerate_points(page: Page) -> str:
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
