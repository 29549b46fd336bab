"""The results as a labelled dataset, kept up to date with the log of a sweep."""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.declare.subsets import selected
from mce_notebook.errors import CorruptStore, SweepError, UnknownSweep
from mce_notebook.store.columns import Column
from mce_notebook.store.coverage import FAILED, to_run
from mce_notebook.store.frames import Batch, Failure
from mce_notebook.store.merge import Source, Standing
from mce_notebook.store.reader import LogReader
from mce_notebook.store.spans import Where, indices_of, tallied
from mce_notebook.view.buffers import Array, Buffer, filled
from mce_notebook.view.cells import Booleans, Cells, Integers, cells_of
from mce_notebook.view.outputs import Output, Variables
from mce_notebook.view.pieces import piece_of
from mce_notebook.view.signs import HostSigns

if TYPE_CHECKING:
    import xarray as xr

    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.store.declaration import Declaration

MEANINGS = "pending running done failed killed timeout skipped stale"
# Shown in cells of a cube that are no point of the design (guarded out, or holes of a ragged grid).
EXCLUDED = 255
AGAIN = ("failed", "points", "all")


class Snapshot:
    """What is known of a sweep, and cheap looks at it.

    Parameters
    ----------
    sweep : SweepStore
        The sweep as the store keeps it.
    declaration : int, optional
        Number of the declaration whose grid and version are shown; None follows the latest one.

    Notes
    -----
    All methods may be called from any thread. Arrays of the datasets handed out are read-only views, which
    never change afterwards: `ds.copy(deep=True)` is yours to write to.
    """

    def __init__(self, sweep: "SweepStore", declaration: int | None = None):
        self._sweep = sweep
        self._pinned = declaration
        self._lock = threading.RLock()
        self._notes: dict[str, None] = {}
        self._reader: LogReader | None = None
        self._conflicts: dict[int, Failure] | None = None
        self.declaration: Declaration
        self.update()

    # ---- following the log ----

    def update(self) -> int:
        """Read what was appended since the last time.

        Returns
        -------
        int
            Number of batches that were new.
        """
        with self._lock:
            self._follow()
            assert self._reader is not None
            count = 0
            for batch in self._reader.stream():
                self._absorb(batch)
                count += 1
            if count:
                self._conflicts = None
            return count

    def _follow(self) -> None:
        number = self._pinned
        if number is None:
            numbers = self._sweep.numbers()
            if not numbers:
                raise UnknownSweep(f"The sweep {self._sweep.name!r} was never declared; run its cell.")
            number = numbers[-1]
        if self._reader is None or number != self.declaration.number:
            self._restart(self._sweep.declaration(number))

    def _restart(self, declaration: "Declaration") -> None:
        # Another grid or version changes which outcomes count, so everything is read again.
        self.declaration = declaration
        self.cells: Cells = cells_of(declaration.grid, declaration.grid.mask())
        size = self.cells.size
        self._reader = LogReader(self._sweep.paths)
        self._status = np.zeros(size, np.uint8)
        if self.cells.excluded is not None:
            self._status[self.cells.excluded] = EXCLUDED
        self._tally = tallied(self._status)
        self._status_buffer = Buffer(self._status)
        del self._status
        self._seconds: Buffer | None = None
        self._standing = Standing(size)
        self._outputs = {
            name: Output(name, size, tuple(declaration.dims.get(name, ()))) for name in declaration.outputs or ()
        }
        self._failures: dict[int, Failure] = {}
        self._interned: dict[Failure, Failure] = {}
        self._causes: Counter[str] | None = Counter()
        self._conflicts = None
        self._maps: dict[int, Integers | None] = {}
        self._last: dict[str, int] = {}

    def _absorb(self, batch: Batch) -> None:
        try:
            columns = batch.columns
        except CorruptStore as error:
            # Its points stay pending, so that the next run computes them again.
            self._notes[str(error)] = None
            return
        where = self._where(batch)
        status = batch.status
        current = batch.version == self.declaration.version
        recency = 0 if current else self._recency(batch.version)
        mean = np.nan if batch.total is None else batch.total / max(len(batch), 1)
        source = Source(
            current, recency, batch.generation, batch.order, batch.version, batch.worker, batch.attempt, mean
        )
        rows, fresh = self._standing.admit(where, status, source)
        if rows is not None:
            if not rows.any():
                return
            where = indices_of(where)[rows]
            status = None if status is None else status[rows]
        code = status if status is not None else Status.DONE
        self._mark(where, code if current else Status.STALE)
        self._scatter(batch, columns, where, rows, fresh)

    def _mark(self, where: Where, code: npt.NDArray[np.uint8] | Status) -> None:
        """Set the status of cells, and count along: a million codes take longer to count than to keep."""
        before = self._status_buffer.read(where)
        self._tally -= tallied(before)
        if isinstance(code, Status):
            self._tally[code] += before.size
        else:
            self._tally += tallied(code)
        self._status_buffer.write(where, code)

    def _scatter(
        self, batch: Batch, columns: Mapping[str, Column], where: Where, rows: Booleans | None, fresh: bool
    ) -> None:
        self._time(batch, where, rows)
        for name, column in columns.items():
            output = self._outputs.get(name)
            if output is None:
                output = self._outputs[name] = self._new_output(name)
            output.put(where, piece_of(column).rows(rows), fresh)
        if not fresh:
            self._forget(where, columns)
        if batch.failures:
            self._keep_failures(batch, where, rows)

    def _time(self, batch: Batch, where: Where, rows: Booleans | None) -> None:
        # Cheap points are timed by the block, whose mean the source keeps: no array until a point was timed alone.
        if batch.seconds is None and self._seconds is None:
            return
        if self._seconds is None:
            self._seconds = Buffer(filled((self.cells.size,), np.dtype(np.float32)))
        seconds = batch.seconds if batch.seconds is None or rows is None else batch.seconds[rows]
        self._seconds.write(where, np.nan if seconds is None else seconds)

    def _new_output(self, name: str) -> Output:
        return Output(name, self.cells.size, tuple(self.declaration.dims.get(name, ())))

    def _forget(self, where: Where, columns: Mapping[str, Column]) -> None:
        for name, output in self._outputs.items():
            if name not in columns:
                output.clear(where)
        if self._failures:
            self._causes = None
            for cell in indices_of(where).tolist():
                self._failures.pop(cell, None)

    def _keep_failures(self, batch: Batch, where: Where, rows: Booleans | None) -> None:
        cells = indices_of(where)
        place = None if rows is None else np.cumsum(rows) - 1
        for row, failure in batch.failures.items():
            if rows is None or place is None:
                cell = int(cells[row])
            elif rows[row]:
                cell = int(cells[place[row]])
            else:
                continue
            # Points that fail alike share one record.
            self._failures[cell] = self._interned.setdefault(failure, failure)
            if self._causes is not None:
                self._causes[cause_of(failure)] += 1

    def _where(self, batch: Batch) -> Where:
        if batch.declaration == self.declaration.number and batch.spans is not None and self.cells.positions is None:
            return batch.spans
        index = batch.index
        if batch.declaration == self.declaration.number:
            if isinstance(index, range):
                if self.cells.positions is None:
                    return slice(index.start, index.stop)
                index = np.arange(index.start, index.stop)
            return index if self.cells.positions is None else self.cells.positions[index]
        table = self._map(batch.declaration)
        if table is None:
            return np.full(len(index), -1, np.int64)
        return table[index.start : index.stop] if isinstance(index, range) else table[index]

    def _map(self, number: int) -> Integers | None:
        """Cell of every listed index of another declaration, -1 where the shown grid has no such point."""
        if number not in self._maps:
            shown = self.declaration
            try:
                other = self._sweep.declaration(number)
                positions = shown.grid.positions(other.grid, constants=shown.constants, other_constants=other.constants)
                self._maps[number] = self.cells.of(positions)
            except SweepError as error:
                self._notes[f"Outcomes of declaration {number} are not shown: {error}"] = None
                self._maps[number] = None
        return self._maps[number]

    def _recency(self, version: str) -> int:
        """Return the number of the last declaration of another version."""
        if version not in self._last:
            self._last = {one.version: one.number for one in self._sweep.declarations()}
        return self._last.get(version, 0)

    # ---- looking ----

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self._sweep.name

    @property
    def sweep(self) -> "SweepStore":
        """The sweep as the store keeps it."""
        return self._sweep

    @property
    def problems(self) -> list[str]:
        """What is wrong with the files, in sentences; empty as a rule."""
        with self._lock:
            found = list(self._notes)
            return found + (list(self._reader.problems) if self._reader is not None else [])

    def failures(self) -> dict[int, Failure]:
        """Failures by cell, of the outcomes that are shown, conflicts between kinds of values included."""
        with self._lock:
            return {**self._failures, **self._conflicting()}

    def causes(self) -> dict[str, int]:
        """Count failures by cause, the most frequent first."""
        with self._lock:
            if self._causes is None:
                self._causes = Counter(cause_of(failure) for failure in self._failures.values())
            conflicting = Counter(cause_of(failure) for failure in self._conflicting().values())
            return dict((self._causes + conflicting).most_common())

    def _conflicting(self) -> dict[int, Failure]:
        if self._conflicts is None:
            self._conflicts = {}
            for output in self._outputs.values():
                for cells, reason in output.conflicts():
                    failure = Failure(Status.FAILED, "KindConflict", reason, cause=f"conflict in {output.name}")
                    for cell in cells.tolist():
                        self._conflicts.setdefault(cell, failure)
        return self._conflicts

    def status(self) -> npt.NDArray[np.uint8]:
        """Status codes of every cell, uint8[size], flat; EXCLUDED where the design has no point."""
        with self._lock:
            status = self._status_buffer.view((self.cells.size,))
            running = self._running()
            conflicts = self._conflicting()
            if not conflicts and not running.size:
                return status
            status = status.copy()
            if conflicts:
                status[list(conflicts)] = Status.FAILED
            if running.size:
                status[running[status[running] == Status.PENDING]] = Status.RUNNING
            return status

    def left(self, counts: Mapping[Status, int] | None = None) -> int:
        """Count the points still to be computed, those asked for again included; `counts` saves counting again."""
        with self._lock:
            shown = self.declaration
            if shown.rerun not in AGAIN:
                counts = self.counts() if counts is None else counts
                stale = 0 if shown.hold_stale else counts[Status.STALE]
                return counts[Status.PENDING] + counts[Status.RUNNING] + stale
            # What readers find in conflict was computed all the same.
            status = self._status_buffer.view((self.cells.size,))
            stale = status == Status.STALE
            left = to_run(
                shown,
                pending=stale | (status == Status.PENDING),
                stale=stale,
                failed=np.isin(status, FAILED),
                older=self._standing.generations() < shown.generation,
                chosen=self._selected,
            )
            return int(np.count_nonzero(left & (status != EXCLUDED)))

    def _selected(self) -> Booleans:
        chosen = np.zeros(self.cells.size + 1, bool)
        listed = np.flatnonzero(selected(self.declaration.grid, self.declaration.selection or {}))
        # The last entry is for what has no cell.
        chosen[self.cells.of(listed)] = True
        return chosen[:-1]

    def _running(self, host: HostSigns | None = None) -> Integers:
        """Cells of the blocks that workers have now, as the host says."""
        spans = (host or HostSigns.of(self._sweep, time.time())).in_flight
        if not spans:
            return np.empty(0, np.int64)
        size = self.declaration.grid.size
        listed = [np.arange(max(0, start), min(stop, size)) for start, stop in spans]
        cells = self.cells.of(np.concatenate(listed))
        return cells[cells >= 0]

    def counts(self, host: HostSigns | None = None) -> dict[Status, int]:
        """Count the points in each status; `host` saves reading its signs of life again."""
        with self._lock:
            counted = self._tally.copy()
            conflicts = list(self._conflicting())
            if conflicts:
                counted -= tallied(self._status_buffer.read(np.array(conflicts)))
                counted[Status.FAILED] += len(conflicts)
            running = int(np.count_nonzero(self._status_buffer.read(self._running(host)) == Status.PENDING))
            counted[Status.PENDING] -= running
            counted[Status.RUNNING] += running
            return {status: int(counted[status]) for status in Status}

    def dataset(self, *, sealed: bool = False) -> "xr.Dataset":
        """Show what is known now: outputs first, `status` last, the user's coordinates.

        Parameters
        ----------
        sealed : bool
            Give integers and bools their own type where no value is missing, as in a published file.

        Returns
        -------
        xarray.Dataset
            Missing values are NaN, NaT or None. Integers and bools are shown as float64, so that the type does
            not change with the last value; integers beyond 2**53 have an exact companion, `<output>_exact`.
        """
        with self._lock:
            variables: Variables = {}
            sizes: dict[str, int] = dict(zip(self.cells.dims, self.cells.shape, strict=True))
            labels: dict[str, Array] = {}
            for output in self._outputs.values():
                for name, (dims, values, attrs) in output.variables(self.cells, sizes, sealed).items():
                    variables.setdefault(name, (dims, values, attrs))
                    sizes.update(zip(dims, values.shape, strict=True))
                own = variables[output.name][0][len(self.cells.dims) :]
                labels |= output.coordinates([dim for dim in own if dim not in labels], sizes)
            variables["status"] = self._status_variable()
            found = _dataset(variables, self.cells, self.attributes())
            return found.assign_coords(labels) if labels else found

    def _status_variable(self) -> tuple[tuple[str, ...], Array, dict[str, Any]]:
        values = list(range(len(Status)))
        meanings = MEANINGS
        if self.cells.excluded is not None:
            values, meanings = [*values, EXCLUDED], f"{MEANINGS} excluded"
        attrs = {"flag_values": np.array(values, np.uint8), "flag_meanings": meanings}
        return self.cells.dims, self.status().reshape(self.cells.shape), attrs

    def outcomes(self) -> "xr.Dataset":
        """How each outcome was made: seconds, worker, attempt and version, on the dimensions of `dataset`."""
        with self._lock:
            sources = self._standing.sources
            source = self._standing.source
            columns: Mapping[str, Array] = {
                "seconds": np.array([*(each.seconds for each in sources), np.nan], np.float32),
                "host": np.array([each.worker for each in sources] + [None], object),
                "attempt": np.array([float(each.attempt) for each in sources] + [np.nan]),
                "generation": np.array([float(each.generation) for each in sources] + [np.nan]),
                "version": np.array([each.version for each in sources] + [None], object),
            }
            # -1, nothing known, is the last entry.
            found = {name: column[source] for name, column in columns.items()}
            if self._seconds is not None:
                timed = self._seconds.view((self.cells.size,))
                found["seconds"] = np.where(np.isnan(timed), found["seconds"], timed)
            found = {name: values.reshape(self.cells.shape) for name, values in found.items()}
            data: Variables = {name: (self.cells.dims, values, {}) for name, values in found.items()}
            data["seconds"][2]["units"] = "s"
            data["status"] = self._status_variable()
            return _dataset(data, self.cells, self.attributes())

    def listed(self, *statuses: Status) -> Integers:
        """Return the listed indices, ascending, of the points in some statuses."""
        with self._lock:
            cells = self.cells.of(np.arange(self.declaration.grid.size, dtype=np.int64))
            chosen = np.isin(self.status(), statuses)
            found: Integers = np.flatnonzero((cells >= 0) & chosen[cells])
            return found

    def values(self, listed: Integers) -> dict[str, list[Any]]:
        """Values of every output at listed indices, of the type the points gave; None where there is none."""
        with self._lock:
            cells = self.cells.of(listed)
            return {name: output.values(cells) for name, output in self._outputs.items()}

    def output(self, listed: int) -> str:
        """Tail of what the point at a listed index printed, empty if it printed nothing."""
        with self._lock:
            cell = int(self.cells.of(np.array([listed]))[0])
            number = int(self._standing.source[cell]) if cell >= 0 else -1
            if number < 0:
                return ""
            order = self._standing.sources[number].order
            # A cold path: the batch is looked up in the log again, so that printed text needs no memory meanwhile.
            for batch in LogReader(self._sweep.paths).stream():
                if batch.order == order:
                    rows = np.flatnonzero(indices_of(self._where(batch)) == cell)
                    return batch.outputs.get(int(rows[0]), "") if rows.size else ""
            return ""

    def origin(self, listed: int) -> tuple[float | None, str | None]:
        """(seconds, worker) of the outcome at a listed index; None where it was not recorded or there is none."""
        with self._lock:
            cell = int(self.cells.of(np.array([listed]))[0])
            number = int(self._standing.source[cell]) if cell >= 0 else -1
            if number < 0:
                return None, None
            source = self._standing.sources[number]
            timed = np.nan if self._seconds is None else float(self._seconds.view((self.cells.size,))[cell])
            seconds = source.seconds if np.isnan(timed) else timed
            return None if np.isnan(seconds) else float(seconds), source.worker or None

    def outputs(self) -> list[str]:
        """Names of the outputs, as declared and as the outcomes named them."""
        with self._lock:
            return list(self._outputs)

    def attributes(self) -> dict[str, Any]:
        """Provenance, as attributes that every file format takes."""
        declaration = self.declaration
        environment = self._sweep.environment(declaration.environment)
        return {
            "sweep": self._sweep.name,
            "sweep_id": self._sweep.id,
            "version": declaration.version,
            "declaration": declaration.number,
            "generation": declaration.generation,
            "created": str(declaration.created),
            "python": str(dict(environment.get("python") or {}).get("version", "")),
            "root_seed": f"{declaration.root:#034x}",
            "constants": json.dumps(dict(declaration.constants), default=str, sort_keys=True),
        }


def _dataset(variables: Variables, cells: Cells, attrs: Mapping[str, Any]) -> "xr.Dataset":
    import xarray as xr

    # The fast path takes arrays as they are; otherwise every object array is searched for dates, and None becomes NaN.
    made = {name: xr.Variable(dims, values, attrs, fastpath=True) for name, (dims, values, attrs) in variables.items()}
    return xr.Dataset(made, coords=cells.coordinates, attrs=attrs)


def cause_of(failure: Failure) -> str:
    """One line that groups failures of one origin."""
    return failure.cause or failure.type
