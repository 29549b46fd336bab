"""What Binder does with this repository, done here: its steps in a fresh environment, a notebook in a browser."""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil

from scripts.lab import Window, chromium, jupyterlab
from scripts.run_notebooks import private_runtime

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "notebooks/01_phase_transition.ipynb"
# What Binder gives everybody (bytes).
LIMIT = 2 * 10**9
# The lines of the Dockerfile that do our part, in their order.
STEPS = (
    "COPY --chown=0:0 src/ ${REPO_DIR}/",
    'pip install --no-cache-dir -r "binder/requirements.txt"',
    "RUN ./binder/postBuild",
    'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"',
)
# Every live view has come to its end; how many there are.
SETTLED = """() => {
  const views = [...document.querySelectorAll('.jp-Cell-outputArea article.mce-view')];
  return views.length > 0 && views.every(view => view.querySelector('.mce-state.mce-is-done')) && views.length;
}"""


def image(folder: Path) -> str:
    """Return the Dockerfile that Binder would build of a folder.

    Raises
    ------
    RuntimeError
        If repo2docker fails, or one of our steps is missing or out of order.
    """
    command = [str(Path(sys.executable).with_name("jupyter-repo2docker")), "--no-build", "--debug", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"repo2docker failed:\n{done.stderr[-3000:]}")
    text = done.stdout + done.stderr
    places = [text.find(step) for step in STEPS]
    if -1 in places or places != sorted(places):
        raise RuntimeError(f"steps missing or out of order: {dict(zip(STEPS, places, strict=True))}")
    return text


def build(folder: Path, environment: Path) -> dict[str, str]:
    """Run the steps of the image in a new environment; returns the variables under which its programs are found."""
    wanted = (folder / "binder/runtime.txt").read_text().strip().removeprefix("python-")
    version = "{}.{}".format(*sys.version_info)
    if wanted != version:
        print(f"note: Binder takes Python {wanted}, this is {version}")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    variables = {**os.environ, "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "SKIP_JUPYTER_BUILDER"):
        variables.pop(name, None)
    pip = ["python", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    for step in ([*pip, "-r", "binder/requirements.txt"], [str(folder / "binder/postBuild")]):
        began = time.monotonic()
        # Found on the new PATH, which `subprocess` itself would not look at.
        subprocess.run(["env", *step], cwd=folder, env=variables, check=True)
        print(f"{step[-1].removeprefix(str(folder) + '/')}: {time.monotonic() - began:.0f} s", flush=True)
    return variables


def belonging(mark: str) -> Iterator[psutil.Process]:
    """Yield the processes that were started with a variable: hosts leave the tree of the server."""
    name, _, value = mark.partition("=")
    for process in psutil.process_iter():
        # Others' processes say nothing, and some end while we look.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name) == value:
                yield process


class Memory(threading.Thread):
    """The memory of all processes with a mark, shared pages counted once, and its largest value.

    Parameters
    ----------
    mark : str
        `NAME=VALUE` of a variable that only they have.
    """

    def __init__(self, mark: str):
        super().__init__(daemon=True)
        self.mark = mark
        self.peak = 0
        self.parts: list[tuple[int, str]] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Look twice a second."""
        while not self._over.wait(0.5):
            parts = []
            for process in belonging(self.mark):
                with contextlib.suppress(psutil.Error):
                    info = process.memory_full_info()
                    # Only Linux tells shares of shared pages.
                    parts.append((int(getattr(info, "pss", info.uss)), " ".join(process.cmdline())[-70:]))
            total = sum(size for size, _ in parts)
            if total > self.peak:
                self.peak, self.parts = total, sorted(parts, reverse=True)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def use(folder: Path, variables: dict[str, str], notebooks: Sequence[str]) -> int:
    """Run notebooks in JupyterLab as Binder starts it; returns the largest memory (bytes).

    Raises
    ------
    RuntimeError
        If a cell raises, a live view does not come to its end, or the page has a problem.
    """
    with private_runtime() as runtime:
        ((name, value),) = runtime.items()
        memory = Memory(f"{name}={value}")
        memory.start()
        try:
            start = [str(folder / "binder/start"), "jupyter", "lab"]
            with chromium() as browser, jupyterlab(folder, {**variables, **runtime}, start=start) as server:
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                for notebook in notebooks:
                    began = time.monotonic()
                    window = Window.open(context, server)
                    window.go(notebook)
                    opened = time.monotonic() - began
                    window.run_all(600)
                    views = window.wait(SETTLED, 120)
                    if window.problems:
                        raise RuntimeError("; ".join(window.problems))
                    took = time.monotonic() - began - opened
                    print(f"{notebook}: open after {opened:.1f} s, ran in {took:.0f} s, {views} live views", flush=True)
                context.close()
        finally:
            memory.stop()
    for size, command in memory.parts[:12]:
        print(f"  {size / 1e6:6.0f} MB  {command}")
    return memory.peak


def link(origin: str) -> str:
    """Return the address under which Binder opens the first notebook of a public repository.

    Parameters
    ----------
    origin : str
        As `git clone` takes it.

    Raises
    ------
    ValueError
        If it has no address that Binder could reach.
    """
    # git@host:owner/name is short for ssh://git@host/owner/name.
    if short := re.fullmatch(r"(?:[\w.-]+@)?([\w.-]+\.\w+):(?!//)(.+)", origin):
        origin = "https://{}/{}".format(*short.groups())
    parts = urlsplit(origin)
    path = parts.path.strip("/").removesuffix(".git")
    if parts.scheme not in {"http", "https", "ssh", "git"} or not parts.hostname or not path:
        raise ValueError(f"{origin or 'This clone'} is no public repository; publish it and say its address.")
    if parts.hostname == "github.com":
        where = f"gh/{path}"
    elif parts.hostname == "gitlab.com":
        where = f"gl/{quote(path, safe='')}"
    else:
        port = f":{parts.port}" if parts.port and parts.scheme.startswith("http") else ""
        where = "git/" + quote(f"https://{parts.hostname}{port}/{path}", safe="")
    return f"https://mybinder.org/v2/{where}/HEAD?urlpath={quote('lab/tree/' + NOTEBOOK, safe='')}"


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Build what Binder builds and run notebooks in it; what is not committed does not take part."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", default=[NOTEBOOK])
    parser.add_argument(
        "--link", nargs="?", const="", metavar="ADDRESS", help="print link and badge, and build nothing"
    )
    options = parser.parse_args()
    if options.link is not None:
        try:
            found = link(options.link or _git("remote", "get-url", "origin"))
        except ValueError as error:
            parser.error(str(error))
        print(f"{found}\n[![Binder](https://mybinder.org/badge_logo.svg)]({found})")
        return 0
    with tempfile.TemporaryDirectory(prefix="mce-binder-") as temporary:
        folder = Path(temporary, "repository")
        subprocess.run(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), folder], check=True)
        image(folder)
        variables = build(folder, Path(temporary, "environment"))
        peak = use(folder, variables, options.notebooks)
    print(f"memory    {peak / 1e9:.2f} GB at most, of {LIMIT / 1e9:.0f} GB")
    return int(peak > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
