"""What clusters cost."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mce_notebook as mce
from mce_notebook.frontends.cluster_actions import act, running
from mce_notebook.run.account import Account
from mce_notebook.run.client import stop_host
from mce_notebook.store.catalog import Store
from mce_notebook.view.summary import summary


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_cores_are_paid_by_the_hour_and_divided_among_the_sweeps_that_use_them() -> None:
    clock = Clock()
    account = Account(price=0.1, most=1.0, clock=clock)
    clock.now = 1800.0
    account.look(4, {})
    assert account.total == 0.0, "nothing was there until now"
    clock.now += 1800.0
    account.look(4, {})
    assert account.total == pytest.approx(0.2)
    assert account.hourly == pytest.approx(0.4)
    assert account.of("a") == 0.0
    clock.now += 1800.0
    # One that waits for its first block has its share, too.
    account.look(4, {"a": 3, "b": 0})
    assert account.of("a") == pytest.approx(0.15)
    assert account.of("b") == pytest.approx(0.05)
    assert not account.spent
    account.forget("a")
    assert account.of("a") == 0.0
    clock.now += 6 * 3600
    account.look(1, {"b": 1})
    assert account.spent


def test_what_others_count_is_taken_as_they_say() -> None:
    account = Account()
    account.look(100, {"a": 1})
    assert account.of("a") is None
    account.told(2.0, 0.5, {"a": 1})
    account.told(3.0, 0.5, {"a": 1, "b": 1})
    assert (account.total, account.hourly) == (3.0, 0.5)
    assert (account.of("a"), account.of("b")) == (2.5, 0.5)


def slow(x: int) -> int:
    import time

    time.sleep(0.4)
    return x


@pytest.fixture
def paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A profile of this machine where a core costs one euro a second."""
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "clusters.toml").write_text(
        '[paid]\nkind = "local"\nmax_workers = 1\nprice = 7200\nmax_cost = 10\ncurrency = "EUR"\n'
    )
    yield tmp_path
    for host in running("paid"):
        stop_host(host)


def test_a_sweep_says_what_it_costs_and_stops_when_the_cluster_has_cost_enough(paid: Path) -> None:
    assert act("check", "paid").endswith("All of them cost 7200.00 EUR an hour, 10 in all at most.")
    handle = mce.sweep(slow, x=range(40), on="paid", store=paid / "s")
    known = handle.wait(90)
    assert known.state == "stopped"
    assert re.search(r"The cluster has cost \d+\.\d\d EUR, and max_cost of paid is 10\.", known.message)
    assert known.cost is not None
    assert 1 < known.cost < 60
    assert f"{known.cost:.2f} EUR" in known.text()
    end = time.monotonic() + 60
    while running("paid"):
        assert time.monotonic() < end
        time.sleep(0.1)
    handle.resume()
    while (later := handle.progress).cost is None or later.cost <= known.cost:
        assert time.monotonic() < end, "what earlier hosts cost does not count"
        time.sleep(0.1)
    assert later.state == "running"
    assert re.search(r"^paid +ready +1 +1 +[\d.]+ s +\d+\.\d\d EUR, 7200.00 an hour now$", act("list"), re.MULTILINE)
    line = summary_of(handle)["cost"]
    assert line["currency"] == "EUR"
    assert line["amount"] >= round(known.cost, 2)
    handle.cancel()
    assert handle.wait(60).state == "cancelled"


def summary_of(handle: mce.Sweep) -> dict[str, Any]:
    store = Store(handle.folder.parent).sweep(handle.name)
    declaration = store.latest()
    assert declaration is not None
    return summary(store, declaration, handle.progress, "key")
