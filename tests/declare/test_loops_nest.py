"""What a nest tells about its cell, and how it is bound to a notebook."""
# Cells read best on one line.
# ruff: noqa: E501

import ast
import json
import linecache
import traceback

import numpy as np
import pytest

from mce_notebook.declare.loops import read, rebuild, sink_names
from mce_notebook.declare.seeds import replicates
from mce_notebook.errors import LoopError, ViewError

RECOVERY = """\
from mce_notebook import replicates
np.random.seed(1)
results = []
for n in [100, 200]:
    for delta in np.linspace(0.1, 0.9, 3):
        A = ensemble(n, delta)                 # setup
        for rho in np.linspace(0.1, 0.9, 3):
            if rho * delta * n < 20: continue  # guard
            for rng in replicates(4):
                x = sparse_vector(n, rho * delta * n, rng)
                error, iterations = basis_pursuit(A, x)
                results.append((n, delta, rho, error, iterations))
print(len(results))
plot(results, error)
"""


def names(**more):
    return {"np": np, "replicates": replicates, "ensemble": None, "sparse_vector": None, "basis_pursuit": None, **more}


def bind(cell, head=True, **more):
    nest = read(cell)
    space = names(**more)
    if head:
        exec(nest.head.replace("from mce_notebook import replicates", ""), space)
    return nest.bind(space)


def test_the_cell_of_the_readme():
    nest = read(RECOVERY)
    assert [level.targets for level in nest.levels] == [("n",), ("delta",), ("rho",), ("replicate",)]
    assert [level.line for level in nest.levels] == [4, 5, 7, 9]
    assert nest.levels[1].setup == "A = ensemble(n, delta)"
    assert nest.levels[2].guards == ("not (rho * delta * n < 20)",)
    assert nest.outputs == ("error", "iterations")
    assert nest.head.startswith("from mce_notebook")
    assert nest.tail.startswith("print(len")
    bound = bind(RECOVERY)
    assert bound.notes[0] == (
        "axes n (2), delta (3), rho (3), replicate (4); setup per delta; 1 guard; outputs error, iterations"
    )
    assert bound.parameters == ("n", "delta", "rho", "replicate", "A", "rng")
    assert bound.generator_names == ("rng",)
    assert bound.grid.size == 72
    (setup,) = bound.setups
    assert (setup.depth, setup.provides, setup.routine.parameters) == (2, ("A",), ("n", "delta"))
    assert ast.unparse(bound.point.tree.body[-1]) == "return (error, iterations)"


def test_tail_cell_restores_the_names():
    text = read(RECOVERY).tail_cell("recovery")
    assert text.splitlines()[:2] == ["recovery.result()", 'results = recovery.rows("results")']
    assert text.rstrip().endswith("plot(results, error)")
    ast.parse(text)


def test_tail_cell_of_a_last_expression():
    nest = read("for n in [1, 2]:\n    y = f(n)\n    y\n")
    assert nest.tail_cell("s") == "s.result()\nrows = s.rows()\n"
    assert nest.outputs == ("y",)


@pytest.mark.parametrize(
    ("last", "outputs"),
    [
        ("y", ("y",)),
        ("y, z", ("y", "z")),
        ("(n, y)", ("y",)),
        ("{'mse': y, 'time': z}", ("mse", "time")),
        ("dict(mse=y)", None),
        ("r.x, r.fun", ("x", "fun")),
    ],
)
def test_last_expression(last, outputs):
    cell = f"for n in [1, 2]:\n    y, z, r = f(n)\n    {last}\n"
    if outputs is None:
        with pytest.raises(LoopError):
            read(cell)
    else:
        assert read(cell).outputs == outputs


def test_notes_say_what_changes():
    notes = " | ".join(read(RECOVERY).notes)
    assert "`np.random.seed(1)` above the loops is superseded" in notes
    assert "`error` will not be what the last turn left" in notes
    assert "offered as the next cell" in notes


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("try: y = f(n)\n    except ValueError: y = 0", "hides ValueError"),
        ("try: y = f(n)\n    except: y = 0", "hides every exception"),
        ("y = f(n); plt.plot(y); plt.show()", "`plt.plot`, `plt.show`: drawn on a worker"),
        ("y = f(n); fig.savefig('a.png')", "`fig.savefig` writes a file"),
        ("y = f(n); np.save('a.npy', y)", "writes a file"),
        ("y = f(n); open('a.txt', 'w').write(str(y))", "writes a file"),
        ("y = f(n); wandb.log({'y': y})", "reports from every worker"),
    ],
)
def test_notes_about_the_body(body, words):
    nest = read(f"rows = []\nfor n in [1, 2]:\n    {body}\n    rows.append(y)\n")
    assert any(words in note for note in nest.notes), nest.notes


