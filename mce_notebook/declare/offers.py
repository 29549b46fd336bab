"""Rewritings that are worth having but change what the cell keeps, so a person has to ask for them."""

import ast
from collections.abc import Iterator

from mce_notebook.declare.names import callee, read_names, reads, targets
from mce_notebook.declare.nesting import Problem, is_empty_list
from mce_notebook.declare.pages import Offer
from mce_notebook.declare.reading import Reading
from mce_notebook.declare.rewriting import Edits

_STATISTICS = {"mean", "std", "sem", "median", "var", "nanmean", "nanstd", "nanmedian", "fmean", "stdev"}


def find_offers(
    source: str,
    tree: ast.Module,
    number: int,
    reading: Reading,
    first_line: int,
    ragged: Problem | None = None,
) -> Iterator[Offer]:
    """Find what else could become an axis.

    Parameters
    ----------
    source : str
        The cell.
    tree : ast.Module
        Its tree.
    number : int
        Which statement is the outermost loop.
    reading : Reading
        How the cell was understood.
    first_line : int
        Line of the notebook's cell at which `source` begins.
    ragged : Problem, optional
        A loop that could not be listed because it needs what is computed between the loops.
    """
    loop = tree.body[number]
    if ragged is not None:
        yield from _listed_above(source, tree, loop, ragged, first_line)
    inner = _same(loop, reading.levels[-1].node)
    if inner is None:
        return
    for position, statement in enumerate(inner.body):
        if isinstance(statement, ast.For):
            text = _repetitions(source, tree, inner, position)
            if text:
                count = ast.unparse(statement.iter)
                title = f"keep every repetition of {count} as an axis, and take mean and spread from the dataset"
                yield Offer(title, statement.lineno + first_line - 1, text)


def _listed_above(source: str, tree: ast.Module, loop: ast.stmt, ragged: Problem, first_line: int) -> Iterator[Offer]:
    """Write what a loop lists into its header, to be evaluated in the notebook."""
    assert isinstance(ragged.node, ast.For)
    inner = _same(loop, ragged.node)
    makers = [
        s
        for s in ast.walk(loop)
        if isinstance(s, ast.Assign) and [n.id for t in s.targets for n in targets(t)] == [ragged.name]
    ]
    if inner is None or len(makers) != 1:
        return
    maker = makers[0]
    uses = [n for n in reads(loop) if n.id == ragged.name]
    edits = Edits(source, tree)
    for use in uses:
        if use in set(ast.walk(inner.iter)):
            edits.replace(use, edits.text(maker.value))
    if all(use in set(ast.walk(inner.iter)) for use in uses):
        edits.delete(maker)
    title = f"list `{ast.unparse(maker.value)}` in the notebook, so that these points run in parallel too"
    yield Offer(title, inner.lineno + first_line - 1, edits.apply())


def _same(loop: ast.stmt, other: ast.For) -> ast.For | None:
    """Return the loop of the cell's own tree at the position of one of a copy."""
    return next(
        (
            n
            for n in ast.walk(loop)
            if isinstance(n, ast.For) and (n.lineno, n.col_offset) == (other.lineno, other.col_offset)
        ),
        None,
    )


def _repetitions(source: str, tree: ast.Module, inner: ast.For, position: int) -> str:
    """``e = []; for r in range(R): e.append(y); m.append(mean(e))`` with the repetitions kept."""
    loop = inner.body[position]
    assert isinstance(loop, ast.For)
    if callee(loop.iter) != "range" or not isinstance(loop.target, ast.Name) or not loop.body:
        return ""
    appended = _appended(loop)
    begun = next((s for s in inner.body[:position] for n in appended if is_empty_list(s, n)), None)
    after = inner.body[position + 1 :]
    if len(appended) != 1 or begun is None or not after:
        return ""
    name, write = next(iter(appended.items()))
    statistics = _statistics(after, name)
    others = [n for s in after for n in reads(s) if n.id == name]
    if not statistics or len(others) != len(statistics):
        return ""
    edits = Edits(source, tree)
    assert isinstance(write.value, ast.Call)
    value = edits.text(write.value.args[0])
    last = _kept(after, statistics, edits, value)
    if last is None:
        return ""
    edits.delete(begun)
    if loop.target.id not in read_names(loop.body):
        assert isinstance(loop.iter, ast.Call)
        edits.replace(loop.target, "rng").replace(loop.iter, f"replicates({edits.text(loop.iter.args[-1])})")
        edits.top("from mce_notebook import replicates")
    edits.replace(write, last)
    for statement in after:
        edits.delete(statement)
    return edits.apply()


def _appended(loop: ast.For) -> dict[str, ast.Expr]:
    found: dict[str, ast.Expr] = {}
    for statement in loop.body:
        if isinstance(statement, ast.Expr) and callee(statement.value).endswith(".append"):
            found[callee(statement.value).removesuffix(".append")] = statement
    return found


def _statistics(statements: list[ast.stmt], name: str) -> list[ast.Call]:
    """Return calls like ``np.mean(name)``."""
    return [
        node
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
        and callee(node).rpartition(".")[2] in _STATISTICS
        and node.args
        and isinstance(node.args[0], ast.Name)
        and node.args[0].id == name
    ]


def _kept(after: list[ast.stmt], statistics: list[ast.Call], edits: Edits, value: str) -> str | None:
    """Return the statement that stores the statistics, storing one repetition instead."""
    if len(after) != 1 or not isinstance(after[0], ast.Expr) or not isinstance(after[0].value, ast.Call):
        return None
    call = after[0].value
    if len(call.args) != 1 or not callee(call).endswith(".append"):
        return None
    row = call.args[0]
    if isinstance(row, ast.Tuple):
        plain = [edits.text(e) for e in row.elts if not any(s in ast.walk(e) for s in statistics)]
        return f"{callee(call)}(({', '.join([*plain, value])}))"
    return f"{callee(call)}({value})" if row in statistics else None
