"""A plain cell read as a sweep, for the button that makes it one: the line to add, or what is in the way."""

import ast
import builtins
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import LoopError, NameConflict, SweepError
from mce_notebook.frontends.line import Line, parse
from mce_notebook.store.layout import checked_name

if TYPE_CHECKING:
    from mce_notebook.declare.loops import Nest

# Names of lists that say nothing about what is in them.
_PLAIN = frozenset(
    {
        "rows",
        "row",
        "results",
        "result",
        "res",
        "out",
        "output",
        "outputs",
        "data",
        "records",
        "table",
        "values",
        "vals",
    }
    | {"all", "lst", "list", "collected", "df", "frame", "acc"}
)
_MAGIC = re.compile(r"\s*%%(\w+)(.*)")
_WORDS = 2


@dataclass(frozen=True)
class Cell:
    """A cell taken apart.

    Parameters
    ----------
    source : str
        As it stands in the notebook.
    python : str
        The same as Python, IPython's own syntax translated.
    line : Line or None
        Its `%%sweep` line, if it has one.
    """

    source: str
    python: str
    line: Line | None

    @property
    def first_line(self) -> int:
        """Line of the notebook's cell at which its Python begins."""
        return 1 if self.line is None else 2

    @property
    def plain(self) -> bool:
        """Whether it is Python as it stands, so that a rewriting can be put in its place."""
        return self.line is not None or self.python == self.source


def rewrite(source: str, name: str | None = None) -> dict[str, Any]:
    """Read a cell; nothing of it is executed.

    Parameters
    ----------
    source : str
        The cell, with or without a `%%sweep` line.
    name : str, optional
        What the sweep shall be called; guessed otherwise.

    Returns
    -------
    dict
        `Rewrite` of the live views: the cell with its line, or the error with its fix.
    """
    answer: dict[str, Any] = {"ok": False, "cell": None, "diff": "", "name": name or "", "axes": [], "outputs": []}
    answer |= {"setup": [], "notes": [], "offers": [], "error": None, "tail": None}
    try:
        cell = _taken_apart(source)
        nest = _nest(cell)
        chosen = _chosen(cell, nest, name)
    except LoopError as error:
        chosen = name or _name_of_line(source) or _guess_mended(error.after)
        return answer | {"name": chosen, "error": _told(error, source, chosen)}
    except (SweepError, RecursionError, MemoryError, ValueError) as error:
        message = str(error) if isinstance(error, SweepError) else "The cell is nested too deeply to be read."
        return answer | {"error": _error(message)}
    made, tail = source, None
    if cell.line is None:
        body = source.removesuffix(nest.tail) if nest.tail.strip() else source
        made = f"%%sweep {chosen}\n{body}"
        tail = nest.tail_cell(chosen) if nest.tail.strip() else None
    return answer | {
        "ok": True,
        "cell": made,
        "diff": "" if made in (source, f"%%sweep {chosen}\n{source}") else _diff(source, made),
        "name": chosen,
        "axes": [{"name": ", ".join(level.targets), "source": level.iterable} for level in nest.levels],
        "outputs": list(nest.outputs),
        "setup": [level.setup for level in nest.levels if level.setup.strip()],
        "notes": list(nest.notes),
        "offers": [
            {
                "title": offer.title,
                "line": offer.line,
                "cell": _lined(offer.cell, source, cell, chosen),
                "diff": _diff(_body(source, cell), offer.cell),
            }
            for offer in nest.offers
            if cell.plain
        ],
        "tail": tail,
    }


def _taken_apart(source: str) -> Cell:
    if not source.strip():
        raise LoopError("the cell is empty.", fix="Write loops that keep a result.")
    magic = _MAGIC.match(source)
    if magic is not None and magic[1] != "sweep":
        raise LoopError(f"the cell begins with %%{magic[1]}.", 1, "A cell has one such line; remove it first.")
    if magic is None:
        return Cell(source, _python(source), None)
    line = parse(magic[2])
    return Cell(source, _python(source[magic.end() :].removeprefix("\n")), line)


