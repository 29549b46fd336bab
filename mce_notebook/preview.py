"""`--dry-run`: what a cell would set off and what it would cost, with nothing written and nothing submitted."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.errors import DeclarationError
from mce_notebook.launch import Draft, Proposal, draft, refuse_expensive
from mce_notebook.plan import Preview, preview
from mce_notebook.store.frames import Outcomes, encode

# The canary: this many points, or as many as end within this time (seconds).
CANARIES = 5
CANARY_SECONDS = 0.5


@dataclass(frozen=True)
class Estimate:
    """What a launch would do and cost.

    Parameters
    ----------
    counts : Preview
        Points by what would happen to them, and the first and last to be computed.
    todo : int
        Points that would be computed now.
    held : int
        Stale points that would be left as they are.
    seconds : float or None
        Of one point, as measured; None where nothing could be measured.
    nbytes : float or None
        Of one outcome in the log.
    source : str
        Where the measure comes from.
    cores : int
        That a point needs.
    notes : tuple of str
        What was understood of the cell.
    problem : str
        The error of the point that was tried, if it failed.
    guard : bool
        Whether a slow guard is left to the host: all counts are the most there can be then.
    """

    counts: Preview
    todo: int
    held: int
    seconds: float | None
    nbytes: float | None
    source: str
    cores: int
    notes: tuple[str, ...] = ()
    problem: str = ""
    guard: bool = False

    @property
    def core_seconds(self) -> float | None:
        """Of all points that would be computed now; the most it can be while a guard is left to the host."""
        return None if self.seconds is None else self.todo * self.seconds * self.cores

    def text(self) -> str:
        """For people."""
        counts = self.counts
        lines = list(self.notes)
        if self.guard:
            return "\n".join([*lines, *self._at_most(), "Nothing was started."])
        stale = f"{counts.stale:,} stale" + (f", {self.held:,} of them held back" if self.held else "")
        lines.append(
            f"{counts.points:,} points: {counts.new:,} new, {counts.reused:,} reused, {stale}, "
            f"{counts.skipped:,} left out by guards"
        )
        lines.append(f"{self.todo:,} would be computed now")
        if counts.first is not None and counts.last is not None:
            lines += [f"first: {_point(counts.first)}", f"last:  {_point(counts.last)}"]
        if self.core_seconds is not None and self.todo:
            lines.append(f"about {_span(self.core_seconds)} of one core ({self.source})")
        if self.nbytes is not None and self.todo:
            lines.append(f"about {_size(self.nbytes * self.todo)} of outcomes")
        if self.problem:
            lines.append(f"the first point fails: {self.problem}")
        lines.append("Nothing was started.")
        return "\n".join(lines)

    def _at_most(self) -> list[str]:
        lines = [
            f"at most {self.counts.points:,} points: a guard takes too long to be evaluated here, so the host of the "
            "sweep does it, before the points",
            f"at most {self.todo:,} would be computed now",
        ]
        if self.core_seconds is not None and self.todo:
            lines.append(f"at most about {_span(self.core_seconds)} of one core ({self.source})")
        return lines


def estimate(proposal: Proposal, root: Path) -> Estimate:
    """Estimate what a proposal would do, by computing a few of its points here.

    Nothing is recorded; what the points print is shown.

    Raises
    ------
    DeclarationError
        As launching it would.
    """
    plan = draft(proposal, root)
    grid = plan.declaration.grid
    # A frozen class; the protocol asks for attributes one could set.
    known: Any = plan.known
    counts = preview(grid, grid.candidates(), known)
    at = np.flatnonzero(plan.todo)
    seconds, nbytes, source, problem = _cost(plan, at)
    return Estimate(
        counts, at.size, plan.held, seconds, nbytes, source, proposal.options.cores, _notes(proposal.info), problem,
        grid.deferred,
    )  # fmt: skip


def confirm(proposal: Proposal, root: Path) -> None:
    """Refuse a proposal that would cost more than its `--confirm-above` allows; nothing is measured without it.

    Raises
    ------
    DeclarationError
        Naming the estimate and the option.
    """
    limit = proposal.options.confirm_above
    if limit is None:
        return
    found = estimate(proposal, root)
    if found.guard and (found.core_seconds is None or found.core_seconds > limit):
        raise DeclarationError(
            f"What this would take is not known before its guards are evaluated, which takes too long to be done here "
            f"(there are at most {found.counts.points:,} points); nothing was submitted. Leave --confirm-above out to "
            "run it all the same."
        )
    refuse_expensive(found.core_seconds or 0.0, limit)


def _notes(info: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(note) for note in info.get("notes", ()))


def _cost(plan: Draft, at: np.ndarray) -> tuple[float | None, float | None, str, str]:
    recorded = plan.known.seconds[plan.known.seconds > 0]
    if not at.size:
        return None, None, "", ""
    if recorded.size >= CANARIES:
        return float(np.nanmean(recorded)), None, f"as {recorded.size:,} points took before", ""
    if plan.declaration.deferred:
        # A point that a guard leaves out may not be computable.
        return None, None, "", ""
    return _canary(plan, at)


def _canary(plan: Draft, at: np.ndarray) -> tuple[float | None, float | None, str, str]:
    """Compute some points, spread over those to be computed, and time them."""
    from mce_notebook.run.replay import replay

    experiment, grid = plan.proposal.experiment, plan.declaration.grid
    chosen = at[np.unique(np.linspace(0, at.size - 1, CANARIES).astype(int))]
    times: list[float] = []
    values: list[Any] = []
    begin = time.perf_counter()
    for index in chosen.tolist():
        start = time.perf_counter()
        try:
            values.append(replay(experiment, grid, index))
        except Exception as error:  # whatever the user's code raises is told, not raised
            if not times:
                return None, None, "", f"{type(error).__name__}: {error} at {_point(grid.point(index))}"
            continue
        times.append(time.perf_counter() - start)
        if time.perf_counter() - begin > CANARY_SECONDS:
            break
    frames = encode(
        Outcomes(values),
        experiment.outputs,
        declaration=1,
        ranges=[(0, len(values))],
        meta={"version": "", "seconds": "0"},
    )
    size = sum(frame.nbytes for frame in frames) / len(values)
    told = f"{len(times)} point{'' if len(times) == 1 else 's'} tried here"
    return float(np.mean(times)), size, told, ""


def _point(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={label}" for name, label in labels.items())


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(nbytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
