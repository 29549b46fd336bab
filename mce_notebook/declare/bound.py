"""A nest bound to the values of a notebook: grid, compiled routines, and what `rows()` needs to know."""

import ast
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mce_notebook.declare.axes import Axis
from mce_notebook.declare.binding import Binder
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.independence import generator_above
from mce_notebook.declare.names import read_names, reads, stores
from mce_notebook.declare.nesting import Problem
from mce_notebook.declare.points import function
from mce_notebook.declare.reading import Reading
from mce_notebook.declare.routine import Routine, Setup
from mce_notebook.declare.rows import describe_container
from mce_notebook.declare.slots import Outline, Slot
from mce_notebook.declare.templates import Template


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


class Binding:
    """The work of `Nest.bind`: evaluates the headers, then compiles the point and the setups."""

    def __init__(
        self,
        reading: Reading,
        namespace: dict[str, Any],
        cell: str,
        filename: str,
        line: Callable[[ast.AST], int],
        notes: tuple[str, ...],
    ):
        self.reading, self.namespace, self.notes = reading, namespace, notes
        self.cell, self.filename, self.line = cell, filename, line

    def run(self) -> Bound:
        """Evaluate and compile."""
        wanted = self._counters_read()
        binder = Binder(self.reading, self.namespace, self.filename, wanted, self.line)
        self._check_generators()
        self.listings = binder.listings()
        records = {name: keys for listing in self.listings for name, keys in listing.records.items()}
        grid = binder.grid(self.listings)
        columns = [column for part in grid.parts for axis in part.axes for column in axis.coordinates]
        several = {column.name for column in columns if column.kind in ("mixed", "object")}
        outline, body, outputs = self.reading.lower(records, {column.name for column in columns} - several)
        generators = tuple(g for listing in self.listings for g in listing.generators)
        setups = self._setups(records, generators)
        body = [*self._unpacking(records, body), *body]
        provides = tuple(name for setup in setups for name in setup.provides)
        used = read_names(body)
        parameters = (*grid.names, *(n for n in dict.fromkeys(provides) if n in used and n not in grid.names))
        parameters += tuple(g for g in generators if g not in parameters)
        point = function("point", parameters, body, self.reading.levels[-1].node)
        dims = {name: ("_".join(slot.dims),) for slot in outline.slots for name in slot.outputs if slot.dims}
        return Bound(
            grid,
            Routine(point, self.cell, self.filename),
            setups,
            parameters,
            tuple(outputs),
            generators,
            dims,
            grid.shared,
            self._record(outline),
            (self._launch_line(grid, setups, outputs), *self.notes),
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
                raise generator_above(name.id, name)

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

    def _setups(self, records: Mapping[str, Sequence[str]], generators: tuple[str, ...]) -> tuple[Setup, ...]:
        """Return the routines of the setups; those between ragged loops depend on some coordinates of one axis."""
        setups: list[Setup] = []
        ends = self._level_ends()
        axes = [axis for listing in self.listings for axis in listing.axes]
        known: list[str] = []
        for number, statements, provides in self.reading.setups:
            # Levels that end with the same axis are ragged loops, and this one is between two of them.
            depth = ends[number] - (ends[number + 1] == ends[number])
            enclosing = self._bound_down_to(number, axes[depth]) if depth < ends[number] else ()
            names = [*(name for axis in axes[:depth] for name in axis.names), *enclosing]
            body = [*self._unpacking(records, statements), *statements]
            names += [n for n in known if n in read_names(body) and n not in names]
            names += [g for g in generators if g in read_names(body)]
            node = statements[0]
            values = ast.Tuple([ast.Name(p, ast.Load()) for p in provides], ast.Load())
            body.append(ast.fix_missing_locations(ast.copy_location(ast.Return(values), statements[-1])))
            routine = Routine(function("setup", names, body, node), self.cell, self.filename)
            setups.append(Setup(depth, routine, tuple(provides), enclosing))
            known += provides
        return tuple(setups)

    def _bound_down_to(self, number: int, axis: Axis) -> tuple[str, ...]:
        """Return the coordinates of an axis of ragged loops that the levels down to this one give."""
        bound: set[str] = set()
        for spec in itertools.chain.from_iterable(level.specs for level in self.reading.levels[: number + 1]):
            bound |= {*spec.names, *(name for name, _ in spec.counters), *([spec.replicate] if spec.replicate else [])}
        return tuple(name for name in axis.names if name in bound)

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
        """Return what `rebuild` needs to know."""
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
        guards = itertools.accumulate(len(level.guards) for level in self.reading.levels)
        return {"sinks": entries, "levels": self._level_ends(), "guards": list(guards)}

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
            raise Problem(
                "undefined",
                self.reading.levels[0].node,
                f"`{base}` is written in the loops, but nothing called `{base}` exists.",
                f"Make it above the loops, as in `{base} = []`.",
                name=base,
            )
        value = self.namespace[base]
        return {"list": []} if isinstance(value, list) and not _nested(value) else describe_container(value)

    def _launch_line(self, grid: Grid, setups: Sequence[Setup], outputs: Sequence[str]) -> str:
        axes = ", ".join(f"{'/'.join(axis.names)} ({axis.size})" for part in grid.parts for axis in part.axes)
        parts = [f"axes {axes}"]
        for number, _, _ in self.reading.setups[: len(setups)]:
            level = self.reading.levels[number]
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
    """Return a template with numbers of iterables replaced by those of axes."""
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
