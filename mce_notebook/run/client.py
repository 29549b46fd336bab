"""What a kernel or a command line needs of a host: find or start it, ask it, hear of what was committed.

Only the standard library is imported: the kernel never loads the scheduler, stays responsive, and can die.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from mce_notebook.errors import HostError
from mce_notebook.run.inbox import ENDED, VERBS, Inbox
from mce_notebook.run.registry import HostFolder, Launch, Process, clean, folders, runtime_root, write_json

START_SECONDS = 30.0
# What a host elsewhere may take to end, its jobs included (seconds).
FAR_STOP_SECONDS = 120.0
# Hosts this process started; polled now and then, so that a dead one does not stay a zombie of ours.
_children: list[subprocess.Popen[bytes]] = []


class HostOptions(Protocol):
    """The options of a sweep that decide which host runs it."""

    @property
    def on(self) -> str:
        """Profile of the cluster."""

    @property
    def cores(self) -> int:
        """Cores of one slot."""

    @property
    def gpus(self) -> int:
        """Devices of one slot."""

    @property
    def memory(self) -> int | None:
        """Bytes a point may use."""

    @property
    def timeout(self) -> float | None:
        """Seconds a point may take."""


class HostHandle:
    """One host as seen from another process."""

    def __init__(self, folder: HostFolder, process: Process):
        self.folder = folder
        self.process = process
        self._inbox = Inbox(folder)
        self._lock = threading.Lock()
        self._bell: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<host {self.folder.path.name}, pid {self.process.pid}, {self.state().get('state', 'starting')}>"

    def __del__(self) -> None:
        self._hang_up()

    def alive(self) -> bool:
        """Return whether the host process still runs (microseconds; no message is exchanged)."""
        _reap()
        return self.process.alive()

    def state(self) -> dict[str, Any]:
        """Return the host's heartbeat: counter, state, workers, sweeps, message."""
        return self.folder.state()

    def ready(self) -> bool:
        """Return whether a task has run on every worker of this host."""
        state = self.state()
        return state.get("state") == "ready" and state.get("pid") == self.process.pid

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until a task has run on the workers.

        Raises
        ------
        HostError
            If the host dies or `timeout` seconds pass; with the last lines the host wrote.
        """
        end = time.monotonic() + timeout
        while not self.ready():
            if not self.alive():
                raise HostError(f"The host for {self._what()} stopped while starting.{last_words(self.folder)}")
            if (state := self.state()).get("state") == "failed" and state.get("pid") == self.process.pid:
                raise HostError(f"The host for {self._what()} cannot start its cluster: {state.get('message')}")
            if time.monotonic() > end:
                told = last_words(self.folder)
                raise HostError(f"The host for {self._what()} was not ready after {timeout:g} s.{told}")
            time.sleep(0.01)

    def request(self, body: dict[str, Any]) -> str:
        """Leave a request in the inbox, ring, and return the name of the request.

        Parameters
        ----------
        body : dict
            ``verb`` (run, resume, pause, cancel, stop or shutdown) and, but for shutdown, ``store`` (path of
            the store's root) and ``name`` (of the sweep).

        Raises
        ------
        HostError
            If the verb is unknown. A dead host is no error here: the next one reads the same inbox.
        """
        if body.get("verb") not in VERBS:
            raise HostError(f"A host does not know {body.get('verb')!r}; it knows {', '.join(VERBS)}.")
        name = self._inbox.put(body)
        bell = self._connect()
        if bell is not None:
            try:
                bell.sendall(b".")
            except OSError:
                self._hang_up()
        return name

    def reply(self, name: str, timeout: float = 10.0) -> dict[str, Any]:
        """Return what became of a request: ``{"ok": True, ...}`` or ``{"ok": False, "error": sentence}``.

        Raises
        ------
        HostError
            If the host dies first or does not answer within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while (found := self._inbox.reply(name)) is None:
            left = end - time.monotonic()
            if left <= 0:
                raise HostError(f"The host for {self._what()} did not answer within {timeout:g} s.")
            self.wait_change(min(left, 0.5))
        return found

    def listen(self) -> bool:
        """Connect, unless that is done, and forget what was heard so far; whether the host is there to be heard.

        Whatever it does from here on is noticed by the next `wait_change`.
        """
        bell = self._connect()
        if bell is None:
            return False
        if _heard(bell, 0.0) is None:
            self._hang_up()
            return False
        return True

    def wait_change(self, timeout: float, *, ends: bool = False) -> bool:
        """Wait until the host committed something or changed state, at most `timeout` seconds.

        Parameters
        ----------
        timeout : float
        ends : bool
            Wait only for a sweep that ends, or has nothing left to compute: commits are passed over.

        Returns
        -------
        bool
            False when nothing was heard. True may be said once too often, never too seldom.

        Raises
        ------
        HostError
            If the host is gone, noticed at once when connected and within 50 ms otherwise.
        """
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            bell = self._connect()
            heard = _heard(bell, left) if bell is not None else None
            if heard and (not ends or ENDED in heard):
                return True
            if heard:
                continue
            self._must_live()
            if heard is None:
                # Hung up, or a host that is still starting: look again a little later.
                self._hang_up()
                time.sleep(min(left, 0.02))
        self._must_live()
        return False

    def close(self) -> None:
        """Close the connection; the host goes on."""
        self._hang_up()

    def _must_live(self) -> None:
        if not self.alive():
            raise HostError(f"The host for {self._what()} is gone (pid {self.process.pid}).{last_words(self.folder)}")

    def _what(self) -> str:
        launch = self.folder.launch()
        return repr(launch.profile) if launch else str(self.folder.path)

    def _connect(self) -> socket.socket | None:
        with self._lock:
            if self._bell is None:
                bell = socket.socket(socket.AF_UNIX)
                try:
                    bell.connect(str(self.folder.socket))
                except OSError:
                    bell.close()
                    return None
                self._bell = bell
            return self._bell

    def _hang_up(self) -> None:
        with self._lock:
            if self._bell is not None:
                self._bell.close()
                self._bell = None


def launch_for(options: HostOptions | None = None) -> Launch:
    """Return what a host must be for `options`; a plain local host without them.

    Raises
    ------
    ProfileError, UntrustedCode
        If the cluster has no profile that can be used, or its jobs cannot hold a point.
    """
    idle = float(os.environ.get("MCE_HOST_IDLE", Launch.idle))
    workers = int(os.environ["MCE_HOST_WORKERS"]) if os.environ.get("MCE_HOST_WORKERS") else None
    if options is None:
        return Launch(idle=idle, workers=workers)
    if options.on != "local":
        return _profiled(options)
    return Launch(profile=options.on, cores=options.cores, gpus=options.gpus, idle=idle, workers=workers)


def _profiled(options: HostOptions) -> Launch:
    """Return what a host must be for a cluster that has a profile."""
    from mce_notebook.run.clusters.finding import find
    from mce_notebook.run.clusters.request import at_address, resolve
    from mce_notebook.run.remote.place import Place

    profile = find(options.on)
    told = os.environ.get("MCE_HOST_IDLE")
    idle = float(told) if told else profile.idle_timeout
    place = Place.of(profile)
    money: dict[str, Any] = {name: getattr(profile, name) for name in ("price", "max_cost", "currency")}
    same: dict[str, Any] = {
        "profile": profile.name,
        "cores": options.cores,
        "gpus": options.gpus,
        "idle": idle,
        **money,
    }
    if place is not None:
        same["place"] = place.to_json()
    if profile.kind == "local":
        return Launch(kind="local", workers=profile.max_workers, **same)
    if profile.kind == "address":
        return Launch(job=at_address(profile, cores=options.cores, gpus=options.gpus).to_json(), **same)
    job = resolve(profile, cores=options.cores, gpus=options.gpus, memory=options.memory, timeout=options.timeout)
    return Launch(job=job.to_json(), **same)


def find_host(launch: Launch) -> HostHandle | None:
    """Return the running host for `launch`, None if there is none. Starts nothing."""
    folder = HostFolder(runtime_root() / launch.key)
    owner = folder.owner()
    return HostHandle(folder, owner) if owner is not None else None


def ensure_host(options: HostOptions | None = None, *, launch: Launch | None = None) -> HostHandle:
    """Return the host that serves `options`, started if none runs.

    The handle is returned as soon as a process owns the host's folder; requests can be made at once and are
    obeyed when the workers are up (`HostHandle.wait_ready`).

    Parameters
    ----------
    options : HostOptions, optional
        ``on``, ``cores`` and ``gpus`` decide; a plain local host without them.
    launch : Launch, optional
        The same, spelled out.

    Raises
    ------
    HostError
        If no host came up; with the last lines it wrote.
    """
    launch = launch or launch_for(options)
    _reap()
    found = find_host(launch)
    if found is not None and not _leaving(found):
        return found
    clean()
    folder = HostFolder.of(launch)
    write_json(folder.launch_file, launch.__dict__)
    child = begin(folder, launch)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        owner = folder.owner()
        if owner is not None:
            return HostHandle(folder, owner)
        if child.poll() not in (None, 0):
            break
        time.sleep(0.005)
    raise HostError(f"No host for {launch.profile!r} could be started.{last_words(folder)}")


def hosts() -> list[HostHandle]:
    """Return the hosts of this user that run now."""
    return [HostHandle(folder, owner) for folder in folders() if (owner := folder.owner()) is not None]


def serving(store: str, name: str) -> HostHandle | None:
    """Return the running host that says it drives a sweep, or has been asked to; None if there is none."""
    for host in hosts():
        driven = [(sweep.get("store"), sweep.get("name")) for sweep in host.state().get("sweeps") or ()]
        asked = [(one.body.get("store"), one.body.get("name")) for one in Inbox(host.folder).requests()]
        if (store, name) in [*driven, *asked]:
            return host
    return None


def stop_host(handle: HostHandle, timeout: float = 30.0) -> None:
    """Let a host finish its blocks and end; kill it when it has not within `timeout` seconds.

    Nothing is lost either way: what was acknowledged is in the store, and sweeps that were cut resume.

    Raises
    ------
    HostError
        If it lives elsewhere and cannot be reached: it goes on there then.
    """
    name = handle.request({"verb": "shutdown"})
    launch = handle.folder.launch()
    if launch is not None and launch.place:
        reply = handle.reply(name, max(timeout, FAR_STOP_SECONDS))
        if not reply.get("ok"):
            raise HostError(str(reply.get("error")))
    end = time.monotonic() + timeout
    while handle.alive():
        if time.monotonic() > end:
            os.kill(handle.process.pid, signal.SIGKILL)
            end += timeout
        time.sleep(0.01)
    handle.close()


def begin(folder: HostFolder, launch: Launch) -> subprocess.Popen[bytes]:
    """Start the process of a host, in a session of its own: it survives whoever starts it."""
    module = "mce_notebook.run.remote.relay" if launch.place else "mce_notebook.run.host"
    # -P: the folder of a notebook may hold a random.py, which must shadow nothing in the host.
    command = [launch.python, "-P", "-m", module, str(folder.path)]
    with folder.log.open("ab") as log:
        child = subprocess.Popen(
            command,
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment(),
        )
    _children.append(child)
    return child


def environment() -> dict[str, str]:
    """Return the variables of a process that imports this package from where it is."""
    # -P also drops the folder from which a package that is not installed was imported, so that one is named.
    package = Path(__file__).resolve().parents[2]
    if package.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(package), *paths]))}


