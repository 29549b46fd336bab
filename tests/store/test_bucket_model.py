"""The log in a bucket against a set that cannot fail: several machines, requests that fail or lose their answers."""

import contextlib
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mce_notebook.declare.grid import grid
from mce_notebook.errors import StoreError
from mce_notebook.store import bucket_journal, mirror
from mce_notebook.store.bucket_folder import BucketFolder
from mce_notebook.store.bucket_journal import BucketJournal
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.folder import LocalFolder
from mce_notebook.store.frames import Outcomes, encode
from mce_notebook.store.journal import claim_epoch
from mce_notebook.store.reader import LogReader

POINTS = 400
MACHINES = 3


class Machine:
    """One machine: its mirror, and requests of which one will fail."""

    def __init__(self, root: Path, address: str):
        self.folder = BucketFolder(root, address)
        self.sweep = SweepStore(Store(root).layout.sweep("model"), self.folder)
        self.fails, self.fate = -1, ""
        bucket = self.folder.bucket
        bucket.hasty = bucket
        for verb in ("get", "put", "create", "entries", "delete"):
            setattr(bucket, verb, self.unsure(getattr(bucket, verb)))

    def unsure(self, call: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> Any:
            self.fails -= 1
            if self.fails == 0 and self.fate == "before":
                raise StoreError("the connection was refused")
            result = call(*args, **kwargs)
            if self.fails == 0:
                raise StoreError("the answer was lost")
            return result

        return made

    def seen(self) -> set[int]:
        """What a new reader finds here now; every value must be exact."""
        self.fails = -1
        self.folder.refresh(self.sweep.paths.folder, strictly=True)
        reader = LogReader(self.sweep.paths)
        found: set[int] = set()
        for batch in reader.poll():
            index = np.asarray(batch.index)
            assert batch.columns["x"].values().tobytes() == np.sqrt(index).tobytes()
            found |= set(index.tolist())
        assert reader.problems == []
        return found


class BucketLog(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.before = bucket_journal.COMMIT_SECONDS, bucket_journal.MERGE, mirror.POLL_SECONDS
        bucket_journal.COMMIT_SECONDS, bucket_journal.MERGE, mirror.POLL_SECONDS = 0.0, 4, 0.0
        self.place = Path(tempfile.mkdtemp(prefix="mce-"))
        self.address = f"memory://{secrets.token_hex(8)}/model"
        self.machines = [self.machine() for _ in range(MACHINES)]
        first = self.machines[0]
        first.sweep = Store(first.folder.root, first.folder).create("model", 1)
        first.sweep.declare(Declaration.of(grid(i=range(POINTS)), outputs=("x",), version="v"))
        self.writers: list[tuple[Machine, BucketJournal]] = []
        self.told: set[int] = set()
        self.next = 0

    def machine(self) -> Machine:
        return Machine(Path(tempfile.mkdtemp(dir=self.place)), self.address)

    def teardown(self) -> None:
        if not hasattr(self, "before"):
            return
        fresh = self.machine().seen()
        assert self.told <= fresh
        assert all(machine.seen() >= self.told for machine in self.machines)
        for machine, journal in self.writers:
            machine.fails = -1
            journal.close()
        assert self.machine().seen() == self.machines[0].seen() >= fresh
        bucket_journal.COMMIT_SECONDS, bucket_journal.MERGE, mirror.POLL_SECONDS = self.before
        shutil.rmtree(self.place)

    @rule(which=st.integers(0, MACHINES - 1))
    def open_writer(self, which: int) -> None:
        if len(self.writers) < 3:
            machine = self.machines[which]
            machine.fails = -1
            epoch = claim_epoch(machine.sweep.paths, {}, machine.folder)
            self.writers.append((machine, BucketJournal(machine.sweep.paths, epoch, machine.folder, roll=3000)))

    @rule(
        which=st.integers(0, 2),
        sizes=st.lists(st.integers(1, 10), min_size=1, max_size=6),
        fails=st.integers(-1, 12),
        fate=st.sampled_from(["before", "after"]),
        text=st.booleans(),
    )
    def append(self, which: int, sizes: list[int], fails: int, fate: str, text: bool) -> None:
        if which >= len(self.writers):
            return
        machine, journal = self.writers[which]
        machine.fails, machine.fate = fails, fate
        for size in sizes:
            points = [at % POINTS for at in range(self.next, self.next + size)]
            self.next += size
            values: list[Any] = [(float(np.sqrt(at)),) for at in points]
            meta = {"version": "v"} | ({"worker": "w"} if text else {})
            names: tuple[str, ...] = ("x",)
            if text:
                # Another schema, hence another segment.
                names, values = ("x", "y"), [(*value, "text") for value in values]
            frames = encode(Outcomes(values), names, declaration=1, ranges=np.array(points), meta=meta)
            try:
                journal.append(frames)
            except StoreError:
                # As the host does it: the same again until it is taken.
                journal.append(frames)
            self.told |= set(points)

    @rule(which=st.integers(0, 2), fails=st.integers(-1, 12), fate=st.sampled_from(["before", "after"]))
    def close_writer(self, which: int, fails: int, fate: str) -> None:
        if which < len(self.writers):
            machine, journal = self.writers.pop(which)
            machine.fails, machine.fate = fails, fate
            journal.close()

    @rule(which=st.integers(0, 2))
    def kill_writer(self, which: int) -> None:
        if which < len(self.writers):
            self.writers.pop(which)

    @rule(which=st.integers(0, MACHINES - 1))
    def look(self, which: int) -> None:
        assert self.machines[which].seen() >= self.told

    @rule(which=st.integers(0, MACHINES - 1), fails=st.integers(1, 6))
    def look_with_bad_luck(self, which: int, fails: int) -> None:
        machine = self.machines[which]
        machine.fails, machine.fate = fails, "before"
        with contextlib.suppress(StoreError):
            # Raised only where there is nothing to show instead.
            machine.folder.refresh(machine.sweep.paths.folder)

    @rule(which=st.integers(0, MACHINES - 1))
    def lose_mirror(self, which: int) -> None:
        machine = self.machines[which]
        if all(one is not machine for one, _ in self.writers):
            LocalFolder().remove(machine.sweep.paths.folder)
            self.machines[which] = Machine(machine.folder.root, self.address)


TestBucketLog = BucketLog.TestCase
TestBucketLog.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
