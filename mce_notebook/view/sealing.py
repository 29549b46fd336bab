"""Sealing what a snapshot shows: only when it is complete, and only what the log still says."""

from pathlib import Path

from mce_notebook.declare.grid import Status
from mce_notebook.errors import CorruptStore, IncompleteGrid
from mce_notebook.store.seal import seal as write
from mce_notebook.view.dataset import Snapshot


def seal(snapshot: Snapshot, *, stale: bool = False) -> Path:
    """Freeze the dataset of a finished sweep and return its folder, which is named by its content.

    The log is read again from its beginning, so that what is sealed is what is on disk and not what was once in
    memory.

    Parameters
    ----------
    snapshot : Snapshot
    stale : bool
        Also seal points that an older version of the code computed.

    Raises
    ------
    IncompleteGrid
        If points are missing, or stale and `stale` is False.
    CorruptStore
        If the log is damaged.
    """
    fresh = Snapshot(snapshot.sweep, snapshot.declaration.number)
    if fresh.declaration.deferred:
        raise IncompleteGrid(
            f"`{fresh.name}` cannot be sealed yet: its guards are not evaluated, so nobody knows which points there "
            f"are. `{fresh.name}.resume()` goes on."
        )
    counts = fresh.counts()
    missing = counts[Status.PENDING] + counts[Status.RUNNING]
    if missing:
        raise IncompleteGrid(
            f"`{fresh.name}` cannot be sealed yet: {missing:,} of {fresh.cells.total:,} points are not known. "
            f"`{fresh.name}.resume()` goes on; `{fresh.name}.dataset` is what is known so far."
        )
    if counts[Status.STALE] and not stale:
        raise IncompleteGrid(
            f"`{fresh.name}` cannot be sealed: {counts[Status.STALE]:,} points were computed by an older version of "
            "the code. Run the cell with --rerun stale first."
        )
    if fresh.problems:
        raise CorruptStore(f"`{fresh.name}` is not sealed, because its log is damaged: {fresh.problems[0]}")
    return fresh.sweep.paths.sealed / write(fresh.sweep, fresh.dataset(sealed=True))
