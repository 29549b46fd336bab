"""A process that has imported what every slot needs, and becomes a slot as often as it is asked: by forking.

Starting Python with NumPy and pyarrow takes a third of a second of a core, forking a process that has done so a few
milliseconds, and the copies share its memory. It never runs user code, so every slot begins in the same clean state.
Its arguments are CONTROL PARENT, started by `processes.py`, which says what is asked over CONTROL: `fork NICE` with
the three descriptors of a slot, answered by its process id, and `reap PID`, answered by its exit code.
"""

import contextlib
import errno
import gc
import os
import socket
import sys
from pathlib import Path

from mce_notebook.run import slot

_MESSAGE = 256
_DESCRIPTORS = 3
UNFIT = b"unfit"


def main() -> None:
    """Serve one supervising process until it hangs up."""
    control, parent = map(int, sys.argv[1:3])
    slot.tie(parent)
    with socket.socket(fileno=control) as asked:
        asked.set_inheritable(False)
        slot.prepare()
        # What is there now stays for ever: collectors of the copies need not look at it, nor copy its pages.
        gc.freeze()
        born = _serve(asked, _alone())
    if born is not None:
        _become(*born)
    os._exit(0)


def _serve(asked: socket.socket, fit: bool) -> tuple[int, int, int, int, int] | None:
    """Answer until the supervisor hangs up; in a new slot, return its descriptors, its parent and its niceness."""
    me = os.getpid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, _MESSAGE, _DESCRIPTORS)
        verb, _, number = message.decode().partition(" ")
        if verb == "fork" and fit and len(descriptors) == _DESCRIPTORS:
            pid = _fork()
            if not pid:
                return descriptors[0], descriptors[1], descriptors[2], me, int(number)
            # Negative: the number of the error, when there is no room for another process.
            answer = str(pid).encode()
        elif verb == "reap":
            _, status = os.waitpid(int(number), 0)
            answer = str(os.waitstatus_to_exitcode(status)).encode()
        elif message:
            answer = UNFIT
        else:
            return None
        for descriptor in descriptors:
            os.close(descriptor)
        asked.send(answer)


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or errno.EAGAIN)


def _alone() -> bool:
    """Whether this process has one thread only: locks that others hold would stay locked in a copy."""
    return sum(1 for _ in Path("/proc/self/task").iterdir()) == 1


def _become(control: int, page: int, output: int, parent: int, nice: int) -> None:
    """Be a slot, as one that was started anew."""
    os.setsid()
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    # Python's own generator is seeded anew in every copy, NumPy's is not: code that draws from it unseen by us must
    # not draw the same in every slot.
    with contextlib.suppress(KeyError):
        sys.modules["numpy.random"].seed()
    sys.argv = ["-c", *map(str, (control, page, parent, nice))]
    slot.main()
