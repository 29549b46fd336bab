import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.view.regions import find, ranked


def design(**axes):
    grids = np.meshgrid(*(np.arange(len(labels)) for labels in axes.values()), indexing="ij")
    codes = {name: (grid.ravel(), np.array(labels)) for (name, labels), grid in zip(axes.items(), grids)}
    return codes, {name: np.array(labels)[codes[name][0]] for name, labels in axes.items()}


def test_the_example_of_the_design():
    codes, at = design(dt=[0.01, 0.1, 0.5, 1.0], solver=["euler", "rk4", "leapfrog"], n=list(range(5)))
    failed = (at["dt"] > 0.1) & (at["solver"] == "euler")
    (region,) = find(ranked(codes), failed, cause="blew up")
    assert region.rule == "dt > 0.1 and solver = euler"
    assert str(region) == "10 failures (blew up): all dt > 0.1 and solver = euler"
    assert (region.failures, region.successes) == (10, 0)


def test_one_axis_and_thresholds_on_both_sides():
    codes, at = design(x=list(np.linspace(0, 1, 11)), y=list(range(7)))
    (region,) = find(ranked(codes), (at["x"] > 0.35) & (at["x"] < 0.65))
    assert region.rule == "0.3 < x < 0.7"
    (region,) = find(ranked(codes), at["x"] < 0.25)
    assert region.rule == "x < 0.3"


def test_unsorted_labels_and_an_exception():
    codes, at = design(x=[3, 1, 2, 0], kind=["a", "b", "c"], repeat=list(range(6)))
    (region,) = find(ranked(codes), at["x"] >= 2)
    assert region.rule == "x > 1"
    (region,) = find(ranked(codes), at["kind"] != "b")
    assert region.rule == "kind is not b"


def test_two_regions():
    codes, at = design(x=list(range(10)), kind=["a", "b", "c"], repeat=list(range(10)))
    found = find(ranked(codes), (at["kind"] == "a") | ((at["kind"] == "b") & (at["x"] > 6)))
    assert [region.rule for region in found] == ["kind = a", "x > 6 and kind = b"]


def test_a_few_successes_are_told():
    codes, at = design(x=list(range(10)), repeat=list(range(100)))
    failed = (at["x"] > 4) & ~((at["x"] == 7) & (at["repeat"] == 3))
    (region,) = find(ranked(codes), failed)
    assert str(region) == "499 failures: 499 of 500 with x > 4"


def test_scattered_failures_give_no_rule():
    codes, _ = design(a=list(range(20)), b=list(range(20)), c=["x", "y", "z"])
    failed = np.random.default_rng(1).random(1200) < 0.02
    assert find(ranked(codes), failed) == []


def test_everything_or_nothing_failed():
    codes, _ = design(a=[1, 2], b=[1, 2])
    (region,) = find(ranked(codes), np.ones(4, bool))
    assert str(region) == "4 failures: all points"
    assert find(ranked(codes), np.zeros(4, bool)) == []
    assert find({}, np.zeros(0, bool)) == []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_rule_is_true_of_what_it_claims(data):
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    axes = {}
    for number, size in enumerate(sizes):
        labels = data.draw(st.permutations(range(size)))
        axes[f"x{number}"] = (
            [f"v{label}" for label in labels] if data.draw(st.booleans()) else [0.1 * i for i in labels]
        )
    codes, at = design(**axes)
    total = next(iter(at.values())).size
    failed = np.array(data.draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(axes)))
        failed = at[name] <= np.sort(at[name])[total // 2]
    ordered = ranked(codes)
    for region in find(ordered, failed):
        inside = np.ones(total, bool)
        for condition in region.conditions:
            inside &= evaluate(str(condition), at)
        assert region.failures == (inside & failed).sum() > 0
        assert region.successes == (inside & ~failed).sum()
        assert np.array_equal(inside, region.holds({name: code for name, (code, _) in ordered.items()}))


def evaluate(text, at):
    """The printed condition, read back by somebody who knows only the labels."""
    words = text.split()
    if words[1:3] == ["is", "not"]:
        return at[words[0]] != words[3]
    if len(words) == 5:
        return (at[words[2]] > float(words[0]) + 1e-9) & (at[words[2]] < float(words[4]) - 1e-9)
    name, sign, label = words
    column = at[name]
    if column.dtype.kind == "U":
        return column == label
    value = float(label)
    return {"=": abs(column - value) < 1e-9, ">": column > value + 1e-9, "<": column < value - 1e-9}[sign]


def test_a_million_points_take_seconds():
    codes, at = design(a=list(range(100)), b=list(range(100)), c=list(range(20)), d=["p", "q", "r", "s", "t"])
    failed = (at["a"] > 60) & (at["d"] == "q")
    ordered = ranked(codes)
    start = time.perf_counter()
    (region,) = find(ordered, failed)
    assert region.rule == "a > 60 and d = q"
    assert time.perf_counter() - start < 20


def test_all_replicates_of_one_cell():
    codes, at = design(n=[1, 2, 4], k=[0, 1, 2, 3, 4], replicate=[0, 1, 2])
    (region,) = find(ranked(codes), (at["n"] == 4) & (at["k"] == 2))
    assert region.rule == "n = 4 and k = 2"


def test_random_failures_hardly_ever_get_a_rule():
    codes, _ = design(a=list(range(12)), b=list(range(8)), c=["x", "y", "z"])
    told = sum(bool(find(ranked(codes), np.random.default_rng(seed).random(288) < 0.05)) for seed in range(40))
    assert told <= 8
