"""Outcomes of a block as frames of the log, and back.

A frame is one Arrow record batch: a column for each output, named as the user named it, and beside them columns of
ours, told apart by the field metadata `role`: `index` (listed index of the point, unless the batch states a start and a
count, or `ranges`: starts and stops of runs of neighbours in one list), `status` (unless all are done), `failure`
(JSON), `output` (tail of what was printed), `seconds`.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mce_notebook.declare.grid import Status
from mce_notebook.errors import StoreError
from mce_notebook.store import columns as arrow
from mce_notebook.store.arrays import from_numpy
from mce_notebook.store.big import SPILL, Payload, read_payload, write_payload
from mce_notebook.store.columns import Column
from mce_notebook.store.kinds import Kind
from mce_notebook.store.messages import pack, pieces, unpack
from mce_notebook.store.outcomes import Failure, Group, Outcomes, group
from mce_notebook.store.spans import Spans

__all__ = ["SPILL", "Batch", "Failure", "Frame", "Outcomes", "decode", "encode", "spill"]

Ranges = Sequence[tuple[int, int]]
_Field = tuple[str, pa.Array, dict[str, str]]

# Runs of neighbours at least this long on average are recorded as runs, not index by index.
_RUN = 8


@dataclass(frozen=True)
class Frame:
    """Bytes for the log, and what they cover.

    Parameters
    ----------
    head : bytes
        The schema, which a segment starts with.
    body : bytes
        What is appended.
    cover : dict
        `declaration`, then `start` and `count`, or `ranges`, or `index` (int64 bytes); `status` (uint8 bytes) or None
        when all are done; `seconds` in all; `generation`; `version`; `big`, where the outputs lie in a file of
        their own.
    """

    head: bytes
    body: bytes
    cover: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes this adds to the log."""
        return len(self.body)

    @property
    def stored(self) -> int:
        """Bytes of its outcomes, wherever they lie."""
        big = self.cover.get("big")
        return len(self.body) + (0 if big is None else Payload.from_json(big).length)

    @property
    def count(self) -> int:
        """Number of points."""
        listed = self.cover.get("index")
        return len(listed) // 8 if listed is not None else int(self.cover["count"])


def encode(
    outcomes: Outcomes,
    names: tuple[str, ...] | None,
    *,
    declaration: int,
    ranges: Ranges | np.ndarray,
    meta: dict[str, str] | None = None,
    big: Path | None = None,
) -> list[Frame]:
    """Frames of a block, one for each signature of kinds, usually one in all.

    Parameters
    ----------
    outcomes : Outcomes
    names : tuple of str or None
        The outputs; None when the outcomes name them.
    declaration : int
        Whose enumeration the indices belong to.
    ranges : sequence of (start, stop), or ndarray of int64
        Listed indices of the points, in the order of the outcomes.
    meta : dict of str to str
        Kept with each batch: `version`, `generation`, `attempt`, `worker`; `seconds` when points were not timed.
    big : Path, optional
        Folder for outputs of more than `SPILL` bytes; where it cannot be written they stay in the frame.
    """
    count = len(outcomes.values)
    indices = _Indices.of(ranges, count)
    failures = dict(outcomes.failures)
    skipped = set(outcomes.skipped)
    absent = skipped | set(failures)
    groups = group(outcomes.values, names, absent, failures)
    status = None
    if failures or skipped:
        status = np.full(count, int(Status.DONE), np.uint8)
        status[list(skipped)] = int(Status.SKIPPED)
        for position, failure in failures.items():
            status[position] = int(failure.status)
    block = _Block(indices, status, failures, outcomes, declaration, meta or {}, big)
    return [block.frame(found) for found in groups]


