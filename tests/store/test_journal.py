import errno
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mce_notebook.errors import StoreError, StoreFull
from mce_notebook.store import journal as module
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.frames import Frame, Outcomes, encode
from mce_notebook.store.journal import Journal, claim_epoch, open_journal
from mce_notebook.store.reader import LogReader

Make = Callable[..., list[Frame]]


def seen(sweep: SweepStore) -> dict[int, float]:
    """What a new reader finds; everything must be exact, whatever happened to the writer."""
    reader = LogReader(sweep.paths)
    found: dict[int, float] = {}
    for batch in reader.poll():
        index = np.asarray(batch.index)
        values = batch.columns["a"].values()
        assert values.tobytes() == np.sqrt(index).tobytes()
        found.update(zip(index.tolist(), values.tolist(), strict=True))
    assert reader.problems == []
    return found


@pytest.fixture
def journal(sweep: SweepStore) -> Iterator[Journal]:
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {"pid": os.getpid()})) as made:
        yield made


@pytest.mark.anywhere
def test_what_was_appended_is_read(sweep: SweepStore, journal: Journal, frames: Make) -> None:
    journal.append(frames(0, 10))
    journal.append([*frames(10, 20), *frames(20, 30)])
    assert list(seen(sweep)) == list(range(30))


def test_appending_nothing_is_nothing(sweep: SweepStore, journal: Journal) -> None:
    journal.append([])
    assert sweep.folder.names(sweep.paths.log_epoch(1)) == ["reserve"]


@pytest.mark.anywhere
def test_a_segment_is_an_arrow_stream(sweep: SweepStore, journal: Journal, frames: Make) -> None:
    journal.append(frames(0, 10))
    journal.append(frames(10, 20))
    table = pa.ipc.open_stream(sweep.paths.segment(1, 0).read_bytes()).read_all()
    assert table.column("b").to_pylist() == list(range(20))


@pytest.mark.anywhere
def test_each_schema_has_its_open_segment(sweep: SweepStore, journal: Journal, frames: Make) -> None:
    other = encode(Outcomes(["text"]), ("a",), declaration=1, ranges=[(99, 100)])
    for start in range(0, 30, 10):
        journal.append([*frames(start, start + 10), *other])
    assert sorted(path.name for path in sweep.paths.log_epoch(1).glob("*.arrows")) == ["000000.arrows", "000001.arrows"]


def test_more_schemas_than_open_files(sweep: SweepStore, frames: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_SEGMENTS", 3)
    names = [f"x{at}" for at in range(10)]
    made = [encode(Outcomes([1.0]), (name,), declaration=1, ranges=[(at, at + 1)]) for at, name in enumerate(names)]
    before = len(os.listdir("/dev/fd"))
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
        journal.append([frame for (frame,) in made])
        for (frame,) in made:
            journal.append([frame])
            assert len(os.listdir("/dev/fd")) <= before + 12
    assert len(os.listdir("/dev/fd")) == before
    batches = LogReader(sweep.paths).poll()
    assert sorted(name for batch in batches for name in batch.columns) == sorted(names * 2)


@pytest.mark.anywhere
def test_segments_roll(sweep: SweepStore, frames: Make) -> None:
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {}), roll=5000) as journal:
        for start in range(0, 1000, 50):
            journal.append(frames(start, start + 50))
    segments = sorted(sweep.paths.log_epoch(1).glob("*.arrows"))
    assert len(segments) > 3
    for number, path in enumerate(segments):
        stated = json.loads(sweep.paths.closed(1, number).read_text())
        assert stated["length"] == path.stat().st_size
    assert list(seen(sweep)) == list(range(1000))


def test_a_closed_journal_takes_nothing(sweep: SweepStore, frames: Make) -> None:
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    journal.append(frames(0, 5))
    journal.close()
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.append(frames(5, 10))
    assert not sweep.paths.reserve(1).exists()
    assert len(seen(sweep)) == 5


