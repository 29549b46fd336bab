"""The stores this user has opened, for listings over all of them.

A file each, named by a digest of its path: any number of processes may remember at once, nothing is ever rewritten,
and a crash leaves either no file or an unfinished one that is passed over.
"""

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path

from mce_notebook.store.layout import roots_folder

# Entries of stores that are gone are looked for at every so many new ones.
SWEPT_EVERY = 16
_lock = threading.Lock()
_listed: tuple[object, list[Path]] = (None, [])


def remember_root(root: Path) -> None:
    """Remember a store; a configuration that cannot be written is no reason to fail."""
    folder = roots_folder()
    entry = folder / hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    with contextlib.suppress(OSError):
        if entry.exists():
            return
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = folder / f".{entry.name}.{os.getpid()}.{threading.get_ident()}"
        draft.write_text(json.dumps(str(root)), encoding="ascii")
        draft.replace(entry)
        if len(os.listdir(folder)) % SWEPT_EVERY == 0:
            _forget(folder)


def remembered_roots() -> list[Path]:
    """List the stores this user has opened that still exist, the first opened first; cheap to ask again."""
    global _listed
    folder = roots_folder()
    try:
        # The number too: two entries may come within one tick of the file system's clock.
        stamp = (folder, folder.stat().st_mtime_ns, len(os.listdir(folder)))
    except OSError:
        return []
    with _lock:
        if _listed[0] != stamp:
            _listed = (stamp, list(_entries(folder).values()))
        known = _listed[1]
    return [root for root in known if root.is_dir()]


def _entries(folder: Path) -> dict[Path, Path]:
    """Return the store of every entry that can be read, by the file of the entry."""
    found: list[tuple[int, Path, Path]] = []
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        with contextlib.suppress(OSError, ValueError):
            text = json.loads((folder / name).read_text(encoding="ascii"))
            if isinstance(text, str) and os.path.isabs(text) and "\0" not in text:
                found.append(((folder / name).stat().st_mtime_ns, folder / name, Path(text)))
    return {entry: root for _, entry, root in sorted(found)}


def _forget(folder: Path) -> None:
    for entry, root in _entries(folder).items():
        if not root.is_dir():
            entry.unlink(missing_ok=True)
