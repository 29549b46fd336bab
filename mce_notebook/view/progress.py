"""How far a sweep is, as data, as text and as a small block of HTML; no user interface is involved."""

import html
import itertools
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mce_notebook.view.causes import grouped
from mce_notebook.view.signs import HostSigns

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.view.dataset import Snapshot

WINDOW = 60.0
SPACING = 1.0
STATES = ("queued", "running", "paused", "done", "cancelled", "stopped", "interrupted")


@dataclass
class Meter:
    """Rate of a growing count, from what was seen lately.

    Parameters
    ----------
    window : float
        Seconds that count as lately.
    """

    window: float = WINDOW
    samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, now: float, done: int) -> None:
        """Note that `done` points were done at `now` seconds."""
        if self.samples and done < self.samples[-1][1]:
            # Another declaration or generation: what was counted before says nothing.
            self.samples.clear()
        if self.samples and now <= self.samples[-1][0]:
            return
        if len(self.samples) == 1 and done == self.samples[0][1]:
            # Nothing happened yet: the time until workers are there says nothing about how fast they are.
            self.samples.clear()
        if len(self.samples) > 1 and now - self.samples[-2][0] < SPACING:
            # Outcomes come in blocks; closer samples would measure the blocks.
            self.samples.pop()
        self.samples.append((now, done))
        while len(self.samples) > 2 and self.samples[0][0] < now - self.window:
            self.samples.popleft()

    def rates(self) -> tuple[float, float, float] | None:
        """(low, mean, high) points per second; None before anything was done.

        The band is two standard errors of the mean of the rates between samples, weighted by their length;
        with fewer than four of them, half and double.
        """
        if len(self.samples) < 2:
            return None
        pairs = list(itertools.pairwise(self.samples))
        spans = [later[0] - earlier[0] for earlier, later in pairs]
        gains = [later[1] - earlier[1] for earlier, later in pairs]
        total = sum(spans)
        mean = sum(gains) / total
        if mean <= 0:
            return None
        if len(pairs) < 4:
            return mean / 2, mean, mean * 2
        variance = sum(span * (gain / span - mean) ** 2 for span, gain in zip(spans, gains, strict=True)) / total
        effective = total**2 / sum(span**2 for span in spans)
        spread = 2 * (variance / max(effective - 1, 1)) ** 0.5
        return max(mean - spread, mean / 3), mean, mean + spread


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Parameters
    ----------
    name, state : str
        `state` is one of queued, running, paused, done, cancelled, stopped, interrupted.
    total : int
        Points of the design.
    done, failed, killed, timeout, skipped, stale, running, pending : int
        Points in each status; they add up to `total`.
    rate : float
        Points per second lately, 0 when unknown.
    eta : (float, float) or None
        Seconds left, at best and at worst.
    workers : int
    elapsed : float
        Seconds since the host took the sweep, until now or until it ended.
    message : str
        What the host says.
    causes : mapping of str to int
        Failures by cause, the most frequent first.
    cost : float or None
        What it has cost so far; None where nobody knows prices.
    currency : str
        Of the cost.
    guard : str
        While it is not known yet which points there are, because a slow guard is evaluated by the host first:
        "pending", or "failed" once that raised; all counts are 0 then. Empty as a rule.
    superseded : bool
        Whether somebody declared the sweep anew without points that are missing here, and all of that is done.
    """

    name: str
    state: str
    total: int
    done: int = 0
    failed: int = 0
    killed: int = 0
    timeout: int = 0
    skipped: int = 0
    stale: int = 0
    running: int = 0
    pending: int = 0
    rate: float = 0.0
    eta: tuple[float, float] | None = None
    workers: int = 0
    elapsed: float = 0.0
    message: str = ""
    causes: Mapping[str, int] = field(default_factory=dict)
    cost: float | None = None
    currency: str = "USD"
    guard: str = ""
    superseded: bool = False

    @classmethod
    def of(
        cls,
        sweep: "SweepStore",
        snapshot: "Snapshot | None" = None,
        meter: Meter | None = None,
        now: float | None = None,
    ) -> "Progress":
        """Progress of a sweep as the store shows it.

        Parameters
        ----------
        sweep : SweepStore
        snapshot : Snapshot, optional
            One that is kept up to date by the caller; made for the occasion otherwise.
        meter : Meter, optional
            Kept between calls, it makes the estimate of what is left sharper.
        """
        if snapshot is None:
            from mce_notebook.view.dataset import Snapshot

            snapshot = Snapshot(sweep)
        now = time.time() if now is None else now
        # The host's word first, then the log: what it wrote before it said `done` must not look missing.
        host = HostSigns.of(sweep, now)
        snapshot.update()
        host = HostSigns.of(sweep, now)
        if snapshot.declaration.deferred:
            return _before_points(snapshot, host, now)
        found = snapshot.counts(host)
        counts = {status.name.lower(): count for status, count in found.items()}
        left = snapshot.left(found)
        state, message = host.state(left, now), host.message
        superseded = state == "interrupted" and host.beat.get("state") == "done" and snapshot.superseded
        if superseded:
            state = "stopped"
            message = f"declared anew since, without {left:,} of these points; run this cell again to compute them"
        elif sweep.gone:
            message = f"its folder is not at {sweep.paths.folder} any more"
        known = snapshot.cells.total - left
        rates = None
        if meter is not None:
            meter.add(now, known)
            rates = meter.rates()
        rate = host.rate if rates is None else rates[1]
        low, high = (0.7 * rate, 1.5 * rate) if rates is None else (rates[0], rates[2])
        running = state == "running"
        return cls(
            name=sweep.name,
            state=state,
            total=snapshot.cells.total,
            **counts,
            rate=rate if running else 0.0,
            eta=(left / high, left / low) if running and rate > 0 and left else None,
            workers=host.workers if running else 0,
            elapsed=host.elapsed(now),
            message=message,
            causes=grouped(snapshot.causes()),
            cost=host.cost,
            currency=host.currency,
            guard="",
            superseded=superseded,
        )

    @property
    def extent(self) -> str:
        """How many points are known, of how many, in words."""
        return "points not known yet" if self.guard else f"{self.known:,} of {self.total:,} points"

    @property
    def known(self) -> int:
        """Points that need no more work: all but pending and running ones."""
        return self.total - self.pending - self.running

    @property
    def ended(self) -> bool:
        """Nothing will change by itself any more."""
        return self.state not in ("queued", "running")

    def text(self, width: int = 24) -> str:
        """One line with a bar, and a second one when there is something to add."""
        if self.guard:
            return f"{self.name}  {self.state}  {' · '.join(self._details())}"
        filled = width if not self.total else self.known * width // self.total
        bar = "█" * filled + "░" * (width - filled)
        first = f"{self.name}  {self.state}  {bar} {self._share()}  " + " · ".join(self._facts())
        details = self._details()
        return first + ("\n" + " · ".join(details) if details else "")

    def html(self) -> str:
        """Show the same as a block that follows the colours of the page; all text is escaped."""
        parts = [
            (self.done + self.skipped, "var(--jp-success-color1, #388e3c)"),
            (self.stale, "var(--jp-warn-color1, #f57c00)"),
            (self.failed + self.killed + self.timeout, "var(--jp-error-color1, #d32f2f)"),
            (self.running, "var(--jp-brand-color1, #1976d2)"),
        ]
        bars = "".join(
            f'<span style="width:{100 * count / max(self.total, 1):.3f}%;background:{colour}"></span>'
            for count, colour in parts
            if count
        ).replace('<span style="', '<span style="display:inline-block;height:100%;')
        lines = [f"<b>{html.escape(self.name)}</b> {html.escape(self.state)} {self._share()}"]
        lines += [html.escape(" · ".join(self._facts()))]
        details = html.escape(" · ".join(self._details()))
        return (
            '<div class="mce-progress" style="font-family:var(--jp-ui-font-family, sans-serif);'
            "font-size:var(--jp-ui-font-size1, 13px);color:var(--jp-ui-font-color1, inherit);"
            'max-width:640px">'
            f'<div style="display:flex;justify-content:space-between;gap:1em"><span>{lines[0]}</span>'
            f'<span style="color:var(--jp-ui-font-color2, inherit)">{lines[1]}</span></div>'
            '<div style="height:6px;margin:4px 0;border-radius:3px;overflow:hidden;white-space:nowrap;'
            f'font-size:0;background:var(--jp-layout-color3, rgba(128,128,128,0.3))">{bars}</div>'
            + (f'<div style="color:var(--jp-ui-font-color2, inherit)">{details}</div>' if details else "")
            + "</div>"
        )

    def _share(self) -> str:
        if self.guard:
            return ""
        if self.known == self.total:
            return "100 %"
        # Never "100 %" before it is.
        return f"{min(100 * self.known / self.total, 99.9):.{0 if self.total < 1000 else 1}f} %"

    def _facts(self) -> list[str]:
        if self.guard:
            return []
        known = f"{self.total:,}" if self.known == self.total else f"{self.known:,} of {self.total:,}"
        facts = [f"{known} point{'' if self.total == 1 else 's'}"]
        if self.rate > 0:
            facts.append(f"{_number(self.rate)} points/s")
        if self.eta is not None:
            facts.append(_range(*self.eta) + " left")
        elif self.elapsed >= 1 and self.ended:
            facts.append(f"in {duration(self.elapsed)}")
        return facts

    def _details(self) -> list[str]:
        bad = self.failed + self.killed + self.timeout
        details = []
        if bad:
            single = len(self.causes) == 1
            shown = [cause if single else f"{count:,} x {cause}" for cause, count in list(self.causes.items())[:3]]
            more = f", {len(self.causes) - 3} more causes" if len(self.causes) > 3 else ""
            details.append(f"{bad:,} failed" + (f" ({', '.join(shown)}{more})" if shown else ""))
        if self.skipped:
            details.append(f"{self.skipped:,} skipped")
        if self.stale:
            details.append(f"{self.stale:,} stale")
        if self.workers:
            details.append(f"{self.workers} worker{'' if self.workers == 1 else 's'}")
        if self.cost is not None:
            details.append(f"{self.cost:.2f} {self.currency}")
        if self.state == "interrupted":
            details.append("its host is gone; run the cell again or resume to go on")
        if self.message:
            details.append(self.message)
        return details


def _before_points(snapshot: "Snapshot", host: HostSigns, now: float) -> Progress:
    """Return the progress of a sweep whose slow guards are not evaluated yet: which points it has nobody knows."""
    state = host.state(1, now)
    running = state == "running"
    said = host.beat.get("guard") or {}
    failed = state == "stopped" and host.message.startswith("The guard ")
    if running and said.get("total"):
        told = f"the guard {said['text']} is evaluated: {said['done']:,} of {said['total']:,} combinations"
    else:
        guards = dict.fromkeys(str(guard) for part in snapshot.declaration.grid.parts for guard in part.guards)
        name = f"the guard {next(iter(guards))}" if len(guards) == 1 else "guards"
        told = f"which points there are is known once {name} {'is' if len(guards) == 1 else 'are'} evaluated"
    message = host.message if failed else "; ".join(filter(None, (told, host.message)))
    return Progress(
        name=snapshot.name,
        state=state,
        total=0,
        workers=host.workers if running else 0,
        elapsed=host.elapsed(now),
        message=message,
        cost=host.cost,
        currency=host.currency,
        guard="failed" if failed else "pending",
    )


def duration(seconds: float) -> str:
    """Write a span of time for people: "42 s", "3 min 20 s", "2 h 5 min", "3 days 4 h"."""
    if seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    units = ((86400, "day"), (3600, "h"), (60, "min"), (1, "s"))
    for (large, one), (small, other) in itertools.pairwise(units):
        if whole >= large:
            count, rest = whole // large, whole % large // small
            unit = one + ("s" if one == "day" and count > 1 else "")
            return f"{count} {unit}" + (f" {rest} {other}" if rest and count < 10 else "")
    return f"{whole} s"


def _range(low: float, high: float) -> str:
    first, last = duration(low), duration(high)
    return first if first == last else f"{first} to {last}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
