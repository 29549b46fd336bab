"""Causes of failures told together where they differ only in a number."""

import functools
import re
from collections import Counter
from collections.abc import Mapping

# Not inside of names (`x1`), but with units (`5s`); an address is a number too.
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:0x[0-9a-fA-F]++|\d++(?:\.\d++)?(?:[eE][-+]?\d++)?)")
NUMBER = "…"


@functools.lru_cache(1 << 14)
def pattern(cause: str) -> str:
    """Return a cause with every number in it left out."""
    return _NUMBER.sub(NUMBER, cause)


def names(causes: Mapping[str, int]) -> dict[str, str]:
    """Return what each cause is told under: itself, or its pattern where several share that."""
    patterns = {cause: pattern(cause) for cause in causes}
    shared = Counter(patterns.values())
    return {cause: found if shared[found] > 1 else cause for cause, found in patterns.items()}


def grouped(causes: Mapping[str, int]) -> dict[str, int]:
    """Count failures by what their causes are told under, the most frequent first.

    Parameters
    ----------
    causes : mapping of str to int
        Number of failures by exact cause.
    """
    counts: Counter[str] = Counter()
    told = names(causes)
    for cause, count in causes.items():
        counts[told[cause]] += count
    return dict(counts.most_common())
