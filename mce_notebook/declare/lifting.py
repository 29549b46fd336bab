"""Cells whose loops are not `for` statements at the top: what they would look like if they were."""

import ast
from collections.abc import Callable, Sequence

from mce_notebook.declare.cells import listed
from mce_notebook.declare.names import callee, read_names, stores, targets
from mce_notebook.declare.nesting import Problem
from mce_notebook.declare.rewriting import Edits

Lift = Callable[[str, ast.Module, Problem], str]


def _statement(tree: ast.Module, problem: Problem) -> ast.stmt | None:
    line = getattr(problem.node, "lineno", 1)
    return next((s for s in tree.body if s.lineno <= line <= (s.end_lineno or s.lineno)), None)


def _lift_expression(source: str, tree: ast.Module, problem: Problem) -> str:
    """``rows = [f(a) for a in A]`` -> loops that append."""
    statement = _statement(tree, problem)
    found = listed(statement) if statement is not None else None
    if statement is None or found is None or not isinstance(found[0], ast.Name):
        return ""
    target, element, generators = found[0], found[1], found[2]
    lines = [f"{target.id} = []"]
    margin = ""
    for generator in generators:
        lines.append(f"{margin}for {ast.unparse(generator.target)} in {ast.unparse(generator.iter)}:")
        margin += "    "
        lines += [f"{margin}if not ({ast.unparse(test)}): continue" for test in generator.ifs]
    lines.append(f"{margin}{target.id}.append({ast.unparse(element)})")
    return Edits(source, tree).replace(statement, "\n".join(lines)).apply()


def _lift_function(source: str, tree: ast.Module, problem: Problem) -> str:
    """``def run(n=3): … return rows`` -> its parameters as assignments, its body at the top."""
    function = _statement(tree, problem)
    if not isinstance(function, ast.FunctionDef) or function.body[0].lineno == function.lineno:
        return ""
    returns = [n for n in ast.walk(function) if isinstance(n, ast.Return)]
    last = function.body[-1]
    if any(node is not last for node in returns) or function.args.vararg or function.args.kwarg:
        return ""
    call, receiver = _call_of(tree, function.name)
    edits = Edits(source, tree)
    body = function.body[:-1] if returns else function.body
    begin = function.body[0].lineno
    end = body[-1].end_lineno or body[-1].lineno
    margin = " " * function.body[0].col_offset
    text = "".join(line.removeprefix(margin) for line in edits.lines[begin - 1 : end])
    lines = [*_parameters(function.args, call, edits), text.rstrip("\n")]
    if returns and isinstance(last, ast.Return) and last.value is not None and receiver is not None:
        value = edits.text(last.value)
        lines += [f"{receiver} = {value}"] if receiver != value else []
    edits.replace(function, "\n".join(lines))
    for statement in tree.body:
        if call is not None and isinstance(statement, ast.Assign | ast.Expr) and statement.value is call:
            edits.delete(statement)
    return edits.apply()


