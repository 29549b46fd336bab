"""`rows()`: what the plain loops would have built, from what is known."""

from typing import TYPE_CHECKING, Any

from mce_notebook.declare.grid import Status
from mce_notebook.declare.rows import rebuild
from mce_notebook.errors import ViewError
from mce_notebook.view.dataset import Snapshot

if TYPE_CHECKING:
    from mce_notebook.declare.grid import Grid


def rows(snapshot: Snapshot, sink: str | None = None, *, grid: "Grid | None" = None, stale: bool = False) -> Any:
    """Return the list, array or dict that the loops of the cell would have filled.

    Points that failed, or are not known yet, are left out of lists and keep the fill value in arrays.

    Parameters
    ----------
    snapshot : Snapshot
    sink : str, optional
        Name of the list, array or dict; needed when the loops fill several.
    grid : Grid, optional
        The declared grid with the objects its axes hold; their labels stand for them otherwise.
    stale : bool
        Also take what an older version of the code computed.

    Raises
    ------
    ViewError
        If there are no loops to imitate, or `sink` is not one they fill.
    """
    declaration = snapshot.declaration
    if not declaration.sinks:
        raise ViewError(
            f"`{snapshot.name}` was not made from loops that fill a list, so there are no rows to give back; "
            f"use `{snapshot.name}.dataset`, or `{snapshot.name}.dataset.to_dataframe()` for a table."
        )
    statuses = (Status.DONE, Status.STALE) if stale else (Status.DONE,)
    done = snapshot.listed(*statuses)
    return rebuild(declaration.sinks, sink, grid or declaration.grid, done, snapshot.values(done))
