"""`recovery.plot(...)`: a picture of a sweep that follows it while it runs and stays when it has ended."""

import contextvars
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mce_notebook.errors import SweepError, ViewError
from mce_notebook.view import embedding
from mce_notebook.view.charts import LOCK, chart, dynamic, holoviews, pane, panels
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.frames import Frame, frame, labels_of
from mce_notebook.view.options import check_kind, check_values, split
from mce_notebook.view.progress import Meter, Progress
from mce_notebook.view.questions import Layout, Question, ask
from mce_notebook.view.scales import wide
from mce_notebook.view.stills import png

if TYPE_CHECKING:
    import xarray as xr

    from mce_notebook.store.catalog import SweepStore

# At most five frames a second, and a fifth of one core of the kernel, but never less often than this (seconds).
INTERVAL = 0.2
SHARE = 0.2
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
    number : int
        Grows from look to look of one plot.
    """

    dataset: "xr.Dataset"
    running: bool
    text: str = ""
    number: int = 0


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
        self._incomplete = incomplete
        # Not the lock of drawing: reading may take long, and a selector does not wait for it.
        self._reading = threading.Lock()
        self._count = 0
        self._screens: list[_Screen] = []
        self._look = self._newest()
        layout = Layout.of(self._look.dataset)
        fixed, self._options = split(request.get("fixed") or {}, layout.axes)
        self._request = {**request, "fixed": fixed}
        question = self._question(self._look)
        if self._options and question is not None:
            check_values(self._frame(self._look, question, {}))
            self._try()

    def _newest(self) -> Look:
        """Look at the source; looks are numbered, so that no older one is drawn over a newer one."""
        with self._reading:
            self._count += 1
            return replace(self._source.look(), number=self._count)

    def _try(self) -> None:
        """Draw once, so that a value hvplot refuses is told where it was written, and not in a thread."""
        try:
            with LOCK:
                holoviews().renderer("bokeh").get_plot(self.object)
            self.png()
        except ViewError:
            raise
        except Exception as error:  # whatever hvplot, Bokeh and Matplotlib raise for a value of the caller
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            given = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
            raise ViewError(f"hvplot cannot draw with {given}: {reason}") from error

    def _question(self, look: Look) -> Question | None:
        """Decide what to draw; None while nothing tells yet whether what is asked for exists."""
        try:
            question = ask(look.dataset, **self._request)
        except ViewError:
            if look.running and not look.dataset.data_vars.keys() - {"status"}:
                return None
            raise
        check_kind(self._options, question.kind)
        return question

    @property
    def frame(self) -> Frame:
        """What is known now, as arrays.

        Raises
        ------
        ViewError
            If nothing is known that could be drawn.
        """
        look = self._newest()
        return self._frame(look, ask(look.dataset, **self._request), {})

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
        screen = _Screen(self)
        _replace_earlier(screen)
        # Shown again, it may be much later than when it was made.
        look = self._newest() if self._screens else self._look
        self._screens = [each for each in self._screens if each.followed] + [screen]
        screen.show(look, self._question(look))
        # A sweep that has ended may be extended while somebody looks.
        if look.running or (embedding.interactive() and isinstance(self._source, SweepSource)):
            screen.follow()
            if look.running:
                screen.settled.clear()
            if _unattended() if wait is None else wait:
                screen.settled.wait()

    def _ipython_display_(self) -> None:
        self.show()

    def stop(self) -> None:
        """Leave its outputs as they are."""
        for screen in self._screens:
            screen.stop.set()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the last frame is shown."""
        end = None if timeout is None else time.monotonic() + timeout
        for screen in list(self._screens):
            if not screen.settled.wait(None if end is None else max(0.0, end - time.monotonic())):
                raise TimeoutError(f"The plot of `{self._source.name}` still changes.")

    def _frame(self, look: Look, question: Question, at: Mapping[str, Any]) -> Frame:
        found = frame(
            look.dataset, question, at, running=look.running, incomplete=self._incomplete, heading=self._source.name
        )
        return replace(found, options=self._options) if self._options else found

    def __repr__(self) -> str:
        return f"<plot of {self._source.name or 'a dataset'}>"


