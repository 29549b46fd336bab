"""The kernel while a sweep uses both cores, and how soon a finished point is on the screen of a real JupyterLab."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from benchmarks import rig
from benchmarks.report import Row

SWEEP = """%%sweep {name} --on local
spins = []
for a in range({points}):
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    spins.append((a, a))
"""
# One after another, a second apart: each point tells when it was finished.
TICKS = """%%sweep {name} --on local --serial
finished = []
for a in range({points}):
    time.sleep(1)
    at = time.time()
    finished.append((a, at))
"""
# Notes when the page shows more points than before; a frame later they are on the screen.
OBSERVE = """() => {
  window.seen = {};
  const look = () => {
    const bar = document.querySelector('article.mce-view [role="progressbar"]');
    const known = Number(bar?.getAttribute('aria-valuenow') ?? 0);
    if (known && !(known in window.seen)) window.seen[known] = Date.now() / 1000;
    requestAnimationFrame(look);
  };
  look();
}"""


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    # Slots give way to the notebook, as they do outside of benchmarks.
    os.environ.pop("MCE_NICE", None)
    yield from responses(100 if quick else 1000)
    yield from appearances(5 if quick else 30)


def responses(count: int) -> Iterator[Row]:
    """Ask a kernel for 1+1, without a sweep and with one on both cores."""
    manager = KernelManager(transport="ipc", ip=f"{os.environ['MCE_RUNTIME_DIR']}-kernel")
    manager.start_kernel()
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute_interactive("%load_ext mce_notebook\nimport time", timeout=60, output_hook=_quiet)
        # The host is warm, and waits.
        client.execute_interactive(SWEEP.format(name=rig.fresh("warm"), points=8), timeout=60, output_hook=_quiet)
        time.sleep(8)
        idle = _times(client, count)
        cell = SWEEP.format(name="both_cores", points=100_000)
        client.execute_interactive(cell, timeout=60, output_hook=_quiet)
        time.sleep(4)
        loaded = _times(client, count)
        client.execute_interactive("both_cores.cancel()", timeout=60, output_hook=_quiet)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    before, during = np.percentile(idle, 99), np.percentile(loaded, 99)
    note = f"p99 {1e3 * before:.1f} ms idle, {1e3 * during:.1f} ms with a sweep; medians "
    note += f"{1e3 * np.median(idle):.1f} and {1e3 * np.median(loaded):.1f} ms"
    yield Row(
        "p8", f"1+1 in the kernel, p99 of {count:,}, beyond idle", float(during - before) * 1e3, "ms", 20, note=note
    )


def _times(client: BlockingKernelClient, count: int) -> np.ndarray:
    times = np.empty(count)
    for number in range(count):
        begin = time.perf_counter()
        client.execute_interactive("1+1", timeout=30, output_hook=_quiet, store_history=False)
        times[number] = time.perf_counter() - begin
        # People do not type in lockstep with anything.
        time.sleep(0.005)
    return times


def _quiet(_message: object) -> None:
    """Show nothing."""


def appearances(points: int) -> Iterator[Row]:
    """Watch points arrive in the output of a cell, in a headless Chromium."""
    from scripts.lab import Window, chromium, jupyterlab, write_notebook

    with tempfile.TemporaryDirectory(prefix="mce-") as folder:
        cells = ["%load_ext mce_notebook\nimport time", TICKS.format(name="ticks", points=points)]
        cells += ["print(ticks.result().at.values.tolist())"]
        write_notebook(Path(folder, "book.ipynb"), cells)
        with jupyterlab(Path(folder), {}) as server, chromium() as browser:
            window = Window.open(browser.new_context(viewport={"width": 1280, "height": 900}), server)
            window.go("book.ipynb")
            window.page.evaluate(OBSERVE)
            window.run_all(60 + 3 * points)
            window.wait(f"() => {points} in window.seen", 30)
            seen = {int(known): at for known, at in window.page.evaluate("() => window.seen").items()}
            finished = sorted(map(float, window.text(2).strip().strip("[]").split(",")))
    # A view that shows two points at once shows the earlier one then, too.
    shown = [min(at for known, at in seen.items() if known >= number) for number in range(1, points + 1)]
    # The first point shows with the start of the sweep, which is P4.
    late = np.array(shown[1:]) - np.array(finished[1:])
    note = f"median {1e3 * np.median(late):.0f} ms; cell output in JupyterLab, from the end of the point's own code"
    yield Row(
        "p8", f"a finished point on the screen, worst of {points - 1}", float(late.max()) * 1e3, "ms", 500, note=note
    )
