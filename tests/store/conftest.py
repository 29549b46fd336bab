import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.store import bucket_journal, mirror
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Frame, Outcomes, encode


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
    monkeypatch.delenv("MCE_STORE", raising=False)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    # In memory where possible: these tests sync thousands of times, and no test can see what a power cut would take.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="mce-", dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `anywhere` on a store in a folder and on one in a bucket."""
    if metafunc.definition.get_closest_marker("anywhere") and "store" in metafunc.fixturenames:
        metafunc.parametrize("store", ["folder", "bucket"], indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if getattr(request, "param", "folder") == "folder":
        return Store(tmp_path / "experiments")
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path / "cache"))
    # Every look and every commit reaches the bucket, as the tests of folders expect of files.
    monkeypatch.setattr(mirror, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(mirror, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(bucket_journal, "COMMIT_SECONDS", 0.0)
    return Store(f"memory://{secrets.token_hex(8)}/experiments")


@pytest.fixture
def sweep(store: Store) -> SweepStore:
    """A sweep with one declaration of 1,000 points and two outputs."""
    made = store.create("recovery", 42)
    made.declare(Declaration.of(grid(i=range(1000)), outputs=("a", "b"), version="v1"))
    return made


@pytest.fixture
def frames() -> Callable[..., list[Frame]]:
    """Frames of points start..stop with outputs that tell which point they belong to."""

    def make(start: int, stop: int, **meta: Any) -> list[Frame]:
        values = [(float(np.sqrt(at)), at) for at in range(start, stop)]
        texts = {"version": "v1"} | {name: str(value) for name, value in meta.items()}
        return encode(Outcomes(values), ("a", "b"), declaration=1, ranges=[(start, stop)], meta=texts)

    return make