class _Screen:
    """The output of one cell: a picture that is alive where that is possible, an image elsewhere."""

    def __init__(self, plot: Plot):
        self._plot = plot
        self._handle: Any = None
        self._alive = embedding.interactive()
        self._metadata: dict[str, Any] = {}
        self._pipe: Any = None
        self._shape: Any = None
        self._at: dict[str, Any] = {}
        self._still: dict[str, Any] = {}
        self._drawn = 0.0
        self._look = plot._look
        self.stop = threading.Event()
        self.settled = threading.Event()
        self.settled.set()
        self.followed = False
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
        self._look = look
        self._handle = show(data, metadata=metadata, raw=True, display_id=True)

    _inlined = False

    def follow(self) -> None:
        """Go on from a thread of its own."""
        self.followed = True
        # Without the context of this cell the updates would go to whichever cell ran last.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._follow,), name="mce-plot", daemon=True).start()

    def _follow(self) -> None:
        try:
            self._followed()
        finally:
            self.followed = False
            self.settled.set()

    def _followed(self) -> None:
        last = time.monotonic()
        while not self.stop.is_set():
            begin = time.thread_time()
            try:
                changed = self._refresh()
            except (SweepError, FileNotFoundError) as error:
                # Removed or unreadable while it was watched: said where people look.
                self.say(f"{type(error).__name__}: {error}")
                return
            running = self._look.running
            last = time.monotonic() if changed or running else last
            if not running and (_unattended() or time.monotonic() - last > LINGER):
                return
            spent = time.thread_time() - begin
            self.stop.wait(min(max(self.interval, spent / SHARE), LONGEST) if running else IDLE)

    def _refresh(self) -> bool:
        """Look again and draw what is new; return whether anything was."""
        look = self._plot._newest()
        changed = (look.text, look.running) != (self._look.text, self._look.running)
        if changed or self.behind:
            self.update(look, self._plot._question(look))
        if look.running:
            self.settled.clear()
        else:
            self.settled.set()
        return changed

    def update(self, look: Look, question: Question | None) -> None:
        """Show another frame, unless a newer one is shown; the last one replaces the output, to be saved with it."""
        with LOCK:
            if self._handle is not None and look.number > self._look.number:
                ended = self._look.running and not look.running
                self._look = look
                self._update(look, question, ended=ended)

    def _update(self, look: Look, question: Question | None, *, ended: bool) -> None:
        if question is not None and self._alive and not ended and self._pipe is not None:
            shape = self._shape_of(look, question)
            self.behind = False
            if shape == self._shape and embedding.connected(self._metadata):
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
        with LOCK:
            at = {name: label for name, label in self._at.items() if name in question.selectors}
            found = self._plot._frame(look, question, at)
            view = self._view(look, question, found) if self._alive else None
            alt = " · ".join(part for part in (found.title, found.value_name, found.subtitle) if part)
            picture = png(found)
            self._still = embedding.bundle(None, picture, alt, live=False)[0]
            data, self._metadata = embedding.bundle(view, picture, alt, live=self._alive)
        return data, self._metadata

    def _view(self, look: Look, question: Question, found: Frame) -> Any:
        hv = holoviews()
        self._pipe = hv.streams.Pipe(data=(look, question))
        self._shape = self._shape_of(look, question)
        selectors = {name: labels_of(look.dataset, question, name) for name in question.selectors}

        def draw(data: tuple[Look, Question], at: dict[str, Any]) -> Frame:
            self._at = dict(at)
            return self._plot._frame(data[0], data[1], at)

        shown = dynamic(draw, found, self._pipe, selectors, self._at)
        made: Any = pane()
        return made(shown, backend="bokeh", linked_axes=False, widget_location="top_left").layout

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


_shown: "weakref.WeakValueDictionary[str, _Screen]" = weakref.WeakValueDictionary()
_messages: dict[str, str] = {}


def _replace_earlier(found: "_Screen") -> None:
    """Stop the pictures that earlier runs of this cell left behind: their output is gone."""
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
                earlier.stop.set()
                del _shown[key]
    _messages[cell] = message
    _shown[f"{cell} {id(found)}"] = found


def _unattended() -> bool:
    kernel = getattr(embedding._shell(), "kernel", None)
    return kernel is not None and not getattr(kernel, "_allow_stdin", True)
