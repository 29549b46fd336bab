"""Sealing: the finished cube as Zarr v3, checked, listed with checksums, and never touched again.

`sealed/<id>/data.zarr` needs nothing of ours to be read. `id` is the SHA-256 of `manifest-sha256.txt`, hence of every
byte; `sha256sum -c manifest-sha256.txt` checks it. The logical id is over names and values only, so that two runs that
found the same numbers compare equal whatever their chunks, compression, seconds or hosts.
"""

import hashlib
import json
import os
import secrets
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mce_notebook.errors import AlreadyExists, CorruptStore, StoreError
from mce_notebook.store.catalog import SweepStore, now
from mce_notebook.store.folder import sync_data, sync_folder, told, write_new

if TYPE_CHECKING:
    import xarray as xr

MANIFEST = "manifest-sha256.txt"
RECORD = "seal.json"
# Small enough to read a slice of the cube, large enough that a million points are a few dozen files.
CHUNK = 100_000
# What is not a value the experiment found.
_PROVENANCE = frozenset({"status"})


@dataclass(frozen=True)
class Seal:
    """What is known of a sealed cube: ids, the sweep it came from, when."""

    id: str
    logical_id: str
    sweep: str
    sweep_id: str
    created: str
    bytes: int
    files: int


def seal(sweep: SweepStore, dataset: "xr.Dataset") -> str:
    """Write a dataset as a sealed cube and return its id.

    Parameters
    ----------
    sweep : SweepStore
    dataset : xarray.Dataset
        Complete, in memory, with native dtypes.

    Raises
    ------
    CorruptStore
        What was read back is not what was given.
    StoreFull, StoreError
        The disk refused, or an output has no form in Zarr; nothing is left behind.
    """
    plain = portable(dataset)
    temporary = sweep.paths.sealed / f".{secrets.token_hex(8)}.tmp"
    with told("sealing"):
        temporary.mkdir(parents=True)
        try:
            _write(plain, temporary / "data.zarr")
            _verify(plain, temporary / "data.zarr")
            sums = checksums(temporary / "data.zarr", "data.zarr", sync=True)
            manifest = "".join(f"{digest}  {name}\n" for name, (digest, _) in sorted(sums.items())).encode()
            identity = hashlib.sha256(manifest).hexdigest()
            sizes = sum(size for _, size in sums.values())
            record = Seal(identity, logical_id(plain), sweep.name, sweep.id, now(), sizes, len(sums))
            write_new(temporary / MANIFEST, manifest)
            write_new(temporary / RECORD, json.dumps(asdict(record), indent=1).encode())
            sync_folder(temporary)
            try:
                sweep.folder.move(temporary, sweep.paths.sealed / identity)
            except AlreadyExists:
                # The same bytes were sealed before; that cube stays.
                return identity
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return identity


def seals(sweep: SweepStore) -> list[Seal]:
    """List the sealed cubes of a sweep, oldest first."""
    found = []
    for name in sweep.folder.names(sweep.paths.sealed):
        try:
            found.append(Seal(**json.loads(sweep.folder.read(sweep.paths.sealed / name / RECORD))))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            # Not made by `seal`; whether it is what it claims to be is for `check` to say.
            continue
    return sorted(found, key=lambda one: one.created)


