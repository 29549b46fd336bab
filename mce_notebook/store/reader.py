"""The reader's side of the log: what is new since the last look, from any number of writers, in the way of none.

A reader keeps a place in every segment. At the end of an open segment a frame that is not whole is waited for: its
writer may be in the middle of it, or have died there, and both look alike. Below a length that a writer has stated as
committed, or in front of whole frames, the same sight is damage; it is told, and the rest is read.
"""

import contextlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mce_notebook.store.folder import LocalFolder
from mce_notebook.store.frames import Batch, decode
from mce_notebook.store.layout import SweepLayout
from mce_notebook.store.messages import Damaged, Incomplete, frame_end, head_end, next_frame, unpack
from mce_notebook.store.places import folder_of

_EPOCH = re.compile(r"e(\d{6,})")
_SEGMENT = re.compile(r"(\d{6,})\.arrows")
Found = tuple[int, pa.RecordBatch, dict[str, Any]]


@dataclass(eq=False)
class SegmentReader:
    """A place in one segment.

    Parameters
    ----------
    path : Path
    offset : int
        Up to where it was read.
    committed : int or None
        Length that holds, once the writer has stated it.
    """

    path: Path
    offset: int = 0
    committed: int | None = None
    finished: bool = False
    problems: list[str] = field(default_factory=list)
    # Damaged stretches of a segment that is still open, by start: on a network file system they may yet fill.
    gaps: dict[int, tuple[int, str]] = field(default_factory=dict)
    _head: bytes = b""
    _seed: int = 0
    _size: int = -1

    def read(self) -> Iterator[Found]:
        """Yield new whole frames as (offset, batch, metadata); the place moves as they are taken."""
        if self.finished or not self._changed():
            return
        yield from self._retry_gaps()
        if not self._head and not self._find_head():
            return
        while not self.finished:
            data = self._load(self.offset, self.committed)
            base = self.offset - len(self._head)
            end = self._whole(data)
            if end > len(self._head):
                # Bytes behind the committed length are not looked at, so the last frame ends where the data does.
                self.offset = base + end
                yield from self._decoded(data[:end], base)
            if not self._go_on(data, end, base):
                return

    def _changed(self) -> bool:
        try:
            size = self.path.stat().st_size
        except OSError:
            return False
        if size == self._size and self.committed is None:
            return False
        if size < self.offset and self.committed is None and size < self._size:
            self.problems.append(f"{self.path}: cut to {size} bytes, behind what was read already")
        self._size = size
        return True

    def _load(self, start: int, stop: int | None) -> memoryview:
        """Load the schema, if it is known, and behind it the bytes from `start`."""
        size = max(0, (self._size if stop is None else stop) - start)
        buffer = bytearray(len(self._head) + size)
        buffer[: len(self._head)] = self._head
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                size = _fill(file, memoryview(buffer)[len(self._head) :])
        except OSError:
            size = 0
        return memoryview(buffer)[: len(self._head) + size]

    def _find_head(self) -> bool:
        # A cursor may point behind the schema of a file this process has not opened yet.
        for limit in (1 << 16, 1 << 30):
            data = self._load(0, min(self._size, limit))
            try:
                end = head_end(data)
            except (Incomplete, Damaged):
                continue
            self._head = bytes(data[:end])
            self._seed = zlib.crc32(self._head)
            self.offset = max(self.offset, end)
            return True
        if self.committed is not None:
            self._told(data, 0, 0)
            self.finished = True
        return False

    def _whole(self, data: memoryview) -> int:
        at = len(self._head)
        while at < len(data):
            try:
                at = frame_end(data, at, self._seed)
            except (Incomplete, Damaged):
                break
        return at

    def _decoded(self, data: memoryview, base: int) -> Iterator[Found]:
        at = len(self._head)
        for batch, record in unpack(data):
            yield base + at, batch, record
            at = frame_end(data, at, None)

    def _go_on(self, data: memoryview, end: int, base: int) -> bool:
        """Decide about bytes that are no whole frame: wait, or tell and go on behind them."""
        if self.committed is not None and self.offset >= self.committed:
            self.finished = True
            return False
        if end >= len(data) and self.committed is None:
            return False
        behind = next_frame(data, end + 8, self._seed)
        if behind is not None:
            if self.committed is None:
                self.gaps[self.offset] = (base + behind, diagnosis(data, end, behind - end, self.offset))
            else:
                self._told(data, end, self.offset)
            self.offset = base + behind
            return True
        if self.committed is not None:
            self._told(data, end, self.offset)
            self.finished = True
        return False

    def _told(self, data: memoryview, at: int, offset: int) -> None:
        assert self.committed is not None
        self.problems.append(f"{self.path}: {diagnosis(data, at, self.committed - offset, offset)}")

    def _retry_gaps(self) -> Iterator[Found]:
        for start, (stop, text) in list(self.gaps.items()):
            data = self._load(start, stop)
            if self._whole(data) == len(data) == len(self._head) + stop - start:
                del self.gaps[start]
                yield from self._decoded(data, start - len(self._head))
            elif self.committed is not None:
                del self.gaps[start]
                self.problems.append(f"{self.path}: {text}")

    def told(self) -> list[str]:
        """Return the damage found so far."""
        return self.problems + [f"{self.path}: {text}" for _, text in self.gaps.values()]


