"""One sweep in which points do everything points do to a machine; all others are done, each of these is named."""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import mce_notebook as mce

KINDS = (
    "good",
    "raises",
    "segfaults",
    "hoards",
    "sleeps",
    "spins",
    "exits",
    "prints",
    "forks",
    "wanders",
    "text",
    "large",
    "strange",
    "quits",
    "kills",
    "recurses",
)
BAD = {
    "raises": ("failed", "ValueError"),
    "segfaults": ("killed", "SIGSEGV"),
    "hoards": ("killed", "memory"),
    "sleeps": ("timeout", "timed out"),
    "spins": ("timeout", "timed out"),
    "exits": ("killed", "3"),
    "strange": ("failed", "lock"),
    "quits": ("failed", "SystemExit"),
    "recurses": ("failed", "RecursionError"),
}


def behave(kind: str, n: int) -> object:
    """Do what `kind` says; the good ones return a number."""
    if kind == "raises":
        raise ValueError(f"no solution for n={n}")
    if kind == "segfaults":
        ctypes.string_at(0)
    if kind == "hoards":
        _kept = [np.ones(50_000_000) for _ in range(75)]
    if kind == "sleeps":
        time.sleep(10_000)
    if kind == "spins":
        # One bytecode that holds the GIL for minutes: nothing inside the process can interrupt it.
        9 ** (9**9)
    if kind == "exits":
        os._exit(3)
    if kind == "prints":
        line = "x" * 99_999 + "\n"
        for _ in range(2_000):
            sys.stdout.write(line)
    if kind == "forks" and os.fork() == 0:
        return -1.0
    if kind == "wanders":
        os.chdir("/")
    if kind == "text":
        return "a word"
    if kind == "large":
        return np.full(12_500_000, float(n))
    if kind == "strange":
        return threading.Lock()
    if kind == "quits":
        sys.exit("enough")
    if kind == "kills":
        os.kill(os.getpid(), 9)
    if kind == "recurses":
        return behave(kind, n)
    return float(n)


@pytest.mark.timeout(300)
def test_every_other_point_is_done_and_each_of_these_is_named(root: Path) -> None:
    kinds = [kind for kind in KINDS if kind not in ("text", "large")]
    run = mce.sweep(
        behave,
        kind=kinds,
        n=[0, 1],
        on="local",
        timeout="10s",
        memory="500MB",
        retries=0,
        outputs=["value"],
    )
    data = run.result(timeout=240)
    meanings = data.status.attrs["flag_meanings"].split()
    table = run.failures.table.set_index(["kind", "n"])
    for kind in kinds:
        for n in (0, 1):
            status = meanings[int(data.status.sel(kind=kind, n=n))]
            if kind == "kills":
                # A SIGKILL nobody explains is lost work twice, and the point's own doing the third time.
                assert status == "killed", (kind, n, status)
            elif kind in BAD:
                expected, word = BAD[kind]
                assert status == expected, (kind, n, status)
                row = table.loc[(kind, n)]
                assert word.lower() in f"{row['cause']} {row['type']} {row['message']}".lower(), (kind, row)
            else:
                assert status == "done", (kind, n, status)
                assert float(data.value.sel(kind=kind, n=n)) == n


def test_another_type_and_a_hundred_megabytes(root: Path) -> None:
    run = mce.sweep(behave, kind=["good", "large"], n=[1, 2], on="local", outputs=["value"], name="large_ones")
    run.result(timeout=100)
    assert int((run.dataset.status == 2).sum()) >= 2
    words = mce.sweep(behave, kind=["text"], n=[1, 2], on="local", outputs=["value"], name="words")
    assert words.result(timeout=60).value.values.ravel().tolist() == ["a word", "a word"]


def test_one_percent_of_failures_is_data(root: Path) -> None:
    def fragile(i: int) -> float:
        if i % 100 == 7:
            raise ArithmeticError(f"unlucky {i}")
        return i * 0.5

    run = mce.sweep(fragile, i=list(range(3000)), on="local")
    data = run.result(timeout=60)
    assert int((data.status == 2).sum()) == 2970
    assert len(run.failures.table) == 30
    assert np.array_equal(np.isnan(data.fragile.values), np.arange(3000) % 100 == 7)
    with pytest.raises(ArithmeticError, match="unlucky 107"):
        run.replay(i=107)
