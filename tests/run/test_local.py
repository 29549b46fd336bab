"""The workers of this machine are replaced, however they went."""

import asyncio
from pathlib import Path

from mce_notebook.run.clusters.local import LocalWorkers


async def addresses(workers: LocalWorkers, count: int) -> set[str]:
    """Wait until that many workers are there; return their addresses."""
    async with asyncio.timeout(60):
        while len(workers.cluster.scheduler.workers) != count:
            await asyncio.sleep(0.05)
    return set(workers.cluster.scheduler.workers)


def test_a_worker_whose_nanny_gave_up_is_replaced(tmp_path: Path) -> None:
    async def scene() -> None:
        workers = await LocalWorkers.start(1, 2, tmp_path, lambda: None)
        try:
            before = await addresses(workers, 2)
            for nanny in list(workers.cluster.workers.values()):
                await nanny.close()
            await addresses(workers, 0)
            after = await addresses(workers, 2)
            assert not before & after
            assert await workers.client.submit(sum, [1, 2]) == 3
        finally:
            await workers.close()

    asyncio.run(scene())