@dataclass(frozen=True)
class _Indices:
    """Listed indices of a block: one range where possible, else a few, else one by one."""

    start: int | None
    listed: np.ndarray | None
    spans: Spans | None = None

    @classmethod
    def of(cls, ranges: Ranges | np.ndarray, count: int) -> "_Indices":
        if isinstance(ranges, np.ndarray):
            listed = np.ascontiguousarray(ranges, dtype=np.int64)
        elif len(ranges) == 1:
            start, stop = ranges[0]
            if stop - start != count:
                raise ValueError(f"{count} outcomes for the {stop - start} points {start}..{stop}")
            return cls(int(start), None)
        else:
            spans = Spans(tuple((int(start), int(stop)) for start, stop in ranges))
            if spans.size == count and _RUN * len(spans.pairs) <= count:
                return cls(None, None, spans)
            listed = spans.listed
        if len(listed) != count:
            raise ValueError(f"{count} outcomes for {len(listed)} points")
        if count and np.array_equal(listed, np.arange(listed[0], listed[0] + count)):
            return cls(int(listed[0]), None)
        return cls(None, listed)

    def take(self, positions: list[int]) -> "_Indices":
        if self.spans is not None:
            return _Indices(None, self.spans.listed[positions])
        if self.listed is not None:
            return _Indices(None, self.listed[positions])
        assert self.start is not None
        return _Indices(None, np.asarray(positions, np.int64) + self.start)


@dataclass(frozen=True)
class _Block:
    indices: _Indices
    status: np.ndarray | None
    failures: dict[int, Failure]
    outcomes: Outcomes
    declaration: int
    meta: dict[str, str]
    big: Path | None

    def frame(self, rows: Group) -> Frame:
        total = len(self.outcomes.values)
        positions = rows.positions
        indices = self.indices if positions is None else self.indices.take(positions)
        count = total if positions is None else len(positions)
        outputs: list[_Field] = []
        shapes: dict[str, arrow.Shapes] = {}
        for name, (kind, values) in rows.columns.items():
            array, shape = arrow.build(kind, values)
            outputs.append((name, array, {"kind": kind.to_text()}))
            if shape is not None:
                shapes[name] = shape
        status = self._status(positions)
        ours = self._ours(indices, status, positions, total)
        seconds = self._seconds(positions, count, total)
        record = self._record(indices, count, seconds, shapes)
        if self.big is not None and sum(array.nbytes for _, array, _ in outputs) > SPILL:
            # A full disk is no failure of the points: the host, which gets the frame whole, waits until there is room.
            with contextlib.suppress(StoreError):
                record = _elsewhere(_batch(outputs, count), record, self.big)
                outputs = []
        head, body = pack(_batch(outputs + ours, count), record)
        cover = {name: record[name] for name in ("declaration", "start", "count", "generation", "version")}
        cover["index"] = None if indices.listed is None else indices.listed.tobytes()
        if indices.spans is not None:
            cover["ranges"] = indices.spans.flat
        cover["status"] = None if status is None else status.tobytes()
        cover["seconds"] = seconds
        if "big" in record:
            cover["big"] = record["big"]
        return Frame(head, body, cover)

    def _status(self, positions: list[int] | None) -> np.ndarray | None:
        status = self.status
        if status is None:
            return None
        chosen = status if positions is None else status[positions]
        return None if np.all(chosen == int(Status.DONE)) else chosen

    def _ours(
        self, indices: _Indices, status: np.ndarray | None, positions: list[int] | None, total: int
    ) -> list[_Field]:
        chosen = range(total) if positions is None else positions
        found = []
        if indices.listed is not None:
            found.append(("_index", from_numpy(indices.listed), {"role": "index"}))
        if status is not None:
            found.append(("_status", from_numpy(status), {"role": "status"}))
        if self.outcomes.seconds is not None:
            times = np.asarray(self.outcomes.seconds, np.float32)
            times = times if positions is None else times[positions]
            found.append(("_seconds", from_numpy(times), {"role": "seconds"}))
        failed = self.failures
        if failed and any(at in failed for at in chosen):
            texts = [failed[at].to_json() if at in failed else None for at in chosen]
            found.append(("_failure", arrow.repeated(texts), {"role": "failure"}))
        tails = {at: failure.output for at, failure in failed.items() if failure.output} | self.outcomes.tails
        if tails and any(at in tails for at in chosen):
            texts = [_clean(tails[at]) if at in tails else None for at in chosen]
            found.append(("_output", arrow.repeated(texts), {"role": "output"}))
        return found

    def _seconds(self, positions: list[int] | None, count: int, total: int) -> float | None:
        if self.outcomes.seconds is not None:
            times = self.outcomes.seconds if positions is None else np.asarray(self.outcomes.seconds)[positions]
            return float(np.sum(times, dtype=np.float64))
        whole = self.meta.get("seconds")
        return None if whole is None or not total else float(whole) * count / total

    def _record(
        self, indices: _Indices, count: int, seconds: float | None, shapes: dict[str, arrow.Shapes]
    ) -> dict[str, Any]:
        record: dict[str, Any] = dict(self.meta)
        record["declaration"] = self.declaration
        record["start"] = indices.start
        if indices.spans is not None:
            record["ranges"] = indices.spans.flat
        record["count"] = count
        record["seconds"] = seconds
        record["generation"] = int(self.meta.get("generation", 0))
        record["version"] = self.meta.get("version", "")
        if shapes:
            record["shapes"] = shapes
        return record


