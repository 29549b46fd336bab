"""A real Grid Engine: sweeps on it, jobs deleted, killed at their walltime, refused."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mce_notebook as mce
from tests.clusters.conftest import leave, run, until
from tests.profiles import Profiles

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("sge", "tidy")]


@pytest.fixture
def tidy() -> Iterator[None]:
    yield
    leave()


def slow(x: int) -> int:
    import time

    time.sleep(0.5)
    return x * x


def listed(state: str) -> list[str]:
    lines = [line.split() for line in run("qstat").splitlines()[2:]]
    return [words[0] for words in lines if words[4] == state]


def killed_at_walltime() -> list[str]:
    return re.findall(r"^failed +37 ", run("qacct", "-j"), re.MULTILINE)


def test_a_sweep_runs_while_a_job_is_deleted_and_nothing_is_lost(root: Path, profiles: Profiles) -> None:
    handle = mce.sweep(slow, x=range(40), on=profiles.set("sge", kind="sge", max_workers=2, queue="main.q"))
    until(lambda: handle.progress.done > 3, 90)
    victim = until(lambda: listed("r"), 30)[0]
    run("qdel", victim)
    assert handle.result()["slow"].values.tolist() == [x * x for x in range(40)]
    assert handle.progress.killed == 0
    assert until(lambda: victim not in listed("r"), 20)


def test_jobs_killed_at_a_walltime_nobody_told_us_of_are_replaced(root: Path, profiles: Profiles) -> None:
    profile = profiles.set("cut", kind="sge", max_workers=1, directives=["-l h_rt=00:00:20"])
    handle = mce.sweep(slow, x=range(44), on=profile)
    assert handle.result()["slow"].values.tolist() == [x * x for x in range(44)]
    assert killed_at_walltime(), "no job was"
    assert handle.progress.killed == 0


def test_a_refusal_stops_the_sweep_with_the_words_of_qsub(root: Path, profiles: Profiles) -> None:
    handle = mce.sweep(slow, x=[1, 2], on=profiles.set("nosuch_sge", kind="sge", queue="nosuch.q"))
    progress = handle.wait(60)
    assert progress.state == "stopped"
    assert re.search("(unknown|no such).*queue.*nosuch", progress.message, re.IGNORECASE), progress.message


def test_a_limit_on_jobs_is_kept_to_and_told(root: Path, profiles: Profiles) -> None:
    profile = profiles.set("later", kind="sge", max_workers=12, directives=["-a 203001010000"])
    handle = mce.sweep(slow, x=range(60), on=profile)
    until(lambda: "no more than 6 jobs are taken" in handle.progress.message, 60, handle.progress.message)
    assert "6 jobs" in handle.progress.message
    assert len(listed("qw")) == 6
