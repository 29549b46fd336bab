"""`host = "vm"`: the VM that a host lives on is made when a sweep wants it, by whoever asks, and is gone afterwards."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.declare.signing import user_key
from mce_notebook.errors import HostError, OptionError, SweepStopped
from mce_notebook.frontends.cluster_actions import act
from mce_notebook.run.clusters import host_vm
from mce_notebook.run.registry import runtime_root
from mce_notebook.store.catalog import Store
from mce_notebook.store.reader import LogReader
from mce_notebook.store.requests import tell, waiting
from tests.buckets import new_bucket, served, variables
from tests.gce.conftest import until
from tests.gce.points import noise, slow
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


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture
def store(server: str, alone: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket that this machine and the VMs reach."""
    for name, value in {**variables(server), "MCE_CACHE_DIR": str(tmp_path / "here")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(alone.instances.room, "variables", variables(server))
    yield f"s3://{new_bucket(server)}/experiments"
    # What a test that failed has left is no business of the next.
    clear(alone)


def clear(google: StandIn) -> None:
    for name in google.instances.names():
        labels = google.instances.ever[name]["labels"]
        if labels["mce-role"] == "host" or labels["mce-machine"].endswith("-host"):
            google.instances.vanish(name)
    for name, secret in list(google.secrets.kept.items()):
        labels = secret["secret"]["labels"]
        if labels.get("mce-role") == "host" or labels["mce-machine"].endswith("-host"):
            google.secrets.kept.pop(name, None)


def kernel(store: str, on: str, name: str) -> "subprocess.Popen[str]":
    code = textwrap.dedent(KERNEL.format(store=store, on=on, name=name))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def left(google: StandIn) -> list[str]:
    return [*google.instances.names(), *google.secrets.kept]


def consoles(google: StandIn) -> str:
    """What all VMs said, for a test that fails."""
    return "\n".join(f"== {name}\n{google.instances.machine(name).console}" for name in google.instances.ever)


def test_two_kernels_that_are_killed_after_launch_get_one_vm_and_their_sweeps_end(
    alone: StandIn, profiles: Profiles, store: str, tmp_path: Path
) -> None:
    away, before = profiles.set("couple", **IDLE), len(alone.secrets.ever)
    # So that both ask before either has a VM.
    alone.fail("http:503:backendError", times=2)
    asking = [kernel(store, away, name) for name in ("there", "again")]
    try:
        for one in asking:
            assert one.stdout is not None
            # Without a message where the host is there already, and its workers are not.
            said = one.stdout.readline()
            assert said in ("queued; The VM of its host is starting.\n", "queued; \n", "running; \n")
    finally:
        for one in asking:
            one.send_signal(signal.SIGKILL)
            one.communicate()
    (vm,) = alone.instances.running("host")
    asked = [Store(store).sweep(name).latest_intent() for name in ("there", "again")]
    assert host_vm.STARTING in [intent.note for intent in asked if intent is not None]
    for name in ("there", "again"):
        there = mce.open(name, store=store).result(timeout=200)
        here = mce.sweep(noise, **NOISE, on="inline", name=name, store=tmp_path / "b").result()
        assert there["noise"].values.tobytes() == here["noise"].values.tobytes()
    made = [body for body in alone.instances.ever.values() if body["labels"]["mce-profile"] == away]
    assert [body["name"] for body in made if is_host(body, away)] == [vm]
    assert {body["labels"]["mce-machine"] for body in made if not is_host(body, away)} == {vm}
    assert not alone.problems, "Google would not take this"
    check_nothing_is_told(alone, made)
    # The keys of each who asked were there before there were workers, and not any more then.
    read = [name for _, name in alone.secrets.read if name.startswith(vm)]
    assert len(read) == 1
    assert len([name for name in alone.secrets.ever[before:] if name.startswith(vm)]) in (1, 2)
    until(lambda: not left(alone), 60, lambda: f"{left(alone)}\n{consoles(alone)}")


def check_nothing_is_told(google: StandIn, made: list[dict[str, Any]]) -> None:
    """Nothing secret is where everybody reads who sees the project: in metadata, labels, on consoles."""
    told = json.dumps(made) + "".join(google.instances.machine(body["name"]).console for body in made)
    key = user_key()
    for secret in ("PRIVATE KEY", key.hex(), base64.b64encode(key).decode(), "idle_timeout", "credentials ="):
        assert secret not in told


@pytest.mark.nightly
def test_a_kernel_may_be_killed_at_any_moment(alone: StandIn, profiles: Profiles, store: str) -> None:
    away = profiles.set("cut_off", **IDLE)
    for number, seconds in enumerate((0.8, 1.6, 2.4, 3.2, 4.0)):
        asking = kernel(store, away, f"cut{number}")
        time.sleep(seconds)
        asking.send_signal(signal.SIGKILL)
        asking.communicate()
    for name in Store(store).names():
        # What was asked for is done by whoever is there; what was not waits for its cell.
        if waiting(Store(store), away):
            mce.open(name, store=store).wait(200)
    until(lambda: not left(alone), 120, lambda: f"{left(alone)}\n{consoles(alone)}")
    assert act("reap", away) == "Nothing was left behind by hosts that are gone."


def test_what_is_left_by_who_was_killed_while_asking_is_reaped(alone: StandIn, profiles: Profiles, store: str) -> None:
    asked = profiles.set("asked", **IDLE)
    alone.fail("http:503:backendError", times=99)
    asking = kernel(store, asked, "there")
    try:
        (secret,) = until(lambda: [name for name in alone.secrets.kept if "-host-" in name], 60)
    finally:
        asking.kill()
        asking.communicate()
    assert act("reap", asked) == "Nothing was left behind by hosts that are gone.", "somebody goes on asking"
    process = int(alone.secrets.kept[secret]["secret"]["labels"]["mce-host"].removeprefix("pid-"))
    os.kill(process, signal.SIGKILL)
    said = until(lambda: (found := act("reap", asked)) and secret in found and found, 20)
    assert "1 thing was left behind by hosts that are gone" in said
    assert "All of it is deleted" in act("reap", asked, sure=True)
    assert not left(alone)


def is_host(body: dict[str, Any], profile: str) -> bool:
    labels = body.get("labels", {})
    return labels.get("mce-role") == "host" and labels.get("mce-profile") == profile


def test_where_somebodys_own_host_is_seen_no_vm_is_made(alone: StandIn, profiles: Profiles, store: str) -> None:
    seen = profiles.set("seen", **IDLE)
    tell(Store(store), seen, {"state": "serving", "host": "mine", "pid": 1})
    handle = mce.sweep(slow, x=[1], on=seen, store=store)
    assert (handle.state, handle.progress.message) == ("queued", "")
    log = runtime_root() / host_vm.LOG

    def noticed() -> bool:
        # As a host does.
        tell(Store(store), seen, {"state": "serving", "host": "mine", "pid": 1})
        return log.exists() and "seen is served" in log.read_text()

    until(noticed, 60)
    assert not left(alone)


@pytest.mark.nightly
def test_where_somebodys_own_host_serves_no_vm_is_made(
    alone: StandIn, profiles: Profiles, store: str, tmp_path: Path
) -> None:
    own = profiles.set("own", host="vm", scheduler="here", max_workers=1)
    command = [sys.executable, "-c", "from mce_notebook.frontends.cli import main; main()"]
    command += ["host", own, "--store", store, "--idle", "20s"]
    there = {**os.environ, "MCE_CACHE_DIR": str(tmp_path / "there")}
    with subprocess.Popen(command, env=there, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            assert "Serving own" in serving.stdout.readline()
            handle = mce.sweep(slow, x=range(3), on=own, store=store)
            assert "VM" not in handle.progress.message
            assert handle.result(timeout=200)["slow"].values.tolist() == [0, 1, 4]
            assert serving.wait(timeout=120) == 0
        finally:
            serving.kill()
    assert not [body for body in alone.instances.ever.values() if is_host(body, own)]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("op:ZONE_RESOURCE_POOL_EXHAUSTED", "Google has no e2-medium now in us-east1-c, us-central1-a: "),
        ("op:QUOTA_EXCEEDED", "https://console.cloud.google.com/iam-admin/quotas"),
        ("http:403:forbidden", "needs a role that allows this"),
    ],
)
def test_a_refusal_of_google_is_told_at_launch_and_to_everybody(
    alone: StandIn, profiles: Profiles, store: str, fault: str, told: str
) -> None:
    alone.fail(fault, times=99)
    with pytest.raises(HostError, match=told):
        mce.sweep(slow, x=[1], on=profiles.set("refused", **IDLE), store=store)
    # Whoever looks from elsewhere sees why, too, and there is nothing left.
    found = mce.open("slow", store=store).progress
    assert found.state == "stopped"
    assert told in found.message
    assert not left(alone)


