"""Blocks as Dask tasks, where Dask itself would let them wait for ever."""

import asyncio
from typing import Any

from distributed import Client, LocalCluster

from mce_notebook.plan import Block
from mce_notebook.run.pool import DaskPool
from mce_notebook.run.protocol import BlockResult


def computed(*request: Any) -> BlockResult:
    return BlockResult([], 1, ())


class Plain(DaskPool):
    @property
    def _work(self) -> Any:
        return computed


def test_a_block_whose_worker_is_gone_while_there_is_no_other_is_computed_by_the_next() -> None:
    async def main() -> BlockResult:
        start: Any = LocalCluster
        options = {"dashboard_address": "127.0.0.1:0", "processes": False, "asynchronous": True}
        async with (
            await start(n_workers=0, threads_per_worker=1, **options) as cluster,
            await connect(cluster) as client,
        ):
            pool = Plain(client, lambda: dict.fromkeys(cluster.scheduler.workers, 0))
            request: Any = (None, Block(((0, 1),)), False, None, None, None)
            waiting = asyncio.create_task(pool._task(request, ["tcp://127.0.0.1:1"]))
            while not cluster.scheduler.unrunnable:
                await asyncio.sleep(0.01)
            cluster.scale(1)
            async with asyncio.timeout(60):
                return await waiting

    assert asyncio.run(main()).done == 1


def connect(cluster: Any) -> Any:
    client: Any = Client
    return client(cluster, asynchronous=True, set_as_default=False)
