"""Code to workers that do not see the store: sent through Dask once per worker, kept beside its scratch files.

A worker first looks for the sweep where the host has it; a shared file system may need a moment to show it. What is
sent is what a slot reads and nothing else: the declarations, the code, its captured buffers. It comes over TLS from
the host, which checked its signature, so the worker signs it with the key it has there.
"""

import atexit
import dataclasses
import json
import shutil
import tempfile
import time
from pathlib import Path

from mce_notebook.declare import bundle, signing
from mce_notebook.errors import SweepError, UntrustedCode
from mce_notebook.plan import Block
from mce_notebook.run.protocol import BlockResult, Task
from mce_notebook.store.catalog import Store
from mce_notebook.store.folder import LocalFolder

# How long a shared file system may take to show what was just written to it (seconds).
VISIBLE_SECONDS = 3.0
# Begins the reason of a result that says so; the address of the worker follows.
UNSEEN = "the store is not to be seen at "

Key = tuple[str, str, str]
_mirrors: dict[Key, Path] = {}
_seen: set[tuple[Key, int]] = set()


def key(task: Task) -> Key:
    """Return what tells sweeps apart."""
    return task.store, task.name, task.sweep


# On a worker


def local(task: Task) -> Task | None:
    """Return the task as this worker's slots can compute it; None where the sweep has to be sent first."""
    mark = (key(task), task.declaration)
    if mark in _seen:
        return _task(task)
    mirror = _mirrors.get(key(task))
    end = time.monotonic() + (VISIBLE_SECONDS if mirror is None else 0.0)
    while not _visible(mirror or Path(task.store), task):
        if time.monotonic() > end:
            return None
        time.sleep(0.1)
    _seen.add(mark)
    return _task(task)


def unseen(block: Block, address: str) -> BlockResult:
    """Return the answer to a block whose sweep has to be sent first."""
    return BlockResult([], 0, (block,), reason=f"{UNSEEN}{address}")


def mirror_of(store: str, name: str) -> list[str]:
    """Return where a sweep of the host's store is kept here: its root, and those of copies."""
    return [store, *(str(path) for (root, sweep, _), path in _mirrors.items() if (root, sweep) == (store, name))]


def receive(task: Task, files: dict[str, bytes]) -> None:
    """Keep a sweep that was sent."""
    root = _mirrors.get(key(task))
    if root is None:
        root = Path(tempfile.mkdtemp(prefix="mce-store-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
    folder = root / task.name
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for manifest in folder.glob(f"code/**/{signing.MANIFEST}"):
        signing.trust(manifest.parent)
    _mirrors[key(task)] = root


def _task(task: Task) -> Task:
    mirror = _mirrors.get(key(task))
    # Without the store there is no folder for large payloads: they go back with the others.
    return task if mirror is None else dataclasses.replace(task, store=str(mirror), epoch=None)


def _visible(root: Path, task: Task) -> bool:
    try:
        sweep = Store(root, LocalFolder()).sweep(task.name)
        return sweep.id == task.sweep and bundle.trusted(sweep.code_folder(sweep.declaration(task.declaration).code))
    except (SweepError, OSError):
        return False


# On the host


def missing_at(result: BlockResult) -> str | None:
    """Return the address of the worker that has to be sent the sweep, if that is what a result says."""
    return result.reason.removeprefix(UNSEEN) if result.reason.startswith(UNSEEN) else None


def collect(task: Task) -> dict[str, bytes]:
    """Return the files a slot reads to compute a task, by path in the folder of the sweep.

    Raises
    ------
    UntrustedCode
        If the code is not signed by this user: it would be signed at the other end.
    """
    sweep = Store(Path(task.store), LocalFolder()).sweep(task.name)
    folder = sweep.paths.folder
    code = sweep.code_folder(sweep.declaration(task.declaration).code)
    if not bundle.trusted(code):
        raise UntrustedCode(f"The code in {code} was not signed by you, so it is not sent to workers.")
    buffers = json.loads((code / signing.MANIFEST).read_text(encoding="utf-8"))["buffers"]
    found = [sweep.paths.sweep_json, *code.rglob("*"), *sweep.paths.declarations.rglob("*")]
    found += [sweep.paths.object(entry["digest"]) for entry in buffers]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}
