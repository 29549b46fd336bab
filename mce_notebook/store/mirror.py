"""The mirror of one sweep of a bucket: what is new there is brought here, as the files a store in a folder has.

The bucket is the truth; the mirror is a cache that can be deleted at any time, and that any number of processes may
bring up to date at once: whatever they write is the same. So everything that reads a store reads files, at the speed of
files, offline included, and what was read once is not paid for twice.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from mce_notebook.declare.signing import SIGNATURE, verified_manifest
from mce_notebook.errors import StoreError, UntrustedCode
from mce_notebook.store.bucket import Bucket, Entry
from mce_notebook.store.folder import store_error
from mce_notebook.store.layout import SweepLayout
from mce_notebook.store.parts import FOLDER, Part, apply, closed_marker, key_of, replace

log = logging.getLogger(__name__)

# A look at the bucket is a request that is paid for: not more often than this (seconds); where nothing has changed for
# a while, after a tenth of that while, the longer time at most; after one that failed, after some seconds.
POLL_SECONDS = 1.0
SHARE_IDLE = 0.1
IDLE_SECONDS = 30.0
AGAIN_SECONDS = 10.0
# Parts that are got at the same time, and held in memory until they are applied.
_PARTS = 64
# Where a mirror keeps the number of the next part; hidden from everybody who lists the folder.
_PLACE = ".parts"
# Brought last; and brought only when somebody asks for them (`fetch`).
_BEAT = re.compile(r"epochs/\d+\.beat")
_LATER = re.compile(r"epochs/\d+\.beat|artifacts/.*|sealed/[^/]+/data\.zarr/.*|(.*/)?\.[^/]*", re.DOTALL)
_LOG = re.compile(rf"log/e(\d{{6,}})/(?:{FOLDER}/([^/]+)/(\d+)|(\d{{6,}})\.(arrows|closed)|(closed|coverage))")
# Objects that may be replaced; all others never change once they are there.
_CHANGING = re.compile(r"sweep\.json|events/.*|code/.*", re.DOTALL)


@dataclass
class Log:
    """What a listing shows of the log of one epoch."""

    parts: dict[str, list[int]] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)
    ended: Entry | None = None
    coverage: Entry | None = None


class Mirror:
    """The files of one sweep here, and its objects there.

    Parameters
    ----------
    bucket : Bucket
    root : Path
        Root of the mirror of the store.
    name : str
        Name of the sweep.
    """

    def __init__(self, bucket: Bucket, root: Path, name: str):
        self.bucket = bucket
        self._using = bucket
        self.name = name
        self.paths = SweepLayout(root / name)
        self._lock = threading.RLock()
        self._due = 0.0
        self._changed = time.monotonic()
        self._listed: dict[str, Entry] = {}
        self._tags: dict[str, str] = {}

    def refresh(self, *, strictly: bool = False) -> None:
        """Bring what is new, unless that was done a moment ago.

        Parameters
        ----------
        strictly : bool
            Now, and raise when the bucket cannot be read. Otherwise what is here is good enough until it can.

        Raises
        ------
        StoreError
        """
        with self._lock:
            if not strictly and time.monotonic() < self._due:
                return
            # Without a network what is here is shown at once, and not after every attempt.
            self._using = self.bucket if strictly or not self.paths.sweep_json.exists() else self.bucket.hasty
            try:
                self._pull()
            except (StoreError, OSError) as error:
                self._due = time.monotonic() + AGAIN_SECONDS
                if strictly or not self.paths.sweep_json.exists():
                    raise (
                        error if isinstance(error, StoreError) else store_error(error, "mirroring a bucket")
                    ) from error
                log.warning("%s is shown as it was known here: %s", self.name, error)
                return
            now = time.monotonic()
            self._due = now + max(POLL_SECONDS, min(IDLE_SECONDS, SHARE_IDLE * (now - self._changed)))

    def stir(self) -> None:
        """Look often again: something is done to the sweep here."""
        self._changed = time.monotonic()
        self._due = min(self._due, self._changed + POLL_SECONDS)

    def forget(self) -> None:
        """Remove all files: the sweep was moved or removed."""
        with self._lock:
            self._tags.clear()
            self._listed = {}
            if self.paths.folder.exists():
                aside = self.paths.folder.with_name(f".{os.urandom(8).hex()}.tmp")
                with contextlib.suppress(FileNotFoundError):
                    self.paths.folder.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)

    def fetch(self, path: Path) -> None:
        """Bring everything below a folder, that which is brought only when asked for included."""
        inner = path.relative_to(self.paths.folder).as_posix()
        entries = self._relative(self.bucket.entries(f"{self.name}/{inner}"))
        missing = [key for key, one in entries.items() if _size(self.paths.folder / key) != one.size]
        self._bring(missing)

    # Inside

    def _relative(self, entries: list[Entry]) -> dict[str, Entry]:
        # A key is not always a path: `..` and the like lead out of the folder, and nothing of ours is called so.
        known = ((one.key.removeprefix(f"{self.name}/"), one) for one in entries)
        return {key: one for key, one in known if not {"", ".", ".."} & set(key.split("/")) and "\\" not in key}

    def _pull(self) -> None:
        listed = self._relative(self._using.entries(self.name))
        beats = self._beats(listed)
        if beats:
            # A heartbeat that says "done" must not be seen before the outcomes that were put before it.
            listed = self._relative(self._using.entries(self.name))
        if listed != self._listed:
            self._listed, self._changed = listed, time.monotonic()
        if "sweep.json" not in listed:
            self.forget()
            return
        self._same_sweep(listed["sweep.json"])
        logs: dict[int, Log] = {}
        plain = [key for key, entry in listed.items() if self._is_plain(key, entry, logs) and self._is_new(key, entry)]
        self._bring([key for key in plain if not key.startswith(("declarations/", "intents/"))])
        # What they refer to is here by now.
        self._bring(sorted((key for key in plain if key.startswith(("declarations/", "intents/"))), reverse=True))
        self._tags |= {key: listed[key].tag for key in plain}
        for epoch, found in sorted(logs.items()):
            self._pull_log(epoch, found)
        for key, (tag, content) in beats.items():
            replace(self.paths.folder / key, content)
            self._tags[key] = tag

    def _beats(self, listed: dict[str, Entry]) -> dict[str, tuple[str, bytes]]:
        """Return the heartbeats that changed, by key, each with its tag."""
        found = {}
        for key, entry in listed.items():
            if _BEAT.fullmatch(key) and self._tags.get(key) != entry.tag:
                with contextlib.suppress(FileNotFoundError):
                    found[key] = entry.tag, self._using.get(f"{self.name}/{key}")
        return found

    def _same_sweep(self, entry: Entry) -> None:
        """Empty the mirror when the name belongs to another sweep by now."""
        if self._tags.get("sweep.json") == entry.tag:
            return
        content = self._using.get(f"{self.name}/sweep.json")
        path = self.paths.sweep_json
        if path.exists() and path.read_bytes() != content:
            self.forget()
        replace(path, content)
        self._tags["sweep.json"] = entry.tag

    def _is_plain(self, key: str, entry: Entry, logs: dict[int, Log]) -> bool:
        match = _LOG.fullmatch(key)
        if match is None:
            return key != "sweep.json" and not key.startswith("log/") and not _LATER.fullmatch(key)
        found = logs.setdefault(int(match[1]), Log())
        if match[3]:
            found.parts.setdefault(match[2], []).append(int(match[3]))
        elif match[4]:
            if match[5] == "closed":
                found.closed.append(int(match[4]))
        elif match[6] == "closed":
            found.ended = entry
        else:
            found.coverage = entry
        return False

    def _is_new(self, key: str, entry: Entry) -> bool:
        changing = _CHANGING.fullmatch(key)
        if key in self._tags and (not changing or self._tags[key] == entry.tag):
            return False
        if not changing and _size(self.paths.folder / key) == entry.size:
            self._tags[key] = entry.tag
            return False
        return True

    def _bring(self, keys: list[str]) -> None:
        def one(key: str) -> None:
            # Removed since it was listed: then it is not there.
            with contextlib.suppress(FileNotFoundError):
                content = self._using.get(f"{self.name}/{key}")
                path = self.paths.folder / key
                if not (path.name == SIGNATURE and _signed_here(path.parent)):
                    replace(path, content)

        # After what they sign.
        signatures = [key for key in keys if key.endswith(f"/{SIGNATURE}")]
        self._using.together([lambda key=key: one(key) for key in keys if key not in signatures])  # type: ignore[misc]
        self._using.together([lambda key=key: one(key) for key in signatures])  # type: ignore[misc]

    def _pull_log(self, epoch: int, found: Log) -> None:
        folder = self.paths.log_epoch(epoch)
        if (folder / "closed").exists():
            return
        writer = _writer(self.paths.epoch(epoch))
        if found.coverage is not None and found.ended is not None and not self.paths.coverage(epoch).exists():
            self._bring([f"log/{folder.name}/coverage"])
        self._pull_parts(epoch, writer, sorted(found.parts.get(writer, ())))
        for number in sorted(found.closed):
            self._pull_segment(epoch, number)
        if found.ended is not None:
            content = self._using.get(f"{self.name}/log/{folder.name}/closed")
            count = int(json.loads(content)["numbers"])
            # A listing of many pages may miss what was written while it was made; the next one has it.
            if all(self.paths.closed(epoch, number).exists() for number in range(count)):
                replace(folder / "closed", content)

    def _pull_parts(self, epoch: int, writer: str, numbers: list[int]) -> None:
        place = next_part(self.paths, epoch, writer)
        numbers = [number for number in numbers if number >= place]
        for start in range(0, len(numbers), _PARTS):
            some = numbers[start : start + _PARTS]
            reached = self._apply(epoch, place, dict(zip(some, self._parts(epoch, writer, some), strict=True)))
            if reached > place:
                keep_place(self.paths, epoch, writer, reached)
            if reached <= some[-1]:
                return
            place = reached

    def _apply(self, epoch: int, place: int, parts: dict[int, Part | None]) -> int:
        """Put parts into the mirror, as far as they follow on what is there; return the number of the next."""
        for number, part in parts.items():
            if part is None or not self._reach(epoch, number, place, part):
                # Deleted since, because it was merged: the next look finds the segments.
                return place
            self._bring([f"big/{one}" for one in part.payloads if not (self.paths.big / one).exists()])
            apply(self.paths, epoch, part)
            place = number + 1
        return place

    def _parts(self, epoch: int, writer: str, numbers: list[int]) -> list[Part | None]:
        def one(number: int) -> Part | None:
            key = f"{self.name}/{key_of(epoch, writer, number)}"
            try:
                return Part.from_bytes(self._using.get(key), f"{self._using.address}/{key}")
            except FileNotFoundError:
                return None

        return self._using.together([lambda number=number: one(number) for number in numbers])  # type: ignore[misc]

    def _reach(self, epoch: int, number: int, place: int, part: Part) -> bool:
        """Bring the segments that hold the parts between `place` and `number`; False where they cannot be found yet."""
        if part.follows < place:
            return True
        segments, parts = part.merged
        if parts <= part.follows:
            return False
        return all(self._pull_segment(epoch, one) for one in range(segments))

    def _pull_segment(self, epoch: int, number: int) -> bool:
        """Bring a segment that is complete, unless it is here; False if it is not there."""
        if self.paths.closed(epoch, number).exists():
            return True
        folder = f"{self.name}/log/e{epoch:06d}"
        try:
            stated = json.loads(self._using.get(f"{folder}/{number:06d}.closed"))
            writer, last = stated["parts"]
            if int(stated["length"]) and next_part(self.paths, epoch, writer) <= last:
                replace(self.paths.segment(epoch, number), self._using.get(f"{folder}/{number:06d}.arrows"))
        except FileNotFoundError:
            return False
        replace(self.paths.closed(epoch, number), closed_marker(int(stated["length"]), int(stated["frames"])))
        return True


def next_part(paths: SweepLayout, epoch: int, writer: str) -> int:
    """Return the number of the first part of a writer that is not in the mirror."""
    try:
        known, number = json.loads((paths.log_epoch(epoch) / _PLACE).read_bytes())
    except (OSError, ValueError, TypeError):
        return 0
    return int(number) if known == writer else 0


def keep_place(paths: SweepLayout, epoch: int, writer: str, number: int) -> None:
    """Note that parts below `number` are in the mirror."""
    replace(paths.log_epoch(epoch) / _PLACE, json.dumps([writer, number]).encode())


def _writer(claim: Path) -> str:
    try:
        return str(json.loads(claim.read_bytes()).get("writer", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _signed_here(folder: Path) -> bool:
    """Whether the code in a folder is this user's as it is: somebody said `mce trust` here, or it was written here."""
    try:
        verified_manifest(folder)
    except UntrustedCode:
        return False
    return True
