"""One host at a time for each sweep: another `--on` moves it, and the host it leaves finishes what it has begun."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from mce_notebook.errors import HostError
from mce_notebook.run.client import HostHandle
from mce_notebook.run.registry import folders

LOOK_SECONDS = 0.2
# A host whose heartbeat has stopped for so long is waited for no longer (seconds); two at once are merely wasteful.
STILL_SECONDS = 10.0


async def alone(me: Path, store: str, name: str) -> None:
    """Ask every other host that drives a sweep to hand it over, and wait until none does.

    Parameters
    ----------
    me : Path
        Folder of the host that asks.
    store, name : str
        The sweep, as requests name it.
    """
    asked: set[Path] = set()
    beats: dict[Path, tuple[object, float]] = {}
    while True:
        others = await asyncio.to_thread(lambda: list(_driving(me, store, name)))
        for host in others:
            key, counter = host.folder.path, host.state().get("counter")
            if key not in asked:
                asked.add(key)
                with contextlib.suppress(HostError, OSError):
                    host.request({"verb": "stop", "store": store, "name": name, "moved": True})
            if key not in beats or beats[key][0] != counter:
                beats[key] = counter, time.monotonic()
            host.close()
        if all(time.monotonic() - beats[host.folder.path][1] > STILL_SECONDS for host in others):
            return
        await asyncio.sleep(LOOK_SECONDS)


def _driving(me: Path, store: str, name: str) -> Iterator[HostHandle]:
    """Yield the other hosts of this machine that say they drive a sweep."""
    for folder in folders(me.parent):
        owner = folder.owner() if folder.path != me else None
        if owner is None:
            continue
        state = folder.state()
        driven = [(sweep.get("store"), sweep.get("name")) for sweep in state.get("sweeps") or ()]
        if state.get("pid") == owner.pid and (store, name) in driven:
            yield HostHandle(folder, owner)