@pytest.mark.nightly
def test_a_vm_that_cannot_serve_stops_the_sweep_with_its_last_words(
    alone: StandIn, profiles: Profiles, store: str
) -> None:
    broken = profiles.set("broken_host", **IDLE, prologue=["echo there is no such disk >&2", "exit 3"])
    handle = mce.sweep(slow, x=[1], on=broken, store=store)
    with pytest.raises(SweepStopped, match=r"The VM of the host, us-east1-c/mce-\w+-host, ended .*no such disk"):
        handle.result(timeout=60)
    # What is mended is used at once, not when the VM has gone by itself.
    profiles.set("broken_host", **IDLE, prologue=None)
    handle = mce.sweep(slow, x=[1], on=broken, store=store)
    assert handle.state == "queued"
    assert handle.result(timeout=200)["slow"].values.tolist() == [1]
    act("stop", broken)
    until(lambda: not left(alone), 60, lambda: f"{left(alone)}\n{consoles(alone)}")


@pytest.mark.nightly
def test_the_verbs_know_the_vm(alone: StandIn, profiles: Profiles, store: str) -> None:
    told = profiles.set("told", **IDLE, max_workers=1)
    with pytest.raises(HostError, match="No VM with a host of told is there"):
        act("nodes", told)
    said = act("check", told)
    assert "an hour costs up to 0.55: 1 VMs of 0.5 + 0.05 for e2-medium with the host" in said
    assert '"mce-role": "host"' in said
    assert "Storage Object Admin of the bucket" in said
    assert "firewall" not in said
    handle = mce.sweep(slow, x=range(400), on=told, store=store)
    (vm,) = alone.instances.running("host")
    assert re.search(rf"told +starts on {vm}, {store} ", act("list"))
    until(lambda: handle.progress.done > 2, 120, lambda: consoles(alone))
    until(lambda: re.search(r"ready +1 ", act("nodes", told)), 60, lambda: act("nodes", told))
    assert re.search(rf"us-east1-c/{vm} +serves +host +{store}", act("nodes", told))
    assert re.search(r"cost so far: 0\.0\d USD, 0\.55 an hour now", act("nodes", told))
    assert "Serving told in" in act("log", told)
    assert act("reap", told) == "Nothing was left behind by hosts that are gone."
    with pytest.raises(OptionError, match="told runs slow; add --yes"):
        act("stop", told)
    with pytest.raises(HostError, match="for which `resize` has nothing to do"):
        act("resize", told, 3)
    done = handle.progress.done
    assert "told is stopped; the VM of its host" in act("stop", told, sure=True)
    until(lambda: not left(alone), 20, lambda: str(left(alone)))
    assert mce.open("slow", store=store).progress.done >= done


