"""The live view as a widget, where our extension is absent (VS Code, Colab): the same component, fed by the kernel."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from mce_notebook.errors import SweepError, UnknownSweep, ViewError
from mce_notebook.frontends.widget_answers import respond
from mce_notebook.store.catalog import Store
from mce_notebook.view.follower import Follower
from mce_notebook.view.heatmap import Request

if TYPE_CHECKING:
    from mce_notebook.handle import Sweep

MODULE = Path(__file__).parent / "static" / "widget.js"
# At most five looks a second and a tenth of one core of the kernel; nothing changes by itself once a sweep has ended.
INTERVAL = 0.2
SHARE = 0.1
RESTING = 2.0


class SweepWidget(anywidget.AnyWidget):
    """One sweep, live.

    Parameters
    ----------
    sweep : Sweep

    Raises
    ------
    ViewError
        If this installation has no JavaScript of ours.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    view = traitlets.Dict(allow_none=True).tag(sync=True)
    request = traitlets.Dict(allow_none=True).tag(sync=True)
    # Set by the component when it is taken off the page and put back; nothing is read or sent meanwhile.
    displayed = traitlets.Bool(False).tag(sync=True)

    def __init__(self, sweep: "Sweep"):
        store = Store(sweep.folder.parent).sweep(sweep.name)
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="mce-widget")
        self._follower = Follower(store, store.id, self._executor)
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__(_esm=_module(), view=self._follower.view(Request()))
        self.on_msg(self._asked)
        self.observe(lambda _: self._wake.set(), ["request", "displayed"])

    def _repr_mimebundle_(self, **options: Any) -> Any:
        self.displayed = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._feed, name="mce-widget", daemon=True)
            self._thread.start()
        self._wake.set()
        return super()._repr_mimebundle_(**options)

    def close(self) -> None:
        """Stop feeding it and take it off the page."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        self._executor.shutdown(wait=False, cancel_futures=True)
        super().close()

    # ---- feeding ----

    def _feed(self) -> None:
        sent: tuple[int, Any] | None = None
        while not self._closed.is_set():
            begun, start = time.monotonic(), time.thread_time()
            if self.displayed:
                try:
                    sent = self._send_view(sent)
                except UnknownSweep as error:
                    self.view = {**(self.view or {}), "message": str(error), "actions": []}
                    return
                except (SweepError, OSError) as error:
                    self.view = {**(self.view or {}), "problems": [str(error)]}
            spent = time.thread_time() - start
            seconds = RESTING if self._follower.ended else min(max(INTERVAL, spent / SHARE), RESTING)
            self._wake.wait(seconds if self.displayed else None)
            self._wake.clear()
            # A message may have woken us, and no page draws more than five views a second.
            self._closed.wait(max(0.0, INTERVAL - (time.monotonic() - begun)))

    def _send_view(self, sent: tuple[int, Any] | None) -> tuple[int, Any]:
        asked = dict(self.request or {})
        now = (self._follower.look(), asked)
        if now != sent:
            try:
                request = Request.of(asked.get("x"), asked.get("y"), asked.get("at"))
                self.view = self._follower.view(request)
            except ViewError:
                # The grid has other axes now.
                self.view = self._follower.view(Request())
        return now

    # ---- answering ----

    def _asked(self, _: Any, content: Any, __: Any) -> None:
        # Off the thread of the cells, so that a slow answer does not hold one up.
        if isinstance(content, dict) and not self._closed.is_set():
            self._executor.submit(self._answer, content)

    def _answer(self, content: dict[str, Any]) -> None:
        status, body = respond(self._follower, content.get("method"), content.get("path"), content.get("body"))
        self.send({"id": content.get("id"), "status": status, "body": body})
        self._wake.set()


_SweepWidget = SweepWidget


def _module() -> str:
    try:
        return MODULE.read_text(encoding="utf-8")
    except OSError as error:
        raise ViewError(
            "This installation of mce_notebook has no widget: its JavaScript was not built. Install a wheel, or run "
            "`jlpm install && jlpm build` in labextension/; `.progress` tells the same as text."
        ) from error
