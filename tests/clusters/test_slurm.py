"""A real Slurm of four nodes: sweeps on it, and everything that may happen to jobs."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.errors import ClusterError, HostError, SweepStopped
from mce_notebook.frontends.cluster_actions import act
from mce_notebook.run.client import HostHandle, hosts
from tests.clusters.conftest import run, until
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(180)
Queue = Callable[[], dict[str, str]]


def noise(n: int, rng: np.random.Generator) -> float:
    return float(rng.normal(size=n).mean())


def where(x: int) -> str:
    import os
    import time

    time.sleep(0.3)
    return os.environ.get("SLURMD_NODENAME", "none")


@pytest.fixture(scope="session")
def warm(slurm: Path, profiles: Profiles) -> str:
    """A profile whose host serves several tests."""
    return profiles.set("warm", kind="slurm", cores=2, max_workers=4, memory="2GB")


def test_a_sweep_runs_on_slurm_and_its_bits_are_those_of_this_machine(root: Path, warm: str, queue: Queue) -> None:
    there = mce.sweep(noise, n=[3, 5, 7], replicates=4, on=warm, name="there").result()
    here = mce.sweep(noise, n=[3, 5, 7], replicates=4, on="inline", name="there", store=root / "b").result()
    assert there["noise"].values.tobytes() == here["noise"].values.tobytes()
    assert np.isfinite(there["noise"].values).all()
    nodes: Any = mce.sweep(where, x=range(8), on=warm, name="where").result()["where"].values
    assert set(nodes) <= {"n1", "n2", "n3", "n4"}


def slow(x: int) -> int:
    import time

    time.sleep(0.5)
    return x * x


def slower(x: int) -> int:
    import time

    time.sleep(2)
    return x * x


def long(x: int) -> int:
    import time

    time.sleep(600 if x == 3 else 0.2)
    return x


def host_of(profile: str) -> HostHandle:
    (found,) = (host for host in hosts() if (launch := host.folder.launch()) and launch.profile == profile)
    return found


def waiting(queue: Queue) -> set[str]:
    return {job for job, state in queue().items() if state == "PENDING"}


def rows(host: HostHandle) -> list[dict[str, Any]]:
    return list(json.loads((host.folder.path / "nodes.json").read_text()))


def test_the_verbs_tell_of_the_jobs(root: Path, warm: str, queue: Queue) -> None:
    said: list[str] = []
    assert re.match(r"warm is ready after [\d.]+ s: [1-4] slots?\.", act("start", warm, 2, say=said.append))
    try:
        # Jobs of two slots each.
        found = until(lambda: re.search(r"^(\d+) +ready +2 ", act("nodes", warm), re.MULTILINE), 30, act("nodes", warm))
        assert queue()[found[1]] == "RUNNING"
        assert re.search(r"^warm +ready ", act("list"), re.MULTILINE)
        log = act("log", warm)
        assert "Registered to:" in log, "what workers say cannot be seen"
        with pytest.raises(HostError, match="max_workers = 4; raise it there"):
            act("resize", warm, 5)
        assert act("resize", warm, 4) == "warm goes to 4 slots."
        until(lambda: len(queue()) == 2, 20)
    finally:
        told = act("resize", warm, 0)
    assert told == "warm gives its slots back once they are idle."


def test_start_tells_of_a_refusal_and_leaves_nothing(profiles: Profiles, queue: Queue) -> None:
    with pytest.raises(ClusterError, match="invalid partition specified: elsewhere"):
        act("start", profiles.set("elsewhere", kind="slurm", queue="elsewhere"), say=lambda text: None)
    assert not [state for state in queue().values() if state == "PENDING"]
    assert act("stop", "elsewhere") == "elsewhere is stopped, and its jobs are cancelled."


def test_a_job_on_a_drained_node_is_cancelled_another_node_goes_down_and_nothing_is_lost(
    root: Path, warm: str, queue: Queue
) -> None:
    handle = mce.sweep(slow, x=range(60), on=warm)
    first = until(lambda: {job for job, state in queue().items() if state == "RUNNING"}, 60)
    until(lambda: handle.progress.done > 4, 60)
    victim = first.pop()
    drained = run("squeue", "-h", "-j", victim, "-o", "%N")
    run("scontrol", "update", f"nodename={drained}", "state=drain", "reason=test")
    down = ""
    try:
        done = handle.progress.done
        until(lambda: handle.progress.done > done, 60, "a node that is drained goes on with what it has")
        assert queue()[victim] == "RUNNING"
        run("scancel", victim)
        until(lambda: len({job for job, state in queue().items() if state == "RUNNING"} - {victim}) == 2, 60)
        down = run("squeue", "-h", "-j", max(queue(), key=int), "-o", "%N")
        assert down != drained, "a new job went to the node that is drained"
        run("scontrol", "update", f"nodename={down}", "state=down", "reason=test")
        values = handle.result()["slow"].values
    finally:
        # They may be back by themselves: their daemons never went away.
        for node in filter(None, (drained, down)):
            subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True, check=False)
    assert values.tolist() == [x * x for x in range(60)]
    assert handle.progress.failed == handle.progress.killed == 0
    names = run("squeue", "-h", "-t", "all", "-o", "%j").splitlines()
    assert len(set(names)) == len(names), "a name was used twice"


def test_jobs_come_and_go_with_the_work(warm: str, queue: Queue) -> None:
    # After the tests above: nobody wants anything of this host any more.
    until(lambda: not queue(), 60, "idle jobs were kept")
    assert host_of(warm).alive()


def test_a_refusal_stops_the_sweep_with_the_words_of_sbatch(root: Path, profiles: Profiles, queue: Queue) -> None:
    handle = mce.sweep(slow, x=[1, 2], on=profiles.set("nosuch", kind="slurm", queue="nosuch"))
    progress = handle.wait(60)
    assert progress.state == "stopped"
    assert "invalid partition specified: nosuch" in progress.message
    with pytest.raises(SweepStopped, match="nosuch"):
        handle.result()


def test_jobs_that_wait_say_why_are_replaced_when_cancelled_and_end_with_their_host(
    root: Path, profiles: Profiles, queue: Queue
) -> None:
    handle = mce.sweep(slow, x=range(9), on=profiles.set("shut", kind="slurm", queue="closed", max_jobs=2))
    until(lambda: "PartitionDown" in handle.progress.message, 60)
    assert "2 jobs wait in the queue: PartitionDown (the partition is down" in handle.progress.message
    before = waiting(queue)
    run("scancel", *before)
    until(lambda: len(waiting(queue)) == 2 and not before & waiting(queue), 20, "cancelled jobs were not replaced")
    host = host_of("shut")
    until(lambda: [row["state"] for row in rows(host)] == ["waiting"] * 2, 20, str(rows(host)))
    os.kill(host.process.pid, signal.SIGTERM)
    until(lambda: not host.alive(), 30)
    assert not waiting(queue)
    assert handle.progress.state == "interrupted"


def test_a_host_that_was_killed_leaves_nothing_behind_once_the_next_one_comes(
    root: Path, profiles: Profiles, queue: Queue
) -> None:
    profile = profiles.set("fragile", kind="slurm", max_workers=3, directives=["--begin=now+600"])
    handle = mce.sweep(slow, x=range(9), on=profile)
    before = until(lambda: len(waiting(queue)) == 3 and waiting(queue), 60)
    os.kill(host_of(profile).process.pid, signal.SIGKILL)
    until(lambda: handle.progress.state == "interrupted", 30)
    told = act("reap", profile)
    assert all(re.search(rf"^job +{job} +PENDING ", told, re.MULTILINE) for job in before), told
    assert act("attach", profile).startswith("The host of fragile was gone; another one goes on with:")
    until(lambda: len(waiting(queue)) == 3 and not before & waiting(queue), 60, "jobs of the dead host are still there")
    assert act("reap", profile) == "Nothing was left behind by hosts that are gone."


def test_fewer_slots_than_asked_for_are_used_and_told(root: Path, profiles: Profiles, queue: Queue) -> None:
    handle = mce.sweep(slower, x=range(14), on=profiles.set("pair", kind="slurm", queue="pair", max_workers=12))
    told = re.compile(r"2 slots; \d+ jobs? waits? in the queue: (Resources|Priority)")
    until(lambda: told.match(handle.progress.message), 100, handle.progress.message)
    assert handle.result()["slower"].values.tolist() == [x * x for x in range(14)]
    assert handle.progress.message == ""


def test_points_outlive_the_walltime_of_jobs_or_are_reported(root: Path, profiles: Profiles, queue: Queue) -> None:
    profile = profiles.set("short", kind="slurm", walltime="25s", max_workers=2)
    handle = mce.sweep(long, x=range(6), on=profile, order="listed")
    known = handle.wait(150)
    assert known.state == "done", known
    assert (known.done, known.killed) == (5, 1)
    assert handle.dataset["long"].values[[0, 1, 2, 4, 5]].tolist() == [0, 1, 2, 4, 5]
    (cause,) = handle.failures.causes
    assert re.search("did not end (within|before) the walltime", cause)


def test_a_python_without_our_packages_is_refused_with_what_to_do(root: Path, profiles: Profiles, queue: Queue) -> None:
    handle = mce.sweep(slow, x=[1, 2], on=profiles.set("other", kind="slurm", python="/usr/bin/python3"))
    progress = handle.wait(60)
    assert progress.state == "stopped"
    assert "The Python of the jobs, /usr/bin/python3 on " in progress.message
    assert "distributed missing instead of" in progress.message
    assert "Set `python` in the profile" in progress.message


def test_nodes_that_do_not_see_the_store_are_sent_the_code(
    root: Path, tmp_path: Path, profiles: Profiles, queue: Queue
) -> None:
    blind = tmp_path / "blind"
    # A node without the store: another file system, empty, is mounted over it.
    blind.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'mount -t tmpfs none {root} && exec {sys.executable} "$@"\' sh "$@"\n'
    )
    blind.chmod(0o755)
    root.mkdir()
    captured = np.arange(300_000, dtype=float)

    def sum_of(x: int) -> tuple[float, bool]:
        import os

        return float(captured.sum()) + x, os.path.exists(str(root / "sum_of"))

    profile = profiles.set("blind", kind="slurm", cores=2, max_workers=2, python=str(blind))
    found = mce.sweep(sum_of, x=range(40), outputs=["total", "sees"], on=profile).result()
    assert found["total"].values.tolist() == [captured.sum() + x for x in range(40)]
    assert not found["sees"].values.any()


def test_a_job_that_dies_at_once_is_told_with_its_last_words(root: Path, profiles: Profiles, queue: Queue) -> None:
    handle = mce.sweep(
        slow, x=[1, 2], on=profiles.set("dying", kind="slurm", prologue=["echo no such module >&2", "exit 3"])
    )
    progress = handle.wait(60)
    assert progress.state == "stopped"
    assert "A job ended before its worker came up: no such module" in progress.message


def test_a_cluster_that_cannot_start_ends_the_sweep_with_the_reason(
    root: Path, profiles: Profiles, queue: Queue
) -> None:
    before = set(queue())
    handle = mce.sweep(slow, x=[1, 2], on=profiles.set("unreachable", kind="slurm", interface="ib77"))
    progress = handle.wait(60)
    assert progress.state == "stopped"
    assert "ib77" in progress.message
    assert set(queue()) <= before


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_two_hundred_jobs_are_asked_for_where_thirty_two_fit(root: Path, profiles: Profiles, queue: Queue) -> None:
    handle = mce.sweep(slower, x=range(400), on=profiles.set("many", kind="slurm", max_workers=200, memory="1GB"))
    told = re.compile(r"\d+ slots; 1\d\d jobs wait in the queue: (Resources|Priority)")
    until(lambda: told.match(handle.progress.message), 300, handle.progress.message)
    assert handle.result()["slower"].values.tolist() == [x * x for x in range(400)]
    assert handle.progress.failed == handle.progress.killed == 0
    until(lambda: not queue(), 90)
