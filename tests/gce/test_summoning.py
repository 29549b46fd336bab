"""The VM of a host while things go wrong: several of them, buckets out of reach, clocks that differ, names alike."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mce_notebook.errors import CloudError, OptionError, StoreError
from mce_notebook.frontends.cluster_actions import act
from mce_notebook.run.clusters import guest_host, host_vm, orphans, summoning, vm, vm_hosts
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.finding import find
from mce_notebook.run.clusters.host_vm import COMING, There
from mce_notebook.run.clusters.orphans import Ours
from mce_notebook.run.clusters.summoning import Summons
from mce_notebook.store.catalog import Store
from mce_notebook.store.places import cache_folder, shown
from mce_notebook.store.requests import ask
from tests.gce.conftest import until
from tests.gce.stand_in import StandIn
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(120)
AWAY: dict[str, Any] = {"host": "vm", "idle_timeout": "6s"}


@pytest.fixture
def store(alone: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket that only this process reaches: its VMs boot nothing."""
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(summoning, "LOOK_SECONDS", 0.02)
    yield Store(f"memory://{secrets.token_hex(8)}/meine Läufe")
    for name in alone.instances.names():
        alone.instances.vanish(name)
    alone.secrets.kept.clear()


def summons(profile: str, store: Store) -> Summons:
    found, said = host_vm.table(profile)
    assert found.cloud is not None
    return Summons(found, said, shown(store.root), Google(found.cloud.credentials), cache_folder())


def make(google: StandIn, profile: str, store: Store) -> Summons:
    """Have a VM that boots nothing."""
    google.fail("silent")
    made = summons(profile, store)
    assert not asyncio.run(made.answer(lambda: None))
    return made


def test_a_vm_is_not_judged_by_what_one_before_it_has_said(alone: StandIn, profiles: Profiles, store: Store) -> None:
    again = profiles.set("again", **AWAY, prologue=["exit 3"])
    assert not asyncio.run(summons(again, store).answer(lambda: None))
    (name,) = alone.instances.names("host")
    until(lambda: vm.ENDED in alone.instances.machine(name).console, 60)
    number = alone.instances.record(name)["id"]  # type: ignore[index]
    mended = make(alone, again, store)
    verdict, one = asyncio.run(mended._judged())
    assert one is not None
    assert (verdict, one.number != number) == (COMING, True)


