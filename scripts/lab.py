"""A real JupyterLab with a headless Chromium in front: for the pictures, the browser tests and the measurements."""

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
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

# Nothing may be looked up outside this machine: not by the page, and not by the browser for itself.
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-default-apps"]
CHROMIUM += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--force-color-profile=srgb"]
HERE = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")

# Errors on the console that are none: what the server refused is told with its method and address instead, and
# JupyterLab complains when a kernel ends while its debugger asks it something.
KNOWN = ("Failed to load resource: the server responded", "Could not restore the debugger state: Canceled future")

# Notebook 7 (7.6.5) throws these by itself, with no extension of ours in the page.
NOTEBOOK_7 = ("reading 'schema'", "Command 'filebrowser:open-path' not registered")

# The manager of ipywidgets (5.0.16) asks a session for its kernel that just ended, or never was.
WIDGETS = ("@jupyter-widgets/jupyterlab-manager", "reading 'kernel'")

# Off-screen cells must be in the page, or they cannot be scrolled to; and nothing may ask the network for news.
SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

# Running before all of this holds makes JupyterLab ask which kernel to use.
READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  if (!panel?.sessionContext || !panel.context.isReady || !panel.sessionContext.isReady) return false;
  if (document.querySelector('.jp-Dialog, .jp-Spinner')) return false;
  return panel.sessionContext.kernelDisplayStatus === 'idle'
    && panel.content.widgets.length === panel.model.cells.length;
}"""
RESTORED = """() => {
  const look = () => window.jupyterapp
    ? window.jupyterapp.restored.then(() => { window.restored = true; })
    : setTimeout(look, 50);
  look();
}"""
# Awaiting a command inside `evaluate` would wait for the cells without any time limit.
START = """([command, args]) => {
  const mark = (window.finished ??= {});
  const id = String(Object.keys(mark).length);
  mark[id] = false;
  window.jupyterapp.commands.execute(command, args).then(() => 'done', error => `failed: ${error}`)
    .then(how => { mark[id] = how; });
  return id;
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, number) =>
  cell.model.type !== 'code' || (cell.model.getMetadata('tags') ?? []).includes('raises-exception') ? [] :
  cell.model.outputs.toJSON().filter(one => one.output_type === 'error')
    .map(one => `cell ${number}: ${one.ename}: ${one.evalue}`))"""


@dataclass(frozen=True)
class Server:
    """A JupyterLab of our own.

    Parameters
    ----------
    address : str
        Its URL with the prefix, without a slash at the end.
    token : str
        The secret that opens it.
    folder : Path
        What it serves.
    log : Path
        What it said.
    """

    address: str
    token: str
    folder: Path
    log: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(urllib.parse.urlsplit(self.address).port or 0)


@contextlib.contextmanager
def jupyterlab(
    folder: Path,
    environment: Mapping[str, str],
    *,
    base_url: str = "/",
    settings: Mapping[str, Any] | None = None,
    start: Sequence[str] = (sys.executable, "-m", "jupyterlab"),
    again: Server | None = None,
) -> Iterator[Server]:
    """Serve `folder` on the loopback, with settings, runtime files and sockets in a folder that goes away.

    Parameters
    ----------
    folder : Path
    environment : mapping
        Added to that of this process.
    base_url : str
        Prefix of every URL, as on JupyterHub: `/user/anna/`.
    settings : mapping of str to dict, optional
        Added to `SETTINGS`, by plugin.
    start : sequence of str, optional
        What starts JupyterLab; this Python's, unless told.
    again : Server, optional
        One that has ended, whose address and token the new one takes over.

    Raises
    ------
    RuntimeError
        If the server does not answer within a minute, with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="mce-lab-") as private:
        for name, values in {**SETTINGS, **(settings or {})}.items():
            path = Path(private, "settings", f"{name}.jupyterlab-settings")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        port, token = (_free_port(), secrets.token_hex(16)) if again is None else (again.port, again.token)
        folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
        variables = {f"JUPYTER_{name}": f"{private}/{path}" for name, path in folders.items()}
        variables["JUPYTERLAB_SETTINGS_DIR"] = f"{private}/settings"
        variables["JUPYTERLAB_WORKSPACES_DIR"] = f"{private}/workspaces"
        variables["IPYTHONDIR"] = f"{private}/ipython"
        variables["JUPYTER_TOKEN"] = token
        # The extension is found beside this Python, whatever the user's own Jupyter folders hold.
        variables["JUPYTER_PREFER_ENV_PATH"] = "1"
        command = [*start, "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
        command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", f"--ServerApp.base_url={base_url}"]
        command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        command += ["--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"]
        command += ["--allow-root", "--KernelManager.transport=ipc", f"--KernelManager.ip={private}/kernel"]
        log = Path(private, "log")
        with open(log, "w") as out:
            server = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **environment, **variables}, start_new_session=True
            )
        try:
            address = f"http://127.0.0.1:{port}{base_url.rstrip('/')}"
            yield _answering(server, Server(address, token, folder, log))
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answering(server: subprocess.Popen[bytes], found: Server) -> Server:
    request = urllib.request.Request(f"{found.address}/api/status", headers={"Authorization": f"token {found.token}"})
    end = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=2):
            return found
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{found.log.read_text()[-3000:]}")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of this machine, headless.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        raise RuntimeError("There is no chromium on PATH; install it (Debian: apt-get install chromium).")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, args=CHROMIUM, timeout=60_000)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Window:
    """A page of JupyterLab, with all that went wrong in it.

    Parameters
    ----------
    page : Page
    server : Server
    problems : list of str
        Errors on the console, exceptions nobody caught, and requests that left this machine.
    """

    page: Page
    server: Server
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, context: BrowserContext, server: Server) -> "Window":
        """Open an empty page and listen to it."""
        page = context.new_page()
        page.set_default_timeout(20_000)
        window = cls(page, server)
        page.on("request", lambda request: window._asked(request.url))
        page.on("websocket", lambda socket: window._asked(socket.url))
        page.on("console", window._said)
        page.on("pageerror", lambda error: window._thrown(error.stack or str(error)))
        page.on("response", lambda response: window._answered(response.status, response.url, response.request))
        return window

    def _asked(self, url: str) -> None:
        self.requests.append(url)
        if not url.startswith(HERE):
            self.problems.append(f"request to elsewhere: {url}")

    def _thrown(self, error: str) -> None:
        others = "/notebooks/" in self.page.url and any(known in error for known in NOTEBOOK_7)
        if not others and not all(known in error for known in WIDGETS):
            self.problems.append(f"exception: {error}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(KNOWN):
            self.problems.append(f"console: {message.text[:500]} ({message.location.get('url', '')})")

    def _answered(self, status: int, url: str, request: Request) -> None:
        if status >= 400 and not _expected(status, url, self.server.address):
            self.problems.append(f"{request.method} {url}: {status}")

    @property
    def workspace(self) -> str:
        """A layout of its own: a second window with the layout of the first would be sent to another address."""
        return f"lab/workspaces/w{id(self):x}"

    def go(self, path: str, *, front: str = "lab") -> None:
        """Open a notebook in JupyterLab (`front="lab"`) or Notebook 7 (`"notebooks"`), and wait for its kernel."""
        where = f"{self.workspace}/tree/{path}" if front == "lab" else f"notebooks/{path}"
        self.page.goto(f"{self.server.address}/{where}?token={self.server.token}&reset", timeout=60_000)
        self.wait(READY, 90)

    def go_empty(self) -> None:
        """Open JupyterLab with no document."""
        self.page.goto(f"{self.server.address}/{self.workspace}?token={self.server.token}&reset", timeout=60_000)
        self.page.evaluate(RESTORED)
        self.wait("() => window.restored", 60)

    def wait(self, condition: str, seconds: float = 20, argument: Any = None) -> Any:
        """Wait until a JavaScript function returns something true, and return it.

        Raises
        ------
        TimeoutError
        """
        end = time.monotonic() + seconds
        while not (found := self.page.evaluate(condition, argument)):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds:g} s: {condition}")
            self.page.wait_for_timeout(50)
        return found

    def start(self, command: str, args: Mapping[str, Any] | None = None) -> str:
        """Execute a command of JupyterLab without waiting for it; returns what `finished` asks for."""
        return str(self.page.evaluate(START, [command, dict(args or {})]))

    def execute(self, command: str, args: Mapping[str, Any] | None = None, seconds: float = 30) -> None:
        """Execute a command of JupyterLab and wait for its end."""
        self.finished(self.start(command, args), seconds)

    def finished(self, mark: str, seconds: float = 30) -> None:
        """Wait until a command that `start` started is done.

        Raises
        ------
        RuntimeError
            If the command failed.
        """
        how = self.wait("mark => window.finished[mark]", seconds, mark)
        if how != "done":
            raise RuntimeError(how)

    # Notebooks

    def select(self, number: int) -> None:
        """Make a cell the active one."""
        self.page.evaluate(
            """number => {
              const book = window.jupyterapp.shell.currentWidget.content;
              book.deselectAll();
              book.activeCellIndex = number;
            }""",
            number,
        )

    def run_cell(self, number: int, seconds: float = 60, *, wait: bool = True) -> str:
        """Run one cell; an exception in it is an error unless the cell is tagged `raises-exception`."""
        self.select(number)
        mark = self.start("notebook:run-cell")
        if wait:
            self.finished(mark, seconds)
            self.check()
        return mark

    def run_all(self, seconds: float = 120) -> None:
        """Run all cells; an exception in any of them is an error."""
        self.finished(self.start("notebook:run-all-cells"), seconds)
        self.check()

    def check(self) -> None:
        """Complain about cells that raised.

        Raises
        ------
        RuntimeError
        """
        errors = self.page.evaluate(ERRORS)
        if errors:
            raise RuntimeError("; ".join(errors))

    def source(self, number: int) -> str:
        """Return the text of a cell."""
        script = "number => window.jupyterapp.shell.currentWidget.model.cells.get(number).sharedModel.getSource()"
        return str(self.page.evaluate(script, number))

    def sources(self) -> list[str]:
        """Return the text of all cells."""
        script = "() => [...window.jupyterapp.shell.currentWidget.model.cells].map(one => one.sharedModel.getSource())"
        return list(self.page.evaluate(script))

    def text(self, number: int) -> str:
        """Return what the output of a cell shows."""
        script = """number => window.jupyterapp.shell.currentWidget.content.widgets[number]
          .node.querySelector('.jp-Cell-outputArea')?.innerText ?? ''"""
        return str(self.page.evaluate(script, number))

    def save(self) -> None:
        """Save the notebook."""
        self.execute("docmanager:save", seconds=20)

    def scroll_to(self, text: str) -> None:
        """Bring the first cell whose source begins with `text` to the top of the window.

        Raises
        ------
        LookupError
            If there is none.
        """
        script = """text => {
          const cells = window.jupyterapp.shell.currentWidget.content.widgets;
          const cell = cells.find(one => one.model.sharedModel.getSource().startsWith(text));
          cell?.node.scrollIntoView({ block: 'start' });
          return Boolean(cell);
        }"""
        if not self.page.evaluate(script, text):
            raise LookupError(f"no cell begins with {text!r}")

    def dark(self, on: bool = True) -> None:
        """Take the dark theme, or the light one."""
        name = f"JupyterLab {'Dark' if on else 'Light'}"
        self.execute("apputils:change-theme", {"theme": name})
        self.wait("name => document.body.dataset.jpThemeName === name", 20, name)


def _expected(status: int, url: str, address: str) -> bool:
    """Whether JupyterLab itself asks for something that may not be there: a workspace, a file's checkpoints."""
    path = url.removeprefix(address)
    return status == 404 and path.startswith(("/api/workspaces", "/lab/api/workspaces", "/lab/api/translations"))


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """Write a notebook of code cells; a first line `# tags: a, b` of a cell names its tags."""
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, source in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source, id=f"cell-{number}")
        first = source.partition("\n")[0]
        if first.startswith("# tags: "):
            cell.metadata["tags"] = [one.strip() for one in first.removeprefix("# tags: ").split(",")]
        book.cells.append(cell)
    nbformat.write(book, path)
