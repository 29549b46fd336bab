"""One output of an experiment: values of whatever kind came, one kind shown, others set apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.store.spans import Move, Where, indices_of, put
from mce_notebook.view.buffers import Array, Arrays, Scalars, filled
from mce_notebook.view.cells import Booleans, Cells, Integers

_FAMILIES = {
    **dict.fromkeys("biufc", "number"),
    **dict.fromkeys("UTO", "text"),
    "S": "bytes",
    "M": "date",
    "m": "duration",
}
# Which kind wins when two are equally frequent: fixed, so that the order of arrival decides nothing.
_ORDER = ("number", "date", "duration", "text", "bytes")


@dataclass(frozen=True, eq=False)
class Piece:
    """What one batch says about one output.

    Parameters
    ----------
    values : array[k, *shape], or array[elements] with `shapes`
        Values of the valid rows.
    valid : bool[count] or None
        Rows that have a value; None when all have.
    shapes : int64[k, rank] or None
        Shape of every valid row, where they differ.
    dims, coords : tuple of str, str
        Names of the dimensions of the values themselves and their labels as JSON, if the code gave them.
    family : str
        What the values are, where their dtype does not tell.
    """

    values: Array
    valid: Booleans | None = None
    shapes: Integers | None = None
    dims: tuple[str, ...] = ()
    coords: str = ""
    family: str = ""

    @property
    def kind(self) -> tuple[str, int]:
        """Family and rank: outcomes that differ in it cannot be shown in one variable."""
        rank = self.values.ndim - 1 if self.shapes is None else self.shapes.shape[1]
        return self.family or _FAMILIES[self.values.dtype.kind], rank

    def rows(self, chosen: Booleans | None) -> "Piece":
        """Keep some of the rows."""
        if chosen is None:
            return self
        among = chosen if self.valid is None else chosen[self.valid]
        valid = None if self.valid is None else self.valid[chosen]
        if self.shapes is None:
            return replace(self, values=self.values[among], valid=valid)
        elements = np.repeat(among, self.shapes.prod(axis=1))
        return replace(self, values=self.values[elements], valid=valid, shapes=self.shapes[among])


@dataclass(eq=False)
class Output:
    """Every known value of one output.

    Parameters
    ----------
    name : str
    size : int
        Number of cells.
    dims : tuple of str
        Names asked for the dimensions of array values.
    """

    name: str
    size: int
    dims: tuple[str, ...] = ()
    kinds: list[tuple[str, int]] = field(default_factory=list)
    stores: list[Scalars | Arrays] = field(default_factory=list)
    labels: dict[str, None] = field(default_factory=dict)
    which: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.which = np.zeros(self.size, np.uint8)

    def put(self, where: Where, piece: Piece, fresh: bool) -> None:
        """Store a piece in the cells `where`, one per row.

        Parameters
        ----------
        fresh : bool
            No cell of `where` held anything: nothing needs to be forgotten.
        """
        if not fresh:
            self.clear(where)
        if piece.valid is not None and not piece.valid.all():
            where = indices_of(where)[piece.valid]
        if not len(piece.values) and piece.shapes is None:
            return
        number = self._number(piece)
        store = self.stores[number]
        if isinstance(store, Arrays):
            store.put(where, piece.values, piece.shapes)
            self.dims = self.dims or piece.dims
            self.labels.setdefault(piece.coords)
        else:
            store.put(where, piece.values)
        put(self.which, where, number + 1)

    def clear(self, where: Where) -> None:
        """Forget the values of some cells."""
        for store in self.stores:
            store.clear(where)
        put(self.which, where, 0)

    def moved(self, move: Move) -> "Output":
        """Return the same for the cells of a larger grid."""
        grown = replace(
            self,
            size=move.size,
            kinds=list(self.kinds),
            stores=[store.moved(move) for store in self.stores],
            labels=dict(self.labels),
        )
        grown.which = move.array(self.which, 0)
        return grown

    def _number(self, piece: Piece) -> int:
        kind = piece.kind
        if kind not in self.kinds:
            rank, dtype = kind[1], piece.values.dtype
            self.kinds.append(kind)
            self.stores.append(Arrays(self.size, rank, dtype) if rank else Scalars(self.size, dtype))
        return self.kinds.index(kind)

    def winner(self) -> int | None:
        """Choose the kind shown: the most frequent one, whatever came first."""
        if len(self.kinds) < 2:
            return 0 if self.kinds else None
        counts = np.bincount(self.which, minlength=len(self.kinds) + 1)[1:]
        ranked = sorted(
            range(len(self.kinds)),
            key=lambda number: (-counts[number], _ORDER.index(self.kinds[number][0]), self.kinds[number][1]),
        )
        return ranked[0]

    def conflicts(self) -> list[tuple[Integers, str]]:
        """Cells whose value is of another kind than the one shown, each group with the reason."""
        winner = self.winner()
        if winner is None or len(self.kinds) < 2:
            return []
        shown = _phrase(self.kinds[winner])
        found = []
        for number, kind in enumerate(self.kinds):
            cells = np.flatnonzero(self.which == number + 1) if number != winner else np.empty(0, np.int64)
            if cells.size:
                why = f"output `{self.name}` is {_phrase(kind)} here, {shown} in most points; return one kind"
                found.append((cells, why))
        return found

    def values(self, cells: Integers) -> list[Any]:
        """Return what the points at some cells gave, of the type they gave it; None where there is nothing."""
        winner = self.winner()
        if winner is None:
            return [None] * cells.size
        there = self.which[cells] == winner + 1
        found: list[Any] = [None] * cells.size
        for place, value in zip(np.flatnonzero(there), self.stores[winner].take(cells[there]), strict=True):
            found[place] = value
        return found

    def variables(self, cells: Cells, taken: Mapping[str, int], sealed: bool = False) -> "Variables":
        """Make the xarray variables of this output.

        Parameters
        ----------
        cells : Cells
        taken : mapping of str to int
            Sizes of the dimensions used so far; own dimensions avoid those of another size.
        sealed : bool
            Give the values their native type wherever nothing is missing.

        Returns
        -------
        dict of str to (dims, array, attrs)
        """
        winner = self.winner()
        if winner is None:
            return {self.name: (cells.dims, filled(cells.shape, np.dtype(np.float64)), {})}
        store = self.stores[winner]
        if isinstance(store, Arrays):
            return self._array_variables(store, cells, taken, sealed)
        return self._scalar_variables(store, cells, native=sealed and bool((self.which == winner + 1).all()))

    def _scalar_variables(self, store: Scalars, cells: Cells, native: bool) -> "Variables":
        attrs = {"native_dtype": str(store.native)} if store.shown.dtype != object else {}
        shown = store.shown.view(cells.shape)
        if native and store.native.kind in "biu":
            exact = shown if store.exact is None else store.exact.view(cells.shape)
            return {self.name: (cells.dims, exact.astype(store.native), {})}
        found: Variables = {self.name: (cells.dims, shown, attrs)}
        if store.exact is not None:
            note = {
                "missing_value": store.missing_integer,
                "long_name": f"{self.name}, exact where float64 is not",
            }
            found[f"{self.name}_exact"] = (cells.dims, store.exact.view(cells.shape), note)
        return found

    def _array_variables(self, store: Arrays, cells: Cells, taken: Mapping[str, int], sealed: bool) -> "Variables":
        attrs = {"native_dtype": str(store.native)}
        padded = store.padded()
        found: Variables = {}
        if padded is None:
            sample = f"{self.name}_sample"
            found[self.name] = ((sample,), store.contiguous(), attrs)
        else:
            own = self._own_dims(padded.shape[1:], cells, taken)
            values = padded.reshape(*cells.shape, *padded.shape[1:])
            native = sealed and store.native.kind in "biu" and store.shapes() is None and bool((self.which > 0).all())
            found[self.name] = ((*cells.dims, *own), values.astype(store.native) if native else values, attrs)
        shapes = store.shapes() if padded is not None else store.row_shapes()
        if shapes is not None:
            for axis in range(store.rank):
                name = f"{self.name}_length" + (f"_{axis}" if store.rank > 1 else "")
                note = {"sample_dimension": f"{self.name}_sample"} if padded is None else {}
                found[name] = (cells.dims, shapes[:, axis].reshape(cells.shape), note)
        return found

    def coordinates(self, dims: Sequence[str], sizes: Mapping[str, int]) -> dict[str, Array]:
        """Labels along the own dimensions, when every value came with the same ones."""
        if len(self.labels) != 1 or not next(iter(self.labels)):
            return {}
        given = {name: np.array(labels) for name, labels in json.loads(next(iter(self.labels))).items()}
        return {name: labels for name, labels in given.items() if name in dims and sizes.get(name) == labels.size}

    def _own_dims(self, shape: Sequence[int], cells: Cells, taken: Mapping[str, int]) -> list[str]:
        names: list[str] = []
        for axis, length in enumerate(shape):
            asked = self.dims[axis] if axis < len(self.dims) else ""
            clash = asked in cells.dims or asked in names or taken.get(asked, length) != length
            names.append(f"{self.name}_{axis}" if not asked or clash else asked)
        return names


Variables = dict[str, tuple[tuple[str, ...], Array, dict[str, Any]]]


def _phrase(kind: tuple[str, int]) -> str:
    family, rank = kind
    return (
        f"a {family}" if rank == 0 and family != "text" else family if rank == 0 else f"a {rank}-d array of {family}s"
    )