def test_note_of_what_is_left_out():
    nest = read(
        "rows = []\nk = 0\nfor n in tqdm(ns):\n    print(n)\n    for m in ms:\n        k += 1\n        rows.append(f(n, m))\n"
    )
    assert "left out: progress bars, prints between the loops, the counter `k`" in nest.notes


def test_note_of_lost_parallelism():
    nest = read(
        "rows = []\nfor n in ns:\n    x = 0\n    for t in ts:\n        x = step(x, n)\n        rows.append((n, t, x))\n"
    )
    assert [level.targets for level in nest.levels] == [("n",)]
    assert any(note.startswith("t stays inside the points and only n runs in parallel: `x`") for note in nest.notes)


@pytest.mark.parametrize(
    "inner",
    [
        "for epoch in range(3):\n        rows.append((lr, epoch, net.step()))",
        "for i in range(3):\n        loss = net.step()\n        rows.append({'lr': lr, 'i': i, 'loss': loss})",
        "for epoch in tqdm(range(3)):\n        rows.append((lr, epoch, train(net)))",
    ],
)
def test_object_that_goes_on_stays_in_the_point(inner):
    nest = read(f"rows = []\nfor lr in [0.1, 0.2]:\n    net = Net(lr)\n    {inner}\n")
    assert [level.targets for level in nest.levels] == [("lr",)]
    assert any("`net` may go on from one" in note for note in nest.notes), nest.notes


@pytest.mark.parametrize(
    ("loop", "setup"),
    [
        ("for rep in range(3)", "net = Net(lr)"),
        ("for rng in replicates(3)", "net = Net(lr)"),
        ("for k in range(3)", "net = make(lr)"),
        ("for k in range(3)", "net = pd.DataFrame(lr)"),
    ],
)
def test_loop_that_repeats_is_an_axis(loop, setup):
    nest = read(f"rows = []\nfor lr in [0.1, 0.2]:\n    {setup}\n    {loop}:\n        rows.append((lr, net.draw()))\n")
    assert len(nest.levels) == 2


def test_loop_whose_variable_is_used_is_an_axis():
    nest = read("rows = []\nfor a in A:\n    m = Model(a)\n    for n in N:\n        rows.append((a, n, m.fit(n)))\n")
    assert len(nest.levels) == 2


def test_axes_that_are_asked_for_are_not_questioned():
    cell = (
        "rows = []\nfor lr in [0.1]:\n    net = Net(lr)\n    for epoch in range(3):\n        rows.append(net.step())\n"
    )
    assert len(read(cell, axes=["lr", "epoch"]).levels) == 2


def test_object_above_the_loops_that_goes_on_is_refused():
    with pytest.raises(LoopError, match="`net` may go on from one epoch to the next"):
        read("net = Net()\nrows = []\nfor epoch in range(3):\n    rows.append(net.step())\n")


def test_setup_changed_by_points_stays_in_the_point():
    nest = read(
        "rows = []\nfor n in ns:\n    X = make(n)\n    for i in idx:\n        X[i] = 0\n        rows.append((n, i, X.sum()))\n"
    )
    assert [level.targets for level in nest.levels] == [("n",)]


def test_axes_override():
    cell = "rows = []\nfor n in [1, 2]:\n    for k in [3, 4]:\n        rows.append((n, k, n * k))\n"
    bound = read(cell, axes=["n"]).bind({"rows": []})
    assert bound.grid.names == ("n",)
    assert bound.dims == {"rows_k": ("k",), "rows_2": ("k",)}


def test_offer_of_replicates():
    cell = "m = []\nfor n in ns:\n    e = []\n    for r in range(20):\n        e.append(noise(n))  # one\n    m.append((n, np.mean(e), np.std(e)))\n"
    (offer,) = read(cell).offers
    assert offer.line == 4
    assert "range(20)" in offer.title
    again = read(offer.cell)
    assert [level.targets for level in again.levels] == [("n",), ("replicate",)]
    assert again.outputs == ("noise",)
    assert "# one" in offer.cell


