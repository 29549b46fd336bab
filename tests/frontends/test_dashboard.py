import re
import time

import pytest

import mce_notebook as mce
from mce_notebook.frontends.slices import Slices


def square(n):
    if n == 3:
        raise ValueError("<img src=x onerror=alert(1)>")
    return n * n


@pytest.fixture
def dashboard(here):
    made = []

    def make():
        made.append(mce.dashboard(here / "experiments"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def row(found, name):
    return next(row for row in found._rows.values() if row._name.description == name)


def buttons(found, name):
    return {button.description: button for button in row(found, name)._buttons.children}


def test_nothing_is_said_as_such(dashboard):
    found = dashboard()
    assert "No sweeps yet" in found._sweeps.children[0].value


def test_sweeps_are_listed_with_what_can_be_done(dashboard):
    mce.sweep(square, n=[1, 2, 3], on="inline")
    mce.sweep(square, n=[1, 2], name="fine", on="inline")
    found = dashboard()
    assert len(found._rows) == 2
    texts = row(found, "square")._texts
    assert texts["state"].value == "done"
    assert "3 of 3" in texts["bar"].value
    assert ">1</span>" in texts["failed"].value
    assert "Rerun failed" in buttons(found, "square")
    assert buttons(found, "fine") == {}


def test_a_new_sweep_appears_by_itself(dashboard):
    found = dashboard()
    mce.sweep(square, n=[1, 2], on="inline")
    end = time.monotonic() + 20
    while not found._rows and time.monotonic() < end:
        time.sleep(0.05)
    assert [one._name.description for one in found._rows.values()] == ["square"]


def test_opening_shows_slices_and_failures_as_text(dashboard):
    mce.sweep(square, n=[1, 2, 3, 4], on="inline")
    found = dashboard()
    row(found, "square")._name.click()
    assert any(isinstance(one, Slices) for one in found._detail.children)
    page = "".join(str(one.value) for one in found._detail.children if hasattr(one, "value"))
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page


def test_what_cannot_be_done_from_here_is_said(dashboard):
    mce.sweep(square, n=[1, 2, 3], on="inline")
    found = dashboard()
    buttons(found, "square")["Rerun failed"].click()
    assert "its cell can go on with it" in re.sub("&#x27;", "'", found._told.value)


def slow(n):
    time.sleep(0.2)
    return n


def test_a_running_sweep_is_stopped_and_its_cluster_too(dashboard):
    run = mce.sweep(slow, n=list(range(400)), block=False)
    found = dashboard()
    end = time.monotonic() + 60
    while run.progress.done < 1 and time.monotonic() < end:
        time.sleep(0.05)
    found._refresh()
    assert {"Stop", "Pause"} <= set(buttons(found, "slow"))
    assert any("local" in one.children[0].value for one in found._clusters.children)
    buttons(found, "slow")["Stop"].click()
    assert "is being cancelled" in found._told.value
    assert run.wait(timeout=30).state == "cancelled"
    found._refresh()
    assert "Resume" in buttons(found, "slow")
