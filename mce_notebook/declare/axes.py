"""Axes: named, listed values, one column of them or several zipped; how they are made from what people write."""

import difflib
import keyword
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.values import (
    Labels,
    canonical,
    canonical_column,
    digests,
    is_simple,
    text_label,
)
from mce_notebook.errors import GridError

AxisKind = Literal["single", "zip", "table", "design", "replicate"]
Digests = npt.NDArray[np.uint64]
Values = Sequence[Any] | npt.NDArray[Any]

RESERVED = frozenset({"status", "point", "seconds", "host", "attempt", "version", "outcome", "rng"})
LONG = 65_536  # labels from which a column is neither copied to a tuple nor hashed as a whole
CHUNK = 4096


class Natives(Sequence[Any]):
    """The Python values of a label array, made when asked: a list of ten million floats would need 320 MB."""

    def __init__(self, labels: Labels, make: Callable[[Any], Any] | None = None):
        self.labels = labels
        self.make = make

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        items = self.labels[index]
        if isinstance(index, slice):
            return items.tolist() if self.make is None else [self.make(item) for item in items]
        return items.item() if self.make is None else self.make(items)


@dataclass(frozen=True, eq=False)
class Coordinate:
    """One named column of an axis.

    Parameters
    ----------
    name : str
    values : sequence or None
        What the function receives, of the type the user's loop would yield; None where only labels are known.
    labels : ndarray, shape (n,)
        What people see and select by, of kind b, i, f, c, U, M or m; strings for objects and mixed kinds.
    kind : str
        Type of every value (see `values.kind_of`), `mixed` for several packable types, `object` where only
        pickle keeps them.
    typed : tuple of bytes, optional
        Canonical bytes of each value, where the labels do not determine them.
    """

    name: str
    values: Values | None
    labels: Labels
    kind: str = ""
    typed: tuple[bytes, ...] | None = None
    _hashed: dict[int, Digests] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        # What is computed once is cheaper to compute again than to send.
        state = {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}
        return {**state, "_hashed": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def digests(self) -> Digests:
        """blake2b-128 of (name, canonical value), uint64[n, 2], low word first."""
        if self.typed is not None:
            return digests(self.name, self.typed)
        if len(self) <= CHUNK:
            return digests(self.name, canonical_column(self.labels))
        # The rows of a table repeat their labels; each is hashed once.
        unique, inverse = np.unique(self.labels, return_inverse=True)
        return digests(self.name, canonical_column(unique))[inverse]

    def digests_at(self, rows: npt.NDArray[np.int64]) -> Digests:
        """Return the digests of some rows; a long column is hashed only where it is looked at."""
        if len(self) <= LONG or self.typed is not None or "digests" in self.__dict__:
            return self.digests[rows]
        out = np.empty((len(rows), 2), dtype=np.uint64)
        chunks = rows // CHUNK
        for chunk in np.unique(chunks).tolist():
            if chunk not in self._hashed:
                part = self.labels[chunk * CHUNK : (chunk + 1) * CHUNK]
                self._hashed[chunk] = digests(self.name, canonical_column(part))
            here = chunks == chunk
            out[here] = self._hashed[chunk][rows[here] - chunk * CHUNK]
        return out

    @cached_property
    def listed(self) -> Values:
        """The values as a sequence that slices fast; GridError where only labels are known."""
        if self.values is None:
            raise GridError(
                f"The values of axis {self.name!r} are objects and only their labels are known here; "
                "run the cell that declares them again."
            )
        return tuple(self.values) if len(self) <= LONG else self.values

    def take(self, rows: npt.NDArray[np.int64]) -> list[Any]:
        """Return the values of some rows."""
        values = self.listed
        if isinstance(values, Natives) and values.make is None:
            taken: list[Any] = values.labels.take(rows).tolist()
            return taken
        if isinstance(values, np.ndarray):
            return list(values.take(rows))
        if isinstance(values, tuple):
            kept: list[Any] = self._objects.take(rows).tolist()
            return kept
        return [values[row] for row in rows.tolist()]

    @cached_property
    def _objects(self) -> npt.NDArray[Any]:
        return np.fromiter(self.listed, dtype=object, count=len(self))

    def rows(self, selected: npt.NDArray[np.int64] | slice) -> "Coordinate":
        """Return this column with some of its rows."""
        picked = np.arange(len(self))[selected]
        values = None if self.values is None else self.take(picked)
        typed = None if self.typed is None else tuple(self.typed[row] for row in picked.tolist())
        return Coordinate(self.name, values, self.labels[picked], self.kind, typed)

    def match(self, value: Any) -> npt.NDArray[np.int64]:
        """Return the rows whose label is `value`: equal, or within 1e-12 relative for floats."""
        if self.labels.dtype.kind == "U":
            return self._match_text(value)
        if not is_simple(value) or (isinstance(value, str) and self.labels.dtype.kind != "M"):
            return np.empty(0, dtype=np.int64)
        wanted = canonical(value) if not isinstance(value, str) else canonical(np.datetime64(value))
        if self.labels.dtype.kind in "Mm":
            column = np.array(canonical_column(self.labels), dtype=object)
            return np.flatnonzero(column == wanted)
        return match_number(self.labels, value)

    def _match_text(self, value: Any) -> npt.NDArray[np.int64]:
        if self.typed is not None:
            text = isinstance(value, str)
            wanted = None if text or not is_simple(value) else canonical(value)
            rows = [row for row, item in enumerate(self.typed) if item == wanted]
            return np.array(rows, dtype=np.int64) if rows else np.flatnonzero(self.labels == text_label(value))
        return np.flatnonzero(self.labels == value) if isinstance(value, str) else np.empty(0, dtype=np.int64)


def match_number(labels: Labels, value: Any) -> npt.NDArray[np.int64]:
    """Return the rows of a column of numbers that equal `value`, else those within 1e-12 relative of it."""
    if isinstance(value, bool | np.bool_) != (labels.dtype.kind == "b"):
        return np.empty(0, dtype=np.int64)
    number = complex(value) if isinstance(value, complex | np.complexfloating) else value
    exact = np.flatnonzero(labels == number)
    if len(exact) or labels.dtype.kind not in "fc" or not isinstance(value, float | int | complex | np.number):
        return exact
    if value != value:
        return np.flatnonzero(np.isnan(labels))
    with np.errstate(invalid="ignore"):
        apart = np.abs(labels - value)
    close = np.flatnonzero(apart <= 1e-12 * np.abs(value))
    return close[apart[close] == apart[close].min()] if len(close) else close


@dataclass(frozen=True, eq=False)
class Axis:
    """A dimension of a grid: one coordinate, or several that advance together.

    `table` axes come from ragged loops and designs: their rows are distinct, the labels of one column are not.
    `shared` names are left out of the key of random streams (common random numbers).
    """

    coordinates: tuple[Coordinate, ...]
    kind: AxisKind = "single"
    shared: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the dimension: that of the first coordinate."""
        return self.coordinates[0].name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all coordinates."""
        return tuple(coordinate.name for coordinate in self.coordinates)

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.coordinates[0])

    def keys_at(self, rows: npt.NDArray[np.int64], names: Iterable[str]) -> Digests:
        """Return the sum mod 2**128 of the digests of the coordinates called `names`, for some rows."""
        total = np.zeros((len(rows), 2), dtype=np.uint64)
        for coordinate in self.coordinates:
            if coordinate.name in names:
                add_keys(total, coordinate.digests_at(rows))
        return total

    def rows(self, selected: npt.NDArray[np.int64] | slice) -> "Axis":
        """Return this axis with some of its rows."""
        return replace(self, coordinates=tuple(coordinate.rows(selected) for coordinate in self.coordinates))


