"""Guards that take long, hang or crash, with a real host: the notebook goes on, the points are the plain cell's."""

import contextlib
import importlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mce_notebook as mce
from mce_notebook.declare.grid import Grid, grid
from mce_notebook.declare.options import Options
from mce_notebook.errors import DeclarationError, GridError, GuardPending, IncompleteGrid
from mce_notebook.frontends.messages import sweeps_text
from mce_notebook.run import trial
from mce_notebook.run.client import hosts, stop_host
from mce_notebook.store.catalog import Store
from mce_notebook.sweep import declare_cell
from tests.behaviour.test_kernels import Kernel
from tests.behaviour.test_kills import host_processes, slots
from tests.buckets import new_bucket, served, variables

pytestmark = pytest.mark.timeout(300)
PATIENCE = 60.0


def until(condition: Callable[[], object], why: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def total(n: int, m: int) -> float:
    return n + m / 7


def third(n: int, m: int) -> bool:
    time.sleep(0.002)
    return n * m % 3 == 1


def kept(run: mce.Sweep) -> set[tuple[int, int]]:
    data = run.dataset
    found = np.argwhere(data.status.values == 2)
    return {(int(data.n.values[i]), int(data.m.values[j])) for i, j in found}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No guard in Python is fast enough for the kernel."""
    monkeypatch.setattr(trial, "BUDGET", 0.0)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    found = Kernel(tmp_path)
    yield found
    with contextlib.suppress(Exception):
        found.close()


LOOPS = """rows = []
for n in range(24):
    for m in range(20):
        if n == 3: continue
        if not good(n, m): continue
        rows.append((n, m, n * m / 7))
"""
GOOD = """import time
def good(n, m):
    time.sleep(0.003)
    return n * m % 3 == 1
"""


def test_a_cell_gives_the_rows_of_the_plain_cell_and_a_new_kernel_asks_nothing_again(
    kernel: Kernel, tmp_path: Path
) -> None:
    kernel.run(GOOD)
    begun = time.monotonic()
    kernel.run(f"%%sweep found --no-block\n{LOOPS}")
    assert kernel.value("found.launched.declaration.deferred"), "the guard was evaluated in the kernel"
    assert time.monotonic() - begun < 60
    kernel.run(LOOPS)
    assert kernel.value("found.result(timeout=100) is not None")
    assert kernel.value("found.rows() == rows")
    assert kernel.value("len(rows)") == sum(n * m % 3 == 1 for n in range(24) if n != 3 for m in range(20))
    kernel.kill()
    again = Kernel(tmp_path)
    try:
        again.run(GOOD)
        again.run(f"%%sweep found --no-block\n{LOOPS}")
        assert again.value("(found.launched.declaration.number, found.launched.started, found.state)") == (
            1,
            False,
            "done",
        )
        # The same guard, other code of the points: evaluated no more.
        again.run(f"%%sweep found\n{LOOPS.replace('/ 7', '/ 8')}")
        assert again.value("found.launched.declaration.number") == 2
        assert not again.value("found.launched.declaration.deferred")
    finally:
        again.close()


def test_a_kernel_that_is_killed_while_the_guard_is_evaluated_changes_nothing(kernel: Kernel, tmp_path: Path) -> None:
    good = GOOD.replace("0.003", "0.02")
    kernel.run(good)
    kernel.run(f"%%sweep left --no-block\n{LOOPS}")
    until(lambda: "is evaluated" in kernel.value("left.progress.text()"), "the guard is not evaluated")
    kernel.kill()
    again = Kernel(tmp_path)
    try:
        again.run(good)
        again.run(f"%%sweep left --no-block\n{LOOPS}")
        assert again.value("left.launched.declaration.number") == 1
        again.run(LOOPS)
        assert again.value("left.result(timeout=100) is not None")
        assert again.value("left.rows() == rows")
    finally:
        again.close()


def test_a_guard_that_never_returns_leaves_the_kernel_free(kernel: Kernel) -> None:
    kernel.run("import time\ndef stuck(n): time.sleep(10**6)")
    begun = time.monotonic()
    kernel.run("%%sweep hung --no-block\nrows = []\nfor n in range(9):\n    if stuck(n): continue\n    rows.append(n)")
    assert kernel.value("1 + 1") == 2
    assert time.monotonic() - begun < 60
    end = time.monotonic() + PATIENCE
    while "is evaluated: 0 of 9 combinations" not in kernel.value("hung.progress.text()"):
        assert time.monotonic() < end
        time.sleep(0.2)
    kernel.run("hung.cancel()\nhung.wait(timeout=60)")
    assert kernel.value("hung.state") == "cancelled"


def test_cheap_guards_are_known_at_once(root: Path) -> None:
    import math

    run = mce.sweep(total, grid(n=range(1, 33), m=range(1, 33)).where(lambda n, m: math.gcd(n, m) == 1))
    assert run.launched is not None
    assert run.launched.todo == sum(math.gcd(n, m) == 1 for n in range(1, 33) for m in range(1, 33))
    assert not run.launched.declaration.deferred
    assert list((root / "total" / "declarations").glob("*.mask")) == []
    with pytest.raises(GridError, match="The guard '<lambda>' failed at n=0: ZeroDivisionError: division by zero"):
        mce.sweep(total, grid(n=[1, 0], m=[1]).where(lambda n: 1 / n), name="never")
    assert "never" not in Store(root)


def test_what_is_known_is_said_while_the_guard_is_evaluated(root: Path, tmp_path: Path) -> None:
    gate = str(tmp_path / "go on")

    def held(n: int, m: int) -> bool:
        # Half of it is evaluated, then it waits for this test.
        while n >= 20 and not os.path.exists(gate):
            time.sleep(0.01)
        time.sleep(0.001)
        return n * m % 3 == 1

    design = grid(n=range(40), m=range(60)).where(held)
    told = mce.sweep(total, design)

    def partly() -> bool:
        text = told.progress.text()
        return "guard held is evaluated: " in text and "evaluated: 0 of" not in text

    until(partly, "no guard is evaluated")
    progress = told.progress
    assert " of 2,400 combinations" in progress.message
    assert (progress.state, progress.total, progress.done, progress.pending) == ("running", 0, 0, 0)
    assert progress.message in progress.text()
    assert progress.message in progress.html()
    twice = mce.sweep(total, design)
    assert twice.launched is not None
    assert twice.launched.declaration.number == 1
    assert "2,400 points" not in progress.text() + progress.html()
    # All that may be points is pending, and none is known.
    assert (told.dataset.status.values == 0).all()
    assert "not known yet" in sweeps_text([told])
    with pytest.raises(GuardPending):
        told.grid.mask()
    with pytest.raises(IncompleteGrid, match="its guards are not evaluated"):
        told.seal()
    Path(gate).touch()
    data = told.result(timeout=PATIENCE)
    assert kept(told) == {(n, m) for n in range(40) for m in range(60) if n * m % 3 == 1}
    assert all(float(data.total.sel(n=n, m=m)) == n + m / 7 for n, m in kept(told))
    assert told.grid.mask() is not None
    assert told.progress.guard == ""


def test_more_values_are_asked_about_alone(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def counted(n: int, m: int) -> bool:
        time.sleep(0.001)
        with log.open("a") as file:
            file.write("x\n")
        return n * m % 3 == 1

    run = mce.sweep(total, grid(n=range(30), m=range(20)).where(counted), name="more", retries=9)
    assert run.launched is not None
    assert run.launched.declaration.deferred
    run.result(timeout=PATIENCE)
    asked = len(log.read_text().splitlines())
    run.extend(n=list(range(30, 60)))
    run.result(timeout=PATIENCE)
    assert kept(run) == {(n, m) for n in range(60) for m in range(20) if n * m % 3 == 1}
    # Those new, and what may be tried in a copy for a moment.
    assert len(log.read_text().splitlines()) < asked + 2 * 600
    assert run.progress.total == len(kept(run))
    # The call's own grid is unchanged, so what `extend` added stays, and nothing is asked or tried again.
    asked = len(log.read_text().splitlines())
    same = mce.sweep(total, grid(n=range(30), m=range(20)).where(counted), name="more", retries=9)
    assert same.launched is not None
    assert (same.launched.declaration.number, same.launched.started) == (2, False)
    assert same.dataset.sizes["n"] == 60
    assert len(log.read_text().splitlines()) == asked


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("guard", "why", "options"),
    [
        (lambda n, m: 1 / (n - 33) != m, "failed at n=33, m=0: ZeroDivisionError: division by zero.", {}),
        (lambda n: signal.raise_signal(signal.SIGSEGV) if n == 7 else True, "failed at n=7: killed by SIGSEGV", {}),
        (lambda n: time.sleep(1000 * (n == 7)) or True, "failed at n=7: timed out after 1 s", {"timeout": 1}),
        (lambda n: len(b"x" * (n // 9 * 10**9)) >= 0, "failed at n=", {"memory": 5 * 10**8}),
    ],
    ids=["raises", "crashes", "hangs", "takes memory"],
)
def test_a_guard_that_fails_in_a_slot_stops_the_sweep_and_says_where(
    root: Path, guard: object, why: str, options: dict[str, int]
) -> None:
    run = mce.sweep(total, grid(n=range(40), m=range(3)).where(guard), name="bad", **options)  # type: ignore[arg-type]
    with pytest.raises(GridError, match=r"^The guard '<lambda>' failed at n=") as told:
        run.result(timeout=PATIENCE)
    assert why in str(told.value)
    assert run.state == "stopped"
    assert str(told.value) in run.progress.text()
    assert not np.isin(run.dataset.status.values, [2, 3]).any()
    # Repaired, it is another guard, and the cell runs.
    again = mce.sweep(total, grid(n=range(40), m=range(3)).where(lambda n: n < 5), name="bad")
    again.result(timeout=PATIENCE)
    assert len(kept(again)) == 15


@pytest.mark.usefixtures("at_once")
def test_a_guard_that_remembers_is_refused(root: Path) -> None:
    seen: set[int] = set()

    def new(n: int, m: int) -> bool:
        seen.add(n)
        return m not in seen

    run = mce.sweep(total, grid(n=range(40), m=range(30)).where(new), name="remembers")
    with pytest.raises(GridError, match=r"^The guard 'new' changes `seen`, so what it says would depend on the order"):
        run.result(timeout=PATIENCE)
    assert not list((root / "remembers" / "declarations").glob("*.mask"))


def test_hosts_and_slots_that_are_killed_leave_the_same_mask(root: Path) -> None:
    run = mce.sweep(total, grid(n=range(50), m=range(40)).where(third), name="killed", retries=100)
    asked = [0]
    for victims in (slots, host_processes):

        def further() -> bool:
            said = re.search(r"evaluated: ([\d,]+) of 2,000", run.progress.text())
            if said is None:
                # A fast machine may be through.
                return run.progress.total > 0
            now = int(said[1].replace(",", ""))
            if now <= asked[0]:
                return False
            asked[0] = now
            return True

        until(further, "it does not go on")
        for victim in victims():
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
    run.result(timeout=PATIENCE)
    assert kept(run) == {(n, m) for n in range(50) for m in range(40) if n * m % 3 == 1}


@pytest.mark.usefixtures("at_once")
def test_what_it_would_cost_is_said_with_what_is_known(root: Path) -> None:
    from mce_notebook.declare.experiment import from_function
    from mce_notebook.launch import Proposal
    from mce_notebook.preview import confirm, estimate

    design = grid(n=range(40), m=range(30)).where("n > 3").where(third)

    def proposal(points: Grid, **options: object) -> Proposal:
        told = from_function(total, points.names, name="cost", outputs=("total",))
        return Proposal(told, points, Options.parse(**options), "function")

    text = estimate(proposal(design), root).text()
    assert text.startswith("at most 1,080 points: a guard takes too long to be evaluated here")
    assert text.endswith("Nothing was started.")
    with pytest.raises(DeclarationError, match=r"at most 1,080 points.*Leave --confirm-above out"):
        confirm(proposal(design, confirm_above="1h"), root)
    assert not root.exists()
    mce.sweep(total, design, name="cost").result(timeout=PATIENCE)
    said = estimate(proposal(design), root).text()
    assert f"{sum(n * m % 3 == 1 for n in range(4, 40) for m in range(30)):,} points: 0 new" in said


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("options", [{"serial": True}, {"on": "inline"}, {"replicates": 3}])
def test_every_way_of_running_gives_the_same(root: Path, options: dict[str, object]) -> None:
    def drawn(n: int, m: int, rng: np.random.Generator) -> float:
        return n * m + rng.random()

    def uneven(n: int, m: int) -> bool:
        return (n + m) % 2 == 1

    for name, design in (("a", grid(n=range(9), m=range(8)).where(uneven)), ("b", grid(n=range(9), m=range(8)))):
        design = design if name == "a" else design.where("(n + m) % 2 == 1")
        mce.sweep(drawn, design, name="drawn", store=root / name, **options).result(timeout=PATIENCE)  # type: ignore[arg-type]
    first, second = (mce.open("drawn", root / name).dataset for name in "ab")
    assert first.drawn.values.tobytes() == second.drawn.values.tobytes()
    assert np.array_equal(first.status.values, second.status.values)


@pytest.mark.usefixtures("at_once")
def test_what_a_guard_says_is_in_the_bucket_for_other_machines(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "r"))
    with served() as server:
        for name, value in {**variables(server), "MCE_CACHE_DIR": str(tmp_path / "here")}.items():
            monkeypatch.setenv(name, value)
        store = f"s3://{new_bucket(server)}/experiments"
        design = grid(n=range(12), m=range(12))
        first = mce.sweep(total, design.where(third), name="far", store=store)
        assert first.progress.guard == "pending"
        first.result(timeout=PATIENCE)
        assert kept(first) == {(n, m) for n in range(12) for m in range(12) if n * m % 3 == 1}
        monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path / "there"))
        again = mce.sweep(total, grid(n=range(12), m=range(12)).where(third), name="far", store=store)
        assert again.launched is not None
        assert again.launched.todo == 0
        assert not again.progress.guard
        for host in hosts():
            stop_host(host)


def test_rows_are_put_together_without_asking_guards_again(root: Path) -> None:
    asked: list[int] = []

    def good(n: int) -> bool:
        asked.append(n)
        return n % 3 != 1

    space: dict[str, Any] = {"__name__": "__main__", "good": good}
    loops = "rows = []\nfor n in range(7):\n    if not good(n): continue\n    row = []\n"
    loops += "    for m in range(4):\n        row.append(n * m / 7)\n    rows.append(row)\n"
    run = declare_cell("nested", loops, space, Options(on="inline"))
    asked.clear()
    exec(loops, space)
    assert asked == list(range(7))
    assert run.rows() == space["rows"]
    assert asked == list(range(7))


@pytest.mark.usefixtures("at_once")
def test_slots_see_what_the_notebook_has_set_in_a_module(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limits_of_a_guard.py").write_text("LEAST = 3\n\n\ndef above(n):\n    return n > LEAST\n")
    monkeypatch.syspath_prepend(tmp_path)
    limits = importlib.import_module("limits_of_a_guard")
    limits.LEAST = 6
    run = mce.sweep(total, grid(n=range(9), m=[1]).where(limits.above), name="patched")
    run.result(timeout=PATIENCE)
    assert kept(run) == {(7, 1), (8, 1)}
