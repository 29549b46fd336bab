"""Digests of data by content: arrays, data frames and their parts, without pickling them.

Pickle bytes differ between equal objects (interning, memo order), so nothing here is built on them.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

SIMPLE_TYPES = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))


def digest(text: str) -> str:
    """32 hexadecimal digits of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """32 hexadecimal digits of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def simple_token(value: Any) -> str:
    """Token of an immutable builtin; long ones by digest, so that labels and lists stay small."""
    text = f"{type(value).__name__}:{value!r}"
    return text if len(text) <= 200 else f"{type(value).__name__}:{digest(text)}"


def array_token(array: np.ndarray[Any, Any]) -> str | None:
    """Token of a numeric, string or structured array (any shape); None when it holds Python objects.

    The bytes go through XXH3 (128 bits, 36 ms a GiB), which guards against change and not against intent.
    """
    if array.dtype.hasobject:
        return None
    contiguous = np.ascontiguousarray(array)
    content = xxhash.xxh3_128_hexdigest(contiguous.reshape(-1).view(np.uint8).data if contiguous.nbytes else b"")
    return f"array:{array.dtype.descr!r}{array.shape}{content}"


def scalar_token(scalar: np.generic) -> str | None:
    """Token of a NumPy scalar, or None for an object scalar."""
    if scalar.dtype.hasobject:
        return None
    return f"scalar:{scalar.dtype.str}{scalar.tobytes().hex()}"


def is_frame(value: Any) -> bool:
    """Whether a value is a pandas, polars or Arrow container, decided without importing any of them."""
    module = type(value).__module__ or ""
    if module.startswith("pandas"):
        pandas = sys.modules.get("pandas")
        kinds = (pandas.DataFrame, pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray) if pandas else ()
        return isinstance(value, kinds)
    return module.startswith(("pyarrow", "polars")) and (hasattr(value, "to_arrow") or hasattr(value, "nbytes"))


def is_labelled(value: Any) -> bool:
    """Whether a value is an xarray object, decided without importing xarray."""
    module = type(value).__module__ or ""
    return module.startswith("xarray") and hasattr(value, "attrs") and hasattr(value, "dims")


def frame_parts(value: Any) -> list[Any]:
    """Take a data frame apart into labels, data types and columns that tokens can be made of.

    Returns
    -------
    list
        Strings, arrays, lists and `bytes`; equal frames give equal parts, whatever they shared in memory.
    """
    module = type(value).__module__
    if module.startswith("polars"):
        return ["polars", type(value).__name__, _arrow_bytes(value.to_arrow())]
    if module.startswith("pyarrow"):
        return ["arrow", type(value).__name__, _arrow_bytes(value)]
    pandas = sys.modules["pandas"]
    if isinstance(value, pandas.DataFrame):
        columns = [_column(value.iloc[:, position]) for position in range(value.shape[1])]
        return ["frame", *frame_parts(value.index), *frame_parts(value.columns), dict(value.attrs), *columns]
    if isinstance(value, pandas.Series):
        return ["series", value.name, dict(value.attrs), *frame_parts(value.index), _column(value)]
    if isinstance(value, pandas.MultiIndex):
        levels = [part for level in range(value.nlevels) for part in _column(value.get_level_values(level))]
        return ["multiindex", list(value.names), *levels]
    if isinstance(value, pandas.Index):
        return ["index", list(value.names), _column(value)]
    return ["column", _column(pandas.Series(value))]


def _column(column: Any) -> list[Any]:
    """Take the data type and values of a column: its own array where NumPy holds it, else its Arrow buffers."""
    dtype = str(column.dtype)
    if isinstance(column.dtype, np.dtype) and not column.dtype.hasobject:
        return [dtype, column.to_numpy()]
    import pyarrow as pa

    try:
        return [dtype, repr(column.dtype), _arrow_bytes(pa.array(column, from_pandas=True))]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        # Arrow has no type for columns of mixed or foreign objects: their values are hashed one by one, as in a list.
        return [dtype, list(column)]


def _arrow_bytes(data: Any) -> str:
    """Digest of the buffers of Arrow data, after slices and chunks are made one."""
    import pyarrow as pa

    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if not isinstance(data, pa.Table):
        data = pa.table({"values": data})
    # Metadata of the schema names library versions, and chunking tells how the table was built: neither is content.
    table = data.replace_schema_metadata(None).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return str(xxhash.xxh3_128_hexdigest(memoryview(sink.getvalue())))
