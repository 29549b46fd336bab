"""What a new sweep begins with."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.errors import AlreadyExists, StoreFull
from mce_notebook.store import folder as module
from mce_notebook.store.catalog import Store, object_digest
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.first import first_files

BUFFER = np.arange(6.0).tobytes()


def files(**more: object) -> dict[str, bytes]:
    points = grid(x=np.linspace(0, 1, 5000).tolist(), y=[1, 2])
    declaration = Declaration.of(points, version="v", code="v-1", environment="e", **more)
    code = {"manifest.json": b"{}", "modules/deep/er/a.py": b"x = 1\n"}
    return first_files(declaration, code=code, objects={object_digest(BUFFER): BUFFER}, facts={"python": 3}, by="me")


def test_a_sweep_begins_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "experiments")
    sweep = store.create("recovery", 7, files())
    latest = sweep.latest()
    assert latest is not None
    assert (latest.number, latest.grid.size, sweep.root) == (1, 10_000, 7)
    assert latest.grid.point(9_999) == {"x": 1.0, "y": 2}
    intent = sweep.latest_intent()
    assert intent is not None
    assert (intent.number, intent.verb, intent.by) == (1, "run", "me")
    assert (sweep.code_folder("v-1") / "modules/deep/er/a.py").read_bytes() == b"x = 1\n"
    assert sweep.paths.object(object_digest(BUFFER)).read_bytes() == BUFFER
    assert sweep.environment("e") == {"python": 3}
    # The next declaration is the second, as if the first had been written alone.
    assert sweep.declare(latest) == 2


def test_the_second_of_two_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "experiments")
    store.create("recovery", 7, files())
    with pytest.raises(AlreadyExists):
        store.create("recovery", 8, files(cell="other"))
    latest = store.sweep("recovery").latest()
    assert latest is not None
    assert latest.cell == ""
    assert os.listdir(store.root) == ["recovery"]


def test_every_file_and_folder_is_synced_before_the_sweep_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "experiments")
    synced: list[int] = []
    seen: list[bool] = []

    def fdatasync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        seen.append((store.root / "recovery").exists())

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(module, "sync_data", fdatasync)
    monkeypatch.setattr(os, "fsync", fsync)
    sweep = store.create("recovery", 7, files())
    there = {path.stat().st_ino for path in [store.root, sweep.paths.folder, *sweep.paths.folder.rglob("*")]}
    assert there <= set(synced)
    assert not any(seen)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "experiments")
    count = 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "sync_data", full)
    with pytest.raises(StoreFull):
        store.create("recovery", 7, files())
    assert os.listdir(store.root) == []
    assert store.names() == []