def _clean(text: str) -> str:
    # Bytes of a pipe decoded with surrogateescape are not text; what is kept must be.
    return text.encode("utf-8", "backslashreplace").decode()


def _batch(fields: list[_Field], count: int) -> pa.RecordBatch:
    if not fields:
        # A point without outputs still leaves a record, and a batch needs a column to have a length.
        fields = [("_done", from_numpy(np.ones(count, bool)), {"role": "done"})]
    taken: set[str] = {name for name, _, meta in fields if "kind" in meta}
    made, arrays = [], []
    for name, array, meta in fields:
        unique = name
        while "role" in meta and unique in taken:
            unique = f"_{unique}"
        made.append(pa.field(unique, array.type, metadata=meta))
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(made))


def spill(frame: Frame, folder: Path) -> Frame:
    """Write the outputs of a frame to a file of their own in `folder`, durable on return.

    The frame that comes back refers to them and holds all the rest, so it stays small and is appended as any other.

    Raises
    ------
    StoreFull, StoreError
        Nothing of the payload counts.
    """
    ((batch, record),) = unpack(frame.head + frame.body)
    ours = [at for at, one in enumerate(batch.schema) if b"role" in (one.metadata or {})]
    outputs = [at for at in range(batch.num_columns) if at not in ours]
    if not outputs:
        return frame
    record = _elsewhere(batch.select(outputs), record, folder)
    kept = [(batch.schema.field(at), batch.column(at)) for at in ours]
    fields = [(one.name, array, {"role": one.metadata[b"role"].decode()}) for one, array in kept]
    head, body = pack(_batch(fields, batch.num_rows), record)
    return Frame(head, body, frame.cover | {"big": record["big"]})


