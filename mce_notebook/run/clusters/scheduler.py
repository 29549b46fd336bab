"""The Dask scheduler of a cluster as its host uses it: in the host's own process, or elsewhere.

One that is ours and in this process is looked at directly, and decides itself where blocks go. Of one elsewhere (an
existing cluster, a scheduler on a machine of its own) only what a client hears is known, and that comes late: there
we say for each block which worker computes it, so that what a worker has to do is known here to the block.
"""

import asyncio
import contextlib
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from distributed import Client, Scheduler, Security
from distributed.comm.core import CommClosedError
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.versions import VersionMismatchWarning

from mce_notebook.errors import HostError

log = logging.getLogger("mce_notebook.cluster")

# Over a network things break that do not on one machine. Slots compute, so a worker that is silent is not merely busy.
FAR = {
    "distributed.comm.timeouts.connect": "30s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.scheduler.worker-ttl": "5 minutes",
}
# A scheduler elsewhere is asked who its workers are so often, and at once when it says that one came or went; it has so
# long to answer, and to take us as a client (seconds).
LOOK_SECONDS = 3.0
ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 6.0
# Between two attempts to find it again.
AGAIN_SECONDS = 1.0
# One that is connected and does not answer for so long is given up, too.
SILENT_SECONDS = 30.0

Told = Callable[[str], object]


@dataclass(frozen=True)
class Member:
    """One worker as its scheduler knows it.

    Parameters
    ----------
    address, name, machine : str
    threads : int
        Blocks it computes at once.
    """

    address: str
    name: str
    machine: str = ""
    threads: int = 1


class Scheduling(Protocol):
    """What a host needs of a scheduler, wherever it is."""

    address: str
    # Asynchronous; another one after a connection was lost.
    client: Any
    # Grows each time the scheduler is lost: what was on its way then was not ended by any point.
    losses: int
    # Whether `place` says which worker computes a block.
    places: bool

    def members(self) -> Mapping[str, Member]:
        """Return the workers, by address."""

    def loads(self) -> dict[str, int]:
        """Return how many blocks every worker has, by address."""

    def retire(self, addresses: Iterable[str]) -> None:
        """Send no more blocks to some workers."""

    @contextlib.contextmanager
    def place(self, address: str) -> Iterator[asyncio.Event]:
        """Count a block on a worker; the event is set when that worker is gone."""

    async def close(self) -> None:
        """Let go of it; end it if it is ours."""


class _Comings(SchedulerPlugin):
    """Says when workers come and go."""

    def __init__(self, came: Told, went: Told):
        self._came = came
        self._went = went

    def add_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._came(worker)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._went(worker)


class OwnScheduler:
    """A scheduler in this process, ended with it.

    Use `start`.
    """

    places = False
    losses = 0

    def __init__(self, scheduler: Any, client: Any):
        self._scheduler = scheduler
        self.client = client
        self.address = str(scheduler.address)

    @classmethod
    async def start(cls, interface: str | None, security: Security, came: Told, went: Told) -> "OwnScheduler":
        """Start one that nodes reach through a network interface.

        Raises
        ------
        ValueError
            If there is no such interface; with those there are.
        """
        make: Any = Scheduler
        scheduler = await make(
            protocol="tls://",
            interface=interface,
            port=0,
            security=security,
            dashboard=False,
            # Its pages are open to whoever reaches them: nobody but this machine.
            dashboard_address="127.0.0.1:0",
        )
        connect: Any = Client
        client = await connect(
            scheduler.address, security=security, asynchronous=True, set_as_default=False, direct_to_workers=True
        )
        scheduler.add_plugin(_Comings(came, went), name="mce-comings")
        return cls(scheduler, client)

    def members(self) -> Mapping[str, Member]:
        """Return the workers, by address."""
        return {
            address: Member(address, str(worker.name), str(worker.host), int(worker.nthreads))
            for address, worker in self._scheduler.workers.items()
        }

    def loads(self) -> dict[str, int]:
        """Return how many blocks every worker has, by address."""
        return {address: len(worker.processing) for address, worker in self._scheduler.workers.items()}

    def retire(self, addresses: Iterable[str]) -> None:
        """Send no more blocks to some workers."""
        for address in list(addresses):
            worker = self._scheduler.workers.get(address)
            if worker is not None:
                self._scheduler.handle_worker_status_change("paused", worker, f"mce-leaving-{time.monotonic_ns()}")

    @contextlib.contextmanager
    def place(self, address: str) -> Iterator[asyncio.Event]:
        """Nothing: this scheduler chooses the worker, and tells when it is gone."""
        yield asyncio.Event()

    async def close(self) -> None:
        """End it; its workers leave."""
        await self.client.close(timeout=2)
        await self._scheduler.close()


