"""What the verbs say is what is true of the sweep."""

import time
from pathlib import Path

import pytest

import mce_notebook as mce
from mce_notebook.frontends.actions import act


def square(n: int) -> int:
    return n * n


def fails(n: int) -> int:
    raise ValueError(n)


def slow(n: int) -> int:
    time.sleep(0.05)
    return n


def say(verb: str, name: str, root: Path) -> str:
    return act(verb, name, str(root))


def test_nothing_is_said_to_happen_to_a_sweep_that_is_done(root: Path) -> None:
    run = mce.sweep(square, n=[1, 2], on="inline")
    assert say("cancel", "square", root) == "square is done already: there is nothing to cancel."
    assert say("pause", "square", root) == "square is done already: there is nothing to pause."
    assert say("resume", "square", root) == "square is done already: there is nothing to go on with."
    assert run.state == "done"
    # No order was left that would hold back what comes later.
    assert mce.sweep(square, n=[1, 2, 3], on="inline").result().sizes["n"] == 3


def test_failed_points_are_named_where_resume_does_nothing(root: Path) -> None:
    mce.sweep(fails, n=[1, 2], on="inline")
    assert "--rerun failed" in say("resume", "fails", root)


@pytest.mark.timeout(120)
def test_verbs_of_a_sweep_on_its_way(root: Path) -> None:
    run = mce.sweep(slow, n=range(2000))
    while run.state != "running":
        time.sleep(0.05)
    assert say("resume", "slow", root) == "slow runs already."
    assert say("pause", "slow", root).startswith("slow pauses")
    assert run.wait(timeout=60).state == "paused"
    assert say("pause", "slow", root) == "slow is paused already: there is nothing to pause."
    assert say("cancel", "slow", root).startswith("slow was paused and is cancelled now")
    assert run.wait(timeout=60).state == "cancelled"
    assert say("cancel", "slow", root) == "slow is cancelled already: there is nothing to cancel."
    assert say("resume", "slow", root) == "slow goes on."
    assert say("cancel", "slow", root).startswith("slow is being cancelled")
    assert run.wait(timeout=60).state == "cancelled"