def check(sweep: SweepStore, identity: str) -> list[str]:
    """Compare a sealed cube with its manifest, and that with its id; returns what differs, one sentence each."""
    folder = sweep.paths.sealed / identity
    try:
        manifest = sweep.folder.read(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return [f"There is no sealed cube {identity[:12]} in {sweep.paths.sealed}."]
    problems = []
    if hashlib.sha256(manifest).hexdigest() != identity:
        problems.append(f"{folder / MANIFEST} is not the manifest of this id.")
    lines = manifest.decode("utf-8", "replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {name: digest for name, (digest, _) in checksums(folder / "data.zarr", "data.zarr").items()}
    problems += [f"{folder / name} is missing." for name in sorted(listed.keys() - found.keys())]
    problems += [f"{folder / name} was added." for name in sorted(found.keys() - listed.keys())]
    changed = sorted(name for name in listed.keys() & found.keys() if listed[name] != found[name])
    return problems + [f"{folder / name} was changed." for name in changed]


def logical_id(dataset: "xr.Dataset") -> str:
    """Hash names, dimensions, types and values of a dataset, without provenance; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(map(str, dataset.variables)):
        if name in _PROVENANCE:
            continue
        variable = dataset.variables[name]
        values = np.asarray(variable.values)
        kind = "str" if values.dtype.kind in "OUT" else values.dtype.newbyteorder("<").str
        digest.update(json.dumps([name, list(map(str, variable.dims)), kind, list(values.shape)]).encode())
        if kind == "str":
            texts = [str(item).encode("utf-8", "backslashreplace") for item in values.ravel().tolist()]
            digest.update(np.fromiter(map(len, texts), "<i8", len(texts)).tobytes())
            digest.update(b"".join(texts))
        else:
            digest.update(_canonical(values).tobytes())
    return digest.hexdigest()


def _canonical(values: np.ndarray) -> np.ndarray:
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if little.dtype.kind in "fc":
        # All NaN are one value here, and -0 is 0, as they are for who compares.
        little = np.where(np.isnan(little), np.asarray(np.nan, little.dtype), little) + np.zeros((), little.dtype)
    return little


def portable(dataset: "xr.Dataset") -> "xr.Dataset":
    """Give every variable a form that Zarr v3 and other languages have.

    Strings become variable-length UTF-8 (missing ones empty), bytes hexadecimal text, attributes JSON.
    """
    import pandas as pd

    levels = [str(name) for name, index in dataset.indexes.items() if isinstance(index, pd.MultiIndex)]
    whole = sorted(set(levels) & set(map(str, dataset.dims)))
    plain = dataset.reset_index(whole) if whole else dataset.copy(deep=False)
    for name in list(map(str, plain.variables)):
        variable = plain.variables[name]
        if variable.dtype.kind in "OUTS":
            plain[name] = (variable.dims, _texts(name, np.asarray(variable.values)), _attributes(variable.attrs))
        else:
            plain[name].attrs = _attributes(variable.attrs)
        plain[name].encoding = {}
    plain.attrs = _attributes(plain.attrs)
    return plain


def _texts(name: str, values: np.ndarray) -> np.ndarray:
    flat: list[Any] = values.ravel().tolist()
    texts = np.empty(len(flat), object)
    for at, item in enumerate(flat):
        if item is None or (isinstance(item, float) and np.isnan(item)):
            texts[at] = ""
        elif isinstance(item, str):
            texts[at] = item
        elif isinstance(item, bytes):
            texts[at] = item.hex()
        else:
            raise StoreError(
                f"The output {name!r} holds {type(item).__name__} objects, which a sealed cube cannot hold; "
                "return numbers, strings or arrays of one shape."
            )
    return texts.reshape(values.shape)


def _attributes(attrs: Any) -> dict[str, Any]:
    return {str(name): _attribute(value) for name, value in dict(attrs).items()}


def _attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Choose the chunk of an array: whole inner dimensions first, about `CHUNK` values of eight bytes in all.

    >>> chunks((100, 100, 1000), 8)
    (1, 100, 1000)
    """
    room = max(1, CHUNK * 8 // max(1, itemsize))
    chosen: list[int] = []
    for size in reversed(shape):
        taken = max(1, min(size, room))
        chosen.append(taken)
        room = max(1, room // taken)
    return tuple(reversed(chosen))


def _write(plain: "xr.Dataset", path: Path) -> None:
    encoding: dict[Any, dict[str, Any]] = {}
    for name, variable in plain.variables.items():
        chosen: dict[str, Any] = {}
        if variable.ndim:
            size = 32 if variable.dtype.kind == "O" else variable.dtype.itemsize
            chosen["chunks"] = chunks(variable.shape, size)
        if variable.dtype.kind in "fc":
            # With a fill value a reader would replace NaNs by its own.
            chosen["_FillValue"] = None
        encoding[name] = chosen
    with warnings.catch_warnings():
        # Variable-length strings and consolidated metadata are extensions of Zarr v3 that every reader we name knows.
        warnings.simplefilter("ignore")
        plain.to_zarr(path, mode="w-", zarr_format=3, consolidated=True, encoding=encoding)


def _verify(plain: "xr.Dataset", path: Path) -> None:
    import xarray as xr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = xr.open_zarr(path, chunks=None)
        for name, variable in plain.variables.items():
            if name not in back.variables or not _same(variable, back.variables[name]):
                raise CorruptStore(f"{name!r} was not read back as it was written to {path}; nothing was sealed.")


def _same(given: Any, back: Any) -> bool:
    if given.dims != back.dims or given.shape != back.shape:
        return False
    left, right = np.asarray(given.values), np.asarray(back.values)
    if left.dtype.kind == "O":
        return bool(np.array_equal(left, right.astype(object)))
    if left.dtype.kind in "Mm":
        exact = "datetime64[ns]" if left.dtype.kind == "M" else "timedelta64[ns]"
        return bool(np.array_equal(left.astype(exact), right.astype(exact), equal_nan=True))
    if left.dtype != right.dtype:
        return False
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind in "fc"))


def checksums(folder: Path, prefix: str, *, sync: bool = False) -> dict[str, tuple[str, int]]:
    """SHA-256 and size of every file under a folder, by `prefix/relative name`; optionally bring all to the disk."""
    found: dict[str, tuple[str, int]] = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base, name)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if sync:
                    sync_data(file.fileno())
                size = file.tell()
            found[f"{prefix}/{path.relative_to(folder).as_posix()}"] = (digest, size)
        if sync:
            sync_folder(Path(base))
    return found
