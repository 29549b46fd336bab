"""One JupyterLab and one Chromium for all browser tests; whatever goes wrong in a page fails its test."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from scripts.lab import Server, Window, chromium, jupyterlab, write_notebook

PICTURES = Path(__file__).parents[2] / "build" / "browser"
# The prefix every URL has on a JupyterHub: links and sockets that forget it show at once.
BASE = "/user/anna@example.org/"
HEAD = "%load_ext mce_notebook\nimport time\nimport numpy as np"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # A signal, so that the fixtures end the server and the browser; the thread would leave them behind.
            item.add_marker(pytest.mark.timeout(150, method="signal"), append=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    setattr(item, f"report_{call.when}", report)
    return report


@dataclass
class Lab:
    """The server of the suite, and what tests put into its folder."""

    server: Server
    store: Path
    count: int = 0
    windows: list[Window] = field(default_factory=list)

    def notebook(self, cells: Sequence[str], name: str = "") -> str:
        """Write a notebook whose cell 0 loads us; returns its path."""
        self.count += 1
        path = f"{name or f'book{self.count}'}.ipynb"
        write_notebook(self.server.folder / path, [HEAD, *cells])
        return path


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    # Not for the whole session: Playwright keeps an event loop running in this thread, which others' tests cannot have.
    with chromium() as found:
        yield found


@pytest.fixture(scope="package")
def lab(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    store = folder / "experiments"
    # Only our own store is listed, not those that other tests opened.
    shutil.rmtree(runtime / "config" / "roots", ignore_errors=True)
    # Workers of two cores at most: what is measured here is the page.
    with jupyterlab(folder, {"MCE_STORE": str(store)}, base_url=BASE) as server:
        yield Lab(server, store)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    found = browser.new_context(viewport={"width": 1280, "height": 900})
    yield found
    found.close()


@pytest.fixture
def open_window(lab: Lab, context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Callable[[], Window]]:
    """Open windows; after the test none of them may have had a problem."""
    windows: list[Window] = []

    def make() -> Window:
        windows.append(Window.open(context, lab.server))
        return windows[-1]

    yield make
    report = getattr(request.node, "report_call", None)
    problems = [problem for window in windows for problem in window.problems]
    if problems or (report is not None and report.failed):
        for number, window in enumerate(windows):
            picture(window, re.sub(r"\W+", "_", request.node.name) + f"_{number}")
    for window in windows:
        close(window)
    assert not problems, "\n".join(problems)


@pytest.fixture
def window(open_window: Callable[[], Window]) -> Window:
    return open_window()


def picture(window: Window, name: str) -> Path:
    """Save what the window shows under build/browser."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    if not window.page.is_closed():
        window.page.screenshot(path=str(path), timeout=10_000)
    return path


def close(window: Window) -> None:
    """Leave the page and end its kernel, so that kernels do not pile up over the suite."""
    if window.page.is_closed():
        return
    window.page.evaluate(
        """() => Promise.race([
          window.jupyterapp?.serviceManager?.sessions.shutdownAll() ?? Promise.resolve(),
          new Promise(done => setTimeout(done, 3000))
        ])"""
    )
    window.page.close()


def until(condition: Callable[[], object], seconds: float = 20) -> float:
    """Wait until something holds; returns how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - start
