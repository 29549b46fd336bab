"""One runtime and one configuration folder for the whole session, so that no test meets the user's own hosts."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Programs that some tests start, by folder, each with its other names. CI must have them: there, tests without them
# fail.
PROGRAMS = {
    "browser": [("chromium", "chromium-browser", "google-chrome")],
    "clusters": [("slurmctld",), ("sge_qmaster",), ("ip",), ("sshd", "/usr/sbin/sshd")],
}
LEFT_OUT = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run the long tests too")


def pytest_configure(config: pytest.Config) -> None:
    # In every process of a parallel run: the one that reports collects nothing.
    config.stash[LEFT_OUT] = {} if os.environ.get("CI") else missing()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Deselected, not skipped: a skip in a report must always mean that something is wrong.
    if config.getoption("--nightly"):
        for item in items:
            if limit := item.get_closest_marker("timeout"):
                # Ten times the kills take ten times as long; the nearest mark holds.
                item.add_marker(pytest.mark.timeout(10 * limit.args[0]), append=False)
    without = [item for item in items if folder_of(item) in config.stash[LEFT_OUT]]
    deselect(config, items, without)
    if config.getoption("--nightly") or config.getoption("markexpr"):
        return
    deselect(config, items, [item for item in items if item.get_closest_marker("nightly")])


def deselect(config: pytest.Config, items: list[pytest.Item], away: list[pytest.Item]) -> None:
    """Take some tests out, as pytest does it itself."""
    if away:
        config.hook.pytest_deselected(items=away)
        items[:] = [item for item in items if item not in set(away)]


def folder_of(item: pytest.Item) -> str:
    """The folder of `tests` that a test is in; empty for one in none."""
    path = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else Path()
    return path.parts[0] if len(path.parts) > 1 else ""


def missing() -> dict[str, str]:
    """Why the tests of a folder cannot run here, by folder."""
    found = {}
    for folder, programs in PROGRAMS.items():
        lacking = [names[0] for names in programs if not any(map(shutil.which, names))]
        if lacking:
            found[folder] = f"{' and '.join(lacking)} not found"
        elif folder == "clusters" and os.geteuid() != 0:
            found[folder] = "only root can start a batch system"
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for folder, why in config.stash.get(LEFT_OUT, {}).items():
        terminalreporter.write_line(f"tests/{folder} was left out: {why} (.ci/run installs it)", yellow=True)


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
