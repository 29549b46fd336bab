"""Where the hosts of this user are: one private folder for each, with numbered claims of who owns it.

    <root>/<key>/                 0700, key = hash of what the host is for and of this machine
      launch.json                 what the host is for: profile, python, cores, gpus, workers, idle seconds
      claims/000002.json          the process that owns the folder; the highest number holds
      state.json                  heartbeat, replaced about once a second
      inbox/  replies/            requests and what became of them
      doorbell  lines             Unix sockets (in a short folder elsewhere when this path is too long for one)
      host.log                    what the host had to say

A claim is a hard link to a finished file, so it appears whole and exactly one process can make a given
number. A dead owner is never removed, only outnumbered: with removal, two processes that saw the same dead
owner could each believe that they had taken over. Only the standard library is used here, because kernels
import this.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mce_notebook.errors import HostError

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
MAX_SOCKET_PATH = 100


@cache
def machine() -> str:
    """Return a name for the running kernel and pid namespace: pids mean the same wherever it is the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        told = subprocess.run(
            ["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, timeout=10, check=False
        )
        return f"{socket.gethostname()}/{told.stdout.strip()}"


def start_time(pid: int) -> str | None:
    """Return when process `pid` started, in a form for comparison only; None if there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return _start_time_from_ps(pid) if not Path("/proc/self/stat").exists() else None
    # Fields 3 and 22 of proc(5); the command name before them may hold spaces and brackets.
    return fields[19] if fields[0] not in "ZX" else None


def _start_time_from_ps(pid: int) -> str | None:
    told = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False
    )
    return told.stdout.strip() or None


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one that got the same pid."""

    machine: str
    hostname: str
    pid: int
    start: str

    @classmethod
    def current(cls) -> "Process":
        """Return the calling process."""
        return cls(machine(), socket.gethostname(), os.getpid(), start_time(os.getpid()) or "")

    def alive(self) -> bool:
        """Return whether this very process still runs; never true of another machine or boot."""
        return self.machine == machine() and start_time(self.pid) == self.start


@dataclass(frozen=True)
class Launch:
    """What a host is for. Two requests with equal `key` share one host.

    `job` is what is asked of a batch system for each of its jobs (`JobRequest.to_json`), empty for a local host; `kind`
    says so of a profile that is a share of this machine. `price` is that of a core for an hour, in `currency`;
    `max_cost` what the cluster may cost in all. `place` is where the host lives (`Place.to_json`), empty for beside the
    notebook.
    """

    profile: str = "local"
    cores: int = 1
    gpus: int = 0
    workers: int | None = None
    python: str = sys.executable
    prefix: str = sys.prefix
    idle: float = 900.0
    job: str = ""
    place: str = ""
    kind: str = ""
    price: float | None = None
    max_cost: float | None = None
    currency: str = "USD"

    @property
    def here(self) -> bool:
        """Whether it is a cluster of this machine."""
        return not self.job and not self.place and "local" in (self.profile, self.kind)

    @property
    def key(self) -> str:
        """Name of the host's folder: all but how long it idles, the machine, and the state of this package."""
        parts = [self.profile, self.python, self.prefix, self.cores, self.gpus, self.workers, machine(), package()]
        parts += [self.job] if self.job else []
        parts += [self.place] if self.place else []
        parts += [self.price, self.max_cost, self.currency] if self.price is not None else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@functools.cache
def package() -> str:
    """Return what tells states of this package apart: a host of another state would not speak the same protocol.

    An installed package has a version; one under development changes between two starts of a kernel, so there the
    times and sizes of its files count.
    """
    folder = Path(__file__).resolve().parents[1]
    if folder.parent.name in ("site-packages", "dist-packages"):
        return importlib.metadata.version("mce_notebook")
    files = sorted(folder.rglob("*.py"))
    stamps = [(file.name, (found := file.stat()).st_size, found.st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()


@dataclass(frozen=True)
class Claim:
    """One entry of `claims/`: who owns the folder since when."""

    number: int
    process: Process
    time: float


def runtime_root() -> Path:
    """Return the folder that holds one folder for each host, made if needed.

    `MCE_RUNTIME_DIR` names it; otherwise it is `mce` in XDG_RUNTIME_DIR, or `mce-<uid>` in the temporary
    folder.

    Raises
    ------
    HostError
        If it belongs to somebody else or others may enter: requests in it are obeyed, so it must be ours
        alone.
    """
    told = os.environ.get("MCE_RUNTIME_DIR")
    if told:
        return private_folder(Path(told).absolute())
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.access(session, os.W_OK):
        return private_folder(Path(session) / "mce")
    return private_folder(Path(tempfile.gettempdir()) / f"mce-{os.getuid()}")


def private_folder(path: Path) -> Path:
    """Make `path` with mode 0700 or check that it is a folder of this user that nobody else may enter."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise HostError(f"Cannot use {path} for the files of hosts: {error}. Set MCE_RUNTIME_DIR.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise HostError(f"{path} is not a folder of yours; remove it or set MCE_RUNTIME_DIR to a private folder.")
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path


def write_json(path: Path, content: Any) -> None:
    """Replace `path` in one step. Not synced: nothing in the runtime folder outlives the machine."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Return the content of `path`, None where it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class HostFolder:
    """Every path of one host, and who owns it."""

    # A folder with a file of this name is on a file system that several machines share.
    SHARED = "shared"

    def __init__(self, path: Path):
        self.path = path
        self.inbox = path / "inbox"
        self.replies = path / "replies"
        self.claims = path / "claims"
        self.state_file = path / "state.json"
        self.launch_file = path / "launch.json"
        self.log = path / "host.log"

    @classmethod
    def of(cls, launch: Launch, root: Path | None = None) -> "HostFolder":
        """Return the folder of the host for `launch`, made if needed."""
        folder = cls(private_folder((root or runtime_root()) / launch.key))
        for part in (folder.inbox, folder.replies, folder.claims):
            part.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def socket(self) -> Path:
        """The doorbell; in a short private folder, named after this one, where its own path cannot have one."""
        here = self.path / "doorbell"
        # Parallel file systems have no sockets.
        if len(os.fsencode(here)) <= MAX_SOCKET_PATH and not (self.path / self.SHARED).exists():
            return here
        short = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return private_folder(Path("/tmp") / f"mce-{os.getuid()}-{short}") / "doorbell"

    @property
    def lines(self) -> Path:
        """The socket to which workers on this machine connect, beside the doorbell."""
        return self.socket.with_name("lines")

    @property
    def scratch(self) -> Path:
        """Where workers of this machine keep files: beside the socket, which is never on a shared file system."""
        return self.socket.with_name("scratch")

    def claim(self) -> Claim | None:
        """Return the claim that holds, None if there never was one."""
        for number in sorted(self._numbers(), reverse=True):
            claim = self._read(number)
            if claim is not None:
                return claim
        return None

    def owner(self) -> Process | None:
        """Return the process that owns the folder now, None if it is dead or there is none."""
        claim = self.claim()
        return claim.process if claim is not None and claim.process.alive() else None

    def take(self, *, renew: bool = False) -> Claim | None:
        """Make the calling process the owner; None when a live process is or just became it.

        With `renew`, the owner may claim once more: a process that goes on as another program stays the same one.
        """
        last = max(self._numbers(), default=0)
        held = self._read(last)
        if held is not None and held.process.alive() and not (renew and held.process == Process.current()):
            return None
        mine = Claim(last + 1, Process.current(), time.time())
        temporary = self.claims / f".{os.getpid()}.{time.monotonic_ns()}"
        temporary.write_text(json.dumps(asdict(mine)), encoding="utf-8")
        try:
            os.link(temporary, self.claims / f"{mine.number:06d}.json")
        except FileExistsError:
            return None
        finally:
            temporary.unlink()
        # Numbers below the owner's are removed, so a process that was slow may have made one of those again.
        if max(self._numbers()) != mine.number:
            (self.claims / f"{mine.number:06d}.json").unlink()
            return None
        for number in self._numbers():
            if number < mine.number:
                (self.claims / f"{number:06d}.json").unlink(missing_ok=True)
        return mine

    def state(self) -> dict[str, Any]:
        """Return the last heartbeat of the host, {} when it has none."""
        found = read_json(self.state_file)
        return found if isinstance(found, dict) else {}

    def launch(self) -> Launch | None:
        """Return what the host is for, None where that was never said."""
        record = read_json(self.launch_file)
        return Launch(**record) if isinstance(record, dict) else None

    def remove(self) -> None:
        """Remove the folder of a dead host, its doorbell included."""
        short = self.socket
        short.unlink(missing_ok=True)
        self.lines.unlink(missing_ok=True)
        if short.parent != self.path:
            short.parent.rmdir()
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, number: int) -> Claim | None:
        record = read_json(self.claims / f"{number:06d}.json")
        return None if record is None else Claim(number, Process(**record["process"]), record["time"])

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.claims)
        except FileNotFoundError:
            return []
        return [int(name[:6]) for name in names if name.endswith(".json") and name[:6].isdigit()]


def folders(root: Path | None = None) -> Iterator[HostFolder]:
    """Yield the folder of every host of this user, dead ones included."""
    for path in sorted((root or runtime_root()).iterdir()):
        if (path / "claims").is_dir():
            yield HostFolder(path)


def clean(root: Path | None = None) -> list[Path]:
    """Remove folders whose host died in an earlier boot of this machine and return them.

    A host that died in this boot keeps its folder: requests it had not read are still in the inbox, and its
    log says why it died.
    """
    removed = []
    for folder in folders(root):
        claim = folder.claim()
        if claim is None or claim.process.machine == machine():
            continue
        if claim.process.hostname == socket.gethostname():
            folder.remove()
            removed.append(folder.path)
    return removed
