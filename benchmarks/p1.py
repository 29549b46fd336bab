"""Many points of about a microsecond, fsynced, errors caught, to a labelled dataset; without and with `rng`."""

from collections.abc import Iterator

import numpy as np

import mce_notebook as mce
from benchmarks import peers as others
from benchmarks import rig, workloads
from benchmarks.report import Row

POINTS = {
    "multiprocessing": 1_000_000,
    "ProcessPoolExecutor": 1_000_000,
    "joblib": 100_000,
    "Dask, blocks by hand": 1_000_000,
    "Dask, a task per point": 1_000,
    "xyzpy, serial": 100_000,
    "xyzpy, parallel": 10_000,
    "pipefunc, parallel": 10_000,
}


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    process = rig.warm()
    loop = rig.Loop()
    repeats = 2 if quick else 5
    try:
        for points, limit in ((100_000, 2.0), (1_000_000, 1.3), *(() if quick else ((10_000_000, 1.2),))):
            found = rig.beside(
                loop, "tiny", points, lambda n=points: sweep("tiny", n), min(repeats, 30_000_000 // points)
            )
            yield Row("p1", f"{points:,} points, no rng", found.ratio, "x", limit, note=found.told())
        yield Row("p1", "host after them", rig.rss(process) / 1e6, "MB", 200, note="resident memory of its process")
        small = rig.beside(loop, "tiny", 10_000, lambda: sweep("tiny", 10_000), 3 if quick else 11)
        yield Row("p1", "10,000 points, no rng", small.seconds * 1e3, "ms", 60, note=small.told())
        for points in (100_000, 1_000_000):
            found = rig.beside(loop, "drawn", points, lambda n=points: sweep("drawn", n), repeats)
            note = f"the loop draws from one generator; {found.told()}"
            yield Row("p1", f"{points:,} points, rng", found.ratio, "x", 1.3 if points > 100_000 else 2.0, note=note)
        own = rig.beside(loop, "drawn_own", 100_000, lambda: sweep("drawn", 100_000), repeats)
        note = (
            f"the loop makes `default_rng([i, j])` for each point, so that points can be computed alone; {own.told()}"
        )
        yield Row("p1", "100,000 points, rng, a stream per point", own.ratio, "x", note=note)
        if peers:
            rig.stop_hosts()
            sizes = {who: min(count, 10_000) for who, count in POINTS.items()} if quick else POINTS
            for one in others.measured("p1", "tiny", sizes, loop):
                note = f"{one.seconds:.3g} s"
                if one.points < 1_000_000:
                    note += f"; 1,000,000 extrapolated: {one.seconds / one.points * 1e6:.3g} s"
                yield Row("p1", f"{one.points:,} points, no rng", one.ratio, "x", note=note, who=one.who)
    finally:
        loop.close()


def sweep(function: str, points: int) -> None:
    """Run it under a new name and look at what came."""
    run = mce.sweep(getattr(workloads, function), name=rig.fresh(function), on="local", **workloads.axes(points))
    assert np.isfinite(rig.values(run)).all()
