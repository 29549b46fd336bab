"""The process that owns a cluster and drives sweeps on it: `python -P -m mce_notebook.run.host FOLDER`.

One asyncio loop: an inbox of request files, a doorbell, an engine for each running sweep, one cluster for
all. Whoever starts it can die; it ends by itself when it has had nothing to do for a while.
"""

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import HostError, SweepError
from mce_notebook.run.account import Account
from mce_notebook.run.budget import Demand, allowance, machine_cores, others
from mce_notebook.run.clusters.workers import Workers
from mce_notebook.run.inbox import ENDED, NEW, Inbox, Request
from mce_notebook.run.moving import alone
from mce_notebook.run.pool import LatePool
from mce_notebook.run.registry import Claim, HostFolder, Launch, write_json
from mce_notebook.run.shares import Shares

if TYPE_CHECKING:
    from mce_notebook.run.engine import Engine
    from mce_notebook.run.store_ledger import StoreLedger

log = logging.getLogger("mce_notebook.host")

BEAT_SECONDS = 1.0
DRAIN_SECONDS = 15.0
# A host that could not start its cluster leaves when it has been idle for this long.
FAILED_SECONDS = 5.0
# No cluster has so many slots.
MANY = 1_000_000


@dataclass
class Running:
    """One sweep that this host drives, and whether it was asked for again meanwhile."""

    engine: "Engine"
    task: "asyncio.Task[None]"
    again: bool = False