def _elsewhere(outputs: pa.RecordBatch, record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write outputs to a file of their own; return the record that refers to it."""
    payload = write_payload(folder, *pieces(outputs, {"shapes": record.get("shapes", {})}))
    kept = {name: value for name, value in record.items() if name != "shapes"}
    return {**kept, "big": payload.to_json()}


@dataclass(eq=False)
class Batch:
    """Outcomes of some points, as a reader finds them.

    Parameters
    ----------
    declaration : int
    one_by_one : ndarray[n] of int64, or range
        Listed indices in the enumeration of that declaration; None where they are `spans`.
    status : ndarray[n] of uint8, or None when all are done
    seconds : ndarray[n] of float32, or None
    total : float or None
        Seconds of all points together.
    order : tuple of int
        (epoch, segment, offset) in the log, by which equal outcomes are ranked.
    meta : dict
        Everything recorded with the batch.
    """

    declaration: int
    one_by_one: np.ndarray | range | None = field(repr=False)
    status: np.ndarray | None
    seconds: np.ndarray | None
    total: float | None
    order: tuple[int, int, int]
    meta: dict[str, Any]
    data: pa.RecordBatch = field(repr=False)
    big: Path | None = None
    positions: dict[str, int] = field(default_factory=dict, repr=False)
    spans: Spans | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.index) if self.spans is None else self.spans.size

    @property
    def index(self) -> np.ndarray | range:
        """Listed indices in the enumeration of the declaration."""
        if self.one_by_one is not None:
            return self.one_by_one
        assert self.spans is not None
        return self.spans.listed

    @property
    def generation(self) -> int:
        """Generation the outcomes were computed in."""
        return int(self.meta["generation"])

    @property
    def version(self) -> str:
        """Hash of the code that gave the outcomes."""
        return str(self.meta["version"])

    @property
    def attempt(self) -> int:
        """How often the points had been tried before."""
        return int(self.meta.get("attempt", 0))

    @property
    def worker(self) -> str:
        """Who computed the points."""
        return str(self.meta.get("worker", ""))

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Outputs by name; reads the payload where there is one.

        Raises
        ------
        CorruptStore
            The payload is missing or damaged.
        """
        record, data = self.meta, self.data
        if "big" in record:
            stream = read_payload(self.big, Payload.from_json(record["big"]))
            ((data, record),) = unpack(stream)
        return _columns(data, record.get("shapes", {}))

    @cached_property
    def outputs(self) -> dict[int, str]:
        """Tails of what points printed, by position."""
        return self._texts("output")

    @cached_property
    def failures(self) -> dict[int, Failure]:
        """Failures by position."""
        tails = self.outputs
        return {at: Failure.from_json(text, tails.get(at, "")) for at, text in self._texts("failure").items()}

    def _texts(self, role: str) -> dict[int, str]:
        at = self.positions.get(role)
        if at is None:
            return {}
        column = self.data.column(at)
        rows = np.flatnonzero(np.asarray(column.is_valid()))
        texts = column.dictionary.to_pylist()
        codes = column.indices.to_pylist()
        return {int(row): texts[codes[row]] for row in rows}


def decode(
    batch: pa.RecordBatch,
    metadata: dict[str, Any],
    *,
    order: tuple[int, int, int] = (0, 0, 0),
    big: Path | None = None,
) -> Batch:
    """Read a batch of the log as `unpack` gives it; `big` is the folder its payload lies under."""
    roles = {one.metadata[b"role"].decode(): at for at, one in enumerate(batch.schema) if _ours(one)}
    count = int(metadata["count"])
    index: np.ndarray | range | None
    spans = None
    if "index" in roles:
        index = batch.column(roles["index"]).to_numpy()
    elif "ranges" in metadata:
        index, spans = None, Spans.of(metadata["ranges"])
    else:
        index = range(int(metadata["start"]), int(metadata["start"]) + count)
    status = batch.column(roles["status"]).to_numpy() if "status" in roles else None
    seconds = batch.column(roles["seconds"]).to_numpy() if "seconds" in roles else None
    total = metadata.get("seconds")
    return Batch(int(metadata["declaration"]), index, status, seconds, total, order, metadata, batch, big, roles, spans)


def _ours(one: pa.Field) -> bool:
    return b"role" in (one.metadata or {})


def _columns(data: pa.RecordBatch, shapes: dict[str, arrow.Shapes]) -> dict[str, Column]:
    found = {}
    for at, one in enumerate(data.schema):
        if not _ours(one):
            kind = Kind.from_text(one.metadata[b"kind"])
            found[one.name] = Column(kind, data.column(at), shapes.get(one.name))
    return found
