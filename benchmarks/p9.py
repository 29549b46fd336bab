"""Planning a million points, `--dry-run`, and the import."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mce_notebook as mce
from benchmarks import rig, workloads
from benchmarks.report import Row

IMPORT = "import time; begin = time.perf_counter(); import mce_notebook; print(time.perf_counter() - begin)"


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    points = 100_000 if quick else 1_000_000
    repeats = 3 if quick else 7
    fast = rig.repeated(lambda: rig.timed(lambda: plan(points, "a * b > 0.3 and k != 7")), repeats)
    yield Row("p9", f"plan of {points:,} points, guard with NumPy", fast, "s", 0.5, note="call to first block")
    slow = rig.repeated(lambda: rig.timed(lambda: plan(points, guard)), repeats)
    yield Row("p9", f"plan of {points:,} points, guard in Python", slow, "s", 2.0, note="call to first block")
    dry = rig.repeated(lambda: rig.timed(lambda: estimate(points)), repeats)
    yield Row("p9", f"--dry-run of {points:,} points", dry, "s", 1.0, note="five points are tried")
    imported = rig.repeated(lambda: rig.in_new_process(IMPORT)[0], repeats)
    yield Row("p9", "import mce_notebook", imported, "s", 0.3, note="new process, files in the page cache")


def guard(a: float, b: float, k: int) -> bool:
    return a * b > 0.3 and k != 7


def plan(points: int, keep: str | Callable[..., bool]) -> None:
    """Do what comes before the first block: grid, experiment, guards, what is known, order."""
    from mce_notebook.launch import draft
    from mce_notebook.plan import Plan

    made = draft(proposal(points, keep), root())
    assert Plan(made.declaration.grid, made.todo).take() is not None


def estimate(points: int) -> None:
    from mce_notebook.preview import estimate

    assert estimate(proposal(points, "a * b > 0.3"), root()).todo > 0


def proposal(points: int, keep: Any) -> Any:
    from mce_notebook.calls import read_call

    grid = mce.grid(**workloads.axes(points)).where(keep)
    return read_call(workloads.tiny, grid, rig.fresh("planned"), None, None, {})


def root() -> Path:
    return Path(os.environ["MCE_STORE"])
