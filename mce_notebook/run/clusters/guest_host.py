"""The host on a VM of its own: what `mce host` does, with what Secret Manager keeps for it; see `summoning.py`.

The VM is its user's: whoever may log in to it has what it has. It ends when there is nothing to do, and before Google
ends it, in good order.
"""

import asyncio
import base64
import contextlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mce_notebook.errors import CloudError, SweepError
from mce_notebook.run.client import hosts
from mce_notebook.run.clusters import orphans, vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.host_vm import ALIVE
from mce_notebook.run.station import Station
from mce_notebook.store.requests import waiting

log = logging.getLogger("mce_notebook.station")

# So long before Google deletes the VM, its hosts are told to end (seconds); less where the VM does not live long.
LEAVE_SECONDS = 120.0
FOLLOW_SECONDS = 2.0


def serve(config: Mapping[str, Any], keys: Mapping[str, str], number: str) -> None:
    """Be the host of a profile in a store until there is nothing left to do.

    Parameters
    ----------
    config : mapping
        As `Summons` wrote it.
    keys : mapping
        What Secret Manager had: `signing`, `profiles`.
    number : str
        Google's number of this VM.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    _settle(config, keys)
    try:
        asyncio.run(_clear(config))
    except CloudError as error:
        _say(f"{vm.REFUSED}the secret that this VM was told by cannot be deleted: {error}")
        sys.exit(3)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        _serve(config, number)
    except SweepError as error:
        _say(f"{vm.REFUSED}{error}")
        sys.exit(3)


def _serve(config: Mapping[str, Any], number: str) -> None:
    while True:
        station = Station(config["profile"], config["store"], say=_say, vm=number)
        timer = threading.Timer(_left(config), station.leave)
        timer.daemon = True
        timer.start()
        station.run()
        timer.cancel()
        # Whoever asked before it said that it had ended relies on it.
        if station.told_to_leave or not waiting(station.store, station.profile):
            return


def _settle(config: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    """Make the folders of a user of this package, with the key and the profile of whoever made the VM."""
    # Not in memory, as /tmp is on some images: the mirror of a bucket may be large.
    above = os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else None)
    folder = Path(tempfile.mkdtemp(prefix="mce-", dir=above))
    for name in ("config", "cache", "run"):
        (folder / name).mkdir(mode=0o700)
    _write(folder / "config" / "signing.key", base64.b64decode(keys["signing"]))
    _write(folder / "config" / "clusters.toml", keys["profiles"].encode())
    os.environ.update(
        {
            "MCE_CONFIG_DIR": str(folder / "config"),
            "MCE_CACHE_DIR": str(folder / "cache"),
            "MCE_RUNTIME_DIR": str(folder / "run"),
            vm.OWN: config["name"],
            # Labels say whose VMs these are: not root's.
            "LOGNAME": config["user"],
            **config["endpoints"],
        }
    )
    # Start-up scripts have none.
    os.environ.setdefault("HOME", str(folder))
    os.chdir(folder)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


async def _clear(config: Mapping[str, Any]) -> None:
    """Delete this VM's secret, before there are workers that could read it: they may have the same service account.

    And what the hosts of a VM before this one have left, which has the name of this one and no host.

    Raises
    ------
    CloudError
        If the secret may still be there.
    """
    project, name = config["project"], config["name"]
    google = await asyncio.to_thread(Google)
    await orphans.delete(google, project, [("", config["drop"])])
    try:
        same = await orphans.instances(google, project, {vm.CLUSTER: name, vm.ROLE: vm.STATION})
        if sum(one.status in ALIVE for one in same) > 1:
            # In two zones at once: what is there may be the other's, which serves.
            return
        left = await orphans.found(google, project, {vm.MACHINE: name})
        await orphans.delete(google, project, [(one.zone, one.name) for one in left])
    except CloudError as error:
        log.warning("secrets may be left until they end by themselves: %s", error)


def _left(config: Mapping[str, Any]) -> float:
    """Return the seconds until this VM has to be left."""
    seconds = float(config["seconds"])
    spent = time.time() - float(os.environ.get(vm.BEGAN) or time.time())
    return max(0.0, seconds - spent - min(LEAVE_SECONDS, 0.2 * seconds))


def _follow() -> None:
    """Show on the console what the hosts of this VM have to say."""
    shown: dict[Path, int] = {}
    while True:
        for host in hosts():
            # One that has just begun has none.
            with contextlib.suppress(OSError):
                _show(host.folder.log, shown)
        time.sleep(FOLLOW_SECONDS)


def _show(path: Path, shown: dict[Path, int]) -> None:
    with path.open("rb") as file:
        file.seek(shown.get(path, 0))
        text = file.read()
    shown[path] = shown.get(path, 0) + len(text)
    for line in text.decode(errors="replace").splitlines():
        _say(f"host: {line}")


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()
