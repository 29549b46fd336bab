"""The writer's side of the log: append, make durable, acknowledge.

Everything given to one `append` goes out in one `writev` and one `fdatasync` for each open segment; when it returns,
kill -9, a power cut or a full disk cannot take it back. Files are only ever appended to, by the epoch that made them.
After an error a segment gets no more bytes: what stands behind its committed length is unknown, so the next append
opens a new one, and a marker states the length that holds.
"""

import contextlib
import errno
import functools
import json
import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import AlreadyExists, StoreError
from mce_notebook.store.folder import (
    NO_ROOM,
    Folder,
    LocalFolder,
    store_error,
    sync_data,
    sync_folder,
    together,
    told,
    write_all,
    writev_all,
)
from mce_notebook.store.frames import Frame
from mce_notebook.store.layout import SweepLayout
from mce_notebook.store.places import folder_of
from mce_notebook.store.sidecar import Entry, SidecarWriter

if TYPE_CHECKING:
    from mce_notebook.store.bucket_journal import BucketJournal

ROLL = 64 << 20
RESERVE = 1 << 20
# Each open segment is one file descriptor; blocks of many shapes must not use them up.
OPEN_SEGMENTS = 16


def claim_epoch(paths: SweepLayout, host_info: dict[str, Any], folder: Folder | None = None) -> int:
    """Claim the next epoch for a writer: its files are its own from now on.

    Parameters
    ----------
    paths : SweepLayout
    host_info : dict
        Host name, pid, boot id, start time; kept in the claim.
    folder : Folder, optional
        Where the claims are; told from the paths by default.
    """
    folder = folder or folder_of(paths.folder)
    folder.refresh(paths.folder, strictly=True)
    # Something random tells a claim from any other, that of a sweep that had the name before included.
    data = json.dumps({**host_info, "writer": secrets.token_hex(8)}).encode()
    while True:
        numbers = [int(name) for name in folder.names(paths.epochs) if name.isdigit()]
        number = max(numbers, default=0) + 1
        try:
            folder.create(paths.epoch(number), data)
        except AlreadyExists:
            continue
        return number


def open_journal(paths: SweepLayout, epoch: int, *, roll: int = ROLL) -> "Journal | BucketJournal":
    """Return what appends to the log of an epoch, to files or to a bucket; as `Journal`."""
    folder = folder_of(paths.folder)
    if isinstance(folder, LocalFolder):
        return Journal(paths, epoch, roll=roll)
    from mce_notebook.store.bucket_folder import BucketFolder
    from mce_notebook.store.bucket_journal import BucketJournal

    assert isinstance(folder, BucketFolder)
    return BucketJournal(paths, epoch, folder, roll=roll)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


@dataclass
class _Segment:
    """An open file of the log; `length` is what is committed."""

    number: int
    descriptor: int
    length: int = 0
    frames: int = 0
    waiting: list[Frame] = field(default_factory=list)


