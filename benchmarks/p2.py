"""A thousand points of 10 ms of NumPy."""

from collections.abc import Iterator

import mce_notebook as mce
from benchmarks import peers as others
from benchmarks import rig, workloads
from benchmarks.report import Row

NAMES = (
    "multiprocessing",
    "ProcessPoolExecutor",
    "joblib",
    "Dask, a task per point",
    "xyzpy, parallel",
    "pipefunc, parallel",
)


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    rig.warm()
    loop = rig.Loop()
    points = 100 if quick else 1_000
    try:
        found = rig.beside(loop, "solve", points, lambda: sweep(points), 2 if quick else 5)
        note = f"the bare loop takes {found.seconds / found.ratio:.3g} s; {found.told()}"
        yield Row("p2", f"share of two cores, {points:,} points", 1 / found.ratio, "", 0.97, most=False, note=note)
        if peers:
            rig.stop_hosts()
            few = 100 if quick else 300
            for one in others.measured("p2", "solve", dict.fromkeys(NAMES, few), loop):
                what, note = f"share of two cores, {few:,} points", f"{one.seconds:.3g} s"
                yield Row("p2", what, 1 / one.ratio, "", note=note, who=one.who)
    finally:
        loop.close()


def sweep(points: int) -> None:
    mce.sweep(workloads.solve, name=rig.fresh("solve"), on="local", **workloads.axes(points)).result()
