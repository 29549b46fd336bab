"""The feed of every live view: which sweeps there are under some stores, and one follower for each."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mce_notebook.errors import StoreError, SweepError, UnknownSweep
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.view.follower import Follower
from mce_notebook.view.sides import shortened
from mce_notebook.view.summary import LONGEST_MESSAGE

# A folder may be copied into a store bit by bit: all of them are listed again so often (seconds).
RELIST = 5.0
# A follower nobody asked for so long gives its memory back (seconds).
IDLE = 30.0


@dataclass(frozen=True)
class Place:
    """A sweep as found on disk: what it is called on the wire, and where it is."""

    key: str
    sweep: SweepStore


class Feed:
    """What live views show of the sweeps under some stores, as plain JSON.

    Parameters
    ----------
    roots : callable
        Returns the stores (folders `experiments`) that may be shown, in order; asked again now and then.
    notebook : callable, optional
        Turns the recorded path of a notebook into what is told of it.

    Notes
    -----
    Nothing is executed, unpickled or written. Methods may be called from any thread and take from microseconds to, for
    the first look at a sweep of millions of points, seconds: never call them on an event loop.
    """

    def __init__(self, roots: Callable[[], Iterable[Path]], notebook: Callable[[str], str] = str):
        self._roots = roots
        self._notebook = notebook
        self._lock = threading.RLock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="mce-regions")
        self._followers: dict[str, Follower] = {}
        self._places: dict[str, Place] = {}
        self._records: dict[Path, tuple[object, str]] = {}
        self._times: object = None
        self._listed = 0.0

    def close(self) -> None:
        """Stop searching."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def sweeps(self) -> list[dict[str, Any]]:
        """Return a `Summary` of every sweep, the newest first."""
        found = []
        for key in self.keys():
            try:
                follower = self.follower(key)
                found.append(follower.summary())
                self._spare(follower)
            except UnknownSweep:
                # Removed meanwhile, or not declared yet.
                continue
            except Exception as error:
                # Whatever lies in one folder, the others are listed.
                place = self._places.get(key)
                found += [] if place is None else [_unreadable(place, error)]
        return sorted(found, key=lambda summary: summary["created"], reverse=True)

    def follower(self, key: str) -> Follower:
        """Return the follower of a sweep, the same one for everybody.

        Raises
        ------
        UnknownSweep
            If no store that may be shown holds it.
        """
        with self._lock:
            place = self._list().get(key)
            if place is None:
                self._followers.pop(key, None)
                raise UnknownSweep("There is no such sweep in the stores this server shows; it may have been removed.")
            follower = self._followers.get(key)
            if follower is None or follower.sweep.paths.folder != place.sweep.paths.folder:
                follower = self._followers[key] = Follower(place.sweep, key, self._executor, self._notebook)
            return follower

    def keys(self) -> list[str]:
        """Return the keys of all sweeps."""
        with self._lock:
            return list(self._list())

    def _spare(self, follower: Follower) -> None:
        if follower.ended and time.monotonic() - follower.used > IDLE:
            follower.release()

    def _list(self) -> dict[str, Place]:
        roots = list(dict.fromkeys(self._roots()))
        times = tuple((root, _time(root)) for root in roots)
        now = time.monotonic()
        if times != self._times or now - self._listed > RELIST:
            self._times, self._listed = times, now
            self._places = {place.key: place for place in self._found(roots)}
            for key in [key for key in self._followers if key not in self._places]:
                del self._followers[key]
        return self._places

    def _found(self, roots: Iterable[Path]) -> Iterator[Place]:
        records: dict[Path, tuple[object, str]] = {}
        used: set[str] = set()
        real = [Path(os.path.realpath(root)) for root in roots]
        for root in real:
            for folder in _sweep_folders(root, real):
                if folder in records:
                    continue
                kept = self._records.get(folder)
                try:
                    # It may have been removed since it was listed: no reason to show none of the others.
                    sweep = Store(root).sweep(folder.name)
                    stamp = _identity(sweep.paths.sweep_json)
                    key = kept[1] if kept is not None and kept[0] == stamp else _checked(sweep.id)
                except (SweepError, KeyError, TypeError, OSError):
                    continue
                records[folder] = (stamp, key)
                if key in used:
                    # A folder that was copied, random id and all: the first keeps it.
                    key = f"{key}~{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"
                used.add(key)
                yield Place(key, sweep)
        self._records = records


def _sweep_folders(root: Path, roots: list[Path]) -> Iterator[Path]:
    """Yield folders of sweeps directly in a store; a link may lead into another store that is shown, nowhere else."""
    try:
        names = Store(root).names()
    except StoreError:
        # A bucket that cannot be read, as with credentials that ran out, hides none of the other stores.
        return
    for name in names:
        folder = root / name
        if folder.is_symlink() and Path(os.path.realpath(folder)).parent not in roots:
            continue
        yield folder


def _checked(key: str) -> str:
    """Refuse an id that is none: it becomes part of addresses."""
    if not (key.isascii() and key.isalnum() and len(key) <= 64):
        raise UnknownSweep(f"{key[:64]!r} is no id of a sweep.")
    return key


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _identity(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _unreadable(place: Place, error: Exception) -> dict[str, Any]:
    """Tell of a sweep that cannot be read: better than not to list it."""
    folder = place.sweep.paths.folder
    names = ("pending", "running", "done", "failed", "killed", "timeout", "skipped", "stale")
    return {
        "key": place.key,
        "name": folder.name,
        "root": str(folder.parent),
        "folder": str(folder),
        "state": "stopped",
        "total": 0,
        "known": 0,
        "counts": dict.fromkeys(names, 0),
        "rate": 0.0,
        "eta": None,
        "workers": 0,
        "elapsed": 0.0,
        "cost": None,
        "message": shortened(f"It cannot be read: {error}", LONGEST_MESSAGE),
        "cluster": "",
        "notebook": "",
        "created": "",
        "actions": [],
    }
