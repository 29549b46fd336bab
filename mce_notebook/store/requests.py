"""Requests to a host that has only the store in common with whoever asks: what is to run, as files of the store.

`.inbox/<profile>/<name>.<intent>.<declaration>` says that the sweep wants a host of that profile. It is made after the
intent it names, and removed by the host once the sweep has ended, so that a host that dies leaves it to the next one.
Orders (pause, cancel) are intents of the sweep, which a host looks at by itself. `.hosts/<profile>.json` is the
heartbeat of the host.
"""

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.places import folder_of

_NAME = re.compile(r"(.+)\.(\d{6,})\.(\d{6,})", re.DOTALL)


@dataclass(frozen=True, order=True)
class Wanted:
    """A sweep that wants a host: its name, and the numbers of the intent and the declaration that say so."""

    name: str
    intent: int
    declaration: int

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.{self.intent:06d}.{self.declaration:06d}"


def inbox(root: Path, profile: str) -> Path:
    """Folder of the requests to the host of a profile."""
    return root / ".inbox" / profile


def ask(sweep: SweepStore, profile: str, intent: int, declaration: int) -> None:
    """Leave a request, durable on return; one that is there already is as good."""
    root = sweep.paths.folder.parent
    wanted = Wanted(sweep.paths.folder.name, intent, declaration)
    folder_of(root).replace(inbox(root, profile) / wanted.file, b"{}")


def waiting(store: Store, profile: str) -> list[Wanted]:
    """Return what a host of a profile has been asked for, oldest first within a sweep."""
    found = map(_NAME.fullmatch, store.folder.names(inbox(store.root, profile)))
    return sorted(Wanted(match[1], int(match[2]), int(match[3])) for match in found if match)


def done(store: Store, profile: str, wanted: Wanted) -> None:
    """Remove a request."""
    store.folder.remove(inbox(store.root, profile) / wanted.file)


def beacon(root: Path, profile: str) -> Path:
    """Heartbeat of the host of a profile."""
    return root / ".hosts" / f"{profile}.json"


def tell(store: Store, profile: str, state: Mapping[str, Any]) -> None:
    """Replace the heartbeat of the host of a profile."""
    # The time makes each differ from the last, and tells people how old it is.
    store.folder.replace(beacon(store.root, profile), json.dumps({**state, "time": time.time()}).encode())


def told(store: Store, profile: str) -> dict[str, Any]:
    """Return the heartbeat of the host of a profile; empty where there never was one."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        return dict(json.loads(store.folder.read(beacon(store.root, profile))))
    return {}
