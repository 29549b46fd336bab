"""Values of axes: their canonical bytes (identity), the labels people see, and a typed text form for records.

Identity must not depend on how a number was made, so `1`, `1.0` and `np.int64(1)` have the same canonical
bytes, while `True` has others. What a function receives keeps its type: that is the business of `kind_of`,
`pack_value` and `unpack_value`.
"""

import copyreg
import datetime as dt
import enum
import functools
import hashlib
import inspect
import numbers
import struct
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.errors import GridError

Token = Callable[[Any], bytes]
Labels = npt.NDArray[Any]

EXACT = 2**53  # beyond it a float64 no longer tells neighbouring integers apart
LONGEST_LABEL = 200  # characters; NumPy pads every string of an array to the longest one
MAX_DEPTH = 50


@dataclass(frozen=True)
class Labelled:
    """An object with the name the user gave it: `("ridge", Ridge())` or an entry of `{"ridge": Ridge()}`."""

    label: str
    value: Any


def canonical(value: Any, token: Token | None = None) -> bytes:
    """Return bytes that are equal exactly when two values are the same point of an axis.

    Parameters
    ----------
    value : object
        A number, string, bool, None, date, enum member, tuple, array, function or any object with stable state.
    token : callable, optional
        Digest of an object that is none of the simple kinds, for example of the code it reaches. Default: a
        walk over the state the object gives to pickle; functions and classes count by qualified name.

    Raises
    ------
    GridError
        If the object has no state that can be compared, such as an open file.
    """
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value)
    if isinstance(value, Labelled):
        return _labelled(value, token)
    if token is not None:
        return b"o" + token(value)
    return b"o" + hashlib.blake2b(_structure(value, ()), digest_size=16).digest()


def is_simple(value: Any) -> bool:
    """Return whether a value is its own identity: number, string, bool, None, date, enum member."""
    return isinstance(value, _SIMPLE)


def canonical_column(labels: Labels) -> list[bytes]:
    """Return the canonical bytes of every label of a native column (kinds b, i, f, c, U, M, m)."""
    kind = labels.dtype.kind
    if kind == "M":
        return _canonical_dates(labels)
    if kind == "m":
        return [_span(value) for value in labels]
    if kind == "i":
        return [b"i%d" % number for number in labels.tolist()]
    write = {"b": _bool, "f": _float, "c": _complex, "U": _text}[kind]
    return [write(value) for value in labels.tolist()]


def digests(name: str, canonicals: Iterable[bytes]) -> npt.NDArray[np.uint64]:
    """Return blake2b-128 of (name, canonical value) as uint64[n, 2], low word first.

    The hash is RFC 7693; the name is closed by a zero byte, which no identifier contains.
    """
    head = name.encode() + b"\0"
    blake2b = hashlib.blake2b
    joined = b"".join([blake2b(head + value, digest_size=16).digest() for value in canonicals])
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2).astype(np.uint64)


# Canonical bytes


def _none(_: Any) -> bytes:
    return b"n"


def _bool(value: Any) -> bytes:
    return b"b1" if value else b"b0"


def _float(value: float) -> bytes:
    if value != value:
        return b"fnan"
    if value.is_integer():
        return b"i%d" % int(value)
    return b"f" + struct.pack("<d", value)


def _complex(value: complex) -> bytes:
    if value.imag == 0:
        return _float(value.real)
    return b"c" + _float(value.real) + b"," + _float(value.imag)


def _number(value: Any) -> bytes:
    if isinstance(value, numbers.Integral):
        return b"i%d" % int(value)
    if isinstance(value, np.longdouble):
        return _ratio(value) if np.isfinite(value) else _float(float(value))
    if isinstance(value, Decimal):
        return _ratio(value) if value.is_finite() else _float(float(value))
    if isinstance(value, numbers.Rational):
        return _ratio(value)
    return _float(float(value)) if isinstance(value, numbers.Real) else _complex(complex(value))


def _ratio(value: Any) -> bytes:
    # Numbers that a float cannot hold; those it can are written as the float they equal.
    above, below = value.as_integer_ratio()
    try:
        near = above / below
    except OverflowError:
        near = 0.0
    if Fraction(near) == Fraction(above, below):
        return _float(near)
    return b"q%d/%d" % (above, below)


def _text(value: Any) -> bytes:
    return b"s" + str(value).encode("utf-8", "surrogatepass")


def _bytes(value: Any) -> bytes:
    return b"y" + bytes(value)


def _enum(value: enum.Enum) -> bytes:
    # Without the module: a class that moves from the notebook to a file keeps its points.
    return f"e{type(value).__qualname__}.{value.name}".encode()


