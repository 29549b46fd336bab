"""Axes: named, listed values, one column of them or several zipped; how they are made from what people write."""

import difflib
import itertools
import keyword
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.seeds import Replicates
from mce_notebook.declare.values import (
    EXACT,
    LONGEST_LABEL,
    Labelled,
    Labels,
    Token,
    canonical,
    canonical_column,
    datetime64,
    digests,
    is_simple,
    kind_of,
    text_label,
    text_labels,
)
from mce_notebook.errors import GridError

AxisKind = Literal["single", "zip", "table", "replicate"]
Digests = npt.NDArray[np.uint64]

RESERVED = frozenset({"status", "point", "seconds", "host", "attempt", "version", "outcome", "rng"})
MOST_VALUES = 100_000_000
LONG = 65_536  # labels from which a column is neither copied to a tuple nor hashed as a whole
CHUNK = 4096
ENDLESS = (itertools.count, itertools.cycle, itertools.repeat)


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
        What people see and select by, of kind b, i, f, c, U or M; strings for objects and mixed kinds.
    kind : str
        Type of every value (see `values.kind_of`), `mixed` for several packable types, `object` where only pickle keeps them.
    typed : tuple of bytes, optional
        Canonical bytes of each value, where the labels do not determine them.
    """

    name: str
    values: Sequence[Any] | None
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
    def listed(self) -> Sequence[Any]:
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
        if not is_simple(value) or isinstance(value, str) and self.labels.dtype.kind != "M":
            return np.empty(0, dtype=np.int64)
        wanted = canonical(value) if not isinstance(value, str) else canonical(np.datetime64(value))
        if self.labels.dtype.kind == "M":
            column = np.array(canonical_column(self.labels), dtype=object)
            return np.flatnonzero(column == wanted)
        return match_number(self.labels, value)

    def _match_text(self, value: Any) -> npt.NDArray[np.int64]:
        if self.typed is not None:
            text = isinstance(value, str)
            wanted = None if text or not is_simple(value) else canonical(value)
            rows = [row for row, item in enumerate(self.typed) if item == wanted]
            return (
                np.array(rows, dtype=np.int64) if rows else np.flatnonzero(self.labels == text_label(value))
            )
        return np.flatnonzero(self.labels == value) if isinstance(value, str) else np.empty(0, dtype=np.int64)


def match_number(labels: Labels, value: Any) -> npt.NDArray[np.int64]:
    """Return the rows of a column of numbers that equal `value`, else those within 1e-12 relative of it."""
    if isinstance(value, bool | np.bool_) != (labels.dtype.kind == "b"):
        return np.empty(0, dtype=np.int64)
    number = complex(value) if isinstance(value, complex | np.complexfloating) else value
    exact = np.flatnonzero(labels == number)
    if (
        len(exact)
        or labels.dtype.kind not in "fc"
        or not isinstance(value, float | int | complex | np.number)
    ):
        return exact
    if value != value:  # noqa: PLR0124
        return np.flatnonzero(np.isnan(labels))
    with np.errstate(invalid="ignore"):
        apart = np.abs(labels - value)
    close = np.flatnonzero(apart <= 1e-12 * abs(value))
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


# Making axes


def check_name(name: Any) -> str:
    """Return the name in the form Python gives identifiers (NFKC), or say why it cannot name an axis."""
    if not isinstance(name, str):
        raise GridError(f"The name of an axis is a string, not {name!r}.")
    name = unicodedata.normalize("NFKC", name)
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
    return name


def check_names(names: Sequence[str]) -> None:
    """Refuse names used twice, and names that differ in case only (file systems and people mix them up)."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise GridError(
                f"The axes {other!r} and {name!r} differ in upper and lower case only; rename one of them."
            )
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


def listed(name: str, values: Any) -> Sequence[Any]:
    """Return the values of an axis as a sequence, or say why they cannot be listed."""
    if isinstance(values, ENDLESS) and not (
        isinstance(values, itertools.repeat) and hasattr(values, "__length_hint__") and _length(values)
    ):
        raise GridError(
            f"The values of axis {name!r} never end; take some: list(itertools.islice(values, 10))."
        )
    if isinstance(values, str | bytes) or is_simple(values):
        raise GridError(f"{name}={values!r} is one value, not a list of values; write {name}=[{values!r}].")
    if isinstance(values, np.ndarray):
        if values.ndim == 0:
            raise GridError(
                f"{name}={values!r} is one value, not a list of values; write {name}=[{values.item()!r}]."
            )
        return values.copy() if values.ndim == 1 and values.dtype != object else list(values)
    if isinstance(values, range):
        return values
    try:
        iterator = iter(values)
    except TypeError:
        raise GridError(
            f"The values of axis {name!r} cannot be listed: {type(values).__name__} is not iterable."
        ) from None
    most = MOST_VALUES if isinstance(values, Sized) else MOST_VALUES // 10
    taken = list(itertools.islice(iterator, most + 1))
    if len(taken) > most:
        raise GridError(
            f"The values of axis {name!r} did not end after {most:,}; take some with itertools.islice."
        )
    return taken


