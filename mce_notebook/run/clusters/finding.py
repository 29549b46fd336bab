"""Where profiles of clusters are: files found, trusted, read.

`clusters.toml` is looked for here and above, as the store is, and must be trusted once, because it holds commands;
then `clusters.toml` in the user's own configuration folder, which needs no trust.
"""

import hashlib
import hmac
import os
import tomllib
from pathlib import Path
from typing import Any

from mce_notebook.declare.environment import config_folder
from mce_notebook.declare.signing import user_key
from mce_notebook.errors import ProfileError, UntrustedCode
from mce_notebook.run.clusters.profiles import BUILT_IN, Profile, profile

FILE = "clusters.toml"
Start = str | os.PathLike[str] | None


def find(name: str, start: Start = None) -> Profile:
    """Return the profile of a name.

    Parameters
    ----------
    name : str
    start : path, optional
        Where the search begins; the current folder by default.

    Raises
    ------
    ProfileError
        If there is none, or it is not valid; with what there is.
    UntrustedCode
        If it stands in a project file that this user has not accepted as it is now.
    """
    seen: list[str] = list(BUILT_IN)
    for path in files(start):
        content = _content(path)
        tables = _tables(path, content)
        if name in tables:
            if not trusted(path, content):
                raise UntrustedCode(
                    f"The profiles in {path} run commands in your name, and you have not accepted the file as it is "
                    f"now. Look at it, then: mce trust {path}"
                )
            return profile(name, tables[name], path)
        seen += [f"{one} ({path})" for one in tables]
    raise ProfileError(
        f"There is no cluster {name!r}; there are {', '.join(seen)}. `mce clusters init` writes a first {FILE}."
    )


def available(start: Start = None) -> dict[str, Path]:
    """Return where each profile stands, by its name; the nearest file counts."""
    found: dict[str, Path] = {}
    for path in files(start):
        for name in read(path):
            found.setdefault(name, path)
    return found


def files(start: Start = None) -> list[Path]:
    """Return the files of profiles that count, the project's first; found upward, not leaving a checkout or home."""
    found = []
    here = Path(start if start is not None else Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            found.append(folder / FILE)
            break
        if (folder / ".git").exists() or folder == Path.home():
            break
    own = config_folder() / FILE
    if own.is_file() and own not in found:
        found.append(own)
    return found


def read(path: Path) -> dict[str, Any]:
    """Return the tables of a file, not validated.

    Raises
    ------
    ProfileError
        If it is no TOML, or holds something outside a table.
    """
    return _tables(path, _content(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error}.") from None


def _tables(path: Path, content: bytes) -> dict[str, Any]:
    try:
        tables = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{path} is no TOML: {error}.") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ProfileError(f"{path}: {name} stands outside a table; write [NAME] above it, NAME being for --on.")
    return tables


# Trust


def trusted(path: Path, content: bytes | None = None) -> bool:
    """Whether this user accepted the file with its present content, or it is in the user's own folder."""
    return path.parent == config_folder() or _mark(path, _content(path) if content is None else content).exists()


def trust(path: Path) -> list[str]:
    """Accept a file as it is now; return the names of its profiles.

    Raises
    ------
    ProfileError
        If it cannot be read.
    """
    content = _content(path)
    names = list(_tables(path, content))
    mark = _mark(path, content)
    mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark.write_text(f"{path.absolute()}\n", encoding="utf-8")
    return names


def _mark(path: Path, content: bytes) -> Path:
    # Under the user's key, so that nobody who can only write files here can make one.
    said = os.fsencode(os.path.realpath(path)) + b"\0" + content
    return config_folder() / "trusted" / hmac.new(user_key(), said, hashlib.sha256).hexdigest()
