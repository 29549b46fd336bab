"""The host: idle, after many sweeps, and killed."""

import os
import signal
import time
from collections.abc import Iterator

import psutil

import mce_notebook as mce
from benchmarks import rig, workloads
from benchmarks.report import Row

POLL = 0.005
CELL = "def trivial(a, b, k):\n    return a * b + k\n"


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    process = rig.warm()
    time.sleep(2)
    span = 3.0 if quick else 20.0
    spent = rig.cpu(process)
    time.sleep(span)
    share = (rig.cpu(process) - spent) / span * 100
    yield Row("p10", "idle host, 2 workers and their slots", share, "% of a core", 15, note=f"over {span:.0f} s")
    sweeps = 20 if quick else 200
    for _ in range(20):
        few()
    rig.settle()
    before = [rig.rss(one) for one in rig.tree(process)]
    begin = time.perf_counter()
    for _ in range(sweeps):
        few()
    seconds = time.perf_counter() - begin
    rig.settle()
    grown = (rig.rss(process) - before[0]) / sweeps / 1e3
    all_grown = (sum(map(rig.rss, rig.tree(process))) - sum(before)) / sweeps / 1e3
    note = f"{sweeps} sweeps in {seconds:.3g} s, after 20; host, workers and slots together {all_grown:.0f} kB a sweep"
    yield Row("p10", "memory the host keeps of a sweep", grown, "kB", 50, note=note)
    noticed = rig.repeated(killed, 2 if quick else 5)
    yield Row("p10", "host killed, told by the handle", noticed, "s", 1.0, note="SIGKILL while both slots compute")


def few() -> None:
    mce.sweep(rig.in_notebook(CELL, "trivial"), name=rig.fresh("few"), on="local", **workloads.axes(8)).result()


def killed() -> float:
    """Kill the host of a running sweep; return the seconds until the state says so."""
    process = rig.warm()
    run = mce.sweep(workloads.slower, name=rig.fresh("killed"), on="local", **workloads.axes(1_000_000))
    while not run.progress.done:
        time.sleep(POLL)
    slots = [one for one in rig.tree(process) if one.pid != process.pid]
    os.kill(process.pid, signal.SIGKILL)
    begin = time.perf_counter()
    # A handle of a live kernel starts another host when it is waited on; here it is only asked.
    while run.state != "interrupted":
        time.sleep(POLL)
    seconds = time.perf_counter() - begin
    psutil.wait_procs(slots, timeout=20)
    return seconds
