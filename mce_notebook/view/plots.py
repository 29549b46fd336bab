"""`recovery.plot(...)`: a picture of a sweep that follows it while it runs and stays when it has ended."""

import contextvars
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mce_notebook.errors import SweepError, ViewError
from mce_notebook.view import embedding
from mce_notebook.view.charts import chart, dynamic, holoviews, panels
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.frames import Frame, frame, labels_of
from mce_notebook.view.progress import Meter, Progress
from mce_notebook.view.questions import Question, ask
from mce_notebook.view.stills import png, wide

if TYPE_CHECKING:
    import xarray as xr

    from mce_notebook.store.catalog import SweepStore

# At most five frames a second, and a quarter of one core of the kernel, but never less often than this (seconds).
INTERVAL = 0.2
SHARE = 0.25
LONGEST = 3.0
# Where frames are whole outputs (images, or pages that have not connected yet), they are this far apart.
SLOW = 1.0
# A sweep that ended is looked at so often, for so long: it may be extended.
IDLE = 1.0
LINGER = 1800.0
REVIVAL = 5.0


@dataclass(frozen=True, eq=False)
class Look:
    """What there is to draw at one moment.

    Parameters
    ----------
    dataset : xarray.Dataset
    running : bool
        Whether more is to come by itself.
    text : str
        Changes whenever there is something new.
    """

    dataset: "xr.Dataset"
    running: bool
    text: str = ""


class Source(Protocol):
    """Where a plot looks."""

    @property
    def name(self) -> str:
        """How it is called."""

    def look(self) -> Look:
        """Return what there is now."""


class SweepSource:
    """A sweep in the store, followed from declaration to declaration."""

    def __init__(self, store: "SweepStore"):
        self.name = store.name
        self._store = store
        self._snapshot: Snapshot | None = None
        self._meter = Meter()
        self._lost: float | None = None

    def look(self) -> Look:
        """Return what there is now; a host that died is given some seconds to be replaced."""
        if self._snapshot is None:
            self._snapshot = Snapshot(self._store)
        progress = Progress.of(self._store, self._snapshot, self._meter)
        if progress.state != "interrupted":
            self._lost = None
        elif self._lost is None:
            self._lost = time.monotonic()
        running = not progress.ended or (self._lost is not None and time.monotonic() - self._lost < REVIVAL)
        counts = (progress.done, progress.failed, progress.killed, progress.timeout, progress.skipped, progress.stale)
        text = f"{progress.state} {counts} {progress.total} {self._snapshot.declaration.number}"
        return Look(self._snapshot.dataset(), running, text)


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """A dataset that does not change."""

    dataset: "xr.Dataset"
    name: str = ""

    def look(self) -> Look:
        """Return it."""
        return Look(self.dataset, running=False)


