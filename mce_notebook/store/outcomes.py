"""What a block of points gave, and how values and failures become columns of one kind each."""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from mce_notebook.declare.grid import Status
from mce_notebook.store.columns import convert
from mce_notebook.store.kinds import EXACT, INT, NULL, STR, Kind, Unstorable, flatten, guarded, normalise


@dataclass(frozen=True)
class Failure:
    """Why a point has no values.

    Parameters
    ----------
    status : Status
        FAILED, KILLED or TIMEOUT.
    type : str
        Name of the exception, or of the signal.
    message : str
    traceback : str
        With the user's frames.
    output : str
        Tail of what the point printed.
    where : {"point", "setup", "slot"}
    cause : str
        One line that groups failures of one origin.
    """

    status: Status
    type: str
    message: str
    traceback: str = ""
    output: str = ""
    where: str = "point"
    cause: str = ""

    def to_json(self) -> str:
        """Without `output`, which has a column of its own where equal tails are kept once."""
        record = {"status": int(self.status), "type": self.type, "message": self.message}
        optional = {"traceback": self.traceback, "cause": self.cause}
        record.update({name: text for name, text in optional.items() if text})
        if self.where != "point":
            record["where"] = self.where
        return json.dumps(record, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str, output: str = "") -> "Failure":
        """Read back what `to_json` gave; `output` comes from its own column."""
        record = json.loads(text)
        return cls(
            Status(record["status"]),
            record["type"],
            record["message"],
            record.get("traceback", ""),
            output,
            record.get("where", "point"),
            record.get("cause", ""),
        )


@dataclass
class Outcomes:
    """What the points of a block gave, by position in the block.

    Parameters
    ----------
    values : list, length n
        Tuples in the order of the outputs, or bare values when there is one, or dicts and the like when the outputs
        are not known beforehand. What stands where a point failed or was skipped is ignored.
    failures : dict of int to Failure
    skipped : positions whose point was left out by a `continue`
    seconds : ndarray[n] or None
        Time of each point.
    tails : dict of int to str
        Tails of what points printed.
    """

    values: list[Any]
    failures: dict[int, Failure] = field(default_factory=dict)
    skipped: Iterable[int] = ()
    seconds: np.ndarray | None = None
    tails: dict[int, str] = field(default_factory=dict)


@dataclass
class Group:
    """Rows of a block whose outputs have the same kinds.

    `positions` is None when these are all rows; `columns` maps a name to its kind and its values, a list with
    None where there is none, or an Arrow array.
    """

    positions: list[int] | None
    columns: dict[str, tuple[Kind, Any]]


def unstorable(problem: Unstorable, output: str = "") -> Failure:
    """Make the failure of a point whose value cannot be kept."""
    text = f"{output}: {problem}" if output else str(problem)
    cause = f"cannot be stored: {str(problem).removeprefix('returned ').split(',', 1)[0]}"
    return Failure(Status.FAILED, "Unstorable", text, cause=cause)


def group(
    values: list[Any], names: tuple[str, ...] | None, absent: set[int], failures: dict[int, Failure]
) -> list[Group]:
    """Sort rows by the kinds of their outputs; usually one group.

    Values that cannot be stored are added to `failures` and `absent`.
    """
    columns = _split(values, names, absent, failures)
    found = {name: _plain(column) for name, column in columns.items()}
    if None not in found.values():
        done = {name: pair for name, pair in found.items() if pair is not None}
        return [Group(None, _without_empty(done, len(values), absent))]
    single = {name for name, pair in found.items() if pair is not None}
    return _grouped(columns, single, len(values), absent, failures)


def _split(
    values: list[Any], names: tuple[str, ...] | None, absent: set[int], failures: dict[int, Failure]
) -> dict[str, list[Any]]:
    """One list of values for each output."""
    if absent:
        values = list(values)
        for position in absent:
            values[position] = None
    if names is not None and len(names) == 1:
        return {names[0]: values}
    if names is None:
        return _split_unnamed(values, absent, failures)
    width = len(names)
    if not absent and set(map(type, values)) == {tuple} and set(map(len, values)) == {width}:
        if width == 0:
            return {}
        flat = list(itertools.chain.from_iterable(values))
        return {name: flat[at::width] for at, name in enumerate(names)}
    rows = [_row(value, position, names, absent, failures) for position, value in enumerate(values)]
    return {name: list(map(itemgetter(at), rows)) for at, name in enumerate(names)}


def _row(
    value: Any, position: int, names: tuple[str, ...], absent: set[int], failures: dict[int, Failure]
) -> tuple[Any, ...]:
    if position in absent:
        return (None,) * len(names)
    if isinstance(value, Mapping) and set(value) == set(names):
        return tuple(value[name] for name in names)
    if isinstance(value, tuple | list) and len(value) == len(names):
        return tuple(value)
    found = f"{len(value)} values" if isinstance(value, tuple | list) else "one value"
    problem = Unstorable(f"returned {found} where the outputs are {', '.join(names)}; return {len(names)} values")
    failures[position] = unstorable(problem)
    absent.add(position)
    return (None,) * len(names)


def _split_unnamed(values: list[Any], absent: set[int], failures: dict[int, Failure]) -> dict[str, list[Any]]:
    if all(type(value) in EXACT for value in values):
        return {"value": values}
    columns: dict[str, list[Any]] = {}
    for position, value in enumerate(values):
        if position in absent:
            continue
        try:
            row = guarded(_named, value)
        except Unstorable as problem:
            failures[position] = unstorable(problem)
            absent.add(position)
            continue
        for name, item in row.items():
            columns.setdefault(name, [None] * len(values))[position] = item
    return columns


