"""The websocket of live views: clients say what they watch, the server tells them when it changes."""

import asyncio
import json
from typing import Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import ensure_async
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from mce_notebook.errors import ViewError
from mce_notebook.frontends.server_handlers import RESOURCE
from mce_notebook.frontends.server_live import Live, Watch
from mce_notebook.view.heatmap import Request

LONGEST_MESSAGE = 1 << 16
# Views one page may have open.
MOST_WATCHES = 256


class LiveSocket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """`api/live`."""

    auth_resource = RESOURCE

    @ws_authenticated
    @authorized(action="read")  # type: ignore[untyped-decorator]
    async def get(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Open the socket for a user who may read."""
        result: Any = super().get(*args, **kwargs)
        await ensure_async(result)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Begin with nothing watched."""
        super().open(*args, **kwargs)
        self._live: Live = self.settings["mce_notebook"]
        self._watches: dict[str, Watch] = {}
        self._unsent: dict[str, str] = {}
        self._bell = asyncio.Event()
        self._sender = asyncio.create_task(self._send())

    def on_close(self) -> None:
        """Forget what was watched."""
        if not hasattr(self, "_watches"):
            return
        for watch in self._watches.values():
            self._live.unwatch(watch)
        self._watches.clear()
        self._live.unsubscribe(self)
        self._sender.cancel()

    def get_compression_options(self) -> dict[str, Any]:
        """Compress: lists and labels are repetitive."""
        return {"compression_level": 1}

    # ---- what clients say ----

    def on_message(self, message: str | bytes) -> None:
        """Obey one message; a malformed one is answered and changes nothing."""
        try:
            self._obey(_parsed(message))
        except ViewError as error:
            self.offer("error", json.dumps({"type": "error", "message": str(error)}))

    def _obey(self, said: dict[str, Any]) -> None:
        kind = said.get("type")
        if kind == "list":
            self._live.subscribe(self)
        elif kind == "unlist":
            self._live.unsubscribe(self)
        elif kind == "watch":
            self._watch(said)
        elif kind == "unwatch":
            watch = self._watches.pop(_name(said), None)
            if watch is not None:
                self._live.unwatch(watch)
                self._unsent.pop(watch.slot, None)
        else:
            raise ViewError("A message has the type watch, unwatch, list or unlist.")

    def _watch(self, said: dict[str, Any]) -> None:
        name = _name(said)
        request = Request.of(said.get("x"), said.get("y"), said.get("at"))
        before = self._watches.pop(name, None)
        if before is not None:
            self._live.unwatch(before)
        if len(self._watches) >= MOST_WATCHES:
            raise ViewError(f"At most {MOST_WATCHES} views can be watched over one socket.")
        identity = said.get("id")
        watch = self._watches[name] = Watch(self, said["key"], identity if isinstance(identity, str) else None, request)
        self._live.watch(watch)

    # ---- what they hear ----

    def offer(self, slot: str, text: str) -> None:
        """Send a message; one for the same slot that was not sent yet is dropped for it."""
        self._unsent[slot] = text
        self._bell.set()

    async def _send(self) -> None:
        try:
            while True:
                await self._bell.wait()
                self._bell.clear()
                while self._unsent:
                    slot = next(iter(self._unsent))
                    # Waits until it is out: a slow client gets fewer messages, never a queue of old ones.
                    await self.write_message(self._unsent.pop(slot))
        except WebSocketClosedError:
            # `on_close` cleans up.
            return


def _parsed(message: str | bytes) -> dict[str, Any]:
    if not isinstance(message, str) or len(message) > LONGEST_MESSAGE:
        raise ViewError(f"A message is JSON text of at most {LONGEST_MESSAGE // 1024} kB.")
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        raise ViewError("A message is JSON text.") from None
    if not isinstance(said, dict):
        raise ViewError('A message is a JSON object, such as {"type": "list"}.')
    return said


def _name(said: dict[str, Any]) -> str:
    """Return what a view is called on its socket: its id, else the key of its sweep."""
    key, name = said.get("key"), said.get("id")
    if not isinstance(key, str) or not 0 < len(key) <= 100:
        raise ViewError("`key` is the key of a sweep, as `api/sweeps` lists it.")
    if name is not None and not (isinstance(name, str) and len(name) <= 100):
        raise ViewError("`id` is a short text.")
    return key if name is None else f"id {name}"