def _date(value: Any) -> bytes:
    if getattr(value, "tzinfo", None) is not None:
        return b"z" + str(value.astimezone(dt.UTC).isoformat()).encode()
    return _canonical_dates(np.array([datetime64(value)]))[0]


def _span(value: Any) -> bytes:
    if isinstance(value, np.timedelta64):
        unit, count = np.datetime_data(value.dtype)
        if unit in _NANOSECONDS and not np.isnat(value):
            # Not by NumPy, which wraps around silently beyond 292 years of nanoseconds.
            return b"d%d" % (int(value.astype(np.int64)) * count * _NANOSECONDS[unit])
        return b"d" + str(value.astype("m8[ns]").astype(np.int64)).encode()
    micros = value.days * 86_400_000_000 + value.seconds * 1_000_000 + value.microseconds
    # The Timedelta of pandas has nanoseconds as well.
    return b"d%d" % (micros * 1000 + int(getattr(value, "nanoseconds", 0)))


_NANOSECONDS = {
    "W": 604_800 * 10**9,
    "D": 86_400 * 10**9,
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
}


def is_span(dtype: np.dtype[Any]) -> bool:
    """Whether a type holds lengths of time in a unit that is always as long: weeks to nanoseconds."""
    return dtype.kind == "m" and np.datetime_data(dtype)[0] in _NANOSECONDS


def _canonical_dates(column: Labels) -> list[bytes]:
    days = column.astype("M8[D]")
    rest = (column - days).astype("m8[ns]").astype(np.int64).tolist()
    missing = np.isnat(column).tolist()
    numbered = days.astype(np.int64).tolist()
    return [
        b"tnat" if absent else b"t%d:%d" % pair
        for absent, pair in zip(missing, zip(numbered, rest, strict=True), strict=True)
    ]


def _clock(value: dt.time) -> bytes:
    return b"T" + value.isoformat().encode()


_WRITERS: tuple[tuple[Any, Callable[[Any], bytes]], ...] = (
    (types.NoneType, _none),
    (enum.Enum, _enum),
    ((bool, np.bool_), _bool),
    ((np.timedelta64, dt.timedelta), _span),
    ((numbers.Number, Decimal), _number),
    (str, _text),
    ((bytes, bytearray), _bytes),
    ((dt.date, np.datetime64), _date),
    (dt.time, _clock),
)
_SIMPLE = (
    types.NoneType,
    enum.Enum,
    bool,
    np.bool_,
    numbers.Number,
    Decimal,
    str,
    bytes,
    dt.date,
    dt.time,
    dt.timedelta,
    np.datetime64,
    np.timedelta64,
)


def _labelled(value: Labelled, token: Token | None) -> bytes:
    head = b"l" + value.label.encode("utf-8", "surrogatepass") + b"\0"
    if is_simple(value.value):
        # No version covers a plain number, so the label alone would reuse outcomes of another number.
        return head + canonical(value.value)
    return head + token(value.value) if token is not None else head


def _structure(value: Any, path: tuple[int, ...]) -> bytes:
    """Return the state of an object as nested canonical bytes; cycles are told by their depth."""
    if is_simple(value):
        return canonical(value)
    if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        return b"C" + getattr(value, "__qualname__", value.__name__).encode()
    if isinstance(value, types.FunctionType):
        return b"F" + value.__qualname__.encode() + b"\0" + _code(value)
    if id(value) in path or len(path) > MAX_DEPTH:
        return b"^%d" % (len(path) - path.index(id(value)) if id(value) in path else MAX_DEPTH)
    inside = (*path, id(value))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return b"A" + str((value.dtype.str, value.shape)).encode() + np.ascontiguousarray(value).tobytes()
    if isinstance(value, Mapping):
        pairs = [_structure(key, inside) + b":" + _structure(item, inside) for key, item in value.items()]
        return _framed(b"D", sorted(pairs))
    if isinstance(value, set | frozenset):
        return _framed(b"S", sorted(_structure(item, inside) for item in value))
    if isinstance(value, tuple | list):
        return _framed(b"(", [_structure(item, inside) for item in value])
    return _reduced(value, inside)


def _code(function: types.FunctionType) -> bytes:
    # Lambdas all have one name; their code tells them apart.
    return function.__code__.co_code if function.__name__ == "<lambda>" else b""


def _framed(tag: bytes, parts: Sequence[bytes]) -> bytes:
    return tag + b"".join(b"%d," % len(part) + part for part in parts) + b")"


