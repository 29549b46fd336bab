"""Places in the slots' queues, shared evenly."""

import asyncio
import random
import weakref
from collections import Counter

import pytest

from mce_notebook.run.shares import Shares


def test_places_are_limited_and_come_back() -> None:
    async def scene() -> None:
        shares = Shares(lambda: 2)
        for _ in range(4):
            assert await shares.acquire("a")
        fifth = asyncio.create_task(shares.acquire("a"))
        await asyncio.sleep(0)
        assert not fifth.done()
        shares.release("a")
        assert await fifth
        assert shares.held == 4

    asyncio.run(scene())


def test_without_slots_everybody_waits_until_there_are_some() -> None:
    async def scene() -> None:
        slots = 0
        shares = Shares(lambda: slots)
        waiting = asyncio.create_task(shares.acquire("a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        slots = 1
        shares.changed()
        assert await waiting

    asyncio.run(scene())


@pytest.mark.parametrize("sweeps", [2, 3, 5])
def test_sweeps_get_the_same_number_of_blocks(sweeps: int) -> None:
    async def scene() -> Counter[int]:
        shares = Shares(lambda: 2)
        served: Counter[int] = Counter()
        chance = random.Random(sweeps)

        async def sweep(who: int) -> None:
            # Each keeps as many blocks on their way as it is granted.
            async def block() -> None:
                for _ in range(chance.randrange(1, 9)):
                    await asyncio.sleep(0)
                shares.release(who)

            while sum(served.values()) < 1000:
                await shares.acquire(who)
                served[who] += 1
                flights.add(asyncio.create_task(block()))

        flights: set[asyncio.Task[None]] = set()
        await asyncio.gather(*(sweep(who) for who in range(sweeps)))
        await asyncio.gather(*flights)
        assert shares.held == 0
        return served

    served = asyncio.run(scene())
    assert max(served.values()) - min(served.values()) <= 0.05 * sum(served.values())


def test_a_newcomer_is_served_before_a_sweep_that_holds_everything() -> None:
    async def scene() -> None:
        shares = Shares(lambda: 1)
        assert await shares.acquire("old")
        assert await shares.acquire("old")
        old = asyncio.create_task(shares.acquire("old"))
        await asyncio.sleep(0)
        new = asyncio.create_task(shares.acquire("new"))
        await asyncio.sleep(0)
        shares.release("old")
        await asyncio.sleep(0)
        assert new.done()
        assert not old.done()
        shares.wake("old")
        assert await old is False

    asyncio.run(scene())


def test_long_blocks_wait_in_the_host() -> None:
    async def scene() -> None:
        shares = Shares(lambda: 1)
        assert await shares.acquire("long", eager=False)
        second = asyncio.create_task(shares.acquire("long", eager=False))
        await asyncio.sleep(0)
        assert not second.done()
        # The place behind it is open to a sweep of short blocks.
        assert await shares.acquire("short")
        shares.release("long")
        shares.release("short")
        assert await second

    asyncio.run(scene())


def test_a_cancelled_wait_holds_nothing() -> None:
    async def scene() -> None:
        shares = Shares(lambda: 1, depth=1)
        assert await shares.acquire("a")
        waiting = asyncio.create_task(shares.acquire("b"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        granted = asyncio.create_task(shares.acquire("c"))
        await asyncio.sleep(0)
        shares.release("a")
        granted.cancel()
        await asyncio.gather(granted, return_exceptions=True)
        assert shares.held == 0

    asyncio.run(scene())


def test_who_left_is_not_kept_alive() -> None:
    class Sweep:
        pass

    async def scene() -> None:
        shares = Shares(lambda: 1)
        sweep = Sweep()
        assert await shares.acquire(sweep)
        shares.release(sweep)
        shares.leave(sweep)
        gone = weakref.ref(sweep)
        del sweep
        assert gone() is None

    asyncio.run(scene())
