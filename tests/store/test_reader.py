import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import grid
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Frame, Outcomes, encode
from mce_notebook.store.journal import claim_epoch, open_journal
from mce_notebook.store.reader import LogReader, SegmentReader

Make = Callable[..., list[Frame]]


def points(reader: LogReader) -> list[int]:
    found: list[int] = []
    for batch in reader.poll():
        index = np.asarray(batch.index)
        assert batch.columns["a"].values().tobytes() == np.sqrt(index).tobytes()
        assert batch.columns["b"].values().tolist() == index.tolist()
        found += index.tolist()
    return found


@pytest.fixture
def written(sweep: SweepStore, frames: Make) -> Path:
    """The segment of five blocks of ten points, of a writer that was killed."""
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    for start in range(0, 50, 10):
        journal.append(frames(start, start + 10))
    sweep.paths.coverage(1).unlink()
    return sweep.paths.segment(1, 0)


def close(sweep: SweepStore, length: int) -> None:
    sweep.paths.closed(1, 0).write_text(json.dumps({"length": length, "frames": 5}))


def ends(path: Path) -> list[int]:
    reader = SegmentReader(path)
    starts = [offset for offset, _, _ in reader.read()]
    return [*starts[1:], path.stat().st_size]


@pytest.mark.anywhere
def test_only_what_is_new_is_read(sweep: SweepStore, frames: Make) -> None:
    reader = LogReader(sweep.paths)
    assert points(reader) == []
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
        for start in range(0, 50, 10):
            journal.append(frames(start, start + 10))
            assert points(reader) == list(range(start, start + 10))
            assert points(reader) == []
    assert points(reader) == []
    assert reader.problems == []


@pytest.mark.anywhere
def test_a_cursor_goes_on_in_another_process(sweep: SweepStore, frames: Make) -> None:
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
        journal.append(frames(0, 10))
        first = LogReader(sweep.paths)
        assert points(first) == list(range(10))
        journal.append(frames(10, 20))
        assert points(LogReader(sweep.paths, first.cursor)) == list(range(10, 20))


@pytest.mark.anywhere
def test_order_tells_epoch_segment_and_offset(sweep: SweepStore, frames: Make) -> None:
    for start in (0, 20):
        with open_journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
            journal.append(frames(start, start + 10))
            journal.append(frames(start + 10, start + 20))
    orders = [batch.order for batch in LogReader(sweep.paths).poll()]
    assert [order[:2] for order in orders] == [(1, 0), (1, 0), (2, 0), (2, 0)]
    assert orders[0][2] == orders[2][2] < orders[1][2]


def test_a_log_cut_at_every_byte_of_its_last_frame_is_waited_for(sweep: SweepStore, written: Path) -> None:
    whole = written.read_bytes()
    *_, last, _ = ends(written)
    for cut in range(last, len(whole)):
        written.write_bytes(whole[:cut])
        reader = LogReader(sweep.paths)
        assert points(reader) == list(range(40))
        assert reader.problems == []
        written.write_bytes(whole)
        assert points(reader) == list(range(40, 50))


def test_a_log_cut_anywhere_gives_the_whole_frames(sweep: SweepStore, written: Path) -> None:
    whole = written.read_bytes()
    limits = ends(written)
    for cut in range(0, len(whole), 7):
        written.write_bytes(whole[:cut])
        reader = LogReader(sweep.paths)
        assert points(reader) == list(range(10 * sum(end <= cut for end in limits)))
        assert reader.problems == []


def test_a_zero_filled_tail_is_torn(sweep: SweepStore, written: Path) -> None:
    whole = written.read_bytes()
    for count in (1, 8, 64, 4096):
        written.write_bytes(whole + bytes(count))
        reader = LogReader(sweep.paths)
        assert points(reader) == list(range(50))
        assert reader.problems == []


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 40, os.urandom(100), b"\xff\xff\xff\xff\x00\x00\x00\x00"],
    ids=["ones", "random", "marker"],
)
def test_garbage_at_the_end_of_an_open_segment_is_waited_for(sweep: SweepStore, written: Path, garbage: bytes) -> None:
    written.write_bytes(written.read_bytes() + garbage)
    reader = LogReader(sweep.paths)
    assert points(reader) == list(range(50))
    assert reader.problems == []


def test_bytes_behind_the_stated_length_are_ignored(sweep: SweepStore, written: Path, frames: Make) -> None:
    length = written.stat().st_size
    written.write_bytes(written.read_bytes() + frames(50, 60)[0].body + b"rubbish")
    close(sweep, length)
    reader = LogReader(sweep.paths)
    assert points(reader) == list(range(50))
    assert reader.problems == []


def test_damage_of_closed_segments_is_told_apart(sweep: SweepStore, written: Path) -> None:
    whole = written.read_bytes()
    limits = ends(written)
    close(sweep, len(whole))

    def problem(data: bytes) -> str:
        written.write_bytes(data)
        reader = LogReader(sweep.paths)
        points(reader)
        (text,) = reader.problems
        return text

    assert f"{len(whole) - limits[3]} bytes are missing from byte {limits[3]}" in problem(whole[: limits[3]])
    assert "bytes are missing" in problem(whole[:-1])
    zeros = whole[: limits[2]] + bytes(limits[3] - limits[2]) + whole[limits[3] :]
    assert f"zero-filled from byte {limits[2]}" in problem(zeros)
    flipped = bytearray(whole)
    flipped[limits[2] + 500] ^= 16
    assert f"corrupt at byte {limits[2]} (the checksum differs)" in problem(bytes(flipped))
    assert "bytes are missing from byte 0" in problem(b"")