def _length(values: Any) -> int:
    try:
        return int(values.__length_hint__())
    except TypeError:
        return 0


def coordinate(name: str, values: Any, *, token: Token | None = None, pairs: bool = False) -> Coordinate:
    """Return one column of an axis from what a loop would iterate over.

    Parameters
    ----------
    name : str
    values : iterable
    token : callable, optional
        Digest of objects, see `values.canonical`.
    pairs : bool
        Whether `("label", object)` tuples and dicts name objects, as in `grid(solver={"fast": solve})`.
    """
    name = check_name(name)
    if pairs and isinstance(values, Mapping):
        return _objects(name, [Labelled(str(label), value) for label, value in values.items()], token)
    found = listed(name, values)
    if len(found) == 0:
        raise GridError(f"The axis {name!r} has no values; give it at least one.")
    if pairs and not isinstance(found, np.ndarray | range) and _are_pairs(found):
        return _objects(name, [Labelled(*pair) for pair in found], token)
    return _native(name, found) or _objects(name, list(found), token)


def _are_pairs(values: Sequence[Any]) -> bool:
    return all(
        type(value) is tuple and len(value) == 2 and isinstance(value[0], str) and not is_simple(value[1])
        for value in values
    )


def _native(name: str, values: Sequence[Any]) -> Coordinate | None:
    """Return a column whose labels are the values themselves, or None if no native kind holds them exactly."""
    if isinstance(values, range):
        return (
            Coordinate(name, values, np.arange(values.start, values.stop, values.step), "int")
            if _fits(values)
            else None
        )
    if isinstance(values, np.ndarray):
        labels = _labels_of_array(values)
        return None if labels is None else Coordinate(name, values, labels, f"numpy:{values.dtype.str}")
    kinds = {kind_of(values[0])} if len(set(map(type, values))) == 1 else set(map(kind_of, values))
    if kinds & {"str", "date", "datetime"} or kinds == {"object"}:
        # One type can hold several kinds: aware and naive datetimes, Timestamps.
        kinds = set(map(kind_of, values))
    labels = _labels_of_list(name, values, kinds)
    if labels is None:
        return None
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    kept: Sequence[Any] = list(values)
    if len(kept) > LONG and kind in ("int", "float", "bool", "complex"):
        kept = Natives(labels)
    return Coordinate(name, kept, labels, kind)


def _fits(values: range) -> bool:
    return all(abs(value) < 2**62 for value in (values.start, values.stop, values.step))


def _labels_of_array(values: npt.NDArray[Any]) -> Labels | None:
    kind = values.dtype.kind
    if kind in "iu":
        labels = values.astype(np.int64)
        return labels if kind == "i" or not (labels < 0).any() else None
    if kind in "fc":
        labels = values.astype(np.float64 if kind == "f" else np.complex128)
        # Zero has one label, whatever its sign; the function still receives what was listed.
        labels = labels + 0.0
        return labels if np.array_equal(labels, values, equal_nan=True) else None
    if kind == "M":
        return (
            values
            if np.datetime_data(values.dtype)[0] in ("D", "h", "m", "s", "ms", "us", "ns", "W", "M", "Y")
            else None
        )
    return values if kind == "b" or (kind == "U" and _plain_text(values.tolist())) else None


def _plain_text(values: Sequence[str]) -> bool:
    # NumPy pads with NUL, so a string that ends with one would come back shorter.
    return all(len(value) <= LONGEST_LABEL and not value.endswith("\0") for value in values)


