import ast

import pytest

from mce_notebook.declare.loops import read
from mce_notebook.frontends.rewrite import guess, rewrite

GOOD = """import numpy as np
errors = []
for n in [1, 2]:
    A = make(n)
    for s in np.linspace(0, 1, 3):
        errors.append((n, s, f(A)))
"""
TAIL = "scores = []\nfor n in range(3):\n    scores.append((n, g(n)))\n\nplt.plot(scores)\n"


def test_a_good_cell_gets_its_line_and_nothing_else():
    found = rewrite(GOOD)
    assert found["ok"]
    assert found["cell"] == f"%%sweep errors_sweep\n{GOOD}"
    assert (found["diff"], found["error"], found["tail"]) == ("", None, None)
    assert found["axes"] == [{"name": "n", "source": "[1, 2]"}, {"name": "s", "source": "np.linspace(0, 1, 3)"}]
    assert found["setup"] == ["A = make(n)"]
    assert rewrite(GOOD, "recovery")["cell"] == f"%%sweep recovery\n{GOOD}"


def test_statements_after_the_loops_become_the_next_cell():
    found = rewrite(TAIL)
    assert "plt.plot" not in found["cell"]
    assert "-plt.plot(scores)" in found["diff"]
    lines = found["tail"].splitlines()
    assert lines[:2] == ["scores_sweep.result()", 'scores = scores_sweep.rows("scores")']
    assert lines[-1] == "plt.plot(scores)"


def test_a_sweep_stays_what_it_is():
    for cell in (f"%%sweep mine --on local\n{TAIL}", "%%sweep mse n=[1, 2] s=[3]\nestimate(n, s)\n"):
        found = rewrite(cell)
        assert found["ok"]
        assert (found["cell"], found["diff"], found["tail"]) == (cell, "", None)
    assert [axis["name"] for axis in found["axes"]] == ["n", "s"]


@pytest.mark.parametrize(
    ("cell", "line", "name"),
    [
        ("accuracy = [f(a, b) for a in A for b in B]", 1, "accuracy_sweep"),
        (
            "best = None\nfor n in N:\n    x = f(n)\n    if best is None or x < best:\n        best = x\n",
            4,
            "loops_sweep",
        ),
        ("draws = []\nr = np.random.default_rng(0)\nfor n in N:\n    draws.append(r.normal())\n", 4, "draws_sweep"),
        (
            "def run(k=3):\n    losses = []\n    for n in range(k):\n        losses.append(n)\n    return losses\n",
            1,
            None,
        ),
    ],
)
def test_a_cell_that_can_be_mended_shows_how(cell, line, name):
    found = rewrite(cell)
    assert (found["ok"], found["error"]["line"]) == (False, line)
    assert found["error"]["diff"].startswith("--- ")
    head, _, body = found["error"]["cell"].partition("\n")
    assert head == f"%%sweep {found['name']}"
    assert name in (None, found["name"])
    assert "NAME." not in body
    assert read(body).outputs


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("", "empty"),
        ("print(3)", "no loop"),
        ("%%time\nfor n in N: print(n)", "%%time"),
        ("for n in [1:\n", "not valid Python"),
        ("a\0b", "null bytes"),
        ("(" * 5000, "nested"),
        ("x = " + "-" * 100_000 + "1", "nested"),
        ("%%sweep x --bogus 3\nfor n in N: f(n)", "no option --bogus"),
        ("%%sweep x n=[1\nf(n)", "never closed"),
    ],
)
def test_a_cell_that_cannot_be_one_says_why(cell, says):
    found = rewrite(cell)
    assert (found["ok"], found["cell"]) == (False, None)
    assert says in found["error"]["message"]
    assert found["error"]["cell"] is None


@pytest.mark.parametrize("name", ["n", "errors", "print", "a b", "class", "x" * 500])
def test_names_that_cannot_be_are_refused(name):
    found = rewrite(GOOD, name)
    assert not found["ok"]
    assert found["error"]["message"]


def test_syntax_of_ipython_is_kept():
    cell = f"%matplotlib inline\n!ls\n{GOOD}"
    assert rewrite(cell)["cell"] == f"%%sweep errors_sweep\n{cell}"


def test_offers_come_with_their_cells():
    cell = (
        "m = []\nfor n in N:\n    e = []\n    for r in range(10):\n        e.append(sim(n))\n    m.append(np.mean(e))\n"
    )
    (offer,) = rewrite(cell)["offers"]
    assert offer["cell"].startswith("%%sweep ")
    assert "replicates(10)" in offer["diff"]
    ast.parse(offer["cell"].partition("\n")[2])


def test_a_guessed_name_is_free():
    assert guess("errors_sweep = 1", ["errors"], []) == "errors_sweep_2"
    assert guess("", ["rows"], ["x", "loss"]) == "loss_sweep"
    assert guess("", ["out"], []) == "loops_sweep"
