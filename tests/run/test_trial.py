"""Guards tried in a copy of the process: what is known at once, and what hangs, crashes or takes too long."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mce_notebook as mce
from mce_notebook.declare.experiment import from_function
from mce_notebook.declare.grid import Grid, Guard, grid, zipped
from mce_notebook.errors import GridError, GuardFailed, GuardPending
from mce_notebook.run import trial
from mce_notebook.run.trial import key_of, settled, tried
from tests.declare.grids import products

# What a trial may take on a machine that is busy (seconds): far less than for ever.
PATIENCE = 30.0


def any_token(value: Any) -> str:
    return str(from_function(lambda n: n, ("n",), name="any", outputs=("y",)).token(value))


def mask_of(design: Grid) -> list[bool]:
    mask = design.mask()
    return [True] * design.size if mask is None else mask.tolist()


def test_what_numpy_can_tell_takes_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a copy was made"))
    design = grid(n=range(30), m=range(30)).where("n > m and n % 2 == 0")
    assert tried(design).known
    assert mask_of(design) == [n > m and n % 2 == 0 for n in range(30) for m in range(30)]
    assert tried(grid(n=[1])).known


def test_guards_in_python_are_known_at_once() -> None:
    design = grid(n=range(32), m=range(31)).where(lambda n, m: math.gcd(n, m) == 1).where("n > 2")
    found = tried(design)
    assert found.known
    assert found.seconds > 0
    assert mask_of(design) == [math.gcd(n, m) == 1 and n > 2 for n in range(32) for m in range(31)]
    parts = grid(n=range(9)).where(lambda n: n % 2) + zipped(n=[1, 2, 3], m=[4, 5, 6])
    plain = Grid(parts.parts).mask()
    assert tried(parts).known
    assert plain is not None
    assert mask_of(parts) == plain.tolist()


@settings(deadline=None, max_examples=25)
@given(products(3), st.integers(0, 10**6), st.booleans())
def test_the_copy_finds_what_a_loop_finds(design: Grid, salt: int, again: bool) -> None:
    names = design.names[:2]

    def guard(*values: object) -> bool:
        return hash((salt, *map(repr, values))) % 3 != 0

    part = design.parts[0].guarded(Guard(None, guard, names))
    some = Grid((part, design.parts[0]) if again else (part,))
    expected = Grid(some.parts).mask()
    assert expected is not None
    assert tried(some).known
    assert mask_of(some) == expected.tolist()


def test_what_a_guard_does_in_the_copy_is_not_done_here(tmp_path: Path) -> None:
    seen: list[int] = []
    assert tried(grid(n=[1, 2]).where(lambda n: seen.append(n) or True)).known
    assert seen == []


def test_what_a_guard_prints_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert tried(grid(n=[1, 2]).where(lambda n: sys.stdout.write(f"ünï {n}\n") or True)).known
    assert capsys.readouterr().out == "ünï 1\nünï 2\n"
    with pytest.raises(GridError):
        tried(grid(n=[1, 0]).where(lambda n: sys.stdout.write(f"at {n}\n") / n))
    assert capsys.readouterr().out == "at 1\nat 0\n"


def test_a_guard_that_raises_does_so_here_with_its_own_traceback() -> None:
    def odd(n: int, m: int) -> bool:
        return bool(1 / (n - 3) + m)

    with pytest.raises(GuardFailed, match=r"^The guard 'odd' failed at n=3, m=0: ZeroDivisionError: division by") as e:
        tried(grid(n=range(5), m=[0, 1]).where(odd))
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    frames = traceback.extract_tb(e.value.__cause__.__traceback__)
    assert frames[-1].name == "odd"

    def over(n: int) -> bool:
        raise StopIteration

    with pytest.raises(GridError, match="failed at n=7: StopIteration"):
        tried(grid(n=[7]).where(over))


def children() -> int:
    return len(psutil.Process().children())


@pytest.mark.parametrize(
    "guard",
    [
        lambda n: time.sleep(10**6),
        lambda n: ctypes.string_at(0),
        lambda n: os._exit(0),
        lambda n: os.kill(os.getpid(), 9),
        lambda n: sys.exit(1),
        lambda n: threading.Lock().acquire() and threading.Event().wait(),
    ],
    ids=["sleeps", "crashes", "exits", "is killed", "raises SystemExit", "waits"],
)
def test_a_guard_that_does_not_come_back_is_left_to_the_host(guard: Any) -> None:
    before, begun = children(), time.monotonic()
    design = grid(n=range(10)).where(guard)
    assert not tried(design).known
    assert time.monotonic() - begun < PATIENCE
    end = time.monotonic() + PATIENCE
    while children() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert children() == before, "the copy is left behind"


def test_what_a_guard_starts_ends_with_the_trial(tmp_path: Path) -> None:
    told = tmp_path / "pid"

    def solved(n: int) -> bool:
        with subprocess.Popen(["sleep", "1000"]) as solver:
            told.write_text(str(solver.pid))
        return True

    assert not tried(grid(n=range(3)).where(solved), 1.0).known
    pid = int(told.read_text())
    end = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the solver goes on"
        time.sleep(0.05)


def test_children_that_nobody_waits_for() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert tried(grid(n=range(3)).where(lambda n: n > 1)).known
        assert not tried(grid(n=range(3)).where(lambda n: time.sleep(1000))).known
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_slow_guard_is_left_to_the_host_soon() -> None:
    begun = time.monotonic()
    assert not tried(grid(n=range(10**6)).where(lambda n: time.sleep(0.001) or True)).known
    assert time.monotonic() - begun < PATIENCE


def test_no_copy_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", full)
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    assert not tried(grid(n=[1]).where(lambda n: True)).known
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_guard_whose_code_is_not_known_here_is_refused() -> None:
    record, tables = grid(n=[1, 2]).where(lambda n: n > 1).to_record()
    record.pop("mask")
    design = Grid(Grid.from_record(record, tables).parts)
    with pytest.raises(GridError, match="not known here; run the cell"):
        tried(design)


# Deferred


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No guard in Python is fast enough."""
    monkeypatch.setattr(trial, "BUDGET", 0.0)


