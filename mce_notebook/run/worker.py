"""What a worker runs: one block at a time, handed to this process's supervisor, as a Dask task or from its line.

User code is never imported here; the worker survives whatever it does.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mce_notebook.plan import Block
from mce_notebook.run import delivery, processes
from mce_notebook.run.line import Answering
from mce_notebook.run.protocol import BlockResult, Task
from mce_notebook.run.supervisor import Supervisor
from mce_notebook.run.walltime import Walltime

# Set where this worker runs in a job of a batch system.
_walltime = Walltime.of_job()
# A task that finds the slot taken by a block from the line goes back after so long (seconds), perhaps to another.
WAIT_SECONDS = 1.0


class _Slots:
    """The supervisors of this process: as many as blocks may be computed at once, each used by one thread at a time."""

    def __init__(self, count: int):
        self._places = threading.Semaphore(count)
        self._guard = threading.Lock()
        self._all: list[Supervisor] = []
        self._free: list[Supervisor] = []

    @contextmanager
    def one(self, seconds: float | None) -> Iterator[Supervisor | None]:
        """Lend a supervisor; None when there is none within some seconds."""
        if not self._places.acquire(timeout=seconds):
            yield None
            return
        with self._guard:
            if not self._free:
                self._free.append(Supervisor(nice=int(os.environ.get("MCE_NICE", "0"))))
                self._all.append(self._free[-1])
            supervisor = self._free.pop()
        try:
            yield supervisor
        finally:
            with self._guard:
                self._free.append(supervisor)
            self._places.release()

    def interrupt(self, store: str, name: str) -> bool:
        """Kill what is computed for a sweep; True if there was anything."""
        with self._guard:
            found = list(self._all)
        return sum(supervisor.cancel(store, name) for supervisor in found) > 0

    def rest(self) -> bool:
        """End the slots that nobody uses, the next block starts one anew; True if none is left."""
        with self._guard:
            found, self._free = self._free, []
            self._all = [supervisor for supervisor in self._all if supervisor not in found]
            left = bool(self._all)
        for supervisor in found:
            supervisor.close()
        return not left

    def close(self) -> None:
        """End all slots."""
        with self._guard:
            found, self._all, self._free = self._all, [], []
        for supervisor in found:
            supervisor.close()


_made: dict[int, _Slots] = {}
_lines: dict[str, Answering] = {}
_making = threading.Lock()


def run_block(
    task: Task, block: Block, each: bool, budget: float | None, timeout: float | None, memory: int | None
) -> BlockResult:
    """Evaluate a block in a slot of this worker; the Dask task.

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
    with _slots().one(WAIT_SECONDS) as supervisor:
        if supervisor is None:
            return BlockResult([], 0, (block,), reason="the slot is taken")
        return supervisor.run(task, block, each=each, budget=budget, timeout=timeout, memory=memory)


def run_far_block(
    task: Task, block: Block, each: bool, budget: float | None, timeout: float | None, memory: int | None
) -> BlockResult:
    """Do the same on a node that may not see the store, in a job that may end; see `run_block`."""
    from distributed import get_worker

    address = str(get_worker().address)
    bounced = _walltime.bounce(block, address) if _walltime is not None else None
    if bounced is not None:
        return bounced
    here = delivery.local(task)
    if here is None:
        return delivery.unseen(block, address)
    with _slots().one(None) as supervisor:
        assert supervisor is not None
        result = supervisor.run(
            here, block, walltime=_walltime, each=each, budget=budget, timeout=timeout, memory=memory
        )
    if _walltime is not None:
        _walltime.learn(result)
    return result


def _from_line(
    task: Task, block: Block, each: bool, budget: float | None, timeout: float | None, memory: int | None
) -> BlockResult:
    """Do the same for the host itself, which knows that the slot is free, or will be."""
    with _slots().one(None) as supervisor:
        assert supervisor is not None
        return supervisor.run(task, block, each=each, budget=budget, timeout=timeout, memory=memory)


def interrupt(store: str, name: str) -> bool:
    """Kill what the slots of this worker compute for a sweep; True if there was anything."""
    return sum(_slots().interrupt(root, name) for root in delivery.mirror_of(store, name)) > 0


def warm(cores: int = 1) -> None:
    """Start a slot now, so that the first block finds it ready; a task of its own for each new worker."""
    with _slots().one(WAIT_SECONDS) as supervisor:
        if supervisor is not None:
            supervisor.warm(cores)


def rest() -> None:
    """End the slots of this worker that nobody uses: it is not ours, and their host leaves."""
    if _slots().rest():
        processes.close()


def answer(path: str, name: str) -> None:
    """Take blocks from the host that listens at `path`, too."""
    with _making:
        if path not in _lines:
            _lines[path] = Answering(path, name, _from_line)


def close() -> None:
    """End all slots of this process."""
    with _making:
        found = [_made.pop(os.getpid())] if os.getpid() in _made else []
        for line in _lines.values():
            line.close()
        _lines.clear()
    for slots in found:
        slots.close()
    processes.close()


def _slots() -> _Slots:
    with _making:
        if os.getpid() not in _made:
            _made[os.getpid()] = _Slots(_threads())
        return _made[os.getpid()]


def _threads() -> int:
    """How many blocks Dask computes at once in this process."""
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        # Not a worker: a test, or somebody who calls these functions directly.
        return 1


# Where a worker is killed outright the kernel ends its slots (PR_SET_PDEATHSIG).
atexit.register(close)
