"""On this side: one sweep, sent to a store elsewhere; and what is computed there, in the store here.

Every writer there has an epoch of its own here, whose claim says which: `{"mirrors": {"site": ..., "epoch": ...}}`. Its
files are copies, byte for byte, so that it does not matter who copies them, how often, and where it was cut: bytes go
where they stand there, and what is whole is told by the checksums of the log.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mce_notebook.declare import bundle, signing
from mce_notebook.errors import AlreadyExists, StoreError, UnknownSweep, UntrustedCode
from mce_notebook.run.registry import Process, machine
from mce_notebook.run.remote.feed import Segment
from mce_notebook.store.catalog import Epoch, SweepStore, pid_space
from mce_notebook.store.coverage import vouched
from mce_notebook.store.folder import sync_data, sync_folder, told, write_all
from mce_notebook.store.journal import claim_epoch
from mce_notebook.store.sidecar import whole

_FILE = re.compile(r"\d{6,}\.arrows|coverage|events")
_MARKER = re.compile(r"\d{6,}\.closed|closed")
_PAYLOAD = re.compile(r"[\w-]+/[0-9a-f]+\.arrows")
_MASK = re.compile(r"[0-9a-f]{32}\.mask")
_ARTIFACT = re.compile(r"[0-9a-f]{32}/.+")


class Mirror:
    """The side of the notebook of a sweep that is computed elsewhere.

    Parameters
    ----------
    sweep : SweepStore
    label : str
        What to call the other side.
    """

    def __init__(self, sweep: SweepStore, label: str):
        self.sweep = sweep
        self.site = ""
        self._label = label
        self._epochs: dict[int, int] = {}
        self._shown = 0
        self._synced: set[Path] = set()

    @property
    def key(self) -> str:
        """What tells this sweep from all others that this user ever sends anywhere."""
        said = f"{os.path.realpath(self.sweep.paths.folder)}\0{self.sweep.id}".encode(errors="surrogateescape")
        return hmac.new(signing.user_key(), said, hashlib.sha256).hexdigest()[:32]

    # To the other side

    def files(self) -> tuple[str, dict[str, Path]]:
        """Return the code of the latest declaration, and what a host needs to compute it: files by path in the sweep.

        Raises
        ------
        UntrustedCode
            If the code is not signed by this user: it would be signed at the other end.
        """
        paths, latest = self.sweep.paths, self.sweep.latest()
        if latest is None:
            raise StoreError(f"Nothing was declared for {self.sweep.name!r} yet.")
        code = self.sweep.code_folder(latest.code)
        if not bundle.trusted(code):
            raise UntrustedCode(f"The code in {code} was not signed by you, so it is not sent to {self._label}.")
        manifest = json.loads((code / signing.MANIFEST).read_text(encoding="utf-8"))
        found = [paths.object(entry["digest"]) for entry in manifest["buffers"]]
        found += [paths.env(latest.environment), paths.sweep_json]
        for folder in (code, paths.declarations):
            found += [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        listed = {path.relative_to(paths.folder).as_posix(): path for path in found if path.is_file()}
        return latest.code, {name: path for name, path in listed.items() if not name.endswith(signing.SIGNATURE)}

    def sent(self) -> bool:
        """Return whether a relay has ever sent the sweep anywhere."""
        return any("mirrors" in one.host or self.sweep.heartbeat(one.number).get("sent") for one in self.sweep.epochs())

    def known(self) -> tuple[str, bytes]:
        """Return what is known here and was not computed there, as a sidecar, and its digest; "" for nothing."""
        there = set(self._mirrored().values())
        own = [epoch.number for epoch in self.sweep.epochs() if epoch.number not in there]
        sidecar = vouched(self.sweep, own) if own else b""
        return (hashlib.sha256(sidecar).hexdigest() if sidecar else ""), sidecar

    def have(self) -> dict[str, Any]:
        """Return how much of the other store is here, for its `Feed`."""
        self._epochs = self._mirrored()
        epochs = {str(there): self._had(here) for there, here in self._epochs.items()}
        folder = self.sweep.paths.artifacts
        artifacts = {}
        for path in folder.rglob("*") if folder.is_dir() else ():
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                artifacts[path.relative_to(folder).as_posix()] = [found.st_size, found.st_mtime_ns]
        names = self.sweep.folder.names(self.sweep.paths.declarations)
        return {"epochs": epochs, "artifacts": artifacts, "masks": [name for name in names if name.endswith(".mask")]}

    def _mirrored(self) -> dict[int, int]:
        """Return the epochs here of those there; the first one counts, should there be two."""
        found: dict[int, int] = {}
        for epoch in self.sweep.epochs():
            copied = epoch.host.get("mirrors")
            if isinstance(copied, dict) and copied.get("site") == self.site:
                found.setdefault(int(copied["epoch"]), epoch.number)
        return found

    def _had(self, epoch: int) -> dict[str, Any]:
        paths = self.sweep.paths
        folder = paths.log_epoch(epoch)
        names = self.sweep.folder.names(folder)
        files: dict[str, int] = {}
        for name in names:
            if name.endswith(".arrows") and name[:-7].isdigit():
                done = f"{name[:-7]}.closed" in names
                files[name] = (folder / name).stat().st_size if done else _verified(folder / name)
        with contextlib.suppress(OSError):
            files["coverage"] = whole(paths.coverage(epoch).read_bytes())
        with contextlib.suppress(OSError):
            files["events"] = paths.events(epoch).stat().st_size
        markers = [name for name in names if name.endswith("closed")]
        return {"closed": "closed" in names, "files": files, "markers": markers}

    # From the other side

    def take(self, header: Mapping[str, Any], payload: bytes) -> None:
        """Keep what came; durable on return where others rely on it.

        Raises
        ------
        StoreFull, StoreError
            Nothing is lost: it comes again with the next connection.
        """
        if self.folder_id != self.sweep.id:
            # Its name may be another sweep's by now.
            raise UnknownSweep(f"The sweep {self.sweep.name!r} was moved or deleted.")
        with told("writing outcomes"):
            match header["what"]:
                case "epoch":
                    self._claim(int(header["epoch"]), header["claim"])
                case "bytes":
                    self._bytes(header, payload)
                case "marker":
                    name = _checked(_MARKER, str(header["file"]))
                    with contextlib.suppress(AlreadyExists):
                        folder = self.sweep.paths.log_epoch(self._epochs[int(header["epoch"])])
                        self.sweep.folder.create(folder / name, payload)
                case "payload":
                    name = _checked(_PAYLOAD, str(header["file"]))
                    self._whole(self.sweep.paths.big / name, header, payload, again=False)
                case "mask":
                    name = _checked(_MASK, str(header["file"]))
                    self._whole(self.sweep.paths.declarations / name, header, payload, again=False)
                case "artifact":
                    name = _checked(_ARTIFACT, str(header["file"]))
                    self._whole(self.sweep.paths.artifacts / name, header, payload, again=True)

    def _claim(self, there: int, claim: Mapping[str, Any]) -> None:
        if there in self._epochs:
            return
        # Not a process of this machine, so that nobody here takes its end for that of the writer.
        record = {"host": self._label, "boot": "", "space": "", "pid": 0, "start": "", "time": time.time()}
        record["mirrors"] = {"site": self.site, "epoch": there, "claim": dict(claim)}
        here = claim_epoch(self.sweep.paths, record)
        self.sweep.paths.log_epoch(here).mkdir(parents=True, exist_ok=True)
        sync_folder(self.sweep.paths.log)
        self._epochs[there] = here

    def _bytes(self, header: Mapping[str, Any], data: bytes) -> None:
        name, epoch = _checked(_FILE, str(header["file"])), self._epochs[int(header["epoch"])]
        paths = self.sweep.paths
        if name == "events":
            path, durable = paths.events(epoch), False
            path.parent.mkdir(exist_ok=True)
        else:
            path, durable = paths.log_epoch(epoch) / name, name != "coverage"
        if durable and zlib.crc32(data) != header["crc"]:
            raise StoreError(f"What came for {path} is not what was sent.")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.lseek(descriptor, int(header["at"]), os.SEEK_SET)
            write_all(descriptor, data)
            if durable:
                sync_data(descriptor)
        finally:
            os.close(descriptor)
        if durable and path not in self._synced:
            sync_folder(path.parent)
            self._synced.add(path)

    def _whole(self, path: Path, header: Mapping[str, Any], data: bytes, *, again: bool) -> None:
        """Keep a piece of a file that appears once all its pieces are there."""
        draft = path.parent / f".{path.name[:100]}.{self._draft(path)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not again):
            return
        with draft.open("r+b" if draft.exists() and header["at"] else "wb") as file:
            file.seek(int(header["at"]))
            file.write(data)
            file.flush()
            if header["last"]:
                sync_data(file.fileno())
        if header["last"]:
            if "time" in header:
                os.utime(draft, ns=(int(header["time"]), int(header["time"])))
            draft.replace(path)
            sync_folder(path.parent)

    def _draft(self, path: Path) -> str:
        # Looks like every half-made file of the store, so that what a kill leaves is tidied up as they are.
        return hashlib.sha256(f"{os.getpid()}{path}".encode(errors="surrogateescape")).hexdigest()[:16]

    # Signs of life

    def show(self, beat: Mapping[str, Any], *, new: bool = True) -> None:
        """Replace the heartbeat that views look at: that of the last writer, which is ours or one that we copy.

        Where it is neither, another host tells of the sweep by now, and only with `new` we do.
        """
        epochs = self.sweep.epochs()
        last = epochs[-1] if epochs else None
        if last is None or not self._ours(last):
            if not new:
                return
            self._shown = claim_epoch(self.sweep.paths, {**_me(), "time": time.time()})
        else:
            self._shown = last.number
        self.sweep.beat(self._shown, {**beat, "relay": _me()})

    def _ours(self, epoch: Epoch) -> bool:
        copied = epoch.host.get("mirrors")
        if isinstance(copied, dict):
            return copied.get("site") == self.site
        return epoch.number == self._shown

    @property
    def folder_id(self) -> str:
        """What `sweep.json` says now; "" where the folder is gone."""
        try:
            return SweepStore(self.sweep.paths).id
        except StoreError:
            return ""


def _me() -> dict[str, Any]:
    me = Process.current()
    return {
        "host": me.hostname, "boot": machine().partition("/")[0], "space": pid_space(), "pid": me.pid,
        "start": me.start, "since": _SINCE,
    }  # fmt: skip


_SINCE = time.time()


def _verified(path: Path) -> int:
    """Return up to where a segment is whole here, as its checksums tell."""
    segment = Segment(path)
    for _ in segment.stretches():
        pass
    # The schema has no checksum of its own: only a frame behind it vouches for it.
    return segment.offset if segment.offset > len(segment.head) else 0


def _checked(pattern: re.Pattern[str], name: str) -> str:
    if not pattern.fullmatch(name) or ".." in name.split("/"):
        raise StoreError(f"{name!r} is no file of a sweep.")
    return name
