"""A container is used as large as it is, not as large as its machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mce_notebook.run import budget, limits, supervisor
from mce_notebook.run.clusters.local import slots

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MEMORY = psutil.virtual_memory().total


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write what Linux shows of control groups."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores and 256 GiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=256 * 2**30))


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert limits.cores(tmp_path) == CORES
    assert limits.memory(tmp_path) == MEMORY


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 2), ("200000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("6400001 100000", 64)],
)
def test_a_container_of_version_2(tmp_path: Path, large: None, quota: str, cores: int) -> None:
    files = {"sys/fs/cgroup/cpu.max": quota, "sys/fs/cgroup/memory.max": str(2 * 2**30)}
    root = machine(tmp_path, "0::/", files)
    assert limits.cores(root) == cores
    assert limits.memory(root) == 2 * 2**30


def test_a_container_of_version_1(tmp_path: Path, large: None) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * 2**30),
    }
    # The names are those outside the container, whose folders are not there inside.
    root = machine(tmp_path, "5:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n0::/", files)
    assert limits.cores(root) == 1
    assert limits.memory(root) == 2 * 2**30


def test_the_tightest_of_nested_groups_holds(tmp_path: Path, large: None) -> None:
    files = {
        "sys/fs/cgroup/a/cpu.max": "400000 100000",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        "sys/fs/cgroup/a/b/c/cpu.max": "800000 100000",
        "sys/fs/cgroup/a/memory.max": "max",
        "sys/fs/cgroup/a/b/memory.max": str(3 * 2**30),
        "sys/fs/cgroup/a/b/c/memory.max": str(2**30),
        "sys/fs/cgroup/other/memory.max": "1",
    }
    root = machine(tmp_path, "0::/a/b/c", files)
    assert limits.cores(root) == 4
    assert limits.memory(root) == 2**30


@pytest.mark.parametrize("nonsense", ["", "max", "-1", "many few", "0 0", "1 2 3", "\x00\xff", "-100000 100000"])
def test_nonsense_limits_nothing(tmp_path: Path, nonsense: str) -> None:
    names = ("cpu.max", "memory.max", "cpu/cpu.cfs_quota_us", "memory/memory.limit_in_bytes")
    root = machine(tmp_path, f"0::/\n{nonsense}\n1:cpu:/\n2:memory:/", {f"sys/fs/cgroup/{n}": nonsense for n in names})
    assert limits.cores(root) == CORES
    assert limits.memory(root) == MEMORY


def test_unlimited_memory_of_version_1(tmp_path: Path) -> None:
    root = machine(tmp_path, "4:memory:/", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    assert limits.memory(root) == MEMORY


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """2 GB of a machine of 64 cores, with no limit of cores."""
    monkeypatch.delenv("MCE_CORES", raising=False)
    monkeypatch.setattr(limits, "cores", lambda: 64)
    monkeypatch.setattr(limits, "memory", lambda: 2 * 2**30)
    budget._found.cache_clear()
    supervisor.default_memory.cache_clear()
    yield
    budget._found.cache_clear()
    supervisor.default_memory.cache_clear()


def test_2_gb_on_64_cores_do_not_start_64_slots(container: None) -> None:
    count = slots(cores=1)
    assert 1 <= count <= 4
    assert slots(cores=64) == 1
    # And each of them gets memory to work with: 90 % over all cores of the machine would be 30 MB.
    assert supervisor.default_memory(1) >= 400 * 2**20
    assert supervisor.default_memory(1) * count <= 2 * 2**30


def test_who_says_how_many_cores_gets_them(container: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_CORES", "8")
    assert slots(cores=1) == 8
