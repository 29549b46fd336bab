"""The VM that a host lives on where a profile of kind gce says `host = "vm"`: what it is called, whether it is needed.

A kernel that wants a sweep driven leaves its request in the bucket and calls a process (`summoning.py`) that sees to
the VM. That process needs nobody: a kernel that is killed while it asks leaves a VM that is wanted, or none.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mce_notebook.errors import HostError, ProfileError
from mce_notebook.run import client
from mce_notebook.run.clusters.cloud import Cloud
from mce_notebook.run.clusters.finding import available, find, read
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.registry import runtime_root
from mce_notebook.store.catalog import Store
from mce_notebook.store.places import shown
from mce_notebook.store.requests import told

# A VM has this long to boot, pull its container and serve (seconds).
BOOT_SECONDS = 900.0
# A heartbeat of this age is one of a host that lives; a VM whose host is silent for longer than the second is given up.
FRESH_SECONDS, DEAD_SECONDS = 25.0, 60.0
# A VM whose host said so long ago that it has ended, and that is still there, will not go by itself (seconds).
GONE_SECONDS = 300.0
# https://cloud.google.com/compute/docs/instances/instance-lifecycle: a VM that is there, or will be.
ALIVE = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING")
LOG = "summoning.log"
STARTING = "The VM of its host is starting."

# What there is for a profile and a store: a host that serves, a VM that comes up, one that goes, one that is of no use.
SERVING, COMING, LEAVING, USELESS, NOTHING = "serving", "coming", "leaving", "useless", "nothing"


@dataclass(frozen=True)
class There:
    """One VM as Google lists it.

    Parameters
    ----------
    name, zone, status, number : str
        The number is Google's own, which no later VM of that name has.
    born : float
        Seconds since 1970.
    labels, config : mapping
        Its labels, and what it was told (`vm.CONFIG`).
    """

    name: str
    zone: str
    status: str
    number: str = ""
    born: float = 0.0
    labels: Mapping[str, str] | None = None
    config: Mapping[str, Any] | None = None

    @property
    def job(self) -> str:
        """The same as consoles know it."""
        return f"{self.zone}/{self.name}"


def name_of(cloud: Cloud, profile: str, store: str) -> str:
    """Return what the VM is called that serves a profile in a store: the same, whoever asks."""
    said = json.dumps([cloud.project, profile, store])
    return f"mce-{hashlib.sha256(said.encode()).hexdigest()[:8]}-host"


def is_name(text: str) -> bool:
    """Return whether something can be the name of such a VM."""
    return re.fullmatch(r"mce-[0-9a-f]{8}-host", text) is not None


def judge(beacon: Mapping[str, Any], vms: Sequence[There], now: float) -> tuple[str, There | None]:
    """Say what there is, from the heartbeat in the store and Google's list of VMs; and which VM that is.

    `now` is Google's time, as are those of the VMs: the clock of this machine could have them look dead.
    """
    serving = beacon.get("state") == "serving"
    age = abs(now - float(beacon.get("time") or 0.0))
    own = str(beacon.get("vm") or "")
    if serving and not own and age < FRESH_SECONDS:
        # Of a machine that the user looks after.
        return SERVING, None
    # In another zone there may be one more: of two that asked at once, Google may have had none there for one of them.
    for one in sorted(vms, key=lambda one: (one.number != own, one.status not in ALIVE)):
        if one.status not in ALIVE:
            return (LEAVING if one.status == "STOPPING" else USELESS), one
        if own != one.number:
            # It has not served yet.
            return (COMING if now - one.born < BOOT_SECONDS else USELESS), one
        if not serving:
            return (LEAVING if age < GONE_SECONDS else USELESS), one
        if age < FRESH_SECONDS:
            return SERVING, one
        return (LEAVING if age < DEAD_SECONDS else USELESS), one
    return NOTHING, None


def seen(store: Store, profile: str) -> bool:
    """Return whether a host of a profile says that it serves a store; its VM may be gone all the same."""
    beacon = told(store, profile)
    return beacon.get("state") == "serving" and abs(time.time() - float(beacon.get("time") or 0.0)) < FRESH_SECONDS


def table(name: str) -> tuple[Profile, dict[str, Any]]:
    """Return a profile, and its table as it is to be on the VM.

    Raises
    ------
    ProfileError, UntrustedCode
        As `find`; and where `max_cost` needs to know the price of the VM.
    """
    profile = find(name)
    cloud = profile.cloud
    if cloud is None or profile.host != "vm":
        raise ProfileError(f'The host of {name} lives on no VM; write kind = "gce" and host = "vm" in its profile.')
    if cloud.max_cost is not None and cloud.scheduler_price is None:
        raise ProfileError(
            f"max_cost of {name} needs to know what the VM of the host ({cloud.scheduler_machine}) costs for an hour: "
            "write scheduler_price = 0.04 in its profile."
        )
    said = dict(read(available()[name])[name])
    # Keys of this machine stay here: the VM has a service account. What the scheduler needs is where the host is.
    said.pop("credentials", None)
    return profile, {**said, "kind": profile.kind, "scheduler": "here"}


def summon(profile: str, root: Path, *, wait: bool) -> None:
    """Have a host for a profile in a store: see that its VM is there, or make it.

    Parameters
    ----------
    profile : str
    root : Path
        Of the store.
    wait : bool
        Whether to wait until Google has taken the VM; without, what goes wrong is told by the sweeps alone.

    Raises
    ------
    HostError
        With Google's words, if there can be none.
    """
    log = runtime_root() / LOG
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mce_notebook.run.clusters.summoning", profile, shown(root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Whatever becomes of this process, it goes on.
            start_new_session=True,
            env=client.environment(),
        )
    # It ends as soon as its own child has taken over.
    threading.Thread(target=process.wait, name="mce-summoning", daemon=True).start()
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline() if wait else b""
    if not wait:
        return
    try:
        answer = json.loads(line)
    except ValueError:
        raise HostError(f"The VM of the host could not be asked for; {log} says more.") from None
    if answer.get("error"):
        raise HostError(str(answer["error"]))


def endpoints() -> dict[str, str]:
    """Return other addresses of Google's services that this machine uses, as the VM is to use them, too."""
    from mce_notebook.run.clusters.compute import ENDPOINTS

    return {name: os.environ[name] for name in ENDPOINTS.values() if os.environ.get(name)}


def toml(name: str, said: Mapping[str, Any]) -> str:
    """Return a table of a profile as TOML: https://toml.io/en/v1.0.0.

    >>> print(toml("gce", {"zones": ["a"], "spot": True}))
    [gce]
    zones = ["a"]
    spot = true
    <BLANKLINE>
    """
    return "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in said.items()), ""])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for characters beyond the first plane, which are left as they are; and DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
