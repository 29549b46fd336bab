"""The workers of this machine are replaced, however they went."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mce_notebook.run.clusters.local import LocalWorkers
from mce_notebook.run.line import Lines
from mce_notebook.run.pool import DaskPool


async def addresses(workers: LocalWorkers, count: int) -> set[str]:
    """Wait until that many workers are there; return their addresses."""
    async with asyncio.timeout(60):
        while len(workers.cluster.scheduler.workers) != count:
            await asyncio.sleep(0.05)
    return set(workers.cluster.scheduler.workers)


@pytest.fixture
def door() -> Iterator[Path]:
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="mce-") as folder:
        yield Path(folder) / "lines"


def test_a_worker_whose_nanny_gave_up_is_replaced(tmp_path: Path, door: Path) -> None:
    async def scene() -> None:
        workers = await LocalWorkers.start(1, 2, tmp_path, door, lambda: None)
        try:
            before = await addresses(workers, 2)
            for nanny in list(workers.cluster.workers.values()):
                await nanny.close()
            await addresses(workers, 0)
            after = await addresses(workers, 2)
            assert not before & after
            assert await workers.client.submit(sum, [1, 2]) == 3
            # The successors have lines to the host, too.
            async with asyncio.timeout(60):
                while set(workers.lines.slots) != after:
                    await asyncio.sleep(0.05)
        finally:
            await workers.close()

    asyncio.run(scene())


def test_workers_that_do_not_end_in_time_keep_nobody_from_ending(
    tmp_path: Path, door: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A host that is asked again while it leaves goes on, which it could not if this raised."""

    class Stuck:
        async def close(self, timeout: float) -> None:
            raise TimeoutError

    async def scene() -> None:
        lines = Lines(door, dict)
        await lines.open()
        await LocalWorkers(Stuck(), Stuck(), DaskPool(None, dict), lines).close()

    asyncio.run(scene())
    assert [record.message.split(" was")[0] for record in caplog.records] == ["the client", "the cluster"]
