"""The machine and the packages an experiment was declared on; the one module of `declare` that looks at them."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_GIT_SECONDS = 2.0
_NO_COMMIT = "(initial)"


def config_folder() -> Path:
    """Folder of this user's settings; the environment variable `MCE_CONFIG_DIR` overrides it. It may not exist."""
    named = os.environ.get("MCE_CONFIG_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "mce_notebook"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "mce_notebook"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mce_notebook"


def capture(folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Describe Python, packages, hardware and the git state of a folder.

    Parameters
    ----------
    folder : path, optional
        The current directory by default; git is asked about it.

    Returns
    -------
    dict
        Plain JSON values. All but `git` is measured once per process.
    """
    return {
        **_machine(),
        "packages": dict(_packages(tuple(sys.path))),
        "git": _git(os.fspath(folder or Path.cwd())),
    }


def digest(environment: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of an environment; the order of its entries does not matter."""
    text = json.dumps(environment, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.cache
def _machine() -> dict[str, Any]:
    return {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
        },
        "hardware": {"cpu": _cpu_model(), "cores": os.cpu_count() or 1, "memory": _memory()},
        "blas": _blas(),
    }


@functools.lru_cache(maxsize=8)
def _packages(path: tuple[str, ...]) -> Mapping[str, str]:
    """Versions of all installed distributions; `path` is what the answer depends on."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.name
        # The first on the path is the one that is imported; broken installs have no name.
        if name:
            found.setdefault(name.lower().replace("_", "-"), distribution.version)
    return dict(sorted(found.items()))


def _cpu_model() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.startswith(("model name", "Hardware", "cpu model")):
                        return line.partition(":")[2].strip()
        except OSError:
            return platform.machine()
    if platform.system() == "Darwin":
        return _run(["sysctl", "-n", "machdep.cpu.brand_string"], os.curdir) or platform.machine()
    return platform.machine()


def _memory() -> int:
    """Bytes of memory of the machine."""
    import psutil

    return int(psutil.virtual_memory().total)


def _blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    import numpy as np

    config: dict[str, Any] = dict(np.show_config(mode="dicts"))
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _git(folder: str) -> dict[str, Any] | None:
    """Commit, branch and cleanliness of the repository around a folder; None outside one or without git."""
    # One process instead of three: each costs as much as the rest of a small declaration.
    told = _run(["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"], folder)
    if told is None:
        # A repository too large to answer in time has an unknown state, which is not the same as a clean one.
        commit = _run(["git", "rev-parse", "HEAD"], folder)
        branch = _run(["git", "rev-parse", "--abbrev-ref", "HEAD"], folder)
        return None if commit is None else {"commit": commit, "branch": branch, "dirty": None}
    lines = told.splitlines()
    head = {name: value for mark, name, value in (line.split(" ", 2) for line in lines if line[0] == "#") if mark}
    commit, branch = head.get("branch.oid", _NO_COMMIT), head.get("branch.head")
    if commit == _NO_COMMIT:
        return None
    return {
        "commit": commit,
        "branch": "HEAD" if branch == "(detached)" else branch,
        "dirty": any(line[0] != "#" for line in lines),
    }


def _run(command: list[str], folder: str) -> str | None:
    """Output of a command, or None when it is absent, fails or is slow."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