class Doorbell:
    """A Unix socket: a byte from a client says look into the inbox; one to it, that something is new."""

    def __init__(self, path: Path, rung: Callable[[], None]):
        self._path = path
        self._rung = rung
        self._subscribers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; what a dead host left at the path is removed: only the owner of the folder comes here."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        self._path.chmod(0o600)

    def ring(self, sign: bytes = NEW) -> None:
        """Tell every subscriber."""
        for writer in list(self._subscribers):
            # One that does not read has been told already that something is new.
            if not writer.is_closing() and (sign != NEW or writer.transport.get_write_buffer_size() == 0):
                writer.write(sign)

    async def close(self) -> None:
        """Hang up, which subscribers notice at once."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._subscribers):
            writer.close()
        # Served to their end: a loop that stops under them would report each as an error.
        await asyncio.gather(*self._serving, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._subscribers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._rung()
        try:
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):
                    self._rung()
        finally:
            self._subscribers.discard(writer)
            writer.close()


class Host:
    """Everything one host process does.

    Parameters
    ----------
    folder : HostFolder
        Owned by this process.
    launch : Launch
        What the host is for.
    """

    # What to run to be such a process.
    module = "mce_notebook.run.host"

    def __init__(self, folder: HostFolder, launch: Launch, claim: Claim):
        self.folder = folder
        self.launch = launch
        self.claim = claim
        self.inbox = Inbox(folder)
        self.state = "starting"
        self.message = ""
        # Left because nobody asked for anything.
        self.idled = False
        self._workers: Any = None
        self._pool = LatePool()
        self._shares = Shares(lambda: self._pool.workers)
        self._running: dict[tuple[str, str], Running] = {}
        self._taken: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Lock()
        self._rung = asyncio.Event()
        self._leaving = asyncio.Event()
        self._bell = Doorbell(folder.socket, self._rung.set)
        self._counter = 0
        self._busy = time.monotonic()
        self._patience = launch.idle
        self._until = self._busy + _lifetime(launch)
        self._began = self._busy
        # Seconds from the start of the host until a task had run.
        self._ready_after: float | None = None
        self._account = Account(launch.price, launch.max_cost)

    async def run(self) -> None:
        """Serve until told to leave or idle for too long."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leaving.set)
        await self._bell.open()
        self._beat()
        duties = [asyncio.create_task(self._guard(duty)) for duty in (self._start_workers, self._serve, self._beats)]
        await self._leaving.wait()
        self.state = "draining"
        self._beat()
        await self._drain()
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
        if self._workers is not None:
            await self._workers.close()
        self.state = "stopped"
        self._beat()
        await self._bell.close()

    async def _guard(self, duty: Callable[[], Awaitable[None]]) -> None:
        try:
            await duty()
        except Exception as error:
            # Without any of its duties a host is of no use: say why and go.
            log.exception("the host cannot go on")
            self.message = f"{type(error).__name__}: {error}"
            self._leaving.set()

    # Duties

    async def _start_workers(self) -> None:
        try:
            self._workers = await self._cluster()
        except HostError as error:
            # Stay for a moment: the sweeps that wait for slots are to end with these words.
            log.error("no cluster: %s", error)
            self._workers, self._pool.why, self.state = Workers(), str(error), "failed"
            self._patience = min(self._patience, FAILED_SECONDS)
            self._beat()
            return
        self._pool.inner = self._workers.pool
        self._divide()
        await self._workers.ready()
        self.state, self._ready_after = "ready", time.monotonic() - self._began
        self._beat()
        self._bell.ring()
        self._divide()

    async def _cluster(self) -> Workers:
        start = await asyncio.to_thread(_starter, self.launch, self.folder)
        workers: Workers = await start(self._shares.changed)
        return workers

    async def _serve(self) -> None:
        await asyncio.to_thread(_imports)
        while not self._leaving.is_set():
            self._rung.clear()
            for request in self.inbox.requests():
                if request.name not in self._taken:
                    self._taken[request.name] = asyncio.create_task(self._obey(request))
            # The doorbell is the fast way, a look now and then the sure one.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._rung.wait()

    async def _beats(self) -> None:
        while not self._leaving.is_set():
            self._count()
            if self._occupied():
                self._busy = time.monotonic()
            elif time.monotonic() - self._busy > self._patience:
                log.info("idle for %g s: leaving", self._patience)
                self.idled = True
                self._leaving.set()
            if time.monotonic() > self._until:
                self._leave("the cluster has lived for max_hours of its profile")
            if self._workers is not None and self._workers.lost:
                self._leave(self._workers.lost)
            if self._workers is not None and self._workers.over and not self._running:
                self._leave(self._workers.over)
            if self.folder.claim() != self.claim:
                # The folder was removed or taken over while this process was stopped for very long.
                log.error("the runtime folder belongs to another host now: leaving")
                self._leaving.set()
            self._beat()
            self._divide()
            if self._counter % 60 == 0:
                self.inbox.forget_replies()
            await asyncio.sleep(BEAT_SECONDS)

    def _occupied(self) -> bool:
        """Whether somebody wants something of this host."""
        return bool(self._running or self._taken or self._workers is None or any(self.inbox.requests()))

    def _count(self) -> None:
        """Take in what the cluster costs; end it when that is as much as it may."""
        if self._workers is None:
            return
        shares = {key: running.engine.flying for key, running in self._running.items()}
        told = self._workers.told()
        if told.get("cost") is not None:
            self._account.told(float(told["cost"]), told.get("cost_per_hour"), shares)
        else:
            self._account.look(self._workers.paid(), shares)
        for key, running in self._running.items():
            running.engine.cost, running.engine.currency = self._account.of(key), self.launch.currency
        if self._account.spent:
            launch = self.launch
            self._pool.why = (
                f"The cluster has cost {self._account.total:.2f} {launch.currency}, and max_cost of {launch.profile} "
                f"is {launch.max_cost:g}. What is done is kept; resume goes on with a new cluster, and as much again."
            )
            if not self._running:
                self._leave(self._pool.why)

    def _leave(self, why: str) -> None:
        """Go, for a reason that those who wait for the sweeps are told, too."""
        self.message = why
        for running in self._running.values():
            running.engine.stop(why=why)
        self._leaving.set()

    def _demand(self) -> Demand:
        """Return what this host could use: at least a slot where it has a sweep."""
        launch = self.launch
        slots = max(self._shares.wanted, min(1, len(self._running)))
        return Demand(slots, launch.cores, self._shares.busy, (launch.workers or 0) * launch.cores)

    def _divide(self) -> None:
        """Take this host's share of the cores, as the heartbeats of the others leave it."""
        if self.launch.here:
            # As if it had work for all its slots: so much may it take when work comes before the next beat.
            demand = replace(self._demand(), slots=max(1, self._pool.workers))
            try:
                self._shares.allowed = allowance(
                    self.folder.path.name, demand, others(self.folder.path), machine_cores()
                )
            except (OSError, ValueError, TypeError) as error:
                log.warning("the other hosts cannot be seen: %s", error)
        elif self._workers is not None:
            self._workers.want(sum(running.engine.wanted(MANY) for running in self._running.values()))
        self._shares.changed()

    def _beat(self) -> None:
        self._counter += 1
        state = {
            "counter": self._counter,
            "state": self.state,
            "message": self.message or self._pool.refusal or self._pool.remark,
            "refused": bool(self._pool.refusal),
            "pid": os.getpid(),
            "profile": self.launch.profile,
            "kind": json.loads(self.launch.job)["kind"] if self.launch.job else "local",
            "workers": self._pool.workers,
            "demand": self._demand().to_json(),
            "ready_after": self._ready_after,
            "cost": self._account.total,
            "cost_per_hour": self._account.hourly,
            "currency": self.launch.currency,
            **(self._workers.told() if self._workers is not None else {}),
            "sweeps": [
                {
                    "store": running.engine.ledger.root,
                    "name": running.engine.ledger.name,
                    "state": running.engine.state,
                }
                for running in self._running.values()
            ],
            "time": time.time(),
        }
        with contextlib.suppress(OSError):
            # Read by people only; a full or removed runtime folder must not stop the sweeps.
            write_json(self.folder.state_file, state)

    # Requests

    async def _obey(self, request: Request) -> None:
        try:
            if request.verb in ("run", "resume"):
                await alone(self.folder.path, request.body["store"], request.body["name"])
            # One after the other, in the order in which they were made; what is slow (reading a large sweep) is
            # waited for outside, so that it keeps nobody from cancelling another.
            async with self._turns:
                state, engine = await self._act(request)
            if engine is not None and (error := await engine.opened) is not None:
                raise error
            reply = {"ok": True, "state": state if engine is None else engine.state}
        except (SweepError, OSError, KeyError, TypeError, ValueError) as error:
            log.warning("request %s refused: %s", request.body, error)
            reply = {"ok": False, "error": str(error) or type(error).__name__, "type": type(error).__name__}
        try:
            self.inbox.answer(request, reply)
        except OSError as error:
            log.warning("request %s: no reply could be written: %s", request.body, error)
        del self._taken[request.name]
        self._bell.ring()

    async def _act(self, request: Request) -> "tuple[str, Engine | None]":
        """Obey; return the state this leads to, and the engine to be waited for if one was started."""
        if request.verb == "shutdown":
            self._leaving.set()
            return "draining", None
        if request.verb == "resize":
            if self._workers is None:
                raise HostError("The cluster is still starting; try again in a moment.")
            most = request.body.get("most")
            self._workers.resize(int(request.body["least"]), None if most is None else int(most))
            return self.state, None
        if request.verb not in ("run", "resume", "pause", "cancel", "stop"):
            raise HostError(f"A host does not know the request {request.verb!r}.")
        ledger = await asyncio.to_thread(_ledger, request.body["store"], request.body["name"])
        if request.verb in ("pause", "cancel", "resume"):
            await asyncio.to_thread(ledger.intend, "run" if request.verb == "resume" else request.verb)
        # Looked up after the last wait: an engine may have ended meanwhile.
        running = self._running.get(ledger.key)
        if running is not None:
            running.again = running.again or request.verb in ("run", "resume")
            if request.verb == "stop":
                running.engine.stop(moved=bool(request.body.get("moved")))
            running.engine.poke()
            return running.engine.state, None
        if request.verb in ("run", "resume"):
            return "starting", self._drive(ledger)
        return "idle", None

    def _engine(self, ledger: "StoreLedger") -> "Engine":
        from mce_notebook.run.engine import Engine

        engine = Engine(ledger, self._pool, self._shares, lambda: self._bell.ring(ENDED if engine.over else NEW))
        return engine

    def _drive(self, ledger: "StoreLedger") -> "Engine":
        engine = self._engine(ledger)
        self._running[ledger.key] = Running(engine, asyncio.create_task(self._follow(ledger, engine)))
        if len(self._running) == 1:
            # The others learn at once that there is work here.
            self._divide()
            self._beat()
        return engine

    async def _follow(self, ledger: "StoreLedger", engine: "Engine") -> None:
        try:
            state = await engine.run()
            log.info("%s: %s", ledger.name, state)
        except SweepError as error:
            log.warning("%s: %s", ledger.name, error)
        except Exception:
            log.exception("%s: the engine failed", ledger.name)
        running = self._running.pop(ledger.key)
        # The store knows it, and adds what the next engine says.
        self._account.forget(ledger.key)
        # Who is remembered as having had a turn would be kept alive with its whole plan.
        self._shares.leave(engine)
        self._busy = time.monotonic()
        if running.again and not self._leaving.is_set():
            # Asked for while it was ending: look once more, which does nothing when nothing is missing.
            self._drive(ledger)
        self._bell.ring(ENDED)

    async def _drain(self) -> None:
        for running in self._running.values():
            running.engine.stop()
        tasks = [running.task for running in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN_SECONDS)


