"""Long columns of a grid as Arrow files, kept under the digest of their content."""

import hashlib

import numpy as np
import pyarrow as pa

from mce_notebook.errors import CorruptStore


def to_bytes(array: np.ndarray) -> tuple[str, bytes]:
    """Digest and content of an Arrow IPC file with one column `value` that holds a one-dimensional array."""
    column = pa.array(_storable(array))
    schema = pa.schema([pa.field("value", column.type, metadata={"dtype": array.dtype.str})])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([column], schema=schema))
    data = sink.getvalue().to_pybytes()
    return hashlib.sha256(data).hexdigest(), data


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "c":
        return array.view(array.real.dtype)
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind in "Mm" and np.datetime_data(array.dtype)[0] not in ("s", "ms", "us", "ns"):
        return array.view(np.int64)
    return array


def from_bytes(data: bytes, digest: str) -> np.ndarray:
    """Read the array back, bit for bit.

    Raises
    ------
    CorruptStore
        The content does not have this digest.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise CorruptStore(f"The long column {digest[:12]} of a grid is not what was written.")
    table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    dtype = np.dtype(table.schema.field("value").metadata[b"dtype"].decode())
    column = table.column("value").combine_chunks()
    plain: np.ndarray = column.to_numpy(zero_copy_only=False)
    if dtype.kind == "U":
        return plain.astype(dtype)
    return plain.view(dtype) if plain.dtype != dtype else plain
