"""Small immutable files: read, create once, replace, list. The only place besides the journal that knows POSIX.

Four verbs, because these are what an object store has as well: get, conditional put, put, list.
"""

import contextlib
import errno
import fcntl
import functools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from mce_notebook.errors import AlreadyExists, StoreError, StoreFull

Bytes = bytes | bytearray | memoryview

# Files of a new folder that are open, and synced, at the same time.
_AT_ONCE = 64

# What the operating system says when there is no room: the disk, the quota, the largest file allowed.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IOV = 512


def store_error(error: OSError, doing: str) -> StoreError:
    """Make the error a user meets of what the operating system said."""
    where = f" {error.filename}" if error.filename else ""
    said = error.strerror or str(error)
    if error.errno in NO_ROOM:
        return StoreFull(f"No room left while {doing}{where} ({said}). Free some space; what was stored is safe.")
    return StoreError(f"Failed while {doing}{where}: {said}.")


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn an OSError into the StoreError or StoreFull that says what was being done."""
    try:
        yield
    except OSError as error:
        raise store_error(error, doing) from error


def sync_data(descriptor: int) -> None:
    """Bring the bytes of a file to the disk itself.

    On macOS fsync stops at the drive's cache; F_FULLFSYNC does not (fcntl(2)).
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        fcntl.fcntl(descriptor, full)
    else:
        os.fdatasync(descriptor)


