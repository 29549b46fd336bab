"""On the far side: what is new in the log of a sweep, in the order in which another store may take it.

Only whole frames leave, a payload before the frame that refers to it, a sidecar or a marker after the bytes it speaks
of: sizes are noted in the opposite order, so that what is noted first covers no more than what is noted later.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.run.remote.wire import PIECE
from mce_notebook.store.big import Payload
from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.frames import decode
from mce_notebook.store.messages import Damaged, Incomplete, frame_end, head_end, unpack

# As many bytes of a segment are read at once, or one frame where that is longer.
STRETCH = 8 << 20
_SEGMENT = re.compile(r"\d{6,}\.arrows")
_HEAD = 1 << 16
Send = Callable[[dict[str, Any], bytes], None]


@dataclass
class Segment:
    """How far one segment was sent."""

    path: Path
    offset: int = 0
    committed: int | None = None
    head: bytes = b""

    def stretches(self) -> Iterator[tuple[int, bytes]]:
        """Yield whole frames that were not sent yet, and where they start."""
        while (found := self._next()) is not None:
            yield found
            self.offset = found[0] + len(found[1])

    def _next(self) -> tuple[int, bytes] | None:
        size = self._size()
        if self.offset >= size or (not self.head and not self._find_head(size)):
            return None
        if self.offset == 0:
            return 0, self.head
        for length in (STRETCH, size):
            data = self._load(self.offset, min(size, self.offset + length))
            end = self._whole(data)
            if end:
                return self.offset, data[:end]
        # What the writer states as its length holds, damaged or not: readers tell.
        return (self.offset, data) if self.committed is not None and data else None

    def _size(self) -> int:
        try:
            size = self.path.stat().st_size
        except OSError:
            return 0
        return size if self.committed is None else min(size, self.committed)

    def _find_head(self, size: int) -> bool:
        for limit in (_HEAD, size):
            data = self._load(0, min(size, limit))
            try:
                self.head = data[: head_end(memoryview(data))]
            except (Incomplete, Damaged):
                continue
            return True
        return False

    def _load(self, start: int, stop: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def _whole(self, data: bytes) -> int:
        at, seed, view = 0, zlib.crc32(self.head), memoryview(data)
        while at < len(data):
            try:
                at = frame_end(view, at, seed)
            except (Incomplete, Damaged):
                break
        return at

    def unpacked(self, start: int, data: bytes) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield the batches of a stretch; none where it is damaged."""
        if start and self._whole(data) == len(data):
            yield from unpack(self.head + data)


