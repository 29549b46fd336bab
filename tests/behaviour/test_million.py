"""A million points from a notebook, ten million from Python: what the kernel holds, and that nothing is lost."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import mce_notebook as mce


def test_a_million_points(root: Path) -> None:
    def mixed(a: float, b: float, c: int) -> float:
        return a * b + c

    a, b, c = np.linspace(0, 1, 100), np.linspace(1, 2, 100), range(100)
    data = mce.sweep(mixed, a=a, b=b, c=c, on="local").result(timeout=100)
    expected = a[:, None, None] * b[:, None] + np.arange(100)
    assert np.array_equal(data.mixed.values, expected)
    assert bool((data.status == 2).all())


@pytest.mark.timeout(200)
def test_ten_million_points_keep_the_kernel_small(root: Path) -> None:
    """In a process of its own, whose peak memory is then read; 10 million outcomes are 80 MB as float64."""
    program = textwrap.dedent(
        """
        import numpy as np
        import mce_notebook as mce

        def mixed(a, b, c):
            return a * b + c

        run = mce.sweep(mixed, a=np.linspace(0, 1, 1000), b=np.linspace(1, 2, 100), c=range(100), on="local")
        assert run.wait(timeout=150).state == "done"
        # Not getrusage, whose peak begins with the size of the process that forked this one.
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        peak = int(status["VmHWM"].split()[0]) / 1024
        data = run.dataset
        assert data.sizes == {"a": 1000, "b": 100, "c": 100}
        assert float(data.mixed[7, 8, 9]) == np.linspace(0, 1, 1000)[7] * np.linspace(1, 2, 100)[8] + 9
        print(round(peak))
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=190, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 400
