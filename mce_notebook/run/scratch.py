"""`scratch()`: a folder for the files a point makes, kept as its artifact."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class OneByOne(BaseException):
    """Raised out of a point that runs in bulk and asks for its folder: it has to be run again by itself."""


class Files:
    """The files of the point that runs now.

    Parameters
    ----------
    home : callable or None
        Returns the folder that keeps the point's files; None where points are not told apart.
    """

    def __init__(self, home: Callable[[], Path] | None):
        self.error: OSError | None = None
        self._home = home
        self._folder: Path | None = None

    def folder(self) -> Path:
        """Return the folder, made when first asked for.

        It is beside the place where it will be kept, so that keeping it is one rename: a folder there is complete.
        """
        if self._home is None:
            raise OneByOne
        if self._folder is None:
            home = self._home()
            folder = home.with_name(f".{home.name}.{os.getpid()}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._folder = folder
        return self._folder

    def keep(self) -> None:
        """Move the folder to its place, in exchange for that of an earlier attempt."""
        if self._folder is None or self._home is None:
            return
        home = self._home()
        old = home.with_name(f".{home.name}.{os.getpid()}.old")
        try:
            with contextlib.suppress(FileNotFoundError):
                home.rename(old)
            self._folder.rename(home)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            self.error = error


_current: Files | None = None


def scratch() -> Path:
    """Return a folder of the current point, for files it writes.

    The folder is empty when the point begins and is kept with the sweep, as `artifacts/<point>/` in its store.
    Outside a sweep, where there is no point, it is the folder `scratch` of the working directory.

    Returns
    -------
    Path

    Examples
    --------
    >>> (scratch() / "trace.csv").write_text("0,1")  # doctest: +SKIP
    """
    if _current is not None:
        return _current.folder()
    folder = Path.cwd() / "scratch"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def point(home: Callable[[], Path] | None) -> Iterator[Files]:
    """Give a point its folder for the time of a `with` block, and keep what it put there."""
    global _current
    files = Files(home)
    before, _current = _current, files
    try:
        yield files
    finally:
        _current = before
        files.keep()