def _named(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if type(value) is tuple:
        value = {f"value_{at}": item for at, item in enumerate(value)}
    if hasattr(value, "dims") and hasattr(value, "values") and not hasattr(value, "data_vars"):
        return {str(getattr(value, "name", None) or "value"): value}
    row = flatten("", value)
    return {name or "value": item for name, item in row.items()}


def _plain(column: list[Any]) -> tuple[Kind, Any] | None:
    """Kind and values of a column of plain scalars of one type; None when it takes a closer look."""
    kind = _one_kind(column)
    if kind is None:
        kind = _arrays_alike(column)
    if kind is None or kind not in (INT, STR):
        return None if kind is None else (kind, column)
    array = convert(kind, column)
    return None if array is None else (kind, array)


def _arrays_alike(column: list[Any]) -> Kind | None:
    """Kind of a column of plain numeric arrays of one type and rank; None when it takes a closer look."""
    if set(map(type, column)) - {type(None)} != {np.ndarray}:
        return None
    kinds = {(value.dtype, value.ndim) for value in column if value is not None}
    dtype, ndim = kinds.pop()
    known = EXACT.get(dtype.type)
    if kinds or known is None or not dtype.isnative or not ndim:
        return None
    return Kind(known.dtype, ndim)


def _one_kind(column: list[Any]) -> Kind | None:
    kinds = {EXACT.get(kind) for kind in set(map(type, column))} - {NULL}
    if len(kinds) > 1:
        return None
    return kinds.pop() if kinds else NULL


def _without_empty(columns: dict[str, tuple[Kind, Any]], count: int, absent: set[int]) -> dict[str, tuple[Kind, Any]]:
    # Where every point failed, nothing says what the outputs are; a column of nulls would only add a schema.
    return {} if len(absent) == count else columns


def _grouped(
    columns: dict[str, list[Any]],
    single: set[str],
    count: int,
    absent: set[int],
    failures: dict[int, Failure],
) -> list[Group]:
    columns, mixed = _expand(columns, single, absent, failures)
    known = {name: _one_kind(column) or _arrays_alike(column) for name, column in columns.items() if name not in mixed}
    row_kinds: dict[str, list[Kind]] = {}
    for name in mixed:
        row_kinds[name], columns[name] = _normalised(name, columns[name], absent, failures)
    for position in absent:
        for name, column in columns.items():
            column[position] = None
            if name in row_kinds:
                row_kinds[name][position] = NULL
    for name, listed in row_kinds.items():
        _fill_missing(listed)
        if len(set(listed)) == 1:
            known[name] = listed[0]
    varying = {name: listed for name, listed in row_kinds.items() if name not in known}
    fixed = {name: kind or NULL for name, kind in known.items()}
    return _by_signature(columns, fixed, varying, count, absent)


def _expand(
    columns: dict[str, list[Any]],
    single: set[str],
    absent: set[int],
    failures: dict[int, Failure],
) -> tuple[dict[str, list[Any]], list[str]]:
    """Columns with dicts, tables and the like taken apart, and the names of those of no single plain kind."""
    wide: dict[str, list[Any]] = {}
    mixed: list[str] = []
    for name, column in columns.items():
        if name in single:
            wide[name] = list(column)
            continue
        parts: dict[str, list[Any]] = {}
        for position, value in enumerate(column):
            if value is None or position in absent:
                continue
            try:
                row = {name: value} if type(value) in EXACT else guarded(flatten, name, value)
            except Unstorable as problem:
                failures[position] = unstorable(problem, name)
                absent.add(position)
                continue
            for inner, item in row.items():
                parts.setdefault(inner, [None] * len(column))[position] = item
        wide.update(parts)
        mixed.extend(parts)
    return wide, mixed


def _normalised(
    name: str, column: list[Any], absent: set[int], failures: dict[int, Failure]
) -> tuple[list[Kind], list[Any]]:
    kinds: list[Kind] = [NULL] * len(column)
    plain: list[Any] = [None] * len(column)
    for position, value in enumerate(column):
        if value is None or position in absent:
            continue
        try:
            kinds[position], plain[position] = guarded(normalise, value)
        except Unstorable as problem:
            failures[position] = unstorable(problem, name)
            absent.add(position)
    return kinds, plain


def _fill_missing(listed: list[Kind]) -> None:
    """Give rows without a value the most frequent kind, so that they need no frame of their own."""
    counts: dict[Kind, int] = {}
    for kind in listed:
        if kind is not NULL and kind != NULL:
            counts[kind] = counts.get(kind, 0) + 1
    if counts:
        common = max(counts, key=lambda kind: counts[kind])
        listed[:] = [common if kind == NULL else kind for kind in listed]


def _by_signature(
    columns: dict[str, list[Any]],
    fixed: dict[str, Kind],
    varying: dict[str, list[Kind]],
    count: int,
    absent: set[int],
) -> list[Group]:
    if not varying:
        done = {name: (kind, columns[name]) for name, kind in fixed.items()}
        return [Group(None, _without_empty(done, count, absent))]
    rows: dict[tuple[Kind, ...], list[int]] = {}
    for position, signature in enumerate(zip(*varying.values(), strict=True)):
        rows.setdefault(signature, []).append(position)
    groups = []
    for signature, positions in rows.items():
        kinds = fixed | dict(zip(varying, signature, strict=True))
        found = {name: (kind, [columns[name][at] for at in positions]) for name, kind in kinds.items()}
        # An output none of these rows has would only add a schema.
        some = {name: pair for name, pair in found.items() if any(value is not None for value in pair[1])}
        groups.append(Group(positions if len(rows) > 1 else None, some))
    return groups
