"""Nested `for` of a cell -> grid, point, setups, outputs; and back again: the rows the loops would have made."""

import ast
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mce_notebook.declare import nesting
from mce_notebook.declare.binding import Binder, Listing
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.independence import generator_above
from mce_notebook.declare.names import read_names, reads, stores
from mce_notebook.declare.nesting import Problem, find_noise
from mce_notebook.declare.points import function
from mce_notebook.declare.reading import Frame, Reading, attempt
from mce_notebook.declare.refusals import Offer, refusal
from mce_notebook.declare.routine import Routine, Setup
from mce_notebook.declare.rows import describe_container, rebuild, sink_names
from mce_notebook.declare.sinks import head_bindings
from mce_notebook.declare.slots import Outline, Slot, Template
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
class Bound:
    """A nest with its iterables evaluated.

    Parameters
    ----------
    grid : Grid
    point : Routine
        Returns the tuple of `outputs`, or the bare value of one.
    setups : tuple of Setup
    parameters : tuple of str
        Of the point: all coordinates, what setups provide, generators.
    outputs : tuple of str
    generator_names : tuple of str
        Parameters that receive a generator.
    dims : mapping of str to tuple of str
        Dimensions of array outputs.
    shared : tuple of str
        Axes that random streams do not depend on.
    sinks : dict
        JSON for `rebuild`.
    notes : tuple of str
        The launch line, then warnings.
    """

    grid: Grid
    point: Routine
    setups: tuple[Setup, ...]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    generator_names: tuple[str, ...]
    dims: Mapping[str, tuple[str, ...]]
    shared: tuple[str, ...]
    sinks: dict[str, Any]
    notes: tuple[str, ...]


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
        """The next cell: wait for the sweep called `name`, restore what the loops would have left, go on."""
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
        return _Binding(self, namespace).run()

    def line(self, node: ast.AST) -> int:
        """Line of the cell of a node."""
        return int(getattr(node, "lineno", 1)) + self.first_line - 1


