"""The Dask task, on a real cluster: user code stays out of the worker, and slots end with it."""

import os
import time

import psutil
from distributed import Client, LocalCluster

from mce_notebook.declare.grid import grid
from mce_notebook.plan import Block
from mce_notebook.run import worker


def slots_of(pid):
    return [p for p in psutil.Process(pid).children(recursive=True) if "mce_notebook.run.slot" in " ".join(p.cmdline())]


def test_blocks_on_a_cluster(notebook, declared, outcomes):
    points = grid(i=list(range(12)))
    source = """
        import os, sys
        import wave
        def f(i):
            if i == 5: os._exit(2)
            return os.getpid()
    """
    task = declared(notebook.function(source, points), points)
    with (
        LocalCluster(
            # None is Dask's default port, on which another cluster of this machine may be listening already.
            n_workers=1,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        pid = client.submit(os.getpid, pure=False).result()
        client.submit(worker.warm, 1, pure=False).result()
        result = client.submit(worker.run_block, task, Block(((0, 12),)), True, None, 30.0, None).result()
        assert result.killed_point == 5
        rest = [
            client.submit(worker.run_block, task, block, True, None, 30.0, None).result() for block in result.leftover
        ]
        found = outcomes([frame for one in [result, *rest] for frame in one.frames])
        assert len(found) == 12
        assert {one.values["f"] for one in found.values() if one.values}.isdisjoint({pid, os.getpid()})
        loaded = client.run(lambda: "wave" in __import__("sys").modules)
        assert set(loaded.values()) == {False}
        assert client.submit(os.getpid, pure=False).result() == pid
        slots = slots_of(pid)
        assert slots
        client.run(worker.interrupt, task.store, task.name)
    _, alive = psutil.wait_procs(slots, timeout=5)
    assert not alive


def test_an_interrupt_from_the_event_loop_frees_the_slot(notebook, declared):
    points = grid(i=[0, 1])
    task = declared(notebook.function("import time\ndef f(i): time.sleep(100)", points), points)
    with (
        LocalCluster(
            # None is Dask's default port, on which another cluster of this machine may be listening already.
            n_workers=1,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        future = client.submit(worker.run_block, task, Block(((0, 2),)), True, None, None, None)
        deadline = time.monotonic() + 30
        while not any(client.run(worker.interrupt, task.store, task.name).values()) and time.monotonic() < deadline:
            time.sleep(0.3)
        result = future.result(timeout=20)
    assert result.reason == "cancelled"
    assert result.leftover == (Block(((0, 2),)),)