class Ear:
    """Listens to whichever host drives a sweep now, over one connection as long as it is the same.

    Parameters
    ----------
    find : callable
        Returns a handle on that host, None where there is none.
    """

    def __init__(self, find: Callable[[], HostHandle | None]):
        self._find = find
        self._host: HostHandle | None = None

    def __enter__(self) -> "Ear":
        return self

    def __exit__(self, *_: object) -> None:
        if self._host is not None:
            self._host.close()

    def prick(self) -> None:
        """Be ready: what a host does from here on is heard by the next `wait`."""
        if self._host is None:
            self._host = self._find()
        if self._host is not None:
            self._host.listen()

    def wait(self, seconds: float, *, ends: bool) -> None:
        """Wait until a host did something or, with `ends`, until a sweep ended; at most `seconds`."""
        if self._host is None:
            # One may be started at any moment; whoever waits for an end only is in no hurry to hear of that.
            time.sleep(seconds if ends else min(seconds, 0.05))
            return
        try:
            self._host.wait_change(seconds, ends=ends)
        except HostError:
            # Whoever looks at the store next sees that it died.
            self._host.close()
            self._host = None
            time.sleep(0.01)


def _heard(bell: socket.socket, seconds: float) -> bytes | None:
    """Return what the bell said, nothing when not within `seconds`, None when nobody is there any more."""
    try:
        bell.settimeout(seconds)
        return bell.recv(65536) or None
    except (TimeoutError, BlockingIOError):
        return b""
    except OSError:
        # A peer that was killed gives ECONNRESET instead of an orderly end.
        return None


def _leaving(host: HostHandle) -> bool:
    """Return whether a host is on its way out, after waiting until it is gone."""
    end = time.monotonic() + START_SECONDS
    while host.alive():
        state = host.state()
        if state.get("pid") != host.process.pid or state.get("state") not in ("draining", "stopped", "failed"):
            return False
        if time.monotonic() > end:
            raise HostError(f"A host that is leaving (pid {host.process.pid}) has not left for {START_SECONDS:g} s.")
        time.sleep(0.01)
    return True


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


def last_words(folder: HostFolder) -> str:
    """Return the last lines a host wrote, behind a line break; nothing where there are none."""
    try:
        text = folder.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = text.strip().splitlines()[-8:]
    return "\n" + "\n".join(lines) if lines else ""
