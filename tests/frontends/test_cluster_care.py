"""Clusters whose host is gone: taken over, and what is left in the queue of a batch system removed."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mce_notebook as mce
from mce_notebook.errors import ClusterError, HostError
from mce_notebook.frontends.cluster_actions import act, running
from mce_notebook.run.client import stop_host
from mce_notebook.run.clusters import reaping
from mce_notebook.run.clusters.finding import trust
from mce_notebook.run.registry import Process

# A queue in a file: a line for each job, as squeue prints it here.
SQUEUE = '#!/bin/sh\ncat "$QUEUE"\n'
SCANCEL = '#!/bin/sh\nfor job in "$@"; do\n  [ "$job" = 8 ] || sed -i "/^$job|/d" "$QUEUE"\ndone\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a Slurm that is a file, and hosts of its own."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("squeue", SQUEUE), ("scancel", SCANCEL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MCE_HOST_WORKERS", "1")
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters.toml").write_text(f'[big]\nkind = "slurm"\nfolder = "{tmp_path}/shared"\n')
    trust(tmp_path / "clusters.toml")
    (tmp_path / "queue").write_text("")
    yield tmp_path
    for host in running("local"):
        stop_host(host)


def shared(folder: Path, key: str, jobs: dict[str, float], process: Process, kind: str = "slurm") -> Path:
    """The folder that a host shared with its jobs."""
    made = folder / "shared" / key
    made.mkdir(parents=True)
    (made / reaping.JOBS).write_text(json.dumps(jobs))
    told = {"kind": kind, "profile": "big", "process": dataclasses.asdict(process)}
    (made / reaping.OWNER).write_text(json.dumps(told))
    return made


def dead() -> Process:
    return dataclasses.replace(Process.current(), start="never")


def test_jobs_of_dead_hosts_are_listed_and_on_demand_cancelled(folder: Path) -> None:
    now = time.time()
    assert act("reap", "big") == "Nothing was left behind by hosts that are gone."
    shared(folder, "a", {"5": now - 7200, "6": now, "7": now - 30 * 86400}, dead())
    shared(folder, "b", {"9": now}, Process.current())
    shared(folder, "c", {"10": now}, dead(), kind="sge")
    # 6 has ended; 7 was written down so long ago that it may be another's by now; 9 has its host, 10 is no Slurm job.
    (folder / "queue").write_text(
        "5|PENDING|Priority\n6|CANCELLED|None\n7|RUNNING|None\n9|RUNNING|None\n10|RUNNING|None\n"
    )
    told = act("reap")
    assert re.search(r"^1 thing was left .*\n.*\njob +5 +PENDING Priority +2.0 h +\S+, pid \d+$", told, re.MULTILINE)
    assert told.endswith("Add --yes to delete them.")
    assert act("reap", "big", sure=True).endswith("All of it is deleted.")
    assert [line.partition("|")[0] for line in (folder / "queue").read_text().splitlines()] == ["6", "7", "9", "10"]


def test_a_profile_that_cannot_be_asked_hides_nothing_of_the_others(folder: Path) -> None:
    with (folder / "clusters.toml").open("a") as file:
        file.write('[cloud]\nkind = "gce"\nproject = "p"\nzones = ["z-a"]\nmachine = "n2-standard-2"\nimage = "i"\n')
        file.write(f'credentials = "{folder}/nothing.json"\n')
    trust(folder / "clusters.toml")
    shared(folder, "a", {"5": time.time()}, dead())
    (folder / "queue").write_text("5|PENDING|Priority\n")
    told = act("reap")
    assert re.search(r"^cloud is left out: .*nothing\.json", told, re.MULTILINE)
    assert re.search(r"^job +5 +PENDING", told, re.MULTILINE)
    with pytest.raises(ClusterError, match=r"nothing\.json"):
        act("reap", "cloud")


def test_what_does_not_go_away_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaping, "CANCEL_TRIES", 1)
    shared(folder, "a", {"8": time.time()}, dead())
    (folder / "queue").write_text("8|RUNNING|None\n")
    assert act("reap", "big", sure=True).endswith("Deleted, but for 8; look again in a moment.")
    (folder / "queue").unlink()
    with pytest.raises(ClusterError, match="squeue does not answer"):
        act("reap", "big")


def test_a_host_of_another_machine_is_gone_when_it_has_not_been_heard_of(folder: Path) -> None:
    elsewhere = dataclasses.replace(Process.current(), machine="other", hostname="login2")
    made = shared(folder, "a", {"5": time.time()}, elsewhere)
    (folder / "queue").write_text("5|PENDING|Priority\n")
    assert act("reap", "big") == "Nothing was left behind by hosts that are gone."
    with pytest.raises(HostError, match=r"big runs on login2 \(pid \d+\), and is reached from there"):
        act("attach", "big")
    os.utime(made / reaping.OWNER, (0, 0))
    assert "(not heard of lately)" in act("reap", "big")
    with pytest.raises(HostError, match="No cluster 'big' runs, and none was cut off"):
        act("attach", "big")


def slow(x: int) -> int:
    import time

    time.sleep(0.3)
    return x


def test_a_cluster_is_taken_over_whether_its_host_lives_or_not(folder: Path) -> None:
    handle = mce.sweep(slow, x=range(12), store=folder / "s")
    while handle.progress.done < 2:
        time.sleep(0.05)
    command = [sys.executable, "-c", "from mce_notebook.frontends.cli import main; main(['clusters', 'list'])"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert re.search(r"^local +ready +1 +1 +[\d.]+ s", listed, re.MULTILINE), "not seen from another process"
    told = act("attach", "local")
    assert re.match(
        r"local is ready, has run for .* and has 1 slot\.\n  slow: running, \d+ of 12 points; slow = ", told
    )
    (host,) = running("local")
    os.kill(host.process.pid, signal.SIGKILL)
    while handle.state != "interrupted":
        time.sleep(0.05)
    told = act("attach", "local")
    assert told.startswith("The host of local was gone; another one goes on with:\n  slow: ")
    assert handle.wait(60).state == "done"
    again = eval(re.search(r"slow = (mce\.open.*)", told)[1], {"mce": mce})  # type: ignore[index]
    assert again.result()["slow"].values.tolist() == list(range(12))
