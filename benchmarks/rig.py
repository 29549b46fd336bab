"""What every benchmark stands on: a private place for hosts and stores, the bare loop beside it, CPU and memory."""

import compileall
import contextlib
import itertools
import linecache
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import workloads

CORES = 2
_names = itertools.count()


@contextlib.contextmanager
def private() -> Iterator[str]:
    """Give a folder of its own to hosts, configuration and store; stop all hosts and remove it at the end."""
    # As it is installed: without its bytecode every new process would compile the package first, 0.15 s of CPU.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in ("mce_notebook", "benchmarks"):
        compileall.compile_dir(str(Path(__file__).parents[1] / package), quiet=2)
    # Short, because a Unix socket's path must stay under about 100 bytes.
    folder = tempfile.mkdtemp(prefix="mce-")
    os.environ.update(
        MCE_RUNTIME_DIR=f"{folder}/run",
        MCE_CONFIG_DIR=f"{folder}/config",
        MCE_STORE=f"{folder}/experiments",
        MCE_HOST_WORKERS=str(CORES),
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
    )
    try:
        yield folder
    finally:
        stop_hosts()
        shutil.rmtree(folder, ignore_errors=True)


def stop_hosts() -> None:
    """End the hosts of the private folder."""
    from mce_notebook.run.client import hosts, stop_host

    for host in hosts():
        stop_host(host, timeout=20)


def host() -> psutil.Process:
    """Return the process of the one host there is."""
    from mce_notebook.run.client import hosts

    (found,) = hosts()
    return psutil.Process(found.process.pid)


def warm() -> psutil.Process:
    """Start the host and wait until it is idle."""
    import mce_notebook as mce

    mce.sweep(workloads.trivial, name=fresh("warm"), on="local", **workloads.axes(8)).result()
    settle()
    return host()


def values(run: Any) -> np.ndarray:
    """Wait for a sweep with one output; return its array."""
    found = run.result()
    (name,) = set(found.data_vars) - {"status"}
    return np.asarray(found[name].values)


def fresh(name: str) -> str:
    """Return a name no sweep has yet."""
    return f"{name}_{next(_names)}"


def settle(seconds: float = 30.0) -> None:
    """Wait until the host and its slots have nothing to do, spare slots included."""
    process = host()
    end = time.monotonic() + seconds
    before = cpu(process)
    while time.monotonic() < end:
        time.sleep(0.5)
        now = cpu(process)
        if now - before < 0.1:
            return
        before = now


def in_notebook(cell: str, name: str) -> Callable[..., Any]:
    """Return the function that a cell of a notebook defines: it belongs to `__main__` and travels by value."""
    filename = f"<cell {name}>"
    # Where Python and we look for the source of code that no file holds.
    linecache.cache[filename] = (len(cell), None, cell.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(cell, filename, "exec"), namespace)
    made: Callable[..., Any] = namespace[name]
    return made


def tree(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and all below it, those that ended and were waited for included."""
    total = 0.0
    for one in tree(process):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def rss(process: psutil.Process) -> int:
    """Return the bytes in memory of one process."""
    return int(process.memory_info().rss)


def peak() -> int:
    """Return the largest number of bytes this process ever had in memory."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


class Loop:
    """The bare loop, split on clean processes that do nothing else."""

    def __init__(self, cores: int = CORES):
        command = [sys.executable, "-m", "benchmarks.loop"]
        self._children = [
            subprocess.Popen(
                [*command, str(number), str(cores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for number in range(cores)
        ]
        for child in self._children:
            assert child.stdout is not None
            child.stdout.readline()
        self.cpu = 0.0

    def __call__(self, function: str, points: int, part: float = 1.0) -> float:
        """Return the seconds the loop takes over a grid, or over a `part` of it scaled up; `cpu` is set likewise."""
        begin = time.perf_counter()
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(f"{function} {points} {part}\n")
            child.stdin.flush()
        spent = [float(child.stdout.readline()) for child in self._children if child.stdout is not None]
        self.cpu = sum(spent) / part
        return (time.perf_counter() - begin) / part

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.close()
            child.wait()


@dataclass(frozen=True)
class Timing:
    """Repeated measurements: each with the bare loop just before and after it.

    `seconds` and `cpu` are medians; `ratio` is the median over repetitions of seconds divided by the mean of the
    loop's two, `cpu_ratio` likewise of CPU seconds.
    """

    seconds: float
    ratio: float
    cpu: float
    cpu_ratio: float
    repeats: int

    def told(self) -> str:
        """As a note: wall and CPU."""
        return f"{self.seconds:.3g} s, CPU {self.cpu:.3g} s = {self.cpu_ratio:.2f} x, median of {self.repeats}"


def beside(loop: Loop, function: str, points: int, work: Callable[[], Any], repeats: int, part: float = 1.0) -> Timing:
    """Time `work` with the bare loop before and after each repetition.

    CPU seconds are those of this process and all below it: the host, which it started, its workers and their slots.
    """
    rows: list[tuple[float, float, float, float]] = []
    me = psutil.Process()
    before, before_cpu = loop(function, points, part), loop.cpu
    for _ in range(repeats):
        settle()
        spent, begin = cpu(me), time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
        spent = cpu(me) - spent
        after, after_cpu = loop(function, points, part), loop.cpu
        rows.append((seconds, 2 * seconds / (before + after), spent, 2 * spent / (before_cpu + after_cpu)))
        before, before_cpu = after, after_cpu
    return Timing(*(float(statistics.median(column)) for column in zip(*rows, strict=True)), repeats)


def repeated(work: Callable[[], float], repeats: int) -> float:
    """Return the median of what `work` measures."""
    return float(np.median([work() for _ in range(repeats)]))


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_new_process(script: str) -> list[float]:
    """Run a script in a new Python and return the numbers it prints last."""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [float(word) for word in told.stdout.split()]
