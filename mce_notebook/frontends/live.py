"""The output of a cell while its sweep runs: one display, kept up to date by one thread."""

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import SweepError, ViewError
from mce_notebook.store.catalog import Store
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.mime import bundle
from mce_notebook.view.progress import Meter, Progress

if TYPE_CHECKING:
    from mce_notebook.sweep import Sweep

# At most five updates a second, and a tenth of one core of the kernel, but never less often than this.
INTERVAL = 0.2
SHARE = 0.1
LONGEST = 2.0
# A host that died is given this long to be replaced before the output says so for good (seconds).
REVIVAL = 5.0


class LiveView:
    """Shows a sweep in the cell that calls `start`, until it ends.

    Parameters
    ----------
    sweep : Sweep
    value : str, optional
        The output that the picture at the end shows.
    widget : bool
        Show a widget with it, where our extension cannot be.
    """

    def __init__(self, sweep: "Sweep", value: str | None = None, *, widget: bool = False):
        self._store = Store(sweep.folder.parent).sweep(sweep.name)
        self._number = sweep.launched.declaration.number if sweep.launched is not None else None
        self._value = value
        self._widget = _widget(sweep) if widget else None
        self._types: dict[str, Any] = {}
        self._stop = threading.Event()
        self._snapshot: Snapshot | None = None
        self._meter = Meter()
        self._shown = ""
        self._thread: threading.Thread | None = None
        self._handle: Any = None

    def start(self) -> None:
        """Show the sweep as it is now, and follow it if it runs."""
        from IPython import display

        progress = self._look()
        show: Any = display.display
        self._handle = show(self._bundle(progress, picture=progress.ended), raw=True, display_id=True)
        if progress.ended or self._handle is None:
            return
        # Without the context of this cell the updates would go to whichever cell ran last.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._follow,), name="mce-live", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the output as it is."""
        self._stop.set()
        if self._widget is not None:
            # It still answers questions, but follows nothing.
            self._widget.displayed = False
        self._join(1.0)

    def finish(self, timeout: float = 10.0) -> None:
        """Wait until the last state is shown."""
        self._join(timeout)

    def _join(self, timeout: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _follow(self) -> None:
        lost: float | None = None
        while not self._stop.is_set():
            start = time.thread_time()
            try:
                progress = self._look()
                if progress.text() != self._shown:
                    self._handle.update(self._bundle(progress), raw=True)
                lost = (lost or time.monotonic()) if progress.state == "interrupted" else None
                if progress.ended and (lost is None or time.monotonic() - lost > REVIVAL):
                    # The first picture loads Matplotlib; the end must not wait for it.
                    self._handle.update(self._bundle(progress, picture=True), raw=True)
                    return
            except (SweepError, FileNotFoundError) as error:
                # Removed or unreadable while it was watched: say so where people look.
                self._handle.update({"text/plain": f"{type(error).__name__}: {error}"}, raw=True)
                return
            spent = time.thread_time() - start
            self._stop.wait(min(max(INTERVAL, spent / SHARE), LONGEST))

    def _look(self) -> Progress:
        if self._snapshot is None:
            self._snapshot = Snapshot(self._store, self._number)
        return Progress.of(self._store, self._snapshot, self._meter)

    def _bundle(self, progress: Progress, *, picture: bool = False) -> dict[str, Any]:
        assert self._snapshot is not None
        self._shown = progress.text()
        found = bundle(self._store, self._snapshot, progress, picture=picture, value=self._value)
        if self._widget is not None and not self._types:
            self._types = _types(self._widget)
        return {**found, **self._types}


def _widget(sweep: "Sweep") -> Any:
    """Return the widget of a sweep; None where this installation has none, so that HTML is shown."""
    try:
        return sweep.widget()
    except ViewError:
        return None


def _types(widget: Any) -> dict[str, Any]:
    shown = widget._repr_mimebundle_()
    data = shown[0] if isinstance(shown, tuple) else shown
    # The rest of the bundle says more than `SweepWidget(...)`.
    return {name: value for name, value in dict(data or {}).items() if name.startswith("application/")}
