"""A cell as text: where its loops begin and end, and what it has to become before they can be read."""

import ast
import re
from collections.abc import Sequence

from mce_notebook.declare.names import callee, mutations, read_names, stores
from mce_notebook.declare.nesting import Problem, is_progress

_MAGIC = re.compile(r"^(\s*)([%!?].*)$")


def parse(source: str) -> ast.Module:
    """Parse a cell; lines for IPython alone count as `pass`."""
    try:
        return ast.parse(source)
    except SyntaxError:
        lines = source.split("\n")
        masked = [_masked(line) for line in lines]
        if masked == lines:
            raise
        return ast.parse("\n".join(masked))


def _masked(line: str) -> str:
    found = _MAGIC.match(line)
    return f"{found[1]}pass" if found else line


def unwrapped(source: str) -> str:
    """Take loops out from under ``if __name__ == "__main__"`` and the `with` of a progress bar.

    Lines keep their numbers, because tracebacks and messages count them.
    """
    tree = parse(source)
    lines = source.splitlines(keepends=True)
    for node in tree.body:
        if _is_wrapper(node) and _single_lines(node):
            assert isinstance(node, ast.If | ast.With)
            first, last = node.body[0], node.body[-1]
            margin = " " * first.col_offset
            if lines[first.lineno - 1][: first.col_offset].strip():
                continue
            header = _header(node)
            for number in range(node.lineno, first.lineno):
                lines[number - 1] = "\n" if number > node.lineno else f"{header}\n"
            for number in range(first.lineno, (last.end_lineno or last.lineno) + 1):
                lines[number - 1] = lines[number - 1].removeprefix(margin)
            return unwrapped("".join(lines))
    return source


def _header(node: ast.If | ast.With) -> str:
    """Return the line that stands for a wrapper taken away; a progress bar keeps its name."""
    bar = node.items[0].optional_vars if isinstance(node, ast.With) else None
    if isinstance(node, ast.With) and isinstance(bar, ast.Name):
        return f"{bar.id} = {ast.unparse(node.items[0].context_expr)}"
    return "pass"


def _single_lines(node: ast.stmt) -> bool:
    """Whether no string runs over several lines, which taking out the margin would change."""
    return not any(
        isinstance(n, ast.Constant) and isinstance(n.value, str) and n.end_lineno != n.lineno for n in ast.walk(node)
    )


def _is_wrapper(node: ast.stmt) -> bool:
    if not any(isinstance(n, ast.For) for n in ast.walk(node)):
        return False
    if isinstance(node, ast.If) and not node.orelse and isinstance(node.test, ast.Compare):
        return "__name__" in read_names(node.test)
    return isinstance(node, ast.With) and len(node.items) == 1 and is_progress(node.items[0].context_expr)


def find_loop(tree: ast.Module) -> int:
    """Find the number of the statement that is the outermost loop.

    Loops that only prepare what later ones fill belong to the statements above, and loops that read what the sweep
    has filled to those after it.
    """
    loops = [n for n, s in enumerate(tree.body) if isinstance(s, ast.For)]
    if not loops:
        raise _no_loop(tree)
    main = [n for n in loops if not _prepares(tree.body[n])] or loops[-1:]
    first = main[0]
    filled = {name for name, _, _ in mutations(tree.body[first])} | stores(tree.body[first])
    for number in main[1:]:
        statement = tree.body[number]
        between = tree.body[first + 1 : number]
        made = filled | {name for s in between if read_names(s) & filled for name in stores(s)}
        if not (read_names(statement) & made) and any(True for _ in mutations(statement)):
            raise Problem(
                "second",
                statement,
                "a second set of loops begins here, but a sweep is one grid.",
                "Put it into a cell of its own.",
            )
        if _extends(statement, tree.body[first]):
            raise Problem(
                "second",
                statement,
                "these loops write to the same object as the ones above, but a sweep is one grid.",
                "Put them into a cell of their own, or list all values in one loop.",
            )
    return first


def _prepares(node: ast.stmt) -> bool:
    """Whether a loop only makes empty containers, or sets up names by calls of nothing expensive."""
    assert isinstance(node, ast.For)
    return all(isinstance(s, ast.Assign) and _is_empty(s.value) for s in node.body)


def _is_empty(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return not node.elts
    if isinstance(node, ast.Dict):
        return all(_is_empty(v) for v in node.values)
    if isinstance(node, ast.Constant):
        return True
    name = callee(node).rpartition(".")[2]
    return name in {"zeros", "empty", "ones", "full", "zeros_like", "full_like", "dict", "list", "set", "defaultdict"}


def _extends(second: ast.stmt, first: ast.stmt) -> bool:
    """Whether a later loop goes on appending to what the first one fills."""

    def appended(node: ast.stmt) -> set[str]:
        return {
            name
            for name, call, method in mutations(node)
            if method and isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
            and call.func.attr in {"append", "extend"}
        }  # fmt: skip

    return bool(appended(second) & appended(first))


def _no_loop(tree: ast.Module) -> Problem:
    node: ast.AST = tree.body[0] if tree.body else tree
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and any(isinstance(n, ast.For) for n in ast.walk(statement)):
            return Problem(
                "function",
                statement,
                f"the loops are inside the function `{statement.name}`.",
                "Lift them out of it.",
                name=statement.name,
            )
        if isinstance(statement, ast.While):
            return Problem("while", statement, "`while` does not say which points there are.", "List them in a `for`.")
        wraps = isinstance(statement, ast.With | ast.If | ast.Try)
        if wraps and any(isinstance(n, ast.For) for n in ast.walk(statement)):
            word = type(statement).__name__.lower()
            return Problem(
                "wrapped",
                statement,
                f"the loops stand inside `{word}`, which a sweep cannot keep around its points.",
                f"Put the `{word}` inside the loops.",
            )
        if listed(statement) is not None:
            return Problem(
                "comprehension", statement, "the points are listed in an expression.", "Write them as `for` statements."
            )
    return Problem(
        "none",
        node,
        "the cell has no loop to read as a sweep.",
        "Write `for` loops, or name the axes on the line, as in `%%sweep NAME n=[1, 2]`.",
    )


def listed(node: ast.stmt) -> tuple[ast.expr, ast.expr, Sequence[ast.comprehension]] | None:
    """Name, element and loops of ``rows = [f(a) for a in A]``, also inside a pool or joblib."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return None
    value = node.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Call) and value.args:
        # joblib: the call of a call, with `delayed` around the function.
        value = value.args[0]
        if isinstance(value, ast.GeneratorExp | ast.ListComp):
            element = value.elt
            if isinstance(element, ast.Call) and isinstance(element.func, ast.Call) and element.func.args:
                element = ast.Call(element.func.args[0], element.args, element.keywords)
            return node.targets[0], element, value.generators
    if isinstance(value, ast.Call) and callee(value) in {"list", "np.array", "numpy.array"} and len(value.args) == 1:
        value = value.args[0]
    if isinstance(value, ast.ListComp | ast.GeneratorExp):
        return node.targets[0], value.elt, value.generators
    if (
        isinstance(value, ast.Call)
        and callee(value).rpartition(".")[2] in {"map", "imap", "starmap"}
        and len(value.args) == 2
    ):
        name = ast.Name("item", ast.Store())
        star = callee(value).endswith("starmap")
        argument: ast.expr = ast.Name("item", ast.Load())
        call = ast.Call(value.args[0], [ast.Starred(argument, ast.Load()) if star else argument], [])
        return node.targets[0], call, [ast.comprehension(name, value.args[1], [], 0)]
    return None