def late(design: Grid) -> Grid:
    return settled(design, any_token, None, ())


@pytest.mark.usefixtures("at_once")
def test_a_deferred_grid_tells_no_points_it_does_not_know() -> None:
    design = late(grid(n=range(40), m=range(60)).where("n > 3").where(lambda n, m: n * m % 3 == 1).where("m < 50"))
    assert design.deferred
    with pytest.raises(GuardPending, match="a guard that takes long is evaluated where the sweep runs"):
        design.mask()
    most = design.candidates()
    assert most is not None
    assert most.tolist() == [n > 3 and m < 50 for n in range(40) for m in range(60)]
    record, tables = design.to_record()
    back = Grid.from_record(record, tables)
    assert back.deferred
    assert back.guarded == design.guarded
    assert np.array_equal(back.candidates(), most)
    assert [str(guard) for guard in back.parts[0].guards] == ["n > 3", "<lambda>", "m < 50"]
    assert list(design.object_values()) == ["0/all guards"]
    # An older version of this package must not take what may be for what is.
    assert record["format"] == 2
    assert not design.extended(n=[100]).guarded


@pytest.mark.usefixtures("at_once")
def test_guards_that_a_record_holds_are_signed_too_when_they_are_evaluated_elsewhere() -> None:
    design = late(grid(n=range(40)).where("sum([n, 1]) > 3"))
    assert list(design.object_values()) == ["0/all guards"]
    assert not settled(grid(n=range(40)).where("n > 3"), any_token, None, ()).guarded


def test_keys_tell_guards_and_axes_apart() -> None:
    least, one = 2, grid(n=[1, 2, 3])
    same = one.where(lambda n: n >= least)
    keys = [
        key_of(design, any_token)
        for design in (
            same,
            one.where(lambda n: n > least),
            grid(n=[1, 2, 4]).where(lambda n: n >= least),
            one.where("sum([n]) > 1"),
            one.where("sum([n]) > least", least=1),
            one.where("sum([n]) > least", least=2),
            grid(n=[1, 2, 3], m=[1]).where(lambda n: n >= least),
        )
    ]
    assert len(set(keys)) == len(keys)
    # The first half is of the guards alone.
    assert keys[0][:16] == keys[2][:16]
    assert key_of(one.where(lambda n: n >= least), any_token)[16:] == keys[0][16:]


def test_inline_evaluates_guards_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a copy was made"))
    monkeypatch.setattr(trial, "BUDGET", 0.0)

    def double(n: int) -> int:
        return 2 * n

    data = mce.sweep(double, grid(n=range(6)).where(lambda n: n != 2), on="inline", name="double").result()
    assert np.isnan(data.double.values[2])
    assert np.nansum(data.double.values) == 2 * (15 - 2)
