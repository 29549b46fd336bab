"""A real Slurm of four nodes: sweeps on it, and everything that may happen to jobs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mce_notebook as mce
from tests.clusters.conftest import Profiles

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
    there = mce.sweep(noise, n=[3, 5, 7], replicates=4, on=warm, name="there", block=True).dataset
    here = mce.sweep(noise, n=[3, 5, 7], replicates=4, on="inline", name="there", seed=None, store=root / "b").dataset
    assert there["noise"].values.tobytes() == here["noise"].values.tobytes()
    assert np.isfinite(there["noise"].values).all()
    nodes: Any = mce.sweep(where, x=range(8), on=warm, name="where", block=True).dataset["where"].values
    assert set(nodes) <= {"n1", "n2", "n3", "n4"}