class Plot:
    """A picture of a sweep, shown where it is the result of a cell.

    It follows the sweep from a thread of its own, so that the cell returns at once and other cells can run; a cell that
    blocks the kernel does not stop it.

    Parameters
    ----------
    source : Source
    request : mapping
        Arguments of `ask`.
    incomplete : bool or None
        See `frame`.
    """

    def __init__(self, source: Source, request: Mapping[str, Any], incomplete: bool | None = None):
        self._source = source
        self._request = dict(request)
        self._incomplete = incomplete
        # One lock around everything HoloViews does: it is not made for several threads.
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._settled = threading.Event()
        self._settled.set()
        self._screen: _Screen | None = None
        self._look = source.look()
        self._question()

    def _question(self) -> Question | None:
        """Decide what to draw; None while nothing tells yet whether what is asked for exists."""
        try:
            return ask(self._look.dataset, **self._request)
        except ViewError:
            if self._look.running and not self._look.dataset.data_vars.keys() - {"status"}:
                return None
            raise

    @property
    def frame(self) -> Frame:
        """What is known now, as arrays.

        Raises
        ------
        ViewError
            If nothing is known that could be drawn.
        """
        self._look = self._source.look()
        return self._frame(self._look, ask(self._look.dataset, **self._request), {})

    @property
    def object(self) -> Any:
        """What is known now as HoloViews elements, to be combined with others: an overlay, or a layout of panels."""
        found = self.frame
        drawn = [chart(found, panel) for panel in range(panels(found))]
        return drawn[0] if len(drawn) == 1 else holoviews().Layout(drawn)

    def png(self) -> bytes:
        """Return what is known now as a PNG."""
        return png(self.frame)

    def show(self, *, wait: bool | None = None) -> None:
        """Show it in the output of this cell and follow the sweep from there.

        Parameters
        ----------
        wait : bool, optional
            Whether to wait for the last frame; by default where a notebook is executed from end to end, which is saved
            once its last cell has run.
        """
        _replace_earlier(self)
        self._screen = _Screen(self, self._lock)
        self._screen.show(self._look, self._question())
        if self._look.running:
            self._settled.clear()
        # A sweep that has ended may be extended while somebody looks.
        if self._look.running or (embedding.interactive() and isinstance(self._source, SweepSource)):
            # Without the context of this cell the updates would go to whichever cell ran last.
            run = contextvars.copy_context().run
            threading.Thread(target=run, args=(self._follow,), name="mce-plot", daemon=True).start()
            if _unattended() if wait is None else wait:
                self.wait()

    def _ipython_display_(self) -> None:
        self.show()

    def stop(self) -> None:
        """Leave the output as it is."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the last frame is shown."""
        if not self._settled.wait(timeout):
            raise TimeoutError(f"The plot of `{self._source.name}` still changes.")

    def _follow(self) -> None:
        try:
            self._followed()
        finally:
            self._settled.set()

    def _followed(self) -> None:
        assert self._screen is not None
        last = time.monotonic()
        while not self._stop.is_set():
            begin = time.thread_time()
            try:
                changed = self._refresh(self._screen)
            except (SweepError, FileNotFoundError) as error:
                # Removed or unreadable while it was watched: said where people look.
                self._screen.say(f"{type(error).__name__}: {error}")
                return
            running = self._look.running
            last = time.monotonic() if changed or running else last
            if not running and (_unattended() or time.monotonic() - last > LINGER):
                return
            spent = time.thread_time() - begin
            self._stop.wait(min(max(self._screen.interval, spent / SHARE), LONGEST) if running else IDLE)

    def _refresh(self, screen: "_Screen") -> bool:
        """Look again and draw what is new; return whether anything was."""
        look = self._source.look()
        changed = (look.text, look.running) != (self._look.text, self._look.running)
        if changed or screen.behind:
            before, self._look = self._look, look
            screen.update(look, self._question(), ended=before.running and not look.running)
        if look.running:
            self._settled.clear()
        else:
            self._settled.set()
        return changed

    def _frame(self, look: Look, question: Question, at: Mapping[str, Any]) -> Frame:
        return frame(
            look.dataset, question, at, running=look.running, incomplete=self._incomplete, heading=self._source.name
        )

    def __repr__(self) -> str:
        return f"<plot of {self._source.name or 'a dataset'}>"


