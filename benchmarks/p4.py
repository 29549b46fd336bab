"""Eight trivial points, from the call to the result."""

from collections.abc import Iterator

import mce_notebook as mce
from benchmarks import rig, workloads
from benchmarks.report import Row

CELL = "def trivial(a, b, k):\n    return a * b + k\n"


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    rig.warm()
    warm = rig.repeated(spread_out, 3 if quick else 15)
    yield Row("p4", "8 points, host warm", warm * 1e3, "ms", 30, note=f"median of {3 if quick else 15}")
    again = rig.repeated(lambda: rig.timed(sweep), 3 if quick else 15)
    yield Row("p4", "8 points, one sweep after another", again * 1e3, "ms", note="no time for a spare slot in between")

    def cold() -> float:
        rig.stop_hosts()
        return rig.timed(sweep)

    started = rig.repeated(cold, 1 if quick else 5)
    yield Row(
        "p4",
        "8 points, host cold",
        started,
        "s",
        3,
        note=f"host, workers and slots start; median of {1 if quick else 5}",
    )
    if peers:
        rig.stop_hosts()
        yield from dask()


def spread_out() -> float:
    """Time one sweep, after the slots had time to get ready."""
    rig.settle()
    return rig.timed(sweep)


def sweep() -> None:
    mce.sweep(rig.in_notebook(CELL, "trivial"), name=rig.fresh("few"), on="local", **workloads.axes(8)).result()


def dask() -> Iterator[Row]:
    """Time bare Dask: a cluster of its own, then `map` and `gather` on it."""
    from distributed import Client, LocalCluster

    columns = list(zip(*workloads.cells(workloads.axes(8)), strict=True))
    client: Client

    def cold() -> None:
        nonlocal client
        client = Client(LocalCluster(n_workers=rig.CORES, threads_per_worker=1, dashboard_address="127.0.0.1:0"))
        client.gather(client.map(workloads.trivial, *columns, pure=False))

    started = rig.timed(cold)
    warm = rig.repeated(
        lambda: rig.timed(lambda: client.gather(client.map(workloads.trivial, *columns, pure=False))), 15
    )
    yield Row("p4", "8 points, cluster warm", warm * 1e3, "ms", note="client.map, a list; nothing durable", who="Dask")
    yield Row("p4", "8 points, cluster cold", started, "s", note="one start, imports included", who="Dask")
    cluster = client.cluster
    client.close()
    cluster.close()
