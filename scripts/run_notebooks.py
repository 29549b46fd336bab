"""Execute notebooks from first cell to last, each with a store of its own."""

import argparse
import base64
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

from mce_notebook.run.client import HostHandle, stop_host
from mce_notebook.run.registry import folders

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
# What a notebook in the repository may weigh, pictures included (bytes).
LIMIT = 200_000


@contextlib.contextmanager
def private_runtime() -> Iterator[dict[str, str]]:
    """Environment variables under which hosts are our own; they end with the block.

    A host of the user's, kept warm by other notebooks, would be neither used nor stopped.
    """
    with tempfile.TemporaryDirectory(prefix="mce-") as folder:
        runtime = Path(folder, "run")
        try:
            yield {"MCE_RUNTIME_DIR": str(runtime)}
        finally:
            for host in folders(runtime) if runtime.is_dir() else ():
                owner = host.owner()
                if owner is not None:
                    stop_host(HostHandle(host, owner), timeout=10)


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
    # A plotting backend chosen for tests would leave the notebook without pictures.
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    environment |= {"MCE_STORE": str(folder / "experiments"), "MCE_DEMO": "reduced" if reduced else ""}
    with tempfile.TemporaryDirectory(prefix="mce-") as sockets, private_runtime() as runtime:
        client = NotebookClient(
            book,
            timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": str(notebook.parent)}},
            # Other users of this machine share its loopback; a Unix socket in a private folder is ours alone.
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
        )
        try:
            client.execute(env={**environment, **runtime})
        finally:
            nbformat.write(book, executed)
    return executed


def without_noise(book: NotebookNode) -> NotebookNode:
    """Take out of an executed notebook what is no result: times, warnings, paths, views of a store nobody has."""
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                # Where this clone happens to be.
                output["text"] = output["text"].replace(f"{ROOT}/", "")
            data = output.get("data", {})
            if data.pop("application/vnd.mce.sweep+json", None) and "image/png" in data:
                # The HTML holds the same picture once more, and not every reader of notebooks shows it.
                data.pop("text/html", None)
            if "image/png" in data:
                data["image/png"] = with_fewer_colours(data["image/png"])
    book.metadata.pop("widgets", None)
    book.metadata["language_info"] = {"name": "python"}
    return book


def with_fewer_colours(png: str) -> str:
    """Return a picture (base64) with 96 colours, which is a third of its size and looks the same."""
    packed = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def save(executed: Path, notebook: Path) -> None:
    """Put the outputs of a run into the notebook that the repository holds."""
    text = nbformat.writes(without_noise(nbformat.read(executed, as_version=4)))
    if len(text) > LIMIT:
        raise RuntimeError(f"{executed} has {len(text):,} bytes, more than {LIMIT:,}: too much for the repository")
    notebook.write_text(text + "\n")


def main() -> int:
    """Execute the notebooks named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--full", action="store_true", help="full size, as a reader would run them")
    parser.add_argument("--save", action="store_true", help="full size, then keep the outputs in notebooks/")
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
            executed = execute(notebook.resolve(), folder, reduced=not (options.full or options.save))
        except CellExecutionError as error:
            failed += 1
            print(f"FAILED {notebook.name} after {time.monotonic() - began:.0f} s\n{error}", file=sys.stderr)
        else:
            if options.save:
                save(executed, notebook)
            print(f"ran {notebook.name} in {time.monotonic() - began:.0f} s -> {executed.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
