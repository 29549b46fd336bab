"""One sweep computed elsewhere, as the relay here drives it: sent, asked for, watched, its outcomes kept."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import HostError, SweepError, UnknownSweep
from mce_notebook.run.engine import ENDINGS
from mce_notebook.run.remote.connection import Unreachable
from mce_notebook.run.remote.mirror import Mirror
from mce_notebook.run.remote.wire import PIECE
from mce_notebook.store.catalog import Store
from mce_notebook.store.compact import compact

if TYPE_CHECKING:
    from mce_notebook.run.ledger import Orders
    from mce_notebook.run.remote.link import Link
    from mce_notebook.run.store_ledger import StoreLedger

log = logging.getLogger("mce_notebook.relay")

BEAT_SECONDS = 1.0
# After something went wrong that was not the connection (seconds).
RETRY_SECONDS = 5.0
COMPACTED = 256
RUNNING = ("starting", "running", "draining")


class Errand:
    """One sweep that is computed elsewhere; to its host what an `Engine` is.

    Parameters
    ----------
    ledger : StoreLedger
        The sweep in the store here.
    profile : str
        What the relay is for: a sweep whose latest declaration names another was moved there.
    link : Link
    notify : callable
        Called whenever outcomes were kept or the state changed.
    """

    def __init__(self, ledger: "StoreLedger", profile: str, link: "Link", notify: Callable[[], None]):
        self.ledger = ledger
        self.state = "starting"
        self.message = ""
        self.opened: asyncio.Future[SweepError | None] = asyncio.get_running_loop().create_future()
        self._profile = profile
        self._link = link
        self._notify = notify
        self._mirror = Mirror(Store(ledger.root).sweep(ledger.name), link.place.name)
        self._status: Mapping[str, Any] = {}
        self._stirred = asyncio.Event()
        self._leaving = False
        self._orders = 0
        # When the orders were read that are being obeyed: what is asked later is still to be done.
        self._read = 0.0
        self._moved = False
        self._handed = False
        # Number of the latest declaration, and the cluster it names.
        self._declared = 0, ""
        self._foreign = 0
        # Which telling of the log is listened to: of an earlier one some may still be on its way.
        self._turn = 0
        self._showing = asyncio.Lock()
        # What cannot be kept here, and what the other side cannot read there.
        self._trouble = ""
        self._complaint = ""
        # Whether the other side may know of it, from this relay or one before.
        self._sent = self._mirror.sent()

    # What the host may ask

    # What is computed and what it costs is counted there.
    flying = 0
    cost: float | None = None
    currency = ""

    @property
    def over(self) -> bool:
        """Whether nobody waits for this sweep any more."""
        beat = self._status.get("beat") or {}
        total = int(beat.get("total") or 0)
        complete = total > 0 and int(beat.get("done", 0)) + int(beat.get("failed", 0)) >= total
        return complete or self.state not in RUNNING

    def wanted(self, limit: int) -> int:
        """Return how many slots it wants of this machine: none."""
        return 0

    def poke(self) -> None:
        """Look at once for new orders and declarations."""
        self._stirred.set()

    def stop(self, grace: float = 0.0, why: str = "", *, moved: bool = False) -> None:
        """Stop watching, and the sweep goes on where it is; or, with `moved`, have it end what it has begun there."""
        if moved:
            self._handed = True
        else:
            self._leaving = True
        self._stirred.set()

    async def run(self) -> str:
        """Watch the sweep until it has ended there and all its outcomes are here; return the state it is left in."""
        try:
            await asyncio.to_thread(self.ledger.look)
        except Exception as error:
            self.opened.set_result(error if isinstance(error, SweepError) else SweepError(str(error)))
            raise
        self.opened.set_result(None)
        beating = asyncio.create_task(self._beats())
        try:
            await self._watch()
        except (SweepError, OSError) as error:
            self.state, self.message = "stopped", str(error)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            self._link.on(self._mirror.key, None)
            await self._beat()
            await asyncio.to_thread(self._tidy)
            self._notify()
        return self.state

    async def _watch(self) -> None:
        while not self._leaving:
            if self._link.refusal:
                raise HostError(self._link.refusal)
            if self._handed and not self._link.up.is_set():
                # It goes on there, too, until there is a connection: wasteful, but the next host need not wait.
                self.state = ENDINGS["move"]
                return
            if not self._link.up.is_set():
                if not self._sent and (verb := (await self._look()).verb) in ENDINGS:
                    # Nobody there has to be told first.
                    self.state = ENDINGS[verb]
                    return
                await self._either(self._link.up.wait())
                continue
            try:
                if await self._follow():
                    return
            except Unreachable:
                continue
        self.state = "interrupted"
        name = self._link.place.name
        self.message = (
            f"the relay to {name} has ended; the sweep goes on there, run the cell to see it"
            if self._sent
            else f"there was no connection to {name}; run the cell to try again"
        )

    async def _either(self, other: Any) -> None:
        """Wait for something, or until stirred; a moment at most."""
        tasks = [asyncio.ensure_future(other), asyncio.ensure_future(self._stirred.wait())]
        await asyncio.wait(tasks, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._stirred.clear()

    async def _follow(self) -> bool:
        """Send, ask, watch over one connection; True once the sweep has ended, with all of it here."""
        told: Orders | None = None
        self._status = {"beat": self._status.get("beat") or {}}
        self._link.on(self._mirror.key, self._take)
        while not self._leaving and self._link.up.is_set():
            self._stirred.clear()
            if self._trouble and told is not None:
                await asyncio.sleep(RETRY_SECONDS)
                # From where it stands here: what could not be kept comes again.
                return False
            orders = await self._look()
            if told is None or (orders.verb, orders.declaration) != (told.verb, told.declaration):
                await self._send(told, orders)
                told = orders
            if self._ended():
                return True
            await self._either(self._link.gone())
        return False

    async def _look(self) -> "Orders":
        began = time.time()
        try:
            orders = await asyncio.to_thread(self.ledger.look)
            if orders.declaration != self._declared[0]:
                latest = await asyncio.to_thread(self._mirror.sweep.declaration, orders.declaration)
                self._declared = orders.declaration, str(latest.options.get("on"))
            self._read, self._moved = began, self._handed or self._declared[1] != self._profile
            # One host works on a sweep: what is under way there is finished, and nothing begun.
            return replace(orders, verb="pause") if self._moved else orders
        except UnknownSweep:
            # Deleted or replaced here: nobody wants it any more.
            with contextlib.suppress(HostError):
                await self._order("cancel")
            raise

    async def _send(self, told: "Orders | None", orders: "Orders") -> None:
        key, name = self._mirror.key, self.ledger.name
        self._sent = True
        # Kept before anything is sent: a relay that comes after this one has to know.
        await self._beat()
        if told is None or told.declaration != orders.declaration:
            code, files = await asyncio.to_thread(self._mirror.files)
            sizes = {path: file.stat().st_size for path, file in files.items()}
            offer = {"do": "offer", "sweep": key, "name": name, "files": sizes, "code": code}
            answer = await self._link.ask(offer)
            self._mirror.site = str(answer["site"])
            for path in answer["missing"]:
                await self._put(key, path, files[path])
            if answer["missing"]:
                await self._link.ask({"do": "commit", "sweep": key})
            digest, sidecar = await asyncio.to_thread(self._mirror.known)
            if digest and digest != answer["known"]:
                await self._link.ask({"do": "know", "sweep": key, "digest": digest}, sidecar)
        if told is None:
            self._turn += 1
            have = await asyncio.to_thread(self._mirror.have)
            self._trouble = ""
            await self._link.ask({"do": "follow", "sweep": key, "have": have, "turn": self._turn})
        await self._order(orders.verb)

    async def _put(self, key: str, name: str, file: Path) -> None:
        with file.open("rb") as source:
            at, data = 0, source.read(PIECE)
            while True:
                await self._link.tell({"do": "put", "sweep": key, "file": name, "at": at}, data)
                at, data = at + len(data), source.read(PIECE)
                if not data:
                    return

    async def _order(self, verb: str) -> None:
        """Say what is wanted; the host there sees to it."""
        self._orders += 1
        order = {"do": "order", "sweep": self._mirror.key, "verb": verb, "by": "relay", "order": self._orders}
        try:
            answer = await self._link.ask(order)
        except Unreachable:
            raise
        except HostError as error:
            self.message = str(error)
            raise HostError(f"{self._link.place.name}: {error}") from None
        self._foreign = int(answer["intent"])

    def _ended(self) -> bool:
        status = self._status
        if status.get("what") != "status" or status["active"] or int(status["order"]) < self._orders:
            return False
        said = str((status.get("beat") or {}).get("state", ""))
        verb = status["intent"][1]
        self.message = str((status.get("beat") or {}).get("message") or "")
        if self._moved:
            self.state = ENDINGS["move"]
        elif verb in ENDINGS:
            self.state = ENDINGS[verb]
        else:
            self.state = said if said and said not in RUNNING else "interrupted"
        return True

    async def _take(self, header: Mapping[str, Any], payload: bytes) -> None:
        """Keep what came; called with one message after the other."""
        if header.get("turn") != self._turn:
            return
        if header["what"] == "status":
            self._complaint = ""
            before, self._status = self._status, header
            await self._heed(header["intent"])
            if before.get("beat") != header.get("beat"):
                if header["active"]:
                    said = str((header.get("beat") or {}).get("state") or "starting")
                    # Paused there, so that it can go on elsewhere.
                    self.state = "draining" if self._moved and said not in RUNNING else said
                await self._beat()
            self._stirred.set()
            self._notify()
            return
        if header["what"] == "trouble":
            self._complaint = str(header["message"])
            return
        if self._trouble:
            # What follows bytes that could not be kept must not be kept either.
            return
        try:
            await asyncio.to_thread(self._mirror.take, header, payload)
        except (SweepError, OSError) as error:
            log.warning("%s: %s", self.ledger.name, error)
            self._trouble = f"nothing can be written here: {error}"
            self._stirred.set()
        if header["what"] == "bytes":
            self._notify()

    async def _heed(self, intent: Any) -> None:
        """Repeat here what somebody else wanted there, the sweep itself with too many failures included."""
        number, verb, by = int(intent[0]), str(intent[1]), str(intent[2])
        if self._foreign and number > self._foreign and by != "relay":
            self._foreign = number
            await asyncio.to_thread(self.ledger.intend, verb, by)

    async def _beats(self) -> None:
        while True:
            await self._beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _beat(self) -> None:
        beat = dict(self._status.get("beat") or {})
        up = self._link.up.is_set()
        message = self.message or str(beat.get("message") or "")
        if self.state in RUNNING:
            message = self._link.remark or self._trouble or self._complaint or message
        beat |= {"state": self.state, "message": message, "workers": int(beat.get("workers") or 0) if up else 0}
        beat["sent"] = self._sent
        beat["time"] = time.time() if self.state in RUNNING else self._read
        with contextlib.suppress(SweepError, OSError):
            async with self._showing:
                if self._mirror.folder_id == self._mirror.sweep.id:
                    showing = asyncio.ensure_future(asyncio.to_thread(self._mirror.show, beat, new=not self._moved))
                    try:
                        await asyncio.shield(showing)
                    finally:
                        # Given up, it goes on in its thread, and would overwrite what is shown next.
                        await asyncio.wait([showing])

    def _tidy(self) -> None:
        try:
            if self._mirror.folder_id == self._mirror.sweep.id:
                compact(self._mirror.sweep, least=COMPACTED)
        except SweepError as error:
            log.warning("%s: segments stay as they are: %s", self.ledger.name, error)