def test_a_vm_is_left_alone_by_who_cannot_see_whether_it_serves(
    alone: StandIn, profiles: Profiles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(alone, profiles.set("veiled", **AWAY), store)
    looks = itertools.count()

    def lost(*_: object) -> dict[str, Any]:
        if next(looks):
            raise StoreError("no network")
        return {}

    monkeypatch.setattr(summoning, "told", lost)
    monkeypatch.setattr(host_vm, "BOOT_SECONDS", 2.0)
    assert asyncio.run(made.watch()) == ""
    assert next(looks) > 1
    assert alone.instances.names("host") == [made.name]


def test_somebodys_own_host_is_heard_of_though_its_clock_is_wrong(
    alone: StandIn, profiles: Profiles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(time.time() + 3600)
    monkeypatch.setattr(summoning, "told", lambda *_: {"state": "serving", "host": "mine", "time": next(ticks)})
    waited: list[bool] = []
    assert asyncio.run(summons(profiles.set("fast", **AWAY), store).answer(lambda: waited.append(True)))
    assert waited
    assert not alone.instances.names("host")


def test_sweeps_of_a_host_that_serves_are_not_told_that_none_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = store.create("recovery", 1)
    ask(sweep, "away", sweep.add_intent("run", by="me").number, 1)
    told: Callable[..., dict[str, Any]] = lambda *_: {"state": "serving", "time": time.time()}  # noqa: E731
    for module in (summoning, host_vm):
        monkeypatch.setattr(module, "told", told)
    summoning.refuse(store, "away", "the credentials here have expired")
    assert not (intent := sweep.latest_intent()) or not intent.refused
    # Where nobody is heard of, they are.
    monkeypatch.setattr(host_vm, "told", lambda *_: {"state": "serving", "time": 0.0})
    summoning.refuse(store, "away", "the credentials here have expired")
    intent = sweep.latest_intent()
    assert intent is not None
    assert (intent.refused, intent.note) == (True, "the credentials here have expired")


def test_what_google_said_is_told_though_the_bucket_is_out_of_reach(
    alone: StandIn, profiles: Profiles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, answers = profiles.set("refused_far", **AWAY), []

    def lost(*_: object) -> list[Any]:
        raise StoreError("no network")

    alone.fail("op:QUOTA_EXCEEDED", times=9)
    monkeypatch.setattr(summoning, "waiting", lost)
    monkeypatch.setattr(summoning, "_answer", answers.append)
    asyncio.run(summoning._run(refused, shown(store.root), cache_folder()))
    ((said,),) = (one.values() for one in answers)
    assert "iam-admin/quotas" in said


def test_what_nobody_has_thought_of_is_told_to_who_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = store.create("recovery", 1)
    ask(sweep, "away", sweep.add_intent("run", by="me", note=host_vm.STARTING).number, 1)
    answers: list[dict[str, str]] = []

    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'dask_cloudprovider'")

    monkeypatch.setattr(host_vm, "table", missing)
    monkeypatch.setattr(summoning, "_answer", answers.append)
    assert not asyncio.run(summoning._run("away", shown(store.root), cache_folder()))
    intent = sweep.latest_intent()
    assert intent is not None
    assert intent.refused
    assert "No module named 'dask_cloudprovider'" in intent.note
    assert [one["error"] for one in answers] == [intent.note]


class Cleared:
    """Google, as far as it is asked to delete something."""

    def __init__(self, vms: int, patch: pytest.MonkeyPatch):
        self.deleted: list[str] = []
        self.stuck = False
        there = [There("mce-1a2b3c4d-host", f"zone-{number}", "RUNNING") for number in range(vms)]
        left = [Ours("mce-5e6f7a8b-1", "zone-0", {}), Ours("mce-5e6f7a8b-worker", "", {})]
        patch.setattr(guest_host, "Google", lambda: None)
        patch.setattr(orphans, "instances", self.answers(there))
        patch.setattr(orphans, "found", self.answers(left))
        patch.setattr(orphans, "delete", self.delete)

    @staticmethod
    def answers(found: list[Any]) -> Callable[..., Any]:
        async def answer(*_: object) -> list[Any]:
            return found

        return answer

    async def delete(self, google: object, project: str, places: list[tuple[str, str]]) -> None:
        if self.stuck:
            raise CloudError("HTTP 503")
        self.deleted += [name for _, name in places]


CONFIG = {"project": "p", "name": "mce-1a2b3c4d-host", "drop": "mce-1a2b3c4d-host-9c0d"}


def test_a_host_takes_nothing_from_one_of_its_name_in_another_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Cleared(1, monkeypatch)
    asyncio.run(guest_host._clear(CONFIG))
    assert alone.deleted == [CONFIG["drop"], "mce-5e6f7a8b-1", "mce-5e6f7a8b-worker"]
    pair = Cleared(2, monkeypatch)
    asyncio.run(guest_host._clear(CONFIG))
    assert pair.deleted == [CONFIG["drop"]]


def test_a_host_does_not_serve_while_its_secret_can_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Cleared(1, monkeypatch).stuck = True
    monkeypatch.setattr(guest_host, "_settle", lambda *_: None)
    monkeypatch.setattr(guest_host, "_serve", lambda *_: pytest.fail("it serves"))
    with pytest.raises(SystemExit):
        guest_host.serve(CONFIG, {}, "7")
    assert capsys.readouterr().out.startswith(f"{vm.REFUSED}the secret")


def test_vms_of_profiles_whose_labels_are_the_same_are_told_apart(
    alone: StandIn, profiles: Profiles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = profiles.set("GPU", **AWAY), profiles.set("gpu", **AWAY)
    name = make(alone, large, store).name
    assert [one.there.name for one in vm_hosts.hosts(find(large))] == [name]
    assert not vm_hosts.hosts(find(small))
    # It serves, for long, as its own heartbeat says.
    number = alone.instances.record(name)["id"]  # type: ignore[index]
    beacon = {"state": "serving", "vm": number, "time": time.time()}
    monkeypatch.setattr(orphans, "told", lambda _, profile: beacon if profile == large else {})
    monkeypatch.setattr(host_vm, "BOOT_SECONDS", 0.0)
    assert name not in act("reap", small)


def test_a_host_whose_store_cannot_be_seen_is_not_stopped_without_yes(
    alone: StandIn, profiles: Profiles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = profiles.set("hidden", **AWAY)
    name = make(alone, hidden, store).name

    def lost(*_: object) -> dict[str, Any]:
        raise StoreError("the bucket refuses to read")

    monkeypatch.setattr(vm_hosts, "told", lost)
    assert "running, more is not known" in act("nodes", hidden)
    assert "the bucket refuses to read" in act("nodes", hidden)
    with pytest.raises(OptionError, match=r"runs sweeps in memory://.*/meine Läufe cannot be seen .*add --yes"):
        act("stop", hidden)
    assert alone.instances.names("host") == [name]
    assert "hidden is stopped" in act("stop", hidden, sure=True)
    until(lambda: not alone.instances.names("host"), 20)