def _reduced(value: Any, path: tuple[int, ...]) -> bytes:
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        # As pickle does: types may be reduced by a function that was registered for them, as NumPy's ufuncs are.
        state: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:
        raise GridError(
            f"A {type(value).__name__} has no state to compare ({error}); give it a name: ('name', value)."
        ) from None
    if isinstance(state, str):
        return b"R" + state.encode()
    parts = [list(part) if inspect.isgenerator(part) or hasattr(part, "__next__") else part for part in state]
    return _framed(b"R", [_structure(part, path) for part in (type(value), *parts[1:])])


# Labels


def datetime64(value: Any) -> np.datetime64:
    """Return a date or naive datetime as datetime64, in the coarsest unit that keeps it."""
    if isinstance(value, np.datetime64):
        return value
    if hasattr(value, "to_datetime64"):
        stamp: np.datetime64 = value.to_datetime64()
        return stamp
    return np.datetime64(value, "us" if isinstance(value, dt.datetime) else "D")


def timedelta64(value: Any) -> np.timedelta64:
    """Return a length of time as timedelta64 that is exactly as long."""
    if isinstance(value, np.timedelta64):
        return value
    if hasattr(value, "to_timedelta64"):
        span: np.timedelta64 = value.to_timedelta64()
        return span
    return np.timedelta64(value, "us")


def text_label(value: Any) -> str:
    """Return the string by which people see and select a value that has no native label."""
    if isinstance(value, Labelled):
        return value.label
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, str | np.generic):
        return _short(str(value))
    if isinstance(value, functools.partial):
        given = [repr(item) for item in value.args] + [f"{key}={item!r}" for key, item in value.keywords.items()]
        return _short(f"{text_label(value.func)}({', '.join(given)})")
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        return name
    shown = repr(value)
    if " at 0x" in shown or "\n" in shown:
        return type(value).__name__
    return _short(shown)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def text_labels(values: Sequence[Any]) -> Labels:
    """Return unique strings for values of any kinds, in their order."""
    found = [text_label(value) for value in values]
    if len(set(found)) < len(found):
        twice = {label for label in found if found.count(label) > 1} if len(found) <= 1000 else set(found)
        found = [
            _short(repr(value)) if label in twice and isinstance(value, str) else label
            for value, label in zip(values, found, strict=True)
        ]
    seen: dict[str, int] = {}
    unique = []
    for label in found:
        seen[label] = seen.get(label, 0) + 1
        unique.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return np.array(unique, dtype=np.str_)


def kind_of(value: Any) -> str:
    """Return the type a function must get back: `int`, `numpy:<f8`, `date`, ...; `object` if only pickle can tell."""
    for kind, exact in _KINDS.items():
        if type(value) is exact:
            return kind
    if isinstance(value, dt.datetime) and type(value) is dt.datetime:
        return "datetime" if value.tzinfo is None and not value.fold else "object"
    if isinstance(value, np.timedelta64):
        return f"numpy:{value.dtype.str}" if is_span(value.dtype) else "object"
    if isinstance(value, np.generic) and value.dtype.kind in "biufcUM" and value.dtype.itemsize <= 16 * 50:
        return f"numpy:{value.dtype.str}"
    return "object"


_KINDS: dict[str, type] = {
    "none": types.NoneType,
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "str": str,
    "date": dt.date,
    "timedelta": dt.timedelta,
}


# Typed text, for values of axes whose kinds are mixed


def pack_value(value: Any) -> Any:
    """Return a JSON form from which `unpack_value` makes the same value of the same type; None if only pickle could."""
    if isinstance(value, tuple) and type(value) is tuple:
        items = [pack_value(item) for item in value]
        return None if None in items else ["tuple", items]
    kind = kind_of(value)
    if kind == "object":
        return None
    if kind == "str":
        return [kind, value]
    if kind in ("date", "datetime"):
        return [kind, value.isoformat()]
    if isinstance(value, np.timedelta64):
        return [kind, str(int(value.astype(np.int64)))]
    if isinstance(value, dt.timedelta):
        return [kind, str(value // dt.timedelta(microseconds=1))]
    if kind.startswith("numpy:"):
        return [kind, str(value)]
    return [kind, repr(value)]


def unpack_value(packed: Any) -> Any:
    """Return the value that `pack_value` wrote."""
    kind, text = packed
    if kind.startswith("numpy:"):
        dtype = np.dtype(kind.removeprefix("numpy:"))
        if dtype.kind == "m":
            return np.array([int(text)]).view(dtype)[0]
        return np.bool_(text == "True") if dtype.kind == "b" else np.array([text]).astype(dtype)[0]
    return _READERS[kind](text)


_READERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda items: tuple(unpack_value(item) for item in items),
    "none": lambda _: None,
    "bool": lambda text: text == "True",
    "int": int,
    "float": float,
    "complex": complex,
    "str": str,
    "date": dt.date.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "timedelta": lambda text: dt.timedelta(microseconds=int(text)),
}
