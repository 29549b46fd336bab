"""Group commit: order, grouping, a disk that refuses."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from mce_notebook.errors import StoreFull
from mce_notebook.run import writer as module
from mce_notebook.run.writer import Writer
from mce_notebook.store.frames import Frame


def frame(number: int, size: int = 1) -> Frame:
    return Frame(b"", b"x" * size, {"declaration": 1, "start": number, "count": 1})


class Disk:
    def __init__(self, refuse: int = 0, seconds: float = 0.0):
        self.groups: list[list[int]] = []
        self.refuse = refuse
        self.seconds = seconds
        self.told: list[str] = []
        self.safe: list[int] = []
        self.threads: set[int] = set()

    def append(self, frames: Sequence[Frame]) -> None:
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if self.refuse:
            self.refuse -= 1
            raise StoreFull("No room.")
        self.groups.append([frame.cover["start"] for frame in frames])

    def committed(self, frames: Sequence[Frame]) -> None:
        self.safe += [frame.cover["start"] for frame in frames]

    def writer(self) -> Writer:
        return Writer(self.append, self.committed, self.told.append, retry=0.005)


def test_what_comes_during_a_sync_goes_out_together_in_order() -> None:
    async def scene(disk: Disk) -> None:
        writer = disk.writer()
        for number in range(50):
            writer.put([frame(number)])
            await asyncio.sleep(0.001)
        assert not writer.idle
        assert await writer.close()

    disk = Disk(seconds=0.02)
    asyncio.run(scene(disk))
    assert disk.safe == list(range(50))
    assert len(disk.groups) < 50
    assert threading.get_ident() not in disk.threads


def test_a_full_disk_is_told_and_tried_again_with_everything() -> None:
    async def scene(disk: Disk) -> None:
        writer = disk.writer()
        writer.put([frame(0), frame(1)])
        while not disk.told:
            await asyncio.sleep(0.001)
        assert not writer.roomy
        writer.put([frame(2)])
        await writer.flushed()
        assert writer.roomy
        await writer.close()

    disk = Disk(refuse=3)
    asyncio.run(scene(disk))
    assert disk.told == ["No room."] * 3 + [""]
    assert disk.safe == [0, 1, 2]


def test_closing_with_a_disk_that_stays_full_gives_up_in_time() -> None:
    async def scene(disk: Disk) -> bool:
        writer = disk.writer()
        writer.put([frame(0)])
        return await writer.close(0.05)

    disk = Disk(refuse=10**9)
    assert asyncio.run(scene(disk)) is False
    assert disk.safe == []


def test_a_slow_disk_closes_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM_BYTES", 1000)

    async def scene(disk: Disk) -> None:
        writer = disk.writer()
        writer.put([frame(0, 600)])
        await asyncio.sleep(0.01)
        assert writer.roomy
        writer.put([frame(1, 600)])
        writer.put([frame(2, 600)])
        assert not writer.roomy
        await writer.flushed()
        assert writer.roomy
        await writer.close()

    asyncio.run(scene(Disk(seconds=0.05)))


def test_nothing_to_write_starts_nothing() -> None:
    async def scene() -> None:
        writer = Disk().writer()
        writer.put([])
        assert writer.idle
        assert await writer.close(0.1)

    asyncio.run(scene())
