"""What a Dask worker runs: one task per block, handed to this process's supervisor.

User code is never imported here; the worker survives whatever it does.
"""

import atexit
import os
import threading
from typing import Any

from mce_notebook.plan import Block
from mce_notebook.run.protocol import BlockResult, Task
from mce_notebook.run.supervisor import Supervisor

_supervisors: dict[int, Supervisor] = {}
_guard = threading.Lock()


def run_block(
    task: Task, block: Block, each: bool, budget: float | None, timeout: float | None, memory: int | None
) -> BlockResult:
    """Evaluate a block in this thread's slot; the Dask task.

    Parameters
    ----------
    task : Task
    block : Block
    each : bool
        Telemetry per point.
    budget : float or None
        Seconds after which the rest is handed back.
    timeout : float or None
        Seconds one point may take.
    memory : int or None
        Bytes one slot may use.
    """
    return _supervisor().run(task, block, each=each, budget=budget, timeout=timeout, memory=memory)


def interrupt(store: str, name: str) -> bool:
    """Kill what the slots of this worker compute for a sweep; True if there was anything."""
    with _guard:
        found = list(_supervisors.values())
    return sum(supervisor.cancel(store, name) for supervisor in found) > 0


def warm(cores: int = 1) -> None:
    """Start a slot now, so that the first block finds it ready; sent once to each new worker."""
    _supervisor().warm(cores)


def close() -> None:
    """End all slots of this process."""
    with _guard:
        found = list(_supervisors.values())
        _supervisors.clear()
    for supervisor in found:
        supervisor.close()


def _supervisor() -> Supervisor:
    thread = threading.get_ident()
    with _guard:
        supervisor = _supervisors.get(thread)
        if supervisor is None:
            supervisor = Supervisor(nice=int(os.environ.get("MCE_NICE", "0")))
            _supervisors[thread] = supervisor
        return supervisor


class SlotPlugin:
    """Worker plugin: ends the slots of a worker that stops in order; `atexit` and the kernel see to other ends."""

    name = "mce-slots"

    def setup(self, worker: Any) -> None:
        """Do nothing: slots start with the first block, or by `warm`."""

    def teardown(self, worker: Any) -> None:
        """End the slots."""
        close()


atexit.register(close)