def _fill(file: Any, target: memoryview) -> int:
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            break
        done += count
    return done


def diagnosis(data: memoryview, at: int, expected: int, offset: int) -> str:
    """Tell what is wrong with committed bytes: cut short, zero-filled or changed."""
    rest = data[at : at + expected]
    lost = "the outcomes stored there are lost and count as not computed"
    if len(rest) < expected:
        return f"{expected - len(rest)} bytes are missing from byte {offset + len(rest)}; {lost}"
    if not any(rest[:64]):
        return f"zero-filled from byte {offset}; {lost}"
    return f"corrupt at byte {offset} (the checksum differs); {lost}"


class LogReader:
    """Reads the outcomes of a sweep as they come.

    Parameters
    ----------
    paths : SweepLayout
    cursor : dict or None
        (epoch, segment) -> offset to start from, as `cursor` gave it.
    """

    def __init__(self, paths: SweepLayout, cursor: dict[tuple[int, int], int] | None = None):
        self.paths = paths
        self._folder = LocalFolder()
        self._start = dict(cursor or {})
        self._segments: dict[tuple[int, int], SegmentReader] = {}
        self._finished: set[int] = set()
        self._problems: list[str] = []

    @property
    def cursor(self) -> dict[tuple[int, int], int]:
        """Places in all segments."""
        return self._start | {key: segment.offset for key, segment in self._segments.items()}

    @property
    def problems(self) -> list[str]:
        """Damage found so far, one sentence each; what is waited for is none."""
        return self._problems + [text for segment in self._segments.values() for text in segment.told()]

    def poll(self) -> list[Batch]:
        """Return everything new since the last call, in the order of the log of each epoch."""
        return list(self.stream())

    def stream(self) -> Iterator[Batch]:
        """As `poll`, one batch at a time, so that a long log needs no memory for all of it."""
        folder_of(self.paths.folder).refresh(self.paths.folder)
        for name in self._folder.names(self.paths.log):
            match = _EPOCH.fullmatch(name)
            if match and int(match[1]) not in self._finished:
                yield from self._epoch(int(match[1]))

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        # Listed before anything is read: a segment that appears later is seen by the next poll.
        names = set(self._folder.names(self.paths.log_epoch(epoch)))
        numbers = sorted(int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match)
        for number in numbers:
            segment = self._segment(epoch, number, f"{number:06d}.closed" in names)
            before = len(segment.told())
            for offset, batch, record in self._frames(epoch, number, segment, names):
                order = (epoch, number, offset)
                yield decode(batch, record, order=order, big=self.paths.big)
            if len(segment.told()) > before:
                self._distrust(epoch)
        if "closed" in names and all(self._segments[epoch, number].finished for number in numbers):
            self._close_epoch(epoch, len(numbers))

    def _frames(self, epoch: int, number: int, segment: SegmentReader, names: set[str]) -> Iterator[Found]:
        """Read a segment, in its compacted form when all of it is wanted and that form is sound."""
        if segment.offset == 0 and segment.committed is not None and f"{number:06d}.compact.arrows" in names:
            path = self.paths.compacted(epoch, number)
            large = SegmentReader(path, committed=path.stat().st_size)
            found = list(large.read())
            if found and not large.told():
                segment.offset, segment.finished = segment.committed, True
                return iter([(int(record["offset"]), batch, record) for _, batch, record in found])
        return segment.read()

    def _distrust(self, epoch: int) -> None:
        # The sidecar vouches for outcomes that are lost; without it they are found missing and computed again.
        with contextlib.suppress(OSError):
            self.paths.coverage(epoch).unlink(missing_ok=True)

    def _segment(self, epoch: int, number: int, closed: bool) -> SegmentReader:
        key = (epoch, number)
        if key not in self._segments:
            self._segments[key] = SegmentReader(self.paths.segment(epoch, number), self._start.get(key, 0))
        segment = self._segments[key]
        if closed and segment.committed is None:
            segment.committed = self._number(self.paths.closed(epoch, number), "length")
        return segment

    def _close_epoch(self, epoch: int, found: int) -> None:
        self._finished.add(epoch)
        stated = self._number(self.paths.epoch_closed(epoch), "segments")
        if stated is not None and found < stated:
            folder = self.paths.log_epoch(epoch)
            self._problems.append(f"{folder}: {stated - found} segments are missing; their outcomes are lost")

    def _number(self, path: Path, name: str) -> int | None:
        try:
            return int(json.loads(self._folder.read(path))[name])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # A marker that cannot be read states nothing; the segment is read as an open one.
            return None
