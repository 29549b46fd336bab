"""The log against a model that cannot fail: a dict of points to the outcome that counts."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mce_notebook.declare.grid import Status, grid
from mce_notebook.errors import StoreFull
from mce_notebook.store.catalog import Store
from mce_notebook.store.compact import compact
from mce_notebook.store.coverage import known
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Failure, Outcomes, encode, spill
from mce_notebook.store.journal import Journal, claim_epoch
from mce_notebook.store.reader import LogReader

POINTS = 120
FAILED, DONE = int(Status.FAILED), int(Status.DONE)
# generation, good, minus (epoch, segment, offset), value
Ranked = tuple[int, bool, tuple[int, ...], float]


class LogModel(RuleBasedStateMachine):
    """Several writers, readers that come and go, full disks, lost sidecars, new declarations."""

    @initialize()
    def start(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="mce-", dir=memory if os.access(memory, os.W_OK) else None))
        self.sweep = Store(self.folder / "experiments").create("model", 1)
        self.declared = {1: 0}
        self.sweep.declare(Declaration.of(grid(i=range(POINTS)), outputs=("x",), version="v"))
        self.writers: list[Journal] = []
        self.reader = LogReader(self.sweep.paths)
        self.read: dict[int, Ranked] = {}
        self.model: dict[int, tuple[int, bool]] = {}
        self.value = 0.0

    def teardown(self) -> None:
        for writer in getattr(self, "writers", []):
            writer.close()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule()
    def open_writer(self) -> None:
        if len(self.writers) < 3:
            self.writers.append(Journal(self.sweep.paths, claim_epoch(self.sweep.paths, {}), roll=2000))

    @rule(which=st.integers(0, 2))
    def close_writer(self, which: int) -> None:
        if which < len(self.writers):
            self.writers.pop(which).close()

    @rule(shift=st.integers(-20, 20))
    def declare(self, shift: int) -> None:
        """The same points under other indices, so that all of it goes through label arithmetic."""
        design = grid(i=range(shift, POINTS + shift))
        number = self.sweep.declare(Declaration.of(design, outputs=("x",), version="v"))
        self.declared[number] = shift

    @rule(
        which=st.integers(0, 2),
        start=st.integers(0, POINTS - 1),
        count=st.integers(1, 30),
        failed=st.sets(st.integers(0, 29), max_size=5),
        generation=st.integers(0, 2),
        style=st.sampled_from(["plain", "spill", "scattered", "text", "full"]),
        data=st.data(),
    )
    def append(
        self, which: int, start: int, count: int, failed: set[int], generation: int, style: str, data: st.DataObject
    ) -> None:
        if which >= len(self.writers):
            return
        writer = self.writers[which]
        number = data.draw(st.sampled_from(sorted(self.declared)))
        index = np.arange(start, min(POINTS, start + count))
        if style == "scattered":
            index = index[::-1].copy()
        self.value += 1
        values: list[Any] = [self.value + at / 1000 for at in range(len(index))]
        if style == "text":
            values[0] = f"{values[0]}"
        failures = {at: Failure(Status.FAILED, "E", "m") for at in failed if at < len(index)}
        meta = {"version": "v", "generation": str(generation)}
        frames = encode(Outcomes(values, failures=failures), ("x",), declaration=number, ranges=index, meta=meta)
        if style == "spill":
            frames = [spill(frame, self.sweep.paths.big_epoch(writer.epoch)) for frame in frames]
        if style == "full":
            self.refuse(writer, frames)
        writer.append(frames)
        for at, listed in enumerate(index.tolist()):
            point, good = listed + self.declared[number], at not in failures
            self.model[point] = max(self.model.get(point, (-1, False)), (generation, good))

    def refuse(self, writer: Journal, frames: Any) -> None:
        real = os.writev

        def torn(descriptor: int, pieces: Any) -> int:
            whole = b"".join(pieces)
            os.write(descriptor, whole[: len(whole) // 2])
            raise OSError(28, "No space left on device")

        os.writev = torn  # type: ignore[assignment]
        try:
            writer.append(frames)
        except StoreFull:
            return
        finally:
            os.writev = real
        raise AssertionError("a full disk went unnoticed")

    @rule()
    def lose_sidecars(self) -> None:
        for path in self.sweep.paths.log.glob("*/coverage"):
            path.unlink()

    @rule()
    def compact(self) -> None:
        compact(self.sweep, least=2)

    @rule()
    def poll(self) -> None:
        for batch in self.reader.poll():
            self.absorb(batch, self.read)

    def absorb(self, batch: Any, found: dict[int, Ranked]) -> None:
        column = batch.columns.get("x")
        values = column.values() if column is not None else np.full(len(batch), np.nan)
        for at, listed in enumerate(np.asarray(batch.index).tolist()):
            good = batch.status is None or batch.status[at] == DONE
            order = tuple(-part for part in batch.order)
            ranked = (batch.generation, good, order, float(values[at]) if good else 0.0)
            point = listed + self.declared[batch.declaration]
            found[point] = max(found.get(point, ranked), ranked)

    @invariant()
    def a_new_reader_sees_what_an_old_one_does(self) -> None:
        if not hasattr(self, "reader"):
            return
        self.poll()
        fresh: dict[int, Ranked] = {}
        reader = LogReader(self.sweep.paths)
        for batch in reader.poll():
            self.absorb(batch, fresh)
        # A compacted batch has the place of its first frame, which is all the ranking needs.
        assert {point: (*ranked[:2], ranked[3]) for point, ranked in fresh.items()} == {
            point: (*ranked[:2], ranked[3]) for point, ranked in self.read.items()
        }
        assert reader.problems == self.reader.problems == []
        assert {point: ranked[:2] for point, ranked in fresh.items()} == self.model

    @invariant()
    def what_is_known_is_what_was_acknowledged(self) -> None:
        if not hasattr(self, "reader"):
            return
        latest = max(self.declared)
        found = known(self.sweep, self.sweep.declaration(latest))
        assert found.problems == []
        for listed in range(POINTS):
            expected = self.model.get(listed + self.declared[latest])
            if expected is None:
                assert (found.status[listed], found.generation[listed]) == (0, -1)
            else:
                assert found.generation[listed] == expected[0]
                assert found.status[listed] == (DONE if expected[1] else FAILED)


LogModel.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestLog = LogModel.TestCase
