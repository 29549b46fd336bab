"""Extending a finished grid by a tenth, and running an unchanged cell again."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import mce_notebook as mce
from benchmarks import rig, workloads
from benchmarks.report import Row, skipped

# A kernel that has just started: what the package imports only when it is used counts.
AGAIN = """
import time
import mce_notebook as mce
from benchmarks import workloads
begin = time.perf_counter()
mce.sweep(workloads.tiny, name={name!r}, on="local", **workloads.axes({points})).result()
print(time.perf_counter() - begin)
"""


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    points = 100_000 if quick else 1_000_000
    repeats = 2 if quick else 5
    rig.warm()
    found = [extension(points) for _ in range(repeats)]
    calls = {calls for _, _, calls in found}
    ratio = float(np.median([extended / alone for extended, alone, _ in found]))
    note = f"{np.median([one for one, _, _ in found]):.3g} s against {np.median([one for _, one, _ in found]):.3g} s"
    yield Row(
        "p5", f"{points:,} points + 10 %, against these alone", ratio, "x", 1.2, note=f"{note}, median of {repeats}"
    )
    yield Row("p5", "points computed for it", float(calls.pop()), "points", points / 10, note="of the extension only")
    name = rig.fresh("again")
    run = declared(name, points)
    run.result()
    rig.settle()
    warm = rig.repeated(lambda: rig.timed(lambda: declared(name, points).result()), 2 * repeats)
    yield Row("p5", f"unchanged, {points:,} points, warm kernel", warm, "s", 0.1, note="call to dataset")
    script = AGAIN.format(name=name, points=points)
    new = rig.repeated(lambda: rig.in_new_process(script)[0], repeats)
    yield Row(
        "p5", f"unchanged, {points:,} points, new kernel", new, "s", 0.5, note="call to dataset, lazy imports included"
    )
    if peers:
        skipped("p5", "xyzpy", "its Harvester writes the whole file again for every extension")
        skipped("p5", "pipefunc", "it refuses a grid of another shape over a run folder")


def declared(name: str, points: int) -> Any:
    return mce.sweep(workloads.tiny, name=name, on="local", **workloads.axes(points))


def extension(points: int) -> tuple[float, float, int]:
    """Return seconds for a tenth more, for the same points in a sweep of their own, and how many were computed."""
    axes = workloads.axes(points)
    more = [2.0 + row for row in range(len(axes["a"]) // 10)]
    run = declared(rig.fresh("grown"), points)
    run.result()
    rig.settle()
    extended = rig.timed(lambda: run.extend(a=more).result())
    rig.settle()
    alone = rig.timed(
        lambda: mce.sweep(workloads.tiny, name=rig.fresh("part"), on="local", **{**axes, "a": more}).result()
    )
    assert run.launched is not None
    return extended, alone, run.launched.todo
