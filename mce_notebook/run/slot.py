"""The supervised child process that runs user code; its arguments are CONTROL PAGE PARENT NICE, started by `child.py`.

Whatever a point does here (crash, exit, leak, hang, fork) reaches nobody else. The slot evaluates blocks, encodes
their outcomes and sends bytes; its supervisor (`supervisor.py`) watches it through a shared page.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from mce_notebook.run.output import Capture
from mce_notebook.run.page import Page, Phase

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one supervisor until it hangs up."""
    control, page, parent, nice = map(int, sys.argv[1:5])
    tie(parent)
    _settle(control, page, nice)
    connection = Connection(control)
    os.register_at_fork(after_in_child=lambda: _disown(control, page))
    shared = Page(page)
    sys.stdout, sys.stderr = Capture(shared.output, 1), Capture(shared.output, 2)
    _serve(connection, shared)
    # Threads that user code left behind must not keep the process alive, nor must its exit handlers.
    os._exit(0)


def prepare() -> None:
    """Import what is slow to import and every slot needs, and use it once."""
    import mce_notebook.run.protocol
    import mce_notebook.run.service
    import mce_notebook.store.declaration  # noqa: F401
    from mce_notebook.run.rehearsal import rehearse

    rehearse()


def tie(parent: int) -> None:
    """End this process with the one that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(0)


def _settle(control: int, page: int, nice: int) -> None:
    """Keep our descriptors to ourselves, and be the first to go when memory runs out."""
    faulthandler.enable(file=2, all_threads=False)
    for descriptor in (control, page):
        os.set_inheritable(descriptor, False)
    # Containers may forbid either; neither changes a result.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    with contextlib.suppress(OSError):
        os.nice(nice)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _disown(control: int, page: int) -> None:
    """Take the supervisor's descriptors away from a process that user code forked."""
    for descriptor in (control, page):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _serve(connection: Connection, page: Page) -> None:
    # Imported here, not above: a spare slot says it is ready only once these, the slow ones, are in memory.
    prepare()
    from mce_notebook.run.protocol import Ready
    from mce_notebook.run.service import Service

    service = Service(connection, page)
    connection.send(Ready())
    while True:
        page.enter(Phase.IDLE)
        request: Any = None
        with contextlib.suppress(EOFError, ConnectionError):
            request = connection.recv()
        if request is None:
            return
        service.evaluate(request)
