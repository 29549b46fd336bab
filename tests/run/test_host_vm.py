"""The VM that a host lives on, without Google: what it is called, whether it is needed, its profile as TOML."""

import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.errors import ProfileError
from mce_notebook.run.clusters import host_vm
from mce_notebook.run.clusters.finding import find
from mce_notebook.run.clusters.host_vm import COMING, LEAVING, NOTHING, SERVING, USELESS, There, judge
from mce_notebook.run.clusters.profiles import Profile, profile

NOW = 1_800_000_000.0
TABLE = """
[gce]
project = "my-project"
zones = ["us-central1-a"]
machine = "n2-standard-4"
image = "sweeps"
host = "vm"
credentials = "~/keys/sweeps.json"
prologue = ["echo 'größe' \\u007f"]
environment = { DATA = "/data/my \\"files\\"" }
"""


def there(status: str = "RUNNING", number: str = "7", age: float = 30.0) -> There:
    return There("mce-1a2b3c4d-host", "us-central1-a", status, number, NOW - age)


def beacon(state: str = "serving", vm: str = "7", age: float = 5.0) -> dict[str, Any]:
    return {"state": state, "vm": vm, "time": NOW - age}


@pytest.mark.parametrize(
    ("said", "vms", "verdict"),
    [
        # Nobody has ever served, or the last one has gone.
        ({}, [], NOTHING),
        (beacon(), [], NOTHING),
        (beacon("ended"), [], NOTHING),
        # Somebody's own machine: heard of lately, or silent.
        (beacon(vm=""), [], SERVING),
        (beacon(vm=""), [there()], SERVING),
        (beacon(vm="", age=300), [], NOTHING),
        # Ours comes up, whatever one before it has said.
        ({}, [there("PROVISIONING")], COMING),
        ({}, [there()], COMING),
        (beacon(vm="6"), [there()], COMING),
        (beacon("stopped", vm="6"), [there("STAGING")], COMING),
        ({}, [there(age=2 * host_vm.BOOT_SECONDS)], USELESS),
        # It serves, has said that it ends, or says nothing any more.
        (beacon(), [there()], SERVING),
        (beacon(), [there(age=1e6)], SERVING),
        (beacon("ended"), [there()], LEAVING),
        (beacon("ending"), [there()], LEAVING),
        (beacon("ended", age=600), [there()], USELESS),
        (beacon(age=40), [there()], LEAVING),
        (beacon(age=90), [there()], USELESS),
        # Google deletes it, or it has stopped without being deleted.
        (beacon(), [there("STOPPING")], LEAVING),
        (beacon(), [there("TERMINATED")], USELESS),
        (beacon(), [there("SUSPENDED")], USELESS),
        # Two in two zones.
        (beacon(), [there(number="8"), there()], SERVING),
        (beacon("stopped", vm="6"), [there("TERMINATED"), there(number="8")], COMING),
    ],
)
def test_what_there_is(said: dict[str, Any], vms: list[There], verdict: str) -> None:
    found, one = judge(said, vms, NOW)
    assert found == verdict
    assert (one is None) == (verdict == NOTHING or said.get("vm") == "")


def test_the_name_is_the_same_for_all_who_ask_and_another_for_each_store() -> None:
    cloud = profile_of(TABLE).cloud
    assert cloud is not None
    name = host_vm.name_of(cloud, "gce", "gs://lab/experiments")
    assert name == host_vm.name_of(cloud, "gce", "gs://lab/experiments")
    others = {host_vm.name_of(cloud, *said) for said in (("gce", "gs://lab/b"), ("gce2", "gs://lab/experiments"))}
    assert name not in others
    assert len(others) == 2
    assert host_vm.is_name(name)
    assert not host_vm.is_name("mce-1a2b3c4d-worker")


def profile_of(text: str) -> Profile:
    return profile("gce", tomllib.loads(text)["gce"], Path("clusters.toml"))


def test_the_vm_gets_the_profile_but_no_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters.toml").write_text(TABLE)
    before, said = host_vm.table("gce")
    text = host_vm.toml("gce", said)
    assert "keys" not in text
    (tmp_path / "clusters.toml").write_text(text)
    after = find("gce")
    assert (after.prologue, after.environment, after.host) == (before.prologue, before.environment, "vm")
    assert after.cloud is not None
    assert (after.cloud.credentials, after.cloud.scheduler) == ("", "here")


def test_a_limit_on_cost_needs_the_price_of_the_vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters.toml").write_text(TABLE + 'scheduler = "here"\nprice = 0.2\nmax_cost = 5\n')
    with pytest.raises(ProfileError, match=r"the VM of the host .* costs for an hour: write scheduler_price"):
        host_vm.table("gce")


KEYS = st.text(string.ascii_letters + "_", min_size=1)
# Lines of text, as a profile has them: all but the ends of lines and NUL.
TEXTS = st.text(st.characters(blacklist_characters="\n\r\0", blacklist_categories=["Cs"]))
VALUES = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False),
    st.lists(TEXTS), st.dictionaries(TEXTS, TEXTS),
)  # fmt: skip


@given(st.dictionaries(KEYS, VALUES))
def test_a_table_is_read_as_it_was_written(said: dict[str, Any]) -> None:
    assert tomllib.loads(host_vm.toml("gce", said)) == {"gce": said}
