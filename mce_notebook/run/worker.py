"""What a Dask worker runs: one task per block, handed to this process's supervisor.

User code is never imported here; the worker survives whatever it does.
"""

import atexit
import os
import threading

from mce_notebook.plan import Block
from mce_notebook.run import delivery, processes
from mce_notebook.run.protocol import BlockResult, Task
from mce_notebook.run.supervisor import Supervisor
from mce_notebook.run.walltime import Walltime

_supervisors: dict[threading.Thread, Supervisor] = {}
_guard = threading.Lock()
# Where this worker runs in a job of a batch system.
_walltime = Walltime.of_job()


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
    if _walltime is None:
        return _supervisor().run(task, block, each=each, budget=budget, timeout=timeout, memory=memory)
    bounced = _walltime.bounce(block, _address())
    if bounced is not None:
        return bounced
    here = delivery.local(task)
    if here is None:
        return delivery.unseen(block, _address())
    result = _supervisor().run(
        here, block, each=each, budget=budget, timeout=timeout, memory=memory, walltime=_walltime
    )
    _walltime.learn(result)
    return result


def _address() -> str:
    from distributed import get_worker

    return str(get_worker().address)


def interrupt(store: str, name: str) -> bool:
    """Kill what the slots of this worker compute for a sweep; True if there was anything."""
    with _guard:
        found = list(_supervisors.values())
    roots = [store] if _walltime is None else delivery.mirror_of(store, name)
    return sum(supervisor.cancel(root, name) for supervisor in found for root in roots) > 0


def warm(cores: int = 1) -> None:
    """Start this thread's slot now, so that its first block finds it ready; a task of its own for each new worker."""
    _supervisor().warm(cores)


def close() -> None:
    """End all slots of this process."""
    with _guard:
        found = list(_supervisors.values())
        _supervisors.clear()
    for supervisor in found:
        supervisor.close()
    processes.close()


def _supervisor() -> Supervisor:
    me = threading.current_thread()
    with _guard:
        ended = [thread for thread in _supervisors if not thread.is_alive()]
        orphans = [_supervisors.pop(thread) for thread in ended]
        supervisor = _supervisors.get(me)
        if supervisor is None:
            supervisor = Supervisor(nice=int(os.environ.get("MCE_NICE", "0")))
            _supervisors[me] = supervisor
    for orphan in orphans:
        orphan.close()
    return supervisor


# Where a worker is killed outright the kernel ends its slots (PR_SET_PDEATHSIG).
atexit.register(close)
