"""Run a notebook in JupyterLab, in a headless Chromium, and photograph it for the README."""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Page, sync_playwright
from run_notebooks import NOTEBOOKS, ROOT, private_runtime

NOTEBOOK = NOTEBOOKS / "01_phase_transition.ipynb"
PICTURE = ROOT / "docs" / "images" / "phase_transition.png"
LIMIT = 300_000

CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

# Off-screen cells must be in the page, or they cannot be scrolled to; and nothing may ask the network for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

# Running before all of this holds makes JupyterLab ask which kernel to use.
READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  if (!panel?.sessionContext || !panel.context.isReady || !panel.sessionContext.isReady) return false;
  if (document.querySelector('.jp-Dialog, .jp-Spinner')) return false;
  return panel.sessionContext.kernelDisplayStatus === 'idle'
    && panel.content.widgets.length === panel.model.cells.length;
}"""
# Awaiting the command inside `evaluate` would wait for the cells without any time limit.
RUN_ALL = """() => {
  window.finished = false;
  window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.finished = true; });
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, number) =>
  cell.model.type !== 'code' || (cell.model.getMetadata('tags') ?? []).includes('raises-exception') ? [] :
  cell.model.outputs.toJSON().filter(one => one.output_type === 'error')
    .map(one => `cell ${number}: ${one.ename}: ${one.evalue}`))"""


@dataclass(frozen=True)
class Server:
    """A JupyterLab of our own: its address and the secret that opens it."""

    address: str
    token: str


@contextlib.contextmanager
def jupyterlab(folder: Path, environment: dict[str, str]) -> Iterator[Server]:
    """Serve `folder` on the loopback, with settings, runtime files and sockets in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="mce-lab-") as private, socket.socket() as probe:
        for name, values in SETTINGS.items():
            path = Path(private, "settings", "@jupyterlab", f"{name}.jupyterlab-settings")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        probe.bind(("127.0.0.1", 0))
        port, token = probe.getsockname()[1], secrets.token_hex(16)
        probe.close()
        folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
        variables = {f"JUPYTER_{name}": f"{private}/{path}" for name, path in folders.items()}
        variables["JUPYTERLAB_SETTINGS_DIR"] = f"{private}/settings"
        variables["JUPYTERLAB_WORKSPACES_DIR"] = f"{private}/workspaces"
        variables["JUPYTER_TOKEN"] = token
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
        command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
        command += ["--allow-root", "--LabApp.expose_app_in_browser=True"]
        command += ["--KernelManager.transport=ipc", f"--KernelManager.ip={private}/kernel"]
        with open(Path(private, "log"), "w") as log:
            server = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **environment, **variables}, start_new_session=True
            )
        try:
            yield _answering(server, Server(f"http://127.0.0.1:{port}", token), Path(private, "log"))
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _answering(server: subprocess.Popen[bytes], found: Server, log: Path) -> Server:
    request = urllib.request.Request(f"{found.address}/api/status", headers={"Authorization": f"token {found.token}"})
    for _ in range(600):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=2):
            return found
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def run_all(page: Page, server: Server, notebook: str, seconds: float) -> None:
    """Open a notebook and run all its cells; an unexpected exception in any of them is an error."""
    page.goto(f"{server.address}/lab/tree/{notebook}?token={server.token}&reset")
    wait(page, READY, 90)
    page.evaluate("() => { window.jupyterapp.commands.execute('application:toggle-left-area'); }")
    page.evaluate(RUN_ALL)
    wait(page, "() => window.finished", seconds)
    errors = page.evaluate(ERRORS)
    if errors:
        raise RuntimeError("; ".join(errors))


def wait(page: Page, condition: str, seconds: float) -> None:
    """Wait until a JavaScript predicate holds."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        if time.monotonic() > end:
            raise TimeoutError(f"not true after {seconds:g} s: {condition}")
        page.wait_for_timeout(100)


def scroll_to(page: Page, text: str) -> None:
    """Bring the first cell whose source begins with `text` to the top of the window."""
    found = page.evaluate(
        """text => {
          const cells = window.jupyterapp.shell.currentWidget.content.widgets;
          const cell = cells.find(one => one.model.sharedModel.getSource().startsWith(text));
          cell?.node.scrollIntoView({ block: 'start' });
          return Boolean(cell);
        }""",
        text,
    )
    if not found:
        raise LookupError(f"no cell begins with {text!r}")


def photograph(page: Page, path: Path) -> None:
    """Save the window as a PNG small enough for a README."""
    page.wait_for_timeout(1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))
    if path.stat().st_size > LIMIT:
        raise RuntimeError(f"{path} has {path.stat().st_size:,} bytes, more than {LIMIT:,}")


def main() -> int:
    """Run the notebook and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebook", type=Path, default=NOTEBOOK)
    parser.add_argument("--cell", default="diagram(", help="how the cell at the top of the picture begins")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--reduced", action="store_true", help="the small grid of `make demo`")
    parser.add_argument("--height", type=int, default=900)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mce-") as scratch:
        folder = Path(scratch, "notebooks")
        folder.mkdir()
        book = nbformat.read(options.notebook, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(book, folder / options.notebook.name)
        environment = {"MCE_STORE": f"{scratch}/experiments", "MCE_DEMO": "reduced" if options.reduced else ""}
        with (
            private_runtime() as runtime,
            jupyterlab(folder, {**environment, **runtime}) as server,
            sync_playwright() as play,
        ):
            browser = play.chromium.launch(executable_path=options.chromium, args=CHROMIUM)
            page = browser.new_page(viewport={"width": 1200, "height": options.height})
            run_all(page, server, options.notebook.name, 600)
            scroll_to(page, options.cell)
            photograph(page, options.picture)
            browser.close()
    print(f"{options.picture}  {options.picture.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
