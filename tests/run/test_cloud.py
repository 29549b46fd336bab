"""Profiles of Compute Engine, and the request for a VM beside those that were read and agreed on, in `bodies/`.

`MCE_WRITE_SCRIPTS=1` writes them again; then read the difference.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mce_notebook.errors import ProfileError
from mce_notebook.run.clusters import vm
from mce_notebook.run.clusters.cloud import own_gpus, size_of
from mce_notebook.run.clusters.profiles import Profile, profile
from mce_notebook.run.clusters.request import JobRequest, resolve
from tests.gce import discovery

HERE = Path(__file__).parent / "bodies"
PLAIN: dict[str, Any] = {
    "project": "my-project",
    "zones": ["us-central1-a", "us-east1-b"],
    "machine": "n2-standard-4",
    "image": "projects/my-project/global/images/family/sweeps",
}
BODIES: dict[str, dict[str, Any]] = {
    "cpu": {"python": "/opt/env/bin/python", "prologue": ["mount /data"], "environment": {"DATA": "/data/my files"}},
    "gpu": {"machine": "n1-standard-8", "gpus": 1, "gpu": "nvidia-tesla-t4", "max_hours": 2},
    "spot": {"spot": True, "external_ip": False, "network": "shared-vpc/lab", "labels": {"team": "physics"}},
    "host": {
        "image": "",
        "docker": "us-docker.pkg.dev/my-project/images/sweeps:1",
        "host": "vm",
        "host_service_account": "hosts@my-project.iam.gserviceaccount.com",
        "prologue": ["docker-credential-gcr configure-docker"],
    },
    "docker": {"image": "", "docker": "us-docker.pkg.dev/my-project/images/sweeps:1", "machine": "g2-standard-8"},
}
FAMILY = vm.Family(cluster="mce-1a2b3c4d", profile="My.gce", host="0123abcd", machine="Laptop.local", ends=0.0)


def made(**more: Any) -> Profile:
    table = {name: value for name, value in {**PLAIN, **more}.items() if value != ""}
    return profile("gce", table, Path("clusters.toml"))


def body(request: JobRequest, role: str = vm.WORKER) -> dict[str, Any]:
    order = vm.Order(
        name="mce-1a2b3c4d-7",
        zone="us-central1-a",
        role=role,
        family=FAMILY,
        seconds=request.walltime,
        config={"compute": "https://compute.googleapis.com/compute/v1/", "secret": "https://example/1:access"},
    )
    return vm.body(request, order)


@pytest.mark.parametrize("name", [*BODIES, "scheduler"])
def test_bodies_are_those_that_were_agreed_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "user", lambda: "Ada Lovelace")
    role = name if name in (vm.SCHEDULER, vm.STATION) else vm.WORKER
    found = body(resolve(made(**BODIES.get(name, {}))), role)
    schema = {"$ref": "Instance"}
    assert discovery.problems("compute", found, schema) == []
    file = HERE / f"{name}.json"
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    if os.environ.get("MCE_WRITE_SCRIPTS"):
        HERE.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_a_vm_ends_by_itself_and_opens_nothing() -> None:
    found = body(resolve(made(max_hours=2)))
    assert found["scheduling"]["maxRunDuration"] == {"seconds": "7200"}
    assert found["scheduling"]["instanceTerminationAction"] == "DELETE"
    assert found["disks"][0]["autoDelete"] is True
    assert found["tags"] == {"items": ["mce-worker"]}
    script = found["metadata"]["items"][0]["value"]
    assert "( sleep 7200; leave ) &" in script
    assert script.rstrip().endswith("leave")


@pytest.mark.parametrize(
    ("machine", "size", "gpus"),
    [
        ("n2-standard-8", (8, 30 * 2**30), 0),
        ("c2d-highmem-4", (4, 26 * 2**30), 0),
        ("e2-small", (2, 2 * 2**30), 0),
        ("n2-custom-6-20480", (6, 20 * 2**30), 0),
        ("custom-2-4096", (2, 4 * 2**30), 0),
        ("g2-standard-24", (24, 90 * 2**30), 2),
        ("a2-highgpu-4g", None, 4),
        ("a2-ultragpu-1g", None, 1),
        ("h3-whatever", None, 0),
    ],
)
def test_what_a_machine_type_holds(machine: str, size: tuple[int, int] | None, gpus: int) -> None:
    assert size_of(machine) == size
    assert own_gpus(machine) == gpus


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"image": ""}, "say what the VMs boot"),
        ({"machine": "a2-highgpu-1g"}, 'write its size too, as in cores = 12 and memory = "85GB"'),
        ({"gpus": 1}, 'say which GPUs to attach to n2-standard-4, as in gpu = "nvidia-tesla-t4"'),
        ({"gpu": "nvidia-l4"}, "say how many nvidia-l4 a VM has"),
        ({"max_cost": 5}, "write price = 0.20"),
        ({"max_cost": 5, "spot": True, "price": 1}, "write spot_price = 0.20"),
        ({"max_cost": 5, "price": 1}, "write scheduler_price = 0.04"),
        ({"zone": "us-east1-b"}, "no key `zone`; did you mean `zones`"),
        ({"machine_type": "n1"}, "did you mean `machine`"),
        ({"zones": []}, "zones is a list of zones"),
        ({"spot": "yes"}, "spot is true or false"),
        ({"labels": {"Team": "x"}}, "labels is a table of labels"),
        ({"labels": {"mce-user": "x"}}, "none of mce-"),
        ({"scheduler": "there"}, 'scheduler is "vm", or "here"'),
        ({"price": 0}, "price is what it costs"),
        ({"queue": "short"}, "there is no key `queue`"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_write_instead(table: dict[str, Any], told: str) -> None:
    with pytest.raises(ProfileError) as caught:
        made(**table)
    assert told in str(caught.value)


def test_a_vm_holds_as_many_slots_as_fit_and_what_a_sweep_asks_for_is_checked() -> None:
    request = resolve(made(), cores=2)
    assert (request.processes, request.cores, request.slot_cores) == (2, 4, 2)
    assert JobRequest.from_json(request.to_json()) == request
    assert resolve(made(gpus=2, gpu="nvidia-tesla-t4", machine="n1-standard-4"), gpus=1).processes == 1
    with pytest.raises(ProfileError, match="A VM of gce has no GPUs, and --gpus 1 needs more; write gpus and gpu"):
        resolve(made(), gpus=1)
    with pytest.raises(ProfileError, match=r"--timeout 7200 s .* does not fit max_hours of gce, 7200 s"):
        resolve(made(max_hours=2), timeout=7200)
    with pytest.raises(ProfileError, match="has 4 cores, and --cores 8 needs more"):
        resolve(made(), cores=8)
