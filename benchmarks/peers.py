"""The peers on the same work, each in a process of its own: `python -m benchmarks.peers WHO FUNCTION POINTS`.

Every one of them ends with the same labelled dataset and keeps its workers warm before the clock starts. None makes
anything durable, and none goes on after an exception.
"""

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import psutil

from benchmarks import workloads
from benchmarks.report import skipped
from benchmarks.rig import CORES, Loop, timed

SECONDS = 240


def dataset(values: Any, grid: dict[str, list[Any]]) -> Any:
    """Label a flat list of outcomes."""
    import xarray as xr

    array = np.asarray(values)
    dims = [*grid, *(["t"] * (array.ndim - 1))]
    return xr.Dataset({"y": (dims, array.reshape(*map(len, grid.values()), *array.shape[1:]))}, coords=grid)


def block(function: Callable[..., Any], grid: dict[str, list[Any]], start: int, stop: int) -> np.ndarray:
    """Compute several points in one task, as people do by hand; as a list, Dask looks at every value on its way."""
    return np.array([function(*cell) for cell in itertools.islice(workloads.cells(grid), start, stop)])


def pool(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of `multiprocessing.Pool.starmap`."""
    workers = get_context("spawn").Pool(CORES)
    workers.starmap(workloads.trivial, list(workloads.cells(workloads.axes(100))))
    return lambda: dataset(workers.starmap(function, workloads.cells(grid)), grid)


def executor(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of `ProcessPoolExecutor.map`, in 64 chunks."""
    workers = ProcessPoolExecutor(CORES, mp_context=get_context("spawn"))
    list(workers.map(workloads.trivial, *zip(*workloads.cells(workloads.axes(100)), strict=True)))

    def work() -> Any:
        columns = list(zip(*workloads.cells(grid), strict=True))
        return dataset(list(workers.map(function, *columns, chunksize=max(1, len(columns[0]) // 64))), grid)

    return work


def joblib(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of joblib: loky, batches chosen by itself."""
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=CORES)
    parallel(delayed(workloads.trivial)(*cell) for cell in workloads.cells(workloads.axes(100)))
    return lambda: dataset(parallel(delayed(function)(*cell) for cell in workloads.cells(grid)), grid)


def dask_map(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of bare Dask, a task per point."""
    client = _client()
    return lambda: dataset(client.gather(client.map(function, *zip(*workloads.cells(grid), strict=True))), grid)


def dask_blocks(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of bare Dask, 32 tasks made by hand."""
    client = _client()

    def work() -> Any:
        size = math.prod(map(len, grid.values()))
        step = -(-size // 32)
        futures = [client.submit(block, function, grid, at, at + step, pure=False) for at in range(0, size, step)]
        return dataset(np.concatenate(client.gather(futures)), grid)

    return work


def xyzpy(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of xyzpy, serial, which is its fastest way for cheap points."""
    import xyzpy as xyz

    runner = xyz.Runner(function, var_names="y")
    return lambda: runner.run_combos(grid, verbosity=0)


def xyzpy_parallel(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of xyzpy on its process pool."""
    import xyzpy as xyz

    runner = xyz.Runner(function, var_names="y")
    return lambda: runner.run_combos(grid, verbosity=0, parallel=True, num_workers=CORES)


def pipefunc(function: Callable[..., Any], grid: dict[str, list[Any]]) -> Callable[[], Any]:
    """Return the work of pipefunc on a process pool, outcomes in a dict."""
    from pipefunc import PipeFunc, Pipeline

    pipeline = Pipeline([PipeFunc(function, "y", mapspec="a[i], b[j], k[l] -> y[i, j, l]")])
    workers = ProcessPoolExecutor(CORES, mp_context=get_context("spawn"))
    return lambda: pipeline.map(grid, storage="dict", executor=workers, parallel=True).to_xarray()


def _client() -> Any:
    from distributed import Client, LocalCluster

    client = Client(LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address="127.0.0.1:0"))
    client.gather(client.map(workloads.trivial, *zip(*workloads.cells(workloads.axes(8)), strict=True)))
    return client


PEERS: dict[str, tuple[str, Callable[..., Callable[[], Any]]]] = {
    "multiprocessing": ("", pool),
    "ProcessPoolExecutor": ("", executor),
    "joblib": ("joblib", joblib),
    "Dask, blocks by hand": ("distributed", dask_blocks),
    "Dask, a task per point": ("distributed", dask_map),
    "xyzpy, serial": ("xyzpy", xyzpy),
    "xyzpy, parallel": ("xyzpy", xyzpy_parallel),
    "pipefunc, parallel": ("pipefunc", pipefunc),
}


@dataclass(frozen=True)
class Measured:
    """What a peer took: seconds over `points` points, `ratio` times the bare loop over the same."""

    who: str
    points: int
    seconds: float
    ratio: float


def measured(of: str, function: str, points: dict[str, int], loop: Loop) -> Iterator[Measured]:
    """Measure every peer that is installed, and say which are not.

    Parameters
    ----------
    of : str
        Target they stand beside.
    function : str
        Of `workloads`.
    points : dict of str to int
        Size of the grid for each peer, small for the slow ones.
    loop : Loop
    """
    for who, count in points.items():
        needs, _ = PEERS[who]
        if needs and importlib.util.find_spec(needs) is None:
            skipped(of, who, f"{needs} is not installed here; `make bench` installs it")
            continue
        before = loop(function, count)
        command = [sys.executable, "-m", "benchmarks.peers", who, function, str(count)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            skipped(of, who, f"not done with {count:,} points after {SECONDS} s")
            continue
        after = loop(function, count)
        if done.returncode:
            skipped(of, who, (done.stderr.strip().splitlines() or ["no reason"])[-1])
            continue
        seconds = float(done.stdout.split()[-1])
        yield Measured(who, count, seconds, 2 * seconds / (before + after))


def main(who: str, function: str, points: str) -> None:
    grid = workloads.axes(int(points))
    work = PEERS[who][1](getattr(workloads, function), grid)
    seconds = [timed(work)]
    while len(seconds) < 3 and sum(seconds) < 10:
        seconds.append(timed(work))
    print(sorted(seconds)[len(seconds) // 2], flush=True)
    # Pools and clusters end with the process; told to end, some of them wait for each other.
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:4])