def add_keys(total: Digests, more: Digests) -> None:
    """Add 128-bit numbers given as uint64[n, 2] (low, high) to `total` in place, mod 2**128."""
    low = total[:, 0] + more[..., 0]
    total[:, 1] += more[..., 1] + (low < total[:, 0])
    total[:, 0] = low


# Names


def check_name(name: Any) -> str:
    """Return the name in the form Python gives identifiers (NFKC), or say why it cannot name an axis."""
    if not isinstance(name, str):
        raise GridError(f"The name of an axis is a string, not {name!r}.")
    name = str(unicodedata.normalize("NFKC", name))
    if not name.isidentifier():
        raise GridError(
            f"{name!r} cannot name an axis: use letters, digits and underscores, such as {suggest(name)!r}."
        )
    if keyword.iskeyword(name):
        raise GridError(f"{name!r} cannot name an axis because Python keeps the word; use {name + '_'!r}.")
    if name.startswith("__"):
        raise GridError(f"{name!r} cannot name an axis: two underscores mark Python's own names.")
    if name in RESERVED:
        raise GridError(
            f"{name!r} cannot name an axis because results carry a column of that name; use {name + '_value'!r}."
        )
    return str(name)


def check_names(names: Sequence[str]) -> None:
    """Refuse names used twice, and names that differ in case only (file systems and people mix them up)."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise GridError(f"The axes {other!r} and {name!r} differ in upper and lower case only; rename one of them.")
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise GridError(f"The axis {twice!r} is there twice; rename one of them.")


def suggest(name: str) -> str:
    """Return a valid identifier that resembles `name`."""
    kept = "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in name).strip("_")
    return kept if kept.isidentifier() and kept not in RESERVED else f"x{kept}"


def nearest(word: Any, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` or the known words, for the end of a message."""
    words = list(known)
    close = difflib.get_close_matches(str(word), words, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(words[:12]) + (", ..." if len(words) > 12 else "")
    return f"there is {shown}." if words else "there is none."


# Checking rows


def check_rows(axis: Axis) -> Axis:
    """Return the axis, or say which of its rows is there twice."""
    if axis.size == 0:
        raise GridError(f"The axis {axis.name!r} has no values; give it at least one.")
    lengths = {coordinate.name: len(coordinate) for coordinate in axis.coordinates}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise GridError(f"Zipped axes need equally many values: {told}.")
    twice = _repeated_row(axis)
    if twice is None:
        return axis
    first, again = twice
    shown = ", ".join(str(coordinate.labels[first]) for coordinate in axis.coordinates)
    raise GridError(
        f"The axis {axis.name!r} lists {shown} twice (positions {first + 1} and {again + 1}); "
        "list each value once, and use replicates(n) to repeat points."
    )


def _repeated_row(axis: Axis) -> tuple[int, int] | None:
    if axis.kind == "replicate":
        return None
    if len(axis.coordinates) == 1 and axis.coordinates[0].typed is None:
        column = axis.coordinates[0].labels
        if isinstance(axis.coordinates[0].values, range) or _increases(column):
            return None
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        same = ordered[1:] == ordered[:-1]
        if column.dtype.kind in "fcM":
            same |= np.isnan(ordered[1:]) & np.isnan(ordered[:-1])
    else:
        keys = axis.keys_at(np.arange(axis.size), axis.names)
        order = np.lexsort((keys[:, 0], keys[:, 1]))
        same = (keys[order][1:] == keys[order][:-1]).all(axis=1)
    pairs = np.flatnonzero(same)
    if not len(pairs):
        return None
    found = min(pairs.tolist(), key=lambda pair: int(order[pair + 1]))
    return int(order[found]), int(order[found + 1])


def _increases(column: Labels) -> bool:
    return column.dtype.kind in "if" and bool((column[1:] > column[:-1]).all())
