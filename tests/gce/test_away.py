"""VMs driven by a host that has only a bucket in common with whoever asked: a closed laptop stops nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mce_notebook as mce
from tests.buckets import new_bucket, served, variables
from tests.gce.conftest import until
from tests.gce.stand_in import StandIn
from tests.profiles import Profiles


def square(x: int) -> int:
    return x * x


@pytest.mark.timeout(300)
def test_a_host_elsewhere_takes_a_sweep_to_vms(
    alone: StandIn, profiles: Profiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served() as server:
        for name, value in {**variables(server), "MCE_CACHE_DIR": str(tmp_path / "here")}.items():
            monkeypatch.setenv(name, value)
        store = f"s3://{new_bucket(server)}/experiments"
        away = profiles.set("away", host="vm", scheduler="here")
        handle = mce.sweep(square, x=range(12), on=away, store=store)
        assert handle.state == "queued"
        assert not alone.instances.running(), "nobody serves the bucket yet"
        command = [sys.executable, "-c", "from mce_notebook.frontends.cli import main; main()"]
        command += ["host", away, "--store", store, "--idle", "2s"]
        with subprocess.Popen(command, env={**os.environ, "MCE_CACHE_DIR": str(tmp_path / "there")}) as there:
            try:
                assert handle.result(timeout=200)["square"].values.tolist() == [x * x for x in range(12)]
                assert there.wait(timeout=60) == 0, "it ends without work, with its cluster"
            finally:
                there.kill()
        until(lambda: not alone.instances.running(), 60)
