"""VMs that bring no worker, containers, and what `check` and `init` tell."""

import json
import os
import re
from pathlib import Path

import pytest

import mce_notebook as mce
from mce_notebook.errors import CloudError
from mce_notebook.frontends.cluster_actions import act
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.finding import find
from tests.gce.conftest import end, host_of, until
from tests.gce.stand_in import StandIn
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(240)
# Without a VM for the scheduler: this machine is where VMs of the stand-in can connect to.
HERE = {"scheduler": "here", "max_workers": 1}


def told(x: int) -> str:
    import os

    return os.environ["DATA"]


def test_packages_that_differ_stop_the_sweep_and_are_named(
    root: Path, tmp_path: Path, alone: StandIn, profiles: Profiles
) -> None:
    other = tmp_path / "dask-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: dask\nVersion: 0.0.1\n")
    profile = profiles.set("differs", **HERE, environment={"PYTHONPATH": str(tmp_path)})
    progress = mce.sweep(told, x=[1], on=profile).wait(120)
    assert progress.state == "stopped"
    assert re.search(r"The Python of the VMs, .* has dask 0\.0\.1 instead of 20", progress.message)
    assert "Build `image` or `docker` of the profile with the packages of" in progress.message


def test_a_vm_that_cannot_start_a_worker_is_told_with_its_last_words(
    root: Path, alone: StandIn, profiles: Profiles
) -> None:
    table = {**HERE, "prologue": ["echo there is no such disk >&2", "exit 3"]}
    progress = mce.sweep(told, x=[1], on=profiles.set("broken", **table)).wait(120)
    assert progress.state == "stopped"
    assert "ended before its worker came up: there is no such disk" in progress.message
    until(lambda: not alone.instances.running(), 30, "such a VM lingers only until it was read")


def test_a_scheduler_that_cannot_start_is_told_and_nothing_is_left(
    root: Path, alone: StandIn, profiles: Profiles
) -> None:
    progress = mce.sweep(told, x=[1], on=profiles.set("headless", python="/usr/bin/python3")).wait(120)
    assert progress.state == "stopped"
    assert re.search("The scheduler's VM ended before the scheduler came up: .*No module named", progress.message)
    until(lambda: not alone.instances.running("scheduler"), 30)


def test_a_cluster_that_is_stopped_while_it_starts_leaves_nothing(
    root: Path, alone: StandIn, profiles: Profiles
) -> None:
    mce.sweep(told, x=[1], on=profiles.set("hasty"))
    host = until(lambda: host_of("hasty"))
    until(lambda: "cluster" in host.state() or alone.instances.running("scheduler"), 60)
    end(host)
    until(lambda: not alone.instances.names(), 20, lambda: str(alone.instances.names()))
    assert not alone.secrets.kept


def test_a_container_with_two_slots_gets_what_the_profile_says(root: Path, alone: StandIn, profiles: Profiles) -> None:
    profile = profiles.set(
        "boxed", scheduler="here", max_workers=2, machine="n2-standard-2", docker="registry/sweeps:1",
        environment={"DATA": "my files"}, prologue=["echo mounted"],
    )  # fmt: skip
    before = set(alone.instances.ever)
    # A right that was just given is not known everywhere at once.
    alone.fail("http:403:forbidden", method="projects.secrets.versions.access")
    assert set(mce.sweep(told, x=range(20), on=profile).result()["told"].values) == {"my files"}
    until(lambda: host_of("boxed").state()["workers"] == 2, 30)
    (name,) = set(alone.instances.ever) - before
    found = json.loads((alone.instances.machine(name).folder / "docker.json").read_text())
    assert found["image"] == "registry/sweeps:1"
    assert found["options"][:3] == ["--rm", "--net=host", "--ipc=host"]
    assert "DATA" in found["passed"]
    assert "mounted" in alone.instances.machine(name).console
    firewall = alone.instances.machine(name).folder / "firewall"
    assert firewall.read_text() == "iptables -w -A INPUT -p tcp -j ACCEPT\n", "COS lets nobody in"


def test_check_tells_the_request_the_cost_and_what_google_says(alone: StandIn, profiles: Profiles) -> None:
    said = act("check", profiles.set("checked", max_workers=10, machine="n2-standard-2", max_cost=3))
    assert "checked: up to 10 slots, 2 in a VM of n2-standard-2 (2 vCPUs, 7.75 GB); without work" in said
    assert "an hour costs up to 2.55: 5 VMs of 0.5 + 0.05 for e2-medium with the scheduler; it ends at 3" in said
    assert '"maxRunDuration"' in said
    assert "ok  project fake-project; VMs run as 123-compute@developer.gserviceaccount.com" in said
    assert "ok  us-central1-a has n2-standard-2: 2 vCPUs, 8.59 GB" in said
    assert "ok  us-east1: 64 CPUS left, enough for 32 VMs" in said
    assert "NO  no firewall rule opens tcp:8786 to mce-scheduler: gcloud compute firewall-rules create" in said
    rule = {"name": "x", "targetTags": ["mce-scheduler"], "allowed": [{"IPProtocol": "tcp", "ports": ["8000-9000"]}]}
    alone.instances.rules.append(rule)
    assert "ok  a firewall rule opens tcp:8786" in act("check", "checked")
    said = act("check", profiles.set("unchecked", machine="n9-standard-2", image="gone", **HERE))
    assert "NO  us-east1-c has no machine type n9-standard-2; leave the zone out" in said
    assert "NO  image gone is not there" in said
    alone.expired = True
    assert "NO  Google does not accept the credentials any more" in act("check", "checked")


def test_init_writes_a_profile_that_can_be_read_where_there_are_credentials(
    tmp_path: Path, alone: StandIn, profiles: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(profiles.common["credentials"]))
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    assert 'project = "fake-project"' in act("init")
    found = find("gce")
    assert found.cloud is not None
    assert found.cloud.project == "fake-project"


def test_a_missing_or_wrong_key_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CloudError, match=r"credentials of the profile, .*nowhere\.json, cannot be used"):
        Google(str(tmp_path / "nowhere.json"))
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    with pytest.raises(CloudError, match="cannot be used"):
        Google(str(wrong))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(wrong))
    with pytest.raises(CloudError, match="gcloud auth application-default login"):
        Google()
    assert os.environ["GOOGLE_APPLICATION_CREDENTIALS"] == str(wrong)
