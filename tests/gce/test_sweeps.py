"""Sweeps on VMs: the same bits as here, whatever happens to the VMs."""

from pathlib import Path

import numpy as np
import pytest

import mce_notebook as mce
from tests.gce.conftest import Profiles, until
from tests.gce.stand_in import StandIn

pytestmark = pytest.mark.timeout(180)


def noise(n: int, rng: np.random.Generator) -> float:
    return float(rng.normal(size=n).mean())


def test_a_sweep_runs_on_vms_and_its_bits_are_those_of_this_machine(
    root: Path, google: StandIn, profiles: Profiles
) -> None:
    there = mce.sweep(noise, n=[3, 5, 7], replicates=4, on=profiles.set("warm"), name="there")
    until(lambda: there.progress.done == 12, 60, lambda: (there.progress, google.problems))
    here = mce.sweep(noise, n=[3, 5, 7], replicates=4, on="inline", name="there", store=root / "b").result()
    assert there.result()["noise"].values.tobytes() == here["noise"].values.tobytes()
    assert not google.problems
