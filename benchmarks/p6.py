"""Opening a sealed dataset in a new process; looking at a million points while they are computed."""

import time
from collections.abc import Iterator

import numpy as np

import mce_notebook as mce
from benchmarks import rig, workloads
from benchmarks.report import Row

OUTPUTS = 10
OPEN = """
import time
import warnings
begin = time.perf_counter()
import xarray as xr
import zarr
imported = time.perf_counter()
warnings.simplefilter("ignore")
found = xr.open_zarr({path!r}, chunks=None)
opened = time.perf_counter()
one = found["y0"].isel(a=3).values
looked = time.perf_counter()
found.load()
read = time.perf_counter()
assert len(found.data_vars) == {outputs} + 1
print(opened - imported, looked - imported, read - imported, imported - begin)
"""


def measure(*, quick: bool, peers: bool) -> Iterator[Row]:
    points = 100_000 if quick else 1_000_000
    rig.warm()
    run = mce.sweep(
        workloads.many,
        name=rig.fresh("many"),
        outputs=[f"y{n}" for n in range(OUTPUTS)],
        on="local",
        **workloads.axes(points),
    )
    run.result()
    path = str(run.seal() / "data.zarr")
    script = OPEN.format(path=path, outputs=OUTPUTS)
    opened, looked, read, imports = np.median([rig.in_new_process(script) for _ in range(2 if quick else 5)], axis=0)
    yield Row(
        "p6",
        f"open {points:,} x {OUTPUTS}, a slice of one",
        float(looked),
        "s",
        0.3,
        note=f"open {opened:.3g} s, imports {imports:.3g} s",
    )
    yield Row(
        "p6", f"open {points:,} x {OUTPUTS}, read all", float(read), "s", note="80 bytes a point, checked by nobody"
    )
    yield from looks(points, 3.0 if quick else 10.0)


def looks(points: int, seconds: float) -> Iterator[Row]:
    """Look at a running sweep again and again; an error would end this benchmark."""
    run = mce.sweep(workloads.slower, name=rig.fresh("slower"), on="local", **workloads.axes(points))
    assert run.dataset.sizes
    spent: list[float] = []
    shares: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        found = run.dataset
        spent.append(time.perf_counter() - begin)
        shares.append(float((found.status.values == 2).mean()))
        time.sleep(0.03)
    run.cancel()
    told = f"{len(spent)} looks, the last at {shares[-1]:.0%}; 99th percentile {np.percentile(spent, 99) * 1e3:.3g} ms"
    yield Row("p6", f"look at {points:,} points while they run", float(np.median(spent)) * 1e3, "ms", 5, note=told)
