"""What dask-cloudprovider's own cluster class does, and ours does not (`test_sweeps.py`): the reasons for our own.

If this fails, upstream has learned; then docs/decisions/0011-compute-engine.md is to be read again.
"""

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gce.stand_in import StandIn
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def stock(alone: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Google as the stock class finds it; what it leaves is removed."""
    # It writes booleans as text, which Google takes.
    monkeypatch.setattr(alone, "strict", False)
    yield alone
    for name in left(alone):
        alone.instances.vanish(name)


def left(stand_in: StandIn) -> list[str]:
    return [name for name in stand_in.instances.running("") if name.startswith("dask-")]


def start(stand_in: StandIn, profiles: Profiles, seconds: float) -> str:
    """Start it for so long; how that ended."""
    script, key = str(Path(__file__).parent / "stock.py"), str(profiles.common["credentials"])
    command = [sys.executable, script, stand_in.url, key, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout.rpartition("ended: ")[2].strip()


def test_keys_are_in_the_metadata_and_a_scheduler_that_never_comes_is_waited_for_and_left(
    stock: StandIn, profiles: Profiles
) -> None:
    # The stand-in starts no container for it.
    assert start(stock, profiles, 6) == "waits"
    (name,) = left(stock)
    entries = {item["key"]: item["value"] for item in stock.instances.ever[name]["metadata"]["items"]}
    told = re.search(r'DASK_INTERNAL_INHERIT_CONFIG="([^"]+)"', entries["user-data"])
    assert told is not None
    config = base64.b64decode(told[1]).decode(errors="replace")
    assert config.count("BEGIN PRIVATE KEY") == 3, "of the scheduler, the worker and the client"


def test_why_there_is_no_machine_is_not_read(stock: StandIn, profiles: Profiles) -> None:
    stock.fail("op:ZONE_RESOURCE_POOL_EXHAUSTED", match="dask-")
    said = start(stock, profiles, 30)
    assert "was not found" in said, "of its own deletion"
    assert "EXHAUSTED" not in said
