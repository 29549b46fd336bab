"""Whoever waits for a sweep hears of its end from the host, however long its pauses between two looks are."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mce_notebook import handle, sweep
from mce_notebook import open as open_sweep
from mce_notebook.errors import SweepStopped
from mce_notebook.run.client import Ear, find_host, launch_for

# Longer than anything here takes: only what the host says can end a pause.
FOREVER = 300.0


@pytest.fixture(autouse=True)
def _no_looks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_SECONDS", "SHARE_WAITED", "SHORTEST_SECONDS"):
        monkeypatch.setattr(handle, name, FOREVER)


def slow(i: int) -> int:
    time.sleep(0.2)
    if i == 7:
        raise ValueError("seven")
    return i


def later(seconds: float, what: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()


def test_the_end_is_heard_and_failures_are_seen() -> None:
    begun = time.monotonic()
    waited = sweep(slow, name="ends", i=range(12))
    known = waited.result(timeout=FOREVER)
    assert time.monotonic() - begun < FOREVER / 4
    assert int(known["slow"].notnull().sum()) == 11
    assert len(waited.failures) == 1


def test_a_cancel_from_elsewhere_is_heard() -> None:
    begun = time.monotonic()
    waited = sweep(slow, name="cancelled", i=range(1000))
    later(2.0, lambda: open_sweep("cancelled").cancel())
    with pytest.raises(SweepStopped, match="is cancelled"):
        waited.result(timeout=FOREVER)
    assert time.monotonic() - begun < FOREVER / 4


def test_the_death_of_a_host_is_heard_and_the_sweep_goes_on() -> None:
    begun = time.monotonic()
    waited = sweep(slow, name="killed", i=range(30))
    host = find_host(launch_for())
    assert host is not None
    later(1.5, lambda: os.kill(host.process.pid, signal.SIGKILL))
    assert int(waited.result(timeout=FOREVER)["slow"].notnull().sum()) == 29
    assert not host.alive()
    host.close()
    assert time.monotonic() - begun < FOREVER / 4


def test_without_a_host_to_be_heard_pauses_are_as_long_as_they_were_meant_to_be() -> None:
    with Ear(lambda: None) as ear:
        ear.prick()
        begun = time.monotonic()
        ear.wait(0.3)
        assert time.monotonic() - begun >= 0.3