def test_offer_keeps_a_target_used_in_seeding():
    cell = "m = []\nfor n in ns:\n    e = []\n    for r in range(20):\n        e.append(noise(n, seed=r))\n    m.append(np.mean(e))\n"
    (offer,) = read(cell).offers
    assert "for r in range(20):" in offer.cell
    assert [level.targets for level in read(offer.cell).levels] == [("n",), ("r",)]


def test_offer_to_list_in_the_notebook():
    cell = "rows = []\nfor m in [1, 2]:\n    ws = list_of(m)\n    for w in ws:\n        rows.append((m, w, f(w)))\n"
    (offer,) = read(cell).offers
    bound = read(offer.cell).bind({"rows": [], "list_of": range, "f": abs})
    assert bound.grid.size == 3
    assert bound.notes[0].startswith("axes m/w (3)")


def test_setup_inside_a_ragged_grid_depends_on_the_loops_around_it():
    cell = "rows = []\nfor n in [2, 3]:\n    X = make(n)\n    for k in range(n):\n        rows.append((n, k, X[k]))\n"
    bound = read(cell).bind({"rows": [], "make": np.arange})
    (setup,) = bound.setups
    assert (setup.depth, setup.enclosing, setup.provides) == (0, ("n",), ("X",))
    assert setup.inside(bound.grid, 0) == ("k",)
    assert "setup per n" in bound.notes[0]
    point = bound.point.compile({"make": np.arange})
    make = setup.routine.compile({"make": np.arange})
    assert [point(n, k, *make(n)) for n, k in bound.grid.points(0, 5)] == [0, 1, 0, 1, 2]


def test_setups_above_between_and_below_ragged_loops():
    cell = """
rows = []
for a in [1, 2]:
    A = a * 100
    for n in [2, 3]:
        N = A + n * 10
        for i, k in enumerate(range(n)):
            K = N + k
            for b in [5, 6]:
                rows.append((a, n, k, b, A, N, K + b))
"""
    bound = read(cell).bind({"rows": []})
    assert [(s.depth, s.enclosing) for s in bound.setups] == [(1, ()), (1, ("n",)), (2, ())]
    assert [s.inside(bound.grid, 0) for s in bound.setups] == [("n", "k", "i", "b"), ("k", "i", "b"), ("b",)]
    assert "setup per a; setup per n; setup per k" in bound.notes[0]


def test_no_object_per_point():
    cell = "rows = []\nfor a in range(1000):\n    for b in range(1000):\n        for c in range(1000):\n            rows.append(a + b + c)\n"
    bound = read(cell).bind({"rows": []})
    assert bound.grid.size == 10**9


@pytest.mark.parametrize(
    ("head", "iterable", "words"),
    [
        ("", "[]", "no values"),
        ("", "itertools.count()", "never end"),
        ("", "3", "not a list of values"),
        ("", "missing", "`missing` cannot be listed: NameError"),
        ("", "1 / 0", "ZeroDivisionError"),
        ("", "[1, 2, 1]", "twice"),
        ("", "[float('nan'), float('nan')]", "twice"),
        ("ws = iter([1, 2])", "ws", "only once"),
        ("ws = (w for w in [1])", "ws", "only once"),
        ("ws = zip([1], [2])", "ws", "only once"),
    ],
)
def test_lists_that_are_none(head, iterable, words):
    import itertools

    cell = f"{head}\nrows = []\nfor w in {iterable}:\n    rows.append(f(w))\n"
    with pytest.raises(LoopError) as caught:
        bind(cell, itertools=itertools)
    assert words in str(caught.value)
    assert caught.value.line == 3


@pytest.mark.parametrize("iterable", ["[(1, 2), (3,)]", "[1, 2]", "zip([1], [2], [3])"])
def test_targets_that_do_not_fit(iterable):
    with pytest.raises(LoopError, match="line 2"):
        bind(f"rows = []\nfor a, b in {iterable}:\n    rows.append(f(a, b))\n")


def test_sink_that_does_not_exist():
    with pytest.raises(LoopError) as caught:
        read("for w in [1, 2]:\n    rows.append(w * 2)\n").bind({})
    assert caught.value.after.startswith("rows = []\n")


def test_generator_of_another_cell():
    cell = "rows = []\nfor n in [1, 2]:\n    rows.append((n, rng.normal()))\n"
    with pytest.raises(LoopError) as caught:
        read(cell).bind({"rows": [], "rng": np.random.default_rng(0)})
    assert "replicates(1)" in caught.value.after
    assert read(caught.value.after).bind({"rows": [], "replicates": replicates}).generator_names == ("rng",)


