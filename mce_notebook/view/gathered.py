"""The log of a sweep gathered into arrays, as one declaration sees it."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.errors import CorruptStore, SweepError
from mce_notebook.store.columns import Column
from mce_notebook.store.frames import Batch, Failure
from mce_notebook.store.merge import Source, Standing
from mce_notebook.store.reader import LogReader
from mce_notebook.store.spans import Move, Table, Where, indices_of, tallied
from mce_notebook.view.buffers import Buffer, filled
from mce_notebook.view.cells import Booleans, Cells, cells_of
from mce_notebook.view.outputs import Output
from mce_notebook.view.pieces import piece_of

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.store.declaration import Declaration

# Shown in cells of a cube that are no point of the design (guarded out, or holes of a ragged grid).
EXCLUDED = 255


class Gathered:
    """What the log says of the points of one declaration; `read` goes on where it stopped.

    Not safe for several threads: a `Snapshot` holds the lock.

    Parameters
    ----------
    sweep : SweepStore
    declaration : Declaration
        Whose grid and version count.

    Attributes
    ----------
    cells : Cells
        The layout of all arrays.
    status : Buffer
        Codes of every cell, uint8[size], without those of blocks under way.
    tally : int64[256]
        Number of cells of each code.
    seconds : Buffer or None
        Of points that were timed alone, float32[size].
    standing : Standing
        Where the outcome of each cell comes from.
    outputs : dict of str to Output
    failures : dict of int to Failure
        By cell.
    notes : dict of str to None
        Sentences about what could not be shown.
    """

    def __init__(self, sweep: "SweepStore", declaration: "Declaration"):
        self.sweep = sweep
        self.declaration = declaration
        self.reader = LogReader(sweep.paths)
        self.cells: Cells = cells_of(declaration.grid, declaration.grid.candidates())
        size = self.cells.size
        status = np.zeros(size, np.uint8)
        if self.cells.excluded is not None:
            status[self.cells.excluded] = EXCLUDED
        self.tally = tallied(status)
        self.status = Buffer(status)
        self.seconds: Buffer | None = None
        self.standing = Standing(size)
        self.outputs = {name: self._new_output(name) for name in declaration.outputs or ()}
        self.failures: dict[int, Failure] = {}
        self.notes: dict[str, None] = {}
        self._interned: dict[Failure, Failure] = {}
        self._causes: Counter[str] | None = Counter()
        self._conflicts: dict[int, Failure] | None = None
        self._tables: dict[int, Table | None] = {}
        self._last: dict[str, int] = {}
        # Whether outcomes were passed over because this grid has no such point; whether batches came in another order
        # than a new reader finds them in; whether there were several outcomes of a point.
        self._outside = self._late = self._contested = False
        self._latest = (0, 0, 0)

    def read(self) -> int:
        """Take in what was appended since the last time; return the number of batches."""
        count = 0
        for batch in self.reader.stream():
            self._absorb(batch)
            count += 1
        if count:
            self._conflicts = None
        return count

    def under(self, declaration: "Declaration") -> "Gathered":
        """Return the same for another declaration; only where it must is the log read again.

        Of a declaration of the same version with all of these points, and more, the arrays are laid out anew: label
        arithmetic instead of a million outcomes decoded again.
        """
        grown = Gathered(self.sweep, declaration)
        move = self._move(grown)
        if move is not None:
            grown._take_over(self, move)
        return grown

    def _move(self, grown: "Gathered") -> Move | None:
        """Tell where the cells of this one are in another; None where outcomes would be missing or count otherwise."""
        before, after = self.declaration, grown.declaration
        same = before.version == after.version and before.dims == after.dims and before.outputs == after.outputs
        # A value that lost has left its traces, such as its kind: a new reader may never see it.
        traced = self._late and self._contested
        if not same or traced or self._outside or self.notes or not self._recent():
            return None
        try:
            found = after.grid.positions(before.grid, constants=after.constants, other_constants=before.constants)
        except SweepError:
            return None
        if self.cells.positions is not None:
            found = found[self.cells.indices(np.arange(self.cells.size))]
        places, kept = grown.cells.of(found), None
        if self.cells.excluded is not None:
            kept = np.flatnonzero(~self.cells.excluded)
            places = places[kept]
        table = Table(places)
        return Move(grown.cells.size, kept, table.of(range(places.size))) if table.complete else None

    def _recent(self) -> bool:
        """Whether sources of other versions still have the rank they had when they were read."""
        self._last = {}
        others = {source.version: source.recency for source in self.standing.sources if not source.current}
        return all(self._recency(version) == recency for version, recency in others.items())

    def _take_over(self, other: "Gathered", move: Move) -> None:
        self.reader = other.reader
        self._late, self._latest, self._contested = other._late, other._latest, other._contested
        # New cells are pending or excluded.
        excluded = self.tally[EXCLUDED]
        self.tally = other.tally.copy()
        self.tally[Status.PENDING] += self.cells.total - other.cells.total
        self.tally[EXCLUDED] = excluded
        self.status.write(move.where, move.taken(other.status.read(slice(None))))
        self.seconds = None if other.seconds is None else other.seconds.moved(move, np.nan)
        self.standing = other.standing.moved(move)
        self.outputs = {name: output.moved(move) for name, output in other.outputs.items()}
        failed = move.of(np.array(list(other.failures), np.int64)).tolist()
        self.failures = dict(zip(failed, other.failures.values(), strict=True))
        self._interned, self._causes = other._interned, None if other._causes is None else Counter(other._causes)

    def _absorb(self, batch: Batch) -> None:
        try:
            columns = batch.columns
        except CorruptStore as error:
            # Its points stay pending, so that the next run computes them again.
            self.notes[str(error)] = None
            return
        where = self.where(batch)
        self._outside = self._outside or (isinstance(where, np.ndarray) and bool((where < 0).any()))
        status = batch.status
        current = batch.version == self.declaration.version
        recency = 0 if current else self._recency(batch.version)
        mean = np.nan if batch.total is None else batch.total / max(len(batch), 1)
        source = Source(
            current, recency, batch.generation, batch.order, batch.version, batch.worker, batch.attempt, mean
        )
        rows, fresh = self.standing.admit(where, status, source)
        self._late, self._latest = self._late or batch.order < self._latest, batch.order
        self._contested = self._contested or not fresh
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
        before = self.status.read(where)
        self.tally -= tallied(before)
        if isinstance(code, Status):
            self.tally[code] += before.size
        else:
            self.tally += tallied(code)
        self.status.write(where, code)

    def _scatter(
        self, batch: Batch, columns: Mapping[str, Column], where: Where, rows: Booleans | None, fresh: bool
    ) -> None:
        self._time(batch, where, rows)
        for name, column in columns.items():
            output = self.outputs.get(name)
            if output is None:
                output = self.outputs[name] = self._new_output(name)
            output.put(where, piece_of(column).rows(rows), fresh)
        if not fresh:
            self._forget(where, columns)
        if batch.failures:
            self._keep_failures(batch, where, rows)

    def _time(self, batch: Batch, where: Where, rows: Booleans | None) -> None:
        # Cheap points are timed by the block, whose mean the source keeps: no array until a point was timed alone.
        if batch.seconds is None and self.seconds is None:
            return
        if self.seconds is None:
            self.seconds = Buffer(filled((self.cells.size,), np.dtype(np.float32)))
        seconds = batch.seconds if batch.seconds is None or rows is None else batch.seconds[rows]
        self.seconds.write(where, np.nan if seconds is None else seconds)

    def _new_output(self, name: str) -> Output:
        return Output(name, self.cells.size, tuple(self.declaration.dims.get(name, ())))

    def _forget(self, where: Where, columns: Mapping[str, Column]) -> None:
        for name, output in self.outputs.items():
            if name not in columns:
                output.clear(where)
        if self.failures:
            self._causes = None
            for cell in indices_of(where).tolist():
                self.failures.pop(cell, None)

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
            self.failures[cell] = self._interned.setdefault(failure, failure)
            if self._causes is not None:
                self._causes[cause_of(failure)] += 1

    def where(self, batch: Batch) -> Where:
        """Return the cell of each outcome of a batch, -1 where the grid has no such point."""
        index = batch.index if batch.spans is None else batch.spans
        table = self._table(batch.declaration)
        if table is not None:
            return table.of(index)
        if batch.declaration != self.declaration.number:
            return np.full(len(batch), -1, np.int64)
        return slice(index.start, index.stop) if isinstance(index, range) else index

    def _table(self, number: int) -> Table | None:
        """Return the cell of every listed index of a declaration; None if they are the same, or not to be known."""
        if number not in self._tables:
            self._tables[number] = self._new_table(number)
        return self._tables[number]

    def _new_table(self, number: int) -> Table | None:
        shown = self.declaration
        if number == shown.number:
            return None if self.cells.positions is None else Table(self.cells.positions)
        try:
            other = self.sweep.declaration(number)
            places = shown.grid.positions(other.grid, constants=shown.constants, other_constants=other.constants)
        except SweepError as error:
            self.notes[f"Outcomes of declaration {number} are not shown: {error}"] = None
            return None
        return Table(self.cells.of(places))

    def _recency(self, version: str) -> int:
        """Return the number of the last declaration of another version."""
        if version not in self._last:
            self._last = {one.version: one.number for one in self.sweep.declarations()}
        return self._last.get(version, 0)

    def causes(self) -> Counter[str]:
        """Count failures by cause."""
        if self._causes is None:
            self._causes = Counter(cause_of(failure) for failure in self.failures.values())
        return self._causes + Counter(cause_of(failure) for failure in self.conflicting().values())

    def conflicting(self) -> dict[int, Failure]:
        """Return, by cell, what is of another kind than most; these points are shown as failed."""
        if self._conflicts is None:
            self._conflicts = {}
            for output in self.outputs.values():
                for cells, reason in output.conflicts():
                    failure = Failure(Status.FAILED, "KindConflict", reason, cause=f"conflict in {output.name}")
                    for cell in cells.tolist():
                        self._conflicts.setdefault(cell, failure)
        return self._conflicts


def cause_of(failure: Failure) -> str:
    """One line that groups failures of one origin."""
    return failure.cause or failure.type
