"""Processes of slots: forked from a template where the system can, started anew elsewhere.

Both kinds look alike to `child.py`: they can be waited for without being reaped, so that a process group is killed
while its number cannot belong to anybody else.
"""

import atexit
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol

from mce_notebook.run.template import UNFIT

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Not `-m`: that would make our module `__main__`, where pickles look for what the notebook defined. The slot's module
# is named in both, because that is what its user finds in a list of processes.
_SLOT = "__import__('mce_notebook.run.slot', fromlist=['main']).main()"
_TEMPLATE = "__import__('mce_notebook.run.template', fromlist=['main']).main()  # of mce_notebook.run.slot"
# A template that does not answer within this time (seconds) is taken for lost; it has a second of imports to do.
_PATIENCE = 60.0
_FORKS = sys.platform == "linux" and hasattr(os, "pidfd_open")


class Process(Protocol):
    """A slot's process, as its supervisor needs it."""

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group once it runs."""

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None until it was reaped."""

    def ended(self, seconds: float | None) -> bool:
        """Whether it ends within some seconds (None: wait for it); it is not reaped by that."""

    def kill(self) -> None:
        """Send SIGKILL to it and its group."""

    def reap(self) -> int:
        """Free its number; return its exit code."""


class Spawned:
    """A process started anew, a child of this one."""

    def __init__(self, nice: int, cores: int, descriptors: Sequence[int]):
        control, page, output = descriptors
        self._process = launch(
            [sys.executable, "-P", "-c", _SLOT, *map(str, (control, page, os.getpid(), nice))],
            env=environment(cores),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(control, page),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, None until reaped."""
        return self._process.returncode

    def ended(self, seconds: float | None) -> bool:
        """Whether it ends within some seconds."""
        if self.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return _exited(self.pid, seconds)
        if seconds is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            return True
        end = time.monotonic() + seconds
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """Send SIGKILL to it and its group."""
        _kill_group(self.pid)

    def reap(self) -> int:
        """Free its number; return its exit code."""
        return self._process.wait()


def _exited(pid: int, seconds: float | None) -> bool:
    """Whether a child ends within some seconds, without reaping it, where Python has no `waitid`: macOS before 3.13."""
    import psutil

    end = None if seconds is None else time.monotonic() + seconds
    with contextlib.suppress(psutil.NoSuchProcess):
        child = psutil.Process(pid)
        while child.status() != psutil.STATUS_ZOMBIE:
            if end is not None and time.monotonic() > end:
                return False
            time.sleep(0.01)
    return True


class Forked:
    """A process forked from a template, whose child it is."""

    def __init__(self, template: "Template", pid: int):
        self._template = template
        self.pid = pid
        self.returncode: int | None = None
        # Until it is reaped, which the template does when asked only, the number is this process's.
        self._descriptor = os.pidfd_open(pid)

    def ended(self, seconds: float | None) -> bool:
        """Whether it ends within some seconds."""
        if self.returncode is not None:
            return True
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return bool(waiting.poll(None if seconds is None else seconds * 1e3))

    def kill(self) -> None:
        """Send SIGKILL to it and its group, which it may not have made yet."""
        _kill_group(self.pid)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def reap(self) -> int:
        """Free its number; return its exit code."""
        if self.returncode is None:
            self.ended(None)
            answer = self._template.ask(f"reap {self.pid}".encode())
            # A template that is killed takes its slots along, with the same signal.
            self.returncode = -signal.SIGKILL if answer is None else int(answer)
            os.close(self._descriptor)
        return self.returncode


class Template:
    """The process that slots of so many cores are forked from, seen from the process whose supervisors use it."""

    def __init__(self, cores: int):
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_PATIENCE)
        with theirs, contextlib.ExitStack() as failing:
            failing.callback(ours.close)
            self._process = launch(
                [sys.executable, "-P", "-c", _TEMPLATE, str(theirs.fileno()), str(os.getpid())],
                env=environment(cores),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            failing.pop_all()
        self._socket: socket.socket | None = ours

    def fork(self, nice: int, descriptors: Sequence[int]) -> Forked | None:
        """Return a new process; None when this template cannot give any."""
        answer = self.ask(f"fork {nice}".encode(), descriptors)
        if answer is None or answer == UNFIT:
            return None
        if int(answer) < 0:
            raise OSError(-int(answer), os.strerror(-int(answer)))
        try:
            return Forked(self, int(answer))
        except OSError:
            # No descriptor is left for it here: nobody could watch it, or would ever reap it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(answer), signal.SIGKILL)
                self.ask(b"reap " + answer)
            raise

    @property
    def alive(self) -> bool:
        """Whether it may still answer."""
        return self._socket is not None

    def ask(self, message: bytes, descriptors: Sequence[int] = ()) -> bytes | None:
        """Return the answer; None from a template that is gone."""
        with self._lock:
            if self._socket is None:
                return None
            try:
                socket.send_fds(self._socket, [message], list(descriptors))
                answer = self._socket.recv(256)
            except OSError:
                answer = b""
            if not answer:
                self._socket.close()
                self._socket = None
                self._process.kill()
                self._process.wait()
            return answer or None

    def close(self) -> None:
        """End it; slots that are left end with it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            self._process.kill()
            self._process.wait()


_templates: dict[tuple[int, int], Template | None] = {}
_guard = threading.Lock()


def prepare(cores: int) -> bool:
    """Start the template for slots of so many cores, unless there is one; whether slots are forked here at all."""
    return _template(cores) is not None


def forks(cores: int) -> bool:
    """Whether slots of so many cores are forked from a template that is there."""
    with _guard:
        return _templates.get((os.getpid(), cores)) is not None


def start(nice: int, cores: int, descriptors: Sequence[int]) -> Process:
    """Start a slot with the descriptors of its control connection, its page and its output.

    Raises
    ------
    OSError
        If there is no room for another process.
    """
    for _ in range(2):
        template = _template(cores)
        if template is None:
            break
        forked = template.fork(nice, descriptors)
        if forked is not None:
            return forked
        with _guard:
            # One that was killed is replaced; one that answers that it cannot fork never will.
            if template.alive:
                template.close()
                _templates[os.getpid(), cores] = None
    return Spawned(nice, cores, descriptors)


def _template(cores: int) -> Template | None:
    if not _FORKS:
        return None
    key = (os.getpid(), cores)
    with _guard:
        if key not in _templates or ((held := _templates[key]) is not None and not held.alive):
            _templates[key] = Template(cores)
        return _templates[key]


def close() -> None:
    """End the templates of this process."""
    with _guard:
        ours = [key for key in _templates if key[0] == os.getpid()]
        for template in [_templates.pop(key) for key in ours]:
            if template is not None:
                template.close()


def environment(cores: int) -> dict[str, str]:
    """Return the environment variables of a slot."""
    variables = dict(os.environ)
    # Dask's nanny sets it; it makes functions that allocate mid-size arrays up to a third slower.
    variables.pop("MALLOC_TRIM_THRESHOLD_", None)
    variables.update(dict.fromkeys(_THREADS, str(cores)))
    # A notebook's backend draws into its own kernel, and there is no screen here.
    variables["MPLBACKEND"] = "Agg"
    # Without it the order of sets of strings, hence results that depend on it, would differ from slot to slot.
    variables.setdefault("PYTHONHASHSEED", "0")
    # A thread of pyarrow's that does nothing for us, and would keep a template from forking.
    variables.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    return variables


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@cache
def _launcher(pid: int) -> ThreadPoolExecutor:
    # Linux kills a child when the *thread* that started it ends, and the threads of Dask come and go.
    # One per process id: a forked copy of this process would inherit an executor without its thread.
    return ThreadPoolExecutor(1, thread_name_prefix="mce-slots")


def launch(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process from a thread that lives as long as this process.

    Raises
    ------
    OSError
        If there is no room for another process, or for that thread.
    """

    def begin() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, **options)

    try:
        starting = _launcher(os.getpid()).submit(begin)
    except RuntimeError as error:
        # The executor keeps what it has no thread for, and would start it later, when nobody waits for it.
        _launcher.cache_clear()
        raise BlockingIOError(errno.EAGAIN, str(error)) from error
    return starting.result()


# Templates end with this process whatever happens to it; one that ends in order leaves no socket open either.
atexit.register(close)
