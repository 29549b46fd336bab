"""`make demo`: a reduced phase transition, computed for real; says where its dataset and its picture are."""

import base64
import shutil
import sys
import time
from pathlib import Path

import nbformat
from run_notebooks import NOTEBOOKS, execute

import mce_notebook as mce

NOTEBOOK = NOTEBOOKS / "01_phase_transition.ipynb"
FOLDER = NOTEBOOKS / "build" / "demo"


def pictures(executed: Path) -> list[bytes]:
    """Return the PNG images among the outputs of an executed notebook, in order."""
    book = nbformat.read(executed, as_version=4)
    bundles = [output.get("data", {}) for cell in book.cells for output in cell.get("outputs", [])]
    return [base64.b64decode(data["image/png"]) for data in bundles if "image/png" in data]


def datasets(store: Path) -> list[Path]:
    """Return the sealed cubes of a store, or, where nothing was sealed, the folders of its sweeps."""
    sealed = sorted(store.glob("*/sealed/*/data.zarr"), key=lambda path: path.stat().st_mtime)
    return sealed or sorted(path.parent for path in store.glob("*/sweep.json"))


def describe(path: Path) -> str:
    """Return the dimensions of a dataset and how many of its points are done."""
    import xarray as xr

    dataset = xr.open_zarr(path) if path.suffix == ".zarr" else mce.open(path.name, store=path.parent).dataset
    status = dataset["status"]
    done = int((status == status.attrs["flag_meanings"].split().index("done")).sum())
    return f"{dict(dataset.sizes)}, {done} points done"


def main() -> int:
    """Run the demo and print where its results are."""
    began = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"Running {NOTEBOOK.name}, reduced ...", flush=True)
    executed = execute(NOTEBOOK, FOLDER, reduced=True)
    found, images = datasets(FOLDER / "experiments"), pictures(executed)
    if not found or not images:
        missing = "no dataset" if not found else "no picture"
        print(f"{executed} ran to its end but left {missing}", file=sys.stderr)
        return 1
    picture = FOLDER / "phase_transition.png"
    picture.write_bytes(images[-1])
    print(f"Done in {time.monotonic() - began:.0f} s.")
    for path in found:
        print(f"dataset   {path}  {describe(path)}")
    print(f"picture   {picture}")
    print(f"notebook  {executed}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
