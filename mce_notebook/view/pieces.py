"""Columns of the log as pieces of an output: rows that hold a value, ragged arrays as elements and shapes."""

import numpy as np

from mce_notebook.store.columns import Column
from mce_notebook.view.outputs import Piece


def piece_of(column: Column) -> Piece:
    """Return the values of a column of a batch, without those of rows that have none."""
    kind, valid = column.kind, column.valid
    if kind.dtype == "null":
        return Piece(np.empty(0), np.zeros(len(column), bool))
    values = column.values()
    present = values if valid is None else values[valid]
    dims, family = kind.dims or (), "bytes" if kind.dtype == "bytes" else ""
    if not kind.ndim or column.shape is not None:
        return Piece(present, valid, None, dims, kind.coords, family)
    shapes = np.array([value.shape for value in present], np.int64).reshape(len(present), kind.ndim)
    elements = np.concatenate([value.reshape(-1) for value in present]) if len(present) else np.empty(0)
    return Piece(elements, valid, shapes, dims, kind.coords, family)
