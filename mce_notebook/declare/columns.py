"""Columns and axes from what people write: lists, ranges, arrays, pairs of label and object, rows of loops."""

import itertools
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.axes import (
    LONG,
    Axis,
    AxisKind,
    Coordinate,
    Natives,
    Values,
    check_name,
    check_names,
    check_rows,
)
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
    is_simple,
    is_span,
    kind_of,
    text_labels,
    timedelta64,
)
from mce_notebook.errors import GridError

MOST_VALUES = 100_000_000
UNUSUAL_UNITS = ("ps", "fs", "as", "generic")
ENDLESS = (itertools.count, itertools.cycle, itertools.repeat)


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
        coordinate(name, column, token=token, pairs=pairs) for name, column in zip(names, columns, strict=True)
    )
    return check_rows(Axis(found, kind or ("zip" if len(names) > 1 else "single")))


def listed(name: str, values: Any) -> Values:
    """Return the values of an axis as a sequence, or say why they cannot be listed."""
    if isinstance(values, ENDLESS) and not (
        isinstance(values, itertools.repeat) and hasattr(values, "__length_hint__") and _length(values)
    ):
        raise GridError(f"The values of axis {name!r} never end; take some: list(itertools.islice(values, 10)).")
    if isinstance(values, str | bytes) or is_simple(values):
        raise GridError(f"{name}={values!r} is one value, not a list of values; write {name}=[{values!r}].")
    if isinstance(values, np.ndarray):
        if values.ndim == 0:
            raise GridError(f"{name}={values!r} is one value, not a list of values; write {name}=[{values.item()!r}].")
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
        raise GridError(f"The values of axis {name!r} did not end after {most:,}; take some with itertools.islice.")
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
    found = _positive(found)
    return _native(name, found) or _objects(name, list(found), token)


def _positive(values: Values) -> Values:
    """Return values in which zero has no sign: -0.0 is the label 0, and points receive their label."""
    if isinstance(values, range) or (isinstance(values, np.ndarray) and values.dtype.kind not in "fc"):
        return values
    if isinstance(values, np.ndarray):
        unsigned: Values = np.add(values, values.dtype.type(0))
        return unsigned
    inexact = (float, complex, np.inexact)
    if any(isinstance(value, inexact) and value == 0 and str(value) != "0.0" for value in values):
        return [value + type(value)(0) if isinstance(value, inexact) else value for value in values]
    return values


def _are_pairs(values: Sequence[Any]) -> bool:
    return all(
        type(value) is tuple and len(value) == 2 and isinstance(value[0], str) and not is_simple(value[1])
        for value in values
    )


def _native(name: str, values: Values) -> Coordinate | None:
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
        whole = values.astype(np.int64)
        return whole if kind == "i" or not (whole < 0).any() else None
    if kind in "fc":
        labels = values.astype(np.float64 if kind == "f" else np.complex128)
        return labels if np.array_equal(labels, values, equal_nan=True) else None
    if kind == "M":
        return values if np.datetime_data(values.dtype)[0] not in UNUSUAL_UNITS else None
    if kind == "m":
        return values if is_span(values.dtype) else None
    return values if kind == "b" or (kind == "U" and _plain_text(values.tolist())) else None


def _plain_text(values: Values) -> bool:
    # NumPy pads with NUL, so a string that ends with one would come back shorter.
    return all(len(value) <= LONGEST_LABEL and not value.endswith("\0") for value in values)


def _labels_of_list(name: str, values: Values, kinds: set[str]) -> Labels | None:
    families = {_family(kind) for kind in kinds}
    if families == {"bool"}:
        return np.array(values, dtype=np.bool_)
    if families == {"text"}:
        for value in values:
            _check_text(name, value)
        return np.array(values, dtype=np.str_) if _plain_text(values) else None
    if families == {"int"}:
        return np.array(values, dtype=np.int64) if all(-(2**63) <= int(value) < 2**63 for value in values) else None
    if families <= {"int", "float", "complex"}:
        return _inexact(values, np.complex128 if "complex" in families else np.float64, "int" in families)
    if families == {"date"} or (families == {"other"} and all(hasattr(value, "to_datetime64") for value in values)):
        return _dates(values)
    if families == {"span"} or (families == {"other"} and all(hasattr(value, "to_timedelta64") for value in values)):
        return _spans(values)
    return None


def _family(kind: str) -> str:
    if kind.startswith("numpy:"):
        return {
            "b": "bool",
            "i": "int",
            "u": "int",
            "f": "float",
            "c": "complex",
            "U": "text",
            "M": "date",
            "m": "span",
        }[kind[7]]
    named = {"bool": "bool", "int": "int", "float": "float", "complex": "complex", "str": "text", "timedelta": "span"}
    return named.get(kind, "date" if kind in ("date", "datetime") else "other")


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise GridError(
            f"The axis {name!r} has a string that is no valid text (a lone surrogate): {value!r}."
        ) from None


def _inexact(values: Values, dtype: type, whole: bool) -> Labels | None:
    if whole and any(abs(int(value)) > EXACT for value in values if isinstance(value, int | np.integer)):
        return None
    labels: Labels = np.array(values, dtype=dtype)
    return labels if not any(isinstance(value, np.longdouble | np.clongdouble) for value in values) else None


def _dates(values: Values) -> Labels | None:
    if any(getattr(value, "tzinfo", None) is not None for value in values):
        return None
    dates = [datetime64(value) for value in values]
    if any(np.datetime_data(date.dtype)[0] in UNUSUAL_UNITS for date in dates):
        return None
    return np.array(dates)


def _spans(values: Values) -> Labels | None:
    labels: Labels = np.array([timedelta64(value) for value in values])
    # The finest unit is taken for all, in which the longest may not fit.
    exact = is_span(labels.dtype) and canonical_column(labels) == [canonical(value) for value in values]
    return labels if exact else None


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


def python_values(values: npt.NDArray[Any]) -> list[Any]:
    """Return the elements of an array as Python objects; dates in nanoseconds, which Python lacks, stay NumPy's."""
    nanoseconds = values.dtype.kind in "Mm" and np.datetime_data(values.dtype)[0] == "ns"
    return list(values) if nanoseconds else list(values.tolist())
