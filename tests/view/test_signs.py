"""What is told of a sweep whose host lives elsewhere, before that host says anything itself."""

import json
import time
from pathlib import Path

import pytest

from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.view.signs import HostSigns

BOOT = 900.0


@pytest.fixture
def sweep(tmp_path: Path) -> SweepStore:
    return Store(tmp_path).create("recovery", 1)


def told(sweep: SweepStore, later: float = 0.0) -> tuple[str, str]:
    now = time.time() + later
    signs = HostSigns.of(sweep, now)
    return signs.state(5, now), signs.message


def test_a_note_holds_until_its_host_should_have_come(sweep: SweepStore) -> None:
    sweep.add_intent("run", by="me", waits=BOOT, note="The VM of its host is starting.")
    assert told(sweep) == ("queued", "The VM of its host is starting.")
    assert told(sweep, BOOT - 10) == ("queued", "The VM of its host is starting.")
    assert told(sweep, BOOT + 10) == ("interrupted", "")


def test_why_no_host_comes_is_told_for_ever(sweep: SweepStore) -> None:
    sweep.add_intent("run", by="me", waits=BOOT, note="The VM of its host is starting.")
    sweep.add_intent("run", by="laptop", note="Google has no größe.", refused=True)
    assert told(sweep) == ("stopped", "Google has no größe.")
    assert told(sweep, 10 * BOOT) == ("stopped", "Google has no größe.")
    # What was wanted since is not refused.
    sweep.add_intent("run", by="me", waits=BOOT)
    assert told(sweep) == ("queued", "")
    sweep.add_intent("cancel", by="me")
    assert told(sweep) == ("cancelled", "")


def test_what_a_host_says_comes_before_what_was_said_for_it(sweep: SweepStore) -> None:
    sweep.add_intent("run", by="laptop", note="Google has none.", refused=True)
    host = {"host": "elsewhere", "boot": "another", "pid": 1, "time": time.time() + 1}
    sweep.folder.create(sweep.paths.epoch(1), json.dumps(host).encode())
    sweep.beat(1, {"state": "running", "message": "2 VMs start", "time": time.time() + 1})
    assert told(sweep) == ("running", "2 VMs start")


def test_intents_of_earlier_versions_are_read(sweep: SweepStore) -> None:
    sweep.paths.intents.mkdir(exist_ok=True)
    sweep.paths.intent(1).write_text('{"verb": "run", "by": "me", "time": "2026-11-01T00:00:00+00:00", "waits": 5.0}')
    intent = sweep.latest_intent()
    assert intent is not None
    assert (intent.waits, intent.note, intent.refused) == (5.0, "", False)
