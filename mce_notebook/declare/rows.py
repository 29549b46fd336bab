"""`rows()`: the very list, dictionary or array the plain loops would have made, from the outcomes of a sweep."""

import ast
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.columns import python_values
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.parts import Part
from mce_notebook.errors import ViewError

Make = Callable[[int], Any]
Template = Mapping[str, Any]


def sink_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the sinks of a cell, in the order they are first written."""
    return tuple(entry["name"] for entry in record["sinks"])


def rebuild(
    record: Mapping[str, Any],
    sink: str | None,
    grid: Grid,
    done: npt.NDArray[np.int64],
    columns: Mapping[str, Sequence[Any]],
) -> Any:
    """Make what the loops would have left in a sink.

    Parameters
    ----------
    record : mapping
        `Bound.sinks`, as kept in the declaration.
    sink : str or None
        Which sink; may be None where there is only one.
    grid : Grid
        The grid of the declaration, or one extended from it.
    done : ndarray of int64
        Listed indices of the points that have an outcome, ascending. Others are left out of lists and keep the
        fill in arrays.
    columns : mapping of str to sequence
        For every output its values, aligned with `done`; None where a point did not write it.

    Raises
    ------
    ViewError
        For an unknown sink, or none named where there are several.
    """
    names = sink_names(record)
    if sink is None and len(names) == 1:
        sink = names[0]
    if sink not in names:
        told = ", ".join(repr(name) for name in names)
        raise ViewError(f"The loops wrote to {told}; say which, as in rows({names[0]!r})." if names else "No rows.")
    entry = record["sinks"][names.index(sink)]
    return _Rebuilding(record, entry, grid, np.asarray(done, dtype=np.int64), columns).run()


class _Rebuilding:
    """One sink being filled."""

    def __init__(
        self,
        record: Mapping[str, Any],
        entry: Mapping[str, Any],
        grid: Grid,
        done: npt.NDArray[np.int64],
        columns: Mapping[str, Sequence[Any]],
    ):
        self.record, self.entry, self.grid, self.done, self.columns = record, entry, grid, done, columns
        self._axes: dict[str, list[Any]] = {}
        self._positions: dict[tuple[int, ...], list[int]] = {}
        self._prefixes: dict[int, list[int]] = {}
        self._groups: dict[tuple[Any, ...], Any] = {}

    def run(self) -> Any:
        container = make_container(self.entry["template"])
        slots = [_Slot(self, slot) for slot in self.entry["slots"]]
        self._prepare(container)
        if isinstance(container, np.ndarray):
            container = self._grown(container, slots)
        if len(slots) == 1 and slots[0].put_all(container):
            return container
        for k in range(len(self.done)):
            for slot in slots:
                slot.put(container, k)
        return container

    # What is known of a point

    def axis(self, name: str) -> list[Any]:
        """Values of a coordinate at the points done."""
        if name not in self._axes:
            found: list[Any] = [None] * len(self.done)
            for part, begin, stop in self._parts():
                if name not in part.coordinates:
                    continue
                dimension, column = part.coordinates[name]
                rows = np.unravel_index(self.done[begin:stop] - self._start(part), part.shape)[dimension]
                found[begin:stop] = (
                    column.take(rows) if column.values is not None else python_values(column.labels[rows])
                )
            self._axes[name] = found
        return self._axes[name]

    def position(self, axes: Sequence[int]) -> list[int]:
        """Where the points done are along some axes, counted in loop order."""
        key = tuple(axes)
        if key not in self._positions:
            found: list[int] = []
            for part, begin, stop in self._parts():
                rows = np.unravel_index(self.done[begin:stop] - self._start(part), part.shape)
                shape = [part.shape[a] for a in axes]
                found += np.ravel_multi_index([rows[a] for a in axes], shape).tolist()
            self._positions[key] = found
        return self._positions[key]

    def prefix(self, depth: int, k: int) -> int:
        """Which combination of the loops around a level a point belongs to."""
        if depth not in self._prefixes:
            axes = int(self.record["levels"][depth - 1])
            found: list[int] = []
            for part, begin, stop in self._parts():
                # Combinations of later parts are others, even where their number is the same.
                inner = math.prod(part.shape[axes:])
                found += ((self.done[begin:stop] - self._start(part)) // inner + self._start(part)).tolist()
            self._prefixes[depth] = found
        return self._prefixes[depth][k]

    def _start(self, part: Any) -> int:
        return int(self.grid.starts[self.grid.parts.index(part)])

    def _parts(self) -> Iterator[tuple[Any, int, int]]:
        edges = np.searchsorted(self.done, self.grid.starts)
        for number, part in enumerate(self.grid.parts):
            if edges[number] < edges[number + 1]:
                yield part, int(edges[number]), int(edges[number + 1])

    # Containers made between the loops

    def _prepare(self, container: Any) -> None:
        """Make the lists and dictionaries that the loops make for every outer value, filled later or not."""
        made = self.entry["made"]
        if not made:
            return
        for item in made:
            firsts = self._reached(item["depth"])
            point = _Rebuilding(self.record, self.entry, self.grid, firsts, {})
            point._groups = self._groups
            path = [_key(point, step) for step in item["path"]]
            for k in range(len(firsts)):
                node = container
                for step in path[:-1]:
                    node = step(node, k)
                path[-1].create(node, k, item["kind"])

    def _reached(self, depth: int) -> npt.NDArray[np.int64]:
        """First point of every combination of the outer loops that gets past their own guards."""
        axes, guards = self.record["levels"][depth - 1], self.record["guards"][depth - 1]
        found = []
        for part in self.grid.parts:
            outer = Grid((Part(part.axes[:axes], part.guards[:guards]),))
            # Where there are no guards further in, what is kept tells; slow ones are not evaluated again.
            whole = self.grid.mask() if len(self.grid.parts) == 1 and guards == len(part.guards) else None
            mask = outer.mask() if whole is None else whole.reshape(outer.size, -1).any(axis=1)
            kept = np.arange(outer.size) if mask is None else np.flatnonzero(mask)
            found.append(self._start(part) + kept * math.prod(part.shape[axes:]))
        return np.concatenate(found)

    def _grown(self, array: npt.NDArray[Any], slots: Sequence["_Slot"]) -> npt.NDArray[Any]:
        """Return the array with room for values by which the grid was extended."""
        need = list(array.shape)
        for slot in slots:
            for dimension, positions in slot.places():
                if positions and dimension < len(need):
                    need[dimension] = max(need[dimension], max(positions) + 1)
        if tuple(need) == array.shape:
            return array
        grown: npt.NDArray[Any] = make_container({**self.entry["template"], "shape": need})
        grown[tuple(slice(0, size) for size in array.shape)] = array
        return grown


class _Slot:
    """One place that every point fills."""

    def __init__(self, owner: _Rebuilding, record: Mapping[str, Any]):
        self.owner, self.record = owner, record
        self.outputs = [owner.columns[name] for name in record["outputs"]]
        self.path = [_key(owner, step, self.outputs) for step in record["path"]]
        self.looped = bool(record["dims"])
        self.computed = '"output"' in json.dumps(record["path"])
        self.op = record["op"]
        self._value = _value(owner, record["value"], self.outputs)

    def put_all(self, container: Any) -> bool:
        """Write everything at once where the place is plain; tell whether it was."""
        if self.looped or self.computed or not self.record["always"] or len(self.path) > 1:
            return False
        values = _whole(self.owner, self.record["value"], self.outputs)
        if values is None:
            return False
        if not self.path:
            if self.op != "append" or not isinstance(container, list):
                return False
            container.extend(values)
            return True
        keys = _whole(self.owner, self.record["path"][0], self.outputs)
        if keys is None or self.op != "set":
            return False
        if isinstance(container, dict):
            container.update(zip(keys, values, strict=True))
            return True
        return self._scatter(container, list(values))

    def _scatter(self, container: Any, values: list[Any]) -> bool:
        """Set elements of an array by their positions."""
        step = self.record["path"][0]
        parts = step.get("tuple", [step])
        if not isinstance(container, np.ndarray) or len(parts) != container.ndim or not values:
            return False
        if not all("position" in part for part in parts):
            return False
        index = [np.array(self.owner.position(part["position"])) + part["start"] for part in parts]
        container[tuple(index)] = values
        return True

    def places(self) -> Iterator[tuple[int, list[int]]]:
        """Dimensions of an array and the positions written along them."""
        steps = self.record["path"][:1]
        parts = steps[0].get("tuple", steps) if steps else []
        for dimension, part in enumerate(parts):
            if "position" in part:
                found = self.owner.position(part["position"])
                yield dimension, [p + part["start"] for p in found]

    def put(self, container: Any, k: int) -> None:
        """Write what one point gave."""
        if not self.record["always"] and all(column[k] is None for column in self.outputs):
            return
        if self.looped:
            self._put_turns(container, k)
        else:
            self._put(container, self.path, k, self._value(k))

    def _put_turns(self, container: Any, k: int) -> None:
        if self.op == "set" and not self.computed:
            self._put(container, self.path, k, self._value(k))
            return
        columns = [column[k] for column in self.outputs]
        size = max((len(column) for column in columns if column is not None), default=0)
        turn = _value(self.owner, self.record["value"], columns, turn=True)
        path = [_key(self.owner, step, columns, turn=True) for step in self.record["path"]]
        for number in range(size):
            self._put(container, path, (k, number), turn((k, number)))

    def _put(self, container: Any, path: Sequence["_key"], k: Any, value: Any) -> None:
        node = container
        steps = path if self.op != "set" else path[:-1]
        for step in steps:
            node = step(node, k)
        if self.op == "append":
            node.add(value) if isinstance(node, set) else node.append(value)
        elif self.op == "extend":
            node.extend(value)
        else:
            path[-1].set(node, k, value)


class _key:  # noqa: N801
    """One step of a path: finds, makes or sets what is behind a pair of brackets."""

    def __init__(self, owner: _Rebuilding, template: Template, outputs: Sequence[Any] = (), *, turn: bool = False):
        self.owner, self.template, self.turn = owner, template, turn
        self.group = template.get("group", 0)
        self.make: Callable[[Any], Any] = (
            (lambda k: None) if self.group else _value(owner, template, outputs, turn=turn)
        )

    def __call__(self, node: Any, k: Any) -> Any:
        """Return the container behind the step."""
        if self.group:
            return self._grouped(node, k)
        key = self.make(k)
        if isinstance(node, dict) and not isinstance(node, defaultdict) and key not in node:
            node[key] = [] if self.owner.entry.get("leaf") == "list" else {}
        return node[key]

    def _grouped(self, node: Any, k: Any) -> Any:
        place = (id(node), self.group, self.owner.prefix(self.group, k[0] if self.turn else k))
        if place not in self.owner._groups:
            self.owner._groups[place] = []
            node.append(self.owner._groups[place])
        return self.owner._groups[place]

    def create(self, node: Any, k: int, kind: str) -> None:
        """Make an empty container behind the step."""
        if self.group:
            self._grouped(node, k)
            return
        key = self.make(k)
        if not isinstance(node, dict) or key not in node:
            node[key] = {"list": list, "dict": dict, "set": set}[kind]()

    def set(self, node: Any, k: Any, value: Any) -> None:
        """Put a value behind the step."""
        if "dim" in self.template:
            for number, item in enumerate(value):
                node[number] = item
        else:
            node[self.make(k)] = value


def _value(
    owner: _Rebuilding, template: Template, outputs: Sequence[Any], *, turn: bool = False
) -> Callable[[Any], Any]:
    """Return a function from the number of a point (and of a turn) to the value a template describes."""

    def inner(t: Template) -> Callable[[Any], Any]:
        return _value(owner, t, outputs, turn=turn)

    if "output" in template:
        column = outputs[template["output"]]
        return (lambda k: column[k[1]]) if turn else lambda k: column[k]
    if "constant" in template:
        constant = template["constant"]
        return lambda k: constant
    for kind, made in (("tuple", tuple), ("list", list)):
        if kind in template:
            parts = [inner(t) for t in template[kind]]
            return lambda k: made(part(k) for part in parts)
    if "dict" in template:
        return _dictionary([(None if key is None else inner(key), inner(v)) for key, v in template["dict"]])
    if "slice" in template:
        cut = slice(*template["slice"]) if template["slice"] is not None else Ellipsis
        return lambda k: cut
    if "dim" in template:
        return lambda k: slice(None)
    place = _place(owner, template)
    return (lambda k: place(k[0])) if turn else place


def _whole(owner: _Rebuilding, template: Template, outputs: Sequence[Any]) -> Sequence[Any] | None:
    """Return what `_value` gives for all points, column by column; None where only it can."""
    if "output" in template:
        column: Sequence[Any] = outputs[template["output"]]
        return column
    if "axis" in template:
        return owner.axis(template["axis"])
    if "position" in template and not template["start"]:
        return owner.position(template["position"])
    if "constant" in template:
        return [template["constant"]] * len(owner.done)
    if "tuple" not in template and ("dict" not in template or any(k is None for k, _ in template["dict"])):
        return None
    pairs: list[Any] = [({}, t) for t in template["tuple"]] if "tuple" in template else template["dict"]
    parts = [_whole(owner, t, outputs) for _, t in pairs]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not parts:
        return None
    rows = list(zip(*known, strict=True))
    if "tuple" in template:
        return rows
    keys = [key.get("constant") for key, _ in pairs]
    return [dict(zip(keys, row, strict=True)) for row in rows] if all("constant" in k for k, _ in pairs) else None


def _dictionary(pairs: Sequence[tuple[Callable[[Any], Any] | None, Callable[[Any], Any]]]) -> Callable[[Any], Any]:
    def make(k: Any) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in pairs:
            made.update(value(k)) if key is None else made.__setitem__(key(k), value(k))
        return made

    return make


def _place(owner: _Rebuilding, template: Template) -> Make:
    """Values that follow from where a point is in the grid."""
    if "axis" in template:
        return owner.axis(template["axis"]).__getitem__
    if "position" in template:
        positions, start = owner.position(template["position"]), template["start"]
        return lambda k: positions[k] + start
    if "counter" in template:
        start, step = template["counter"], template["step"]
        return lambda k: start + step * k
    if "record" in template:
        columns = {name: owner.axis(name) for name in template["record"]}
        return lambda k: {n: c[k] for n, c in columns.items() if getattr(c[k], "name", "") != "MISSING"}
    known = {name: _value(owner, t, []) for name, t in template["names"].items()}
    tree = ast.parse(template["expression"], mode="eval").body
    return lambda k: evaluate(tree, {name: make(k) for name, make in known.items()})


_CALLS: dict[str, Callable[..., Any]] = {
    "str": str, "int": int, "float": float, "round": round, "abs": abs, "tuple": tuple, "repr": repr,
    "min": min, "max": max,
}  # fmt: skip
_CONVERSIONS: dict[str, Callable[[Any], str]] = {"s": str, "r": repr, "a": ascii}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b, ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b, ast.Pow: lambda a, b: a**b,
    ast.USub: lambda a: -a, ast.UAdd: lambda a: a, ast.Not: lambda a: not a,
}  # fmt: skip


def evaluate(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """Value of arithmetic and formatted strings over labels, without Python's evaluator: stores hold no code."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](evaluate(node.left, names), evaluate(node.right, names))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](evaluate(node.operand, names))
    if isinstance(node, ast.Tuple):
        return tuple(evaluate(element, names) for element in node.elts)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(evaluate(part, names)) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        value = evaluate(node.value, names)
        if node.conversion != -1:
            value = _CONVERSIONS[chr(node.conversion)](value)
        return format(value, evaluate(node.format_spec, names) if node.format_spec else "")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _CALLS[node.func.id](*(evaluate(argument, names) for argument in node.args))
    raise ViewError(f"`{ast.unparse(node)}` cannot be a key of rows().")