def _imports() -> None:
    """Load what every sweep needs, off the loop."""
    import mce_notebook.run.engine
    import mce_notebook.run.store_ledger  # noqa: F401


def _ledger(store: str, name: str) -> "StoreLedger":
    from mce_notebook.run.store_ledger import StoreLedger

    return StoreLedger(store, name)


def _starter(launch: Launch, folder: HostFolder) -> Callable[[Callable[[], None]], Awaitable[Any]]:
    """Return what starts the cluster of `launch`; the import of the scheduler happens here."""
    if launch.job and json.loads(launch.job)["kind"] == "address":
        from mce_notebook.run.clusters.address import AddressWorkers
        from mce_notebook.run.clusters.request import AddressRequest

        existing = AddressRequest.from_json(launch.job)
        return lambda changed: AddressWorkers.start(existing, folder, changed)
    if launch.job:
        from mce_notebook.run.clusters.request import JobRequest

        request = JobRequest.from_json(launch.job)
        if request.cloud is not None:
            from mce_notebook.run.clusters.vm_workers import VMWorkers

            return lambda changed: VMWorkers.start(request, folder, changed)
        from mce_notebook.run.clusters.jobqueue import BatchWorkers

        return lambda changed: BatchWorkers.start(request, folder, changed)
    if not launch.here:
        raise HostError(f"There is no cluster profile {launch.profile!r} that says what its jobs are.")
    from mce_notebook.run.clusters.local import LocalWorkers

    return lambda changed: LocalWorkers.start(launch.cores, launch.workers, folder.scratch, folder.lines, changed)


def _lifetime(launch: Launch) -> float:
    """Seconds after which a host leaves whatever it does."""
    return 3600.0 * float(json.loads(launch.job)["max_hours"]) if launch.job else math.inf


def main(arguments: list[str], make: Callable[[HostFolder, Launch, Claim], Host] = Host) -> int:
    """Own the runtime folder and serve; return at once when another process owns it."""
    folder = HostFolder(Path(arguments[0]))
    launch = folder.launch()
    if launch is None:
        raise HostError(f"{folder.path} does not say what the host is for.")
    claim = folder.take(renew="--renew" in arguments)
    if claim is None:
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Whoever started this host may have any folder as its own, one that is about to be removed included.
    os.chdir(folder.path)
    host = make(folder, launch, claim)
    asyncio.run(host.run())
    if host.idled and any(host.inbox.requests()):
        # Somebody asked while this host was leaving, and believes it alive: it is, from here on.
        os.execv(sys.executable, [sys.executable, "-P", "-m", host.module, arguments[0], "--renew"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
