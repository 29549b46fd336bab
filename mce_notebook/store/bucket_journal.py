"""The writer's side of the log in a bucket: a commit is one object, acknowledged once its put was answered.

The frames are those of the log in a folder, and segments have the same numbers, lengths and markers. What arrives while
a put is under way, or within a second of the last one, goes into the next.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mce_notebook.errors import StoreError, StoreUnreachable
from mce_notebook.store.artifacts import Artifacts
from mce_notebook.store.frames import Frame
from mce_notebook.store.layout import SweepLayout
from mce_notebook.store.mirror import keep_place, next_part
from mce_notebook.store.parts import Part, Piece, apply, closed_marker, key_of, replace
from mce_notebook.store.sidecar import Entry, SidecarWriter

if TYPE_CHECKING:
    from mce_notebook.store.bucket_folder import BucketFolder

log = logging.getLogger(__name__)

ROLL = 64 << 20
# Puts are paid for: no more than one in this time (seconds), unless so many bytes wait.
COMMIT_SECONDS = 1.0
COMMIT_BYTES = 4 << 20
# A server that does not answer is asked again after a moment, for so long (seconds); then the sweep pauses.
AGAIN_SECONDS = 2.0
PATIENCE = 300.0
# After this many commits all segments are closed and put whole, so that a listing stays short.
MERGE = 256
OPEN_SEGMENTS = 16


@dataclass
class _Segment:
    """A segment that grows; `length` is what is committed, `last` the part with its last piece."""

    number: int
    length: int = 0
    frames: int = 0
    last: int = -1
    waiting: list[Frame] = field(default_factory=list)


class BucketJournal:
    """Appends frames to the log of one epoch in a bucket; as `Journal` does to files.

    Parameters
    ----------
    paths : SweepLayout
        In the mirror.
    epoch : int
        Claimed with `claim_epoch`.
    folder : BucketFolder
    roll : int
        Bytes after which a segment is closed.
    """

    def __init__(self, paths: SweepLayout, epoch: int, folder: "BucketFolder", *, roll: int = ROLL):
        self.paths = paths
        self.epoch = epoch
        self.roll = roll
        self._folder = folder
        self._bucket = folder.bucket
        self._claim = folder.read(paths.epoch(epoch))
        self._writer = str(json.loads(self._claim)["writer"])
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._open: dict[bytes, _Segment] = {}
        self._next = 0
        # Segments with anything in them; a number is taken by a commit that failed, too.
        self._kept = 0
        self._part = 0
        # The last part whose put was answered.
        self._last = -1
        # Closed segments that are not objects of their own yet.
        self._unmerged: dict[int, _Segment] = {}
        self._unmarked: list[_Segment] = []
        self._merged = (0, 0)
        self._deleted = 0
        self._due = 0.0
        self._closed = False
        paths.log_epoch(epoch).mkdir(parents=True, exist_ok=True)
        self._sidecar = SidecarWriter(paths.coverage(epoch))
        self._artifacts = Artifacts(folder, paths)

    def __enter__(self) -> "BucketJournal":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def append(self, frames: Sequence[Frame]) -> None:
        """Make frames durable; they are acknowledged when this returns.

        Raises
        ------
        StoreError
            The bucket did not take them. None of the frames may be taken as stored; give all of them again. Or the
            journal is closed.
        """
        size = sum(len(frame.body) for frame in frames)
        if frames and size < COMMIT_BYTES:
            self._hurry.wait(max(0.0, self._due - time.monotonic()))
        with self._lock:
            if self._closed:
                raise StoreError(f"The journal of epoch {self.epoch} is closed.")
            if not frames:
                return
            self._put(frames)
            self._due = time.monotonic() + COMMIT_SECONDS
            if self._part - self._merged[1] >= MERGE:
                for head in list(self._open):
                    self._retire(head)
            self._merge()
            self._artifacts.send()

    def close(self) -> None:
        """Close every segment with its length, and the epoch; a later `append` is refused."""
        self._hurry.set()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for head in list(self._open):
                self._retire(head)
            self._sidecar.close()
            self._artifacts.send(last=True)
            with contextlib.suppress(StoreError, OSError):
                # Everything is in parts; what follows makes it quick to read.
                self._finish()

    # Inside

    def _put(self, frames: Sequence[Frame]) -> None:
        """Commit, again and again while the server does not answer: a network that is gone for minutes comes back."""
        end = time.monotonic() + PATIENCE
        while True:
            touched = self._sort(frames)
            try:
                self._commit(touched)
            except StoreError as error:
                self._abandon(touched)
                if not isinstance(error, StoreUnreachable) or time.monotonic() > end:
                    raise
                log.warning("Epoch %d: %s", self.epoch, error)
                if self._hurry.wait(AGAIN_SECONDS):
                    raise
                continue
            return

    def _sort(self, frames: Sequence[Frame]) -> dict[bytes, _Segment]:
        touched: dict[bytes, _Segment] = {}
        for frame in frames:
            segment = touched.get(frame.head)
            if segment is None:
                segment = self._open.get(frame.head) or self._start(frame.head, touched)
                segment.waiting = []
                touched[frame.head] = segment
            segment.waiting.append(frame)
        return touched

    def _start(self, head: bytes, touched: dict[bytes, _Segment]) -> _Segment:
        idle = [other for other in self._open if other not in touched]
        if len(self._open) >= OPEN_SEGMENTS and idle:
            self._retire(idle[0])
        segment = self._open[head] = _Segment(self._next)
        # Taken even when what follows fails: a number is never used twice.
        self._next += 1
        return segment

    def _commit(self, touched: dict[bytes, _Segment]) -> None:
        pieces, entries = [], []
        for head, segment in touched.items():
            start = segment.length or len(head)
            for frame in segment.waiting:
                entries.append(Entry(segment.number, start, start + len(frame.body), frame.cover))
                start += len(frame.body)
            fresh = () if segment.length else (head,)
            data = b"".join([*fresh, *(frame.body for frame in segment.waiting)])
            pieces.append(Piece(segment.number, segment.length, data))
        closed = [(one.number, one.length, one.frames) for one in self._unmarked]
        part = Part(pieces, closed, self._payloads(touched), self._merged, self._last)
        # Taken whatever comes of it: a put that was not answered may yet have happened.
        number, self._part = self._part, self._part + 1
        self._bucket.create(self._key(key_of(self.epoch, self._writer, number)), part.to_bytes())
        self._last = number
        self._unmarked.clear()
        for segment, piece in zip(touched.values(), pieces, strict=True):
            segment.length += len(piece.data)
            segment.frames += len(segment.waiting)
            segment.last, segment.waiting = number, []
        self._mirror(number, part, entries)
        for head, segment in touched.items():
            if segment.length >= self.roll:
                self._retire(head)

    def _payloads(self, touched: dict[bytes, _Segment]) -> list[str]:
        """Put the files that slots wrote for the frames, before the frames that refer to them."""
        frames = [frame for segment in touched.values() for frame in segment.waiting]
        files = [str(frame.cover["big"][0]) for frame in frames if frame.cover.get("big")]
        self._bucket.together(
            [lambda file=file: self._bucket.put(self._key(f"big/{file}"), self._payload(file)) for file in files]  # type: ignore[misc]
        )
        return files

    def _payload(self, file: str) -> bytes:
        try:
            return (self.paths.big / file).read_bytes()
        except OSError as error:
            raise StoreError(f"The payload {file} cannot be read to be put into the bucket: {error}.") from error

    def _mirror(self, number: int, part: Part, entries: list[Entry]) -> None:
        try:
            # What failed before may have left the mirror behind, and then it is for `refresh` to bring all of it.
            if part.follows < next_part(self.paths, self.epoch, self._writer) <= number:
                apply(self.paths, self.epoch, part)
                keep_place(self.paths, self.epoch, self._writer, number + 1)
        except OSError as error:
            log.warning("The mirror of epoch %d falls behind: %s", self.epoch, error)
        self._sidecar.add(entries)

    def _abandon(self, touched: dict[bytes, _Segment]) -> None:
        for head, segment in touched.items():
            segment.waiting = []
            if head in self._open:
                self._retire(head)

    def _retire(self, head: bytes) -> None:
        segment = self._open.pop(head)
        self._unmarked.append(segment)
        self._unmerged[segment.number] = segment

    def _merge(self) -> None:
        """Put closed segments as objects of their own; delete the parts of those that have been there for a while."""
        try:
            for segment in list(self._unmerged.values()):
                self._put_segment(segment)
        except (StoreError, OSError) as error:
            log.warning("Segments of epoch %d stay in parts for now: %s", self.epoch, error)
            return
        if not self._open:
            before, self._merged = self._merged, (self._next, self._part)
            # Not those just merged: readers that follow have not seen the last of them yet.
            self._delete(before[1])

    def _put_segment(self, segment: _Segment) -> None:
        if not self._mine():
            raise StoreError(f"epoch {self.epoch} belongs to another writer")
        path = self.paths.segment(self.epoch, segment.number)
        if next_part(self.paths, self.epoch, self._writer) <= segment.last:
            self._folder.refresh(path, strictly=True)
        if next_part(self.paths, self.epoch, self._writer) <= segment.last:
            raise StoreError(f"{path} is not in the mirror")
        content = b""
        if segment.length:
            with path.open("rb") as file:
                content = file.read(segment.length)
        folder = f"log/{self.paths.log_epoch(self.epoch).name}"
        if content:
            self._bucket.put(self._key(f"{folder}/{path.name}"), content)
        stated = {"length": segment.length, "frames": segment.frames, "parts": [self._writer, segment.last]}
        self._bucket.put(self._key(f"{folder}/{segment.number:06d}.closed"), json.dumps(stated).encode())
        replace(self.paths.closed(self.epoch, segment.number), closed_marker(segment.length, segment.frames))
        self._kept += bool(content)
        del self._unmerged[segment.number]
        self._unmarked = [one for one in self._unmarked if one is not segment]

    def _finish(self) -> None:
        self._merge()
        if self._unmerged:
            return
        folder = f"log/{self.paths.log_epoch(self.epoch).name}"
        with contextlib.suppress(OSError):
            self._bucket.put(self._key(f"{folder}/coverage"), self.paths.coverage(self.epoch).read_bytes())
        data = json.dumps({"segments": self._kept, "numbers": self._next}).encode()
        self._bucket.put(self._key(f"{folder}/closed"), data)
        replace(self.paths.epoch_closed(self.epoch), data)
        self._delete(self._part)

    def _delete(self, stop: int) -> None:
        keys = [self._key(key_of(self.epoch, self._writer, number)) for number in range(self._deleted, stop)]
        if keys:
            self._bucket.delete(keys)
            self._deleted = stop

    def _mine(self) -> bool:
        """Whether the epoch is still this writer's: a sweep may be removed, and its name used again."""
        try:
            return self._bucket.get(self._key(f"epochs/{self.epoch:06d}")) == self._claim
        except FileNotFoundError:
            return False

    def _key(self, inner: str) -> str:
        return f"{self.paths.folder.name}/{inner}"