class FarScheduler:
    """A scheduler in another process, seldom ours: connected to, found again when it was lost, never shut down.

    Parameters
    ----------
    address : str
        `tcp://host:port` or `tls://host:port`.
    security : Security or None
        Certificates for `tls`.
    came, went : callable
        Called with the address of a worker.
    found : callable
        Awaited after each connection, before any worker is told of; raises HostError if the scheduler is of no use.
    """

    places = True

    def __init__(
        self, address: str, security: Security | None, came: Told, went: Told, found: Callable[[Any], Any] | None = None
    ):
        self.address = address
        self.client: Any = None
        self.losses = 0
        # Why it cannot be used now, and since when (monotonic seconds); empty while it can.
        self.trouble = ""
        self.since = 0.0
        self._security = security
        self._came = came
        self._went = went
        self._found = found
        self._members: dict[str, Member] = {}
        self._placed: Counter[str] = Counter()
        self._gone: dict[str, asyncio.Event] = {}
        self._retired: set[str] = set()
        self._stirred = asyncio.Event()
        self._heard = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def silence(self) -> float:
        """Seconds since it was last heard of; a few are usual."""
        return time.monotonic() - self._heard

    async def open(self) -> None:
        """Connect, and look after the connection from then on.

        Raises
        ------
        HostError
            If the scheduler does not answer, or is of no use.
        """
        try:
            await self._connect()
        except _UNREACHABLE as error:
            raise HostError(f"The scheduler at {self.address} cannot be reached: {_words(error)}") from error
        self._keeper = asyncio.create_task(self._keep())

    def members(self) -> Mapping[str, Member]:
        """Return the workers, by address."""
        return dict(self._members)

    def loads(self) -> dict[str, int]:
        """Return how many blocks of this host every worker has, by address."""
        return {address: self._placed[address] for address in self._members if address not in self._retired}

    def retire(self, addresses: Iterable[str]) -> None:
        """Send no more blocks to some workers."""
        self._retired.update(addresses)

    @contextlib.contextmanager
    def place(self, address: str) -> Iterator[asyncio.Event]:
        """Count a block on a worker; the event is set when that worker is gone."""
        event = self._gone.get(address) or asyncio.Event()
        if address not in self._members:
            event.set()
        self._placed[address] += 1
        try:
            yield event
        finally:
            self._placed[address] -= 1
            if not self._placed[address]:
                del self._placed[address]

    async def close(self) -> None:
        """Disconnect; what the scheduler still had of us is dropped, itself and its workers go on."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._disconnect()

    # The connection

    async def _connect(self) -> None:
        connect: Any = Client
        client = connect(
            self.address,
            security=self._security,
            asynchronous=True,
            set_as_default=False,
            # Workers may be where only their scheduler reaches them.
            direct_to_workers=False,
            timeout=CONNECT_SECONDS,
            name="mce",
        )
        try:
            async with asyncio.timeout(2 * CONNECT_SECONDS):
                with warnings.catch_warnings():
                    # Of versions that differ, which is ours to tell.
                    warnings.simplefilter("ignore", VersionMismatchWarning)
                    await client
                if self._found is not None:
                    await self._found(client)
            client.subscribe_topic("all", self._hear)
        except BaseException:
            await _close(client)
            raise
        self.client, self.trouble, self._heard = client, "", time.monotonic()
        await self._look()

    async def _disconnect(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            await _close(client)

    async def _keep(self) -> None:
        """Notice workers and the loss of the scheduler; connect again until it is back."""
        while True:
            try:
                if self.trouble:
                    await self._connect()
                    log.info("the scheduler at %s is back", self.address)
                elif self.client.status != "running":
                    await self._lose("the connection broke")
                else:
                    await self._look()
            except HostError as error:
                self.trouble = str(error)
            except Exception as error:
                # Whatever it is, the looking goes on: it is all that can find the scheduler again.
                log.info("the scheduler at %s: %s", self.address, _words(error))
            if not self.trouble and self.silence > SILENT_SECONDS:
                await self._lose(f"it has not answered for {SILENT_SECONDS:g} s")
            self._stirred.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS if self.trouble else LOOK_SECONDS):
                    await self._stirred.wait()

    async def _lose(self, why: str) -> None:
        self.losses += 1
        self.trouble = f"the scheduler at {self.address} is lost ({why})"
        self.since = time.monotonic()
        log.warning("%s", self.trouble)
        for address in list(self._members):
            self._leave(address)
        self._retired.clear()
        await self._disconnect()

    def _hear(self, event: tuple[float, Any]) -> None:
        _, what = event
        if not isinstance(what, dict):
            return
        if what.get("action") == "remove-worker" and str(what.get("worker")) in self._members:
            self._leave(str(what["worker"]))
        if what.get("action") in ("add-worker", "remove-worker"):
            self._stirred.set()

    async def _look(self) -> None:
        """Take in who is there."""
        async with asyncio.timeout(ANSWER_SECONDS):
            told = await self.client.scheduler.identity(n_workers=-1)
        self._heard = time.monotonic()
        there = {
            str(address): Member(str(address), str(one["name"]), str(one.get("host", "")), int(one["nthreads"]))
            for address, one in told["workers"].items()
        }
        for address in set(self._members) - set(there):
            self._leave(address)
        for address, member in there.items():
            if address not in self._members:
                self._members[address] = member
                self._gone[address] = asyncio.Event()
                self._came(address)

    def _leave(self, address: str) -> None:
        self._members.pop(address, None)
        self._retired.discard(address)
        self._gone.pop(address, asyncio.Event()).set()
        self._went(address)


# With ImportError a client says that the versions of Dask are too far apart.
_UNREACHABLE = (OSError, CommClosedError, TimeoutError, RuntimeError, ImportError)


async def _close(client: Any) -> None:
    # A client waits for a scheduler that does not answer; nobody else does.
    with contextlib.suppress(*_UNREACHABLE):
        async with asyncio.timeout(3):
            await client.close(timeout=1)


def _words(error: BaseException) -> str:
    return str(error).strip() or ("it does not answer" if isinstance(error, TimeoutError) else type(error).__name__)
