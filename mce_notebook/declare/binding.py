"""The iterables of a nest, evaluated once in the notebook, as the axes of a grid."""

import ast
import builtins
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mce_notebook.declare.axes import Axis, AxisKind, Coordinate, check_rows
from mce_notebook.declare.columns import coordinate, listed
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.guards import MODULES, Guard
from mce_notebook.declare.names import read_names, targets
from mce_notebook.declare.nesting import Problem, Spec
from mce_notebook.declare.parts import Part
from mce_notebook.declare.reading import Reading
from mce_notebook.declare.routine import MISSING
from mce_notebook.declare.seeds import Replicates
from mce_notebook.declare.values import is_simple
from mce_notebook.errors import GridError, LoopError


@dataclass
class Listing:
    """What one header, or several that depend on each other, turned into.

    Parameters
    ----------
    specs : range
        Numbers of the iterables.
    axes : list of Axis
        Mostly one; several for a dictionary of lists.
    records : dict of str to list of str
        Loop variables that stand for a dictionary, with its keys.
    generators : list of str
        Loop variables that receive a generator.
    """

    specs: range
    axes: list[Axis]
    records: dict[str, list[str]] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)
    generators: list[str] = field(default_factory=list)
    table: bool = False


class Binder:
    """Evaluates the headers of a reading.

    Parameters
    ----------
    reading : Reading
        The cell.
    namespace : dict
        The notebook.
    filename : str
        Name of the cell in tracebacks.
    wanted : set of str
        Counters that the point reads, and so have to be coordinates.
    line : callable
        Line of the cell of a node.
    """

    def __init__(
        self,
        reading: Reading,
        namespace: dict[str, Any],
        filename: str,
        wanted: set[str],
        line: Callable[[ast.AST], int],
    ):
        self.reading, self.namespace, self.filename, self.wanted, self.line = reading, namespace, filename, wanted, line
        self.specs = reading.specs
        self.owner = [number for number, level in enumerate(reading.levels) for _ in level.specs]

    def listings(self) -> list[Listing]:
        """Every header, outermost first."""
        found: list[Listing] = []
        for first, last in self._groups():
            node = self.reading.levels[self.owner[first]].node
            try:
                found.append(self._table(first, last) if last > first + 1 else self._single(first))
            except GridError as error:
                raise LoopError(str(error), self.line(node)) from error
        return found

    def grid(self, listings: Sequence[Listing]) -> Grid:
        """Return the grid of the axes and the guards."""
        names = [name for listing in listings for axis in listing.axes for name in axis.names]
        guards = [self._guard(test, skip, names) for level in self.reading.levels for test, skip in level.guards]
        try:
            part = Part(tuple(axis for listing in listings for axis in listing.axes), tuple(guards))
            return Grid((part,))
        except GridError as error:
            raise LoopError(str(error), self.line(self.reading.levels[0].node)) from error

    def _groups(self) -> list[tuple[int, int]]:
        """Half-open ranges of iterables; those that depend on outer loop variables join these in one table."""
        bounds = [(n, n + 1) for n in range(len(self.specs))]
        for number, spec in enumerate(self.specs):
            needed = read_names(spec.iterable) | {n for _, seq in spec.picks for n in read_names(seq)}
            outer = [k for k in range(number) if needed & self._bound_by(self.specs[k])]
            if outer:
                first = next(b for b, e in bounds if b <= outer[0] < e)
                bounds = (
                    [(b, e) for b, e in bounds if e <= first]
                    + [(first, number + 1)]
                    + [(b, e) for b, e in bounds if b > number]
                )
        return bounds

    def _bound_by(self, spec: Spec) -> set[str]:
        own = {n.id for n in targets(spec.target)} if spec.target is not None else set()
        return own | {n for n, _ in spec.counters} | {n for n, _ in spec.picks}

    def evaluate(self, node: ast.expr, local: Mapping[str, Any] | None = None) -> Any:
        """Value of an expression of a header."""
        expression = ast.fix_missing_locations(ast.Expression(copy.deepcopy(node)))
        scope = {**self.namespace, **local} if local else self.namespace
        try:
            return eval(compile(expression, self.filename, "eval"), scope)
        except GridError:
            raise
        except Exception as error:
            text = ast.unparse(node)
            raise LoopError(
                f"`{text}` cannot be listed: {type(error).__name__}: {error}.",
                self.line(node),
                "The statements above the loops run first; define there what the loops list.",
            ) from error

    def _items(self, spec: Spec, local: Mapping[str, Any] | None = None) -> Any:
        values = self.evaluate(spec.iterable, local)
        if isinstance(spec.iterable, ast.Name | ast.Attribute) and isinstance(values, Iterator):
            text = ast.unparse(spec.iterable)
            raise Problem(
                "once",
                spec.iterable,
                f"`{text}` can be listed only once, because it is a {type(values).__name__}.",
                f"Write `{text} = list(...)` above the loops.",
                name=text,
            )
        return list(values) if isinstance(values, str) else values

    def _single(self, number: int) -> Listing:
        spec = self.specs[number]
        values = self._items(spec)
        here = range(number, number + 1)
        if isinstance(values, Replicates):
            return self._replicates(spec, values, here)
        if isinstance(spec.target, ast.Name) and not spec.picks and not spec.replicate:
            grids = _parameter_grid(values)
            if grids is not None:
                axes = [check_rows(Axis((coordinate(key, grids[key]),))) for key in sorted(grids)]
                return Listing(here, axes, {spec.target.id: sorted(grids)})
            items: Any = values if isinstance(values, np.ndarray | range) else listed(spec.target.id, values)
            if _are_records(items):
                return self._record(spec, items, here)
            values = items
        columns = self._columns(spec, values, {})
        return Listing(here, [self._axis(spec, columns)])

    def _replicates(self, spec: Spec, values: Replicates, here: range) -> Listing:
        """Make an axis of repetitions; a counter over it names it."""
        counter = next(((n, s) for n, s in spec.counters if n in self.wanted), None)
        name = counter[0] if counter else spec.replicate or "replicate"
        start = self._start(counter[1]) if counter else 0
        axis = Axis((coordinate(name, range(start, start + values.n)),), "replicate", values.shared)
        own = [n.id for n in targets(spec.target) if n.id != "_"] if spec.target is not None else []
        return Listing(here, [axis], generators=own)

    def _start(self, node: ast.expr | None) -> int:
        return 0 if node is None else int(self.evaluate(node))

    def _record(self, spec: Spec, items: Sequence[Any], here: range) -> Listing:
        """Make of a list of dictionaries one axis: it is one axis with a coordinate for every key."""
        assert isinstance(spec.target, ast.Name)
        keys = list(dict.fromkeys(key for item in items for key in item))
        partial = {key for key in keys if any(key not in item for item in items)}
        columns = []
        for key in keys:
            column = coordinate(key, [item.get(key, float("nan")) for item in items])
            if key in partial:
                values = [item.get(key, MISSING) for item in items]
                column = type(column)(key, values, column.labels, column.kind, column.typed)
            columns.append(column)
        kind: AxisKind = "zip" if len(columns) > 1 else "single"
        axis = check_rows(Axis((*columns, *self._counted(spec, len(items))), kind))
        return Listing(here, [axis], {spec.target.id: keys}, partial)

    def _counted(self, spec: Spec, size: int) -> list[Any]:
        return [
            coordinate(name, range(self._start(start), self._start(start) + size))
            for name, start in spec.counters
            if name in self.wanted
        ]

    def _columns(self, spec: Spec, values: Any, local: Mapping[str, Any]) -> dict[str, Any]:
        """One sequence per coordinate, without counters."""
        columns: dict[str, Any] = {}
        if spec.target is not None:
            if spec.replicate:
                return {spec.replicate: range(len(listed(spec.replicate, values)))}
            _unpack(spec.target, values, columns)
        for name, sequence in spec.picks:
            whole = self.evaluate(sequence, local)
            size = len(values)
            plain = isinstance(whole, np.ndarray | list | tuple | range) and len(whole) == size
            columns[name] = whole if plain else [whole[j] for j in range(size)]
        columns.pop("_", None)
        return columns

    def _axis(self, spec: Spec, columns: dict[str, Any]) -> Axis:
        made = make_coordinates(columns)
        size = len(made[0]) if made else 0
        counted = self._counted(spec, size)
        try:
            return check_rows(Axis((*made, *counted), _kind(made, counted)))
        except GridError:
            if counted or not spec.counters:
                raise
            # Values listed twice are told apart by the counter the loop has anyway.
            self.wanted.add(spec.counters[0][0])
            return check_rows(Axis((*made, *self._counted(spec, size)), "zip"))

    def _table(self, first: int, last: int) -> Listing:
        """Loops whose inner iterables depend on outer variables: one axis over all their rows."""
        columns: dict[str, list[Any]] = {}
        self._rows(first, last, {}, [], columns)
        names = list(columns)
        if not names or not columns[names[0]]:
            raise GridError(f"The loop over {', '.join(self.specs[first].names)} has no values; give it at least one.")
        axis = Axis(tuple(make_coordinates(columns)), "table")
        return Listing(range(first, last), [check_rows(axis)], table=True)

    def _rows(
        self, number: int, last: int, local: dict[str, Any], row: list[tuple[str, Any]], columns: dict[str, list[Any]]
    ) -> None:
        spec = self.specs[number]
        values = self._items(spec, local)
        own = {k: list(v) for k, v in self._columns(spec, values, local).items()}
        size = len(next(iter(own.values()), []))
        for name, start in spec.counters:
            own[name] = list(range(self._start(start), self._start(start) + size))
        if number == last - 1:
            for name, value in row:
                columns.setdefault(name, []).extend(itertools.repeat(value, size))
            for name, column in own.items():
                columns.setdefault(name, []).extend(column)
            return
        for index in range(size):
            now = [(name, column[index]) for name, column in own.items()]
            self._rows(number + 1, last, {**local, **dict(now)}, [*row, *now], columns)

    def _guard(self, test: ast.expr, skip: bool, names: Sequence[str]) -> Guard:
        read = read_names(test)
        used = tuple(name for name in names if name in read)
        constants: dict[str, Any] = {}
        for name in sorted(read - set(used)):
            if name in self.namespace:
                if self.namespace[name] is not MODULES.get(name, self):
                    constants[name] = self.namespace[name]
            elif not hasattr(builtins, name):
                raise LoopError(
                    f"the condition `{ast.unparse(test)}` reads `{name}`, which nobody defines.", self.line(test)
                )
        text = ast.unparse(test)
        return Guard(f"not ({text})" if skip else text, None, used, constants)


