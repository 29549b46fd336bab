"""Local hosts of one user share the cores of their machine."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook import Sweep, sweep
from mce_notebook.run.budget import Demand, allowance, division, machine_cores, others
from mce_notebook.run.client import ensure_host, hosts
from mce_notebook.run.registry import HostFolder, Launch, Process, private_folder, write_json

DEMANDS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(Demand, st.integers(0, 9), st.integers(1, 4)),
    min_size=1,
    max_size=6,
)


@given(DEMANDS, st.integers(1, 16))
def test_a_division_uses_no_core_twice_and_gives_everybody_something(demands: dict[str, Demand], cores: int) -> None:
    slots = division(demands, cores)
    for name, demand in demands.items():
        assert min(1, demand.slots) <= slots[name] <= demand.slots
    used = sum(slots[name] * demand.cores for name, demand in demands.items())
    assert used <= max(cores, sum(demand.cores for demand in demands.values() if demand.slots))
    # Nothing is left that somebody could use.
    for name, demand in demands.items():
        assert slots[name] == demand.slots or used + demand.cores > cores


def test_two_equal_hosts_get_half_each() -> None:
    assert division({"a": Demand(8), "b": Demand(8)}, 8) == {"a": 4, "b": 4}
    assert division({"a": Demand(1), "b": Demand(8)}, 8) == {"a": 1, "b": 7}
    assert division({"a": Demand(8), "b": Demand(4, cores=2)}, 8) == {"a": 4, "b": 2}


def test_cores_still_busy_elsewhere_are_waited_for() -> None:
    assert allowance("a", Demand(2), {}, 2) == 2
    assert allowance("a", Demand(4), {"b": Demand(4, busy=4)}, 4) == 1
    assert allowance("a", Demand(4), {"b": Demand(4, busy=2)}, 4) == 2


def test_a_host_told_to_have_more_slots_than_cores_has_them() -> None:
    assert allowance("a", Demand(3, least=3), {}, 2) == 3
    assert allowance("a", Demand(3, least=3), {"b": Demand(3, least=3, busy=2)}, 2) == 1


def test_cores_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_CORES", "3")
    assert machine_cores() == 3
    monkeypatch.setenv("MCE_CORES", " 2 ")
    assert machine_cores() == 2
    monkeypatch.delenv("MCE_CORES")
    found = machine_cores()
    for told in ("many", "0", "-1", "1.5", "", "²", "1_0"):
        monkeypatch.setenv("MCE_CORES", told)
        assert machine_cores() == found


def test_only_living_hosts_count(tmp_path: Path) -> None:
    root = private_folder(tmp_path / "r")
    me, dead, live = Process.current(), Process("elsewhere", "x", 4, "0"), Process.current()
    for name, process in (("mine", me), ("dead", dead), ("live", live)):
        folder = HostFolder(private_folder(root / name))
        folder.claims.mkdir()
        claim = {"number": 1, "process": process.__dict__, "time": 0.0}
        write_json(folder.claims / "000001.json", claim)
        demand = Demand(2, 1, 1).to_json()
        write_json(folder.state_file, {"pid": process.pid, "kind": "local", "demand": demand})
    assert others(root / "mine") == {"live": Demand(2, 1, 1)}


def span(x: int) -> tuple[float, float]:
    begun = time.time()
    time.sleep(0.02)
    return begun, time.time()


@pytest.fixture
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "r"
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("MCE_CORES", "2")
    monkeypatch.setenv("MCE_HOST_WORKERS", "2")
    yield folder
    for host in hosts():
        os.kill(host.process.pid, signal.SIGKILL)
        host.close()


def most_at_once(runs: list[Sweep], first: float, last: float) -> int:
    """The largest number of points that were computed at one time between two times."""
    spans = []
    for run in runs:
        data = run.dataset
        begun, ended = data.begun.values.ravel(), data.ended.values.ravel()
        known = ~np.isnan(ended)
        spans += list(zip(begun[known], ended[known], strict=True))
    inside = [(max(a, first), min(b, last)) for a, b in spans if b > first and a < last]
    changes = sorted([(a, 1) for a, _ in inside] + [(b, -1) for _, b in inside])
    return int(np.cumsum([change for _, change in changes]).max(initial=0))


@pytest.mark.timeout(120)
def test_two_hosts_of_one_machine_compute_on_its_cores_once(root: Path, runtime_folder: Path) -> None:
    for gpus in (0, 1):
        host = ensure_host(launch=Launch(workers=2, gpus=gpus, idle=600.0))
        host.wait_ready()
        host.close()
    alone = sweep(span, x=range(6000), name="first", outputs=("begun", "ended"))
    began = time.time()
    while most_at_once([alone], began, time.time()) < 2:
        assert time.time() < began + 30, "the only host with work never used both cores"
        time.sleep(0.2)
    other = sweep(span, x=range(6000), name="second", outputs=("begun", "ended"), gpus=1)
    runs = [alone, other]
    # A beat until the first host knows, and what it still has in its slots.
    time.sleep(5)
    settled = time.time()
    time.sleep(4)
    assert most_at_once(runs, settled, settled + 4) == 2
    assert most_at_once([other], settled, settled + 4) == 1
    (victim,) = [host for host in hosts() if (launch := host.folder.launch()) is not None and not launch.gpus]
    os.kill(victim.process.pid, signal.SIGKILL)
    killed = time.time()
    while most_at_once([other], killed, time.time()) < 2:
        assert time.time() < killed + 30, "the share of a host that was killed did not come back"
        time.sleep(0.2)
    other.cancel()
