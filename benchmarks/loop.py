"""The bare loop: one clean process of several, told what to compute on its standard input.

`python -m benchmarks.loop NUMBER OF`, then lines `FUNCTION POINTS PART`: it computes its share of the first PART of the
grid and answers with the CPU seconds that took.
"""

import itertools
import sys
import time

import numpy as np

from benchmarks import workloads


def main(number: int, of: int) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        function, points, part = line.split()
        begin = time.process_time()
        compute(function, int(points), float(part), number, of)
        print(f"{time.process_time() - begin:.6f}", flush=True)


def compute(function: str, points: int, part: float, number: int, of: int) -> list[object]:
    """Return the outcomes of every `of`-th row of the first axis, of as many rows as `part` says."""
    grid = workloads.axes(points)
    rows = grid["a"][: max(of, round(len(grid["a"]) * part))][number::of]
    cells = itertools.product(rows, grid["b"], grid["k"])
    if function == "drawn":
        # What a plain loop does: one generator for all, so that no point can be computed again alone.
        rng = np.random.default_rng(number)
        return [workloads.drawn(a, b, k, rng) for a, b, k in cells]
    if function == "drawn_own":
        # A stream for each point, as NumPy's documentation makes them, so that any point can be computed alone.
        return [workloads.drawn(a, b, k, np.random.default_rng([number, at])) for at, (a, b, k) in enumerate(cells)]
    called = getattr(workloads, function)
    return [called(a, b, k) for a, b, k in cells]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
