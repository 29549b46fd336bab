"""Outcomes of consecutive points, gathered until they are encoded and handed on."""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.declare.grid import Status
from mce_notebook.declare.routine import MISSING, SKIP
from mce_notebook.errors import SweepError
from mce_notebook.plan import Block
from mce_notebook.run.causes import message, one_line, trimmed, type_name
from mce_notebook.run.outcome import cut, failed_count
from mce_notebook.store.frames import Failure, Frame, Outcomes, encode

# How many items of a container are looked at, and what a value is taken for that does not let itself be measured.
_SAMPLE = 16
_SOME = 1024

Flush = Callable[[list[Frame], int, int], None]


@dataclass
class Batch:
    """What points gave since the last hand-over.

    Parameters
    ----------
    start : int
        Position in the block of the first.
    values : list
        One entry a point; None where it failed.
    failures : dict of int to Failure
        By place in `values`.
    tails : dict of int to str
        What points printed, likewise.
    seconds : list of float
        Time of each point, where points were timed.
    spent : float
        Seconds in all.
    nbytes : int
        Rough size of the values.
    """

    start: int
    values: list[Any] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    tails: dict[int, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    spent: float = 0.0
    nbytes: int = 0

    @property
    def stop(self) -> int:
        """Position in the block after the last."""
        return self.start + len(self.values)

    def fail(self, failure: Failure) -> None:
        """Add a point that failed."""
        self.failures[len(self.values)] = failure
        self.values.append(None)

    def mark(self) -> tuple[int, float, int, int]:
        """Return a place to `rewind` to."""
        return len(self.values), self.spent, self.nbytes, len(self.seconds)

    def rewind(self, mark: tuple[int, float, int, int]) -> None:
        """Forget what was added after a mark."""
        count, self.spent, self.nbytes, timed = mark
        del self.values[count:]
        del self.seconds[timed:]
        for kept in (self.failures, self.tails):
            for place in [place for place in kept if place >= count]:
                del kept[place]


@dataclass
class Encoder:
    """Makes frames of batches.

    Parameters
    ----------
    names : tuple of str or None
        Outputs of the experiment.
    declaration : int
    meta : dict of str to str
        Kept with every frame.
    marks : bool
        Whether points may return `SKIP` or hold `MISSING`, so that values must be looked through.
    big : Path or None
        Where large payloads go, when they are to be files of their own.
    """

    names: tuple[str, ...] | None
    declaration: int
    meta: dict[str, str]
    marks: bool
    big: Path | None = None

    def frames(self, batch: Batch, block: Block) -> list[Frame]:
        """Return the frames of a batch."""
        part = cut(block, batch.start, batch.stop)
        if part is None:
            return []
        skipped = self._resolve(batch.values) if self.marks else []
        timed = len(batch.seconds) == len(batch.values)
        seconds = np.array(batch.seconds, np.float32) if timed else None
        meta = self.meta if timed else {**self.meta, "seconds": repr(batch.spent)}
        outcomes = Outcomes(batch.values, batch.failures, skipped, seconds, batch.tails)
        try:
            return self._encode(outcomes, part, meta, self.big)
        except SweepError:
            raise
        except BaseException:
            return self._encode(self._sifted(outcomes, part, meta), part, meta, self.big)

    def _encode(self, outcomes: Outcomes, part: Block, meta: dict[str, str], big: Path | None = None) -> list[Frame]:
        return encode(outcomes, self.names, declaration=self.declaration, ranges=part.ranges, meta=meta, big=big)

    def _sifted(self, outcomes: Outcomes, part: Block, meta: dict[str, str]) -> Outcomes:
        """Return outcomes where values that cannot be encoded are failures of their points."""
        values, failures = list(outcomes.values), dict(outcomes.failures)
        (index,) = part.ranges[0][:1]
        for place, value in enumerate(values):
            if place in failures:
                continue
            try:
                self._encode(Outcomes([value]), Block(((index, index + 1),)), meta)
            except BaseException as error:
                told = f"cannot be stored: {type_name(error)}: {message(error)}"
                failures[place] = Failure(Status.FAILED, "Unstorable", told, trimmed(error), cause=one_line(told))
                values[place] = None
        return replace(outcomes, values=values, failures=failures)

    def _resolve(self, values: list[Any]) -> list[int]:
        """Replace marks by None; return where points were skipped."""
        skipped = []
        for place, value in enumerate(values):
            if value is SKIP:
                skipped.append(place)
                values[place] = None
            elif value is MISSING:
                values[place] = None
            elif type(value) is tuple and any(item is MISSING for item in value):
                values[place] = tuple(None if item is MISSING else item for item in value)
        return skipped


def hand(encoder: Encoder, batch: Batch, block: Block, flush: Flush) -> tuple[int, int]:
    """Encode a batch and hand it on; return how many points of it failed, and its bytes."""
    frames = encoder.frames(batch, block)
    failed = failed_count(frames)
    if frames:
        flush(frames, batch.stop, failed)
    return failed, sum(frame.stored for frame in frames)


def size(value: Any, depth: int = 2) -> int:
    """Return roughly how many bytes a value takes, looking into containers `depth` levels deep."""
    try:
        nbytes = getattr(value, "nbytes", None)
        if isinstance(nbytes, int):
            return nbytes
        if depth and isinstance(value, dict | tuple | list) and value:
            items = list(itertools.islice(value.values() if isinstance(value, dict) else value, _SAMPLE))
            return sum(size(item, depth - 1) for item in items) * len(value) // len(items)
        return sys.getsizeof(value)
    except Exception:
        # Properties of user classes may raise anything.
        return _SOME
