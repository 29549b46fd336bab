"""Nested `for` of a cell -> grid, point, setups, outputs; and back again: the rows the loops would have made."""

import ast
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mce_notebook.declare import nesting
from mce_notebook.declare.bound import Binding, Bound
from mce_notebook.declare.cells import find_loop, parse, unwrapped
from mce_notebook.declare.names import stores
from mce_notebook.declare.nesting import Problem, find_noise
from mce_notebook.declare.offers import find_offers
from mce_notebook.declare.pages import Offer, refusal
from mce_notebook.declare.reading import Frame, Reading, attempt
from mce_notebook.declare.refusals import rewritten
from mce_notebook.declare.remarks import find_notes
from mce_notebook.declare.rows import rebuild, sink_names
from mce_notebook.declare.sinks import head_bindings
from mce_notebook.declare.slots import Outline
from mce_notebook.errors import LoopError

__all__ = ["Bound", "Level", "Nest", "Offer", "Sink", "read", "rebuild", "sink_names"]


@dataclass(frozen=True)
class Level:
    """One loop that became axes.

    Parameters
    ----------
    targets : tuple of str
        Names of its coordinates.
    iterable : str
        What it lists, as written.
    guards : tuple of str
        Conditions at the top of its body; a leading ``not`` is ours.
    setup : str
        Statements between it and the next loop.
    line : int
        Line of the cell.
    """

    targets: tuple[str, ...]
    iterable: str
    guards: tuple[str, ...]
    setup: str
    line: int


@dataclass(frozen=True)
class Sink:
    """An object made before the loops that they fill: its name, and how (append, extend or set)."""

    name: str
    kind: str


