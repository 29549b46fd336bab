"""An experiment as files: its pickle, the sources of its local modules, and a signed manifest of both.

The folder of a bundle holds::

    manifest.json        format, key, Python, SHA-256 of every file below, digests of the buffers
    manifest.hmac        the signature of manifest.json (see `signing`)
    experiment.pickle    cloudpickle, protocol 5; buffers of 1 MiB and more are objects of the store
    closure.json         the version, for people and for `explain`
    modules/...          sources of local modules
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import mmap
import os
import pickle
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from mce_notebook.declare import contents, pickles, signing
from mce_notebook.declare.closure import Walk
from mce_notebook.declare.experiment import Experiment
from mce_notebook.declare.guards import Guard
from mce_notebook.declare.importing import SnapshotFinder, Sources
from mce_notebook.declare.modules import overlay, snapshot
from mce_notebook.declare.signing import sign, trust
from mce_notebook.errors import DeclarationError, UntrustedCode

__all__ = ["Bundle", "active", "load", "pack", "sign", "trust"]

FORMAT = 1
PICKLE = "experiment.pickle"
CLOSURE = "closure.json"
MODULES = "modules"
# Below this, a file of its own costs more than the bytes in the pickle.
OUT_OF_BAND = 1 << 20


class HoldsObjects(Protocol):
    """The part of a grid that has to be pickled: values of axes that are objects."""

    def object_values(self) -> dict[Any, Any]:
        """Values the listed labels stand for, where the labels alone do not give them."""
        ...


@dataclass(frozen=True)
class Bundle:
    """Files that let another process run an experiment.

    Parameters
    ----------
    key : str
        Name for the folder of these files: the version and a digest of what else is pickled. The same declaration
        made again has the same key.
    files : mapping of str to bytes
        Contents by path relative to that folder.
    """

    key: str
    files: Mapping[str, bytes]


def pack(experiment: Experiment, grid: HoldsObjects | None, write_object: Callable[[Any], str]) -> Bundle:
    """Pickle an experiment and take a snapshot of the local modules it needs.

    Parameters
    ----------
    experiment : Experiment
    grid : Grid or None
        Its object values travel with the code.
    write_object : callable
        Stores a buffer and returns the digest it can be found by.

    Raises
    ------
    DeclarationError
        When a local module was edited and not reloaded, or something cannot be pickled.
    """
    values = grid.object_values() if grid is not None else {}
    experiment = _with_guards(experiment, values)
    # What was loaded from a bundle is packed from its own sources: the files on disk may be newer.
    kept = experiment.sources
    patches = overlay(experiment.module_values) if kept is None else kept.patches
    digests: list[str] = []
    sizes: list[int] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True
        digests.append(write_object(raw))
        sizes.append(raw.nbytes)
        return False

    try:
        with active(experiment):
            content, referenced = pickles.dumps((experiment, values, patches), keep_in_band)
    except Exception as error:  # whatever the user's own reducers raise
        raise DeclarationError(_unpicklable(experiment, error)) from error
    sources = _sources(experiment, referenced)
    files = {
        PICKLE: content,
        CLOSURE: json.dumps(experiment.version.to_json(), indent=1, ensure_ascii=False).encode(),
        **{f"{MODULES}/{path}": text for path, text in sources.items()},
    }
    key = _key(experiment, values, sources)
    manifest = {
        "format": FORMAT,
        "key": key,
        "python": platform.python_version(),
        "files": {name: signing.file_digest(files[name]) for name in sorted(files)},
        "buffers": [{"digest": digest, "size": size} for digest, size in zip(digests, sizes, strict=True)],
        "imported": _imported(experiment) if patches else [],
    }
    files[signing.MANIFEST] = json.dumps(manifest, indent=1, sort_keys=True).encode()
    files[signing.SIGNATURE] = sign(files)
    return Bundle(key, files)


def load(folder: Path, objects: Path, *, stay: bool = True) -> tuple[Experiment, dict[Any, Any]]:
    """Load a bundle.

    Parameters
    ----------
    folder : Path
        Folder of the bundle.
    objects : Path
        Folder of the captured buffers. They are mapped copy-on-write: many slots share their pages, and what user
        code writes into an array is its own.
    stay : bool
        True for a process that runs nothing else and has not imported the user's modules: its imports find the
        snapshot from now on. False for a notebook: its own modules are not touched, and code of the experiment runs
        inside ``with active(experiment):``.

    Returns
    -------
    Experiment, dict
        The experiment, and the object values of the axes.

    Raises
    ------
    UntrustedCode
        Before anything is unpickled or imported, when the bundle is not signed by this user or was changed since.
    """
    manifest = signing.verified_manifest(folder)
    _check_python(folder, manifest)
    files = {name: signing.verified_file(folder, name, manifest) for name in manifest["files"]}
    prefix = f"{MODULES}/"
    texts = {name.removeprefix(prefix): content for name, content in files.items() if name.startswith(prefix)}
    sources = Sources(SnapshotFinder(folder / MODULES, texts), texts)
    buffers = [_map(objects, entry["digest"], entry["size"]) for entry in manifest["buffers"]]
    if stay:
        sources.finder.install()
    with contextlib.nullcontext() if stay else sources.active():
        for name in manifest["imported"]:
            importlib.import_module(name)
        experiment, values, sources.patches = pickle.loads(files[PICKLE], buffers=buffers)
        for (module, name), value in sources.patches.items():
            setattr(importlib.import_module(module), name, value)
    if not stay:
        experiment = dataclasses.replace(experiment, sources=sources)
    return experiment, values


def trusted(folder: Path, objects: Path | None = None) -> bool:
    """Whether the bundle is there, signed by this user, and its files are those that were signed.

    With `objects`, the folder of the captured buffers, also whether these are there; what they hold is for `load`.
    """
    try:
        manifest = signing.verified_manifest(folder)
        for name in manifest["files"]:
            signing.verified_file(folder, name, manifest)
    except UntrustedCode:
        return False
    return objects is None or all((objects / entry["digest"]).is_file() for entry in manifest["buffers"])


def active(experiment: Experiment) -> contextlib.AbstractContextManager[None]:
    """Let the code of an experiment import its own modules, for the time of a `with` block.

    It does nothing for an experiment that was declared in this process, whose modules are those loaded.
    """
    return contextlib.nullcontext() if experiment.sources is None else experiment.sources.active()


def _sources(experiment: Experiment, referenced: set[str]) -> dict[str, bytes]:
    """Collect sources of local modules, by path."""
    kept = experiment.sources
    if kept is None:
        return snapshot({*experiment.module_values, *referenced}).files
    fresh = {name for name in referenced if not kept.finder.owns(name)}
    return {**snapshot(fresh).files, **kept.files}


def _imported(experiment: Experiment) -> list[str]:
    with active(experiment):
        return sorted(name for name in experiment.module_values if name in sys.modules)


# Buffers that this process has verified: path, inode, time of the last change, size.
_verified: set[tuple[str, int, int, int]] = set()


def _map(objects: Path, digest: str, size: int) -> mmap.mmap:
    path = objects / digest
    try:
        file = open(path, "rb")  # noqa: SIM115  closed below
    except OSError as error:
        raise UntrustedCode(
            f"A captured buffer, {path}, cannot be read ({error.strerror}); run the cell again, which writes it anew."
        ) from error
    with file:
        _verify(file, path, digest, size)
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)


def _verify(file: BinaryIO, path: Path, digest: str, size: int) -> None:
    """Refuse a buffer that is not what the signed manifest says; a wrong value would go unnoticed into every outcome.

    Read, not mapped, so that its pages do not count as memory of this process.
    """
    found = os.fstat(file.fileno())
    seen = (str(path), found.st_ino, found.st_mtime_ns, found.st_size)
    if seen in _verified:
        return
    if found.st_size != size:
        raise UntrustedCode(f"{path} is not the buffer that was captured: it should have {size} bytes.")
    told = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=len(digest) // 2)).hexdigest()  # type: ignore[arg-type]
    if told != digest:
        raise UntrustedCode(
            f"{path} is damaged: what it holds is not what was captured, so nothing was computed with it. Delete the "
            "file and run the cell again, which writes it anew."
        )
    _verified.add(seen)


def _check_python(folder: Path, manifest: Mapping[str, Any]) -> None:
    wrote, here = manifest["python"], platform.python_version()
    if wrote.split(".")[:2] != here.split(".")[:2]:
        raise UntrustedCode(
            f"The code in {folder} was pickled by Python {wrote} and this is Python {here}: functions do not "
            "carry over. Run the cell again from this Python."
        )


def _key(experiment: Experiment, values: Mapping[Any, Any], sources: Mapping[str, bytes]) -> str:
    """Digest of what is pickled besides the version, from contents and not from pickle bytes."""
    identity = [
        experiment.name,
        list(experiment.parameters),
        list(experiment.outputs or ()),
        [
            [setup.depth, *setup.enclosing, list(setup.provides), list(setup.routine.parameters)]
            for setup in experiment.setups
        ],
        sorted((name, type(value).__name__, repr(value)) for name, value in experiment.constants.items()),
        list(experiment.mirrored),
        [
            experiment.streams,
            list(experiment.generator_names),
            experiment.fresh_generators,
            experiment.global_rng,
        ],
        list(experiment.shared),
        experiment.root,
        sorted((str(name), list(dims)) for name, dims in experiment.dims.items()),
        sorted((name, signing.file_digest(content)) for name, content in sources.items()),
        _source(experiment),
        experiment.token({name: [_content(value) for value in column] for name, column in values.items()}),
    ]
    return f"{experiment.version.hash}-{contents.digest(repr(identity))[:16]}"


def _with_guards(experiment: Experiment, values: Mapping[str, Sequence[Any]]) -> Experiment:
    """Return the experiment with the local modules that guards reach, and what was read from them."""
    guards = [value.content for column in values.values() for value in column if isinstance(value, Guard)]
    if not guards:
        return experiment
    walk = Walk(experiment.home)
    walk.add(guards, "the guards")
    reached = dict(experiment.module_values)
    for module, names in walk.finish().module_values.items():
        reached[module] = tuple(dict.fromkeys((*reached.get(module, ()), *names)))
    return dataclasses.replace(experiment, module_values=reached)


def _content(value: Any) -> Any:
    return value.content if isinstance(value, Guard) else value


def _source(experiment: Experiment) -> list[str]:
    """Cells of the routines: their lines are what tracebacks show."""
    routines = [setup.routine for setup in experiment.setups]
    point: Sequence[Any] = [experiment.point] if hasattr(experiment.point, "cell") else []
    return [contents.digest(f"{routine.filename}\n{routine.cell}") for routine in (*point, *routines)]


def _unpicklable(experiment: Experiment, error: Exception) -> str:
    guilty = [f"`{name}`" for name, value in experiment.namespace.items() if not _pickles(value)]
    what = ", ".join(guilty) if guilty else "something the point reaches"
    return (
        f"{what} cannot be sent to a worker ({type(error).__name__}: {error}). "
        "Open or make it inside the loop, where each worker gets its own."
    )


def _pickles(value: Any) -> bool:
    try:
        pickles.dumps(value, lambda buffer: False)
    except Exception:  # the question is whether it raises
        return False
    return True
