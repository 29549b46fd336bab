"""One sweep, followed for everybody who watches it: one snapshot, and what is told of it as plain JSON."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.declare.grid import Status
from mce_notebook.errors import UnknownSweep, ViewError
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.failures import Failures
from mce_notebook.view.heatmap import Heatmap, Request
from mce_notebook.view.inspection import LONGEST_CAUSE, causes, cell_detail, failure_rows, point_detail
from mce_notebook.view.progress import Meter, Progress
from mce_notebook.view.sides import Side, shortened, sides_of
from mce_notebook.view.summary import LONGEST_MESSAGE, summary

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.view.cells import Cells

# Without a change of its files a sweep that runs is looked at so often (seconds): its host may have died.
PULSE = 1.0
# Regions of failures take a search: so many seconds apart, and no more than a twentieth of the time.
REGIONS_SECONDS = 2.0
REGIONS_SHARE = 0.05
# The first answer waits so long for them.
PATIENCE = 0.3
HEATMAPS = 16
BAD = (Status.FAILED, Status.KILLED, Status.TIMEOUT)


@dataclass
class Regions:
    """Where the failures lie, as found last."""

    found: list[dict[str, Any]] = field(default_factory=list)
    trace: object = None
    started: float = 0.0
    due: float = 0.0
    running: "Future[Search] | None" = None


@dataclass(frozen=True)
class Search:
    """What a search found, and the seconds of computing it took."""

    found: list[dict[str, Any]]
    spent: float


class Follower:
    """Follows one sweep.

    Parameters
    ----------
    sweep : SweepStore
    key : str
        What the sweep is called on the wire.
    executor : Executor
        Where slow searches run.
    notebook : callable, optional
        Turns the recorded path of a notebook into what is told of it.

    Notes
    -----
    All methods may be called from any thread; they read files and compute, so never from an event loop. Nothing of the
    sweep is executed or unpickled.
    """

    def __init__(self, sweep: "SweepStore", key: str, executor: Executor, notebook: Callable[[str], str] = str):
        self.sweep = sweep
        self.key = key
        self.used = time.monotonic()
        self._executor = executor
        self._notebook = notebook
        self._lock = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._meter = Meter()
        self._cells: Cells | None = None
        self._sides: list[Side] = []
        self._heatmaps: dict[Request, Heatmap] = {}
        self._views: dict[Request, dict[str, Any]] = {}
        self._regions = Regions()
        self._trace: object = None
        self._looked = 0.0
        self._summary: dict[str, Any] = {}
        self._stamp = 0
        self._watched = False

    # ---- following ----

    def look(self) -> int:
        """Read what is new; return a number that grows whenever there is something new to tell.

        Raises
        ------
        UnknownSweep
            If the sweep is not there any more.
        """
        with self._lock:
            now = time.monotonic()
            self.sweep.folder.refresh(self.sweep.paths.folder)
            trace = trace_of(self.sweep)
            changed = False
            if trace != self._trace or not (self.ended or now - self._looked < PULSE):
                told = self._told(self._read())
                changed = trace != self._trace or told != self._summary
                self._trace, self._summary, self._looked = trace, told, now
            if self._watched and self._snapshot is not None:
                changed |= self._follow_regions()
            if changed:
                self._stamp += 1
                self._views.clear()
            return self._stamp

    @property
    def ended(self) -> bool:
        """Whether nothing will change without a change of files."""
        return self._summary.get("state") in ("done", "cancelled", "stopped", "interrupted")

    def release(self) -> None:
        """Let go of what takes memory; the next look reads it again."""
        with self._lock:
            self._snapshot = None
            self._cells = None
            self._heatmaps.clear()
            self._views.clear()
            self._sides = []
            self._watched = False

    def _read(self) -> Progress:
        if self.sweep.gone:
            raise UnknownSweep(f"The folder {self.sweep.paths.folder} is not there any more.")
        if self._snapshot is None:
            self._snapshot = Snapshot(self.sweep)
        progress = Progress.of(self.sweep, self._snapshot, self._meter)
        if self._cells is not self._snapshot.cells:
            # Another declaration: other axes.
            self._cells = self._snapshot.cells
            self._sides = []
            self._heatmaps.clear()
            self._regions = Regions()
        return progress

    def _fresh(self) -> Snapshot:
        self.used = time.monotonic()
        if self._snapshot is None:
            self._trace = None
        self.look()
        assert self._snapshot is not None
        return self._snapshot

    # ---- telling ----

    def summary(self) -> dict[str, Any]:
        """Return the sweep in a line, as LIVE.md's `Summary`."""
        with self._lock:
            self.look()
            return self._summary

    def view(self, request: Request) -> dict[str, Any]:
        """Return all of it: axes, heatmap, causes and regions of failures.

        Raises
        ------
        UnknownSweep
            If it is gone.
        ViewError
            If the request names what there is not.
        """
        with self._lock:
            snapshot = self._fresh()
            if not self._watched:
                self._watched = True
                self._follow_regions()
                if self._regions.running is not None:
                    wait([self._regions.running], PATIENCE)
                    self._collect(self._regions)
            if request not in self._views:
                self._views[request] = self._made(snapshot, request)
            return self._views[request]

    def failures(self, cause: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Return failed points, some rows of them."""
        with self._lock:
            return failure_rows(self._fresh(), cause, offset, limit)

    def point(self, index: int) -> dict[str, Any]:
        """Return what is known of the point at a listed index."""
        with self._lock:
            return point_detail(self._fresh(), index)

    def cell(self, request: Request, column: int, row: int) -> dict[str, Any]:
        """Return the points that a cell of a heatmap stands for."""
        with self._lock:
            snapshot = self._fresh()
            heatmap = self._heatmap(snapshot, request)
            if heatmap is None:
                raise ViewError(f"`{snapshot.name}` has no axes.")
            return cell_detail(snapshot, heatmap, column, row)

    def _told(self, progress: Progress) -> dict[str, Any]:
        assert self._snapshot is not None
        declaration = self._snapshot.declaration
        return summary(self.sweep, declaration, progress, self.key, self._notebook(declaration.notebook))

    def _made(self, snapshot: Snapshot, request: Request) -> dict[str, Any]:
        facts = snapshot.attributes()
        heatmap = self._heatmap(snapshot, request)
        return {
            **self._summary,
            "axes": [side.told() for side in self._sides],
            "outputs": snapshot.outputs(),
            "causes": causes(snapshot.causes()),
            "regions": list(self._regions.found),
            "heatmap": None if heatmap is None else heatmap.told(snapshot.status()),
            "problems": [shortened(problem, LONGEST_MESSAGE) for problem in snapshot.problems[:20]],
            "provenance": {
                "version": facts["version"],
                "python": facts["python"],
                "seed": facts["root_seed"],
                "declared": facts["created"],
            },
        }

    def _heatmap(self, snapshot: Snapshot, request: Request) -> Heatmap | None:
        if not self._sides:
            self._sides = sides_of(snapshot.cells)
        if not self._sides or not snapshot.cells.size:
            return None
        if request not in self._heatmaps:
            while len(self._heatmaps) >= HEATMAPS:
                del self._heatmaps[next(iter(self._heatmaps))]
            self._heatmaps[request] = Heatmap(snapshot.cells, self._sides, request)
        return self._heatmaps[request]

    # ---- regions ----

    def _follow_regions(self) -> bool:
        """Search regions in the background, so that no view is late for them; True when others were found."""
        regions = self._regions
        changed = self._collect(regions)
        # The last search, of a sweep that has ended, waits for nothing.
        due = self.ended or time.monotonic() >= regions.due
        if regions.running is None and regions.trace != self._trace and due:
            regions.trace = self._trace
            if any(self._summary["counts"][status.name.lower()] for status in BAD):
                assert self._snapshot is not None
                regions.started = time.monotonic()
                regions.running = self._executor.submit(_search, Failures.of(self._snapshot))
            else:
                changed |= bool(regions.found)
                regions.found = []
        return changed

    def _collect(self, regions: Regions) -> bool:
        if regions.running is None or not regions.running.done():
            return False
        running, regions.running = regions.running, None
        search = running.result()
        # Not until now: nobody may have looked for minutes after the search had ended.
        regions.due = regions.started + max(REGIONS_SECONDS, search.spent / REGIONS_SHARE)
        changed = search.found != regions.found
        regions.found = search.found
        return changed


def _search(failures: Failures) -> Search:
    start = time.thread_time()
    found = []
    for region in failures.regions:
        known = region.failures + region.successes
        share = "all" if not region.successes else f"{region.failures:,} of {known:,} with"
        cause = shortened(region.cause, LONGEST_CAUSE)
        rule = shortened(f"{share} {region.rule}", LONGEST_MESSAGE)
        found.append({"cause": cause, "count": region.failures, "rule": rule})
    return Search(found, time.thread_time() - start)


def trace_of(sweep: "SweepStore") -> object:
    """Return what changes when anything of a sweep changes, from the times and sizes of a few files."""
    paths = sweep.paths
    log = sorted(_names(paths.log))
    epochs = [_times(path) for path in (paths.declarations, paths.intents, paths.epochs, paths.log)]
    # Outcomes are appended by the last writers; older epochs are closed.
    segments = [entry for name in log[-2:] for entry in _sizes(paths.log / name)]
    return (*epochs, tuple(segments))


def _times(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _names(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _sizes(path: Path) -> list[tuple[str, int]]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry.name, entry.stat(follow_symlinks=False).st_size) for entry in entries)
    except OSError:
        return []
