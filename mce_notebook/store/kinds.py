"""What a point may return, and what it is called in the log: the native kind of a value.

A kind is kept as it came: a float32 stays one, an int is not made a float because a neighbour is. Readers widen.
"""

import dataclasses
import datetime
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from mce_notebook.declare.routine import MISSING

T = TypeVar("T")
_DAY = datetime.date(1970, 1, 1)


class Unstorable(Exception):
    """A value that has no place in a dataset; the text says what to return instead."""


@dataclass(frozen=True)
class Kind:
    """Type of one output.

    Parameters
    ----------
    dtype : str
        A NumPy dtype by name, or `str`, `bytes`, `null`.
    ndim : int
        0 for scalars.
    dims : tuple of str or None
        Names of the dimensions when the value carried them.
    coords : str
        JSON of the coordinates along `dims`, empty when there are none.
    """

    dtype: str
    ndim: int = 0
    dims: tuple[str, ...] | None = None
    coords: str = ""

    def to_text(self) -> str:
        """As JSON, for the metadata of a field."""
        record: dict[str, Any] = {"dtype": self.dtype}
        if self.ndim:
            record["ndim"] = self.ndim
        if self.dims is not None:
            record["dims"] = self.dims
        if self.coords:
            record["coords"] = self.coords
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | bytes) -> "Kind":
        """Read back what `to_text` gave."""
        record = json.loads(text)
        dims = record.get("dims")
        return cls(
            record["dtype"],
            record.get("ndim", 0),
            None if dims is None else tuple(dims),
            record.get("coords", ""),
        )


NULL = Kind("null")
STR = Kind("str")
BYTES = Kind("bytes")
INT = Kind("int64")
DATE = Kind("datetime64[ns]")
SPAN = Kind("timedelta64[ns]")

# By exact type: a bool is an int for isinstance, and np.float64 a float.
EXACT: dict[type, Kind] = {
    type(None): NULL,
    float: Kind("float64"),
    int: INT,
    bool: Kind("bool"),
    str: STR,
    bytes: BYTES,
    complex: Kind("complex128"),
    np.bool_: Kind("bool"),
    np.str_: STR,
    np.float64: Kind("float64"),
    **{
        np.dtype(name).type: Kind(name)
        for name in (
            *("float16", "float32", "complex64", "complex128"),
            *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        )
    },
}
_NUMERIC = "biufc"
_MISSING_NAMES = frozenset({"NAType", "NaTType"})


