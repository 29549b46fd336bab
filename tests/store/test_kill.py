import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")


def kill(tmp_path: Path, kills: int, seed: int, writer: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(tmp_path), str(kills), str(seed), writer],
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
def test_nothing_told_is_lost_and_nothing_is_there_twice(tmp_path: Path, writer: str) -> None:
    assert kill(tmp_path, 25, 1, writer)["failures"] == []


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("writer", ["good", "pieces"])
def test_five_hundred_kills(tmp_path: Path, writer: str) -> None:
    assert kill(tmp_path, 250, 2, writer)["failures"] == []


@pytest.mark.parametrize("writer", ["early", "rewriting"])
def test_the_harness_catches_a_broken_writer(tmp_path: Path, writer: str) -> None:
    report = kill(tmp_path, 8, 3, writer)
    assert any("acknowledged blocks are lost" in failure for failure in report["failures"])
