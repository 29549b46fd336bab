"""Files that points leave, brought into a bucket by the writer of their outcomes."""

import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mce_notebook.errors import StoreError
from mce_notebook.store.layout import SweepLayout

if TYPE_CHECKING:
    from mce_notebook.store.bucket_folder import BucketFolder

log = logging.getLogger(__name__)

# They follow the outcomes after this time (seconds).
FILES_SECONDS = 30.0


class Artifacts:
    """What points leave in `scratch()`, which slots keep in the mirror: put into the bucket now and then.

    Parameters
    ----------
    folder : BucketFolder
    paths : SweepLayout
    """

    def __init__(self, folder: "BucketFolder", paths: SweepLayout):
        self._folder = folder
        self._paths = paths
        self._due = time.monotonic() + FILES_SECONDS
        # Older ones came from the bucket; the clock of a file system may be coarse.
        self._since = time.time() - 2.0
        self._sent: dict[Path, tuple[int, int]] = {}

    def send(self, *, last: bool = False) -> None:
        """Put the files that are new, if it is time for that; one that cannot be put is tried again."""
        if not last and time.monotonic() < self._due:
            return
        new = {path: mark for path, mark in self._made() if self._sent.get(path) != mark}
        try:
            for path, mark in new.items():
                self._folder.bucket.put(self._key(path), path.read_bytes())
                self._sent[path] = mark
        except (StoreError, OSError) as error:
            log.warning("Files of points are not in the bucket yet: %s", error)
        self._due = time.monotonic() + FILES_SECONDS

    def _made(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for base, folders, names in os.walk(self._paths.artifacts):
            # A folder that a point still writes to is hidden.
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(base, name) for name in names):
                with contextlib.suppress(OSError):
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode) and found.st_ctime >= self._since:
                        yield path, (found.st_size, found.st_mtime_ns)

    def _key(self, path: Path) -> str:
        return path.relative_to(self._paths.folder.parent).as_posix()
