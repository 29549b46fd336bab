"""What the stock cluster class does not see, and ours does (`test_slurm.py`): the reasons for a fleet of our own.

If this fails, upstream has learned; then docs/decisions/0009-batch-systems.md is to be read again.
"""

import json
import sys

import pytest

from tests.clusters.conftest import HERE, run


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("slurm")
def test_lost_and_refused_jobs_are_not_noticed_and_names_are_used_again() -> None:
    assert json.loads(run(sys.executable, str(HERE / "stock.py")).splitlines()[-1]) == {
        "queued after a cancelled job": 0,
        "workers it believes in": 1,
        "name used again": True,
        "ids of refused jobs": [None],
    }
