"""The handshake of a worker: what must be as on the host, and what it says when it is not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mce_notebook.run.clusters import node


def test_a_worker_of_the_same_environment_may_come() -> None:
    here = node.environment()
    assert node.differences(here, here) == []
    assert set(here["shared"]) == set(node.SHARED)
    assert all(here["shared"].values()), "a package that must agree is not found"


def test_differences_name_the_package_and_both_versions() -> None:
    here = node.environment()
    other = {**here, "python": "3.9.1", "shared": {**here["shared"], "numpy": "1.0", "dask": ""}}
    told = node.differences(here, other)
    assert told[0] == f"Python 3.9.1 instead of {here['python']}"
    assert f"numpy 1.0 instead of {here['shared']['numpy']}" in told
    assert f"dask missing instead of {here['shared']['dask']}" in told
    assert node.differences(here, {**here, "python": here["python"].rpartition(".")[0] + ".99"}) == []
    assert node.differences(here, {**here, "packages": {}}) == [], "others may differ"


def start(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", node.__name__, str(folder), "tls://127.0.0.1:1", "--name", "mce-1"]
    root = str(Path(node.__file__).parents[3])
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": root}
    )


def test_a_worker_that_may_not_says_so_in_its_output_and_in_the_shared_folder(tmp_path: Path) -> None:
    told = node.environment()
    told["shared"]["numpy"] = "0.1"
    (tmp_path / node.ENVIRONMENT).write_text(json.dumps(told))
    done = start(tmp_path)
    assert done.returncode == 1
    said = (tmp_path / "refusals" / "mce-1.txt").read_text()
    assert said in done.stderr
    assert "numpy" in said
    assert f"Set `python` in the profile to an interpreter with the packages of {sys.executable}" in said


def test_a_folder_that_is_not_shared_is_told(tmp_path: Path) -> None:
    done = start(tmp_path / "nowhere")
    assert done.returncode == 1
    assert "set `folder` in the profile to a folder that the host and the nodes share" in done.stderr


def test_the_end_of_the_job_counts_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_WALLTIME", "3600 30 10")
    monkeypatch.setenv("MCE_SPENT", "100")
    monkeypatch.setenv("MCE_ENDS", "")
    now = time.time()
    node._note_end(now)
    began, leaves, stops = map(float, os.environ["MCE_ENDS"].split())
    assert (began, leaves, stops) == pytest.approx((now, now + 3600 - 100 - 30, now + 3600 - 100 - 10))
    monkeypatch.delenv("MCE_WALLTIME")
    monkeypatch.setenv("MCE_ENDS", "")
    node._note_end(now)
    assert os.environ["MCE_ENDS"] == ""