def _kind(made: Sequence[Coordinate], counted: Sequence[Coordinate]) -> AxisKind:
    """Tell rows that combine values, as a listed product does, from columns that advance together."""
    if len(made) + len(counted) < 2:
        return "single"
    repeats = len(made) > 1 and all(len(np.unique(c.labels)) < len(c.labels) for c in made)
    return "table" if repeats else "zip"


def make_coordinates(columns: Mapping[str, Any]) -> list[Coordinate]:
    """Columns of an axis; objects beside a column of distinct strings, as in ``.items()``, are labelled by it."""
    words = next((c for c in columns.values() if isinstance(c, list) and all(isinstance(v, str) for v in c)), None)
    return [_coordinate(name, column, words) for name, column in columns.items()]


def _coordinate(name: str, column: Any, words: list[str] | None) -> Coordinate:
    if not isinstance(column, list) or any(is_simple(value) for value in column):
        return coordinate(name, column)
    if words is not None:
        return coordinate(name, list(zip(words, column, strict=True)), pairs=True)
    named = [getattr(value, "__name__", "") for value in column]
    try:
        return coordinate(name, column)
    except GridError:
        if not all(named) or len(set(named)) < len(named):
            raise
        return coordinate(name, list(zip(named, column, strict=True)), pairs=True)