@dataclass
class Tail:
    """A file that only grows, and how much of it was sent."""

    path: Path
    offset: int = 0

    def size(self) -> int:
        """Return its length now."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def take(self, size: int) -> bytes:
        """Return what was not sent yet of its first `size` bytes."""
        if size <= self.offset:
            return b""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(size - self.offset)


@dataclass
class _Epoch:
    number: int
    segments: dict[str, Segment] = field(default_factory=dict)
    tails: dict[str, Tail] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)


class Feed:
    """The log of one sweep, as it grows.

    Parameters
    ----------
    sweep : SweepStore
    have : mapping
        What the other store has: `epochs` by number, `{"closed": bool, "files": {name: bytes}, "markers": [name]}`, and
        `artifacts`, length and time by name, and `masks`, names.
    send : callable
        Takes a header and a payload.
    """

    def __init__(self, sweep: SweepStore, have: Mapping[str, Any], send: Send):
        self._sweep = sweep
        self._have = have.get("epochs", {})
        self._files: dict[str, Any] = dict(have.get("artifacts", {}))
        self._masks: set[str] = set(have.get("masks", ()))
        self._declarations: dict[int, Any] = {}
        self._send = send
        self._epochs: dict[int, _Epoch] = {}
        self._done: set[int] = {int(number) for number, told in self._have.items() if told.get("closed")}

    def round(self) -> bool:
        """Send what is new; return whether anything was."""
        new = self._said_by_guards()
        for claim in self._sweep.epochs():
            if claim.number not in self._done and "elsewhere" not in claim.host and claim.host:
                new = self._epoch(claim.number, claim.host) or new
        return new

    def _said_by_guards(self) -> bool:
        """Send which points slow guards keep, once they are evaluated here."""
        folder = self._sweep.paths.declarations
        fresh = [name for name in self._sweep.folder.names(folder) if name.endswith(".mask")]
        fresh = [name for name in fresh if name not in self._masks]
        for name in fresh:
            self.file({"what": "mask", "file": name}, folder / name)
            self._masks.add(name)
        return bool(fresh)

    def last(self) -> int:
        """Return the number of the last writer here, 0 before the first."""
        return max((one.number for one in self._sweep.epochs() if "elsewhere" not in one.host), default=0)

    def _epoch(self, number: int, claim: Mapping[str, Any]) -> bool:
        epoch = self._epochs.get(number)
        if epoch is None:
            epoch = self._epochs[number] = self._open(number)
            self._send({"what": "epoch", "epoch": number, "claim": dict(claim)}, b"")
        paths = self._sweep.paths
        folder = paths.log_epoch(number)
        names = self._sweep.folder.names(folder)
        markers = {name: self._sweep.folder.read(folder / name) for name in names if name.endswith("closed")}
        events = epoch.tails.setdefault("events", Tail(paths.events(number)))
        cover = epoch.tails.setdefault("coverage", Tail(paths.coverage(number)))
        sizes = [(one, one.size()) for one in (cover, events)]
        new = False
        for name in sorted(name for name in names if _SEGMENT.fullmatch(name)):
            segment = epoch.segments.setdefault(name, Segment(folder / name))
            segment.committed = _length(markers.get(f"{name[:-7]}.closed"))
            new = self._segment(number, name, segment) or new
        for tail, size in sizes:
            data = tail.take(size)
            if data:
                where = "events" if tail is events else "coverage"
                self._send({"what": "bytes", "epoch": number, "file": where, "at": tail.offset}, data)
                tail.offset, new = tail.offset + len(data), True
        # The epoch's own marker comes last: it says that there is nothing more to fetch.
        for name in sorted(markers.keys() - epoch.marked, key=lambda name: (name == "closed", name)):
            self._send({"what": "marker", "epoch": number, "file": name}, markers[name])
            epoch.marked.add(name)
            new = True
        if "closed" in epoch.marked:
            self._done.add(number)
        return new

    def _open(self, number: int) -> _Epoch:
        told = self._have.get(str(number), {})
        epoch = _Epoch(number, marked=set(told.get("markers", ())))
        paths = self._sweep.paths
        for name, size in told.get("files", {}).items():
            if name == "events":
                epoch.tails[name] = Tail(paths.events(number), size)
            elif name == "coverage":
                epoch.tails[name] = Tail(paths.coverage(number), size)
            else:
                epoch.segments[name] = Segment(paths.log_epoch(number) / name, size)
        return epoch

    def _segment(self, number: int, name: str, segment: Segment) -> bool:
        new = False
        folder = self._sweep.paths.artifacts
        for start, data in segment.stretches():
            # Listed after the frames were read: what their points left is there.
            left = set(self._sweep.folder.names(folder))
            for batch, record in segment.unpacked(start, data) if left or b'"big":' in data else ():
                if "big" in record:
                    payload = Payload.from_json(record["big"])
                    self.file({"what": "payload", "file": payload.file}, self._sweep.paths.big / payload.file)
                for point in left & self._points(batch, record) if left else ():
                    self._artifacts(folder / point)
            header = {"what": "bytes", "epoch": number, "file": name, "at": start, "crc": zlib.crc32(data)}
            self._send(header, data)
            new = True
        return new

    def file(self, header: Mapping[str, Any], path: Path) -> None:
        """Send a whole file in pieces; one that is not there is left out."""
        try:
            source = path.open("rb")
        except OSError:
            return
        with source:
            at, data = 0, source.read(PIECE)
            while data:
                more = source.read(PIECE)
                self._send({**header, "at": at, "last": not more}, data)
                at, data = at + len(data), more

    def _points(self, batch: Any, record: dict[str, Any]) -> set[str]:
        """Return the names of the folders of the points of a batch."""
        number = int(record["declaration"])
        if number not in self._declarations:
            self._declarations[number] = self._sweep.declaration(number)
        declaration, listed = self._declarations[number], decode(batch, record).index
        index = np.arange(listed.start, listed.stop) if isinstance(listed, range) else listed
        keys = declaration.grid.keys(index, constants=declaration.constants)
        return {f"{int(high):016x}{int(low):016x}" for low, high in keys}

    def artifacts(self) -> None:
        """Send the files that points left, as far as they have not been sent."""
        self._artifacts(self._sweep.paths.artifacts)

    def _artifacts(self, inside: Path) -> None:
        folder = self._sweep.paths.artifacts
        for path in sorted(inside.rglob("*")) if inside.is_dir() else ():
            if path.is_symlink() or not path.is_file():
                continue
            found, name = path.stat(), path.relative_to(folder).as_posix()
            if self._files.get(name) == [found.st_size, found.st_mtime_ns]:
                continue
            self._files[name] = [found.st_size, found.st_mtime_ns]
            header = {"what": "artifact", "file": name, "time": found.st_mtime_ns}
            if found.st_size:
                self.file(header, path)
            else:
                self._send({**header, "at": 0, "last": True}, b"")


def _length(marker: bytes | None) -> int | None:
    if marker is None:
        return None
    try:
        return int(json.loads(marker)["length"])
    except (ValueError, KeyError, TypeError):
        return None
