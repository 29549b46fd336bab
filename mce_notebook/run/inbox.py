"""Requests to a host: JSON files that appear by rename, in the order in which they were made.

The files are the truth; the doorbell only says when to look. A request stays until the host has acted on it,
so one that was made to a dying host is found by the next.
"""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mce_notebook.run.registry import HostFolder, read_json, write_json

VERBS = ("run", "resume", "pause", "cancel", "stop", "shutdown", "resize", "start", "log")
REPLY_SECONDS = 600.0
# What a host says to its subscribers: that something is new; that a sweep ended, or has nothing left to compute.
NEW = b"."
ENDED = b"!"
_counter = itertools.count()


@dataclass(frozen=True)
class Request:
    """One request: what to do, with which sweep."""

    name: str
    body: dict[str, Any]

    @property
    def verb(self) -> str:
        """What to do, one of `VERBS`."""
        return str(self.body.get("verb", ""))


class Inbox:
    """The inbox of one host, from both sides."""

    def __init__(self, folder: HostFolder):
        self.folder = folder

    def put(self, body: dict[str, Any]) -> str:
        """Leave a request and return its name, which its reply has too."""
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_counter)}"
        write_json(self.folder.inbox / f"{name}.json", body)
        return name

    def requests(self) -> Iterator[Request]:
        """Yield what waits, oldest first. A file that is no request is removed: it cannot become one."""
        for entry in sorted(os.listdir(self.folder.inbox)):
            if entry.startswith(".") or not entry.endswith(".json"):
                continue
            body = read_json(self.folder.inbox / entry)
            if isinstance(body, dict):
                yield Request(entry.removesuffix(".json"), body)
            else:
                (self.folder.inbox / entry).unlink(missing_ok=True)

    def answer(self, request: Request, reply: dict[str, Any]) -> None:
        """Say what became of a request, then remove it; it is removed even where no reply can be written."""
        try:
            write_json(self.folder.replies / f"{request.name}.json", reply)
        finally:
            (self.folder.inbox / f"{request.name}.json").unlink(missing_ok=True)

    def reply(self, name: str) -> dict[str, Any] | None:
        """Return and remove the reply to the request `name`; None while there is none."""
        path = self.folder.replies / f"{name}.json"
        found = read_json(path)
        if not isinstance(found, dict):
            return None
        path.unlink(missing_ok=True)
        return found

    def forget_replies(self, *, older: float = REPLY_SECONDS) -> None:
        """Remove replies nobody fetched within `older` seconds."""
        limit = time.time() - older
        for entry in os.scandir(self.folder.replies):
            try:
                if entry.stat().st_mtime < limit:
                    Path(entry.path).unlink(missing_ok=True)
            except FileNotFoundError:
                continue