class _Binding:
    """The work of `Nest.bind`."""

    def __init__(self, nest: Nest, namespace: dict[str, Any]):
        self.nest, self.reading, self.namespace = nest, nest.reading, namespace

    def run(self) -> Bound:
        wanted = self._counters_read()
        binder = Binder(self.reading, self.namespace, self.nest.filename, wanted, self.nest.line)
        self._check_generators()
        self.listings = binder.listings()
        records = {name: keys for listing in self.listings for name, keys in listing.records.items()}
        grid = binder.grid(self.listings)
        outline, body, outputs = self.reading.lower(records)
        generators = tuple(g for listing in self.listings for g in listing.generators)
        setups, inlined = self._setups(records, generators)
        body = [*self._unpacking(records, body), *inlined, *body]
        provides = tuple(name for setup in setups for name in setup.provides)
        used = read_names(body)
        parameters = (*grid.names, *(n for n in dict.fromkeys(provides) if n in used and n not in grid.names))
        parameters += tuple(g for g in generators if g not in parameters)
        point = function("point", parameters, body, self.reading.levels[-1].node)
        dims = {name: slot.dims for slot in outline.slots for name in slot.outputs if slot.dims}
        return Bound(
            grid,
            Routine(point, self.nest.cell, self.nest.filename),
            setups,
            parameters,
            tuple(outputs),
            generators,
            dims,
            grid.shared,
            self._record(outline),
            (self._launch_line(grid, setups, outputs), *self.nest.notes),
        )

    def _counters_read(self) -> set[str]:
        """Counters that code of the point or a setup reads, not only the places of sinks."""
        _, body, _ = self.reading.lower()
        setups = [s for _, statements, _ in self.reading.setups for s in statements]
        tests = [test for level in self.reading.levels for test, _ in level.guards]
        counters = {name for spec in self.reading.specs for name, _ in spec.counters}
        return counters & read_names([*body, *setups, *tests])

    def _check_generators(self) -> None:
        statements = [*self.reading.point, *(s for _, body, _ in self.reading.setups for s in body)]
        bound = stores(self.reading.levels[0].node)
        for name in reads(statements):
            value = self.namespace.get(name.id)
            if (
                name.id not in bound
                and type(value).__name__ in {"Generator", "RandomState"}
                and hasattr(value, "normal")
            ):
                raise refusal(generator_above(name.id, name), self.nest.cell, self.nest.first_line)

    def _axis_numbers(self) -> list[list[int]]:
        """For every iterable the numbers of its axes."""
        numbers: list[list[int]] = []
        position = 0
        for listing in self.listings:
            own = list(range(position, position + len(listing.axes)))
            numbers += [own] * len(listing.specs)
            position += len(listing.axes)
        return numbers

    def _level_ends(self) -> list[int]:
        """For every level the number of axes down to it."""
        numbers = self._axis_numbers()
        ends, spec = [], 0
        for level in self.reading.levels:
            spec += len(level.specs)
            ends.append(numbers[spec - 1][-1] + 1)
        return ends

    def _setups(
        self, records: Mapping[str, Sequence[str]], generators: tuple[str, ...]
    ) -> tuple[tuple[Setup, ...], list[ast.stmt]]:
        """Routines of the setups; those inside a table of ragged loops run with every point."""
        setups: list[Setup] = []
        inlined: list[ast.stmt] = []
        ends = self._level_ends()
        axes = [axis for listing in self.listings for axis in listing.axes]
        known: list[str] = []
        for number, statements, provides in self.reading.setups:
            below = ends[number + 1]
            if inlined or below == ends[number]:
                inlined += statements
                continue
            names = [name for axis in axes[: ends[number]] for name in axis.names]
            body = [*self._unpacking(records, statements), *statements]
            names += [n for n in known if n in read_names(body) and n not in names]
            names += [g for g in generators if g in read_names(body)]
            node = statements[0]
            values = ast.Tuple([ast.Name(p, ast.Load()) for p in provides], ast.Load())
            body.append(ast.fix_missing_locations(ast.copy_location(ast.Return(values), statements[-1])))
            routine = Routine(function("setup", names, body, node), self.nest.cell, self.nest.filename)
            setups.append(Setup(ends[number], routine, tuple(provides)))
            known += provides
        return tuple(setups), inlined

    def _unpacking(self, records: Mapping[str, Sequence[str]], body: Sequence[ast.stmt]) -> list[ast.stmt]:
        """``params = {"a": a, ...}`` for loop variables that stand for a dictionary."""
        made: list[ast.stmt] = []
        partial = {name for listing in self.listings for name in listing.partial}
        for name, keys in records.items():
            if name not in read_names(list(body)):
                continue
            source = f"{name} = {{{', '.join(f'{k!r}: {k}' for k in keys)}}}"
            if partial & set(keys):
                source += f"\n{name} = {{k: v for k, v in {name}.items() if v is not __mce_missing__}}"
            for statement in ast.parse(source).body:
                for node in ast.walk(statement):
                    ast.copy_location(node, self.reading.levels[-1].node)
                made.append(statement)
        return made

    def _record(self, outline: Outline) -> dict[str, Any]:
        """What `rebuild` needs to know."""
        numbers = self._axis_numbers()
        tables = {n for listing in self.listings if listing.table for n in listing.specs}
        positions: dict[int, Any] = {}
        for number in range(len(numbers)):
            counters = self.reading.specs[number].counters
            positions[number] = {"axis": counters[0][0]} if number in tables and counters else numbers[number]
        entries = []
        for base, slots in itertools.groupby(
            sorted(outline.slots, key=lambda s: self._order(outline, s)), lambda s: s.base
        ):
            own = list(slots)
            made = [
                {"path": [_resolved(outline.scope.key(p, ()), positions) for p in path], "kind": kind, "depth": depth}
                for name, path, kind, depth in self._made(own)
                if name == base
            ]
            template = (
                {"list": []} if self.reading.last and base not in self.reading.sinks.bases else self._template(base)
            )
            entries.append(
                {"name": base, "template": template, "made": made, "slots": [_slot(s, positions) for s in own]}
            )
        return {"sinks": entries, "levels": self._level_ends()}

    def _order(self, outline: Outline, slot: Slot) -> int:
        return next(n for n, other in enumerate(outline.slots) if other.base == slot.base)

    def _made(self, slots: Sequence[Slot]) -> list[tuple[str, list[ast.expr], str, int]]:
        """Containers made between the loops, and the row lists on the paths of slots."""
        made = list(self.reading.sinks.made)
        for base, path in self.reading.sinks.rows.values():
            last = path[-1] if path else None
            depth = getattr(last, "depth", 0)
            if depth:
                made.append((base, path, "list", depth))
        return sorted(made, key=lambda item: item[3])

    def _template(self, base: str) -> dict[str, Any]:
        if base not in self.namespace:
            raise LoopError(
                f"`{base}` is written in the loops, but nothing called `{base}` exists.",
                self.nest.line(self.reading.levels[0].node),
                f"Make it above the loops, as in `{base} = []`.",
            )
        value = self.namespace[base]
        return {"list": []} if isinstance(value, list) and not _nested(value) else describe_container(value)

    def _launch_line(self, grid: Grid, setups: Sequence[Setup], outputs: Sequence[str]) -> str:
        axes = ", ".join(f"{'/'.join(axis.names)} ({axis.size})" for part in grid.parts for axis in part.axes)
        parts = [f"axes {axes}"]
        ends = self._level_ends()
        for setup in setups:
            level = self.reading.levels[ends.index(setup.depth)]
            parts.append(f"setup per {', '.join(level.names or level.counters)}")
        guards = sum(len(level.guards) for level in self.reading.levels)
        if guards:
            parts.append("1 guard" if guards == 1 else f"{guards} guards")
        parts.append(f"outputs {', '.join(outputs)}")
        return "; ".join(parts)


