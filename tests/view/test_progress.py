import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from mce_notebook.declare.grid import Status, grid
from mce_notebook.store.journal import claim_epoch
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.progress import Meter, Progress, duration
from mce_notebook.view.signs import boot_id


def me(**more):
    return {"host": socket.gethostname(), "boot": boot_id(), "pid": os.getpid(), "time": time.time(), **more}


def dead():
    """A pid no process has."""
    return max(psutil.pids()) + 10_000_000


@pytest.fixture
def sweep(lab):
    lab.declare(grid(n=list(range(10))))
    return lab.sweep


def state(sweep):
    return Progress.of(sweep).state


def test_a_sweep_from_its_request_to_its_end(lab, sweep):
    sweep.add_intent("run", "me")
    assert state(sweep) == "queued"
    epoch = claim_epoch(sweep.paths, me())
    sweep.beat(epoch, {"state": "running", "workers": 2, "rate": 5.0, "time": time.time()})
    found = Progress.of(sweep)
    assert (found.state, found.workers, found.rate) == ("running", 2, 5.0)
    low, high = found.eta
    assert low < 10 / 5.0 < high
    sweep.beat(epoch, {"state": "paused", "time": time.time()})
    assert state(sweep) == "paused"
    sweep.beat(epoch, {"state": "done", "time": time.time()})
    lab.record(range(10), (0, 10), epoch=2)
    found = Progress.of(sweep)
    assert found.state == "done"
    assert found.ended
    assert "100 %" in found.text()


def test_a_host_that_vanished_is_interrupted(sweep):
    sweep.add_intent("run", "me")
    epoch = claim_epoch(sweep.paths, me(pid=dead(), time=time.time() + 1))
    sweep.beat(epoch, {"state": "running", "time": time.time() + 1, "in_flight": [[0, 5]]})
    found = Progress.of(sweep)
    assert found.state == "interrupted"
    assert found.running == 0
    assert "resume" in found.text()


def test_a_pid_taken_by_a_later_process_is_no_host(sweep):
    sweep.add_intent("run", "me")
    claim_epoch(sweep.paths, me(time=psutil.Process().create_time() - 1000))
    assert Progress.of(sweep, now=time.time() + 100).state == "interrupted"


def test_on_another_machine_the_age_of_the_heartbeat_tells(sweep):
    sweep.add_intent("run", "me")
    epoch = claim_epoch(sweep.paths, {"host": "elsewhere", "boot": "x", "pid": 1, "time": time.time()})
    sweep.beat(epoch, {"state": "running", "time": time.time()})
    assert state(sweep) == "running"
    assert Progress.of(sweep, now=time.time() + 100).state == "interrupted"


def test_a_host_in_another_container_is_known_by_its_heartbeat(sweep):
    sweep.add_intent("run", "me")
    epoch = claim_epoch(sweep.paths, me(space="pid:[1]", pid=dead()))
    sweep.beat(epoch, {"state": "running", "time": time.time()})
    assert state(sweep) == "running"
    assert Progress.of(sweep, now=time.time() + 100).state == "interrupted"


@pytest.mark.parametrize(("verb", "expected"), [("pause", "paused"), ("cancel", "cancelled")])
def test_what_was_asked_for_holds_when_the_host_is_gone(sweep, verb, expected):
    claim_epoch(sweep.paths, me(pid=dead()))
    sweep.add_intent(verb, "me")
    assert state(sweep) == expected


def test_a_request_nobody_answered_is_interrupted_after_a_while(sweep):
    sweep.add_intent("run", "me")
    assert Progress.of(sweep, now=time.time() + 1000).state == "interrupted"


def test_stopped_by_too_many_failures(sweep):
    epoch = claim_epoch(sweep.paths, me())
    sweep.add_intent("run", "me")
    sweep.add_intent("stop", "host")
    sweep.beat(epoch, {"state": "stopped", "message": "21 % failed, above --max-failures 20%", "time": time.time() + 1})
    found = Progress.of(sweep)
    assert found.state == "stopped"
    assert "above --max-failures" in found.text()


