"""Calls to Google: what passes is asked again, what was answered too late is done once, the rest is told."""

import asyncio
import email.utils
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mce_notebook.errors import CloudError
from mce_notebook.run.clusters import compute, vm
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.console import Console
from mce_notebook.run.clusters.profiles import profile
from mce_notebook.run.clusters.request import resolve
from mce_notebook.run.clusters.vault import Vault, kept
from tests.gce.conftest import PLAIN
from tests.gce.stand_in import VM_EMAIL, StandIn
from tests.profiles import Profiles

ZONE, PROJECT = "us-east1-c", "fake-project"


@pytest.fixture
def client(alone: StandIn, profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """Google, which is waited for less; nothing is left."""
    monkeypatch.setattr(compute, "FIRST", 0.01)
    monkeypatch.setattr(compute, "POLL_SECONDS", 0.05)
    yield Google(str(profiles.common["credentials"]))
    for name in alone.instances.names():
        if name.startswith("one-"):
            alone.instances.vanish(name)


def body(name: str) -> dict[str, Any]:
    family = vm.Family(cluster="one", profile="p", host="h", machine="m", ends=0.0)
    request = resolve(profile("gce", PLAIN, Path("clusters.toml")))
    found = vm.body(request, vm.Order(name=name, zone=ZONE, role=vm.WORKER, family=family, seconds=600))
    found["metadata"]["items"][0]["value"] = "#!/bin/bash\nsleep 600\n"
    return found


def test_one_vm_is_made_however_often_the_answer_is_lost(alone: StandIn, client: Google) -> None:
    alone.fail("late:503:backendError", times=3)
    before = len(alone.calls)
    done = asyncio.run(client.insert(PROJECT, ZONE, body("one-vm")))
    assert done["status"] == "DONE"
    assert [name for name in alone.instances.names() if name.startswith("one-")] == ["one-vm"]
    asked = [given["requestId"] for method, given in alone.calls[before:] if method == "instances.insert"]
    assert len(asked) == 4
    assert len(set(asked)) == 1
    # One that is gone already does not matter, nor that the answer to its deletion is lost.
    alone.fail("late:503:backendError", method="instances.delete")
    asyncio.run(client.delete(PROJECT, ZONE, "one-vm"))
    asyncio.run(client.delete(PROJECT, ZONE, "one-nowhere"))


@pytest.mark.parametrize(
    ("fault", "told", "kind"),
    [
        ("op:ZONE_RESOURCE_POOL_EXHAUSTED", "does not have enough resources available", "exhausted"),
        ("op:STOCKOUT", "STOCKOUT: ", "exhausted"),
        ("op:QUOTA_EXCEEDED", "https://console.cloud.google.com/iam-admin/quotas", "quota"),
        ("http:403:quotaExceeded", "or lower max_workers", "quota"),
        ("http:403:forbidden", "needs a role that allows this", ""),
        ("http:400:invalid", "injected invalid", ""),
    ],
)
def test_refusals_say_what_they_are_and_are_not_repeated(
    alone: StandIn, client: Google, fault: str, told: str, kind: str
) -> None:
    alone.fail(fault)
    before = alone.count("instances.insert")
    with pytest.raises(CloudError, match=told) as caught:
        asyncio.run(client.insert(PROJECT, ZONE, body("one-refused")))
    assert alone.count("instances.insert") == before + 1
    error = caught.value
    assert {name for name in ("exhausted", "quota", "passing") if getattr(error, name)} == ({kind} if kind else set())
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.code) == (str(error), error.status, error.code)


def test_what_never_passes_is_given_up(alone: StandIn, client: Google) -> None:
    alone.fail("http:503:backendError", method="instances.list", times=100)
    with pytest.raises(CloudError) as caught:
        asyncio.run(client.pages(client.compute.instances(), project=PROJECT, zone=ZONE))
    assert caught.value.passing
    assert [method for method, _ in alone.calls[-compute.TRIES :]] == ["instances.list"] * compute.TRIES


def test_nobody_at_the_other_end_is_told(monkeypatch: pytest.MonkeyPatch, profiles: Profiles) -> None:
    monkeypatch.setattr(compute, "FIRST", 0.01)
    monkeypatch.setattr(compute, "TRIES", 2)
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", "http://127.0.0.1:9/compute/v1/")
    there = Google(str(profiles.common["credentials"]))
    with pytest.raises(CloudError, match="Google cannot be reached"):
        asyncio.run(there.call(there.compute.projects().get(project=PROJECT)))


def test_the_time_is_that_of_google(client: Google) -> None:
    # As if this machine's clock were an hour fast.
    client._heard({"date": email.utils.formatdate(time.time() - 3600)})
    assert client.now() == pytest.approx(time.time() - 3600, abs=60)
    client._heard({})
    client._heard({"date": "some day"})
    assert client.now() == pytest.approx(time.time() - 3600, abs=60)
    asyncio.run(client.call(client.compute.projects().get(project=PROJECT)))
    assert client.now() == pytest.approx(time.time(), abs=60)


def test_secrets_are_kept_for_their_reader_and_end_by_themselves(alone: StandIn, client: Google) -> None:
    vault = Vault(client, PROJECT, {"mce-cluster": "one"}, VM_EMAIL, 7200)
    where = asyncio.run(vault.put("one-worker", {"key": "é"}))
    assert where == f"{alone.url}/v1/projects/{PROJECT}/secrets/one-worker/versions/1:access"
    assert alone.secrets.kept["one-worker"]["ttl"] == "10800s"
    assert asyncio.run(kept(client, PROJECT, {"mce-cluster": "one"})) == [("one-worker", {"mce-cluster": "one"})]
    asyncio.run(vault.drop("one-worker"))
    asyncio.run(vault.drop("one-worker"))
    # Rights may be somebody else's to give.
    alone.secrets.administrated = False
    try:
        asyncio.run(vault.put("one-other", {}))
    finally:
        alone.secrets.administrated = True
    asyncio.run(vault.drop("one-other"))


def test_a_console_is_read_to_its_end_once(alone: StandIn, client: Google, tmp_path: Path) -> None:
    asyncio.run(client.insert(PROJECT, ZONE, body("one-says")))
    screen = alone.instances.machine("one-says").folder / "console"
    head = "Nov 23 12:00:01 vm google_metadata_script_runner[1234]: startup-script: "
    console, job = Console(client, PROJECT, tmp_path), f"{ZONE}/one-says"
    screen.write_text(f"Linux version 6.1\n{head}bash: no such disk\n")
    asyncio.run(console.read([job]))
    assert console.words(job) == ("bash: no such disk", False)
    assert console.end(job) == ""
    # Half a line is none yet.
    with screen.open("a") as file:
        file.write(f"{head}{vm.REFUSED}dask 1 instead")
    asyncio.run(console.read([job]))
    assert console.end(job) == "", "not so soon again"
    asyncio.run(console.read([job], now=True))
    assert console.end(job) == ""
    with screen.open("a") as file:
        file.write(f" of 2\n{head}{vm.ENDED}exit code 3 after 1 s\n")
    asyncio.run(console.read([job], now=True))
    assert console.end(job) == "dask 1 instead of 2"
    assert console.words(job) == ("dask 1 instead of 2", True)
    assert (tmp_path / "one-says.log").read_text() == screen.read_text()
    # One that is gone says nothing more.
    asyncio.run(console.read([f"{ZONE}/one-gone"], now=True))
    assert console.words(f"{ZONE}/one-gone") == ("", False)