@pytest.mark.anywhere
def test_epochs_are_claimed_once(sweep: SweepStore) -> None:
    claimed: list[int] = []
    threads = [
        threading.Thread(target=lambda: claimed.extend(claim_epoch(sweep.paths, {}) for _ in range(10)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(1, 61))


@pytest.mark.anywhere
def test_two_writers_at_once_lose_nothing(sweep: SweepStore, frames: Make) -> None:
    def write(start: int) -> None:
        with open_journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
            for at in range(start, start + 500, 10):
                journal.append(frames(at, at + 10))

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 250, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen(sweep)) == list(range(1000))


# The disk says no


class Disk:
    """Counts the calls that change the disk, and fails the one whose turn it is, after half of its bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int):
        self.calls = 0
        self.fails = -1
        self.full = False
        self.error = error
        for name in ("open", "write", "writev", "fdatasync", "fsync", "link", "posix_fallocate"):
            self.wrap(monkeypatch, name)

    def wrap(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            self.calls += 1
            if self.calls == self.fails or (self.full and self.calls > self.fails):
                if name == "writev":
                    whole = b"".join(args[1])
                    os_write(args[0], whole[: len(whole) // 2])
                raise OSError(self.error, os.strerror(self.error))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)


os_write = os.write


@pytest.mark.parametrize("stays", [False, True], ids=["once", "until freed"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_an_error_at_every_call(
    store: Store, frames: Make, monkeypatch: pytest.MonkeyPatch, error: int, stays: bool
) -> None:
    disk = Disk(monkeypatch, error)
    expected = StoreError if error == errno.EIO else StoreFull
    for turn in range(1, 400):
        sweep = store.create(f"s{turn}", 1)
        journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}), roll=1500)
        disk.fails, disk.full = disk.calls + turn, stays
        work(sweep, journal, frames, expected, disk)
        journal.close()
        reached = disk.calls >= disk.fails
        disk.fails, disk.full = -1, False
        assert sorted(seen(sweep)) == list(range(60))
        if not reached:
            break
    else:
        raise AssertionError("the calls never ended")
    assert turn > 30


def work(sweep: SweepStore, journal: Journal, frames: Make, expected: type[Exception], disk: Disk) -> None:
    """Append six blocks, each again until it is taken; the room comes back after two refusals."""
    failed = 0
    for start in range(0, 60, 10):
        while True:
            try:
                journal.append(frames(start, start + 10))
            except expected:
                failed += 1
                disk.full = disk.full and failed < 2
                assert set(range(start)) <= set(seen(sweep))
                continue
            break
        assert set(range(start + 10)) <= set(seen(sweep))


def test_after_an_error_nothing_is_appended_behind_it(
    sweep: SweepStore, journal: Journal, frames: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(frames(0, 10))
    committed = sweep.paths.segment(1, 0).stat().st_size
    disk = Disk(monkeypatch, errno.ENOSPC)
    disk.fails = 1
    with pytest.raises(StoreFull, match="Free some space; what was stored is safe"):
        journal.append(frames(10, 20))
    torn = sweep.paths.segment(1, 0).stat().st_size
    assert torn > committed
    journal.append(frames(10, 20))
    assert sweep.paths.segment(1, 0).stat().st_size == torn
    assert json.loads(sweep.paths.closed(1, 0).read_text())["length"] == committed
    assert sorted(seen(sweep)) == list(range(20))


def test_the_reserve_is_given_up_for_the_state(
    sweep: SweepStore, journal: Journal, frames: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(frames(0, 10))
    assert sweep.paths.reserve(1).stat().st_size == module.RESERVE
    disk = Disk(monkeypatch, errno.ENOSPC)
    disk.fails = 1
    with pytest.raises(StoreFull):
        journal.append(frames(10, 20))
    assert not sweep.paths.reserve(1).exists()
    journal.append(frames(10, 20))
    assert sweep.paths.reserve(1).exists()


@pytest.mark.anywhere
def test_short_writes_are_continued(
    sweep: SweepStore, journal: Journal, frames: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(descriptor: int, pieces: list[Any]) -> int:
        return os_write(descriptor, b"".join(pieces)[:1000])

    monkeypatch.setattr(os, "writev", short)
    journal.append([frame for start in range(0, 1000, 10) for frame in frames(start, start + 10)])
    assert sorted(seen(sweep)) == list(range(1000))


WRITER = """
import json, math, sys
from pathlib import Path
from mce_notebook.errors import StoreFull
from mce_notebook.store.catalog import Store
from mce_notebook.store.frames import Outcomes, encode
from mce_notebook.store.journal import Journal, claim_epoch, open_journal

sweep = Store(sys.argv[1]).sweep("recovery")
journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
acknowledged = 0
try:
    for start in range(0, 200_000, 1000):
        values = [(math.sqrt(at), at) for at in range(start, start + 1000)]
        journal.append(encode(Outcomes(values), ("a", "b"), declaration=1, ranges=[(start, start + 1000)]))
        acknowledged = start + 1000
except StoreFull as error:
    print(json.dumps([acknowledged, str(error)]))
"""


def test_a_real_limit_on_the_size_of_files(sweep: SweepStore, frames: Make) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(sweep.paths.folder.parent)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000)),
    )
    acknowledged, said = json.loads(done.stdout)
    assert 0 < acknowledged < 200_000
    assert "No room left" in said
    found = seen(sweep)
    assert set(range(acknowledged)) <= set(found)
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
        journal.append(frames(acknowledged, acknowledged + 2000))
    assert set(range(acknowledged + 2000)) <= set(seen(sweep))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A real file system of 4 MB; None where mounting one is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    yield place if mounted.returncode == 0 else None
    if mounted.returncode == 0:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_really_is_full(small_disk: Path | None, tmp_path: Path, frames: Make) -> None:
    # Without the right to mount, the limit on file sizes above is what shows it.
    place = small_disk or tmp_path
    sweep = Store(place / "experiments").create("recovery", 1)
    ballast = place / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    acknowledged = 0
    while acknowledged < 200_000:
        try:
            journal.append(frames(acknowledged, acknowledged + 1000))
        except StoreFull:
            break
        acknowledged += 1000
    if small_disk:
        assert 0 < acknowledged < 200_000
        sweep.add_intent("pause", "disk full")
        with pytest.raises(StoreFull):
            journal.append(frames(acknowledged, acknowledged + 100_000))
        ballast.unlink()
        journal.append(frames(acknowledged, acknowledged + 1000))
        acknowledged += 1000
    journal.close()
    assert set(range(acknowledged)) <= set(seen(sweep))


def test_a_writer_whose_sweep_was_moved_leaves_the_next_one_of_that_name_alone(
    store: Store, sweep: SweepStore, frames: Make
) -> None:
    def claimed(target: SweepStore) -> Journal:
        return open_journal(target.paths, claim_epoch(target.paths, {"pid": os.getpid()}))

    old = claimed(sweep)
    old.append(frames(0, 10))
    # As people do it the moment the result is there, while the host is about to close the log.
    sweep.paths.folder.rename(sweep.paths.folder.with_name("kept"))
    fresh = store.create("recovery", 43)
    declaration = SweepStore(store.layout.sweep("kept")).latest()
    assert declaration is not None
    fresh.declare(declaration)
    new = claimed(fresh)
    assert (new.epoch, old.epoch) == (1, 1)
    new.append(frames(0, 20))
    with pytest.raises(StoreError):
        # Another schema, hence another segment.
        old.append(encode(Outcomes([1]), ("c",), declaration=1, ranges=[(30, 31)], meta={"version": "v1"}))
    old.close()
    assert fresh.folder.names(fresh.paths.log_epoch(1)) == ["000000.arrows", "coverage", "reserve"]
    new.append(frames(20, 30))
    new.close()
    assert list(seen(fresh)) == list(range(30))
    assert list(seen(SweepStore(store.layout.sweep("kept")))) == list(range(10))
