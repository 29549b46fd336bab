"""The network between host and workers is cut, for a while and for ever."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mce_notebook as mce
from mce_notebook.run.client import hosts
from tests.clusters.conftest import run, until
from tests.clusters.network import Network, network
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(240)
Queue = Callable[[], dict[str, str]]
CUT_SECONDS = 20.0


@pytest.fixture
def machines() -> Iterator[Network]:
    """The four nodes of Slurm as machines of their own, as far as workers can tell."""
    with network(4) as made:
        yield made


def counted(folder: str) -> Callable[[int], str]:
    def point(x: int) -> str:
        import os
        import time

        with open(f"{folder}/{x}", "ab") as file:
            file.write(b".")
        time.sleep(1)
        return os.environ["SLURMD_NODENAME"]

    return point


def nodes_of(profile: str) -> dict[str, str]:
    """The node of each job that has a worker, by job."""
    (host,) = (host for host in hosts() if (launch := host.folder.launch()) and launch.profile == profile)
    try:
        rows = json.loads((host.folder.path / "nodes.json").read_text())
    except OSError:
        return {}
    ready = {str(row["job"]) for row in rows if row["state"] == "ready"}
    lines = run("squeue", "-h", "-t", "RUNNING", "-o", "%i %N").splitlines()
    return {job: node for job, node in map(str.split, lines) if job in ready}


def test_workers_are_cut_off_for_a_while_and_for_ever_and_nothing_is_lost(
    root: Path, tmp_path: Path, profiles: Profiles, queue: Queue, machines: Network
) -> None:
    wrapper, ran = tmp_path / "python", tmp_path / "ran"
    wrapper.write_text(
        f'#!/bin/sh\nexec nsenter --net=/run/netns/{machines.name}-$SLURMD_NODENAME {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    ran.mkdir()
    profile = profiles.set(
        "cut", kind="slurm", interface=machines.name, python=str(wrapper), max_workers=3, min_workers=3
    )
    count = 60
    handle = mce.sweep(counted(str(ran)), x=range(count), name="nodes", outputs=["node"], on=profile)
    before = until(lambda: len(nodes_of(profile)) == 3 and nodes_of(profile), 90, "three workers did not come")
    until(lambda: handle.progress.done > 6, 60)
    (_, awhile), (lost, forever), (_, kept) = sorted(before.items())
    assert len({awhile, forever, kept}) == 3
    machines.cut(awhile)
    machines.cut(forever)
    cut = time.monotonic()
    done = handle.progress.done
    time.sleep(CUT_SECONDS)
    machines.heal(awhile)
    assert handle.progress.done > done + 5, "the one that is left did not go on"
    until(lambda: lost not in nodes_of(profile), 90, "the job of a worker that is cut off was kept")
    gone = time.monotonic() - cut
    values = handle.result()["node"].values
    assert gone < 90
    assert handle.progress.failed == handle.progress.killed == 0
    assert set(values) <= {"n1", "n2", "n3", "n4"}
    times = [len((ran / str(x)).read_bytes()) for x in range(count)]
    # Each of the two that were cut off had a block open, and one behind it; blocks are a point or two here.
    assert all(times)
    assert sum(times) <= count + 2 * 2 * 2, f"computed again: {[x for x in range(count) if times[x] > 1]}"
