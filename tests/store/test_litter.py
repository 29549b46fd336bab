"""What killed writers leave is removed, and nothing else."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mce_notebook.store.big import write_payload
from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.frames import Frame, Outcomes, encode
from mce_notebook.store.journal import Journal, claim_epoch
from mce_notebook.store.litter import OLD, tidy
from mce_notebook.store.reader import LogReader

Make = Callable[..., list[Frame]]


def large(sweep: SweepStore, epoch: int, start: int) -> list[Frame]:
    """A frame whose payload is a file of its own."""
    values = [(np.full(300_000, float(start)), start)]
    return encode(
        Outcomes(values), ("a", "b"), declaration=1, ranges=[(start, start + 1)], meta={"version": "v1"},
        big=sweep.paths.big_epoch(epoch),
    )  # fmt: skip


def left(sweep: SweepStore, claim: dict[str, int]) -> int:
    """An epoch as a kill leaves it: one payload recorded, one not, the reserve there, no marker."""
    epoch = claim_epoch(sweep.paths, claim)
    journal = Journal(sweep.paths, epoch)
    journal.append(large(sweep, epoch, 10 * epoch))
    write_payload(sweep.paths.big_epoch(epoch), b"written and never recorded")
    return epoch


def payloads(sweep: SweepStore, epoch: int) -> list[str]:
    return sweep.folder.names(sweep.paths.big_epoch(epoch))


def test_payloads_of_dead_writers_that_no_record_refers_to(sweep: SweepStore) -> None:
    dead, alive = left(sweep, {"pid": 1}), left(sweep, {"pid": 2})
    mine = left(sweep, {"pid": 3})
    assert tidy(sweep, mine, lambda claim: claim["pid"] != 2) == 2
    assert [len(payloads(sweep, epoch)) for epoch in (dead, alive, mine)] == [1, 2, 2]
    assert not sweep.paths.reserve(dead).exists()
    assert sweep.paths.reserve(alive).exists()
    reader = LogReader(sweep.paths)
    found = [int(index) for batch in reader.poll() for index in np.asarray(batch.index)]
    assert sorted(found) == [10, 20, 30]
    assert not reader.problems
    assert tidy(sweep, mine, lambda claim: claim["pid"] != 2) == 0


def test_an_epoch_that_was_closed_is_tidied_whoever_wrote_it(sweep: SweepStore) -> None:
    epoch = claim_epoch(sweep.paths, {"pid": 1})
    with Journal(sweep.paths, epoch) as journal:
        journal.append(large(sweep, epoch, 1))
        write_payload(sweep.paths.big_epoch(epoch), b"of a block that was given up")
    assert tidy(sweep, epoch + 1, lambda claim: False) == 1
    assert len(payloads(sweep, epoch)) == 1


def test_nothing_is_removed_beside_a_log_that_cannot_be_read(sweep: SweepStore) -> None:
    epoch = left(sweep, {"pid": 1})
    segment = sweep.paths.segment(epoch, 0)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    tidy(sweep, epoch + 1, lambda claim: True)
    assert len(payloads(sweep, epoch)) == 2


@pytest.mark.parametrize("age", [0.0, 2 * OLD])
def test_half_made_files_once_they_are_old(sweep: SweepStore, age: float) -> None:
    root = sweep.paths.folder.parent
    made = [
        sweep.paths.epochs / ".000001.beat.0123456789abcdef",
        sweep.paths.log_epoch(1) / ".000000.closed.0123456789abcdef",
        sweep.paths.folder / "code" / ".0123456789abcdef.tmp" / "experiment.pickle",
        root / ".0123456789abcdef.tmp" / "sweep.json",
        root / ".tmp" / "gone-0123456789abcdef" / "log" / "x",
    ]
    kept = [sweep.paths.folder / ".hidden", sweep.paths.epochs / ".DS_Store", root / ".archive" / "x-1" / "sweep.json"]
    for path in (*made, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    then = time.time() - age
    for path in (
        *made,
        *kept,
        *(parent for path in (*made, *kept) for parent in path.parents if root in parent.parents),
    ):
        os.utime(path, (then, then))
    assert tidy(sweep, 1, lambda claim: False) == (5 if age else 0)
    assert [path.exists() for path in made] == [not age] * 5
    assert all(path.exists() for path in kept)
    assert sweep.latest() is not None


def test_a_link_is_not_followed(sweep: SweepStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years")
    os.utime(precious / "thesis", (0, 0))
    os.utime(precious, (0, 0))
    (sweep.paths.folder.parent / ".tmp").mkdir(exist_ok=True)
    link = sweep.paths.folder.parent / ".tmp" / "link"
    link.symlink_to(precious)
    os.utime(link, (0, 0), follow_symlinks=False)
    assert tidy(sweep, 1, lambda claim: False) == 1
    assert (precious / "thesis").read_text() == "years"


def test_a_clock_that_is_ahead_of_the_file_systems_makes_nothing_old(
    sweep: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, or after a clock was set: what is being written now must not look abandoned."""
    half = sweep.paths.folder / "code" / ".0123456789abcdef.tmp" / "experiment.pickle"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"x")
    epoch = claim_epoch(sweep.paths, {"pid": 1})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3 * OLD)
    assert tidy(sweep, epoch, lambda claim: False) == 0
    assert half.exists()
