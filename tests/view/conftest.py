import numpy as np
import pytest

from mce_notebook.store.frames import Failure, Outcomes, encode
from mce_notebook.store.journal import Journal, claim_epoch


class Lab:
    """A sweep in a store, written as a host would write it, without one."""

    def __init__(self, sweep):
        self.sweep = sweep
        self.journals = {}

    def declare(self, grid, outputs=("mse",), **fields):
        from mce_notebook.store.declaration import Declaration

        fields = {"version": "v1", "root": 2**100 + 1, **fields}
        return self.sweep.declare(Declaration.of(grid, outputs=outputs, **fields))

    def record(self, values, ranges, *, declaration=1, epoch=1, names=("mse",), failures=None, skipped=(), **meta):
        """Append outcomes of points; `ranges` is (start, stop) or a list of listed indices."""
        seconds = meta.pop("times", None)
        meta = {
            "version": "v1",
            "generation": "0",
            "attempt": "1",
            "worker": "w1",
            **{k: str(v) for k, v in meta.items()},
        }
        outcomes = Outcomes(list(values), failures or {}, skipped, seconds)
        where = [ranges] if isinstance(ranges, tuple) else np.asarray(ranges, np.int64)
        self.journal(epoch).append(encode(outcomes, names, declaration=declaration, ranges=where, meta=meta))

    def journal(self, epoch=1):
        while epoch not in self.journals:
            number = claim_epoch(self.sweep.paths, {"host": "h", "pid": 1, "boot": "b", "time": 1.0})
            self.journals[number] = Journal(self.sweep.paths, number)
        return self.journals[epoch]

    def close(self):
        for journal in self.journals.values():
            journal.close()


@pytest.fixture
def lab(tmp_path):
    from mce_notebook.store.catalog import Store

    lab = Lab(Store(tmp_path / "experiments").create("recovery", 2**100 + 1))
    yield lab
    lab.close()


@pytest.fixture
def failure():
    def make(status, cause="boom", message="it broke"):
        return Failure(status, "ValueError", message, "Traceback ...", "", "point", cause)

    return make
