"""Kill writers of the log with SIGKILL at random moments and look at what they left.

    python kill_harness.py FOLDER KILLS SEED WRITER

A writer is a fork that finds out what is known, claims an epoch, appends what is missing and tells each block on a pipe
after it was acknowledged. After the kill another fork verifies the store: everything told is readable, every value is
exact, no point is there twice, nothing is reported damaged, and the sidecars say the same as the log. Then the next
writer goes on in the same store. `early` and `rewriting` are broken on purpose: the harness must catch them.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.declare.grid import Status, grid
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.coverage import known, todo
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Failure, Frame, Outcomes, encode, spill
from mce_notebook.store.journal import Journal, claim_epoch
from mce_notebook.store.reader import LogReader

POINTS = 60_000
BLOCK = 20
LIVES = 12
READY = b"ready\n"
Tell = Callable[[int], None]


def block(sweep: SweepStore, epoch: int, index: np.ndarray) -> list[Frame]:
    """Frames of several schemas: plain, with failures, with a payload of its own, of mixed kinds."""
    number = int(index[0]) // BLOCK
    points = index.tolist()
    values: list[Any] = [(float(np.sqrt(point)), point) for point in points]
    failures = {}
    if number % 3 == 1:
        failed = [at for at, point in enumerate(points) if point % 7 == 0]
        failures = {at: Failure(Status.FAILED, "ValueError", f"point {points[at]}") for at in failed}
    if number % 5 == 2:
        values[-1] = (points[-1], 2.5)
    meta = {"version": "v1", "seconds": "0.1"}
    made = encode(Outcomes(values, failures=failures), ("a", "b"), declaration=1, ranges=index, meta=meta)
    return [spill(frame, sweep.paths.big_epoch(epoch)) if number % 7 == 3 else frame for frame in made]


class Good:
    """The journal as it is."""

    def __init__(self, sweep: SweepStore, epoch: int):
        self.journal = Journal(sweep.paths, epoch, roll=20_000)

    def append(self, frames: list[Frame], number: int, tell: Tell) -> None:
        self.journal.append(frames)
        tell(number)


class Pieces(Good):
    """The journal, its writes cut into pieces, so that kills do land inside frames."""

    def __init__(self, sweep: SweepStore, epoch: int):
        super().__init__(sweep, epoch)
        os.writev = lambda descriptor, pieces: os.write(descriptor, b"".join(pieces)[:400])  # type: ignore[assignment]


class Early(Good):
    """Broken: tells before it writes."""

    def append(self, frames: list[Frame], number: int, tell: Tell) -> None:
        tell(number)
        time.sleep(0.002)
        self.journal.append(frames)


class Rewriting(Good):
    """Broken: goes on in a segment of the first epoch, over what is there."""

    def __init__(self, sweep: SweepStore, epoch: int):
        super().__init__(sweep, epoch)
        path = sweep.paths.segment(1, 900_000)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("wb", buffering=0)
        self.head = b""

    def append(self, frames: list[Frame], number: int, tell: Tell) -> None:
        for frame in frames:
            if not self.head:
                self.head = frame.head
                self.file.write(frame.head)
            if frame.head == self.head:
                self.file.write(frame.body)
            else:
                self.journal.append([frame])
        tell(number)


WRITERS: dict[str, type[Good]] = {"good": Good, "pieces": Pieces, "early": Early, "rewriting": Rewriting}


def write(sweep: SweepStore, writer: type[Good], pipe: int) -> None:
    found = known(sweep, sweep.declaration(1))
    epoch = claim_epoch(sweep.paths, {"pid": os.getpid()})
    journal = writer(sweep, epoch)
    os.write(pipe, READY)
    # By points, not by blocks: a kill may have left one of the frames of a block.
    missing = todo(found, sweep.declaration(1)).reshape(-1, BLOCK)
    for number in np.flatnonzero(missing.any(axis=1)).tolist():
        frames = block(sweep, epoch, np.flatnonzero(missing[number]) + number * BLOCK)
        journal.append(frames, number, lambda told: os.write(pipe, b"%d\n" % told))


def verify(sweep: SweepStore, told: set[int]) -> int:
    """Check everything; returns the number of points found."""
    reader = LogReader(sweep.paths)
    status = np.zeros(POINTS, np.uint8)
    for batch in reader.stream():
        index = np.asarray(batch.index)
        assert not status[index].any(), "a point is there twice"
        assert len(np.unique(index)) == len(index), "a point is in a batch twice"
        status[index] = int(Status.DONE) if batch.status is None else batch.status
        check(batch, index, status[index])
    assert reader.problems == [], reader.problems
    lost = [number for number in told if not status[number * BLOCK : (number + 1) * BLOCK].all()]
    assert not lost, f"{len(lost)} acknowledged blocks are lost"
    found = known(sweep, sweep.declaration(1))
    assert np.array_equal(found.status, status), "the sidecars differ from the log"
    return int(np.count_nonzero(status))


def check(batch: Any, index: np.ndarray, status: np.ndarray) -> None:
    done = status == int(Status.DONE)
    if not done.any():
        return
    first, second = (batch.columns[name].values()[done] for name in ("a", "b"))
    odd = batch.columns["a"].kind.dtype == "int64"
    assert np.array_equal(first, index[done] if odd else np.sqrt(index[done])), "a wrong value"
    assert np.array_equal(second, np.full(done.sum(), 2.5) if odd else index[done]), "a wrong value"
    for at, failure in batch.failures.items():
        assert failure.message == f"point {index[at]}", "a wrong failure"


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """Run in a child; returns its pid and the end of the pipe it writes to."""
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    os.close(out)
    try:
        work(into)
    except BaseException:
        os.write(into, b"\nERROR " + traceback.format_exc().encode())
    os._exit(0)


def drain(pipe: int) -> str:
    with os.fdopen(pipe, "rb") as file:
        return file.read().decode()


def main(folder: Path, kills: int, seed: int, name: str) -> dict[str, Any]:
    chance = random.Random(seed)
    report: dict[str, Any] = {"kills": 0, "blocks": 0, "unacknowledged": 0, "failures": []}
    sweep = None
    told: set[int] = set()
    warm(folder)
    for life in range(kills):
        if sweep is None or life % LIVES == 0:
            sweep = Store(folder / f"s{life}").create("fuzz", 1)
            sweep.declare(Declaration.of(grid(i=range(POINTS)), outputs=("a", "b"), version="v1"))
            told = set()
        place = sweep
        pid, pipe = fork(lambda into: write(place, WRITERS[name], into))
        # Some kills fall into opening and claiming, the rest a moment after some block was told.
        wanted = 0 if chance.random() < 0.15 else chance.randint(1, 25)
        begun = b""
        while begun.count(b"\n") < wanted and b"ERROR" not in begun and (piece := os.read(pipe, 4096)):
            begun += piece
        time.sleep(chance.expovariate(1 / 0.002))
        os.kill(pid, signal.SIGKILL)
        said = begun.decode() + drain(pipe)
        os.waitpid(pid, 0)
        new = {int(line) for line in said.split("ERROR")[0].split("\n")[:-1] if line.isdigit()}
        told |= new
        report["kills"] += 1
        report["blocks"] += len(new)
        result = said[said.index("ERROR") :] if "ERROR" in said else judge(place, told)
        if result.isdigit():
            report["unacknowledged"] += int(result) - len(told) * BLOCK
        else:
            report["failures"].append(result[-400:])
            sweep = None
    return report


def warm(folder: Path) -> None:
    """Use everything once, so that forks do not spend their lives on imports."""
    sweep = Store(folder / "warm").create("fuzz", 1)
    sweep.declare(Declaration.of(grid(i=range(POINTS)), outputs=("a", "b"), version="v1"))
    journal = Journal(sweep.paths, claim_epoch(sweep.paths, {}))
    for number in range(8):
        journal.append(block(sweep, 1, np.arange(number * BLOCK, (number + 1) * BLOCK)))
    assert verify(sweep, set(range(8))) == 8 * BLOCK


def judge(sweep: SweepStore, told: set[int]) -> str:
    pid, pipe = fork(lambda into: os.write(into, b"%d" % verify(sweep, told)) and None)
    result = drain(pipe)
    os.waitpid(pid, 0)
    return result or "the verifier crashed"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
