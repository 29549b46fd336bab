"""Execute notebooks from first cell to last, each with a store of its own."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def execute(notebook: Path, folder: Path, *, reduced: bool, timeout: int = 900) -> Path:
    """Run a notebook for real and keep what it looked like.

    Parameters
    ----------
    notebook : Path
        The notebook; the file itself is not touched.
    folder : Path
        Receives the executed notebook and `experiments/`, the store.
    reduced : bool
        Whether the notebook is told, by MCE_DEMO=reduced, to use its small grid.
    timeout : int
        Seconds that one cell may take.

    Returns
    -------
    Path
        The executed notebook, written also when a cell failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / notebook.name
    book = nbformat.read(notebook, as_version=4)
    environment = {**os.environ, "MCE_STORE": str(folder / "experiments")}
    if reduced:
        environment["MCE_DEMO"] = "reduced"
    with tempfile.TemporaryDirectory(prefix="mce-") as sockets:
        client = NotebookClient(
            book,
            timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": str(notebook.parent)}},
            # Other users of this machine share its loopback; a Unix socket in a private folder is ours alone.
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
        )
        try:
            client.execute(env=environment)
        finally:
            nbformat.write(book, executed)
    return executed


def main() -> int:
    """Execute the notebooks named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--full", action="store_true", help="full size, as a reader would run them")
    options = parser.parse_args()
    notebooks = options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not notebooks:
        print("no notebook found in notebooks/", file=sys.stderr)
        return 1
    failed = 0
    for notebook in notebooks:
        began = time.monotonic()
        folder = NOTEBOOKS / "build" / notebook.stem
        # A fresh store each time: what is checked is the notebook, not what an earlier run left behind.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            executed = execute(notebook.resolve(), folder, reduced=not options.full)
        except CellExecutionError as error:
            failed += 1
            print(f"FAILED {notebook.name} after {time.monotonic() - began:.0f} s\n{error}", file=sys.stderr)
        else:
            print(f"ran {notebook.name} in {time.monotonic() - began:.0f} s -> {executed.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
