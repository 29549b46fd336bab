"""Google on this machine, and profiles that go there."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mce_notebook.declare.environment import config_folder
from mce_notebook.run.client import HostHandle, hosts
from tests.gce.stand_in import StandIn
from tests.profiles import Profiles

PLAIN: dict[str, Any] = {
    "kind": "gce",
    "project": "fake-project",
    "zones": ["us-east1-c", "us-central1-a"],
    "machine": "n1-standard-1",
    "image": "sweeps",
    "idle_timeout": "10m",
    "max_workers": 2,
    "price": 0.5,
    "spot_price": 0.1,
    "scheduler_price": 0.05,
}


def until(true: Callable[[], Any], seconds: float = 60.0, what: Callable[[], object] | str = "") -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, what() if callable(what) else what or f"not within {seconds:g} s"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def google(runtime: Path) -> Iterator[StandIn]:
    """Google, for all tests; what the tests asked of it fits its own description."""
    with StandIn() as stand_in:
        told = {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{stand_in.url}/compute/v1/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"{stand_in.url}/",
            # Where hosts keep the logs of VMs.
            "HOME": str(runtime / "home"),
        }
        before = {name: os.environ.get(name) for name in told}
        os.environ.update(told)
        yield stand_in
        for host in gce_hosts():
            end(host)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@pytest.fixture(scope="session")
def profiles(google: StandIn, runtime: Path) -> Iterator[Profiles]:
    """Profiles that go to the stand-in."""
    key = runtime / "key.json"
    key.write_text(json.dumps(google.key_file()))
    yield Profiles({**PLAIN, "credentials": str(key)})
    (config_folder() / "clusters.toml").unlink(missing_ok=True)


@pytest.fixture
def alone(google: StandIn) -> Iterator[StandIn]:
    """Google with nothing going on; every host of the test ends with it, and nothing is left."""
    google.faults.clear()
    quotas = dict(google.instances.quotas)
    yield google
    google.instances.quotas.update(quotas)
    google.expired = False
    google.instances.haste = 1.0
    google.faults.clear()
    for host in gce_hosts():
        if (launch := host.folder.launch()) is not None and launch.profile != "hired":
            end(host)
    for name in google.instances.names("host"):
        google.instances.vanish(name)


def gce_hosts() -> list[HostHandle]:
    """The hosts of clusters of this kind."""
    return [host for host in hosts() if (launch := host.folder.launch()) and '"kind": "gce"' in launch.job]


def end(host: HostHandle) -> None:
    """End a host; what it said is shown when the test failed."""
    os.kill(host.process.pid, signal.SIGTERM)
    until(lambda: not host.alive(), 40, "the host did not leave")
    # Once more, for what is left of a process that has only just ended.
    host.alive()
    sys.stdout.write(host.folder.log.read_text())


def host_of(profile: str) -> HostHandle:
    """The host of a profile."""
    (found,) = (host for host in gce_hosts() if (launch := host.folder.launch()) and launch.profile == profile)
    return found