def describe_container(value: Any, depth: int = 0) -> dict[str, Any]:
    """JSON from which an equal empty or preallocated container can be made.

    Parameters
    ----------
    value : object
        What the name of the sink is bound to before the loops.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufcUSM":
        return {"array": value.dtype.str, "shape": list(value.shape), "fill": _fill(value)}
    if isinstance(value, np.ndarray):
        return {"array": "O", "shape": list(value.shape), "fill": None}
    if isinstance(value, Mapping) and depth < 4 and len(value) <= 10_000:
        pairs = [[_json_key(key), describe_container(item, depth + 1)] for key, item in value.items()]
        factory = getattr(value, "default_factory", None)
        default = None if factory is None else describe_container(factory(), depth + 1)
        return {"dict": [p for p in pairs if p[0] is not None], "default": default}
    if isinstance(value, list) and depth < 4 and len(value) <= 10_000:
        return {"list": [describe_container(item, depth + 1) for item in value]}
    if isinstance(value, set):
        return {"set": True}
    return {"value": value if isinstance(value, str | int | float | bool) else None}


def _json_key(key: Any) -> Any:
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, tuple):
        return {"tuple": [_json_key(k) for k in key]}
    return {"constant": key} if isinstance(key, str | int | float | bool | None) else None


def _fill(array: npt.NDArray[Any]) -> Any:
    kind = array.dtype.kind
    first = array.flat[0].item() if array.size else 0
    if array.size and kind in "fc" and np.isnan(array.flat[0]):
        return "nan" if np.isnan(array).all() else 0
    uniform = bool((array == array.flat[0]).all()) if array.size else True
    if kind == "c":
        return 0
    return first if uniform and isinstance(first, str | int | float | bool) else 0


def make_container(template: Template) -> Any:
    """Make what `describe_container` described."""
    if "array" in template:
        fill = float("nan") if template["fill"] == "nan" else template["fill"]
        return np.full(tuple(template["shape"]), fill, dtype=np.dtype(template["array"]))
    if "dict" in template:
        pairs = {_made_key(key): make_container(item) for key, item in template["dict"]}
        default = template.get("default")
        return pairs if default is None else defaultdict(lambda: make_container(default), pairs)
    if "list" in template:
        return [make_container(item) for item in template["list"]]
    return set() if "set" in template else template["value"]


def _made_key(key: Template) -> Any:
    return tuple(_made_key(k) for k in key["tuple"]) if "tuple" in key else key["constant"]
