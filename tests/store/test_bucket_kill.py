"""Writers killed with SIGKILL at random moments, some of them two at a time; what they told is never lost."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.coverage import known
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.places import folder_of
from mce_notebook.store.reader import LogReader
from tests.buckets import new_bucket, served, variables

WRITER = Path(__file__).with_name("bucket_writer.py")
POINTS = 20_000


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as address:
        yield address


def start(address: str, machine: Path, server: str) -> "subprocess.Popen[str]":
    names = {**os.environ, **variables(server), "MCE_CACHE_DIR": str(machine)}
    return subprocess.Popen([sys.executable, str(WRITER), address], env=names, stdout=subprocess.PIPE, text=True)


def kill(process: "subprocess.Popen[str]", chance: random.Random) -> set[int]:
    """Kill a writer after some blocks; return the points it told."""
    assert process.stdout is not None
    lines = []
    for _ in range(chance.choice([1, 3, 10, 20])):
        lines.append(process.stdout.readline())
    time.sleep(chance.expovariate(1 / 0.01))
    process.kill()
    lines += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    # The last line may be cut, which is a block that was not told.
    whole = [line for line in lines if line.endswith("\n") and not line.startswith("ready")]
    return {int(word) for line in whole for word in line.split()}


def check(sweep: SweepStore, told: set[int]) -> None:
    reader = LogReader(sweep.paths)
    found: set[int] = set()
    for batch in reader.poll():
        index = np.asarray(batch.index)
        assert batch.columns["a"].values().tobytes() == np.sqrt(index).tobytes()
        assert batch.columns["b"].values().tolist() == index.tolist()
        found |= set(index.tolist())
    assert reader.problems == []
    assert told <= found
    assert set(np.flatnonzero(known(sweep, sweep.declaration(1)).status).tolist()) == found


def killed(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int, seed: int) -> None:
    for name, value in {**variables(server), "MCE_CACHE_DIR": str(tmp_path / "reader")}.items():
        monkeypatch.setenv(name, value)
    address = f"s3://{new_bucket(server)}/experiments"
    sweep = Store(address).create("killed", 1)
    sweep.declare(Declaration.of(grid(i=range(POINTS)), outputs=("a", "b"), version="v1"))
    chance = random.Random(seed)
    told: set[int] = set()
    for life in range(kills):
        # A machine that is gone takes its mirror along; every third time the next writer has none.
        writers = [start(address, tmp_path / f"m{life % 3 and 1}-{at}", server) for at in range(1 + life % 2)]
        for writer in writers:
            told |= kill(writer, chance)
        # Both who followed all the time, and who comes now.
        if chance.random() < 0.5:
            folder_of(sweep.paths.folder)._drop(sweep.paths.folder)  # type: ignore[attr-defined]
        sweep.folder.refresh(sweep.paths.folder, strictly=True)
        check(sweep, told)
    # Writers that told nothing would show nothing.
    assert len(told) > 10 * kills


@pytest.mark.timeout(300)
def test_nothing_told_is_lost(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(server, tmp_path, monkeypatch, 5, 1)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_hundred_kills(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(server, tmp_path, monkeypatch, 100, 2)