class _Screen:
    """The output of one cell: a picture that is alive where that is possible, an image elsewhere."""

    def __init__(self, plot: Plot, lock: threading.RLock):
        self._plot = plot
        self._lock = lock
        self._handle: Any = None
        self._alive = embedding.interactive()
        self._metadata: dict[str, Any] = {}
        self._pipe: Any = None
        self._shape: Any = None
        self._at: dict[str, Any] = {}
        self._still: dict[str, Any] = {}
        self._drawn = 0.0
        # Whether a frame was left out because the one before was drawn just then.
        self.behind = False

    @property
    def interval(self) -> float:
        """Seconds between frames."""
        return INTERVAL if self._alive and embedding.connected(self._metadata) else SLOW

    def show(self, look: Look, question: Question | None) -> None:
        """Show a first frame."""
        from IPython import display

        show: Any = display.display
        if self._alive and not embedding.served() and not _Screen._inlined:
            show({"text/html": embedding.inline_scripts(), "text/plain": ""}, raw=True)
            _Screen._inlined = True
        data, metadata = self._bundle(look, question)
        self._handle = show(data, metadata=metadata, raw=True, display_id=True)

    _inlined = False

    def update(self, look: Look, question: Question | None, *, ended: bool) -> None:
        """Show another frame; the last one replaces the output, so that a saved notebook has it."""
        if self._handle is None:
            return
        if question is not None and self._alive and not ended and self._pipe is not None:
            shape = self._shape_of(look, question)
            self.behind = False
            if shape == self._shape and embedding.connected(self._metadata):
                with self._lock:
                    self._pipe.send((look, question))
                return
        if not ended and time.monotonic() - self._drawn < SLOW:
            # A page that has not connected is drawn anew as a whole, which flickers when it is done often.
            self.behind = True
            return
        self.behind = False
        was = embedding.EXEC_TYPE in self._metadata
        data, metadata = self._bundle(look, question)
        if was and embedding.EXEC_TYPE in metadata:
            # The renderer of live pictures fails when it is given another one: it must go first.
            self._handle.update(self._still, raw=True)
        self._handle.update(data, metadata=metadata, raw=True)

    def say(self, text: str) -> None:
        """Show a sentence instead."""
        if self._handle is not None:
            self._handle.update({"text/plain": text}, raw=True)

    def _bundle(self, look: Look, question: Question | None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._drawn = time.monotonic()
        if question is None:
            return {"text/plain": f"{self._plot._source.name}: nothing is known yet"}, {}
        with self._lock:
            at = {name: label for name, label in self._at.items() if name in question.selectors}
            found = self._plot._frame(look, question, at)
            view = self._view(look, question, found) if self._alive else None
            alt = " · ".join(part for part in (found.title, found.value_name, found.subtitle) if part)
            picture = png(found)
            self._still = embedding.bundle(None, picture, alt, live=False)[0]
            data, self._metadata = embedding.bundle(view, picture, alt, live=self._alive)
        return data, self._metadata

    def _view(self, look: Look, question: Question, found: Frame) -> Any:
        import panel

        hv, pane = holoviews(), panel.pane
        self._pipe = hv.streams.Pipe(data=(look, question))
        self._shape = self._shape_of(look, question)
        selectors = {name: labels_of(look.dataset, question, name) for name in question.selectors}

        def draw(data: tuple[Look, Question], at: dict[str, Any]) -> Frame:
            self._at = dict(at)
            return self._plot._frame(data[0], data[1], at)

        drawn = dynamic(draw, found, self._pipe, selectors, self._at)
        made: Any = pane.HoloViews
        shown = made(drawn, backend="bokeh", linked_axes=False, widget_location="top_left")
        return shown.layout

    def _shape_of(self, look: Look, question: Question) -> Any:
        """All that only a new picture can change: axes, scales, panels, selectors."""
        found = self._plot._frame(look, question, {k: v for k, v in self._at.items() if k in question.selectors})
        selectors = tuple(
            (name, tuple(map(str, labels_of(look.dataset, question, name)))) for name in question.selectors
        )
        values = found.points[2] if found.points is not None else found.mean
        scales = tuple((scale.name, tuple(scale.texts)) for scale in (found.x, found.y, found.by))
        return question, selectors, scales, found.x.log, not found.share and wide(values)


def plot(
    store: "SweepStore",
    x: str | None = None,
    y: str | None = None,
    value: str | None = None,
    by: str | None = None,
    kind: str | None = None,
    *,
    over: str | Sequence[str] = (),
    incomplete: bool | None = None,
    **fixed: Any,
) -> Plot:
    """Make the plot of a sweep; the arguments are explained by `Sweep.plot`."""
    request = {"x": x, "y": y, "value": value, "by": by, "kind": kind, "over": over, "fixed": fixed}
    return Plot(SweepSource(store), request, incomplete)


_shown: "weakref.WeakValueDictionary[str, Plot]" = weakref.WeakValueDictionary()
_messages: dict[str, str] = {}


def _replace_earlier(found: Plot) -> None:
    """Stop the plots that earlier runs of this cell left behind: their output is gone."""
    shell = embedding._shell()
    parent: Callable[[], Any] | None = getattr(getattr(shell, "kernel", None), "get_parent", None)
    header = parent() if parent is not None else {}
    cell = str(header.get("metadata", {}).get("cellId", ""))
    message = str(header.get("header", {}).get("msg_id", ""))
    if not cell:
        return
    if _messages.get(cell) != message:
        for key, earlier in list(_shown.items()):
            if key.startswith(f"{cell} "):
                earlier.stop()
                del _shown[key]
    _messages[cell] = message
    _shown[f"{cell} {id(found)}"] = found


def _unattended() -> bool:
    kernel = getattr(embedding._shell(), "kernel", None)
    return kernel is not None and not getattr(kernel, "_allow_stdin", True)
