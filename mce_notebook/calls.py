"""Calls and cells as proposals: which of a call's words are axes, constants and options."""

import ast
import dataclasses
import difflib
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mce_notebook.declare.experiment import from_function, from_nest
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.grid import grid as make_grid
from mce_notebook.declare.options import Options
from mce_notebook.errors import DeclarationError, LoopError
from mce_notebook.launch import Proposal

if TYPE_CHECKING:
    from mce_notebook.declare import loops

OPTIONS = frozenset(field.name for field in dataclasses.fields(Options)) | {"adopt", "replace"}
STREAMS = ("rng", "seed")


def read_call(
    fn: Callable[..., Any],
    grid: Grid | None,
    name: str | None,
    replicates: int | None,
    outputs: Sequence[str] | None,
    words: Mapping[str, Any],
) -> Proposal:
    """Read the call `sweep(fn, ...)`.

    A word that is a parameter of `fn` is an axis when it holds several values and a constant when it holds one; any
    other word must be an option. `seed=3` is the option even where `fn` takes a `seed`.

    Raises
    ------
    DeclarationError
        If a word is neither, or the function cannot be called with what is given.
    """
    parameters = _parameters(fn)
    axes: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for word, value in words.items():
        several = _several(value)
        if word in OPTIONS and not (parameters is not None and word in parameters and several):
            options[word] = value
        elif parameters is None or word in parameters:
            (axes if several else constants)[word] = value
        else:
            raise DeclarationError(_unknown(fn, word, parameters))
    if replicates is not None:
        axes["replicate"] = range(replicates)
    points = make_grid(**axes) if axes else None
    points = grid * points if grid is not None and points is not None else grid or points
    if points is None:
        raise DeclarationError(
            f"Nothing to sweep over: give at least one parameter of `{_name(fn)}` several values, such as "
            f"`{next(iter(parameters or ('n',)), 'n')}=[1, 2, 3]`."
        )
    adopt, replace = bool(options.pop("adopt", False)), bool(options.pop("replace", False))
    chosen = Options.parse(**options)
    experiment = from_function(
        fn,
        points.names,
        name=name,
        seed=chosen.seed,
        outputs=outputs,
        dims=dict(chosen.dims),
        constants=constants,
        depends=chosen.depends,
        shared=points.shared,
    )
    return Proposal(experiment, points, chosen, "function", cell=_source(fn), adopt=adopt, replace=replace)


@dataclasses.dataclass(frozen=True)
class CellWords:
    """What is said about a cell besides its name, its text and its options.

    Parameters
    ----------
    line_axes : mapping of str to str, optional
        Axes given on the line, as source text by name, for a cell without loops.
    axes : sequence of str, optional
        Which loops are axes, where the usual rule is not wanted.
    execute : callable, optional
        Runs the statements before the loops; by default they are executed in the namespace.
    kind, notebook : str
        Where it comes from.
    adopt, replace : bool
        Whether a name that belongs to another experiment is taken over, or its sweep put aside.
    first_line : int
        Number of the cell's first line in messages.
    """

    line_axes: Mapping[str, str] | None = None
    axes: Sequence[str] | None = None
    execute: Callable[[str], None] | None = None
    kind: str = "cell"
    notebook: str = ""
    adopt: bool = False
    replace: bool = False
    first_line: int = 1


def read_cell(name: str, cell: str, namespace: dict[str, Any], options: Options, **words: Any) -> Proposal:
    """Read a cell, run what stands before its loops, and turn the loops into a proposal.

    Parameters
    ----------
    name, cell : str
        Name of the sweep; text of the cell.
    namespace : dict
        The notebook's variables.
    options : Options
        Of the line.
    **words
        See `CellWords`.

    Raises
    ------
    LoopError
        If the loops cannot be a sweep.
    """
    told = CellWords(**words)
    nest = read_loops(name, cell, line_axes=told.line_axes, axes=told.axes, first_line=told.first_line)
    if nest.head.strip():
        if told.execute is None:
            exec(compile(nest.head, nest.filename, "exec"), namespace)
        else:
            told.execute(nest.head)
    bound = nest.bind(namespace)
    experiment = from_nest(
        bound,
        namespace,
        name=name,
        seed=options.seed,
        dims={**bound.dims, **dict(options.dims)},
        depends=options.depends,
        shared=bound.grid.shared,
    )
    # Packages that may draw are seeded for too, but nobody knows whether they do: only what is sure is said.
    fixed = any(warning.startswith("seed fixed at") and "`seed`" in warning for warning in experiment.version.warnings)
    sure = experiment.version.draws_globally and not fixed
    drawn = ("global RNG: each point gets its own stream",) if sure else ()
    offers = [_offered(offer, nest.cell) for offer in nest.offers]
    notes = (*bound.notes, *drawn, *experiment.version.warnings, *offers)
    info = {"notes": notes, "sinks": bound.sinks, "tail": nest.tail}
    return Proposal(
        experiment,
        bound.grid,
        options,
        told.kind,
        cell=cell,
        notebook=told.notebook,
        info=info,
        adopt=told.adopt,
        replace=told.replace,
    )


