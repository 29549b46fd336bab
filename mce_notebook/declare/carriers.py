"""Objects that go on from one turn of a loop to the next: a network over its epochs, a simulation over its steps."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

from mce_notebook.declare.names import Write, callee, read_names, reads, root, stores
from mce_notebook.declare.nesting import Level, Problem

# Turns called like this repeat an experiment; they do not continue one.
_REPEATS = re.compile(
    r"_*|r|i_?rep|reps?|repeats?|repetitions?|replicates?|trials?|runs?|seeds?|folds?|draws?|sims?|mc"
)
# Turns called like this continue what the turn before left.
_STEPS = re.compile(r"epochs?|ep|steps?|it|iters?|iterations?|generations?|gen|ticks?|rounds?|episodes?|time_?steps?")
# Classes of these hold data, which methods do not change.
_DATA = frozenset(
    {"np", "numpy", "pd", "pandas", "sp", "scipy", "st", "stats", "xr", "pa", "pl", "sparse", "ast", "dt", "datetime"}
)
_VALUES = frozenset({"DataFrame", "Series", "DataArray", "Dataset", "Path", "Fraction", "Decimal", "Counter"})


def check_carriers(
    levels: Sequence[Level], regions: Sequence[Sequence[ast.stmt]], head: Mapping[str, ast.expr]
) -> None:
    """Keep a loop in the point whose turns seem to go on with an object that was made outside it.

    The turns of such a loop do the same thing over and over: their variable is only a label. If they were
    independent of each other they would all give the same, so either they draw random numbers, or an object remembers.

    Parameters
    ----------
    levels : sequence of Level
        The loops that would be axes, outermost first.
    regions : sequence of list of ast.stmt
        Everything inside each of them.
    head : mapping
        What the cell binds above the loops.

    Raises
    ------
    Problem
        For the outermost loop of this kind.
    """
    made = {name: value for name, value in head.items() if _remembers(value)}
    kept: set[str] = set()
    for number, (level, region) in enumerate(zip(levels, regions, strict=True)):
        names = [*level.names, *level.counters]
        step = any(_STEPS.fullmatch(name) for name in names)
        # Refusing the whole cell takes a clearer sign than keeping one more loop in the point.
        repeats = any(_REPEATS.fullmatch(name) for name in names) or (number == 0 and not step)
        if names and not repeats and not _used(names, region):
            found = _call(((kept if step else set()) | set(made)) - stores(list(region)), region)
            if found is not None:
                raise _carried(*found, names[0], number)
        for statement in level.before:
            kept |= stores(statement)
            if isinstance(statement, ast.Assign):
                made.update({name: statement.value for name in stores(statement) if _remembers(statement.value)})


def _remembers(value: ast.expr) -> bool:
    """Whether an expression makes an object of a class of the user's or of a library of models."""
    name = callee(value)
    last = name.rpartition(".")[2].lstrip("_")
    return last[:1].isupper() and name.partition(".")[0] not in _DATA and last not in _VALUES


def _used(names: Sequence[str], region: Sequence[ast.stmt]) -> bool:
    """Whether a loop variable is more than a label of results."""
    labels: set[int] = set()
    for node in (child for statement in region for child in ast.walk(statement)):
        if isinstance(node, Write):
            labels |= {id(leaf) for expression in (*node.path, node.value) for leaf in _leaves(expression)}
        elif isinstance(node, ast.Call) and callee(node) == "print":
            labels |= {id(name) for name in reads(node)}
    return any(name.id in names and id(name) not in labels for name in reads(list(region)))


def _leaves(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Tuple | ast.List):
        for element in node.elts:
            yield from _leaves(element)
    elif isinstance(node, ast.Dict):
        for value in (*(key for key in node.keys if key is not None), *node.values):
            yield from _leaves(value)
    else:
        yield node


def _call(carriers: set[str], region: Sequence[ast.stmt]) -> tuple[str, ast.Call] | None:
    """Find the first call that could change one of some objects."""
    for node in (child for statement in region for child in ast.walk(statement)):
        if isinstance(node, ast.Call) and callee(node) not in ("print", "len", "str", "repr", "type"):
            receiver = root(node.func) if isinstance(node.func, ast.Attribute) else None
            touched = {receiver.id} if receiver is not None else set()
            touched |= read_names([*node.args, *(keyword.value for keyword in node.keywords)])
            for name in sorted(touched & carriers):
                return name, node
    return None


def _carried(name: str, node: ast.Call, turn: str, number: int) -> Problem:
    return Problem(
        "carried",
        node,
        f"`{name}` may go on from one {turn} to the next (`{ast.unparse(node.func)}`).",
        f"Make `{name}` inside the loop, or name the loop `replicate` if its turns only repeat.",
        level=number,
        name=name,
    )