def _unpack(target: ast.expr, values: Any, columns: dict[str, Any]) -> None:
    if isinstance(target, ast.Name):
        columns[target.id] = values if isinstance(values, np.ndarray | range) else listed(target.id, values)
        return
    assert isinstance(target, ast.Tuple | ast.List)
    items = listed(next(targets(target)).id, values)
    try:
        rows = [tuple(row) for row in items]
    except TypeError as error:
        raise GridError(f"`{ast.unparse(target)}` names several values, but the loop lists one at a time.") from error
    for row in rows:
        if len(row) != len(target.elts):
            raise GridError(
                f"`{ast.unparse(target)}` names {len(target.elts)} values, "
                f"but the loop lists {len(row)} at once: {row!r}."
            )
    for number, element in enumerate(target.elts):
        _unpack(element, [row[number] for row in rows], columns)


def _parameter_grid(values: Any) -> dict[str, Any] | None:
    """Return the dictionary of a `sklearn.model_selection.ParameterGrid` made of a single one."""
    grids: Any = getattr(values, "param_grid", None)
    single = isinstance(grids, list) and len(grids) == 1 and isinstance(grids[0], dict)
    return dict(grids[0]) if single and type(values).__name__ == "ParameterGrid" else None


def _are_records(items: Any) -> bool:
    if isinstance(items, np.ndarray | range) or not len(items):
        return False
    return all(isinstance(item, Mapping) and all(isinstance(key, str) for key in item) for item in items)