@dataclass(frozen=True, eq=False)
class Nest:
    """A cell read as a sweep.

    Parameters
    ----------
    cell, filename : str
        Its text and name in tracebacks.
    head, tail : str
        Statements before and after the loops.
    levels : tuple of Level
        Outermost first.
    sinks : tuple of Sink
    outputs : tuple of str
        May shrink in `bind`, where elements of rows turn out to be axes.
    notes : tuple of str
        What a person should know before it runs.
    offers : tuple of Offer
        Rewritings that would make more of the cell.
    """

    cell: str
    filename: str
    first_line: int
    head: str
    tail: str
    levels: tuple[Level, ...]
    sinks: tuple[Sink, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    offers: tuple[Offer, ...]
    reading: Reading = field(repr=False)

    def tail_cell(self, name: str) -> str:
        """Return the next cell: wait for the sweep called `name`, restore what the loops would have left, go on."""
        lines = [f"{name}.result()"]
        if self.reading.last:
            lines.append(f"rows = {name}.rows()")
        else:
            lines += [f'{sink.name} = {name}.rows("{sink.name}")' for sink in self.sinks]
        text = "\n".join(lines) + "\n"
        return text + ("\n" + self.tail.strip("\n") + "\n" if self.tail.strip() else "")

    def bind(self, namespace: dict[str, Any]) -> Bound:
        """Evaluate what the loops list, once, with the names of the notebook.

        Raises
        ------
        LoopError
            When something cannot be listed, or the point would use a generator made above.
        """
        try:
            return Binding(self.reading, namespace, self.cell, self.filename, self.line, self.notes).run()
        except Problem as problem:
            raise refuse(problem, self.cell, self.first_line) from None

    def line(self, node: ast.AST) -> int:
        """Line of the cell of a node."""
        return int(getattr(node, "lineno", 1)) + self.first_line - 1


def read(source: str, *, axes: Sequence[str] | None = None, filename: str = "<cell>", first_line: int = 1) -> Nest:
    """Read the loops of a cell; nothing is executed.

    Parameters
    ----------
    source : str
        The cell, without the line of the magic.
    axes : sequence of str, optional
        Names of the loops that are axes, where not all of the chain should be.
    filename : str
        Its name in tracebacks.
    first_line : int
        Line of the cell at which `source` begins.

    Raises
    ------
    LoopError
        With the line, what is wrong, what to write instead, and where possible the rewritten cell.
    """
    return _Reader(source, axes, filename, first_line).run()


class _Reader:
    """The work of `read`."""

    def __init__(self, source: str, axes: Sequence[str] | None, filename: str, first_line: int):
        self.source, self.axes, self.filename, self.first_line = source, axes, filename, first_line

    def run(self) -> Nest:
        try:
            self.source = unwrapped(self.source)
            tree = parse(self.source)
        except SyntaxError as error:
            line = None if error.lineno is None else error.lineno + self.first_line - 1
            raise LoopError(f"the cell is not valid Python: {error.msg}.", line) from error
        try:
            return self._read(tree)
        except Problem as problem:
            raise refuse(problem, self.source, self.first_line, self.axes) from None

    def _read(self, tree: ast.Module) -> Nest:
        number = find_loop(tree)
        loop = tree.body[number]
        assert isinstance(loop, ast.For)
        head, tail = tree.body[:number], tree.body[number + 1 :]
        frame = Frame(loop, find_noise(head, loop), head_bindings(head), _imported(head), self.axes)
        reading, notes, ragged = self._attempts(frame)
        if not reading.outputs:
            raise Problem(
                "nothing",
                loop,
                "the loops keep no result.",
                "End their body with the names of the results, or append them to a list.",
            )
        lines = self.source.splitlines(keepends=True)
        return Nest(
            self.source,
            self.filename,
            self.first_line,
            "".join(lines[: loop.lineno - 1]),
            "".join(lines[(loop.end_lineno or loop.lineno) :]) if tail else "",
            tuple(self._level(level) for level in reading.levels),
            _sinks(reading.outline),
            tuple(reading.outputs),
            (*notes, *find_notes(frame.loop, head, tail, reading, frame.noise)),
            tuple(find_offers(self.source, tree, number, reading, self.first_line, ragged)),
            reading,
        )

    def _attempts(self, frame: Frame) -> tuple[Reading, list[str], Problem | None]:
        """Read with as many axes as possible; a loop whose turns depend on each other stays in the point."""
        depth: int | None = None
        notes: list[str] = []
        ragged: Problem | None = None
        while True:
            try:
                return attempt(frame, depth), notes, ragged
            except Problem as problem:
                if problem.level == 0:
                    raise
                depth = problem.level
                notes = [_lost(frame, depth, problem)]
                ragged = problem if problem.kind == "ragged" else ragged

    def _level(self, level: nesting.Level) -> Level:
        guards = tuple(f"not ({ast.unparse(t)})" if skip else ast.unparse(t) for t, skip in level.guards)
        setup = "\n".join(ast.unparse(s) for s in level.before)
        names = tuple(level.names or level.counters)
        return Level(names, ast.unparse(level.node.iter), guards, setup, level.node.lineno + self.first_line - 1)


def _lost(frame: Frame, depth: int, problem: Problem) -> str:
    """Say which loops stay inside the points, and why."""
    levels = nesting.descend(copy.deepcopy(frame.loop), frame.noise, frame.axes)
    names = [", ".join(level.names or level.counters) for level in levels]
    outer, inner = ", ".join(names[:depth]), ", ".join(names[depth:])
    verb = "runs" if depth == 1 else "run"
    return f"{inner} stays inside the points and only {outer} {verb} in parallel: {problem.cause}"


def _sinks(outline: Outline) -> tuple[Sink, ...]:
    found: dict[str, str] = {}
    for slot in outline.slots:
        found.setdefault(slot.base, slot.op)
    return tuple(Sink(name, kind) for name, kind in found.items())


def _imported(head: Sequence[ast.stmt]) -> set[str]:
    return {name for s in head if isinstance(s, ast.Import | ast.ImportFrom) for name in stores(s)}


def refuse(problem: Problem, source: str, first_line: int, axes: Sequence[str] | None = None) -> LoopError:
    """Make the error of a problem, with a rewritten cell only where that cell would be read without complaint."""
    return refusal(problem, source, first_line, _accepted(problem, source, axes, 4))


def _accepted(problem: Problem, source: str, axes: Sequence[str] | None, turns: int) -> str:
    tree = parse(source)
    text = rewritten(problem, source, tree)
    if not text or text == source or not turns:
        return ""
    try:
        again = parse(text)
        _Reader(text, axes, "<cell>", 1)._read(again)
    except SyntaxError:
        return ""
    except Problem as left:
        return _accepted(left, text, axes, turns - 1)
    return text
