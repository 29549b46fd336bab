"""A connection that comes back: asked through while it stands, waited for while it does not."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.remote.connection import Connection, Unreachable
from mce_notebook.run.remote.place import Place

log = logging.getLogger("mce_notebook.relay")

PING_SECONDS = 30.0
ASK_SECONDS = 180.0
# Who starts a host or reads a large store answers late; who does not answer for so long is not there any more.
PONG_SECONDS = 300.0
# Between two attempts: doubled after each, from the first to the last (seconds).
FIRST_SECONDS, LAST_SECONDS = 0.5, 60.0
# ... and at most so long where only this machine is asked, whether `ssh` has a connection that it shares.
SHARED_SECONDS = 3.0
# What was refused for good, once it had worked, is tried again this often (seconds).
REFUSED_SECONDS = 120.0
Take = Callable[[Mapping[str, Any], bytes], Awaitable[None]]


class Link:
    """What a relay knows of the other side, and the way there.

    Parameters
    ----------
    place : Place
    variables : mapping of str to str
        Of the agent and its host.
    hello : callable
        Awaited with every new connection, before others use it.

    Attributes
    ----------
    up : asyncio.Event
        Set while there is a connection.
    why : str
        Why there is none.
    since : float or None
        When the last one was lost, as `time.time` counts; None before the first.
    refusal : str
        Why there never was and never will be one.
    """

    def __init__(self, place: Place, variables: Mapping[str, str], hello: Callable[[], Awaitable[None]]):
        self.place = place
        self.up = asyncio.Event()
        self.why = ""
        self.since: float | None = None
        self.refusal = ""
        self._variables = variables
        self._hello = hello
        self._connection: Connection | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._takers: dict[str, Take] = {}
        self._lost = asyncio.Event()

    @property
    def remark(self) -> str:
        """What people should know of it; empty while it stands."""
        if self.up.is_set():
            return ""
        if self.since is None:
            return f"no connection to {self.place.name} yet{': ' + self.why if self.why else ''}"
        clock = "%H:%M:%S" if time.time() - self.since < 43200 else "%Y-%m-%d %H:%M"
        then = time.strftime(clock, time.localtime(self.since))
        return f"no connection to {self.place.name} since {then} ({self.why}); the sweep goes on there"

    def on(self, what: str, take: Take | None) -> None:
        """Have messages of a kind, or about a sweep, taken by a coroutine; it must not ask."""
        if take is None:
            self._takers.pop(what, None)
        else:
            self._takers[what] = take

    async def keep(self) -> None:
        """Connect, and connect again whenever the connection is lost.

        Raises
        ------
        HostError
            If it cannot work at all, found with the first attempt that got an answer.
        """
        wait = FIRST_SECONDS
        shared = False
        while True:
            try:
                self._connection = await Connection.open(self.place, self._variables, shared=shared)
                wait, shared = FIRST_SECONDS, self._connection.shared
                await self._use(self._connection)
            except Unreachable as error:
                self._down(str(error))
            except HostError as error:
                if self.since is None:
                    self.refusal = str(error)
                    raise
                self._down(str(error))
                wait = REFUSED_SECONDS
            except Exception as error:
                # A message that could not be taken must not end the watching: the next connection brings it again.
                log.exception("%s: the connection is given up", self.place.name)
                self._down(f"{type(error).__name__}: {error}")
            log.info("%s: %s; next attempt in %.1f s", self.place.name, self.why, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, SHARED_SECONDS if shared else LAST_SECONDS)

    async def _use(self, connection: Connection) -> None:
        """Use a connection until it breaks, which is raised."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(connection.close)
            tasks = [asyncio.ensure_future(one) for one in (self._read(connection), self._ping())]
            greeting = asyncio.ensure_future(self._hello())
            stack.push_async_callback(_cancelled, [*tasks, greeting])
            await asyncio.wait([greeting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if greeting.done():
                greeting.result()
                log.info("%s: connected", self.place.name)
                self.since, self.why = time.time(), ""
                self._lost.clear()
                self.up.set()
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    def _down(self, why: str) -> None:
        if self.up.is_set():
            self.since = time.time()
        self.up.clear()
        self._lost.set()
        self.why = why
        self._connection = None
        asked, self._asked = self._asked, {}
        for future in asked.values():
            if not future.done():
                future.set_exception(Unreachable(why))

    async def _read(self, connection: Connection) -> None:
        while True:
            header, payload = await connection.receive()
            if header.get("what") == "answer":
                future = self._asked.pop(int(header["id"]), None)
                if future is not None and not future.done():
                    future.set_result(header)
                continue
            take = self._takers.get(str(header.get("sweep", header.get("what"))))
            if take is not None:
                await take(header, payload)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            # Answered: a connection that `ssh` shares may be dead without anybody saying so.
            await self.ask({"do": "ping"}, seconds=PONG_SECONDS)

    async def tell(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send what needs no answer; raises Unreachable where there is no connection."""
        if self._connection is None:
            raise Unreachable(self.why)
        await self._connection.send(header, payload)

    async def ask(
        self, header: Mapping[str, Any], payload: bytes = b"", seconds: float = ASK_SECONDS
    ) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises
        ------
        Unreachable
            If the connection is lost first.
        HostError
            If the other side refuses it.
        """
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            await self.tell({**header, "id": number}, payload)
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError:
            raise Unreachable(f"{self.place.name} did not answer {header['do']!r} within {seconds:g} s") from None
        finally:
            self._asked.pop(number, None)
        if not answer.get("ok"):
            raise HostError(str(answer.get("error")))
        return answer

    async def gone(self) -> None:
        """Wait until the connection is lost."""
        await self._lost.wait()


async def _cancelled(tasks: "Iterable[asyncio.Task[None]]") -> None:
    found = list(tasks)
    for task in found:
        task.cancel()
    await asyncio.gather(*found, return_exceptions=True)
