"""Grids as JSON and plain columns: what a declaration keeps of its axes, read back without executing anything."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.axes import Axis, Coordinate, Natives, Values
from mce_notebook.declare.guards import Guard
from mce_notebook.declare.parts import Part
from mce_notebook.declare.values import pack_value, unpack_value
from mce_notebook.errors import CorruptStore

if TYPE_CHECKING:
    from mce_notebook.declare.grid import Grid

FORMAT = 1
LONG = 1000  # entries from which a column goes to a table

Tables = dict[str, npt.NDArray[Any]]


def grid_record(grid: "Grid") -> tuple[dict[str, Any], Tables]:
    """Return the JSON form of a grid and its long columns; see `Grid.to_record`."""
    tables: Tables = {}
    record: dict[str, Any] = {
        "format": FORMAT,
        "parts": [_part_record(part, f"{number}", tables) for number, part in enumerate(grid.parts)],
    }
    mask = grid.mask()
    if mask is not None:
        # Kept rather than computed again: another machine may round otherwise, and stored text is never executed.
        bits = np.packbits(mask)
        if len(bits) > LONG:
            tables["mask"] = bits
            record["mask"] = {"table": "mask"}
        else:
            record["mask"] = {"hex": bits.tobytes().hex()}
    return record, tables


def _part_record(part: Part, prefix: str, tables: Tables) -> dict[str, Any]:
    return {
        "axes": [
            {
                "kind": axis.kind,
                "shared": list(axis.shared),
                "coordinates": [
                    _column_record(column, f"{prefix}/{column.name}", tables) for column in axis.coordinates
                ],
            }
            for axis in part.axes
        ],
        "guards": [_guard_record(guard) for guard in part.guards],
    }


def _guard_record(guard: Guard) -> dict[str, Any]:
    packed = {name: pack_value(value) for name, value in guard.constants.items()}
    return {
        "text": str(guard),
        "expression": guard.expression,
        "names": list(guard.names),
        "constants": {name: value for name, value in packed.items() if value is not None},
    }


def _column_record(column: Coordinate, key: str, tables: Tables) -> dict[str, Any]:
    record: dict[str, Any] = {"name": column.name, "kind": column.kind, "dtype": column.labels.dtype.str}
    if isinstance(column.values, range):
        return record | {"range": [column.values.start, column.values.stop, column.values.step]}
    _put(record, "labels", column.labels, f"{key}/labels", tables)
    if column.typed is not None:
        lengths = np.array([len(item) for item in column.typed], dtype=np.int64)
        joined = np.frombuffer(b"".join(column.typed), dtype=np.uint8)
        _put(record, "typed", joined, f"{key}/typed", tables)
        _put(record, "typed_lengths", lengths, f"{key}/typed_lengths", tables)
    if column.kind == "mixed" and column.values is not None:
        # Mixed columns are short: every value carries its type.
        record["values"] = [pack_value(value) for value in column.values]
    return record


def _put(record: dict[str, Any], field: str, column: npt.NDArray[Any], key: str, tables: Tables) -> None:
    if len(column) > LONG:
        tables[key] = column
        record[field] = {"table": key}
    elif column.dtype == np.uint8:
        record[field] = {"hex": column.tobytes().hex()}
    else:
        record[field] = _plain(column)


def _plain(column: npt.NDArray[Any]) -> list[Any]:
    """Return labels as JSON values that read well: numbers where JSON has them, text elsewhere."""
    if column.dtype.kind == "f":
        return [number if np.isfinite(number) else str(number) for number in column.tolist()]
    if column.dtype.kind == "c":
        return [str(number) for number in column.tolist()]
    if column.dtype.kind == "m":
        # Numbers of the unit that the record names.
        spans: list[Any] = column.astype(np.int64).tolist()
        return spans
    if column.dtype.kind == "M":
        return [str(date) for date in column]
    plain: list[Any] = column.tolist()
    return plain


# Reading


def read_grid(
    record: Mapping[str, Any], tables: Mapping[str, Any]
) -> tuple[tuple[Part, ...], npt.NDArray[np.bool_] | None]:
    """Return the parts and the mask of a grid from its record.

    Raises
    ------
    CorruptStore
        If the record is not one that `grid_record` wrote.
    """
    if record.get("format") != FORMAT:
        raise CorruptStore(f"The grid was recorded in format {record.get('format')!r}; this version reads {FORMAT}.")
    try:
        parts = tuple(_read_part(part, tables) for part in record["parts"])
        size = sum(part.size for part in parts)
        return parts, _read_mask(record, tables, size)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CorruptStore(f"The record of a grid cannot be read ({type(error).__name__}: {error}).") from error


def _read_mask(record: Mapping[str, Any], tables: Mapping[str, Any], size: int) -> npt.NDArray[np.bool_]:
    stored = record.get("mask")
    if stored is None:
        return np.empty(0, dtype=np.bool_)
    return np.unpackbits(_get(stored, tables, np.dtype(np.uint8)), count=size).astype(np.bool_)


def _read_part(record: Mapping[str, Any], tables: Mapping[str, Any]) -> Part:
    axes = tuple(
        Axis(
            tuple(_read_column(column, tables) for column in axis["coordinates"]),
            axis["kind"],
            tuple(axis["shared"]),
        )
        for axis in record["axes"]
    )
    return Part(axes, tuple(_read_guard(guard) for guard in record["guards"]))


def _read_guard(record: Mapping[str, Any]) -> Guard:
    constants = {name: unpack_value(value) for name, value in record["constants"].items()}
    if record["expression"] is None:
        return Guard(None, None, tuple(record["names"]), {})
    return Guard(record["expression"], None, tuple(record["names"]), constants)


def _read_column(record: Mapping[str, Any], tables: Mapping[str, Any]) -> Coordinate:
    name, kind, dtype = record["name"], record["kind"], np.dtype(record["dtype"])
    if "range" in record:
        values = range(*record["range"])
        return Coordinate(name, values, np.arange(values.start, values.stop, values.step, dtype=dtype), kind)
    labels = _get(record["labels"], tables, dtype)
    typed = None
    if "typed" in record:
        joined = _get(record["typed"], tables, np.dtype(np.uint8)).tobytes()
        ends = np.cumsum(_get(record["typed_lengths"], tables, np.dtype(np.int64))).tolist()
        typed = tuple(joined[start:end] for start, end in zip([0, *ends], ends, strict=False))
    packed = record.get("values")
    values_read = [unpack_value(value) for value in packed] if packed is not None else _values(kind, labels)
    return Coordinate(name, values_read, labels, kind, typed)


def _values(kind: str, labels: npt.NDArray[Any]) -> Values | None:
    """Return values of the recorded type that have these labels, or None for objects."""
    if kind.startswith("numpy:"):
        return labels.astype(np.dtype(kind.removeprefix("numpy:")))
    if kind in ("bool", "int", "float", "complex", "str"):
        return Natives(labels)
    if kind == "date":
        return labels.astype("M8[D]").tolist()  # type: ignore[no-any-return]
    if kind == "datetime":
        return labels.astype("M8[us]").tolist()  # type: ignore[no-any-return]
    if kind == "timedelta":
        return labels.astype("m8[us]").tolist()  # type: ignore[no-any-return]
    return None


def _get(stored: Any, tables: Mapping[str, Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if isinstance(stored, list):
        return np.array(stored, dtype=dtype)
    if "hex" in stored:
        return np.frombuffer(bytes.fromhex(stored["hex"]), dtype=dtype)
    return np.asarray(tables[stored["table"]]).astype(dtype, copy=False)
