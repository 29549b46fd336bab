"""Where failures live: the shortest rules over the axes that cover failures and (nearly) no success.

A rule is a conjunction of intervals of ordered axes and of equalities of the others, found by a beam search.
Each literal is the best interval of an axis for a trade of failures against successes (a maximum-sum subarray of
the counts per label, Bentley 1984). A rule is kept only if so pure a region is unlikely to be chance among all
the rules that could have been tried (a Bonferroni bound on failures placed at random).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.view.cells import Booleans, Integers

LITERALS = 3
BEAM = 6
# Share of successes that a rule may contain and still be told.
IMPURITY = 0.02
CHANCE = 0.1
_TRADES = (0.5, 2.0, 8.0, 1e6)


@dataclass(frozen=True, eq=False)
class Condition:
    """`name` lies between the `low`-th and the `high`-th of its labels, or is not the `low`-th one.

    Parameters
    ----------
    labels : array
        Every label of the name; sorted, when `ordered`.
    """

    name: str
    low: int
    high: int
    labels: npt.NDArray[Any]
    ordered: bool
    negated: bool = False

    def holds(self, codes: Integers) -> Booleans:
        """For positions of labels, whether the condition is true."""
        inside = (codes >= self.low) & (codes <= self.high)
        return ~inside if self.negated else inside

    @property
    def tried(self) -> float:
        """How many conditions of this form the axis allows."""
        count = len(self.labels)
        if self.low == 0 or self.high == count - 1 or self.low == self.high:
            return 2.0 * count
        return count * (count + 1) / 2

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.name} {'is not' if self.negated else '='} {_label(self.labels[self.low])}"
        below = f"{self.name} < {_label(self.labels[self.high + 1])}" if self.high + 1 < len(self.labels) else ""
        if self.low == 0:
            return below
        above = _label(self.labels[self.low - 1])
        return f"{above} < {below}" if below else f"{self.name} > {above}"


@dataclass(frozen=True, eq=False)
class Region:
    """A rule and what is known inside it.

    Parameters
    ----------
    conditions : tuple of Condition
        All must hold; none means everywhere.
    failures, successes : int
        Points known inside the rule.
    cause : str
        What the failures have in common; empty when nothing was asked.
    """

    conditions: tuple[Condition, ...]
    failures: int
    successes: int
    cause: str = ""

    @property
    def rule(self) -> str:
        """The conditions in words, "dt > 0.1 and solver = euler"."""
        return " and ".join(map(str, self.conditions)) or "points"

    def holds(self, codes: Mapping[str, Integers]) -> Booleans:
        """For positions of labels by name, whether the rule is true."""
        size = next(iter(codes.values())).size if codes else 0
        inside = np.ones(size, bool)
        for condition in self.conditions:
            inside &= condition.holds(codes[condition.name])
        return inside

    def __str__(self) -> str:
        noun = "failure" if self.failures == 1 else "failures"
        share = "all" if not self.successes else f"{self.failures} of {self.failures + self.successes} with"
        cause = f" ({self.cause})" if self.cause else ""
        return f"{self.failures:,} {noun}{cause}: {share} {self.rule}"


@dataclass(frozen=True, eq=False)
class _Axis:
    name: str
    codes: Integers
    labels: npt.NDArray[Any]
    ordered: bool


def ranked(
    codes: Mapping[str, tuple[Integers, npt.NDArray[Any]]],
) -> dict[str, tuple[Integers, npt.NDArray[Any]]]:
    """Count the codes along sorted labels instead of listed ones."""
    out = {}
    for name, (code, labels) in codes.items():
        distinct, place = np.unique(labels, return_inverse=True)
        out[name] = (place.reshape(-1)[code], distinct)
    return out


def find(
    codes: Mapping[str, tuple[Integers, npt.NDArray[Any]]],
    failed: Booleans,
    *,
    most: int = 4,
    cause: str = "",
) -> list[Region]:
    """Rules that cover the failures among points, the one covering most first.

    Parameters
    ----------
    codes : mapping of name to (int64[k] codes, array of labels)
        Coordinates of the points that are known, as `ranked` gives them.
    failed : bool[k]
        Which of them failed; the others succeeded.
    most : int
        How many rules at most.
    cause : str
        Carried into the regions.

    Returns
    -------
    list of Region
        Empty when the failures are scattered.
    """
    axes = [
        _Axis(name, code, labels, labels.dtype.kind in "iufM")
        for name, (code, labels) in codes.items()
        if len(labels) > 1
    ]
    total = int(failed.sum())
    if not total:
        return []
    if total == failed.size:
        return [Region((), total, 0, cause)]
    rate = total / failed.size
    left = failed.copy()
    found: list[Region] = []
    while len(found) < most and left.sum() > 0.05 * total:
        rule = _best(axes, left, ~failed, rate)
        if rule is None:
            break
        inside = np.ones(failed.size, bool)
        for condition in rule:
            inside &= condition.holds(codes[condition.name][0])
        found.append(Region(rule, int((failed & inside).sum()), int((~failed & inside).sum()), cause))
        left &= ~inside
    return found


@dataclass(frozen=True, eq=False)
class _Rule:
    conditions: tuple[Condition, ...]
    failures: int
    successes: int

    @property
    def pure(self) -> bool:
        return self.successes <= IMPURITY * (self.failures + self.successes)

    def gain(self, rate: float) -> float:
        """Failures covered times the information gained on each (FOIL, Quinlan 1990)."""
        if not self.failures:
            return -1.0
        return self.failures * math.log2(self.failures / (self.failures + self.successes) / rate)

    def worth(self) -> float:
        """Failures covered, less for every further literal."""
        return self.failures * 0.85 ** len(self.conditions)


def _best(axes: Sequence[_Axis], failed: Booleans, good: Booleans, rate: float) -> tuple[Condition, ...] | None:
    beam = [_Rule((), int(failed.sum()), int(good.sum()))]
    pure: list[_Rule] = []
    for _ in range(LITERALS):
        grown = [rule for parent in beam for rule in _grow(parent, axes, failed, good)]
        pure += [rule for rule in grown if rule.pure and _telling(rule, axes, int(failed.sum()), int(good.sum()))]
        open_rules = sorted((rule for rule in grown if not rule.pure), key=lambda rule: -rule.gain(rate))
        beam = open_rules[:BEAM]
        if not beam:
            break
    if not pure:
        return None
    names = [axis.name for axis in axes]
    return tuple(sorted(max(pure, key=_Rule.worth).conditions, key=lambda condition: names.index(condition.name)))


def _telling(rule: _Rule, axes: Sequence[_Axis], failures: int, successes: int) -> bool:
    """Whether as many of the failures would hardly lie in the rule by chance (hypergeometric probability)."""
    tried = math.prod(condition.tried for condition in rule.conditions)
    tried *= math.comb(len(axes), len(rule.conditions))
    inside, everywhere = rule.failures + rule.successes, failures + successes
    chance = (
        _log_choose(inside, rule.failures)
        + _log_choose(everywhere - inside, failures - rule.failures)
        - _log_choose(everywhere, failures)
    )
    return chance + math.log(tried) < math.log(CHANCE)


def _log_choose(among: int, chosen: int) -> float:
    return math.lgamma(among + 1) - math.lgamma(chosen + 1) - math.lgamma(among - chosen + 1)


def _grow(parent: _Rule, axes: Sequence[_Axis], failed: Booleans, good: Booleans) -> Iterator[_Rule]:
    used = {condition.name for condition in parent.conditions}
    by_name = {axis.name: axis for axis in axes}
    inside = np.ones(failed.size, bool)
    for condition in parent.conditions:
        inside &= condition.holds(by_name[condition.name].codes)
    bad_points, good_points = np.flatnonzero(failed & inside), np.flatnonzero(good & inside)
    for axis in axes:
        if axis.name in used:
            continue
        bad = np.bincount(axis.codes[bad_points], minlength=len(axis.labels))
        fine = np.bincount(axis.codes[good_points], minlength=len(axis.labels))
        for low, high, negated in _candidates(axis, bad, fine):
            condition = Condition(axis.name, low, high, axis.labels, axis.ordered, negated)
            chosen = slice(low, high + 1)
            counts = int(bad[chosen].sum()), int(fine[chosen].sum())
            if negated:
                counts = int(bad.sum()) - counts[0], int(fine.sum()) - counts[1]
            yield _Rule((*parent.conditions, condition), *counts)


def _candidates(axis: _Axis, bad: Integers, fine: Integers) -> set[tuple[int, int, bool]]:
    found: set[tuple[int, int, bool]] = set()
    last = len(bad) - 1
    for trade in _TRADES:
        score = bad - trade * fine
        if not axis.ordered:
            best = int(np.argmax(score))
            found.add((best, best, False))
            if last > 1:
                worst = int(np.argmin(score))
                found.add((worst, worst, True))
            continue
        rising = np.cumsum(score)
        total = rising[-1]
        prefix = int(np.argmax(rising))
        suffix = int(np.argmax(total - rising + score))
        found |= {(0, prefix, False), (suffix, last, False), (*_densest(rising), False)}
    whole = (0, last, False)
    return found - {whole}


def _densest(rising: npt.NDArray[Any]) -> tuple[int, int]:
    """Find the interval of largest sum, from the running sums."""
    before = np.concatenate([[0.0], rising[:-1]])
    lowest = np.minimum.accumulate(before)
    high = int(np.argmax(rising - lowest))
    low = int(np.argmin(before[: high + 1]))
    return low, high


def _label(label: Any) -> str:
    if isinstance(label, (float, np.floating)):
        return f"{label:.6g}"
    return str(label)
