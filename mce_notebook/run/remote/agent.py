"""On the far side: `python -P -m mce_notebook.run.remote.agent FOLDER`, started through the connection, ends with it.

It takes what a relay sends, has a host work on it, and tells what is new. The host lives on without it.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mce_notebook.errors import HostError, SweepError
from mce_notebook.run.clusters.node import environment
from mce_notebook.run.remote.feed import Feed
from mce_notebook.run.remote.hosting import FarHost, far_launch
from mce_notebook.run.remote.landing import Landing
from mce_notebook.run.remote.wire import NoMessage, Pipe

log = logging.getLogger("mce_notebook.agent")

# Between two looks at the log of a sweep, and at the host (seconds).
LOOK_SECONDS, IDLE_SECONDS = 0.2, 1.0
WATCH_SECONDS = 0.5
# A relay says something more often than this; one that does not is gone, though nobody closed the connection.
SILENCE_SECONDS = 180.0


class Following(threading.Thread):
    """Tells of one sweep until the connection ends."""

    def __init__(self, agent: "Agent", landing: Landing, key: str, header: Mapping[str, Any]):
        super().__init__(name=f"mce-{key}", daemon=True)
        self._agent = agent
        self._landing = landing
        self._about = {"sweep": key, "turn": header["turn"]}
        self._stirred = threading.Event()
        self._ended = False
        # The last order that was obeyed, and the heartbeat of the host from which its list of sweeps tells of it.
        self.order = 0
        self.since = 0
        self._feed = Feed(landing.sweep, header["have"], self._say)

    def stir(self) -> None:
        """Look at once."""
        self._stirred.set()

    def end(self) -> None:
        """Tell no more."""
        self._ended = True
        self._stirred.set()

    def _say(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        self._agent.pipe.say({**self._about, **header}, payload)

    def run(self) -> None:
        """Send what is new, then what the host says, until there is nobody to tell."""
        told: Any = None
        wait = LOOK_SECONDS
        while not self._ended:
            self._stirred.clear()
            try:
                # Before the log: what the heartbeat says is done is in what is sent in front of it.
                status = self._status()
                new = self._feed.round()
                if not status["active"]:
                    self._feed.artifacts()
            except Exception as error:
                # Whatever is wrong with the store there is told, and looked at again.
                status, new = {"what": "trouble", "message": f"{type(error).__name__}: {error}"}, False
            if new or status != told:
                self._say(status)
                told, wait = status, LOOK_SECONDS
            else:
                wait = min(1.5 * wait, IDLE_SECONDS)
            self._stirred.wait(wait)

    def _status(self) -> dict[str, Any]:
        order, sweep, host = self.order, self._landing.sweep, self._agent.host
        name, root = self._landing.paths.folder.name, str(self._landing.root)
        alive = host is not None and (host.alive() or host.waits())
        active = host is not None and alive and (host.counter() < self.since or host.drives(root, name))
        last, intent = self._feed.last(), sweep.latest_intent()
        return {
            "what": "status",
            "order": order,
            "active": active,
            "alive": alive,
            "epoch": last,
            "beat": sweep.heartbeat(last) if last else {},
            "intent": [intent.number, intent.verb, intent.by] if intent else [0, "", ""],
        }


class Agent:
    """Everything one agent does."""

    def __init__(self, folder: Path, pipe: Pipe):
        self.folder = folder
        self.pipe = pipe
        self.host: FarHost | None = None
        self._landings: dict[str, Landing] = {}
        self._following: dict[str, Following] = {}
        self._heard = time.monotonic()

    def serve(self) -> None:
        """Obey until the other side is gone."""
        self.pipe.greet()
        self.pipe.say({"what": "hello", "host": socket.gethostname(), "environment": environment()})
        threading.Thread(target=self._watch, name="mce-watch", daemon=True).start()
        while (message := self.pipe.hear()) is not None:
            self._heard = time.monotonic()
            header, payload = message
            try:
                answer = {"ok": True, **self._obey(header, payload)}
            except (SweepError, OSError, KeyError, TypeError, ValueError) as error:
                log.warning("%s: %s", header.get("do"), error)
                answer = {"ok": False, "error": str(error) or type(error).__name__, "type": type(error).__name__}
            if "id" in header:
                self.pipe.say({"what": "answer", "id": header["id"], **answer})

    def _obey(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        match header["do"]:
            case "ping":
                return {}
            case "host":
                launch = far_launch(header["launch"], sys.executable, sys.prefix)
                self.host = FarHost(self.folder, launch, float(header["walltime"]))
                return {}
            case "start" | "resize" | "shutdown" | "log" | "check":
                return self._to_host(header)
            case "offer":
                landing = Landing(self.folder, str(header["sweep"]), str(header["name"]))
                self._landings[str(header["sweep"])] = landing
                missing = landing.missing(header["files"], str(header["code"]))
                known = landing.told() if landing.paths.sweep_json.exists() else ""
                return {"site": landing.site, "missing": missing, "known": known}
        return self._to_sweep(str(header["sweep"]), header, payload)

    def _to_host(self, header: Mapping[str, Any]) -> dict[str, Any]:
        verb = header["do"]
        if verb == "check":
            from mce_notebook.run.clusters.checking import check
            from mce_notebook.run.remote.looking import from_json

            return {"text": check(from_json(header["profile"]))}
        host = self._host()
        if verb == "log":
            return {"text": host.log()}
        if verb == "shutdown":
            host.shutdown()
            return {}
        host.ensure()
        if verb == "resize":
            host.answer(host.request({"verb": "resize", "least": header["least"], "most": header["most"]}))
        return {}

    def _to_sweep(self, key: str, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        landing = self._landings[key]
        match header["do"]:
            case "put":
                try:
                    landing.put(str(header["file"]), int(header["at"]), payload)
                except OSError as error:
                    # Told when all was sent: nobody waits for the answer to a piece.
                    landing.trouble = f"{landing.root} cannot be written there: {error}"
            case "commit":
                landing.commit()
            case "know":
                landing.know(str(header["digest"]), payload)
            case "follow":
                self._unfollow(key)
                self._following[key] = Following(self, landing, key, header)
                self._following[key].start()
            case "unfollow":
                self._unfollow(key)
            case "order":
                return self._order(key, landing, header)
            case other:
                raise HostError(f"The far side does not know {other!r}; is its mce_notebook as new as this one?")
        return {}

    def _order(self, key: str, landing: Landing, header: Mapping[str, Any]) -> dict[str, Any]:
        """See to it that a sweep runs, or stops running."""
        host, verb = self._host(), str(header["verb"])
        following = self._following[key]
        number = landing.intend(verb, str(header["by"]))
        work = {"verb": "run", "store": str(landing.root), "name": landing.paths.folder.name}
        if verb == "run" and _missing(landing):
            host.ensure()
        if host.alive() or (verb == "run" and _missing(landing)):
            name = host.request(work)
            if host.alive():
                # Its list of sweeps is told with the heartbeat after next at the latest.
                host.answer(name)
                following.since = host.counter() + 2
        following.order = int(header["order"])
        following.stir()
        return {"intent": number}

    def _unfollow(self, key: str) -> None:
        if (following := self._following.pop(key, None)) is not None:
            following.end()

    def _host(self) -> FarHost:
        if self.host is None:
            raise HostError("The far side has not been told which host is meant.")
        return self.host

    def _watch(self) -> None:
        """Tell of the host whenever it changes; leave when the relay has not been heard of for long."""
        told: Any = None
        while True:
            time.sleep(WATCH_SECONDS)
            if time.monotonic() - self._heard > SILENCE_SECONDS:
                os._exit(0)
            host = self.host
            if host is None:
                continue
            state = host.state()
            kept = {
                name: state.get(name) for name in ("state", "message", "refused", "workers", "cost", "cost_per_hour")
            }
            now = {"what": "host", "alive": bool(state), **kept, "nodes": host.nodes()}
            if now != told:
                told = now
                self.pipe.say(now)


def _missing(landing: Landing) -> bool:
    """Return whether a sweep has points to compute."""
    from mce_notebook.store.coverage import known, todo

    declaration = landing.sweep.latest()
    if declaration is None or declaration.deferred:
        return declaration is not None
    return bool(todo(known(landing.sweep, declaration), declaration).any())


def main(arguments: list[str]) -> int:
    """Serve one connection."""
    told = arguments[0] if arguments and arguments[0] else "~/.mce"
    folder = Path(os.path.expandvars(told)).expanduser().absolute()
    # What libraries print must not come between messages.
    pipe = Pipe(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING, format="%(name)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        Agent(folder, pipe).serve()
    except OSError as error:
        print(f"{folder}: {error}", file=sys.stderr)  # noqa: T201  shown at the other end
        os._exit(1)
    except NoMessage as error:
        print(error, file=sys.stderr)  # noqa: T201
        os._exit(1)
    # Threads may wait for a connection that is gone.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
