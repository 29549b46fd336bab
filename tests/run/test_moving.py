"""A sweep that is moved from one cluster to another half way."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mce_notebook as mce
from mce_notebook.frontends.cluster_actions import running
from mce_notebook.run.client import stop_host
from mce_notebook.store.catalog import Store


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Hosts of one slot: `local`, and one by another name."""
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MCE_HOST_WORKERS", "1")
    monkeypatch.setenv("MCE_CORES", "2")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "clusters.toml").write_text('[other]\nkind = "local"\nmax_workers = 1\n')
    yield "other"
    for name in ("local", "other"):
        for host in running(name):
            stop_host(host)


def counted(folder: str) -> Callable[[int], int]:
    def point(x: int) -> int:
        import time
        from pathlib import Path
        from uuid import uuid4

        time.sleep(0.3)
        (Path(folder) / f"{x}-{uuid4().hex}").touch()
        return x * x

    return point


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_the_rest_is_computed_there_and_nothing_again(tmp_path: Path, other: str) -> None:
    ran, root = tmp_path / "ran", tmp_path / "s"
    ran.mkdir()
    point = counted(str(ran))
    handle = mce.sweep(point, x=range(16), name="moves", outputs=["y"], store=root)
    until(lambda: handle.progress.done > 2)
    moved = mce.sweep(point, x=range(16), name="moves", outputs=["y"], store=root, on=other)
    states = set()
    while not (progress := moved.progress).ended:
        states.add(progress.state)
        time.sleep(0.05)
    assert progress.state == "done"
    assert states <= {"queued", "running"}
    assert moved.result()["y"].values.tolist() == [x * x for x in range(16)]
    assert len(list(ran.iterdir())) == 16, "points were computed twice"
    store = Store(root).sweep("moves")
    first, second = (store.heartbeat(epoch.number) for epoch in store.epochs())
    assert first["state"] == "moved"
    assert 2 < first["done"] < 16
    assert second["state"] == "done"
    # Done, so there is nothing to move any more.
    mce.sweep(point, x=range(16), name="moves", outputs=["y"], store=root)
    assert len(store.numbers()) == 2


@pytest.mark.nightly
def test_a_host_that_hangs_is_not_waited_for(tmp_path: Path, other: str) -> None:
    def slow(x: int) -> int:
        import time

        time.sleep(0.2)
        return x

    handle = mce.sweep(slow, x=range(30), store=tmp_path / "s")
    until(lambda: handle.progress.done > 2)
    (host,) = running("local")
    os.kill(host.process.pid, signal.SIGSTOP)
    try:
        assert mce.sweep(slow, x=range(30), store=tmp_path / "s", on=other).wait(120).state == "done"
    finally:
        os.kill(host.process.pid, signal.SIGKILL)