def read_loops(
    name: str,
    cell: str,
    *,
    line_axes: Mapping[str, str] | None = None,
    axes: Sequence[str] | None = None,
    first_line: int = 1,
) -> "loops.Nest":
    """Read the loops of a cell, with those of its line around it; nothing is executed. Parameters as in `read_cell`.

    Raises
    ------
    LoopError
        If the loops cannot be a sweep.
    """
    text = _with_loops(name, cell, line_axes) if line_axes else cell
    return _read(text, axes, name, first_line - len(line_axes or ()), first_line)


def _offered(offer: "loops.Offer", cell: str) -> str:
    """Tell of a rewriting that is worth having, with the lines it would change."""
    before, after = cell.rstrip().splitlines(), offer.cell.rstrip().splitlines()
    changed = difflib.unified_diff(before, after, "this cell", "as offered", lineterm="", n=1)
    return "\n".join([f"line {offer.line}: the cell could {offer.title}", *changed])


def _with_loops(name: str, cell: str, line_axes: Mapping[str, str]) -> str:
    """Write the axes of the line as loops around the cell."""
    lines = [f"{' ' * depth}for {axis} in {text}:" for depth, (axis, text) in enumerate(line_axes.items())]
    return "\n".join([*lines, textwrap.indent(_named(name, cell), " " * len(lines))])


def _named(name: str, cell: str) -> str:
    """Give the last expression of a cell the name of the sweep, unless it is made of names already."""
    try:
        body = ast.parse(cell).body
    except SyntaxError:
        return cell
    last = body[-1] if body else None
    if not isinstance(last, ast.Expr) or isinstance(last.value, ast.Name | ast.Tuple | ast.Dict):
        return cell
    lines = cell.splitlines()
    value = ast.get_source_segment(cell, last.value) or ast.unparse(last.value)
    named = f"{' ' * last.col_offset}{name} = ({value}); {name}"
    return "\n".join([*lines[: last.lineno - 1], named, *lines[last.end_lineno :]])


def _read(text: str, axes: Sequence[str] | None, name: str, first_line: int, users: int) -> "loops.Nest":
    # Reading loops takes a dozen modules that a call of a function never needs.
    from mce_notebook.declare import loops

    try:
        return loops.read(text, axes=axes, filename=f"<sweep {name}>", first_line=first_line)
    except LoopError as error:
        if first_line == users:
            raise
        # The loops are ours: the user's cell has neither those lines nor a rewriting that shows them.
        line = error.line if error.line is not None and error.line >= users else None
        raise LoopError(error.cause, line, error.fix) from None


def _parameters(fn: Callable[..., Any]) -> tuple[str, ...] | None:
    """Names `fn` can be called with; None when anything goes or nobody knows."""
    try:
        found = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in found):
        return None
    return tuple(p.name for p in found if p.kind is not p.VAR_POSITIONAL)


def _several(value: Any) -> bool:
    """Whether a value lists labels of an axis: a list, tuple, range, set, array, series, or anything sized but text."""
    if isinstance(value, str | bytes | Mapping) or callable(value):
        return False
    return hasattr(value, "__iter__") and getattr(value, "ndim", 1) > 0


def _unknown(fn: Callable[..., Any], word: str, parameters: Sequence[str]) -> str:
    known = [*parameters, *sorted(OPTIONS)]
    near = difflib.get_close_matches(word, known, 1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return f"`{word}` is neither a parameter of `{_name(fn)}` ({', '.join(parameters)}) nor an option.{hint}"


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _source(fn: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(fn)
    except (OSError, TypeError):
        return ""
