"""What a cell shows of a sweep: one bundle, drawn live where our extension is, and still readable everywhere else."""

import base64
from typing import TYPE_CHECKING, Any

from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.picture import png
from mce_notebook.view.progress import Progress
from mce_notebook.view.summary import summary

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore

SWEEP_TYPE = "application/vnd.mce.sweep+json"


def bundle(
    sweep: "SweepStore",
    snapshot: Snapshot | None = None,
    progress: Progress | None = None,
    *,
    picture: bool = True,
    value: str | None = None,
) -> dict[str, Any]:
    """Make the MIME bundle of a sweep.

    Parameters
    ----------
    sweep : SweepStore
    snapshot, progress : optional
        Kept by the caller; made for the occasion otherwise.
    picture : bool
        With a PNG, which takes a tenth of a second; live updates leave it out.
    value : str, optional
        The output that is drawn.

    Returns
    -------
    dict of MIME type to data
        `application/vnd.mce.sweep+json` names the sweep for the extension, which reads the store itself, and holds
        the state it was in; `image/png` is in base64.
    """
    snapshot = Snapshot(sweep) if snapshot is None else snapshot
    progress = Progress.of(sweep, snapshot) if progress is None else progress
    # The last state is in the bundle, so that a saved notebook shows it where no server answers.
    state = summary(sweep, snapshot.declaration, progress, sweep.id)
    found: dict[str, Any] = {
        SWEEP_TYPE: {"name": sweep.name, "root": str(sweep.paths.folder.parent), "id": sweep.id, "state": state},
        "text/plain": progress.text(),
        "text/html": progress.html(),
    }
    if picture:
        image = base64.b64encode(png(snapshot.dataset(), progress, value)).decode()
        found["image/png"] = image
        # Where HTML is preferred to images, the picture is in it.
        found["text/html"] += f'<img alt="{_alt(progress)}" src="data:image/png;base64,{image}">'
    return found


def _alt(progress: Progress) -> str:
    # The name of a sweep is an identifier: nothing to escape.
    known = "points not known yet" if progress.guard else f"{progress.known} of {progress.total} points known"
    return f"{progress.name}: {known}"
