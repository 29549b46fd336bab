"""One declaration of a sweep: what was asked for, when, by which cell, as a record anyone can read."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mce_notebook.declare import records
from mce_notebook.declare.grid import Grid
from mce_notebook.errors import CorruptStore


@dataclass(frozen=True, eq=False)
class Declaration:
    """What was declared under a number.

    Parameters
    ----------
    grid_record : dict
        The grid as `Grid.to_record` gives it.
    tables : dict of str to ndarray
        Long columns the record refers to; kept as Arrow files beside the declaration.
    outputs : tuple of str or None
        None when the outcomes name them.
    dims : dict of str to tuple of str
        Names of the dimensions of array outputs.
    constants : dict
        Simple constants that belong to the identity of every point.
    version : str
        Hash of the code.
    code : str
        Name of the folder under `code/` that holds it (the key of its bundle).
    cwd : str
        Working directory of every point: the one of the process that declared.
    setup_depth : int
        How many of the outer axes the innermost setup depends on; 0 without setups.
    setups : tuple of (int, tuple of str)
        How many of the outer axes each setup depends on, and which coordinates of the next; outermost first.
    root : int
        Root seed.
    generation : int
        Raised by `--rerun`.
    number : int
        0 until the store has given one.
    created : str
        ISO 8601, UTC; empty until declared.
    rerun : str or None
        Which points a new generation asks for: failed, stale, all, points (those at `selection`).
    selection : dict of str to list, or None
        Labels by name of the points to compute again.
    hold_stale : bool
        Whether points whose outcomes are stale wait until somebody asks for them.
    own_grid : str
        Digest of the grid as the cell or call lists it, before it was joined with points of earlier extensions.
    options, sinks : dict
    kind : str
        cell, function or script.
    cell, notebook, environment : str
        Source of the cell, path of the notebook, digest under `env/`.
    notes : tuple of str
        What was understood, for the launch line.
    tail : str
        Statements that stood after the loops.
    """

    grid_record: Mapping[str, Any]
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    code: str = ""
    cwd: str = ""
    setup_depth: int = 0
    setups: tuple[tuple[int, tuple[str, ...]], ...] = ()
    root: int = 0
    generation: int = 0
    number: int = 0
    created: str = ""
    rerun: str | None = None
    selection: Mapping[str, list[Any]] | None = None
    hold_stale: bool = True
    own_grid: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "cell"
    cell: str = ""
    notebook: str = ""
    notes: tuple[str, ...] = ()
    sinks: Mapping[str, Any] = field(default_factory=dict)
    tail: str = ""
    environment: str = ""

    @classmethod
    def of(cls, grid: Grid, **fields: Any) -> "Declaration":
        """Declare a grid; `fields` are the other parameters."""
        record, tables = grid.to_record()
        made = cls(record, tables, **fields)
        made.__dict__["grid"] = grid
        return made

    @cached_property
    def grid(self) -> Grid:
        """The grid; object values come back as labels only."""
        return Grid.from_record(dict(self.grid_record), dict(self.tables))

    @property
    def deferred(self) -> str:
        """Key of the slow guards that nobody has evaluated yet; empty where all is known."""
        late = self.grid_record.get("format") == records.DEFERRED
        return str(self.grid_record.get("guarded", "")) if late else ""

    def answered(self, mask: np.ndarray) -> "Declaration":
        """Return this declaration with what its slow guards keep, bool[size], as if they had been evaluated at once."""
        record = {name: value for name, value in self.grid_record.items() if name != "asked"}
        table = {"format": records.FORMAT, "mask": {"table": "mask"}}
        return dataclasses.replace(self, grid_record=record | table, tables={**self.tables, "mask": np.packbits(mask)})

    def to_json(self, tables: Mapping[str, str]) -> bytes:
        """As JSON; `tables` are the digests the long columns are kept under, by name."""
        record = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "tables"}
        record["tables"] = dict(tables)
        # Seeds have 128 bits, which most readers of JSON do not.
        record["root"] = str(self.root)
        record["constants"] = {name: _plain(value) for name, value in self.constants.items()}
        text = json.dumps(record, indent=1, ensure_ascii=False, default=_listed)
        return text.encode("utf-8", "backslashreplace")

    @classmethod
    def from_json(cls, data: bytes, tables: Mapping[str, np.ndarray]) -> "Declaration":
        """Read back; `tables` are the long columns by name.

        Raises
        ------
        CorruptStore
            Not a declaration of a format this version reads.
        """
        try:
            record = json.loads(data)
            record["tables"] = dict(tables)
            record["root"] = int(record["root"])
            record["constants"] = {name: _value(item) for name, item in record["constants"].items()}
            record["dims"] = {name: tuple(dims) for name, dims in record["dims"].items()}
            record["outputs"] = None if record["outputs"] is None else tuple(record["outputs"])
            record["notes"] = tuple(record["notes"])
            record["setups"] = tuple((int(depth), tuple(names)) for depth, names in record.get("setups", ()))
            known = {one.name for one in dataclasses.fields(cls)}
            return cls(**{name: value for name, value in record.items() if name in known})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptStore(f"A declaration cannot be read ({error}).") from error


def table_digests(data: bytes) -> dict[str, str]:
    """Digests of the long columns a declaration refers to, by name."""
    try:
        return dict(json.loads(data)["tables"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore(f"A declaration cannot be read ({error}).") from error


def _plain(value: Any) -> Any:
    """Keep the type of a constant where JSON has none: complex numbers, infinite floats, NumPy scalars."""
    if isinstance(value, np.generic):
        return {
            "dtype": value.dtype.str,
            "value": _plain(value.item()) if value.dtype.kind != "M" else str(value),
        }
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    return value


def _value(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    if "complex" in item:
        real, imaginary = item["complex"]
        return complex(float(real), float(imaginary))
    if "float" in item:
        return float(item["float"])
    return np.array(_value(item["value"])).astype(item["dtype"])[()]


def _listed(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
