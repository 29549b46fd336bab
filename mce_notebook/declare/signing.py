"""Signatures that tell a user's own code from code somebody put into the store.

A pickle can run anything, so a bundle is read only if its manifest carries an HMAC-SHA256 (RFC 2104) under a key that
never leaves the user's configuration folder, and every file is what the manifest says.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mce_notebook.declare.environment import config_folder
from mce_notebook.errors import UntrustedCode

MANIFEST = "manifest.json"
SIGNATURE = "manifest.hmac"
_KEY_BYTES = 32


def user_key() -> bytes:
    """Read the key of this user, making it when there is none.

    Raises
    ------
    UntrustedCode
        When other users can read or write the key file: a signature under it would prove nothing.
    """
    path = config_folder() / "signing.key"
    if not path.exists():
        _make_key(path)
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UntrustedCode(f"Other users can open your signing key. Run: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise UntrustedCode(f"Your signing key {path} is damaged. Delete it, then run the cells of your sweeps again.")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link appears whole or not at all, and fails where another process was first: its key then holds.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def file_digest(content: bytes) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sign(files: Mapping[str, bytes]) -> bytes:
    """Signature of the manifest among `files`, to be kept beside it under the name `manifest.hmac`."""
    return _signature(files[MANIFEST])


def _signature(manifest: bytes) -> bytes:
    return hmac.new(user_key(), manifest, hashlib.sha256).hexdigest().encode()


def verified_manifest(folder: Path) -> dict[str, Any]:
    """Manifest of a bundle, if this user signed it.

    Raises
    ------
    UntrustedCode
        When there is no signature, or it is not this user's.
    """
    manifest = _read(folder, MANIFEST)
    signature = _read(folder, SIGNATURE)
    if not hmac.compare_digest(signature.strip(), _signature(manifest)):
        raise UntrustedCode(
            f"The code in {folder} was not signed by you, so none of it was loaded. "
            "Run the cell again, or, if you know where it comes from: mce trust"
        )
    return dict(json.loads(manifest))


def verified_file(folder: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    """Content of one file of a bundle, if it is what the manifest says."""
    content = _read(folder, name)
    if file_digest(content) != manifest["files"].get(name):
        raise UntrustedCode(
            f"{folder / name} is not the file that was signed, so nothing was loaded. Run the cell again."
        )
    return content


def trust(folder: Path, ask: Callable[[dict[str, Any]], bool] | None = None) -> None:
    """Sign a bundle that somebody else wrote, after its files were found to agree with its manifest.

    Parameters
    ----------
    folder : Path
        The folder of the bundle.
    ask : callable, optional
        Gets the manifest; a false answer leaves the bundle unsigned.
    """
    text = _read(folder, MANIFEST)
    try:
        manifest = json.loads(text)
        names = [str(name) for name in manifest["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UntrustedCode(f"{folder / MANIFEST} cannot be read: {error}") from error
    for name in names:
        verified_file(folder, name, manifest)
    if ask is not None and not ask(manifest):
        return
    draft = folder / f"{SIGNATURE}.{secrets.token_hex(4)}"
    draft.write_bytes(_signature(text))
    draft.replace(folder / SIGNATURE)


def _read(folder: Path, name: str) -> bytes:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise UntrustedCode(f"{folder / MANIFEST} names a file outside its folder: {name}")
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise UntrustedCode(f"{folder / name} cannot be read ({error.strerror}), so nothing was loaded.") from error