def test_what_is_behind_damage_is_read(sweep: SweepStore, written: Path) -> None:
    whole = bytearray(written.read_bytes())
    limits = ends(written)
    whole[limits[1] + 300] ^= 1
    written.write_bytes(whole)
    reader = LogReader(sweep.paths)
    assert points(reader) == [*range(20), *range(30, 50)]
    assert len(reader.problems) == 1
    close(sweep, len(whole))
    points(reader)
    assert len(reader.problems) == 1
    assert points(LogReader(sweep.paths)) == [*range(20), *range(30, 50)]


def test_a_gap_that_fills_later_is_no_damage(sweep: SweepStore, written: Path) -> None:
    whole = written.read_bytes()
    limits = ends(written)
    written.write_bytes(whole[: limits[1]] + bytes(limits[2] - limits[1]) + whole[limits[2] : limits[3]])
    reader = LogReader(sweep.paths)
    assert points(reader) == [*range(20), *range(30, 40)]
    assert "zero-filled" in reader.problems[0]
    written.write_bytes(whole)
    assert points(reader) == [*range(20, 30), *range(40, 50)]
    assert reader.problems == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_never_gives_a_wrong_value(
    data: st.DataObject, sweep: SweepStore, written: Path
) -> None:
    whole = bytearray(written.with_suffix(".whole").read_bytes() if written.with_suffix(".whole").exists() else b"")
    if not whole:
        whole = bytearray(written.read_bytes())
        written.with_suffix(".whole").write_bytes(whole)
    closed = data.draw(st.booleans())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    written.write_bytes(whole)
    sweep.paths.closed(1, 0).unlink(missing_ok=True)
    if closed:
        close(sweep, len(whole))
    reader = LogReader(sweep.paths)
    found = points(reader)
    assert set(found) <= set(range(50))
    assert len(set(found)) == len(found)
    if closed:
        assert reader.problems
        assert len(found) in (0, 40)


def test_a_flipped_bit_of_the_schema_loses_the_segment_and_is_told(sweep: SweepStore, written: Path) -> None:
    whole = written.read_bytes()
    close(sweep, len(whole))
    start = next(SegmentReader(written).read())[0]
    for at in range(start):
        for bit in (0, 2, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            written.write_bytes(damaged)
            reader = LogReader(sweep.paths)
            assert points(reader) == []
            assert reader.problems


def test_a_damaged_segment_does_not_hide_the_others(sweep: SweepStore, frames: Make) -> None:
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {}), roll=100) as journal:
        for start in range(0, 50, 10):
            journal.append(frames(start, start + 10))
    path = sweep.paths.segment(1, 2)
    path.write_bytes(bytes(path.stat().st_size))
    reader = LogReader(sweep.paths)
    assert points(reader) == [*range(20), *range(30, 50)]
    assert "zero-filled" in reader.problems[0]


def test_a_missing_segment_is_told(sweep: SweepStore, frames: Make) -> None:
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {}), roll=100) as journal:
        for start in range(0, 30, 10):
            journal.append(frames(start, start + 10))
    sweep.paths.segment(1, 1).unlink()
    reader = LogReader(sweep.paths)
    assert points(reader) == [*range(10), *range(20, 30)]
    assert "1 segments are missing" in reader.problems[0]


def test_files_that_are_not_ours_are_left_alone(sweep: SweepStore, written: Path) -> None:
    for name in ("notes.txt", "1.arrows", ".000001.arrows.swp"):
        (written.parent / name).write_text("hello")
    (sweep.paths.log / "e1").mkdir()
    (sweep.paths.log / "README").write_text("hello")
    reader = LogReader(sweep.paths)
    assert points(reader) == list(range(50))
    assert reader.problems == []


@pytest.mark.parametrize("text", ["", "[]", '{"length": "x"}', "{"])
def test_a_marker_that_says_nothing_is_none(sweep: SweepStore, written: Path, text: str) -> None:
    sweep.paths.closed(1, 0).write_text(text)
    reader = LogReader(sweep.paths)
    assert points(reader) == list(range(50))
    assert reader.problems == []


def test_batches_are_read_one_at_a_time(store: Store) -> None:
    sweep = store.create("long", 1)
    sweep.declare(Declaration.of(grid(i=range(100_000)), outputs=("x",), version="v1"))
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {}), roll=1 << 16) as journal:
        for start in range(0, 100_000, 10_000):
            values = [float(at) for at in range(start, start + 10_000)]
            journal.append(encode(Outcomes(values), ("x",), declaration=1, ranges=[(start, start + 10_000)]))
    reader = LogReader(sweep.paths)
    stream = reader.stream()
    assert next(stream).index == range(10_000)
    assert len(reader._segments) == 1
    assert sum(len(batch) for batch in stream) == 90_000


def test_the_checksum_covers_every_byte(frames: Make) -> None:
    from mce_notebook.store.messages import Damaged, Incomplete, frame_end

    (frame,) = frames(0, 10)
    seed = zlib.crc32(frame.head)
    assert frame_end(memoryview(frame.body), 0, seed) == len(frame.body)
    for at in range(len(frame.body)):
        damaged = bytearray(frame.body)
        damaged[at] ^= 0x41
        with pytest.raises((Damaged, Incomplete)):
            frame_end(memoryview(damaged), 0, seed)
