"""Where a store is: a folder here, or a bucket with a mirror of it here.

A root is a path everywhere above. That of a bucket is the folder of its mirror, named by the address, so that the
address can be told from the path alone: `buckets/s3%3A%2F%2Flab%2Fexperiments` mirrors `s3://lab/experiments`.
"""

import hashlib
import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

from mce_notebook.errors import StoreError
from mce_notebook.store.folder import Folder, LocalFolder

# Schemes of object stores that obstore knows, and what else they are called.
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "memory")
# A path that was made of an address has one slash less.
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL)
_FOREIGN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")
# Names of files have 255 bytes; the rest is for drafts beside it.
_LONGEST = 200


def address_of(store: str | os.PathLike[str]) -> str | None:
    """Return the address of a bucket in one spelling, None for what is a folder.

    >>> address_of("s3://lab/experiments/")
    's3://lab/experiments'
    """
    match = _ADDRESS.fullmatch(os.fspath(store))
    if match is None:
        return None
    scheme, rest = match[1], "/".join(part for part in match[2].split("/") if part)
    if not rest or any(part in (".", "..") for part in rest.split("/")):
        raise StoreError(f"{os.fspath(store)!r} names no bucket; write for example {scheme}://my-bucket/experiments.")
    return f"{scheme}://{rest}"


def endpoint() -> str:
    """Return the server that stands in for the cloud's own, as the environment names it; empty without one."""
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")


def cache_folder() -> Path:
    """Return what can be deleted at any time: `MCE_CACHE_DIR`, or `mce_notebook` under the XDG cache folder."""
    named = os.environ.get("MCE_CACHE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mce_notebook"


def mirrors() -> Path:
    """Folder of the mirrors of buckets."""
    return cache_folder() / "buckets"


def root_path(store: str | os.PathLike[str]) -> Path:
    """Return the root of a store as a path: the folder itself, or the mirror of a bucket.

    Raises
    ------
    StoreError
        For an address that names no bucket, is of another kind, or is too long.
    """
    address = address_of(store)
    if address is None:
        if _FOREIGN.match(os.fspath(store)):
            raise StoreError(
                f"{os.fspath(store)!r} is no place for a store; write a folder, or the address of a bucket: "
                "s3://, gs:// or az://my-bucket/experiments."
            )
        return Path(store).expanduser().absolute()
    name = quote(address, safe="")
    other = endpoint()
    if other:
        # Two servers may have buckets of the same name.
        name += f"@{hashlib.sha256(other.encode()).hexdigest()[:8]}"
    if len(name) > _LONGEST:
        raise StoreError(f"The address {address[:60]}... is too long for a store; choose a shorter prefix.")
    return mirrors() / name


def mirrored(path: Path) -> tuple[Path, str] | None:
    """Return the root and the address of the bucket that a path is in the mirror of; None for all other paths."""
    above = _above(*(os.environ.get(name) for name in ("MCE_CACHE_DIR", "XDG_CACHE_HOME", "HOME")))
    text = str(path)
    if not text.startswith(above):
        return None
    name = text[len(above) :].partition(os.sep)[0]
    return Path(above + name), unquote(name.partition("@")[0])


def shown(path: Path) -> str:
    """Return how a path is told to people: in a bucket, its address."""
    found = mirrored(path)
    if found is None:
        return str(path)
    inner = path.relative_to(found[0]).as_posix()
    return found[1] if inner == "." else f"{found[1]}/{inner}"


def folder_of(path: Path) -> Folder:
    """Return what reads and writes the files of the store that a path is in."""
    found = mirrored(path)
    return _LOCAL if found is None else _bucket_folder(os.getpid(), *found)


@cache
def _above(*named: str | None) -> str:
    # Asked for with every look at a log, so the paths are put together once for each state of the environment.
    return str(mirrors()) + os.sep


@cache
def _bucket_folder(pid: int, root: Path, address: str) -> Folder:
    # One per process id: the threads of a client do not survive a fork.
    from mce_notebook.store.bucket_folder import BucketFolder

    return BucketFolder(root, address)


_LOCAL = LocalFolder()