def _call_of(tree: ast.Module, name: str) -> tuple[ast.Call | None, str | None]:
    """Return the call of the function in the same cell, and the variable that receives what it returns."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.Expr) and callee(statement.value) == name:
            assert isinstance(statement.value, ast.Call)
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            return statement.value, ast.unparse(target) if target is not None else None
    return None, None


def _parameters(arguments: ast.arguments, call: ast.Call | None, edits: Edits) -> list[str]:
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    values: dict[str, str] = {}
    for name, default in zip(reversed(names), reversed(arguments.defaults), strict=False):
        values[name] = edits.text(default)
    for argument, default_or_none in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        names.append(argument.arg)
        if default_or_none is not None:
            values[argument.arg] = edits.text(default_or_none)
    if call is not None:
        values.update({name: edits.text(value) for name, value in zip(names, call.args, strict=False)})
        values.update({k.arg: edits.text(k.value) for k in call.keywords if k.arg})
    return [
        f"{name} = {values[name]}" if name in values else f"{name} = ...  # give it a value"
        for name in names
        if values.get(name) != name
    ]


def _lift_while(source: str, tree: ast.Module, problem: Problem) -> str:
    """``while h > 1e-6: …; h /= 2`` -> list the values first, then loop over them."""
    loop = _statement(tree, problem)
    if not isinstance(loop, ast.While) or loop.orelse or loop.body[0].lineno == loop.lineno:
        return ""
    tested = read_names(loop.test)
    steps = [s for s in loop.body if isinstance(s, ast.AugAssign | ast.Assign) and stores(s) & tested]
    if len(steps) != 1 or len(loop.body) < 2:
        return ""
    name = next(iter(stores(steps[0]) & tested))
    computed = stores([s for s in loop.body if s is not steps[0]])
    if (read_names(steps[0]) | tested) & computed or any(isinstance(n, ast.Break) for n in ast.walk(loop)):
        return ""
    if steps[0] is not loop.body[-1] and steps[0] is not loop.body[0]:
        return ""
    edits = Edits(source, tree)
    values = f"{name}_values"
    update = edits.text(steps[0])
    added = f"    {values}.append({name})"
    order = [f"    {update}", added] if steps[0] is loop.body[0] else [added, f"    {update}"]
    edits.delete(steps[0])
    header = "\n".join([f"{values} = []", f"while {edits.text(loop.test)}:", *order])
    edits.before(loop, header)
    begin, _ = edits.span(loop)
    _, end = edits.span(loop.test)
    text = edits.apply()
    old = source[begin:end]
    place = text.rindex(old)
    return text[:place] + f"for {name} in {values}" + text[place + len(old) :]


def _lift_wrapped(source: str, tree: ast.Module, problem: Problem) -> str:
    """``with X:`` (or `if`, `try`) around the loops -> around the body of the innermost."""
    wrapper = _statement(tree, problem)
    if not isinstance(wrapper, ast.With | ast.If | ast.Try) or wrapper.body[0].lineno == wrapper.lineno:
        return ""
    loops = [s for s in wrapper.body if isinstance(s, ast.For)]
    if len(loops) != 1 or (isinstance(wrapper, ast.If) and wrapper.orelse):
        return ""
    inner = loops[0]
    while inner.body and isinstance(inner.body[-1], ast.For):
        inner = inner.body[-1]
    if inner.body[0].lineno == inner.lineno:
        return ""
    lines = source.splitlines(keepends=True)
    first, last = wrapper.body[0].lineno, wrapper.body[-1].end_lineno or wrapper.body[-1].lineno
    header = lines[wrapper.lineno - 1 : first - 1]
    trailer = lines[last : wrapper.end_lineno]
    margin = " " * wrapper.body[0].col_offset
    inside = " " * (inner.body[0].col_offset - wrapper.body[0].col_offset)
    begin, end = inner.body[0].lineno, inner.body[-1].end_lineno or inner.body[-1].lineno
    text: list[str] = []
    for number in range(first, last + 1):
        line = lines[number - 1].removeprefix(margin)
        line = line if line.endswith("\n") else line + "\n"
        if number == begin:
            text += [inside + h for h in header]
        text.append("    " + line if begin <= number <= end and line.strip() else line)
        if number == end:
            text += [inside + (t if t.endswith("\n") else t + "\n") for t in trailer]
    return "".join([*lines[: wrapper.lineno - 1], *text, *lines[wrapper.end_lineno or last :]])


LIFTS: dict[str, Lift] = {
    "comprehension": _lift_expression,
    "function": _lift_function,
    "while": _lift_while,
    "wrapped": _lift_wrapped,
}


def loop_targets(generators: Sequence[ast.comprehension]) -> list[str]:
    """Names bound by the loops of a comprehension."""
    return [name.id for generator in generators for name in targets(generator.target)]