def _labels_of_list(name: str, values: Sequence[Any], kinds: set[str]) -> Labels | None:
    families = {_family(kind) for kind in kinds}
    if families == {"bool"}:
        return np.array(values, dtype=np.bool_)
    if families == {"text"}:
        for value in values:
            _check_text(name, value)
        return np.array(values, dtype=np.str_) if _plain_text(values) else None
    if families == {"int"}:
        return (
            np.array(values, dtype=np.int64)
            if all(-(2**63) <= int(value) < 2**63 for value in values)
            else None
        )
    if families <= {"int", "float", "complex"}:
        return _inexact(values, np.complex128 if "complex" in families else np.float64, "int" in families)
    if families == {"date"} or (
        families == {"other"} and all(hasattr(value, "to_datetime64") for value in values)
    ):
        return _dates(values)
    return None


def _family(kind: str) -> str:
    if kind.startswith("numpy:"):
        return {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex", "U": "text", "M": "date"}[
            kind[7]
        ]
    named = {"bool": "bool", "int": "int", "float": "float", "complex": "complex", "str": "text"}
    return named.get(kind, "date" if kind in ("date", "datetime") else "other")


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise GridError(
            f"The axis {name!r} has a string that is no valid text (a lone surrogate): {value!r}."
        ) from None


def _inexact(values: Sequence[Any], dtype: type, whole: bool) -> Labels | None:
    if whole and any(abs(value) > EXACT for value in values if isinstance(value, int | np.integer)):
        return None
    labels: Labels = np.array(values, dtype=dtype) + 0.0
    return labels if not any(isinstance(value, np.longdouble | np.clongdouble) for value in values) else None


def _dates(values: Sequence[Any]) -> Labels | None:
    if any(getattr(value, "tzinfo", None) is not None for value in values):
        return None
    dates = [datetime64(value) for value in values]
    if any(np.datetime_data(date.dtype)[0] in ("ps", "fs", "as", "generic") for date in dates):
        return None
    return np.array(dates)


def _objects(name: str, values: list[Any], token: Token | None) -> Coordinate:
    if not values:
        raise GridError(f"The axis {name!r} has no values; give it at least one.")
    for value in values:
        if isinstance(value, str):
            _check_text(name, value)
    typed = tuple(canonical(value, token) for value in values)
    kind = "mixed" if all(_packable(value) for value in values) else "object"
    kept = [value.value if isinstance(value, Labelled) else value for value in values]
    return Coordinate(name, kept, text_labels(values), kind, typed)


def _packable(value: Any) -> bool:
    return all(map(_packable, value)) if type(value) is tuple else kind_of(value) != "object"


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
    shown = ", ".join(str(coordinate.labels[again]) for coordinate in axis.coordinates)
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


def axis_from(
    names: str | Sequence[str],
    values: Any,
    *,
    kind: AxisKind | None = None,
    token: Token | None = None,
    pairs: bool = False,
) -> Axis:
    """Return an axis from a name, or several for tuple targets, and what the loop iterates over.

    Parameters
    ----------
    names : str or sequence of str
        One name, or one for each element of the rows of `values`.
    values : iterable
        Values, rows of values where there are several names, or `replicates(n)`.
    kind : {"single", "zip", "table", "replicate"}, optional
        Default: `replicate` for replicates, `zip` for several names, `single` else.
    token : callable, optional
        Digest of objects, see `values.canonical`.
    pairs : bool
        See `coordinate`.

    Raises
    ------
    GridError
        For no values, values or rows there twice, names that cannot be used, rows of different lengths.
    """
    if isinstance(values, Replicates):
        name = names if isinstance(names, str) else names[0]
        numbers = coordinate("replicate" if name == "rng" else name, range(values.n))
        return Axis((numbers,), "replicate", values.shared)
    if isinstance(names, str):
        return check_rows(Axis((coordinate(names, values, token=token, pairs=pairs),), kind or "single"))
    rows = [
        tuple(row) if isinstance(row, Iterable) and not isinstance(row, str) else (row,)
        for row in listed(names[0], values)
    ]
    odd = next((row for row in rows if len(row) != len(names)), None)
    if odd is not None:
        raise GridError(
            f"The loop over {', '.join(names)} needs rows of {len(names)} values, but one has {len(odd)}: {odd!r}."
        )
    if not rows:
        raise GridError(f"The axis {names[0]!r} has no values; give it at least one.")
    columns = list(zip(*rows, strict=True))
    check_names([check_name(name) for name in names])
    found = tuple(
        coordinate(name, column, token=token, pairs=pairs)
        for name, column in zip(names, columns, strict=True)
    )
    return check_rows(Axis(found, kind or ("zip" if len(names) > 1 else "single")))


def rows_of(axis: Axis) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of an axis as tuples of values."""
    return zip(*(coordinate.listed for coordinate in axis.coordinates), strict=True)
