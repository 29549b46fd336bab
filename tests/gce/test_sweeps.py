"""Sweeps on VMs: the same bits as here, whatever happens to the VMs; and nothing left when it is over."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.errors import SweepStopped
from mce_notebook.frontends.cluster_actions import act
from tests.gce.conftest import host_of, until
from tests.gce.points import noise, slow
from tests.gce.stand_in import VM_EMAIL, StandIn
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(240)
# Without a VM for the scheduler: this machine is where VMs of the stand-in can connect to.
HERE = {"scheduler": "here"}
NOISE = {"n": [3, 5, 7], "replicates": 4}


def test_a_sweep_runs_on_vms_and_its_bits_are_those_of_this_machine(
    root: Path, google: StandIn, profiles: Profiles
) -> None:
    there = mce.sweep(noise, **NOISE, on=profiles.set("hired", spot=True), name="there").result()
    here = mce.sweep(noise, **NOISE, on="inline", name="there", store=root / "b").result()
    assert there["noise"].values.tobytes() == here["noise"].values.tobytes()
    assert np.isfinite(there["noise"].values).all()
    assert not google.problems, "Google would not take this"


def test_no_key_is_in_any_metadata_and_workers_read_the_secret_of_workers_alone(
    google: StandIn, profiles: Profiles
) -> None:
    # After the test above, which made a scheduler and workers.
    told = json.dumps([body["metadata"] for body in google.instances.ever.values()])
    assert "PRIVATE KEY" not in told
    assert "BEGIN" not in told
    state = host_of("hired").state()
    scheduler, workers = f"{state['cluster']}-scheduler", f"{state['cluster']}-worker"
    assert set(google.secrets.kept) == {workers}, "the scheduler's is gone as soon as it runs"
    mine = [name for _, name in google.secrets.read if name.startswith(state["cluster"])]
    assert mine[0] == scheduler
    assert set(mine[1:]) == {workers}
    assert google.secrets.kept[workers]["policy"]["bindings"] == [
        {"role": "roles/secretmanager.secretAccessor", "members": [f"serviceAccount:{VM_EMAIL}"]}
    ]
    content = json.dumps(google.secrets.kept[workers]["versions"])
    assert "client" not in content
    assert len(google.secrets.kept[workers]["versions"]) == 1


def test_the_verbs_tell_of_vms_and_money(google: StandIn, profiles: Profiles) -> None:
    assert re.match(r"hired is ready after [\d.]+ s: [12] slots?\.", act("start", "hired", 1, say=lambda _: None))
    (name, *_) = google.instances.running()
    assert re.search(rf"us-east1-c/{name} +ready +1 +{name}", act("nodes", "hired"))
    assert re.search(r"cost so far: 0\.0\d USD, 0\.\d+ an hour now\nVM +state", act("nodes", "hired"))
    assert "Registered to:" in until(lambda: (log := act("log", "hired")) and "Registered" in log and log, 120)
    act("resize", "hired", 0)


def test_vms_are_taken_away_or_vanish_and_no_point_is_blamed(root: Path, google: StandIn, profiles: Profiles) -> None:
    handle = mce.sweep(slow, x=range(40), on="hired")
    host = host_of("hired")
    cluster = host.state()["cluster"]
    until(lambda: handle.progress.done > 2 and len(google.instances.running()) == 2, 120)
    first, second = google.instances.running()
    google.instances.preempt(first)
    until(lambda: handle.progress.done > 12, 120)
    google.instances.vanish(second)
    assert handle.result()["slow"].values.tolist() == [x * x for x in range(40)]
    assert handle.progress.failed == handle.progress.killed == 0
    log = host.folder.log.read_text()
    assert f"{first} (us-east1-c/{first}): PREEMPTED compute.instances.preempted" in log
    assert f"{second} (us-east1-c/{second}): NODE_FAIL the VM is gone" in log
    # All that was made is gone with the cluster.
    assert act("stop", "hired") == "hired is stopped, and its VMs are deleted."
    until(lambda: not [name for name in google.instances.names() if name.startswith(cluster)], 20)
    assert not [name for name in google.secrets.kept if name.startswith(cluster)]
    assert not google.problems, "Google would not take this"


def test_a_quota_stops_the_sweep_with_the_words_of_google(root: Path, alone: StandIn, profiles: Profiles) -> None:
    alone.fail("op:QUOTA_EXCEEDED", match='"mce-role": "worker"', times=99)
    handle = mce.sweep(slow, x=[1, 2], on=profiles.set("poor", **HERE))
    progress = handle.wait(120)
    assert progress.state == "stopped"
    assert "QUOTA_EXCEEDED" in progress.message
    assert "https://console.cloud.google.com/iam-admin/quotas, or lower max_workers" in progress.message
    with pytest.raises(SweepStopped, match="QUOTA_EXCEEDED"):
        handle.result()


def test_a_zone_without_machines_is_passed_over_and_busy_answers_are_asked_for_again(
    root: Path, alone: StandIn, profiles: Profiles
) -> None:
    alone.fail("op:ZONE_RESOURCE_POOL_EXHAUSTED", match="us-east1-c.*n1-standard-1", times=9)
    alone.fail("http:503:backendError", times=2)
    alone.fail("http:429:rateLimitExceeded", method="instances.list", times=3)
    before = set(alone.instances.ever)
    handle = mce.sweep(slow, x=range(6), on=profiles.set("second", max_workers=1, **HERE))
    assert handle.result()["slow"].values.tolist() == [x * x for x in range(6)]
    made = {name: body for name, body in alone.instances.ever.items() if name not in before}
    assert {body["machineType"].split("/")[1] for body in made.values()} == {"us-central1-a"}


def test_no_machine_anywhere_is_told_and_waited_for(root: Path, alone: StandIn, profiles: Profiles) -> None:
    alone.fail("op:ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", match='"mce-role": "worker"', times=99)
    handle = mce.sweep(slow, x=[1, 2], on=profiles.set("sold_out", **HERE))
    told = "Google has no n1-standard-1 now in us-east1-c, us-central1-a: ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    until(lambda: told in handle.progress.message, 120, lambda: handle.progress)
    assert handle.progress.state == "queued"


def test_max_cost_ends_the_cluster(root: Path, alone: StandIn, profiles: Profiles) -> None:
    # A minute is paid at least: 0.0167 at once.
    profile = profiles.set("dear", price=1.0, max_cost=0.01, max_workers=1, **HERE)
    handle = mce.sweep(slow, x=range(100), on=profile)
    host = until(lambda: host_of(profile))
    progress = handle.wait(120)
    assert progress.state == "stopped"
    assert re.search(r"has cost 0\.02, and max_cost of dear is 0\.01; its VMs are deleted", progress.message)
    cluster = host.state()["cluster"]
    until(lambda: not host.alive(), 40)
    assert not [name for name in alone.instances.running() if name.startswith(cluster)]


def test_credentials_that_expired_are_told_plainly(root: Path, alone: StandIn, profiles: Profiles) -> None:
    alone.expired = True
    handle = mce.sweep(slow, x=[1], on=profiles.set("expired", max_workers=1, **HERE))
    progress = handle.wait(120)
    assert progress.state == "stopped"
    assert "Google does not accept the credentials any more" in progress.message
    assert "gcloud auth application-default login" in progress.message


def test_a_host_that_was_killed_leaves_nothing(root: Path, alone: StandIn, profiles: Profiles) -> None:
    profile = profiles.set("killed", max_workers=1, idle_timeout="6s")
    handle = mce.sweep(slow, x=range(1000), on=profile)
    until(lambda: handle.progress.done > 2, 120)
    host = host_of(profile)
    cluster = host.state()["cluster"]
    os.kill(host.process.pid, signal.SIGKILL)

    def left() -> list[str]:
        return [name for name in (*alone.instances.names(), *alone.secrets.kept) if name.startswith(cluster)]

    until(lambda: handle.progress.state == "interrupted", 30)
    assert len(left()) == 3
    told = act("reap", profile)
    assert re.search("^3 things were left behind", told)
    assert "Add --yes to delete them" in told
    assert "hired" not in told
    # The VMs end by themselves, whoever is there to delete them; the secret, and what cannot end itself, is reaped.
    until(lambda: left() == [f"{cluster}-worker"], 120, lambda: str(left()))
    assert "All of it is deleted" in act("reap", profile, sure=True)
    assert not left()
    assert act("reap") == "Nothing was left behind by hosts that are gone."


@pytest.mark.nightly
def test_a_scheduler_that_was_lost_interrupts_the_sweep_which_resumes(
    root: Path, alone: StandIn, profiles: Profiles
) -> None:
    handle = mce.sweep(slow, x=range(30), on=profiles.set("beheaded", max_workers=1))
    until(lambda: handle.progress.done > 2, 120)
    cluster = host_of("beheaded").state()["cluster"]
    alone.instances.vanish(f"{cluster}-0")
    until(lambda: handle.progress.state == "interrupted", 90, lambda: str(handle.progress))
    assert "The scheduler's VM is gone" in handle.progress.message
    until(lambda: not [name for name in alone.instances.names() if name.startswith(cluster)], 30)
    handle.resume()
    assert handle.result()["slow"].values.tolist() == [x * x for x in range(30)]
    assert handle.progress.failed == handle.progress.killed == 0
