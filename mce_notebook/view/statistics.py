"""Means over replicates, and the intervals drawn around them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Groups:
    """Mean of every group of values, with an interval that holds the true mean with probability LEVEL.

    Parameters
    ----------
    count : int64[groups]
        Number of values; groups without any have NaN elsewhere.
    mean, low, high : float64[groups]
        NaN in `low` and `high` where fewer than two values leave the spread unknown.
    """

    count: Integers
    mean: Floats
    low: Floats
    high: Floats


def grouped(values: npt.NDArray[Any], group: Integers, size: int, *, share: bool = False) -> Groups:
    """Average values by group.

    Parameters
    ----------
    values : float[k]
        NaN is left out; infinities make the mean of their group infinite, and its interval unknown.
    group : int64[k]
        Group of each value, 0 <= group < size.
    share : bool
        Whether the values are 0 and 1, so that the mean is a share.

    Returns
    -------
    Groups
        With Student's interval for means of `m` values, mean +- t(m - 1) s / sqrt(m) ("Student", Biometrika 6, 1908),
        and Wilson's for shares (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927), which stays within 0 and 1.
    """
    known = ~np.isnan(values)
    values, group = values[known].astype(np.float64), group[known]
    count = np.bincount(group, minlength=size).astype(np.int64)
    with np.errstate(all="ignore"):
        mean: Floats = np.bincount(group, values, minlength=size) / count
        if share:
            return Groups(count, mean, *_wilson(mean, count))
        # In two passes: the difference of sums of squares would cancel.
        squares = np.bincount(group, (values - mean[group]) ** 2, minlength=size)
        half = _quantile(count) * np.sqrt(squares / (count - 1) / count)
        half[count < 2] = np.nan
        return Groups(count, mean, mean - half, mean + half)


def _quantile(count: Integers) -> Floats:
    """Quantile of Student's distribution with count - 1 degrees of freedom."""
    # scipy.special loads in a fifth of the time of scipy.stats.
    from scipy.special import stdtrit

    distinct, inverse = np.unique(count, return_inverse=True)
    return np.asarray(stdtrit(np.maximum(distinct - 1, 1), 0.5 + LEVEL / 2), np.float64)[inverse]


def _wilson(share: Floats, count: Integers) -> tuple[Floats, Floats]:
    from scipy.special import ndtri

    z = float(ndtri(0.5 + LEVEL / 2))
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
    few = count < 2
    low[few] = high[few] = np.nan
    return low, high
