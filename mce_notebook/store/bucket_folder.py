"""A store in a bucket, as the verbs of a folder: what is written goes to the bucket first, and is read from the mirror.

Nothing in a bucket can be renamed. So a new sweep is claimed by a conditional put of its `sweep.json`, and is declared
by the put of its first declaration, after everything that refers to; whoever is killed in between leaves a sweep
without declaration, which the next run of the cell completes.
"""

import contextlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from mce_notebook.errors import AlreadyExists, StoreError, StoreUnreachable
from mce_notebook.store.bucket import Bucket
from mce_notebook.store.folder import Bytes, LocalFolder
from mce_notebook.store.mirror import Mirror
from mce_notebook.store.parts import replace

log = logging.getLogger(__name__)

# A heartbeat is a request that is paid for; people who look are content with this (seconds).
BEAT_SECONDS = 5.0
_MARK = "sweep.json"


class BucketFolder:
    """The store at an address, with a mirror at `root`.

    Parameters
    ----------
    root : Path
        Root of the mirror; paths are below it.
    address : str
    """

    def __init__(self, root: Path, address: str):
        self.root = root
        self.bucket = Bucket(address)
        self._local = LocalFolder()
        self._lock = threading.Lock()
        self._mirrors: dict[str, Mirror] = {}
        # Heartbeats, by key: when they were put, and the state they told.
        self._told: dict[str, tuple[float, object]] = {}

    # Reading

    def read(self, path: Path) -> bytes:
        """Whole content, as fresh as a look a moment ago; FileNotFoundError if there is none."""
        if self._mirror(path) is None:
            return self.bucket.get(self._key(path))
        self.refresh(path)
        return self._local.read(path)

    def names(self, path: Path) -> list[str]:
        """Sorted names in a folder, empty when there is none."""
        if path == self.root:
            return self._sweeps()
        if self._mirror(path) is None or path.parent == self.root:
            return [name for name in self.bucket.names(self._key(path)) if name and not name.startswith(".")]
        self.refresh(path)
        return self._local.names(path)

    def exists(self, path: Path) -> bool:
        """Tell whether something is there."""
        mirror = self._mirror(path)
        if mirror is None:
            return bool(self.bucket.entries(self._key(path)))
        if path == mirror.paths.sweep_json and not path.exists():
            # Whether a name is taken is asked of all names there are, and is no reason to read what they hold.
            return self.bucket.exists(self._key(path))
        self.refresh(path)
        return path.exists()

    def refresh(self, path: Path, *, strictly: bool = False) -> None:
        """Bring what is new of the sweep that a path is in, at most once a second unless `strictly`."""
        mirror = self._mirror(path)
        if mirror is not None:
            mirror.refresh(strictly=strictly)

    def fetch(self, path: Path) -> None:
        """Bring everything below a folder of a sweep."""
        mirror = self._mirror(path)
        if mirror is not None:
            mirror.fetch(path)

    # Writing

    def create(self, path: Path, data: Bytes) -> None:
        """Make an object that must be new; AlreadyExists if another writer was first, whose object is here then."""
        try:
            self.bucket.create(self._key(path), data)
        except AlreadyExists:
            self.refresh(path, strictly=True)
            raise
        self._keep(path, data)

    def replace(self, path: Path, data: Bytes, *, durable: bool = True) -> None:
        """Put an object in place of the old one; heartbeats, which are not durable, now and then only."""
        self._keep(path, data)
        if durable:
            self.bucket.put(self._key(path), data)
            return
        state, (last, before) = _state(data), self._told.get(self._key(path), (0.0, None))
        if state == before and time.monotonic() - last < BEAT_SECONDS:
            return
        self._told[self._key(path)] = time.monotonic(), state
        self.bucket.put(self._key(path), data)

    def append(self, path: Path, data: Bytes) -> None:
        """Put a line behind a file that only this writer has: the whole of it again, as it is small."""
        self._local.append(path, data)
        self.bucket.put(self._key(path), path.read_bytes())

    def create_folder(self, path: Path, files: Mapping[str, Bytes]) -> None:
        """Make a folder with files, in an order in which nobody is misled who sees only the first of them."""
        for name in files:
            if not name or name.startswith("/") or ".." in name.split("/"):
                raise StoreError(f"{name!r} leads out of the folder it belongs to.")
        if _MARK in files:
            self.create(path / _MARK, files[_MARK])
        elif self.bucket.names(self._key(path)):
            raise AlreadyExists(f"{self.bucket.address}/{self._key(path)} exists already.")
        rest = [name for name in files if name != _MARK]
        last = [name for name in rest if name.startswith(("declarations/0", "intents/"))]
        self.bucket.together([self._put(path / name, files[name]) for name in rest if name not in last])
        for name in sorted(last):
            self.create(path / name, files[name])

    def _put(self, path: Path, data: Bytes):  # type: ignore[no-untyped-def]
        def put() -> None:
            self.bucket.put(self._key(path), data)
            self._keep(path, data)

        return put

    def move(self, source: Path, target: Path) -> None:
        """Put a draft made here into the bucket; or copy a folder of it to a free name and delete the old one."""
        if source.name.startswith("."):
            self._publish(source, target)
            return
        entries = [entry.key for entry in self.bucket.entries(self._key(source))]
        if not entries:
            raise FileNotFoundError(self._key(source))
        # What is being deleted is put under `.tmp` elsewhere; here it would only be copied to be deleted.
        kept = self.root / ".tmp" not in target.parents
        if kept and self.bucket.entries(self._key(target)):
            raise AlreadyExists(f"{self.bucket.address}/{self._key(target)} exists already.")
        # What makes it a sweep comes last, and goes first.
        entries.sort(key=lambda key: (key == self._key(source / _MARK), key))
        if kept:
            copies = [(key, self._key(target) + key.removeprefix(self._key(source))) for key in entries]
            self.bucket.together([lambda one=one: self.bucket.copy(*one) for one in copies[:-1]])  # type: ignore[misc]
            self.bucket.copy(*copies[-1])
        self.bucket.delete(entries[-1:])
        self._drop(source)
        self.bucket.delete(entries[:-1])

    def remove(self, path: Path) -> None:
        """Remove an object, or all below it; nothing happens when there is none."""
        key = self._key(path)
        self.bucket.delete([key, *(entry.key for entry in self.bucket.entries(key))])
        self._drop(path)

    # Inside

    def _sweeps(self) -> list[str]:
        try:
            found = self.bucket.hasty.names("")
        except StoreUnreachable as error:
            known = self._local.names(self.root)
            if not known:
                raise
            log.warning("Only what is known here is listed: %s", error)
            return known
        return [name for name in found if name and not name.startswith(".")]

    def _publish(self, source: Path, target: Path) -> None:
        files = sorted(path for path in source.rglob("*") if path.is_file())
        # The files at the top say what the others are, so that they come last.
        files.sort(key=lambda path: path.parent == source)
        keys = {path: self._key(target / path.relative_to(source)) for path in files}
        top = [path for path in files if path.parent == source]
        if all(self.bucket.exists(keys[path]) for path in top):
            raise AlreadyExists(f"{self.bucket.address}/{self._key(target)} exists already.")
        puts = [lambda path=path: self.bucket.put(keys[path], path.read_bytes()) for path in files if path not in top]
        self.bucket.together(puts)
        for path in top:
            self.bucket.put(keys[path], path.read_bytes())
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(StoreError):
            self._local.move(source, target)

    def _drop(self, path: Path) -> None:
        mirror = self._mirror(path)
        if mirror is not None and path == mirror.paths.folder:
            mirror.forget()
        else:
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink(missing_ok=True)

    def _keep(self, path: Path, data: Bytes) -> None:
        """Write to the mirror what the bucket has now; if it cannot be, the next look brings it."""
        if (mirror := self._mirror(path)) is not None:
            mirror.stir()
        try:
            replace(path, data)
        except OSError as error:
            log.warning("%s is not kept in the mirror: %s", path, error)

    def _key(self, path: Path) -> str:
        inner = path.relative_to(self.root).as_posix()
        return "" if inner == "." else inner

    def _mirror(self, path: Path) -> Mirror | None:
        """Return the mirror of the sweep that a path is in; None for the root, and what is not of a sweep."""
        parts = path.relative_to(self.root).parts
        if not parts or parts[0].startswith("."):
            return None
        with self._lock:
            if parts[0] not in self._mirrors:
                self._mirrors[parts[0]] = Mirror(self.bucket, self.root, parts[0])
            return self._mirrors[parts[0]]


def _state(data: Bytes) -> object:
    with contextlib.suppress(ValueError, AttributeError):
        return json.loads(bytes(data)).get("state")
    return None
