"""An engine run to its end in this process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mce_notebook.run.engine import Engine
from mce_notebook.run.shares import Shares
from mce_notebook.run.store_ledger import StoreLedger
from mce_notebook.store.catalog import SweepStore

Story = Callable[[Engine], Coroutine[Any, Any, None]]


def drive(sweep: SweepStore, pool: Any, story: Story | None = None, *, seconds: float = 30.0) -> Engine:
    """Run an engine on a sweep while something else happens; return it when both have ended."""

    async def scene() -> Engine:
        ledger = StoreLedger(str(sweep.paths.folder.parent), sweep.name)
        engine = Engine(ledger, pool, Shares(lambda: 2), lambda: None, beat=0.02, retry=0.02)
        telling = asyncio.create_task(story(engine)) if story is not None else None
        async with asyncio.timeout(seconds):
            await engine.run()
            if telling is not None:
                await telling
        return engine

    return asyncio.run(scene())
