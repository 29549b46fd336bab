"""One runtime and one configuration folder for the whole session, so that no test meets the user's own hosts."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run the long tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Deselected, not skipped: a skip in a report must always mean that something is wrong.
    if config.getoption("--nightly"):
        for item in items:
            if limit := item.get_closest_marker("timeout"):
                # Ten times the kills take ten times as long; the nearest mark holds.
                item.add_marker(pytest.mark.timeout(10 * limit.args[0]), append=False)
    if config.getoption("--nightly") or config.getoption("markexpr"):
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[Path]:
    """A private runtime and configuration folder; every host started in it ends with the session."""
    # Short, because a Unix socket's path must stay under about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="mce-") as folder:
        names = {"MCE_RUNTIME_DIR": f"{folder}/run", "MCE_CONFIG_DIR": f"{folder}/config", "MCE_HOST_IDLE": "600"}
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(names)
        yield Path(folder)
        from mce_notebook.run.client import hosts, stop_host

        for host in hosts():
            stop_host(host, timeout=10)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, which calls without `store=` use."""
    folder = tmp_path / "experiments"
    monkeypatch.setenv("MCE_STORE", str(folder))
    return folder
