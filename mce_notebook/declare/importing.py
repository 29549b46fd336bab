"""Imports from a snapshot of sources: the modules an experiment was declared with, whatever the disk says by now."""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)


class SnapshotLoader(importlib.machinery.SourceFileLoader):
    """Loads one module from bytes in memory.

    No compiled file is read or written: those are matched by time stamp and size, so that an edit of the same length
    within a second would load old code.
    """

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    def get_data(self, path: str) -> bytes:
        """Give the verified source for the module itself; other files, such as package data, from the folder."""
        return self._content if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> types.CodeType:
        """Compile the verified source."""
        return compile(self._content, self.path, "exec", dont_inherit=True)


class SnapshotFinder(importlib.abc.MetaPathFinder):
    """Finds modules of a snapshot before anything on `sys.path`, and nothing else below their roots.

    Parameters
    ----------
    folder : Path
        Where the files lie; only named in tracebacks, and used for extension modules and package data.
    files : mapping of str to bytes
        Verified contents by path relative to `folder`.
    """

    def __init__(self, folder: Path, files: Mapping[str, bytes]) -> None:
        self._folder = folder
        self._files = files
        self._folders = {"/".join(parts[:n]) for parts in map(_parts, files) for n in range(1, len(parts))}
        self.roots = frozenset(parts[0].partition(".")[0] for parts in map(_parts, files))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        if not self.owns(fullname):
            return None
        base = fullname.replace(".", "/")
        for relative, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if relative in self._files:
                return self._source_spec(fullname, relative, is_package)
        for suffix in _EXTENSIONS:
            if base + suffix in self._files:
                place = str(self._folder / (base + suffix))
                loader = importlib.machinery.ExtensionFileLoader(fullname, place)
                return importlib.machinery.ModuleSpec(fullname, loader, origin=place)
        if base in self._folders:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(self._folder / base)]
            return spec
        # Another finder would look into the folder itself, where a file may have been added since it was signed.
        raise ModuleNotFoundError(f"No module named {fullname!r} in the code of this sweep", name=fullname)

    def _source_spec(self, fullname: str, relative: str, is_package: bool) -> importlib.machinery.ModuleSpec:
        place = str(self._folder / relative)
        loader = SnapshotLoader(fullname, place, self._files[relative])
        spec = importlib.machinery.ModuleSpec(fullname, loader, origin=place, is_package=is_package)
        spec.has_location = True
        spec.cached = None
        if is_package:
            spec.submodule_search_locations = [str(Path(place).parent)]
        return spec

    def install(self) -> None:
        """Put this finder first; modules of the same roots that are loaded already stay."""
        sys.meta_path.insert(0, self)

    def owns(self, module: str) -> bool:
        """Whether a module, by its full name, is to come from here."""
        return module.partition(".")[0] in self.roots


class Sources:
    """Modules of a loaded experiment, kept apart from modules of the same names that this process uses itself.

    Parameters
    ----------
    finder : SnapshotFinder
    files : mapping of str to bytes
        What the finder serves.
    """

    def __init__(self, finder: SnapshotFinder, files: Mapping[str, bytes]) -> None:
        self.finder = finder
        self.files = files
        # Values set in memory when the experiment was declared; see `modules.overlay`.
        self.patches: dict[tuple[str, str], Any] = {}
        self._modules: dict[str, types.ModuleType] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let imports find these modules for the time of a `with` block, and nobody see them afterwards.

        Not for several threads at once: the table of loaded modules belongs to the process.
        """
        aside = self._take()
        sys.modules.update(self._modules)
        self.finder.install()
        try:
            yield
        finally:
            sys.meta_path.remove(self.finder)
            self._modules = self._take()
            sys.modules.update(aside)

    def _take(self) -> dict[str, types.ModuleType]:
        """Remove the modules of these names from the table, and return them."""
        return {name: sys.modules.pop(name) for name in list(sys.modules) if self.finder.owns(name)}


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))
