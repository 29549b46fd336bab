"""`host = "vm"`: the VM that a host lives on is made when a sweep wants it, by whoever asks, and is gone afterwards."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.declare.signing import user_key
from tests.buckets import new_bucket, served, variables
from tests.gce.conftest import until
from tests.gce.stand_in import StandIn
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(300)
NOISE = {"n": [3, 5, 7], "replicates": 4}
IDLE: dict[str, Any] = {"host": "vm", "idle_timeout": "6s"}
# What another kernel runs; its sweeps go on when it is killed.
KERNEL = """
    import os, sys, time
    import numpy as np
    import mce_notebook as mce
    def noise(n, rng):
        import time
        time.sleep(0.1)
        return float(rng.normal(size=n).mean())
    run = mce.sweep(noise, n=[3, 5, 7], replicates=4, on={on!r}, store={store!r}, name={name!r})
    print(run.state, run.progress.message, sep="; ", flush=True)
    time.sleep(1000)
"""


def noise(n: int, rng: np.random.Generator) -> float:
    import time

    time.sleep(0.1)
    return float(rng.normal(size=n).mean())


def slow(x: int) -> int:
    import time

    time.sleep(0.4)
    return x * x


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture
def store(server: str, alone: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that this machine and the VMs reach."""
    for name, value in {**variables(server), "MCE_CACHE_DIR": str(tmp_path / "here")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(alone.instances.room, "variables", variables(server))
    return f"s3://{new_bucket(server)}/experiments"


def kernel(store: str, on: str, name: str) -> "subprocess.Popen[str]":
    code = textwrap.dedent(KERNEL.format(store=store, on=on, name=name))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def left(google: StandIn) -> list[str]:
    return [*google.instances.names(), *google.secrets.kept]


def consoles(google: StandIn) -> str:
    """What all VMs said, for a test that fails."""
    return "\n".join(f"== {name}\n{google.instances.machine(name).console}" for name in google.instances.ever)


def test_a_kernel_that_is_killed_after_launch_leaves_a_sweep_that_ends(
    alone: StandIn, profiles: Profiles, store: str, tmp_path: Path
) -> None:
    asking = kernel(store, profiles.set("away", **IDLE), "there")
    try:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "queued; The VM of its host is starting.\n"
    finally:
        asking.send_signal(signal.SIGKILL)
        asking.communicate()
    (vm,) = alone.instances.running("host")
    there = mce.open("there", store=store).result(timeout=200)
    here = mce.sweep(noise, **NOISE, on="inline", name="there", store=tmp_path / "b").result()
    assert there["noise"].values.tobytes() == here["noise"].values.tobytes()
    workers = [body for body in alone.instances.ever.values() if body["labels"]["mce-role"] == "worker"]
    assert vm in {body["labels"]["mce-machine"] for body in workers}
    assert not alone.problems, "Google would not take this"
    told = json.dumps([body["metadata"] for body in alone.instances.ever.values()])
    assert "PRIVATE KEY" not in told
    key = user_key()
    assert all(text not in told for text in (key.hex(), __import__("base64").b64encode(key).decode()))
    assert "idle_timeout" not in told, "the profile is nobody's business either"
    until(lambda: not left(alone), 60, lambda: f"{left(alone)}\n{consoles(alone)}")
    assert os.path.exists(tmp_path)