def article(value: object) -> str:
    """Name the type of a value in a sentence: `a Figure`, `an Axes`."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def refused(value: object, advice: str = "return numbers, strings or arrays") -> Unstorable:
    """Make the refusal of a value, naming its type and what to return instead."""
    return Unstorable(f"returned {article(value)}, which cannot be stored; {advice}")


def normalise(value: Any) -> tuple[Kind, Any]:
    """Return the kind of a value, and the value as a Python or NumPy scalar, an ndarray, or None.

    Raises
    ------
    Unstorable
        The value has no kind.
    """
    kind = EXACT.get(type(value))
    if kind is not None:
        return _checked(kind, value)
    if type(value).__name__ in _MISSING_NAMES or value is MISSING:
        return NULL, None
    for convert in (_scalar, _moment, _labelled, _array):
        found = convert(value)
        if found is not None:
            return found
    if isinstance(value, set | frozenset):
        raise refused(value, "return sorted(...) of it")
    if hasattr(value, "toarray"):
        raise refused(value, "return its .toarray()")
    if hasattr(value, "__float__"):
        raise refused(value, "return float(...) of it")
    raise refused(value)


def _checked(kind: Kind, value: Any) -> tuple[Kind, Any]:
    if kind is INT and not -(2**63) <= value < 2**63:
        if 0 <= value < 2**64:
            return Kind("uint64"), value
        raise Unstorable("returned an int of more than 64 bits; return float(...) or str(...) of it")
    if kind is STR:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unstorable("returned a string with lone surrogates, which is no valid Unicode text") from None
    return kind, value


def _scalar(value: Any) -> tuple[Kind, Any] | None:
    if isinstance(value, enum.Enum) and not isinstance(value, bool | int | float | complex | str):
        return STR, value.name
    bases: tuple[Any, ...] = (bool, int, float, complex, str, bytes)
    for base in bases:
        if isinstance(value, base):
            plain: Any = value.value if isinstance(value, enum.Enum) else value
            return normalise(base(plain))
    if isinstance(value, np.longdouble):
        return EXACT[float], float(value)
    if isinstance(value, np.clongdouble):
        return EXACT[complex], complex(value)
    return None


def _moment(value: Any) -> tuple[Kind, Any] | None:
    if isinstance(value, np.datetime64 | np.timedelta64):
        kind = DATE if isinstance(value, np.datetime64) else SPAN
        return kind, _nanoseconds(np.asarray(value), kind)[()]
    if hasattr(value, "to_datetime64"):
        value = value.tz_convert("UTC").tz_localize(None) if value.tzinfo is not None else value
        return normalise(value.to_datetime64())
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        return normalise(np.datetime64(value, "us"))
    if isinstance(value, datetime.date):
        return normalise(np.datetime64((value - _DAY).days, "D"))
    if hasattr(value, "to_timedelta64"):
        return normalise(value.to_timedelta64())
    if isinstance(value, datetime.timedelta):
        return normalise(np.timedelta64(value))
    return None


def _nanoseconds(array: np.ndarray, kind: Kind) -> np.ndarray:
    # A cast to ns wraps silently beyond 1677..2262.
    exact = array.astype(kind.dtype)
    back = exact.astype(array.dtype)
    if not np.all((back == array) | np.isnat(array)):
        raise Unstorable("returned a date that nanoseconds cannot hold (1677 to 2262); return it as a string")
    return exact


def _labelled(value: Any) -> tuple[Kind, Any] | None:
    """Take a DataArray or a Series, known by their looks so that neither library is imported."""
    if all(hasattr(value, name) for name in ("dims", "coords", "values")):
        kind, array = normalise(np.asarray(value.values))
        dims = tuple(str(name) for name in value.dims)
        coords = {
            str(name): np.asarray(value.coords[name].values)
            for name in value.coords
            if tuple(value.coords[name].dims) == (name,)
        }
        return _with_dims(kind, dims, coords), array
    if hasattr(value, "index") and hasattr(value, "to_numpy") and not hasattr(value, "columns"):
        kind, array = normalise(value.to_numpy())
        dim = str(value.index.name or "index")
        labels = np.asarray(value.index)
        counted = labels.dtype.kind in "iu" and np.array_equal(labels, np.arange(len(labels)))
        return _with_dims(kind, (dim,), {} if counted else {dim: labels}), array
    return None


def _with_dims(kind: Kind, dims: tuple[str, ...], coords: dict[str, np.ndarray]) -> Kind:
    if not kind.ndim:
        return kind
    kept = {name: _labels(array) for name, array in coords.items() if array.size <= 10_000}
    text = json.dumps(kept, sort_keys=True) if kept else ""
    return dataclasses.replace(kind, dims=dims, coords=text)


def _labels(array: np.ndarray) -> list[Any]:
    if array.dtype.kind in "biuf":
        listed: list[Any] = array.tolist()
        return listed
    return [str(item) for item in array.tolist()] if array.dtype.kind != "M" else array.astype(str).tolist()


def _array(value: Any) -> tuple[Kind, Any] | None:
    if isinstance(value, list | tuple | range):
        array = _from_list(value)
    elif hasattr(value, "__array__"):
        array = _from_protocol(value)
    else:
        return None
    return _array_kind(array, value)


def _from_list(value: Sequence[Any]) -> np.ndarray:
    if not value:
        return np.empty(0)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        raise refused(value, "its rows differ in length; return arrays of one shape") from None
    if array.dtype.kind in "US" and not all(isinstance(item, str | bytes) for item in _leaves(value)):
        # NumPy makes strings of [1, "a"] without a word.
        raise Unstorable(
            f"returned {article(value)} of numbers and strings, which cannot be stored; return them as separate outputs"
        )
    return array


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    if isinstance(value, np.ndarray):
        return list(value.flat)
    return [value]


def _from_protocol(value: Any) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        if value.dtype.kind not in "fc":
            raise refused(value, f"it is masked and holds {value.dtype}; return filled(...) of it")
        return np.asarray(value.filled(np.nan))
    try:
        return np.asarray(value)
    except Exception as error:
        # Foreign objects convert themselves (a tensor on a GPU, one that needs a gradient) and say best why not.
        raise refused(value, f"it does not become an array: {error}") from error


def _array_kind(array: np.ndarray, value: Any) -> tuple[Kind, Any]:
    code = array.dtype.kind
    if code == "O":
        if array.ndim == 0:
            raise refused(value)
        array = _from_objects(array, value)
        code = array.dtype.kind
    if array.dtype.names or code == "V":
        raise refused(value, "its records have fields; return them as a dict of arrays")
    if array.ndim == 0:
        return normalise(array[()])
    if code in "Mm":
        kind = DATE if code == "M" else SPAN
        return dataclasses.replace(kind, ndim=array.ndim), _nanoseconds(array, kind)
    if code in "US":
        if code == "U":
            _checked(STR, "".join(array.ravel().tolist()))
        return Kind("str" if code == "U" else "bytes", array.ndim), array
    if code in _NUMERIC:
        if array.dtype.itemsize > (16 if code == "c" else 8):
            array = array.astype("complex128" if code == "c" else "float64")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return Kind(array.dtype.name, array.ndim), array
    return normalise(np.asarray(array.astype(str)))


def _from_objects(array: np.ndarray, value: Any) -> np.ndarray:
    items = array.ravel().tolist()
    if all(isinstance(item, str) for item in items):
        return array.astype(str)
    if all(item is None or isinstance(item, bool | int | float) for item in items):
        plain = array.astype(float) if None in items else np.asarray(items).reshape(array.shape)
        if plain.dtype.kind == "O":
            raise refused(value, "it holds ints of more than 64 bits; return floats or strings")
        return plain
    raise refused(value, "it holds objects; return an array of numbers or of strings")


def fields(value: Any) -> dict[str, Any] | None:
    """Return names and values of what a value is made of, or None when it is one output."""
    if isinstance(value, Mapping) and not hasattr(value, "data_vars"):
        return {str(key): item for key, item in value.items()}
    if hasattr(value, "data_vars") and hasattr(value, "dims"):
        return {str(key): value[key] for key in value.data_vars}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return {str(key): value[key] for key in value.columns}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def guarded(take: Callable[..., T], *given: Any) -> T:
    """Call `normalise` or `flatten`; whatever a foreign object raises when looked at is a refusal of that object.

    Raises
    ------
    Unstorable
        The value has no kind, or does not let itself be read.
    """
    try:
        return take(*given)
    except Unstorable:
        raise
    except Exception as error:
        raise refused(given[-1], f"reading it raised {type(error).__name__}: {error}") from error


def flatten(name: str, value: Any, depth: int = 0) -> dict[str, Any]:
    """List the outputs a value stands for, by name; dicts inside dicts get dotted names.

    Raises
    ------
    Unstorable
        Two of them have the same name, or the value contains itself.
    """
    parts = fields(value)
    if parts is None:
        return {name: value}
    if depth > 20:
        raise refused(value, "it is nested more than 20 levels deep")
    found: dict[str, Any] = {}
    for key, item in parts.items():
        for inner, leaf in flatten(f"{name}.{key}" if name else key, item, depth + 1).items():
            if inner in found:
                raise Unstorable(f"returned two outputs named {inner!r}; give them different names")
            found[inner] = leaf
    return found
