import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")


@pytest.fixture
def folder() -> Iterator[Path]:
    # SIGKILL does not take back what the kernel has, so memory is as good as a disk here, and gives more kills a second.
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="mce-kill-", dir=memory if os.access(memory, os.W_OK) else None))
    yield made
    shutil.rmtree(made)


def kill(folder: Path, kills: int, seed: int, writer: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(folder), str(kills), str(seed), writer],
        capture_output=True,
        text=True,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["kills"] == kills
    # Writers that are killed before they told anything would show nothing.
    assert report["blocks"] > 2 * kills
    return report


@pytest.mark.parametrize("writer", ["good", "pieces"])
def test_nothing_told_is_lost_and_nothing_is_there_twice(folder: Path, writer: str) -> None:
    assert kill(folder, 25, 1, writer)["failures"] == []


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("writer", ["good", "pieces"])
def test_five_hundred_kills(folder: Path, writer: str) -> None:
    assert kill(folder, 250, 2, writer)["failures"] == []


@pytest.mark.parametrize("writer", ["early", "rewriting"])
def test_the_harness_catches_a_broken_writer(folder: Path, writer: str) -> None:
    report = kill(folder, 8, 3, writer)
    assert any("acknowledged blocks are lost" in failure for failure in report["failures"])
