"""What VMs cost: by the second, a minute at least, each once."""

import pytest

from mce_notebook.run.clusters.bill import Bill


def test_lives_are_summed_up_with_their_prices() -> None:
    now = 0.0
    bill = Bill(lambda: now)
    bill.begin("a", 3.6)
    bill.begin("b", 7.2)
    bill.begin("free", None)
    assert bill.hourly == pytest.approx(10.8)
    assert bill.total == pytest.approx(0.06 + 0.12), "a minute at least"
    now = 1000.0
    bill.end("a")
    bill.end("a")
    bill.begin("b", 100.0)
    assert bill.hourly == pytest.approx(7.2)
    now = 2000.0
    assert bill.total == pytest.approx(1.0 + 4.0)
