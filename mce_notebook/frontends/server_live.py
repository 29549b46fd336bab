"""What the handlers of the server share: the feed, and one task per watched sweep that tells all its watchers."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mce_notebook.errors import SweepError, UnknownSweep, ViewError
from mce_notebook.frontends.server_clusters import clusters
from mce_notebook.store.layout import FOLDER, find_root
from mce_notebook.store.roots import remembered_roots
from mce_notebook.view.heatmap import Request
from mce_notebook.view.live import Feed

# At most five looks a second at a sweep, and no more than a quarter of the time spent on them.
INTERVAL = 0.2
SHARE = 0.25
LONGEST = 2.0
LIST_INTERVAL = 0.5
# Stores below the folder of the server are searched so often (seconds), so deep, in so many folders.
SEARCH_SECONDS = 60.0
SEARCH_DEPTH = 3
SEARCH_FOLDERS = 2000
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "lib", "dist", "build"}
Answer = TypeVar("Answer")


class Listener(Protocol):
    """Whoever gets messages: a websocket."""

    def offer(self, slot: str, text: str) -> None:
        """Send a message; one for the same slot that was not sent yet is dropped for it."""


@dataclass(eq=False)
class Watch:
    """One view somebody has open.

    Parameters
    ----------
    listener : Listener
    key : str
        Of the sweep.
    id : str or None
        What the client calls it.
    request : Request
        Which heatmap.
    """

    listener: Listener
    key: str
    id: str | None
    request: Request
    sent: int = -1
    problem: str = ""

    def tell(self, kind: str, **more: Any) -> None:
        """Send something that is no view."""
        self.listener.offer(self.slot, json.dumps({"type": kind, **self.address, **more}))

    def show(self, view: str) -> None:
        """Send a view that is JSON already."""
        head = json.dumps({"type": "view", **self.address})
        self.listener.offer(self.slot, f'{head[:-1]}, "view": {view}}}')

    @property
    def slot(self) -> str:
        """Where its messages replace each other."""
        return f"view {self.key if self.id is None else self.id}"

    @property
    def address(self) -> dict[str, str]:
        """Which view a message is for."""
        return {"key": self.key} if self.id is None else {"key": self.key, "id": self.id}


class Live:
    """The live side of one server.

    Parameters
    ----------
    folder : Path
        What the server serves.
    log : Logger
    """

    def __init__(self, folder: Path, log: Any):
        self.folder = folder
        self.log = log
        self.feed = Feed(self.roots, self.notebook)
        self._readers = ThreadPoolExecutor(8, thread_name_prefix="mce-view")
        self._actors = ThreadPoolExecutor(4, thread_name_prefix="mce-act")
        self._searched: tuple[float, list[Path]] = (-1.0, [])
        self._watches: dict[str, list[Watch]] = {}
        self._bells: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listeners: dict[Listener, str] = {}

    async def close(self) -> None:
        """Stop telling anybody."""
        self._watches.clear()
        self._listeners.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.feed.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._actors.shutdown(wait=False, cancel_futures=True)

    async def read(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call what reads files or computes, off the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def do(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call what may wait for other processes, where it keeps nobody from reading."""
        return await asyncio.get_running_loop().run_in_executor(self._actors, function, *arguments)

    # ---- which stores ----

    def roots(self) -> list[Path]:
        """Return the stores that are shown: those this user opened, and those at, above or below our folder."""
        found, until = self._searched[1], self._searched[0]
        now = time.monotonic()
        if now >= until:
            found = _below(self.folder)
            # A folder on a slow disk is not searched all the time.
            self._searched = (now + max(SEARCH_SECONDS, 50 * (time.monotonic() - now)), found)
        return [*remembered_roots(), find_root(self.folder), *found]

    def notebook(self, path: str) -> str:
        """Return the path of a notebook as the contents API names it, empty where it cannot."""
        if not path:
            return ""
        with contextlib.suppress(OSError, ValueError):
            found = Path(os.path.realpath(self.folder / path)).relative_to(os.path.realpath(self.folder))
            return found.as_posix()
        return ""

    # ---- views ----

    def watch(self, watch: Watch) -> None:
        """Tell a watcher of its sweep from now on, the first time at once."""
        self._watches.setdefault(watch.key, []).append(watch)
        self._start(watch.key, lambda: self._follow(watch.key))

    def unwatch(self, watch: Watch) -> None:
        """Stop telling it."""
        watches = self._watches.get(watch.key, [])
        if watch in watches:
            watches.remove(watch)

    def poke(self, key: str) -> None:
        """Look at a sweep at once, because something was done to it."""
        for name in (key, ""):
            if name in self._bells:
                self._bells[name].set()

    def _start(self, name: str, follow: Callable[[], Any]) -> None:
        self._bells.setdefault(name, asyncio.Event()).set()
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._until_nobody(name, follow))

    async def _until_nobody(self, name: str, follow: Callable[[], Any]) -> None:
        try:
            await follow()
        finally:
            # At once, not when the loop next gets to it: who comes in between needs a new task.
            self._tasks.pop(name, None)
            self._bells.pop(name, None)

    async def _rest(self, name: str, seconds: float) -> None:
        bell = self._bells[name]
        # Not even a client that asks all the time makes us look all the time.
        await asyncio.sleep(min(seconds, 0.05))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(bell.wait(), max(0.0, seconds - 0.05))
        bell.clear()

    async def _follow(self, key: str) -> None:
        while self._watches.get(key):
            start = time.monotonic()
            try:
                await self._tell(key)
            except UnknownSweep as error:
                for watch in self._watches.pop(key, []):
                    watch.tell("gone", message=str(error))
                break
            except (SweepError, OSError) as error:
                self._complain(key, str(error))
            except Exception:
                self.log.exception("mce_notebook: a view of %s failed", key)
                self._complain(key, "This view failed inside the server; its log says why.")
            spent = time.monotonic() - start
            await self._rest(key, min(max(INTERVAL, spent / SHARE), LONGEST))
        self._watches.pop(key, None)

    async def _tell(self, key: str) -> None:
        follower, stamp = await self.read(self._look, key)
        due = [watch for watch in self._watches.get(key, ()) if watch.sent != stamp]
        for request in dict.fromkeys(watch.request for watch in due):
            view, problem = await self.read(_rendered, follower, request)
            for watch in due:
                if watch.request == request:
                    watch.sent = stamp
                    if problem and problem != watch.problem:
                        watch.tell("error", message=problem)
                    watch.problem = problem
                    watch.show(view)

    def _look(self, key: str) -> tuple[Any, int]:
        follower = self.feed.follower(key)
        return follower, follower.look()

    def _complain(self, key: str, message: str) -> None:
        for watch in self._watches.get(key, ()):
            if watch.problem != message:
                watch.problem = message
                watch.tell("error", message=message)
            # What is shown is told anew once it can be: the page still shows the error.
            watch.sent = -1

    # ---- the list ----

    def listing(self) -> str:
        """Return all sweeps and clusters, as JSON."""
        return dumped({"sweeps": self.feed.sweeps(), "clusters": clusters()})

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener of the list from now on."""
        self._listeners[listener] = ""
        self._start("", self._follow_list)

    def unsubscribe(self, listener: Listener) -> None:
        """Stop telling it."""
        self._listeners.pop(listener, None)

    async def _follow_list(self) -> None:
        while self._listeners:
            start = time.monotonic()
            try:
                text = await self.read(self.listing)
                for listener, sent in list(self._listeners.items()):
                    if sent != text and listener in self._listeners:
                        self._listeners[listener] = text
                        listener.offer("list", f'{{"type": "list", {text[1:]}')
            except Exception:
                self.log.exception("mce_notebook: the list of sweeps failed")
            spent = time.monotonic() - start
            await self._rest("", min(max(LIST_INTERVAL, spent / SHARE), LONGEST))


def dumped(answer: Any) -> str:
    """Return an answer as JSON that every parser takes; lone surrogates are escaped."""
    return json.dumps(answer, ensure_ascii=True, allow_nan=False)


def _rendered(follower: Any, request: Request) -> tuple[str, str]:
    """Return a view as JSON; with other axes, and why, where the request fits the grid no more."""
    try:
        return dumped(follower.view(request)), ""
    except ViewError as error:
        return dumped(follower.view(Request())), str(error)


def _below(folder: Path) -> list[Path]:
    """Find stores in and below a folder."""
    found: list[Path] = []
    level, seen = [folder], 0
    for _ in range(SEARCH_DEPTH):
        deeper: list[Path] = []
        for here in level:
            seen += 1
            if seen > SEARCH_FOLDERS:
                return found
            for child in _folders(here):
                (found if child.name == FOLDER else deeper).append(child)
        level = deeper
    return found


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and entry.name not in _SKIPPED
            ]
    except OSError:
        return []