def _nested(value: list[Any]) -> bool:
    """Whether a list was laid out for subscripts, and not begun for appending."""
    return bool(value)


def _resolved(template: Template, positions: Mapping[int, Any]) -> Template:
    """A template with numbers of iterables replaced by those of axes."""
    if "position" in template:
        place = positions[template["position"]]
        return place if isinstance(place, dict) else {"position": place, "start": template["start"]}
    found = dict(template)
    for kind in ("tuple", "list"):
        if kind in found:
            found[kind] = [_resolved(t, positions) for t in found[kind]]
    if "dict" in found:
        found["dict"] = [[k and _resolved(k, positions), _resolved(v, positions)] for k, v in found["dict"]]
    if "names" in found:
        found["names"] = {name: _resolved(t, positions) for name, t in found["names"].items()}
    return found


def _slot(slot: Slot, positions: Mapping[int, Any]) -> dict[str, Any]:
    return {
        "op": slot.op,
        "path": [_resolved(t, positions) for t in slot.path],
        "value": _resolved(slot.value, positions),
        "outputs": list(slot.outputs),
        "dims": list(slot.dims),
        "always": slot.always,
    }


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
            tree = parse(self.source)
        except SyntaxError as error:
            line = None if error.lineno is None else error.lineno + self.first_line - 1
            raise LoopError(f"the cell is not valid Python: {error.msg}.", line) from error
        try:
            return self._read(tree)
        except Problem as problem:
            raise refusal(problem, self.source, self.first_line) from None

    def _read(self, tree: ast.Module) -> Nest:
        number = find_loop(tree)
        loop = tree.body[number]
        assert isinstance(loop, ast.For)
        head, tail = tree.body[:number], tree.body[number + 1 :]
        frame = Frame(loop, find_noise(head, loop), head_bindings(head), _imported(head), self.axes)
        reading, notes = self._attempts(frame)
        if not reading.outputs:
            raise Problem(
                "nothing", loop, "the loops write no result anywhere.", "End the body with the names of the results."
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
            tuple(notes),
            (),
            reading,
        )

    def _attempts(self, frame: Frame) -> tuple[Reading, list[str]]:
        """Read with as many axes as possible; a loop whose turns depend on each other stays in the point."""
        depth: int | None = None
        notes: list[str] = []
        while True:
            try:
                return attempt(frame, depth), notes
            except Problem as problem:
                if problem.level == 0:
                    raise
                depth = problem.level
                notes = [f"only the {depth} outer loop{'s' if depth > 1 else ''} run in parallel: {problem.cause}"]

    def _level(self, level: nesting.Level) -> Level:
        guards = tuple(f"not ({ast.unparse(t)})" if skip else ast.unparse(t) for t, skip in level.guards)
        setup = "\n".join(ast.unparse(s) for s in level.before)
        names = tuple(level.names or level.counters)
        return Level(names, ast.unparse(level.node.iter), guards, setup, level.node.lineno + self.first_line - 1)


def _sinks(outline: Outline) -> tuple[Sink, ...]:
    found: dict[str, str] = {}
    for slot in outline.slots:
        found.setdefault(slot.base, slot.op)
    return tuple(Sink(name, kind) for name, kind in found.items())


def _imported(head: Sequence[ast.stmt]) -> set[str]:
    return {name for s in head if isinstance(s, ast.Import | ast.ImportFrom) for name in stores(s)}


_MAGIC = re.compile(r"^(\s*)([%!?].*)$")


def parse(source: str) -> ast.Module:
    """Syntax tree of a cell; lines for IPython alone count as `pass`."""
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


def find_loop(tree: ast.Module) -> int:
    """Number of the statement that is the outermost loop."""
    loops = [n for n, s in enumerate(tree.body) if isinstance(s, ast.For)]
    if not loops:
        raise Problem("none", tree.body[0] if tree.body else tree, "the cell has no loop to read as a sweep.")
    return loops[0]


Rewrite = Callable[[ast.Module], str]
