"""What can be said to clusters, without any but this machine's."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import mce_notebook as mce
from mce_notebook.errors import HostError, OptionError, ProfileError, SweepError, UntrustedCode
from mce_notebook.frontends.cli import main
from mce_notebook.frontends.cluster_actions import VERBS, act, running
from mce_notebook.run.client import stop_host
from mce_notebook.run.clusters import checking
from mce_notebook.run.clusters.finding import find, trust


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of its own, with hosts of its own, and no batch system on the path."""
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MCE_HOST_WORKERS", "1")
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for host in running("local"):
        stop_host(host)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


def test_a_first_file_is_written_trusted_and_valid(folder: Path, alone: None) -> None:
    told = act("init")
    assert "No batch system was found here" in told
    assert find("slurm").max_workers == 16
    with pytest.raises(ProfileError, match="is there already"):
        act("init")


@pytest.mark.parametrize("kind", checking.SYSTEMS)
def test_every_section_it_may_write_is_valid(kind: str, folder: Path, alone: None) -> None:
    (folder / "clusters.toml").write_text(checking._section(kind))
    trust(folder / "clusters.toml")
    assert find(kind).kind == kind


def test_what_a_partition_table_says_goes_into_the_section() -> None:
    lines = ["PARTITION AVAIL TIMELIMIT NODES", "old down 1:00 1", "long* up 3-00:00:00 4"]
    assert checking._first_queue("slurm", "\n".join(lines)) == ("long", "; at most 3-00:00:00")
    assert checking._first_queue("slurm", "") == ("", "")
    assert checking._first_queue("sge", "all.q\nlong.q\n") == ("all.q", "")


def test_check_shows_the_script_and_what_is_missing(folder: Path, alone: None) -> None:
    act("init")
    told = act("check", "slurm")
    assert "#SBATCH --no-requeue" in told
    assert "cost" not in told
    assert "mce_notebook.run.clusters.node" in told
    assert "NO  squeue is not here; the notebook has to run where slurm jobs are submitted" in told
    with (folder / "clusters.toml").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(UntrustedCode, match="mce trust"):
        act("check", "slurm")


def test_check_tries_the_queue_the_script_the_folder_and_the_interface(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = folder / "bin"
    tools.mkdir()
    for name, body in (("squeue", "true"), ("sbatch", "echo 'allocation failure: Invalid qos' >&2; exit 1")):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    (folder / "clusters.toml").write_text(
        f'[slurm]\nfolder = "{folder}/shared"\ninterface = "ib77"\n[half]\nkind = "local"\nmax_workers = 2\n'
    )
    runner = CliRunner()
    assert "trusted as they are now" in runner.invoke(main, ["trust", "clusters.toml"]).output
    told = act("check", "slurm")
    assert "ok  squeue answers" in told
    assert "NO  allocation failure: Invalid qos" in told
    assert f"ok  {folder}/shared can be written here" in told
    assert "NO  interface ib77 is not here; there are lo" in told
    assert act("check", "half") == "half: up to 2 slots on this machine."


def test_profiles_and_their_trust_are_listed(folder: Path) -> None:
    assert "No cluster runs" in act("list")
    (folder / "clusters.toml").write_text("[slurm]\n")
    assert "not trusted: mce trust" in act("list")
    CliRunner().invoke(main, ["trust", "clusters.toml"])
    assert "not trusted" not in act("list")


def test_the_cluster_of_this_machine_is_started_seen_and_stopped(folder: Path, root: Path) -> None:
    said: list[str] = []
    assert act("start", "local", say=said.append).startswith("local is ready after ")
    assert "ready" in act("list")
    assert act("nodes", "local") == "1 slots on this machine"
    assert "host.log" in act("log", "local")
    with pytest.raises(HostError, match="cannot be resized"):
        act("resize", "local", 3)
    with pytest.raises(OptionError, match="leave out the number"):
        act("start", "local", 3)
    handle = mce.sweep(endless, x=[1], on="local")
    while not handle.progress.running:
        time.sleep(0.05)
    with pytest.raises(OptionError, match="local runs endless; add --yes to stop it"):
        act("stop", "local")
    assert act("stop", "local", sure=True) == "local is stopped."
    assert not running("local")


def endless(x: int) -> int:
    import time

    time.sleep(600)
    return x


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dance", "local"), "no verb 'dance' for clusters; there are list, start"),
        (("start",), "start needs the name of a cluster"),
        (("nodes", "nosuch"), "No cluster 'nosuch' runs; `start nosuch` starts it"),
        (("start", "nosuch"), "There is no cluster 'nosuch'"),
        (("check", "nosuch"), "There is no cluster 'nosuch'"),
    ],
)
def test_what_cannot_be_done_is_told(words: tuple[str, ...], told: str, folder: Path) -> None:
    with pytest.raises(SweepError, match=told):
        act(*words)


def test_the_command_line_has_every_verb() -> None:
    runner = CliRunner()
    told = runner.invoke(main, ["clusters", "--help"]).output
    assert all(verb in told for verb in VERBS)
    for verb in VERBS:
        assert runner.invoke(main, ["clusters", verb, "--help"]).exit_code == 0


def test_the_magic_says_the_same(notebook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    assert notebook.run("%cluster")
    assert "No cluster runs" in notebook.text
    assert not notebook.run("%cluster nodes nosuch")
    assert "No cluster 'nosuch' runs" in notebook.error
    assert not notebook.run("%cluster start local many")
    assert "Write %cluster VERB NAME" in notebook.error