class Journal:
    """Appends frames to the log of one epoch.

    Parameters
    ----------
    paths : SweepLayout
    epoch : int
        Claimed with `claim_epoch`.
    roll : int
        Bytes after which a segment is closed.
    """

    def __init__(self, paths: SweepLayout, epoch: int, *, roll: int = ROLL):
        self.paths = paths
        self.epoch = epoch
        self.roll = roll
        self._folder = LocalFolder()
        self._lock = threading.Lock()
        self._open: dict[bytes, _Segment] = {}
        self._next = 0
        self._unmarked: dict[int, tuple[int, int]] = {}
        self._closed = False
        self._sidecar = SidecarWriter(paths.coverage(epoch))
        with told("opening the log"):
            paths.log_epoch(epoch).mkdir(parents=True, exist_ok=True)
            sync_folder(paths.log)
            self._home = _identity(paths.log_epoch(epoch))
            self._make_reserve()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def append(self, frames: Sequence[Frame]) -> None:
        """Make frames durable; they are acknowledged when this returns.

        Raises
        ------
        StoreFull
            No room. None of the frames may be taken as stored; give all of them again when there is room.
        StoreError
            Another error of the disk, with the same meaning; or the journal is closed.
        """
        with self._lock:
            if self._closed:
                raise StoreError(f"The journal of epoch {self.epoch} is closed.")
            if not frames:
                return
            self._mark_closed()
            touched = self._sort(frames)
            try:
                fresh = [self._write(head, segment) for head, segment in touched.items()]
                syncs = [functools.partial(sync_data, segment.descriptor) for segment in touched.values()]
                if any(fresh):
                    syncs.append(functools.partial(sync_folder, self.paths.log_epoch(self.epoch)))
                together(syncs)
            except OSError as error:
                self._abandon(touched, error)
                raise store_error(error, "writing outcomes") from error
            self._commit(touched)

    def close(self) -> None:
        """Close every segment with its length, and the epoch; a later `append` is refused."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for head in list(self._open):
                self._retire(head)
            self._sidecar.close()
            if not self._here():
                return
            self.paths.reserve(self.epoch).unlink(missing_ok=True)
            self._mark_closed()
            if not self._unmarked:
                with contextlib.suppress(StoreError, AlreadyExists):
                    # Only spares readers a look for new segments.
                    data = json.dumps({"segments": self._next}).encode()
                    self._folder.create(self.paths.epoch_closed(self.epoch), data)

    def _here(self) -> bool:
        """Whether the folder of this epoch is where it was.

        A sweep may be moved or deleted at any time, and its name used at once by another that has an epoch of the
        same number: open files went along, but a file made by its path would land in that one.
        """
        try:
            return _identity(self.paths.log_epoch(self.epoch)) == self._home
        except OSError:
            return False

    def _sort(self, frames: Sequence[Frame]) -> dict[bytes, _Segment]:
        touched: dict[bytes, _Segment] = {}
        for frame in frames:
            segment = touched.get(frame.head)
            if segment is None:
                segment = self._open.get(frame.head) or _Segment(-1, -1)
                segment.waiting = []
                touched[frame.head] = segment
            segment.waiting.append(frame)
        return touched

    def _write(self, head: bytes, segment: _Segment) -> bool:
        """Write what waits for a segment; True if the segment is new."""
        fresh = segment.descriptor < 0
        pieces: list[bytes] = [frame.body for frame in segment.waiting]
        if fresh:
            self._start(head, segment)
            pieces.insert(0, head)
        writev_all(segment.descriptor, pieces)
        return fresh

    def _start(self, head: bytes, segment: _Segment) -> None:
        while len(self._open) >= OPEN_SEGMENTS:
            idle = [other for other in self._open if not self._open[other].waiting]
            if not idle:
                break
            self._retire(idle[0])
        segment.number = self._next
        path = self.paths.segment(self.epoch, segment.number)
        if not self._here():
            raise FileNotFoundError(errno.ENOENT, "the folder of the sweep was moved or deleted", str(path))
        segment.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        # Taken even when what follows fails: a number is never used twice.
        self._next += 1
        self._open[head] = segment

    def _commit(self, touched: dict[bytes, _Segment]) -> None:
        entries = []
        for head, segment in touched.items():
            if not segment.length:
                segment.length = len(head)
            for frame in segment.waiting:
                start = segment.length
                segment.length += len(frame.body)
                segment.frames += 1
                entries.append(Entry(segment.number, start, segment.length, frame.cover))
            segment.waiting = []
            if segment.length >= self.roll:
                self._retire(head)
        self._sidecar.add(entries)
        self._make_reserve()

    def _abandon(self, touched: dict[bytes, _Segment], error: OSError) -> None:
        if error.errno in NO_ROOM:
            with contextlib.suppress(OSError):
                self.paths.reserve(self.epoch).unlink(missing_ok=True)
        for head, segment in touched.items():
            segment.waiting = []
            if segment.descriptor >= 0:
                self._retire(head)
        self._mark_closed()

    def _retire(self, head: bytes) -> None:
        segment = self._open.pop(head)
        self._unmarked[segment.number] = (segment.length, segment.frames)
        with contextlib.suppress(OSError):
            # Everything that counts was synced before; close has nothing to add.
            os.close(segment.descriptor)

    def _mark_closed(self) -> None:
        if self._unmarked and not self._here():
            return
        for number, (length, count) in list(self._unmarked.items()):
            data = json.dumps({"length": length, "frames": count}).encode()
            try:
                self._folder.create(self.paths.closed(self.epoch, number), data)
            except AlreadyExists:
                pass
            except StoreError:
                # Tried again with the next append; until then readers take the segment for open and wait at its tail.
                return
            del self._unmarked[number]

    def _make_reserve(self) -> None:
        path = self.paths.reserve(self.epoch)
        if path.exists() or not self._here():
            return
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, RESERVE)
                else:
                    write_all(descriptor, bytes(RESERVE))
            finally:
                os.close(descriptor)
        except OSError:
            # A disk that has no room for a reserve may still have some for outcomes.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