def _python(text: str) -> str:
    """Return a cell as Python, with IPython's own syntax translated where there is any; nothing is run."""
    try:
        ast.parse(text)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        manager: Any = TransformerManager
        translated = str(manager().transform_cell(text))
        try:
            ast.parse(translated)
        except SyntaxError:
            return text
        return translated
    return text


def _nest(cell: Cell) -> "Nest":
    from mce_notebook.calls import read_loops

    if cell.line is None:
        return read_loops("sweep", cell.python)
    name = cell.line.words[0] if cell.line.words else "sweep"
    return read_loops(
        name, cell.python, line_axes=cell.line.axes, axes=cell.line.chosen_axes, first_line=cell.first_line
    )


# ---- names ----


def _chosen(cell: Cell, nest: "Nest", name: str | None) -> str:
    """Return the name of the sweep: the one asked for, the one of the line, or a guess."""
    given = name or (cell.line.words[0] if cell.line is not None and cell.line.words else None)
    if given is None:
        return guess(cell.python, [sink.name for sink in nest.sinks], nest.outputs)
    checked = checked_name(given)
    if hasattr(builtins, checked):
        raise NameConflict(f"`{checked}` is a built-in function of Python; choose another name for the sweep.")
    if checked in _bound(cell.python):
        raise NameConflict(f"The cell itself uses `{checked}` as a variable; choose another name for the sweep.")
    return checked


def guess(source: str, sinks: Iterable[str], outputs: Iterable[str]) -> str:
    """Find a name for the sweep of a cell that the cell does not use.

    Examples
    --------
    >>> guess("for n in N: errors.append(f(n))", ["errors"], ["f"])
    'errors_sweep'
    """
    telling = [name for name in (*sinks, *outputs) if name.lower().strip("_") not in _PLAIN and len(name) > _WORDS]
    base = telling[0].strip("_") if telling else "loops"
    used = {*_names(source), *dir(builtins)}
    candidate, number = f"{base}_sweep", 2
    while candidate in used:
        candidate, number = f"{base}_sweep_{number}", number + 1
    return candidate if candidate.isidentifier() else "loops_sweep"


def _name_of_line(source: str) -> str:
    magic = _MAGIC.match(source)
    words = magic[2].split() if magic is not None and magic[1] == "sweep" else []
    return words[0] if words else ""


def _guess_mended(text: str) -> str:
    """Find a name for the rewritten cell, which says more than the one that cannot be read."""
    if not text:
        return "loops_sweep"
    try:
        nest = _nest(Cell(text, text, None))
    except (SweepError, RecursionError, MemoryError, ValueError):
        return "loops_sweep"
    return guess(text, [sink.name for sink in nest.sinks], nest.outputs)


def _names(source: str) -> set[str]:
    try:
        return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    except SyntaxError:
        return set()


def _bound(source: str) -> set[str]:
    tree = ast.parse(source)
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


# ---- what is told ----


def _told(error: LoopError, source: str, name: str) -> dict[str, Any]:
    mended, diff = None, ""
    magic = _MAGIC.match(source)
    # A rewriting of a cell that was translated first would show what nobody wrote.
    if error.diff and (magic is not None or error.before.strip() == source.strip()):
        line = magic[0].strip() if magic is not None else f"%%sweep {name}"
        # Comments of rewritings speak of a sweep whose name they do not know.
        mended, diff = (text.replace("# NAME.", f"# {name}.") for text in (f"{line}\n{error.after}", error.diff))
    cause = error.cause[:1].upper() + error.cause[1:]
    where = "" if error.line is None else f"Line {error.line}: "
    return {
        "message": f"{where}{error.cause if where else cause} {error.fix}".strip(),
        "line": error.line,
        "cause": cause,
        "fix": error.fix,
        "cell": mended,
        "diff": diff,
    }


def _error(message: str) -> dict[str, Any]:
    return {"message": message, "line": None, "cause": message, "fix": "", "cell": None, "diff": ""}


def _body(source: str, cell: Cell) -> str:
    return source if cell.line is None else cell.python


def _lined(text: str, source: str, cell: Cell, name: str) -> str:
    line = source.splitlines()[0] if cell.line is not None else f"%%sweep {name}"
    return f"{line}\n{text}"


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "this cell", "as a sweep", lineterm="", n=2)
    return "\n".join(lines)
