"""Photograph the product in JupyterLab, in a headless Chromium, for the README and the docs."""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
from lab import Server, Window, chromium, jupyterlab, write_notebook
from playwright.sync_api import Browser
from run_notebooks import NOTEBOOKS, ROOT, private_runtime

NOTEBOOK = NOTEBOOKS / "01_phase_transition.ipynb"
IMAGES = ROOT / "docs" / "images"
LIMIT = 300_000

HEAD = """%load_ext mce_notebook
import numpy as np
from mce_notebook import replicates
from scipy.optimize import linprog


def basis_pursuit(A, x):
    found = linprog(np.ones(2 * A.shape[1]), A_eq=np.hstack([A, -A]), b_eq=A @ x)
    return abs(found.x[: A.shape[1]] - found.x[A.shape[1] :] - x).max()"""
SWEEP = """%%sweep recovery --on local --order coarse
results = []
for delta in np.linspace(0.1, 0.9, 17):
    for rho in np.linspace(0.05, 0.95, 19):
        for rng in replicates(6):
            A = rng.normal(size=(round(80 * delta), 80))
            x = np.zeros(80)
            x[: int(rho * delta * 80)] = rng.choice([-1, 1], int(rho * delta * 80))
            if not x.any():
                raise ValueError("nothing to recover")
            results.append((delta, rho, basis_pursuit(A, x) < 1e-6))"""
PLAIN = """errors = []
for n in [100, 200, 400]:
    for noise in np.logspace(-3, 0, 13):
        for repetition in range(50):
            sample = np.random.normal(size=n) * noise
            errors.append((n, noise, abs(sample.mean())))
print(len(errors))"""
KNOWN = """share => {
  const bar = document.querySelector('article.mce-view [role="progressbar"]');
  return Number(bar?.getAttribute('aria-valuenow')) >= share * Number(bar?.getAttribute('aria-valuemax'));
}"""


def photograph(window: Window, path: Path) -> None:
    """Save the window as a PNG small enough for a README.

    Raises
    ------
    RuntimeError
        If it is not, or if the page had a problem.
    """
    window.page.mouse.move(0, 0)
    window.page.wait_for_timeout(1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    window.page.screenshot(path=str(path))
    if window.problems:
        raise RuntimeError("\n".join(window.problems))
    if path.stat().st_size > LIMIT:
        raise RuntimeError(f"{path} has {path.stat().st_size:,} bytes, more than {LIMIT:,}")
    print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}  {path.stat().st_size:,} bytes", flush=True)


def live(window: Window, images: Path) -> None:
    """Show a sweep that runs: in its cell and the panel, in both themes; its plot; a tab of its own."""
    write_notebook(window.server.folder / "recovery.ipynb", [HEAD, SWEEP, "recovery.plot()"])
    window.go("recovery.ipynb")
    window.execute("mce:show-panel")
    window.run_cell(0)
    window.run_cell(1)
    window.wait(KNOWN, 300, 0.3)
    window.scroll_to("%%sweep")
    photograph(window, images / "live_view.png")
    window.dark()
    photograph(window, images / "live_view_dark.png")
    window.dark(False)
    window.wait(KNOWN, 600, 1)
    window.page.locator(".mce-item-open").first.click()
    window.page.wait_for_selector(".mce-fill canvas")
    window.page.locator(".mce-fill .mce-cause-button").first.click()
    window.page.wait_for_selector(".mce-fill .mce-row")
    photograph(window, images / "tab.png")
    window.execute("application:close")
    window.run_cell(2, 60)
    window.page.locator(".bk-Figure canvas").first.wait_for(timeout=60_000)
    window.scroll_to("recovery.plot")
    photograph(window, images / "plot.png")


def dialog(window: Window, images: Path) -> None:
    """Show a plain cell that is about to become a sweep."""
    write_notebook(window.server.folder / "plain.ipynb", ["%load_ext mce_notebook\nimport numpy as np", PLAIN])
    window.go("plain.ipynb")
    window.select(1)
    window.start("mce:sweep-cell")
    window.page.wait_for_selector(".mce-diff")
    photograph(window, images / "sweep_this_cell.png")


def phase_transition(window: Window, images: Path) -> None:
    """Show the first notebook where it holds the larger matrices against theory."""
    book = nbformat.read(NOTEBOOK, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(book, window.server.folder / NOTEBOOK.name)
    window.go(NOTEBOOK.name)
    window.start("application:toggle-left-area")
    window.run_all(900)
    window.scroll_to("recovery.extend(")
    photograph(window, images / "phase_transition.png")


PICTURES: dict[str, Callable[[Window, Path], None]] = {
    "live": live,
    "dialog": dialog,
    "phase_transition": phase_transition,
}


def take(names: list[str], browser: Browser, server: Server, images: Path, height: int) -> None:
    """Take the pictures of these names, each in a window of its own."""
    for name in names:
        context = browser.new_context(viewport={"width": 1200, "height": height})
        window = Window.open(context, server)
        PICTURES[name](window, images)
        context.close()


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PICTURE", help=f"which: {', '.join(PICTURES)}; all by default")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where they go")
    parser.add_argument("--reduced", action="store_true", help="the small grid of `make demo` in the first notebook")
    parser.add_argument("--height", type=int, default=900)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in PICTURES]
    if unknown:
        parser.error(f"there is no picture {unknown[0]!r}; there are {', '.join(PICTURES)}")
    with tempfile.TemporaryDirectory(prefix="mce-") as scratch:
        folder = Path(scratch, "notebooks")
        folder.mkdir()
        environment = {"MCE_STORE": f"{scratch}/experiments", "MCE_CONFIG_DIR": f"{scratch}/config"}
        environment["MCE_DEMO"] = "reduced" if options.reduced else ""
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        with (
            private_runtime() as runtime,
            jupyterlab(folder, {**environment, **runtime}) as server,
            chromium() as browser,
        ):
            take(options.names or list(PICTURES), browser, server, options.images, options.height)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
