"""The results as a labelled dataset, kept up to date with the log of a sweep."""

import json
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.declare.subsets import selected
from mce_notebook.errors import UnknownSweep
from mce_notebook.store.coverage import FAILED, to_run
from mce_notebook.store.frames import Failure
from mce_notebook.store.reader import LogReader
from mce_notebook.store.spans import indices_of, tallied
from mce_notebook.view.buffers import Array
from mce_notebook.view.cells import Booleans, Cells, Integers
from mce_notebook.view.gathered import EXCLUDED, Gathered
from mce_notebook.view.outputs import Variables
from mce_notebook.view.signs import HostSigns

if TYPE_CHECKING:
    import xarray as xr

    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.store.declaration import Declaration

MEANINGS = "pending running done failed killed timeout skipped stale"
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
        self._now = Gathered(sweep, sweep.declaration(self._number()))
        self._now.read()

    # ---- following the log ----

    def update(self) -> int:
        """Read what was appended since the last time.

        Returns
        -------
        int
            Number of batches that were new.
        """
        with self._lock:
            number = self._number()
            if number != self.declaration.number or self._answered():
                self._now = self._now.under(self._sweep.declaration(number))
            return self._now.read()

    def _answered(self) -> bool:
        """Whether slow guards have been evaluated meanwhile, so that it is known now which points there are."""
        key = self.declaration.deferred
        return bool(key) and self._sweep.folder.exists(self._sweep.paths.mask(key))

    def follow(self, declaration: int) -> None:
        """Show another declaration from now on, by its number."""
        with self._lock:
            self._pinned = declaration

    def _number(self) -> int:
        if self._pinned is not None:
            return self._pinned
        numbers = self._sweep.numbers()
        if not numbers:
            raise UnknownSweep(f"The sweep {self._sweep.name!r} was never declared; run its cell.")
        return numbers[-1]

    @property
    def declaration(self) -> "Declaration":
        """The declaration whose grid and version are shown."""
        return self._now.declaration

    @property
    def cells(self) -> Cells:
        """Where its points are in the arrays."""
        return self._now.cells

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
            return [*self._now.notes, *self._now.reader.problems]

    def failures(self) -> dict[int, Failure]:
        """Failures by cell, of the outcomes that are shown, conflicts between kinds of values included."""
        with self._lock:
            return {**self._now.failures, **self._now.conflicting()}

    def causes(self) -> dict[str, int]:
        """Count failures by cause, the most frequent first."""
        with self._lock:
            return dict(self._now.causes().most_common())

    def status(self) -> npt.NDArray[np.uint8]:
        """Status codes of every cell, uint8[size], flat; EXCLUDED where the design has no point."""
        with self._lock:
            status = self._now.status.view((self.cells.size,))
            running = self._running()
            conflicts = self._now.conflicting()
            if not conflicts and not running.size:
                return status
            status = status.copy()
            if conflicts:
                status[list(conflicts)] = Status.FAILED
            if running.size:
                status[running[status[running] == Status.PENDING]] = Status.RUNNING
            return status

    @property
    def superseded(self) -> bool:
        """Whether there is a later declaration than the one shown."""
        return max(self._sweep.numbers(), default=0) > self.declaration.number

    def left(self, counts: Mapping[Status, int] | None = None) -> int:
        """Count the points still to be computed, those asked for again included; `counts` saves counting again."""
        with self._lock:
            shown = self.declaration
            if shown.rerun not in AGAIN:
                counts = self.counts() if counts is None else counts
                stale = 0 if shown.hold_stale else counts[Status.STALE]
                return counts[Status.PENDING] + counts[Status.RUNNING] + stale
            # What readers find in conflict was computed all the same.
            status = self._now.status.view((self.cells.size,))
            stale = status == Status.STALE
            left = to_run(
                shown,
                pending=stale | (status == Status.PENDING),
                stale=stale,
                failed=lambda: np.isin(status, FAILED),
                older=lambda: self._now.standing.generations() < shown.generation,
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
            counted = self._now.tally.copy()
            conflicts = list(self._now.conflicting())
            if conflicts:
                counted -= tallied(self._now.status.read(np.array(conflicts)))
                counted[Status.FAILED] += len(conflicts)
            running = int(np.count_nonzero(self._now.status.read(self._running(host)) == Status.PENDING))
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
            for output in self._now.outputs.values():
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
            sources = self._now.standing.sources
            source = self._now.standing.source
            columns: Mapping[str, Array] = {
                "seconds": np.array([*(each.seconds for each in sources), np.nan], np.float32),
                "host": np.array([each.worker for each in sources] + [None], object),
                "attempt": np.array([float(each.attempt) for each in sources] + [np.nan]),
                "generation": np.array([float(each.generation) for each in sources] + [np.nan]),
                "version": np.array([each.version for each in sources] + [None], object),
            }
            # -1, nothing known, is the last entry.
            found = {name: column[source] for name, column in columns.items()}
            if self._now.seconds is not None:
                timed = self._now.seconds.view((self.cells.size,))
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
            placed = np.flatnonzero(cells >= 0)
            # Not `chosen[cells]`: where guards exclude every point, there is no cell to be had for a -1.
            found: Integers = placed[chosen[cells[placed]]]
            return found

    def values(self, listed: Integers) -> dict[str, list[Any]]:
        """Values of every output at listed indices, of the type the points gave; None where there is none."""
        with self._lock:
            cells = self.cells.of(listed)
            return {name: output.values(cells) for name, output in self._now.outputs.items()}

    def output(self, listed: int) -> str:
        """Tail of what the point at a listed index printed, empty if it printed nothing."""
        with self._lock:
            cell = int(self.cells.of(np.array([listed]))[0])
            number = int(self._now.standing.source[cell]) if cell >= 0 else -1
            if number < 0:
                return ""
            order = self._now.standing.sources[number].order
            # A cold path: the batch is looked up in the log again, so that printed text needs no memory meanwhile.
            for batch in LogReader(self._sweep.paths).stream():
                if batch.order == order:
                    rows = np.flatnonzero(indices_of(self._now.where(batch)) == cell)
                    return batch.outputs.get(int(rows[0]), "") if rows.size else ""
            return ""

    def origin(self, listed: int) -> tuple[float | None, str | None]:
        """(seconds, worker) of the outcome at a listed index; None where it was not recorded or there is none."""
        with self._lock:
            cell = int(self.cells.of(np.array([listed]))[0])
            number = int(self._now.standing.source[cell]) if cell >= 0 else -1
            if number < 0:
                return None, None
            source = self._now.standing.sources[number]
            timed = np.nan if self._now.seconds is None else float(self._now.seconds.view((self.cells.size,))[cell])
            seconds = source.seconds if np.isnan(timed) else timed
            return None if np.isnan(seconds) else float(seconds), source.worker or None

    def outputs(self) -> list[str]:
        """Names of the outputs, as declared and as the outcomes named them."""
        with self._lock:
            return list(self._now.outputs)

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
