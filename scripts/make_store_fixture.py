"""Write the small store that `tests/store/test_formats.py` reads for ever: one for each released format.

    python scripts/make_store_fixture.py tests/fixtures/store-1

Run once for a format and committed; a store of a released format is never written again. It holds every kind of value,
failures, a large payload, ragged and mixed axes, guards, setups, stale versions, an extension and a sealed cube.
"""

import datetime as dt
import enum
import os
import shutil
import socket
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import mce_notebook as mce
from mce_notebook.declare.options import Options
from mce_notebook.store.catalog import Store
from mce_notebook.store.journal import Journal, claim_epoch
from mce_notebook.sweep import declare_cell


class Colour(enum.Enum):
    """Labels of an axis."""

    RED = 1
    BLUE = 2


def kinds(n: int) -> dict[str, Any]:
    """Return a value of every kind."""
    return {
        "truth": n == 1,
        "whole": n,
        "large": 2**62 + n,
        "real": n / 4,
        "both": complex(n, -n),
        "text": "ä" * n,
        "missing": None if n == 2 else n,
        "date": np.datetime64("2026-01-01") + n,
        "span": np.timedelta64(n, "s"),
        "array": np.arange(3.0) * n,
        "uneven": np.arange(n),
    }


def failing(x: float, solver: str) -> float:
    """Fail in a region."""
    if x > 1 and solver == "euler":
        print("about to diverge")
        raise ArithmeticError(f"diverged at {x}")
    return 2 * x


def axes(day: dt.date, colour: Colour, size: Any, lag: dt.timedelta) -> float:
    """Take axes of many kinds."""
    return day.day + colour.value + len(str(size)) + lag.total_seconds()


def drawn(sigma: float, rng: np.random.Generator) -> float:
    """Draw."""
    return float(rng.normal(0, sigma))


def payload(k: int) -> np.ndarray:
    """Return an array that compresses to nothing in git."""
    return np.full(200, float(k))


RAGGED = """
rows = []
for n in [1, 2, 3]:
    base = n * 100
    for k in range(n):
        if k == 1 and n == 2: continue
        rows.append((n, k, base + k))
"""


def main(target: Path) -> None:
    """Write the store."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as private:
        # Nobody's key signs what is committed.
        os.environ |= {"MCE_STORE": str(target), "MCE_CONFIG_DIR": f"{private}/config", "MCE_RUNTIME_DIR": private}
        os.chdir("/")
        socket.gethostname = lambda: "fixture"
        write()
    for folder in ("code", "env", "objects"):
        # Code of a fixture is never run, and says where it was made.
        for path in target.glob(f"*/{folder}"):
            shutil.rmtree(path)


def write() -> None:
    """Run the sweeps."""
    inline: dict[str, Any] = {"on": "inline"}
    mce.sweep(kinds, n=[1, 2, 3], **inline)
    mce.sweep(failing, x=[0.5, 1.5, 2.5], solver=["euler", "rk4"], **inline)
    lags = [dt.timedelta(seconds=1), dt.timedelta(minutes=1)]
    mce.sweep(
        axes, day=[dt.date(2026, 1, 2), dt.date(2026, 1, 3)], colour=list(Colour), size=[1, "auto", None], lag=lags,
        **inline,
    )  # fmt: skip
    run = mce.sweep(drawn, sigma=[0.5, 1.0], replicates=3, seed=7, **inline)
    run.extend(sigma=[2.0])
    run.seal()
    declare_cell("ragged", RAGGED, {"__name__": "__main__"}, Options(on="inline"))
    stale()
    large()


def first(n: int) -> int:
    """Return what it is given."""
    return n


def stale() -> None:
    """Compute with one version of the code, then declare another that is held back."""
    mce.sweep(first, n=[1, 2], name="stale", on="inline")
    sweep = Store(os.environ["MCE_STORE"]).sweep("stale")
    latest = sweep.latest()
    assert latest is not None
    sweep.declare(replace(latest, version="0" * 32, hold_stale=True))


def large() -> None:
    """Record one point through a file of its own, as slots do with large arrays; the size is not part of the format."""
    from mce_notebook.declare.grid import grid
    from mce_notebook.store import frames
    from mce_notebook.store.declaration import Declaration

    sweep = Store(os.environ["MCE_STORE"]).create("large", 1)
    sweep.declare(Declaration.of(grid(k=[1, 2]), outputs=("payload",), version="v", root=1))
    epoch = claim_epoch(sweep.paths, {"host": "fixture", "pid": 0, "time": 0.0})
    made = frames.encode(
        frames.Outcomes([payload(1), payload(2)]), ("payload",), declaration=1, ranges=[(0, 2)],
        meta={"version": "v", "generation": "0"},
    )  # fmt: skip
    with Journal(sweep.paths, epoch) as journal:
        journal.append([frames.spill(one, sweep.paths.big_epoch(epoch)) for one in made])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]).absolute())