def test_counts_add_up_and_running_points_are_seen(lab, sweep, failure):
    failures = {1: failure(Status.FAILED), 2: failure(Status.TIMEOUT, "timeout after 1 s")}
    lab.record([1.0, None, None, None], (0, 4), failures=failures, skipped=[3])
    epoch = claim_epoch(sweep.paths, me())
    sweep.beat(epoch, {"state": "running", "in_flight": [[2, 8]], "time": time.time()})
    found = Progress.of(sweep)
    assert (found.done, found.failed, found.timeout, found.skipped, found.running, found.pending) == (1, 1, 1, 1, 4, 2)
    assert found.known == 4
    assert found.causes == {"boom": 1, "timeout after 1 s": 1}
    assert "2 failed (1 x boom, 1 x timeout after 1 s)" in found.text()
    assert Snapshot(sweep).dataset().status.values.tolist() == [2, 3, 5, 6, 1, 1, 1, 1, 0, 0]


def test_html_escapes_everything(lab, sweep, failure):
    lab.record([None], (0, 1), failures={0: failure(Status.FAILED, "<script>alert(1)</script>")})
    text = Progress.of(sweep).html()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_the_meter_finds_the_rate_and_how_sure_it_is():
    meter = Meter()
    for second in range(30):
        meter.add(float(second), 100 * second)
    assert meter.rates() == pytest.approx((100, 100, 100))
    uneven = Meter()
    done = 0
    for second in range(30):
        uneven.add(float(second), done)
        done += 200 if second % 2 else 0
    low, mean, high = uneven.rates()
    assert low < 95 < mean < 110 < high
    assert low > 0


def test_the_meter_forgets_what_was_before_a_restart():
    meter = Meter()
    meter.add(0.0, 100)
    meter.add(1.0, 200)
    meter.add(2.0, 10)
    assert meter.rates() is None
    meter.add(3.0, 10)
    assert meter.rates() is None, "nothing happened: no rate to speak of"


def test_an_estimate_is_a_range(sweep, lab):
    lab.journal()
    epoch = claim_epoch(sweep.paths, me())
    sweep.beat(epoch, {"state": "running", "time": time.time()})
    snapshot, meter = Snapshot(sweep), Meter()
    now = time.time()
    for number in range(5):
        lab.record([1.0], (number, number + 1))
        snapshot.update()
        found = Progress.of(sweep, snapshot, meter, now + number * (1 + number % 2))
    assert found.eta is not None
    low, high = found.eta
    assert 0 < low < high


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "under 1 s"),
        (42.4, "42 s"),
        (200, "3 min 20 s"),
        (1200, "20 min"),
        (7500, "2 h 5 min"),
        (273600, "3 days 4 h"),
    ],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_host_that_ends_while_it_is_looked_at_is_done(lab, sweep, monkeypatch):
    """Outcomes written between two looks, and then `done`: nothing is missing."""
    snapshot = Snapshot(sweep)
    lab.journal()
    epoch = claim_epoch(sweep.paths, me())
    sweep.add_intent("run", "me")
    heartbeat = type(sweep).heartbeat

    def ends_now(self, number):
        lab.record(range(10), (0, 10))
        self.beat(epoch, {"state": "done", "time": time.time()})
        monkeypatch.undo()
        return heartbeat(self, number)

    monkeypatch.setattr(type(sweep), "heartbeat", ends_now)
    assert Progress.of(sweep, snapshot).state == "done"


def test_looking_at_a_finished_sweep_imports_neither_dask_nor_a_process_library(tmp_path):
    """A first look in a new kernel is waited for; each of these takes a tenth of it."""
    script = """
import sys
import numpy as np
from mce_notebook.declare.grid import grid
from mce_notebook.view import cells, dataset, progress
made = cells.cells_of(grid(a=[1, 2.5], b=["x", "y"], c=[1, "m"]), None)
import xarray
xarray.Dataset({"v": xarray.Variable(made.dims, np.zeros(made.shape), fastpath=True)}, coords=made.coordinates)
print(sorted({"dask", "distributed", "psutil"} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
