"""The functions that every tool computes, and the grids they are computed over."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

# Edges of the grid of so many points; three axes, as in real sweeps, so that nothing is won by a flat range.
SHAPES = {
    8: (2, 2, 2),
    100: (5, 5, 4),
    300: (10, 10, 3),
    1_000: (10, 10, 10),
    10_000: (100, 10, 10),
    100_000: (100, 100, 10),
    1_000_000: (100, 100, 100),
    10_000_000: (1000, 100, 100),
}
VECTOR = 1000
SOLVES = 5
_ORDER = 240


def tiny(a: float, b: float, k: int) -> float:
    """Compute for about a microsecond."""
    x = a * b + 0.5 * k
    y = math.sin(x) * math.cos(a) + math.sqrt(x * x + b * b + 1.0)
    z = (y - x) * (y + x) * 0.25 + math.sin(y) * 1e-3
    w = z * 0.5 + a - b
    u = w * w - x + math.cos(w) * math.sin(z)
    v = math.sin(u + a) * math.cos(u - b) + math.sqrt(u * u + 1.0)
    p = (v - u) * (v + u) * 0.25 + math.sin(v) * 1e-3
    return p * 0.5 + a * u - b * v


def drawn(a: float, b: float, k: int, rng: np.random.Generator) -> float:
    """Do the same and draw one normal number."""
    return tiny(a, b, k) + rng.standard_normal()


def many(a: float, b: float, k: int) -> tuple[float, ...]:
    """Give ten numbers."""
    y = tiny(a, b, k)
    return y, y + a, y + b, y * a, y * b, a * b, a + k, b + k, y - a, y - b


def slower(a: float, b: float, k: int) -> float:
    """Compute for about 20 microseconds."""
    return sum(tiny(a, b, k + n) for n in range(20))


def solve(a: float, b: float, k: int) -> float:
    """Compute for about ten milliseconds with NumPy: arrays of 460 kB, as allocators find hard."""
    matrix, x = _system()
    for _ in range(SOLVES):
        x = np.linalg.solve(matrix, x)
    return float(x[0, 0]) + a * b + k


def vector(a: float, b: float, k: int) -> np.ndarray:
    """Give a thousand float64, made in two microseconds, so that what is measured is the way back."""
    return np.arange(float(VECTOR)) * a + (b + k)


def trivial(a: float, b: float, k: int) -> float:
    """Compute next to nothing."""
    return a * b + k


def _system() -> tuple[np.ndarray, np.ndarray]:
    if not _kept:
        rng = np.random.default_rng(0)
        matrix = rng.standard_normal((_ORDER, _ORDER)) + _ORDER * np.eye(_ORDER)
        _kept.append((matrix, rng.standard_normal((_ORDER, _ORDER))))
    return _kept[0]


_kept: list[tuple[np.ndarray, np.ndarray]] = []


def axes(points: int) -> dict[str, list[Any]]:
    """Return the labels of a grid of `points` points."""
    na, nb, nk = SHAPES[points]
    return {"a": np.linspace(0, 1, na).tolist(), "b": np.linspace(1, 2, nb).tolist(), "k": list(range(nk))}


def cells(grid: dict[str, list[Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield every combination, the first axis slowest."""
    return itertools.product(*grid.values())
