"""An engine on a real store: redeclared grids, full disks, points given up; and a sweep removed under it."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mce_notebook.declare.grid import Grid, Status, grid
from mce_notebook.declare.options import Options
from mce_notebook.errors import StoreError, StoreFull, UnknownSweep
from mce_notebook.plan import Block
from mce_notebook.run.engine import Engine
from mce_notebook.run.pool import WorkerLost
from mce_notebook.run.protocol import BlockResult, Task
from mce_notebook.run.registry import Process
from mce_notebook.run.store_ledger import StoreLedger, _gone
from mce_notebook.store.catalog import Store, SweepStore, pid_space
from mce_notebook.store.coverage import known
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Outcomes, encode
from mce_notebook.store.journal import Journal
from mce_notebook.store.reader import LogReader
from tests.run.engines import drive


class Squares:
    """Computes in this process what slots would: the square of the label, by the declaration of each task."""

    workers = 2
    remark = ""
    refusal = ""

    def __init__(self, sweep: SweepStore, pause: float = 0.0, deadly: float | None = None):
        self.sweep = sweep
        self.pause = pause
        self.deadly = deadly
        self.calls = 0
        self.epochs: set[int | None] = set()
        self.grids: dict[int, Grid] = {}

    def loads(self) -> dict[str, int]:
        return {f"slot {number}": 0 for number in range(self.workers)}

    async def submit(self, task: Task, block: Block, **options: Any) -> BlockResult:
        if task.declaration not in self.grids:
            self.grids[task.declaration] = self.sweep.declaration(task.declaration).grid
        await asyncio.sleep(self.pause)
        self.epochs.add(task.epoch)
        labels = [x for (x,) in self.grids[task.declaration].points_at(block.indices())]
        if self.deadly in labels:
            raise WorkerLost("The worker died.")
        self.calls += len(labels)
        frames = encode(
            Outcomes([float(x) ** 2 for x in labels], {}),
            ("y",),
            declaration=task.declaration,
            ranges=block.ranges,
            meta={"version": task.version, "generation": str(task.generation)},
        )
        return BlockResult(frames, len(labels), (), 1e-3 * len(labels), 0.0, 0, 8 * len(labels))

    async def interrupt(self, task: Task) -> None:
        return None


def declare(sweep: SweepStore, points: Grid, version: str = "v", **options: Any) -> None:
    told = Options.parse(**options).to_json()
    sweep.declare(Declaration.of(points, outputs=("y",), version=version, root=1, options=told, cwd="/"))


@pytest.fixture
def sweep(tmp_path: Path) -> SweepStore:
    return Store(tmp_path / "experiments").create("squares", 1)


def outcomes(sweep: SweepStore) -> dict[float, list[float | None]]:
    """Values by label, every record of each."""
    found: dict[float, list[float | None]] = {}
    reader = LogReader(sweep.paths)
    for batch in reader.poll():
        points = sweep.declaration(batch.declaration).grid.points_at(np.asarray(batch.index))
        column = batch.columns.get("y")
        values = column.data.to_pylist() if column is not None else [None] * len(batch)
        for (x,), value in zip(points, values, strict=True):
            found.setdefault(x, []).append(value)
    assert not reader.problems
    return found


def test_outcomes_heartbeat_event_and_a_closed_epoch_are_left(sweep: SweepStore) -> None:
    declare(sweep, grid(x=range(500)))
    assert drive(sweep, Squares(sweep)).state == "done"
    assert outcomes(sweep) == {x: [float(x * x)] for x in range(500)}
    (epoch,) = sweep.epochs()
    assert {"host", "boot", "space", "pid", "start", "time"} <= set(epoch.host)
    beat = sweep.heartbeat(epoch.number)
    assert (beat["state"], beat["done"], beat["total"], beat["in_flight"]) == ("done", 500, 500, [])
    assert sweep.events()[-1]["event"] == "done"
    assert sweep.paths.epoch_closed(1).exists()


def test_a_heartbeat_that_was_slow_does_not_outlast_the_last_one(
    sweep: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(sweep, grid(x=[1.0]))
    ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
    ledger.assignment([])
    ledger.claim()
    held, write = threading.Event(), SweepStore.beat

    def slowly(self: SweepStore, epoch: int, record: Mapping[str, Any]) -> None:
        if record["counter"] == 1:
            held.wait(20)
        write(self, epoch, record)

    monkeypatch.setattr(SweepStore, "beat", slowly)
    beats = [{"counter": 1, "state": "running"}, {"counter": 2, "state": "stopped"}]
    threads = [threading.Thread(target=ledger.beat, args=(beat,)) for beat in beats]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    held.set()
    for thread in threads:
        thread.join()
    ledger.beat(beats[0])
    assert sweep.heartbeat(sweep.epochs()[-1].number)["state"] == "stopped"
    ledger.close("stopped", "")


def test_slots_are_told_the_epoch_to_write_large_payloads_into(sweep: SweepStore) -> None:
    declare(sweep, grid(x=range(40_000)))
    pool = Squares(sweep, pause=0.05)
    drive(sweep, pool)
    assert 1 in pool.epochs


def test_an_extended_and_reordered_grid_is_joined_while_it_runs(sweep: SweepStore) -> None:
    declare(sweep, grid(x=range(100, 40_100)))
    pool = Squares(sweep, pause=0.01)

    async def story(engine: Engine) -> None:
        while pool.calls == 0:
            await asyncio.sleep(0.002)
        # The same points at other places, some left out, some new.
        declare(sweep, grid(x=range(0, 41_000, 2)))
        engine.poke()

    assert drive(sweep, pool, story).state == "done"
    found = outcomes(sweep)
    assert set(range(0, 41_000, 2)) <= set(found)
    assert all(told == [float(x) ** 2] for x, told in found.items())
    latest = sweep.latest()
    assert latest is not None
    assert (known(sweep, latest).status == Status.DONE).all()
    beat = sweep.heartbeat(1)
    assert (beat["done"], beat["total"]) == (20_500, 20_500)


@pytest.mark.parametrize("error", [StoreFull("No room."), StoreError("Input/output error")])
def test_a_disk_that_fails_for_a_while_costs_nothing(
    sweep: SweepStore, monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    declare(sweep, grid(x=range(20_000)))
    append, calls = Journal.append, iter(range(10**6))

    def failing(self: Journal, frames: Any) -> None:
        if 1 <= next(calls) < 6:
            raise error
        append(self, frames)

    monkeypatch.setattr(Journal, "append", failing)
    seen: list[str] = []

    async def story(engine: Engine) -> None:
        while engine.state not in ("paused", "done"):
            await asyncio.sleep(0.002)
        seen.append(f"{engine.state}: {engine.message}")

    assert drive(sweep, Squares(sweep, pause=0.005), story).state == "done"
    assert seen == [f"paused: nothing can be written: {error}"]
    assert all(len(told) == 1 for told in outcomes(sweep).values())
    assert len(outcomes(sweep)) == 20_000


def test_an_epoch_that_cannot_be_claimed_yet_is_claimed_with_the_first_outcome(
    sweep: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(sweep, grid(x=range(50)))
    from mce_notebook.run import store_ledger

    claim, calls = store_ledger.claim_epoch, iter(range(100))

    def failing(*arguments: Any) -> int:
        if next(calls) < 4:
            raise StoreFull("No room.")
        return claim(*arguments)

    monkeypatch.setattr(store_ledger, "claim_epoch", failing)
    assert drive(sweep, Squares(sweep)).state == "done"
    assert len(outcomes(sweep)) == 50


def test_a_point_that_kills_workers_is_recorded_as_killed(sweep: SweepStore) -> None:
    declare(sweep, grid(x=range(300)))
    assert drive(sweep, Squares(sweep, deadly=77)).state == "done"
    latest = sweep.latest()
    assert latest is not None
    status = known(sweep, latest).status
    assert status[77] == Status.KILLED
    assert (np.delete(status, 77) == Status.DONE).all()
    failures = [one for batch in LogReader(sweep.paths).poll() for one in batch.failures.values()]
    assert [failure.where for failure in failures] == ["slot"]
    assert "SIGKILL" in failures[0].cause


def test_max_failures_leave_an_intent_that_only_resume_overrules(sweep: SweepStore) -> None:
    ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
    ledger.hold("--max-failures: 3 of 4 outcomes are failures")
    declare(sweep, grid(x=range(30)))
    engine = drive(sweep, Squares(sweep))
    assert engine.state == "stopped"
    assert "3 of 4" in engine.message
    assert not sweep.epochs()
    ledger.intend("run")
    assert drive(sweep, Squares(sweep)).state == "done"


@pytest.mark.parametrize("again", [False, True])
def test_a_sweep_removed_under_its_engine_ends_it(sweep: SweepStore, again: bool) -> None:
    declare(sweep, grid(x=range(100_000)))
    root = sweep.paths.folder.parent

    async def story(engine: Engine) -> None:
        while engine.ledger.epoch is None:
            await asyncio.sleep(0.002)
        sweep.archive()
        if again:
            declare(Store(root).create("squares", 1), grid(x=range(3)))
        engine.poke()

    engine = drive(sweep, Squares(sweep, pause=0.05), story)
    assert engine.state == "stopped"
    assert "squares" in engine.message


def test_nothing_declared_is_told(sweep: SweepStore) -> None:
    with pytest.raises(StoreError, match="Nothing was declared"):
        drive(sweep, Squares(sweep))


def test_an_unknown_sweep_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownSweep, match="nobody"):
        StoreLedger(str(tmp_path), "nobody")


def test_the_next_writer_tidies_up_after_one_that_was_killed(tmp_path: Path) -> None:
    sweep = Store(tmp_path).create("killed", 1)
    declare(sweep, grid(x=[1.0, 2.0]))
    script = f"""
