"""A host here that stands in for one elsewhere: `python -P -m mce_notebook.run.remote.relay FOLDER`.

To notebooks and the command line it is a host as any other, found in the registry and asked through its inbox. It owns
no cluster: it sends sweeps to the other side, keeps what comes back in the store here, and passes on what is said to
the cluster. Whether it lives decides nothing but how soon outcomes are here.
"""

import asyncio
import json
import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import HostError
from mce_notebook.run import host
from mce_notebook.run.budget import Demand
from mce_notebook.run.clusters.workers import Workers
from mce_notebook.run.inbox import ENDED, NEW, Request
from mce_notebook.run.registry import Claim, HostFolder, Launch, write_json
from mce_notebook.run.remote.errand import Errand
from mce_notebook.run.remote.link import Link
from mce_notebook.run.remote.place import Place

if TYPE_CHECKING:
    from mce_notebook.run.store_ledger import StoreLedger

# Without sweeps and without a host at the other end a relay leaves after this long (seconds).
IDLE_SECONDS = 60.0
STOP_SECONDS = 110.0


class FarPool:
    """The slots of a host elsewhere, as far as they are told: this side gives them nothing to compute."""

    def __init__(self, link: Link):
        self._link = link
        self.told: Mapping[str, Any] = {}

    @property
    def workers(self) -> int:
        """Slots there are now."""
        return int(self.told.get("workers") or 0) if self._link.up.is_set() else 0

    def loads(self) -> Mapping[str, int]:
        """Return nothing: which slots there are is the other side's business."""
        return {}

    @property
    def remark(self) -> str:
        """What people should know who wait."""
        return self._link.remark or str(self.told.get("message") or "")

    @property
    def refusal(self) -> str:
        """Why there will be no slots."""
        return self._link.refusal or (str(self.told.get("message") or "") if self.told.get("refused") else "")


class FarWorkers(Workers):
    """The workers of a host elsewhere."""

    def __init__(self, relay: "Relay", link: Link, folder: HostFolder):
        self.pool = FarPool(link)
        self.link = link
        self._relay = relay
        self._folder = folder
        self._ready = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect for the first time, however long that takes.

        Raises
        ------
        HostError
            If that will never work.
        """
        self.link.on("host", self._told)
        self._keeping = asyncio.create_task(self.link.keep())
        up = asyncio.create_task(self.link.up.wait())
        await asyncio.wait([self._keeping, up], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._keeping.done():
            self._keeping.result()

    async def _told(self, header: Mapping[str, Any], _: bytes) -> None:
        self.pool.told = header
        write_json(self._folder.path / "nodes.json", header.get("nodes") or [])
        if header.get("state") == "ready":
            self._ready.set()
        self._relay.heard()

    @property
    def there(self) -> bool:
        """Whether the host runs, as far as is known."""
        return bool(self.pool.told.get("alive"))

    async def ready(self) -> None:
        """Wait until a task has run there."""
        await self._ready.wait()

    async def close(self) -> None:
        """Hang up; the host goes on."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)


class Relay(host.Host):
    """A host whose cluster is elsewhere."""

    module = "mce_notebook.run.remote.relay"

    def __init__(self, folder: HostFolder, launch: Launch, claim: Claim):
        super().__init__(folder, launch, claim)
        place = Place.from_json(launch.place)
        self._link = Link(place, _variables(launch), self._hello)
        self._far = FarWorkers(self, self._link, folder)
        # The other side counts the hours of its cluster.
        self._until = math.inf
        self._patience = min(self._patience, IDLE_SECONDS)

    async def _hello(self) -> None:
        """Say which host is meant."""
        place = self._link.place
        there = replace(self.launch, place="")
        walltime = place.walltime if place.host == "job" else 0.0
        await self._link.ask({"do": "host", "launch": asdict(there), "walltime": walltime})

    async def _cluster(self) -> Workers:
        self._pool.inner = self._far.pool
        await self._far.connect()
        return self._far

    def heard(self) -> None:
        """Take note of news of the host there."""
        if self.state in ("starting", "ready"):
            self.state = "ready" if self._far.pool.told.get("state") == "ready" else "starting"
        self._beat()
        self._bell.ring()

    def _count(self) -> None:
        # The other side counts, and ends the cluster when it has cost as much as it may.
        told = self._far.pool.told
        if told.get("cost") is not None:
            self._account.told(float(told["cost"]), told.get("cost_per_hour"), {})

    def _demand(self) -> Demand:
        # It takes none of the cores here.
        return Demand()

    def _occupied(self) -> bool:
        # As long as the host there lives, it can be asked for here.
        return super()._occupied() or self._far.there

    def _engine(self, ledger: "StoreLedger") -> Any:
        errand = Errand(ledger, self.launch.profile, self._link, lambda: self._bell.ring(ENDED if errand.over else NEW))
        return errand

    async def _act(self, request: Request) -> "tuple[str, Any]":
        if request.verb in ("start", "resize", "log", "shutdown"):
            return await self._pass(request), None
        return await super()._act(request)

    async def _pass(self, request: Request) -> str:
        """Have the other side do what is asked of its host; return the state this leads to, or the text it gives."""
        verb = request.verb
        if verb == "shutdown" and self._link.since is None:
            # Never connected, so that nothing was begun there.
            self._leaving.set()
            return "draining"
        if not self._link.up.is_set():
            raise HostError(self._link.refusal or f"{self._link.remark}; nothing was changed. Try again later.")
        body: dict[str, Any] = {"do": verb}
        if verb == "resize":
            most = request.body.get("most")
            body |= {"least": int(request.body["least"]), "most": None if most is None else int(most)}
        answer = await self._link.ask(body, seconds=STOP_SECONDS)
        if verb == "shutdown":
            self._leaving.set()
            return "draining"
        return str(answer["text"]) if verb == "log" else self.state


def _variables(launch: Launch) -> dict[str, str]:
    told = json.loads(launch.job).get("environment") if launch.job else {}
    return {str(name): str(value) for name, value in (told or {}).items()}


def main(arguments: list[str]) -> int:
    """Own the runtime folder and stand in for the host it is for."""
    # Which ciphers were chosen interests nobody who reads the log of a host.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    return host.main(arguments, Relay)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
