"""Signs of life of the host that drives a sweep, as far as files tell."""

import datetime
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.store.catalog import pid_space

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore

# A host replaces its heartbeat about once a second; on another machine only its age tells if it still does.
SILENCE = 20.0
# A host that has not claimed the sweep this long after it was asked to is not coming.
PATIENCE = 60.0
_ENDED = {"done", "cancelled", "stopped"}
# The state a sweep with points to go is in, by what is wanted of it.
_WANTED = {"pause": "paused", "cancel": "cancelled", "stop": "stopped"}


@dataclass(frozen=True)
class HostSigns:
    """What the last writer of a sweep left: its claim, its heartbeat, and what was asked last."""

    intent: Mapping[str, Any]
    claim: Mapping[str, Any]
    beat: Mapping[str, Any]
    alive: bool

    @classmethod
    def of(cls, sweep: "SweepStore", now: float) -> "HostSigns":
        """Read them from the store."""
        intent = sweep.latest_intent()
        asked: dict[str, Any] = {}
        if intent is not None:
            asked = {"verb": intent.verb, "time": _seconds(intent.time), "by": intent.by, "waits": intent.waits}
            if intent.refused or now - asked["time"] < max(PATIENCE, intent.waits):
                asked |= {"note": intent.note, "refused": intent.refused}
        epochs = sweep.epochs()
        if not epochs:
            return cls(asked, {}, {}, False)
        beat = sweep.heartbeat(epochs[-1].number)
        if not beat and len(epochs) > 1:
            # A host that has just begun has not added up yet what the others cost.
            last = sweep.heartbeat(epochs[-2].number)
            beat = {name: last[name] for name in ("cost", "currency") if name in last}
        return cls(asked, epochs[-1].host, beat, _alive(epochs[-1].host, beat, now))

    def state(self, left: int, now: float) -> str:
        """One of STATES, for a sweep with `left` points to go."""
        said = str(self.beat.get("state", ""))
        verb = str(self.intent.get("verb", "run"))
        if self.alive and said == "starting":
            # There may be no slot for hours, and a host elsewhere may not even have been reached.
            return "queued" if left else "done"
        if self.alive and said in ("running", "draining", ""):
            return "running" if left or said != "running" else "done"
        asked = _seconds(self.intent.get("time"))
        if self.alive and said == "paused" and (verb in _WANTED or asked <= self._last_seen()):
            # By an order, or by itself because nothing can be written; not when `resume` came after.
            return _WANTED.get(verb, "paused")
        if not left:
            return "done"
        if verb in _WANTED:
            return _WANTED[verb]
        heard = self._last_seen()
        if self.intent.get("refused") and asked > heard:
            return "stopped"
        patience = max(PATIENCE, float(self.intent.get("waits", 0.0)))
        # The host a sweep leaves has ended its part; the next one is on its way, as after any request.
        if now - max(asked, heard) < patience and (said == "moved" or asked > heard):
            return "queued"
        return "stopped" if said == "stopped" else "interrupted"

    def _last_seen(self) -> float:
        return max(_seconds(self.claim.get("time")), _seconds(self.beat.get("time")))

    @property
    def rate(self) -> float:
        """Points per second, as the host measures it."""
        return float(self.beat.get("rate") or 0.0)

    @property
    def workers(self) -> int:
        """Slots at work."""
        return int(self.beat.get("workers") or 0)

    @property
    def message(self) -> str:
        """What the host wants people to know."""
        if self.intent.get("note") and not self.alive and _seconds(self.intent.get("time")) > self._last_seen():
            # Of a host that is on its way, or why it is not.
            return str(self.intent["note"])
        told = str(self.beat.get("message") or "")
        # A host elsewhere that may not run the sweep has no heartbeat to say why.
        refused = self.intent.get("verb") == "stop" and _seconds(self.intent.get("time")) > self._last_seen()
        return str(self.intent.get("by")) if refused and not told else told

    @property
    def cost(self) -> float | None:
        """What the sweep has cost so far, with all its hosts; None where prices are not known."""
        told = self.beat.get("cost")
        return float(told) if isinstance(told, int | float) else None

    @property
    def currency(self) -> str:
        """Of the cost."""
        return str(self.beat.get("currency") or "USD")

    @property
    def in_flight(self) -> list[tuple[int, int]]:
        """Half-open ranges of listed indices that workers have now; none when the host is gone."""
        spans = self.beat.get("in_flight") or () if self.alive else ()
        return [(int(start), int(stop)) for start, stop in spans]

    def elapsed(self, now: float) -> float:
        """Seconds from the claim until now, or until the last heartbeat of a host that has ended."""
        if not self.claim:
            return 0.0
        ended = not self.alive or self.beat.get("state") in _ENDED
        return max(0.0, (self._last_seen() if ended else now) - _seconds(self.claim.get("time")))


def _alive(claim: Mapping[str, Any], beat: Mapping[str, Any], now: float) -> bool:
    if beat.get("state") in _ENDED:
        return False
    claimed = _seconds(claim.get("time"))
    # Of a host elsewhere a relay tells; while it does, whoever it stands in for counts as alive.
    relay = beat.get("relay")
    who = relay if isinstance(relay, dict) else claim
    here = who.get("host") == socket.gethostname() and who.get("boot") == boot_id()
    if here and who.get("space", pid_space()) == pid_space():
        return _runs(int(who.get("pid", 0)), _seconds(who.get("since", who.get("time"))))
    return abs(now - max(_seconds(beat.get("time")), claimed)) < SILENCE


def _runs(pid: int, claimed: float) -> bool:
    """Whether the process that claimed is still there, and not a later one with its number."""
    # Not above: a kernel that looks at a finished sweep asks for no process.
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < claimed + 2
    except (psutil.Error, ValueError):
        return False


def _seconds(time: object) -> float:
    """Seconds since 1970 of a time that is written as such or in ISO 8601; 0 when there is none."""
    if isinstance(time, str):
        try:
            return datetime.datetime.fromisoformat(time).timestamp()
        except ValueError:
            return 0.0
    return float(time) if isinstance(time, int | float) else 0.0


def boot_id() -> str:
    """Return what tells two boots of one machine apart."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        # As the host writes it where there is no such file: its name, and the time of boot after a slash.
        return socket.gethostname()
