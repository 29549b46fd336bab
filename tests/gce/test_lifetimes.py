"""`maxRunDuration`: Google deletes VMs whose time is over, whatever runs on them; and `max_hours` ends a cluster."""

import asyncio
import time
from pathlib import Path

import pytest

import mce_notebook as mce
from mce_notebook.run.clusters import vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.guest_host import LEAVE_SECONDS, _left
from mce_notebook.run.clusters.profiles import profile
from mce_notebook.run.clusters.request import resolve
from mce_notebook.run.clusters.vm import BEGAN
from tests.gce.conftest import PLAIN, host_of, until
from tests.gce.stand_in import StandIn
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(300)
# Without a VM for the scheduler: this machine is where VMs of the stand-in can connect to.
HERE = {"scheduler": "here"}


def slow(x: int) -> int:
    import time

    time.sleep(0.3)
    return x * x


def test_google_deletes_a_vm_whose_time_is_over(alone: StandIn, profiles: Profiles) -> None:
    google = Google(str(profiles.common["credentials"]))
    request = resolve(profile("gce", PLAIN, Path("clusters.toml")))
    family = vm.Family(cluster="over", profile="p", host="h", machine="m", ends=0.0)
    order = vm.Order(name="over-1", zone="us-east1-c", role=vm.WORKER, family=family, seconds=120)
    body = vm.body(request, order)
    body["metadata"]["items"][0]["value"] = "#!/bin/bash\nsleep 600\n"
    alone.instances.haste = 60.0
    asyncio.run(google.insert(str(PLAIN["project"]), "us-east1-c", body))
    assert "over-1" in alone.instances.names()
    until(lambda: "over-1" not in alone.instances.names(), 30)
    assert "over-1" in alone.instances.ended()


@pytest.mark.nightly
def test_vms_whose_time_is_over_are_replaced(root: Path, alone: StandIn, profiles: Profiles) -> None:
    # Half an hour passes in half a minute: shorter than the sweep, and than any worker believes.
    alone.instances.haste = 60.0
    before = len(alone.instances.ended())
    handle = mce.sweep(slow, x=range(300), on=profiles.set("brief", **HERE, max_hours=0.5))
    assert handle.result(timeout=250)["slow"].values.tolist() == [x * x for x in range(300)]
    assert handle.progress.failed == handle.progress.killed == 0
    ended = alone.instances.ended()[before:]
    assert ended
    log = host_of("brief").folder.log.read_text()
    assert f"{ended[0]} (us-east1-c/{ended[0]}): NODE_FAIL the VM is gone" in log
    assert not alone.problems, "Google would not take this"


@pytest.mark.nightly
def test_a_cluster_ends_after_max_hours_and_the_sweep_resumes_with_the_next(
    root: Path, alone: StandIn, profiles: Profiles
) -> None:
    before = len(alone.instances.ended())
    handle = mce.sweep(slow, x=range(400), on=profiles.set("fleeting", **HERE, max_hours=0.01))
    cluster = until(lambda: host_of("fleeting").state().get("cluster"), 60)
    # One that only looks, and so does not go on by itself.
    seen = mce.open("slow")
    until(lambda: seen.state == "interrupted", 120, lambda: seen.progress)
    assert seen.progress.message == "the cluster has lived for max_hours of its profile"
    assert 0 < seen.progress.done < 400
    assert not alone.instances.ended()[before:], "its VMs were deleted in time"
    until(lambda: not [name for name in alone.instances.names() if name.startswith(cluster)], 40)
    # The kernel that asked goes on with the next, and with as many as it takes.
    assert handle.result(timeout=250)["slow"].values.tolist() == [x * x for x in range(400)]
    assert handle.progress.failed == handle.progress.killed == 0
    assert handle._store.last_epoch() > 1


def test_a_host_leaves_its_vm_before_google_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BEGAN, str(time.time() - 100))
    assert _left({"seconds": 86400.0}) == pytest.approx(86400 - 100 - LEAVE_SECONDS, abs=5)
    assert _left({"seconds": 200.0}) == pytest.approx(60, abs=5)
    # Of a VM that took too long to boot.
    assert _left({"seconds": 90.0}) == 0
    monkeypatch.delenv(BEGAN)
    assert _left({"seconds": 100.0}) == pytest.approx(80, abs=5)
