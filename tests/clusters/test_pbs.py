"""PBS, as far as it goes without one: qsub, qstat and qdel are stand-ins that run jobs here."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mce_notebook as mce
from tests.clusters.conftest import HERE, leave, until
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root, tools = tmp_path / "pbs", tmp_path / "bin"
    root.mkdir()
    tools.mkdir()
    for name in ("qsub", "qstat", "qdel"):
        tool = tools / name
        tool.write_text(f"#!{sys.executable} -S\n" + (HERE / "fake_pbs.py").read_text())
        tool.chmod(0o755)
    monkeypatch.setenv("FAKE_PBS", str(root))
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    yield root
    leave()


def slow(x: int) -> int:
    import time

    time.sleep(0.4)
    return x * x


def test_a_sweep_runs_and_a_deleted_job_is_replaced(root: Path, pbs: Path, profiles: Profiles) -> None:
    handle = mce.sweep(slow, x=range(30), on=profiles.set("pbs", kind="pbs", queue="workq", max_workers=1))
    until(lambda: handle.progress.done > 3, 90)
    assert os.system("qdel 1") == 0
    assert handle.result()["slow"].values.tolist() == [x * x for x in range(30)]
    assert (pbs / "2").is_dir()


def test_waiting_and_refusals_are_told_in_the_words_of_pbs(root: Path, pbs: Path, profiles: Profiles) -> None:
    refused = mce.sweep(slow, x=[1], name="refused", on=profiles.set("pbs_no", kind="pbs", queue="nosuch")).wait(60)
    assert (refused.state, refused.message) == ("stopped", "qsub: Unknown queue")
    (pbs / "full").touch()
    handle = mce.sweep(slow, x=range(4), on=profiles.set("pbs_full", kind="pbs"))
    told = "jobs wait in the queue: Not Running: Insufficient amount of resource: ncpus"
    until(lambda: told in handle.progress.message, 60, handle.progress.message)
