"""A sweep in a few lines of JSON: what lists show of it, and what a saved notebook keeps."""

from typing import TYPE_CHECKING, Any

from mce_notebook.declare.grid import Status
from mce_notebook.view.sides import shortened

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.store.declaration import Declaration
    from mce_notebook.view.progress import Progress

LONGEST_MESSAGE = 1_000


def summary(
    sweep: "SweepStore", declaration: "Declaration", progress: "Progress", key: str, notebook: str = ""
) -> dict[str, Any]:
    """Return the `Summary` of live views.

    Parameters
    ----------
    sweep : SweepStore
    declaration : Declaration
        The one that is shown.
    progress : Progress
    key : str
        What the sweep is called on the wire.
    notebook : str
        Path of its notebook, as it is to be told.
    """
    folder = sweep.paths.folder
    return {
        "key": key,
        "name": sweep.name,
        "root": str(folder.parent),
        "folder": str(folder),
        "state": progress.state,
        "total": progress.total,
        "known": progress.known,
        "counts": {status.name.lower(): int(getattr(progress, status.name.lower())) for status in Status},
        "rate": round(progress.rate, 3),
        "eta": None if progress.eta is None else [round(seconds, 1) for seconds in progress.eta],
        "workers": progress.workers,
        # Whole seconds: finer ones would be news at every look.
        "elapsed": int(progress.elapsed) if progress.state == "running" else round(progress.elapsed, 3),
        # Hundredths: finer ones would be news at every look.
        "cost": None if progress.cost is None else {"amount": round(progress.cost, 2), "currency": progress.currency},
        "message": shortened(progress.message, LONGEST_MESSAGE),
        "cluster": str(declaration.options.get("on") or "local"),
        "notebook": notebook,
        "created": "" if sweep.gone else str(sweep.record.get("created", "")),
        "actions": actions(progress),
    }


def actions(progress: "Progress") -> list[str]:
    """Name what can be asked of a sweep in this state."""
    found = []
    if progress.state in ("queued", "running"):
        found += ["pause", "cancel"]
    elif progress.state == "paused":
        found += ["resume", "cancel"]
    elif progress.state in ("cancelled", "stopped", "interrupted"):
        found.append("resume")
    if progress.failed + progress.killed + progress.timeout:
        found.append("rerun-failed")
    if progress.stale:
        found.append("rerun-stale")
    return found
