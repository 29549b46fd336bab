import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mce_notebook.view.statistics import grouped


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 3)), min_size=1, max_size=60))
def test_means_and_intervals_are_those_of_scipy(pairs):
    values, group = np.array([v for v, _ in pairs]), np.array([g for _, g in pairs])
    found = grouped(values, group, 4)
    for place in range(4):
        mine = values[group == place]
        assert found.count[place] == mine.size
        if not mine.size:
            assert np.isnan(found.mean[place])
            continue
        assert found.mean[place] == pytest.approx(mine.mean(), abs=1e-6)
        if mine.size < 2:
            assert np.isnan(found.low[place])
            assert np.isnan(found.high[place])
        elif np.ptp(mine) > 1e-3:
            low, high = stats.t.interval(0.95, mine.size - 1, mine.mean(), stats.sem(mine))
            assert (found.low[place], found.high[place]) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (1, 2), (500, 1000)])
def test_shares_have_wilsons_interval(successes, trials):
    values = np.array([1.0] * successes + [0.0] * (trials - successes))
    found = grouped(values, np.zeros(trials, int), 1, share=True)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, "wilson")
    assert (found.low[0], found.high[0]) == pytest.approx((expected.low, expected.high))


def test_missing_values_do_not_count():
    found = grouped(np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 0, 0, 1]), 3)
    assert found.count.tolist() == [2, 0, 0]
    assert found.mean[0] == 2.0
    assert np.isnan(found.mean[1:]).all()


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(3)
    trials, replicates = 4000, 5
    found = grouped(rng.normal(size=trials * replicates), np.repeat(np.arange(trials), replicates), trials)
    share = np.mean((found.low <= 0) & (found.high >= 0))
    # Four standard errors of a share of 0.95 over 4,000 trials.
    assert share == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / trials))
