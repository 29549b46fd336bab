"""Setups cost next to nothing: computed once per prefix and slot, whatever the shape of the loops."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mce_notebook.declare.options import Options
from mce_notebook.run.client import hosts
from mce_notebook.sweep import declare_cell


@pytest.fixture
def three_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "r"))
    monkeypatch.setenv("MCE_HOST_WORKERS", "3")
    yield
    for host in hosts():
        os.kill(host.process.pid, signal.SIGKILL)
        host.close()


COSTLY = """
import os, time
out = {}
for a in range(12):
    time.sleep(0.2)
    with open(calls, "a") as file:
        file.write(f"{a} {os.getpid()}\\n")
    base = a * 1000
    for b in range(200):
        time.sleep(0.005)
        out[a, b] = base + b
"""


@pytest.mark.timeout(180)
def test_repeated_setup_stays_a_small_part_of_computing(root: Path, tmp_path: Path, three_slots: None) -> None:
    calls = tmp_path / "calls"
    run = declare_cell("costly", COSTLY, {"__name__": "__main__", "calls": str(calls)}, Options())
    data = run.result(timeout=120)
    assert [int(data.out.sel(a=a, b=7)) for a in (0, 5, 11)] == [7, 5007, 11007]
    made = calls.read_text().splitlines()
    assert {line.split()[0] for line in made} == {str(a) for a in range(12)}
    # 12 are needed; each repetition costs 0.2 s of 12 s of computing.
    assert (len(made) - 12) * 0.2 <= 0.1 * 12 * 200 * 0.005
    assert len({line.split()[1] for line in made}) == 3


RAGGED = """
import os
rows = []
for n in [3, 5, 7, 9]:
    with open(calls, "a") as file:
        file.write(f"{n} {os.getpid()}\\n")
    noise = [n * 10] * n
    for k in range(n):
        for b in range(50):
            rows.append((n, k, b, noise[k] + b))
"""


@pytest.mark.timeout(120)
def test_a_setup_between_ragged_loops_is_computed_once_per_outer_value(
    root: Path, tmp_path: Path, three_slots: None
) -> None:
    calls = tmp_path / "calls"
    run = declare_cell("ragged", RAGGED, {"__name__": "__main__", "calls": str(calls)}, Options())
    run.result(timeout=60)
    plain: dict[str, object] = {"calls": str(tmp_path / "plain")}
    exec(RAGGED, plain)
    assert run.rows() == plain["rows"]
    made = calls.read_text().splitlines()
    # 1,200 points; a slot that shares a value with another sets it up too.
    assert len(made) == len(set(made)) <= 4 + 2


SLOW_RAGGED = """
import os, time
rows = []
for n in sizes:
    time.sleep(0.3)
    with open(calls, "a") as file:
        file.write(f"{n} {os.getpid()}\\n")
    noise = [n * 10] * n
    for k in range(n):
        for b in range(25):
            time.sleep(pause)
            rows.append((n, k, b, noise[k] + b))
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("sizes", "pause"), [([3, 5, 7, 9], 0.0), ([2, 9, 4, 7, 3, 8, 5, 6], 0.01)], ids=["trivial points", "slow points"]
)
def test_a_slow_setup_between_ragged_loops_is_hardly_repeated(
    root: Path, tmp_path: Path, three_slots: None, sizes: list[int], pause: float
) -> None:
    calls = tmp_path / "calls"
    names: dict[str, object] = {"__name__": "__main__", "calls": str(calls), "sizes": sizes, "pause": pause}
    run = declare_cell("ragged", SLOW_RAGGED, names, Options())
    run.result(timeout=120)
    assert run.rows() == [(n, k, b, n * 10 + b) for n in sizes for k in range(n) for b in range(25)]
    made = calls.read_text().splitlines()
    assert {int(line.split()[0]) for line in made} == set(sizes)
    assert len(made) == len(set(made)), "a slot sets a value up once"
    # One is needed for each value; what is repeated stays a tenth of the computing.
    assert (len(made) - len(sizes)) * 0.3 <= 0.1 * sum(sizes) * 25 * pause


@pytest.mark.timeout(180)
def test_idle_slots_help_with_the_last_value_where_that_pays(root: Path, tmp_path: Path, three_slots: None) -> None:
    calls = tmp_path / "calls"
    cell = SLOW_RAGGED.replace("rows.append((n, k, b, noise[k] + b))", "rows.append((n, k, b, os.getpid()))")
    names: dict[str, object] = {"__name__": "__main__", "calls": str(calls), "sizes": [1, 12], "pause": 0.05}
    run = declare_cell("helped", cell, names, Options())
    run.result(timeout=120)
    workers = [pid for n, _, _, pid in run.rows() if n == 12]
    # 15 s of computing for one slot, 5 s for three, and setting up takes 0.3 s.
    assert len(set(workers)) == 3
    assert min(workers.count(pid) for pid in set(workers)) >= 10
    assert len(calls.read_text().splitlines()) <= 4


NESTED = """
import os
rows = []
for a, word in zip([1, 2], ["u", "v"]):
    with open(calls, "a") as file:
        file.write(f"a{a}\\n")
    A = a * 1000
    for n in [2, 5, 3]:
        if a * n == 6: continue
        with open(calls, "a") as file:
            file.write(f"n{a}{n}\\n")
        N = A + n * 10
        for k in range(n):
            if k == 1: continue
            for b in range(20):
                rows.append((a, word, n, k, b, N + k + b))
"""


@pytest.mark.timeout(180)
def test_setups_around_and_between_ragged_loops_with_guards(root: Path, tmp_path: Path, three_slots: None) -> None:
    plain: dict[str, object] = {"calls": str(tmp_path / "plain")}
    exec(NESTED, plain)
    for order in ("coarse", "listed", "random", "longest-first"):
        calls = tmp_path / order
        run = declare_cell(
            f"nested_{order[:4]}", NESTED, {"__name__": "__main__", "calls": str(calls)}, Options.parse(order=order)
        )
        run.result(timeout=60)
        assert run.rows() == plain["rows"]
        made = calls.read_text().split()
        # What guards leave nothing of is not set up: n = 3 of a = 2.
        assert set(made) == {"a1", "a2", "n12", "n15", "n13", "n22", "n25"}
        assert len(made) <= 7 + 4


@pytest.mark.timeout(180)
def test_ragged_loops_are_lengthened(root: Path, tmp_path: Path, three_slots: None) -> None:
    calls = tmp_path / "calls"
    names: dict[str, object] = {"__name__": "__main__", "calls": str(calls)}
    declare_cell("grows", RAGGED, names, Options()).result(timeout=60)
    calls.unlink()
    # Rows of a known value and of new ones, behind all others in the listing and not even together.
    run = declare_cell("grows", RAGGED, names, Options()).extend(n=[11, 3, 13, 11, 13], k=[0, 2, 1, 1, 4])
    run.result(timeout=60)
    assert run.progress.total == 24 * 50 + 4 * 50
    assert {line.split()[0] for line in calls.read_text().splitlines()} == {"11", "13"}
    assert [row[3] for row in run.rows() if row[0] > 10 and row[2] == 7] == [117, 137, 117, 137]
