"""Points that several tests compute on VMs."""

import time

import numpy as np


def noise(n: int, rng: np.random.Generator) -> float:
    """Draw, slowly enough that kills meet it."""
    time.sleep(0.1)
    return float(rng.normal(size=n).mean())


def slow(x: int) -> int:
    """Square."""
    time.sleep(0.4)
    return x * x
