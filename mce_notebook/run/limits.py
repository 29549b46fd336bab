"""What this process may use of its machine: cores and memory, the limits of containers included.

A container with 2 GB on a machine of 64 cores sees all of them: only the control groups of Linux say what it may
use. Both versions are read; see `cpu.max` and `memory.max` in Documentation/admin-guide/cgroup-v2.rst of the kernel,
`cpu.cfs_quota_us` and `memory.limit_in_bytes` in cgroup-v1/.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# What a slot needs before user code has any data: its worker, the slot, and the user's imports (bytes).
SLOT_BYTES = 512 * 2**20


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use; part of a core counts as one.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are.
    """
    found = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _groups(root, "cpu"):
        # "max", and -1 in version 1, is no limit.
        told = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(told) == 2 and all(word.isdecimal() and int(word) for word in told):
            found = min(found, int(told[0]) / int(told[1]))
    return max(1, math.ceil(found))


def memory(root: Path = Path("/")) -> int:
    """Return how many bytes this process and all others of its container may use together.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are.
    """
    import psutil

    found = int(psutil.virtual_memory().total)
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            told = _words(folder / name)
            if len(told) == 1 and told[0].isdecimal() and int(told[0]):
                found = min(found, int(told[0]))
    return found


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders that may limit this process: its group, and all that the group is part of.

    Inside a container the name of the group can be that on the machine outside, of which only the end is mounted:
    so folders that are not there are no error, and the topmost is always looked at.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [controllers, controller] if controllers else ["", "unified"]
        for mount in mounts:
            path = PurePosixPath("/", name)
            for part in (path, *path.parents):
                yield root / "sys/fs/cgroup" / mount / part.relative_to("/")


def _lines(path: Path) -> list[str]:
    # Not there on other systems, unreadable in some containers: then there is no limit we could know of.
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
