import json

import pytest

from mce_notebook.declare.grid import Status, grid
from mce_notebook.store.catalog import Store
from mce_notebook.store.frames import Failure
from tests.view.conftest import Lab

pytest_plugins = ["pytest_jupyter.jupyter_server"]


@pytest.fixture
def jp_server_config():
    return {"ServerApp": {"jpserver_extensions": {"mce_notebook": True}}}


@pytest.fixture
def folder(jp_root_dir, monkeypatch):
    monkeypatch.delenv("MCE_STORE", raising=False)
    return jp_root_dir / "experiments"


def made(root, name="recovery", design=None):
    lab = Lab(Store(root).create(name, 7))
    lab.declare(design or grid(n=[1, 2, 3], rho=[0.1, 0.2]))
    return lab


@pytest.fixture
def lab(folder):
    lab = made(folder)
    yield lab
    lab.close()


async def answer(fetch, *path, **more):
    response = await fetch("mce_notebook", *path, **more)
    return json.loads(response.body)


async def refused(fetch, *path, **more):
    """Status and sentence of an answer that is no success."""
    response = await fetch("mce_notebook", *path, raise_error=False, **more)
    assert response.code >= 400, response.body
    found = json.loads(response.body)
    assert list(found) == ["message"]
    assert "Traceback" not in found["message"]
    return response.code, found["message"]


async def test_the_list(lab, jp_fetch):
    lab.record([1.0], (0, 1))
    found = await answer(jp_fetch, "api", "sweeps")
    (summary,) = found["sweeps"]
    assert (summary["name"], summary["total"], summary["known"]) == ("recovery", 6, 1)
    assert summary["counts"] == {
        "pending": 5, "running": 0, "done": 1, "failed": 0, "killed": 0, "timeout": 0, "skipped": 0, "stale": 0
    }  # fmt: skip
    assert summary["key"] == lab.sweep.id


async def test_one_sweep(lab, jp_fetch):
    lab.record([1.0, None], (0, 2), failures={1: Failure(Status.FAILED, "ValueError", "<script>alert(1)</script>")})
    view = await answer(jp_fetch, "api", "sweeps", lab.sweep.id)
    assert [axis["name"] for axis in view["axes"]] == ["n", "rho"]
    assert (view["heatmap"]["x"], view["heatmap"]["y"]) == ("rho", "n")