def sync_folder(path: Path) -> None:
    """Bring the entries of a folder to the disk: without it a new file may be gone after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def together(syncs: "Sequence[Callable[[], None]]") -> None:
    """Call several syncs at the same time, and return when all are done.

    One after another, each waits for a commit of the file system's journal of its own; at the same time they share
    one (nine small files on ext4: 2 ms instead of 30). The first error is raised, after all have ended.
    """
    if len(syncs) == 1:
        syncs[0]()
        return
    running = [_syncers(os.getpid()).submit(sync) for sync in syncs]
    errors = [error for one in running if (error := one.exception()) is not None]
    if errors:
        raise errors[0]


@functools.cache
def _syncers(pid: int) -> ThreadPoolExecutor:
    # One per process id: a forked copy of this process would inherit an executor without its threads.
    return ThreadPoolExecutor(8, thread_name_prefix="mce-sync")


def write_all(descriptor: int, data: Bytes) -> None:
    """Write every byte; a single `write` may take fewer."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_new(path: Path, *pieces: Bytes, durable: bool = True) -> None:
    """Make a file that must be new, of pieces one behind the other; it is removed again when it cannot be written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        writev_all(descriptor, pieces)
        if durable:
            sync_data(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def writev_all(descriptor: int, pieces: Sequence[Bytes]) -> None:
    """Write all pieces in order; `writev` takes at most IOV_MAX of them and may stop anywhere."""
    rest = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    while rest:
        done = os.writev(descriptor, rest[:_IOV])
        while rest and done >= len(rest[0]):
            done -= len(rest[0])
            del rest[0]
        if done:
            rest[0] = rest[0][done:]


class Folder(Protocol):
    """What the catalogue needs of a place; paths are those a Layout makes."""

    def read(self, path: Path) -> bytes:
        """Return the whole content; FileNotFoundError when there is none."""

    def create(self, path: Path, data: Bytes) -> None:
        """Make a file that must be new, whole and durable; AlreadyExists otherwise."""

    def replace(self, path: Path, data: Bytes, *, durable: bool = True) -> None:
        """Put new content in place of the old."""

    def names(self, path: Path) -> list[str]:
        """List a folder, sorted; empty when there is none."""

    def exists(self, path: Path) -> bool:
        """Tell whether something is there."""

    def create_folder(self, path: Path, files: Mapping[str, Bytes]) -> None:
        """Make a folder with files, all at once; AlreadyExists if it is there."""

    def move(self, source: Path, target: Path) -> None:
        """Rename a folder to a free name."""

    def remove(self, path: Path) -> None:
        """Remove a file or a folder."""

    def append(self, path: Path, data: Bytes) -> None:
        """Put a line behind a file that only this writer has; made when it is not there."""

    def refresh(self, path: Path, *, strictly: bool = False) -> None:
        """Have the files below a path show what others wrote, before they are read without asking this folder."""

    def fetch(self, path: Path) -> None:
        """Have everything below a folder here, what is large and seldom read included."""


class LocalFolder:
    """Files on this machine or on a file system mounted here."""

    def read(self, path: Path) -> bytes:
        """Whole content; FileNotFoundError is left as it is, for callers who ask whether there is one."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise store_error(error, "reading") from error

    def create(self, path: Path, data: Bytes) -> None:
        """Make a file that was not there, whole or not at all, durable on return.

        Raises
        ------
        AlreadyExists
            Somebody else made it first.
        """
        with told("writing"):
            temporary = self._write(path, data, durable=True)
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise AlreadyExists(f"{path} exists already.") from None
            except OSError as error:
                # Some file systems have no hard links; there the claim is exclusive, but not atomic with its content.
                if error.errno in NO_ROOM:
                    raise
                self._create_plainly(path, data)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(path.parent)

    def replace(self, path: Path, data: Bytes, *, durable: bool = True) -> None:
        """Put new content in place of the old; readers see one or the other."""
        with told("writing"):
            temporary = self._write(path, data, durable=durable)
            try:
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            if durable:
                sync_folder(path.parent)

    def names(self, path: Path) -> list[str]:
        """Sorted names in a folder, without temporary ones; empty when there is no such folder."""
        try:
            return sorted(name for name in os.listdir(path) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise store_error(error, "listing") from error

    def exists(self, path: Path) -> bool:
        """Tell whether something is there."""
        return path.exists()

    def create_folder(self, path: Path, files: Mapping[str, Bytes]) -> None:
        """Make a folder with files (names relative, `/` between parts), all at once; AlreadyExists if it is there."""
        with told("writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
            try:
                self._fill(temporary, files)
                self._rename_new(temporary, path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            sync_folder(path.parent)

    def move(self, source: Path, target: Path) -> None:
        """Rename a folder to a name that is free; AlreadyExists otherwise."""
        with told("moving"):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._rename_new(source, target)
            sync_folder(source.parent)
            sync_folder(target.parent)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder with all in it; nothing happens when it is not there."""
        with told("removing"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def append(self, path: Path, data: Bytes) -> None:
        """One write in append mode; a torn last line is left out by readers."""
        path.parent.mkdir(exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(data)

    def refresh(self, path: Path, *, strictly: bool = False) -> None:
        """Nothing: files show what others wrote."""

    def fetch(self, path: Path) -> None:
        """Nothing: the files are here."""

    def _write(self, path: Path, data: Bytes, *, durable: bool) -> Path:
        # Two threads of one process may replace the same file, so the name is random, not made of the pid.
        temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(8)}"
        try:
            write_new(temporary, data, durable=durable)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(temporary, data, durable=durable)
        return temporary

    def _create_plainly(self, path: Path, data: Bytes) -> None:
        try:
            write_new(path, data)
        except FileExistsError:
            raise AlreadyExists(f"{path} exists already.") from None

    def _fill(self, folder: Path, files: Mapping[str, Bytes]) -> None:
        folder.mkdir(mode=0o755)
        listed = list(files.items())
        for start in range(0, len(listed), _AT_ONCE):
            self._write_new(folder, listed[start : start + _AT_ONCE])
        inner = {(folder / name).parent for name in files}
        # Every folder on the way to a file has an entry to keep.
        inner |= {above for one in inner for above in one.parents if above.is_relative_to(folder)} | {folder}
        together([functools.partial(sync_folder, one) for one in inner])

    @staticmethod
    def _write_new(folder: Path, files: "Sequence[tuple[str, Bytes]]") -> None:
        """Write files of a folder nobody sees yet, and sync them together."""
        with contextlib.ExitStack() as opened:
            descriptors = []
            for name, data in files:
                # The folder is new and holds no links, so that names alone tell where they lead.
                if not name or name.startswith("/") or ".." in name.split("/"):
                    raise StoreError(f"{name!r} leads out of the folder it belongs to.")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                opened.callback(os.close, descriptor)
                write_all(descriptor, data)
                descriptors.append(descriptor)
            together([functools.partial(sync_data, descriptor) for descriptor in descriptors])

    @staticmethod
    def _rename_new(source: Path, target: Path) -> None:
        # rename(2) replaces an empty folder silently, so that case is looked for; a full one it refuses.
        if target.exists():
            raise AlreadyExists(f"{target} exists already.")
        try:
            source.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise AlreadyExists(f"{target} exists already.") from None
            raise
