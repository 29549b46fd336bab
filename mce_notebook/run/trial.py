"""Guards tried for a moment, in a copy of this process that may hang or crash.

Whoever declares a sweep wants to know at once how many points it has, and whether a guard raises. Most guards say so
within milliseconds; one that takes a millisecond over a million combinations would hold up the notebook for a quarter
of an hour, one that never returns would hang it, one that crashes would take it along. So what NumPy cannot evaluate
runs in a forked copy of the process, which has everything the guard reads, for a fifth of a second in all. What is not
known then is left to the host of the sweep (`run/guarding.py`). A fork of a process with threads may find a lock taken
that nobody there will ever release; that, too, only means that the host does it.
"""

import contextlib
import faulthandler
import gc
import hashlib
import io
import json
import os
import resource
import select
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mce_notebook.declare.grid import Grid
from mce_notebook.declare.guards import Guard, Mask, Question, asked_part, part_mask
from mce_notebook.declare.matching import joined
from mce_notebook.errors import GuardFailed
from mce_notebook.run.slot import tie
from mce_notebook.store.answers import read_mask

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.store.declaration import Declaration

# Seconds that guards may take in the process that declares. Where the machine is busy, the time the copy has waited for
# a processor is not counted, up to the longest.
BUDGET = 0.2
LONGEST = 2.0
# From so many seconds on, the next time may be too long: the answer is found again by its key.
NOTICED = 0.05
_LOOK = 0.01
_HEAD = struct.Struct("!cQQ")
_KNOWN, _RAISED = b"k", b"r"


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Parameters
    ----------
    known : bool
        Whether all guards were evaluated; the grid then knows its mask.
    seconds : float
        It took; 0 where NumPy could evaluate them all.
    """

    known: bool
    seconds: float = 0.0


class _Python(Exception):
    """A guard needs Python."""


def tried(grid: Grid, budget: float | None = None) -> Trial:
    """Evaluate the guards of a grid if that takes no longer than `budget` seconds (`BUDGET`).

    Raises
    ------
    GridError
        If a guard raises, naming the point, with what it raised as the cause.
    """
    if _by_numpy(grid):
        return Trial(True)
    begun = time.monotonic()
    answer = _in_a_copy(grid, BUDGET if budget is None else budget)
    seconds = time.monotonic() - begun
    if answer is None:
        return Trial(False, seconds)
    kind, printed, content = answer
    if printed:
        sys.stdout.write(printed.decode("utf-8", "replace"))
    if kind == _KNOWN:
        grid.remember(np.unpackbits(np.frombuffer(content, np.uint8), count=grid.size).astype(np.bool_))
        return Trial(True, seconds)
    # It raised there within the time. Here it raises what people want to see, with its traceback.
    _repeat(grid, *json.loads(content))
    return Trial(False, seconds)


def settled(
    grid: Grid,
    token: Callable[[Any], str],
    sweep: "SweepStore | None",
    earlier: "Sequence[Declaration]",
    *,
    patient: bool = False,
) -> Grid:
    """Return a grid that knows what its guards keep, or leaves that to the host of the sweep.

    Parameters
    ----------
    grid : Grid
    token : callable
        Digest of any object by its content and the code it reaches (`Experiment.token`).
    sweep : SweepStore or None
        Where the answers of slow guards are kept; None for a sweep that is new.
    earlier : sequence of Declaration
        Its declarations.
    patient : bool
        Whether slow guards are evaluated here, however long that takes: `--on inline`.

    Raises
    ------
    GridError
        If a guard raises.
    """
    if grid.guarded:
        found = _stored(grid.guarded, sweep, earlier) if grid.deferred else None
        return grid if found is None else grid.answered(found, grid.guarded)
    if _by_numpy(grid):
        return grid
    before = any(one.grid_record.get("guarded") for one in earlier)
    key = key_of(grid, token) if before else ""
    found = read_mask(sweep, key) if before and sweep is not None else None
    if found is not None:
        # A host has evaluated them.
        return grid.answered(found, key)
    if patient:
        return grid.answered(grid.mask(), key)
    trial = tried(grid)
    if trial.known and trial.seconds < NOTICED and not before:
        return grid
    key = key or key_of(grid, token)
    if trial.known:
        return grid.answered(grid.mask(), key)
    found = _stored(key, sweep, earlier)
    return grid.postponed(key) if found is None else grid.answered(found, key)


def key_of(grid: Grid, token: Callable[[Any], str]) -> str:
    """Return the key of what the guards of a grid keep: half of it of the code they reach, half of the axes."""
    record, tables = Grid(tuple(part.with_axes(part.axes) for part in grid.parts)).to_record()
    guards = [[guard.content for guard in part.guards] for part in grid.parts]
    state = hashlib.blake2b(json.dumps(record, sort_keys=True, default=str).encode(), digest_size=8)
    for name in sorted(tables):
        column = tables[name]
        state.update(name.encode() + (repr(column.tolist()).encode() if column.dtype == object else column.tobytes()))
    return hashlib.blake2b(token(guards).encode(), digest_size=8).hexdigest() + state.hexdigest()


def _stored(key: str, sweep: "SweepStore | None", earlier: "Sequence[Declaration]") -> Mask | None:
    for one in earlier:
        if one.grid_record.get("guarded") == key and not one.deferred:
            mask = one.grid.mask()
            return np.ones(one.grid.size, np.bool_) if mask is None else mask
    return None if sweep is None else read_mask(sweep, key)


def _by_numpy(grid: Grid) -> bool:
    """Evaluate the guards if NumPy can evaluate them all; return whether it can."""
    try:
        grid.mask(slow=_needed)
    except _Python:
        return False
    return True


def _needed(guard: Guard, rows: Iterator[tuple[Any, ...]]) -> list[bool]:
    if not guard.whole:
        # Raises, because its code is not known here; nothing of it runs.
        guard.test()
    raise _Python


def _repeat(grid: Grid, part: int, number: int, index: int) -> None:
    guard = grid.parts[part].guards[number]
    at = np.array([index], np.int64)
    # What it prints on the way was printed already.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Question(number, guard, asked_part(grid.parts[part], guard), at).asked_here(at)


def _in_a_copy(grid: Grid, budget: float) -> tuple[bytes, bytes, bytes] | None:
    """Return what a copy of this process finds out: a kind, what was printed, and the content; None if too late."""
    if budget <= 0:
        return None
    parent = os.getpid()
    ours, theirs = os.pipe()
    try:
        with warnings.catch_warnings():
            # Python, JAX and others warn of forks of processes with threads; what may come of it is provided for.
            warnings.simplefilter("ignore")
            child = os.fork()
    except OSError:
        os.close(ours)
        os.close(theirs)
        return None
    if child == 0:
        _live(grid, parent, ours, theirs)
    os.close(theirs)
    # Here as well: whoever is first, the group is there before anybody ends it.
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    try:
        return _hear(ours, child, budget)
    finally:
        os.close(ours)
        _end(child)


def _live(grid: Grid, parent: int, ours: int, theirs: int) -> NoReturn:
    """Be the copy: say what the guards say, and end."""
    try:
        os.close(ours)
        # With a group of its own, so that what a guard starts ends with it; and it ends with the process it is of.
        os.setpgid(0, 0)
        tie(parent)
        # Collecting what belongs to the other process could delete its files.
        gc.disable()
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdout = sys.stderr = printed = io.StringIO()
        kind, content = _said(grid)
        text = printed.getvalue().encode("utf-8", "replace")
        message = memoryview(_HEAD.pack(kind, len(text), len(content)) + text + content)
        while message:
            message = message[os.write(theirs, message) :]
    except BaseException:
        # No answer: the host of the sweep finds out, and tells what happens there.
        os._exit(1)
    # Neither exit handlers nor buffers: they are the other process's.
    os._exit(0)


def _said(grid: Grid) -> tuple[bytes, bytes]:
    masks: list[Mask | None] = []
    for at, part in enumerate(grid.parts):
        try:
            masks.append(part_mask(part))
        except GuardFailed as error:
            return _RAISED, json.dumps([at, error.number, error.index]).encode()
    return _KNOWN, np.packbits(joined(grid.parts, masks)).tobytes()


def _hear(pipe: int, child: int, budget: float) -> tuple[bytes, bytes, bytes] | None:
    begun = time.monotonic()
    data = bytearray()
    # Not `select`, which knows no descriptors above 1,023.
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        late = time.monotonic() - begun
        left = min(budget + _waited(child), LONGEST) - late
        if poll.poll(1000 * max(0.0, min(left, _LOOK))):
            piece = os.read(pipe, 1 << 20)
            data += piece
            if not piece:
                return _whole(bytes(data))
        elif left <= 0:
            return None


def _whole(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    if len(data) < _HEAD.size:
        return None
    kind, printed, content = _HEAD.unpack_from(data)
    text, rest = data[_HEAD.size : _HEAD.size + printed], data[_HEAD.size + printed :]
    return (kind, text, rest) if len(rest) == content else None


def _waited(child: int) -> float:
    """Return the seconds a process was ready to run and did not, because others had the processors (proc(5))."""
    try:
        with open(f"/proc/{child}/schedstat", "rb") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


def _end(child: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    # Where SIGCHLD is ignored, nobody is left to be waited for.
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(child, os.WNOHANG)[0] == 0:
            # One that hangs in a system call ends when that does; nobody waits for it here.
            threading.Thread(target=_bury, args=(child,), name="mce-trial", daemon=True).start()


def _bury(child: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
