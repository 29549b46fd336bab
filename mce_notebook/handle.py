"""The handle a user holds on one sweep: its data while it runs and after, and what can be asked of it."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.declare import bundle
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.options import Options
from mce_notebook.declare.subsets import check_labels
from mce_notebook.errors import GuardFailed, StaleResults, SweepStopped, UnknownSweep, UntrustedCode
from mce_notebook.launch import Launched, Proposal, launch, start
from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.declaration import Declaration

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from mce_notebook.declare.experiment import Experiment
    from mce_notebook.view.dataset import Snapshot
    from mce_notebook.view.failures import Failures
    from mce_notebook.view.plots import Plot
    from mce_notebook.view.progress import Meter, Progress

# While waiting, how long a handle listens to its host before it looks at the store by itself (seconds).
LISTEN_SECONDS = 0.5
# It does not look at every block that comes, on cores that compute the next ones, but when its host says that a sweep
# ended, and from time to time so that little is left to read then: after this share of the time it has waited.
SHARE_WAITED = 0.2
SHORTEST_SECONDS = 0.05
RUNNING = ("queued", "starting", "running", "draining")


class Sweep:
    """One sweep: its data while it runs and after, and what can be asked of it.

    You get one from a `%%sweep` cell, from `sweep`, or from `open`; the handle reads the store, so it is never out of
    date and any number of them may exist.

    Attributes
    ----------
    name : str
        Its name in the store.
    """

    def __init__(self, store: SweepStore, *, experiment: "Experiment | None" = None, launched: Launched | None = None):
        self._store = store
        self._experiment = experiment
        self._launched = launched
        self._number = launched.declaration.number if launched is not None else None
        self._followed: Declaration | None = None
        self._snapshot: Snapshot | None = None
        self._meter: Meter | None = None
        self._revived: set[int] = set()

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self._store.name

    @property
    def folder(self) -> Path:
        """The folder that holds all of it."""
        return self._store.paths.folder

    @property
    def grid(self) -> Grid:
        """The latest declared grid."""
        return self._declaration().grid

    @property
    def launched(self) -> Launched | None:
        """What running the cell or calling `sweep` set off; None for a handle from `open`."""
        return self._launched

    # -- data ----------------------------------------------------------------------------------------------------

    @property
    def dataset(self) -> "xr.Dataset":
        """What is known now, as an `xarray.Dataset`: user's coordinates, outputs, and `status` per point.

        NaN where not yet known. Reading it never waits and never fails while the sweep runs.
        """
        return self._view().dataset()

    @property
    def outcomes(self) -> "xr.Dataset":
        """How each point was computed: seconds, worker, attempt, version, on the dims of `dataset`."""
        return self._view().outcomes()

    @property
    def failures(self) -> "Failures":
        """The points that raised, were killed or timed out: coordinates, cause, and the regions they fill."""
        from mce_notebook.view.failures import Failures

        return Failures.of(self._view())

    @property
    def progress(self) -> "Progress":
        """Points done, failed and pending, rate and ETA."""
        from mce_notebook.view.progress import Meter, Progress

        if self._meter is None:
            self._meter = Meter()
        return Progress.of(self._store, self._view(), self._meter)

    @property
    def state(self) -> str:
        """queued, running, paused, done, cancelled, stopped or interrupted."""
        return str(self.progress.state)

    def widget(self) -> Any:
        """Return the live view as a widget, for notebooks that JupyterLab with our extension does not show.

        Raises
        ------
        ViewError
            If this installation has no JavaScript of ours.
        """
        import mce_notebook

        return mce_notebook._SweepWidget(self)

    def result(self, *, stale: bool = False, timeout: float | None = None) -> "xr.Dataset":
        """Wait until every point that will run has run, then return the dataset.

        Parameters
        ----------
        stale : bool
            Accept values that an older version of the code computed.
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        GridError
            If a guard that was evaluated by the host raised at a point, or had to be stopped there.
        SweepStopped
            If it was cancelled, paused, or stopped by `max_failures` before all points were computed.
        StaleResults
            If expensive stale points were held back.
        TimeoutError
            If `timeout` passes first.
        """
        progress = self.wait(timeout)
        if progress.guard == "failed":
            raise GuardFailed(progress.message)
        if progress.guard:
            raise SweepStopped(
                f"`{self.name}` is {progress.state}, and {progress.message}. `{self.name}.resume()` goes on."
            )
        if progress.state in ("cancelled", "paused", "stopped", "interrupted") and progress.pending:
            goes_on = "" if progress.superseded else f" `{self.name}.resume()` goes on;"
            raise SweepStopped(
                f"`{self.name}` is {progress.state} with {progress.pending:,} of {progress.total:,} points not computed"
                f"{': ' + progress.message.rstrip('.') if progress.message else ''}.{goes_on} "
                f"`{self.name}.dataset` is what is known so far."
            )
        if progress.stale and not stale:
            raise StaleResults(
                f"{progress.stale:,} points of `{self.name}` were computed by an older version of the code"
                f"{self._why()}. Run the cell with `--rerun stale` to compute them again, or take them as they are "
                f"with `{self.name}.result(stale=True)`."
            )
        return self.dataset

    def wait(self, timeout: float | None = None) -> "Progress":
        """Wait until the sweep stops running, for whatever reason, and return its progress.

        Interrupting the wait (Ctrl-C, the stop button) stops only the waiting.

        Raises
        ------
        TimeoutError
            If `timeout` seconds pass first.
        KeyboardInterrupt
            If the wait was interrupted.
        """
        try:
            return self._wait(timeout)
        except KeyboardInterrupt:
            # Without our frames: nothing went wrong in them.
            raise KeyboardInterrupt(
                f"Only the waiting stopped: `{self.name}` goes on. `{self.name}.cancel()` stops it."
            ) from None

    def _wait(self, timeout: float | None) -> "Progress":
        from mce_notebook.run.client import Ear

        begun = time.monotonic()
        end = None if timeout is None else begun + timeout
        with Ear(self._host) as ear:
            while True:
                # Before the look, so that what comes after it is heard.
                ear.prick()
                progress = self.progress
                if progress.state == "interrupted" and self._revive():
                    continue
                if progress.state not in RUNNING:
                    return progress
                left = LISTEN_SECONDS if end is None else min(LISTEN_SECONDS, end - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"`{self.name}` still runs: {progress.text()}")
                ear.wait(min(left, max(SHORTEST_SECONDS, SHARE_WAITED * (time.monotonic() - begun))))

    def rows(self, sink: str | None = None) -> Any:
        """Return what the plain loops would have built: the list, array or dict named `sink`.

        Points that failed are left out of lists and keep the fill value in arrays.

        Parameters
        ----------
        sink : str, optional
            Needed when the loops filled several.
        """
        from mce_notebook.view.rows import rows

        # Only where the cell was run here: the objects of axes are code, which looking at a sweep never loads.
        grid = self._live_grid() if self._experiment is not None else None
        return rows(self._view(), sink, grid=grid)

    def plot(
        self,
        x: str | None = None,
        y: str | None = None,
        value: str | None = None,
        by: str | None = None,
        kind: str | None = None,
        *,
        over: "str | Sequence[str]" = (),
        incomplete: bool | None = None,
        **fixed: Any,
    ) -> "Plot":
        """Draw it, live while it runs; the plot shows itself where it is the result of a cell.

        What is not said is chosen from the data: one axis is drawn as a curve, two as a heatmap, and further axes get
        selectors. Curves are means over `replicate` with a 95 % interval: Student's t interval of the mean for
        numbers, Wilson's for shares of bools and of the answers of outputs that are text. Axes whose labels are spaced
        by ratios are logarithmic. Grey cells are not known yet, hatched ones stale or failed. ::

            recovery.plot()
            recovery.plot(x="rho", y="delta", value="error", by="n")
            recovery.plot(x="rho", delta=0.5, ylim=(0, 1), title="half")

        Parameters
        ----------
        x, y : str, optional
            Axes drawn to the right and upwards; with `y`, values are colours. A `y` that names an output is `value`.
        value : str, optional
            The output drawn, the first one by default; of a complex one `"z.real"`, `"z.imag"`, `"z.abs"` or
            `"z.angle"`. Outputs that are arrays are drawn over their own dimension.
        by : str, optional
            An axis told apart by colour, or by panels of a heatmap.
        kind : {"curve", "points", "heatmap"}, optional
            `points` shows every outcome by itself, without averaging.
        over : str or sequence of str, optional
            Further axes that are averaged.
        incomplete : bool, optional
            Whether means are shown of places of which not all points are known. By default they are while the sweep
            runs, marked as such, and are left out afterwards: points that failed rarely are like the others.
        **fixed
            Labels of axes that are held, such as ``n=100``; and options of hvplot, such as `title`, `width`, `height`,
            `xlabel`, `xlim`, `logy`, `cmap`, `clim`, `legend`. A name that is both is the axis.

        Returns
        -------
        Plot
            `.object` is the same as HoloViews elements, `.png()` as an image.

        Raises
        ------
        ViewError
            For a name there is not, with those there are; for an option that cannot be drawn.
        """
        from mce_notebook.view.plots import plot

        return plot(self._store, x, y, value, by, kind, over=over, incomplete=incomplete, **fixed)

    def log(self, **labels: Any) -> str:
        """Return the last output (64 KiB at most) that the point at `labels` printed."""
        return self._view().output(self.grid.index(**labels))

    def artifacts(self, **labels: Any) -> list[Path]:
        """Return the files the point at `labels` left in `mce.scratch()`."""
        return self._store.artifacts(self.grid.index(**labels))

    def seal(self) -> Path:
        """Freeze the finished dataset as Zarr with checksums; return its folder, named by its content.

        Raises
        ------
        IncompleteGrid
            If points are missing.
        """
        from mce_notebook.view.sealing import seal

        return seal(self._view())

    # -- doing ---------------------------------------------------------------------------------------------------

    def replay(self, **labels: Any) -> Any:
        """Compute one point again, here, with the stream it had; what it raises reaches you and your debugger.

        Nothing is recorded. ::

            recovery.replay(n=100, delta=.1, rho=.9, replicate=3)

        Raises
        ------
        GridError
            If there is no such point.
        UntrustedCode
            If the code is not this user's and was not declared in this kernel.
        """
        from mce_notebook.run.replay import replay

        __tracebackhide__ = True
        experiment, grid = self._live_experiment(), self._live_grid()
        with bundle.active(experiment):
            return replay(experiment, grid, grid.index(**labels))

    def extend(self, **values: Any) -> "Sweep":
        """Add labels to axes, or an axis over a constant; only the new points are computed.

        Parameters
        ----------
        **values
            New labels by axis, e.g. ``n=[400]``; a name that was a constant becomes an axis.

        Returns
        -------
        Sweep
            This sweep.
        """
        return self._declare(self._live_grid().extended(**values), joins=True)

    def rerun(self, what: str = "failed", **labels: Any) -> "Sweep":
        """Compute points again: the failed ones, the stale ones, all, or those at `labels`.

        Old outcomes stay in the store; the view shows the newest.

        Parameters
        ----------
        what : {"failed", "stale", "all"}
            Which, when no labels are given.
        **labels
            A label or a list of labels by axis.

        Raises
        ------
        GridError
            If no point has these labels.
        """
        if labels:
            selection = {name: list(v) if isinstance(v, list | tuple) else [v] for name, v in labels.items()}
            check_labels(self.grid, selection)
            return self._declare(self._live_grid(), joins=True, selection=selection)
        return self._declare(self._live_grid(), joins=True, rerun=what)

    def cancel(self) -> None:
        """Stop within two seconds and keep what is done."""
        self._ask("cancel")

    def pause(self) -> None:
        """Let the blocks under way finish, then wait for `resume`."""
        self._ask("pause")

    def resume(self) -> "Sweep":
        """Go on with what is not computed yet, on the cluster of the latest declaration."""
        start(self._store, self._declaration())
        return self

    def remove(self) -> None:
        """Stop the sweep and delete its folder with everything in it."""
        if self.state in RUNNING:
            self.cancel()
            self.wait(timeout=30)
        self._store.remove()

    # -- inside --------------------------------------------------------------------------------------------------

    def _declaration(self) -> Declaration:
        """Return the declaration this handle follows: its own kernel's, else the store's latest.

        Frozen once written, hence read once.
        """
        number = self._number if self._number is not None else max(self._store.numbers(), default=None)
        if number is None:
            raise UnknownSweep(f"`{self.name}` was never declared completely; run its cell.")
        if self._followed is None or self._followed.number != number or self._followed.deferred:
            self._followed = self._store.declaration(number)
        return self._followed

    def _view(self) -> "Snapshot":
        from mce_notebook.view.dataset import Snapshot

        if self._snapshot is None:
            self._snapshot = Snapshot(self._store, self._number)
        self._snapshot.update()
        return self._snapshot

    def _live_experiment(self) -> "Experiment":
        if self._experiment is None:
            self._experiment = self._loaded()[0]
        return self._experiment

    def _live_grid(self) -> Grid:
        """Return the declared grid with the objects its axes may hold."""
        grid = self._declaration().grid
        if grid.whole and not grid.deferred:
            return grid
        return grid.with_object_values(self._loaded()[1])

    def _loaded(self) -> tuple["Experiment", dict[str, Any]]:
        declaration = self._declaration()
        try:
            return bundle.load(self._store.code_folder(declaration.code), self._store.paths.objects, stay=False)
        except UntrustedCode as error:
            raise UntrustedCode(
                f"The code of `{self.name}` was written by somebody else, so it is not run here. Run its cell in this "
                f"kernel, or say `mce trust {self.name}` if you know where it comes from."
            ) from error

    def _declare(self, grid: Grid, *, joins: bool, rerun: str | None = None, selection: Any = None) -> "Sweep":
        before = self._declaration()
        options = Options.from_json({**before.options, "rerun": rerun})
        info = {"notes": before.notes, "sinks": before.sinks, "tail": before.tail}
        # Its folder may have been renamed since.
        experiment = dataclasses.replace(self._live_experiment(), name=self.name)
        proposal = Proposal(
            experiment,
            grid,
            options,
            before.kind,
            before.cell,
            before.notebook,
            info,
            joins=joins,
            selection=selection,
        )
        self._launched = launch(proposal, self._store.paths.folder.parent)
        self._number = self._launched.declaration.number
        if self._snapshot is not None:
            self._snapshot.follow(self._number)
        return self

    def _ask(self, verb: str) -> None:
        # The intent is the order; the host only has to look. Telling it the verb as well would let a request that it
        # reads late overrule an intent that came after.
        self._store.add_intent(verb, by="you")
        host = self._host()
        if host is not None:
            host.request({"verb": "run", "store": str(self._store.paths.folder.parent), "name": self.name})
            host.close()

    def _host(self) -> Any:
        from mce_notebook.run.client import find_host, launch_for, serving

        options = Options.from_json(self._declaration().options)
        if options.on in ("inline", "local"):
            return None if options.on == "inline" else find_host(launch_for(options))
        # A profile may have been edited since, or not be known here; the host that runs the sweep says that it does.
        return serving(str(self._store.paths.folder.parent), self.name)

    def _revive(self) -> bool:
        """Start a host again for a sweep whose host died, once for each epoch that was lost."""
        epoch = self._store.last_epoch()
        if self._launched is None or epoch in self._revived or self._declaration().options.get("on") == "inline":
            return False
        self._revived.add(epoch)
        start(self._store, self._declaration())
        return True

    def _why(self) -> str:
        reasons = self._launched.reasons if self._launched is not None else ()
        return f" ({', '.join(reasons)})" if reasons else ""

    def __repr__(self) -> str:
        return f"<sweep {self.name}: {self.progress.text()}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from mce_notebook.view.mime import bundle

        return bundle(self._store, self._view())
