"""Ten thousand points that give a thousand float64 each, made durable."""

from collections.abc import Iterator

import numpy as np

import mce_notebook as mce
from benchmarks import peers as others
from benchmarks import rig, workloads
from benchmarks.report import Row, skipped

POINTS = {"multiprocessing": 10_000, "joblib": 10_000, "Dask, blocks by hand": 10_000, "pipefunc, parallel": 1_000}


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    points = 1_000 if quick else 10_000
    size = points * workloads.VECTOR * 8
    process = rig.warm()
    # A dataset of arrays loads what a dataset needs before memory is looked at.
    sweep(8)
    imports, host_before = rig.peak(), rig.rss(process)
    sweep(points)
    kernel = (rig.peak() - imports) / size
    yield Row("p3", "memory of the kernel beyond imports", kernel, "x data", 1.5, note=f"{size / 1e6:.0f} MB of data")
    grown = (rig.rss(process) - host_before) / size
    yield Row("p3", "memory of the host beyond imports", grown, "x data", 1.5, note="resident, after the sweep")

    def once() -> float:
        rig.settle()
        return rig.timed(lambda: sweep(points))

    seconds = rig.repeated(once, 2 if quick else 5)
    yield Row(
        "p3", "through big/", size / 1e6 / seconds, "MB/s", 250, most=False, note=f"{seconds:.3g} s, call to dataset"
    )
    skipped("p3", "through the relay", "every slot of this machine shares the store's file system, so none is relayed")
    loop = rig.Loop()
    try:
        bare = min(loop("vector", points) for _ in range(3))
        yield Row(
            "p3", "left in the workers' memory", size / 1e6 / bare, "MB/s", note="nothing comes back", who="bare loop"
        )
        if peers:
            rig.stop_hosts()
            for one in others.measured(
                "p3", "vector", {who: min(count, points) for who, count in POINTS.items()}, loop
            ):
                rate = one.points * workloads.VECTOR * 8 / 1e6 / one.seconds
                note = f"{one.points:,} points in {one.seconds:.3g} s, in memory only"
                yield Row("p3", "to a dataset", rate, "MB/s", note=note, who=one.who)
    finally:
        loop.close()


def sweep(points: int) -> None:
    run = mce.sweep(workloads.vector, name=rig.fresh("vector"), on="local", **workloads.axes(points))
    assert np.isfinite(rig.values(run)[-1, -1, -1]).all()
