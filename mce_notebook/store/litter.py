"""What writers that were killed leave behind, removed: half-made files, reserves, payloads no record refers to.

None of it harms a reader, so it is looked for when the next writer begins, and nothing is touched that might belong to
somebody alive: an epoch counts only once its writer is known to be gone, other files only once they are old.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.layout import Layout
from mce_notebook.store.reader import SegmentReader

# Half-made files live for as long as one write takes, that of a large captured array at most minutes (seconds).
OLD = 3600.0
_HALF_MADE = re.compile(r"\..*\.[0-9a-f]{16}|\.[0-9a-f]{16}\.tmp")
# In the folder of an epoch's payloads, once all that nobody refers to is gone.
_TIDY = ".tidy"


def tidy(sweep: SweepStore, mine: int, gone: Callable[[Mapping[str, Any]], bool]) -> int:
    """Remove what earlier writers of a sweep left half made; return how many files and folders that were.

    Parameters
    ----------
    sweep : SweepStore
    mine : int
        Epoch of the writer that asks; later ones are left alone too.
    gone : callable
        Tells from what a writer left in its claim whether its process has ended; False where that cannot be known.
    """
    count = sum(_remove(path) for path in _half_made(sweep, _now(sweep, mine) - OLD))
    for epoch in sweep.epochs():
        if epoch.number < mine and (sweep.paths.epoch_closed(epoch.number).exists() or gone(epoch.host)):
            count += _tidy_epoch(sweep, epoch.number)
    return count


def _tidy_epoch(sweep: SweepStore, epoch: int) -> int:
    count = _remove(sweep.paths.reserve(epoch)) if sweep.paths.reserve(epoch).exists() else 0
    folder = sweep.paths.big_epoch(epoch)
    payloads = [folder / name for name in sweep.folder.names(folder)]
    if not payloads or (folder / _TIDY).exists() or _shared(sweep, epoch):
        return count
    referred = _referred(sweep, epoch)
    if referred is None:
        return count
    count += sum(_remove(path) for path in payloads if f"{folder.name}/{path.name}" not in referred)
    with contextlib.suppress(OSError):
        (folder / _TIDY).touch()
    return count


def _shared(sweep: SweepStore, epoch: int) -> bool:
    """Whether another epoch has payloads in that folder: the copy of a log elsewhere refers to them by its number."""
    mirrored = (one.host.get("mirrors") for one in sweep.epochs())
    return any(isinstance(one, dict) and one.get("epoch") == epoch for one in mirrored)


def _referred(sweep: SweepStore, epoch: int) -> set[str] | None:
    """Return the payloads that the log of an epoch refers to; None where not all of it can be read."""
    found: set[str] = set()
    for name in sweep.folder.names(sweep.paths.log_epoch(epoch)):
        stem, _, ending = name.partition(".")
        if ending == "arrows" and stem.isdigit():
            segment = SegmentReader(sweep.paths.segment(epoch, int(stem)))
            found |= {str(record["big"][0]) for _, _, record in segment.read() if "big" in record}
            if segment.told() or segment.offset < segment.path.stat().st_size:
                # A torn tail refers to nothing that was acknowledged, but a damaged one looks the same.
                return None
    return found


def _now(sweep: SweepStore, epoch: int) -> float:
    """Return the time by the clock of the file system, which dates the files, or by ours if that is behind."""
    try:
        # The claim of the writer that asks is a moment old.
        return min(time.time(), sweep.paths.epoch(epoch).stat().st_mtime)
    except OSError:
        return time.time()


def _half_made(sweep: SweepStore, limit: float) -> Iterator[Path]:
    """Yield files and folders that a write never finished, and in which nothing was changed since `limit`."""
    paths = sweep.paths
    layout = Layout(paths.folder.parent)
    folders = [paths.folder, *paths.folders(), layout.root]
    for parent in (paths.log, paths.folder / "code"):
        folders += [parent / name for name in sweep.folder.names(parent)]
    for folder in folders:
        yield from (path for path in _entries(folder) if _HALF_MADE.fullmatch(path.name) and _old(path, limit))
    # What was being deleted has a random name there, and nobody looks for it any more.
    yield from (path for path in _entries(layout.temporary) if _old(path, limit))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _old(path: Path, limit: float) -> bool:
    """Whether nothing in it was changed since `limit`."""
    try:
        inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
        return all(one.lstat().st_mtime < limit for one in (path, *inner))
    except OSError:
        return False


def _remove(path: Path) -> int:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        # Somebody else tidies up too, or may not: it stays for another time.
        return 0
    return 1
