from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mce_notebook.declare.grid import Status
from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.compact import compact
from mce_notebook.store.frames import Batch, Failure, Frame, Outcomes, encode, spill
from mce_notebook.store.journal import Journal, claim_epoch
from mce_notebook.store.reader import LogReader

Make = Callable[..., list[Frame]]


def view(batches: list[Batch]) -> dict[int, Any]:
    """Everything a reader can tell of each point."""
    found: dict[int, Any] = {}
    for batch in batches:
        for at, index in enumerate(np.asarray(batch.index).tolist()):
            assert index not in found
            values = {}
            for name, column in batch.columns.items():
                if column.valid is None or column.valid[at]:
                    value = column.values()[at]
                    values[name] = (str(np.asarray(value).dtype), np.asarray(value).tolist())
            spent = batch.seconds[at] if batch.seconds is not None else np.float32((batch.total or 0) / len(batch))
            status = int(Status.DONE) if batch.status is None else int(batch.status[at])
            found[index] = (
                values,
                status,
                float(spent),
                batch.failures.get(at),
                batch.outputs.get(at),
                batch.version,
                batch.generation,
                batch.worker,
                batch.order[:2],
            )
    return found


def write(sweep: SweepStore, block: Callable[[int], list[Frame]], blocks: int = 40) -> None:
    with Journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
        for number in range(blocks):
            journal.append(block(number))


def outcome(number: int) -> Outcomes:
    values: list[Any] = [
        (float(at), f"s{at % 3}", np.full((number % 3 + 1, 2), at), np.arange(at % 4) * 1j, np.arange(3.0))
        for at in range(5)
    ]
    failures = {1: Failure(Status.FAILED, "E", f"block {number}", output="tail")} if number % 4 == 1 else {}
    return Outcomes(values, failures=failures, tails={2: f"said {number % 2}"} if number % 5 == 0 else {})


def block(number: int) -> list[Frame]:
    meta = {"version": f"v{number % 2}", "worker": f"w{number % 3}", "seconds": str(0.5 * number), "generation": "1"}
    start = number * 5
    index = (
        np.array([start + 4, start, start + 1, start + 3, start + 2])
        if number % 7 == 0
        else np.arange(start, start + 5)
    )
    return encode(outcome(number), ("a", "b", "c", "d", "e"), declaration=1, ranges=index, meta=meta)


def test_a_compacted_log_reads_the_same(sweep: SweepStore) -> None:
    write(sweep, block, 200)
    before = LogReader(sweep.paths).poll()
    assert compact(sweep) >= 2
    after = LogReader(sweep.paths).poll()
    assert len(after) < len(before) / 4
    assert view(after) == view(before)
    assert LogReader(sweep.paths).problems == []
    assert compact(sweep) == 0


def test_any_arrow_reader_finds_the_points(sweep: SweepStore, frames: Make) -> None:
    write(sweep, lambda number: frames(number * 10, number * 10 + 10))
    assert compact(sweep) == 1
    table = pa.ipc.open_stream(sweep.paths.compacted(1, 0).read_bytes()).read_all()
    assert table.column("_index").to_pylist() == table.column("b").to_pylist() == list(range(400))


def test_payloads_stay_where_they_are(sweep: SweepStore) -> None:
    write(sweep, lambda number: [spill(frame, sweep.paths.big_epoch(1)) for frame in block(number)])
    before = view(LogReader(sweep.paths).poll())
    assert compact(sweep) >= 1
    assert view(LogReader(sweep.paths).poll()) == before


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_compacted_file_costs_nothing(sweep: SweepStore, frames: Make, damage: str) -> None:
    write(sweep, lambda number: frames(number * 10, number * 10 + 10))
    before = view(LogReader(sweep.paths).poll())
    compact(sweep)
    path = sweep.paths.compacted(1, 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flip": data, "cut": data[:-100], "empty": b""}[damage])
    reader = LogReader(sweep.paths)
    assert view(reader.poll()) == before
    assert reader.problems == []


def test_points_that_are_there_twice_keep_their_places(sweep: SweepStore, frames: Make) -> None:
    write(sweep, lambda number: frames(number % 20 * 10, number % 20 * 10 + 10))
    assert compact(sweep) == 0


def test_open_and_damaged_segments_are_left_alone(sweep: SweepStore, frames: Make) -> None:
    journal = Journal(sweep.paths, claim_epoch(sweep.paths, {}))
    for number in range(40):
        journal.append(frames(number * 10, number * 10 + 10))
    assert compact(sweep) == 0
    journal.close()
    path = sweep.paths.segment(1, 0)
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)
    assert compact(sweep) == 0


def test_a_reader_in_the_middle_goes_on_in_the_original(sweep: SweepStore, frames: Make) -> None:
    journal = Journal(sweep.paths, claim_epoch(sweep.paths, {}))
    reader = LogReader(sweep.paths)
    for number in range(20):
        journal.append(frames(number * 10, number * 10 + 10))
    assert len(reader.poll()) == 20
    for number in range(20, 40):
        journal.append(frames(number * 10, number * 10 + 10))
    journal.close()
    assert compact(sweep) == 1
    assert sorted(view(reader.poll())) == list(range(200, 400))
