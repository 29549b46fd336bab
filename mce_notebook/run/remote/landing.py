"""On the far side: sweeps that were sent, in a store of their own that hosts there work on.

<folder>/sweeps/<key>/        a store; the key tells whose sweep it is and where it lives at home
  .site                       random: tells this store from one that was deleted and made again
  .incoming/                  what is being sent
  <name>/                     the sweep, as everywhere
"""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mce_notebook.declare import bundle, signing
from mce_notebook.errors import AlreadyExists, StoreError
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.folder import sync_data, sync_folder
from mce_notebook.store.journal import claim_epoch
from mce_notebook.store.layout import SweepLayout, checked_name

# What refers to others is put in place behind them.
_ORDER = ("objects", "env", "code", "declarations/tables", "sweep.json", "declarations")
_KEY = re.compile(r"[0-9a-f]{16,64}")


class Landing:
    """One sweep that was sent.

    Parameters
    ----------
    folder : Path
        The folder of the profile.
    key, name : str
    """

    def __init__(self, folder: Path, key: str, name: str):
        if not _KEY.fullmatch(key):
            raise StoreError(f"{key!r} is no key of a sweep.")
        self.root = folder / "sweeps" / key
        self.paths = SweepLayout(self.root / checked_name(name))
        self._incoming = self.root / ".incoming"
        # What went wrong with a piece that was sent.
        self.trouble = ""

    @property
    def sweep(self) -> SweepStore:
        """The sweep, once it is there."""
        return Store(self.root).sweep(self.paths.folder.name)

    @property
    def site(self) -> str:
        """What tells this store from any other, made when there is none."""
        path = self.root / ".site"
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(AlreadyExists):
            if not path.exists():
                Store(self.root).folder.create(path, secrets.token_hex(16).encode())
        return path.read_text(encoding="ascii")

    def missing(self, files: Mapping[str, int], code: str) -> list[str]:
        """Return which of `files` (sizes by path) have to be sent; of the code all or nothing."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        trusted = bundle.trusted(self.paths.code(code))
        found = []
        for name, size in files.items():
            if name.startswith("code/"):
                there = trusted
            else:
                path = self.paths.folder / _inside(name)
                there = path.is_file() and path.stat().st_size == size
            if not there:
                found.append(name)
        return found

    def put(self, name: str, at: int, data: bytes) -> None:
        """Keep a piece of a file that is being sent."""
        path = self._incoming / _inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "xb") as file:
            file.seek(at)
            file.write(data)

    def commit(self) -> None:
        """Put what was sent into its places, each thing behind what it refers to.

        Raises
        ------
        UntrustedCode
            If the files of the code are not those its manifest names.
        StoreError
            If some of it could not be written.
        """
        if self.trouble:
            raise StoreError(self.trouble)
        for manifest in self._incoming.glob(f"code/*/{signing.MANIFEST}"):
            # It came over the connection of this user, who signed it at home with a key that stays there.
            signing.trust(manifest.parent)
        sent = sorted(path for path in self._incoming.rglob("*") if path.is_file())
        for path in sent:
            with path.open("rb") as file:
                sync_data(file.fileno())
        for kind in _ORDER:
            source = self._incoming / kind
            for path in sorted(source.iterdir()) if source.is_dir() else [source]:
                if kind == "code" and path.is_dir():
                    self._place_folder(path)
                elif path.is_file():
                    self._place(path)
        for name in ("intents", "epochs", "log"):
            (self.paths.folder / name).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._incoming, ignore_errors=True)

    def _place(self, path: Path) -> None:
        target = self.paths.folder / path.relative_to(self._incoming)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        sync_folder(target.parent)

    def _place_folder(self, folder: Path) -> None:
        target = self.paths.folder / folder.relative_to(self._incoming)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(self.root / f".old-{secrets.token_hex(8)}")
        folder.rename(target)
        sync_folder(target.parent)
        for old in self.root.glob(".old-*"):
            shutil.rmtree(old, ignore_errors=True)

    # What is known at home

    def told(self) -> str:
        """Return the digest of what was last said to be known at home."""
        for epoch in reversed(self.sweep.epochs()):
            if "elsewhere" in epoch.host and self.paths.epoch_closed(epoch.number).exists():
                return str(epoch.host["elsewhere"])
        return ""

    def know(self, digest: str, sidecar: bytes) -> None:
        """Note which outcomes are at home already: an epoch that vouches for them and has none of them."""
        claim: dict[str, Any] = {"host": "", "pid": 0, "time": 0.0, "elsewhere": digest}
        number = claim_epoch(self.paths, claim)
        folder = Store(self.root).folder
        folder.replace(self.paths.coverage(number), sidecar)
        folder.create(self.paths.elsewhere(number), digest.encode())
        folder.create(self.paths.epoch_closed(number), json.dumps({"segments": 0}).encode())

    def intend(self, verb: str, by: str) -> int:
        """Record what is wanted, unless that holds already; return the number of the intent that holds."""
        latest = self.sweep.latest_intent()
        if latest is None or latest.verb != verb:
            latest = self.sweep.add_intent(verb, by)
        return latest.number


def _inside(name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or os.sep in name.replace("/", ""):
        raise StoreError(f"{name!r} leads out of the sweep.")
    return Path(path)