def test_guard_with_an_unknown_name():
    with pytest.raises(LoopError, match="`limit`, which nobody defines"):
        bind("rows = []\nfor n in [1, 2]:\n    if n > limit: continue\n    rows.append(f(n))\n")


def test_traceback_shows_the_line_of_the_cell():
    cell = (
        "rows = []\nfor n in [1, 2]:\n    # a comment\n    y = 1 / (n - 1)  # breaks at one\n    rows.append((n, y))\n"
    )
    space = {"rows": []}
    bound = read(cell, filename="<cell 7>").bind(space)
    point = bound.point.compile(space)
    with pytest.raises(ZeroDivisionError) as caught:
        point(1)
    frame = traceback.extract_tb(caught.tb)[-1]
    assert (frame.filename, frame.lineno, frame.line) == ("<cell 7>", 4, "y = 1 / (n - 1)  # breaks at one")
    linecache.cache.pop("<cell 7>", None)


def test_lines_for_ipython_are_left_alone():
    nest = read("%matplotlib inline\n!ls\nrows = []\nfor n in [1, 2]:\n    rows.append((n, f(n)))\n")
    assert nest.head == "%matplotlib inline\n!ls\nrows = []\n"


def test_main_guard_of_a_script():
    nest = read(
        'import x\nif __name__ == "__main__":\n    rows = []\n    for n in [1, 2]:\n        rows.append((n, f(n)))\n'
    )
    assert nest.levels[0].line == 4
    assert nest.outputs == ("f",)


def test_preparing_and_reading_loops_are_not_axes():
    cell = "D = {}\nfor m in ms:\n    D[m] = []\nfor m in ms:\n    for n in ns:\n        D[m].append(f(m, n))\nfor m in ms:\n    print(m, np.mean(D[m]))\n"
    nest = read(cell)
    assert [level.line for level in nest.levels] == [4, 5]
    assert nest.tail.startswith("for m in ms:\n    print")


def test_sink_names_and_unknown_sinks():
    bound = read("a, b = [], []\nfor n in [1, 2]:\n    a.append(n * 2)\n    b.append(n * 3)\n").bind({"a": [], "b": []})
    record = json.loads(json.dumps(bound.sinks))
    assert sink_names(record) == ("a", "b")
    done, columns = np.array([1]), {"a": [4], "b": [6]}
    assert rebuild(record, "b", bound.grid, done, columns) == [6]
    with pytest.raises(ViewError, match="'a', 'b'"):
        rebuild(record, None, bound.grid, done, columns)
    with pytest.raises(ViewError):
        rebuild(record, "c", bound.grid, done, columns)


def test_failures_are_left_out_of_lists_and_keep_the_fill_in_arrays():
    cell = "Z = np.full((2, 2), np.nan)\nrows = []\nfor i, a in enumerate([5, 6]):\n    for j, b in enumerate([7, 8]):\n        Z[i, j] = a * b\n        rows.append((a, b, a * b))\n"
    bound = bind(cell)
    done = np.array([0, 3])
    columns = {name: [35, 48] for name in bound.outputs}
    array = rebuild(bound.sinks, "Z", bound.grid, done, columns)
    assert np.array_equal(array, [[35, np.nan], [np.nan, 48]], equal_nan=True)
    assert rebuild(bound.sinks, "rows", bound.grid, done, columns) == [(5, 7, 35), (6, 8, 48)]


def test_array_grows_with_an_extended_grid():
    bound = bind("Z = np.zeros(2)\nfor i, a in enumerate([5, 6]):\n    Z[i] = a * 2\n")
    grid = bound.grid.extended(a=[9])
    array = rebuild(bound.sinks, "Z", grid, np.arange(3), {"Z": [10, 12, 18]})
    assert array.tolist() == [10, 12, 18]


def test_writes_after_a_raise_are_no_results():
    nest = read(
        "rows = []\nfor n in [1, 2]:\n    if n > 1:\n        raise ValueError(n)\n        rows.append('never')\n    rows.append(f(n))\n"
    )
    assert nest.outputs == ("rows",)


def test_rows_of_many_points_are_quick():
    bound = bind("rows = []\nfor a in range(1000):\n    for b in range(300):\n        rows.append((a, b, f(a, b)))\n")
    values = list(range(300_000))
    rows = rebuild(bound.sinks, None, bound.grid, np.arange(300_000), {bound.outputs[0]: values})
    assert rows[301] == (1, 1, 301)
    assert len(rows) == 300_000