@pytest.mark.nightly
def test_a_host_that_is_lost_interrupts_the_sweep_which_resumes(alone: StandIn, profiles: Profiles, store: str) -> None:
    handle = mce.sweep(slow, x=range(60), on=profiles.set("lost", **IDLE), store=store)
    until(lambda: handle.progress.done > 5, 120, lambda: consoles(alone))
    (vm,) = alone.instances.running("host")
    alone.instances.vanish(vm)
    seen = mce.open("slow", store=store)
    until(lambda: seen.state == "interrupted", 60, lambda: seen.progress)
    known = {int(x) for x in np.flatnonzero(np.isfinite(seen.dataset["slow"].values))}
    assert len(known) > 5
    epochs = seen._store.last_epoch()
    seen.resume()
    assert seen.result(timeout=200)["slow"].values.tolist() == [x * x for x in range(60)]
    # What was known was not computed again.
    later = [batch for batch in LogReader(seen._store.paths).poll() if batch.order[0] > epochs]
    again = {int(index) for batch in later for index in batch.index}
    assert not again & known
    until(lambda: not left(alone), 90, lambda: f"{left(alone)}\n{consoles(alone)}")


@pytest.mark.nightly
def test_a_vm_whose_system_died_is_reaped_or_replaced(
    alone: StandIn, profiles: Profiles, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    panic = profiles.set("panic", **IDLE)
    handle = mce.sweep(slow, x=range(60), on=panic, store=store)
    until(lambda: handle.progress.done > 5, 120, lambda: consoles(alone))
    (vm,) = alone.instances.running("host")
    # Google goes on to say that it runs.
    alone.instances.room.switch_off(alone.instances.machine(vm))
    seen = mce.open("slow", store=store)
    until(lambda: seen.state == "interrupted", 60, lambda: seen.progress)
    assert alone.instances.running("host") == [vm]
    with monkeypatch.context() as patch:
        patch.setattr(host_vm, "FRESH_SECONDS", 0.0)
        patch.setattr(host_vm, "DEAD_SECONDS", 0.0)
        said = act("reap", panic)
    assert re.search(rf"VM +{vm}", said)
    assert re.search(r"secret +mce-\w+-worker", said)
    number = alone.instances.record(vm)["id"]
    seen.resume()
    assert seen.result(timeout=200)["slow"].values.tolist() == [x * x for x in range(60)]
    assert not [one for one in alone.instances.running("host") if alone.instances.record(one)["id"] == number]
    until(lambda: not left(alone), 90, lambda: f"{left(alone)}\n{consoles(alone)}")