import os, signal
from mce_notebook.run.store_ledger import StoreLedger
from mce_notebook.store.big import write_payload
ledger = StoreLedger({str(tmp_path)!r}, "killed")
ledger.claim()
write_payload(ledger._sweep.paths.big_epoch(1), b"never recorded")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert sweep.folder.names(sweep.paths.big_epoch(1))
    ledger = StoreLedger(str(tmp_path), "killed")
    ledger.claim()
    end = time.monotonic() + 20
    while sweep.folder.names(sweep.paths.big_epoch(1)) or sweep.paths.reserve(1).exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    ledger.close("done", "")


def test_a_writer_in_another_container_of_this_machine_is_not_taken_for_gone() -> None:
    """Process ids of another namespace say nothing here, even where host name and boot are the same."""
    process = Process.current()
    boot = process.machine.partition("/")[0]
    mine = {"host": process.hostname, "boot": boot, "space": pid_space(), "pid": process.pid, "start": process.start}
    assert not _gone(mine)
    assert _gone({**mine, "start": "0"})
    for claim in ({"space": "pid:[1]"}, {"boot": "x"}, {"host": "x"}):
        assert not _gone({**mine, "start": "0", **claim})
    # Of a writer that does not say, nobody knows.
    del mine["space"]
    assert not _gone({**mine, "start": "0"})
