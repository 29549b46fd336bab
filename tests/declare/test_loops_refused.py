"""Cells that are not sweeps: each gets one sentence, its line, and where possible the cell as it should be."""

# Cells read best on one line.
# ruff: noqa: E501
import ast
import pickle

import pytest

from mce_notebook.declare.loops import read
from mce_notebook.errors import LoopError

# name: (cell, line, words of the message, whether the rewritten cell is offered)
REFUSED = {
    "syntax": ("for n in [1, 2]\n    rows.append(n)\n", 1, "not valid Python", False),
    "unclosed": ("rows = []\nfor n in [1, 2]:\n    rows.append((n, f(n))\n", 3, "not valid Python", False),
    "empty": ("", 1, "no loop", False),
    "comment only": ("# nothing here\n", 1, "no loop", False),
    "no loop": ("x = 3\ny = x + 1\n", 1, "no loop", False),
    "comprehension": ("results = [f(n) for n in [1, 2]]\n", 1, "expression", True),
    "nested comprehension": ("res = [f(a, b) for a in A for b in B if a < b]  # all\n", 1, "expression", True),
    "joblib": (
        "from joblib import Parallel, delayed\nout = Parallel(n_jobs=4)(delayed(f)(a, k=2) for a in A)\n",
        2,
        "expression",
        True,
    ),
    "pool map": ("with_pool = 1\nout = pool.map(simulate, values)\n", 2, "expression", True),
    "map": ("out = list(map(simulate, values))\n", 1, "expression", True),
    "while": ("h = 1.0\nrows = []\nwhile h > 1e-3:\n    rows.append((h, f(h)))\n    h /= 2\n", 3, "`while`", True),
    "adaptive while": ("h = 1.0\nwhile err > 1e-3:\n    err = f(h)\n    h /= 2\n", 2, "`while`", False),
    "function": (
        "def run(ns, trials=3):\n    rows = []\n    for n in ns:\n        for t in range(trials):\n            rows.append((n, t, f(n)))\n"
        "    return rows\nout = run([1, 2])\n",
        1,
        "inside the function `run`",
        True,
    ),
    "function without call": (
        "def run(n_max=4):\n    rows = []\n    for n in range(n_max):\n        rows.append(f(n))\n    return rows\n",
        1,
        "`run`",
        True,
    ),
    "with": (
        "rows = []\nwith np.errstate(all='ignore'):\n    for n in ns:\n        y = f(n)\n        rows.append((n, y))\n",
        2,
        "`with`",
        True,
    ),
    "if around": ("rows = []\nif fast:\n    for n in ns:\n        rows.append((n, f(n)))\n", 2, "`if`", True),
    "try around": (
        "rows = []\ntry:\n    for n in ns:\n        rows.append((n, f(n)))\nexcept ValueError:\n    pass\n",
        2,
        "`try`",
        True,
    ),
    "second grid": (
        "rows = []\nfor n in ns:\n    rows.append((n, f(n)))\nothers = []\nfor m in ms:\n    others.append((m, g(m)))\n",
        5,
        "second set",
        True,
    ),
    "same sink twice": (
        "rows = []\nfor n in ns:\n    rows.append(f(n))\nfor n in ms:\n    rows.append(f(n))\n",
        4,
        "same object",
        True,
    ),
    "for else": ("rows = []\nfor n in ns:\n    rows.append(f(n))\nelse:\n    print('done')\n", 5, "`else`", True),
    "warm start": (
        "x0 = np.zeros(3)\nrows = []\nfor lam in lams:\n    x0 = solve(lam, x0)  # warm\n    rows.append((lam, norm(x0)))\n",
        4,
        "`x0` is carried",
        True,
    ),
    "warm start unknown": (
        "rows = []\nfor lam in lams:\n    w = solve(lam, w)\n    rows.append((lam, norm(w)))\n",
        3,
        "`w` is carried",
        True,
    ),
    "warm start from results": (
        "out = []\nfor lam in lams:\n    w = fit(lam, init=out[-1])\n    out.append(w)\n",
        3,
        "`out` is written by some",
        True,
    ),
    "warm start conditional": (
        "out = []\nfor lam in lams:\n    start = out[-1] if out else np.zeros(3)\n    out.append(fit(lam, start))\n",
        3,
        "`out`",
        True,
    ),
    "previous element": (
        "x = np.zeros(10)\nfor t in range(1, 10):\n    x[t] = x[t - 1] * 2\n",
        3,
        "`x` is written by some",
        False,
    ),
    "neighbour": (
        "x = np.zeros(10)\nfor t in range(9):\n    x[t + 1] = x[t] + f(t)\n",
        3,
        "`x` is written by some",
        False,
    ),
    "first results steer": (
        "rows = []\nfor n in ns:\n    if len(rows) > 3 and rows[-1] > 2:\n        continue\n    rows.append(f(n))\n",
        3,
        "`rows`",
        False,
    ),
    "slope so far": (
        "ns, errs = [], []\nfor n in [1, 2, 3]:\n    ns.append(n)\n    errs.append(f(n))\n    slope = np.polyfit(ns, errs, 1)\n",
        5,
        "is written by some",
        True,
    ),
    "checkpoint": (
        "rows = []\nfor n in ns:\n    rows.append((n, f(n)))\n    np.save('partial.npy', rows)\n",
        4,
        "`rows` is written",
        True,
    ),
    "checkpoint under if": (
        "rows = []\nfor i, n in enumerate(ns):\n    rows.append((n, f(n)))\n    if i % 10 == 0:\n        pickle.dump(rows, handle)\n",
        5,
        "`rows`",
        True,
    ),
    "sum": ("total = 0\nfor n in ns:\n    total += f(n)\n", 3, "`total` adds up", True),
    "sum over replicates": (
        "M = np.zeros(3)\nfor r in range(5):\n    for j, b in enumerate(bs):\n        M[j] += f(b)\n",
        4,
        "adds up",
        True,
    ),
    "product accumulated": ("p = 1.0\nfor n in ns:\n    p *= f(n)\n", 3, "`p` adds up", True),
    "counter in a seed": (
        "k = 0\nrows = []\nfor n in ns:\n    k += 1\n    rows.append((n, f(n, seed=k)))\n",
        4,
        "`k` counts",
        True,
    ),
    "counter in a file name": (
        "k = 0\nrows = []\nfor n in ns:\n    name = f'{k}.npy'\n    rows.append((n, g(n, name)))\n    k += 1\n",
        6,
        "`k` counts",
        True,
    ),
    "best so far": (
        "best = np.inf\nrows = []\nfor n in ns:\n    y = f(n)\n    rows.append((n, y))\n    if y < best:\n        best = y\n        best_n = n\n",
        6,
        "`best` keeps the best",
        True,
    ),
    "only the best": (
        "best = 0\nfor n in ns:\n    score = f(n)\n    if score > best:\n        best, arg = score, n\n",
        4,
        "`best`",
        True,
    ),
    "min builtin": ("low = 9\nfor n in ns:\n    low = min(low, f(n))\n", 3, "`low` keeps the best", True),
    "overwritten array": (
        "out = np.zeros(3)\nfor i, a in enumerate(A):\n    for b in B:\n        out[i] = f(a, b)\n",
        4,
        "every b writes to the same place",
        True,
    ),
    "overwritten dict": ("D = {}\nfor a in A:\n    for b in B:\n        D[a] = f(a, b)\n", 4, "every b", True),
    "overwritten by replicates": (
        "D = {}\nfor a in A:\n    for _ in range(3):\n        D[a] = f(a)\n",
        4,
        "every replicate",
        True,
    ),
    "constant place": ("D = {}\nfor a in A:\n    D['x'] = f(a)\n", 3, "every a", True),
    "computed place": ("H = np.zeros(10)\nfor a in A:\n    k = bin_of(a)\n    H[k] = f(a)\n", 4, "H", True),
    "break": (
        "rows = []\nfor n in ns:\n    y = f(n)\n    if y > 3: break\n    rows.append((n, y))\n",
        4,
        "`break`",
        True,
    ),
    "global": ("rows = []\nfor n in ns:\n    global q\n    rows.append((n, f(n)))\n", 3, "`global q`", True),
    "await": ("rows = []\nfor n in ns:\n    rows.append(await f(n))\n", 3, "coroutine", False),
    "dict changed": (
        "cfg = {'lr': 1}\nrows = []\nfor lr in lrs:\n    cfg['lr'] = lr\n    rows.append((lr, train(cfg)))\n",
        4,
        "`cfg['lr']` changes `cfg`",
        True,
    ),
    "array changed": (
        "A = np.eye(3)\nrows = []\nfor a in vals:\n    A[0, 0] = a\n    rows.append(np.linalg.det(A))\n",
        4,
        "changes `A`",
        True,
    ),
    "attribute changed": (
        "rows = []\nfor a in vals:\n    model.alpha = a\n    rows.append(model.fit())\n",
        3,
        "`model.alpha` changes `model`",
        True,
    ),
    "cache": (
        "cache = {}\nrows = []\nfor n in ns:\n    if n not in cache:\n        cache[n] = f(n)\n    rows.append(cache[n])\n",
        4,
        "`cache`",
        False,
    ),
    "list used as state": (
        "seen = []\nrows = []\nfor n in ns:\n    seen.append(n)\n    rows.append((n, len(seen)))\n",
        5,
        "`seen`",
        False,
    ),
    "generator above": (
        "rng = np.random.default_rng(0)\nrows = []\nfor n in ns:\n    for trial in range(20):\n        rows.append((n, rng.normal(size=n).mean()))\n",
        5,
        "generator `rng`",
        True,
    ),
    "generator above, single loop": (
        "rng = np.random.default_rng(0)  # fixed\nrows = []\nfor n in ns:\n    y = rng.normal(size=n).mean()\n    rows.append((n, y))\n",
        4,
        "generator `rng`",
        True,
    ),
    "generator in setup": (
        "rows = []\nfor n in ns:\n    gen = np.random.RandomState(n)\n    for t in range(5):\n        rows.append((n, t, gen.rand()))\n",
        3,
        "`gen` is made once per n",
        True,
    ),
    "same name twice": (
        "rows = []\nfor i in [1, 2]:\n    for i in [3, 4]:\n        rows.append(f(i))\n",
        3,
        "both called `i`",
        True,
    ),
    "starred target": ("rows = []\nfor a, *b in data:\n    rows.append(f(a, b))\n", 2, "cannot name an axis", False),
    "attribute target": (
        "rows = []\nfor model.a in data:\n    rows.append(model.fit())\n",
        2,
        "cannot name an axis",
        False,
    ),
    "reserved name": (
        "rows = []\nfor status in ['a', 'b']:\n    rows.append((status, f(status)))\n",
        2,
        "`status`",
        True,
    ),
    "reserved host": ("rows = []\nfor host in hosts:\n    rows.append(ping(host))\n", 2, "`host`", True),
    "prints only": ("for n in ns:\n    err = f(n)\n    print(f'{n}: {err:.3f}')\n", 1, "keep no result", True),
    "prints a call": ("for n in ns:\n    print(n, f(n))\n", 1, "keep no result", True),
    "prints arithmetic": ("for n in ns:\n    print(n, n**2, sep=', ')\n", 1, "keep no result", True),
    "prints arithmetic in a text": ("for n in ns:\n    print(f'{n**2:.3f}')\n", 1, "keep no result", True),
    "prints nothing that varies": ("for n in ns:\n    print('done')\n", 1, "keep no result", False),
    "computes only": ("for n in ns:\n    n**2\n", 1, "keep no result", True),
    "plots only": ("for n in ns:\n    x, y = f(n)\n    plt.plot(x, y)\n", 1, "keep no result", True),
    "saves only": ("for n in ns:\n    u = f(n)\n    np.save(f'u_{n}.npy', u)\n", 1, "keep no result", True),
    "tracker only": (
        "for lr in lrs:\n    acc = train(lr)\n    wandb.log({'acc': acc, 'lr': lr})\n",
        1,
        "keep no result",
        True,
    ),
    "writes a file": (
        "f = open('log.csv', 'w')\nfor n in ns:\n    err = g(n)\n    f.write(f'{n},{err}')\n",
        2,
        "keep no result",
        True,
    ),
    "csv": ("for n in ns:\n    a, b = g(n)\n    writer.writerow([n, a, b])\n", 1, "keep no result", True),
    "np.append": (
        "errs = np.array([])\nfor n in ns:\n    errs = np.append(errs, f(n))\n",
        3,
        "`errs` is made anew",
        True,
    ),
    "vstack": (
        "M = np.empty((0, 2))\nfor n in ns:\n    M = np.vstack([M, f(n)])\nprint(M)\n",
        3,
        "`M` is made anew",
        True,
    ),
    "frame appended": (
        "df = pd.DataFrame()\nfor n in ns:\n    df = df.append({'n': n, 'y': f(n)}, ignore_index=True)\n",
        3,
        "`df` is made anew",
        True,
    ),
    "frame concat": (
        "for n in ns:\n    y = f(n)\n    df = pd.concat([df, pd.DataFrame([{'n': n, 'y': y}])])\n",
        3,
        "`df` is made anew",
        True,
    ),
    "frame loc": ("for n in ns:\n    for k in ks:\n        df.loc[len(df)] = [n, k, f(n, k)]\n", 3, "data frame", True),
    "frame at": ("for n in ns:\n    for k in ks:\n        df.at[n, k] = f(n, k)\n", 3, "data frame", True),
    "calls only": ("for n in ns:\n    simulate(n)\n", 1, "keep no result", True),
    "pass": ("for n in ns:\n    pass\n", 1, "keep no result", False),
}


def refusal(cell, **options):
    with pytest.raises(LoopError) as caught:
        read(cell, **options)
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name):
    cell, line, words, offered = REFUSED[name]
    error = refusal(cell)
    assert (error.line, words in error.cause) == (line, True), str(error)
    assert error.cause.endswith("."), "the cause is a sentence"
    assert "\n" not in error.cause + error.fix
    assert bool(error.after) == offered, str(error)


@pytest.mark.parametrize("name", [name for name, case in REFUSED.items() if case[3]])
def test_rewritten_cell_is_accepted(name):
    error = refusal(REFUSED[name][0])
    nest = read(error.after)
    assert nest.outputs
    ast.parse(error.after)
    assert error.diff.startswith("--- this cell")


@pytest.mark.parametrize("name", [name for name, case in REFUSED.items() if "#" in case[0] and case[3]])
def test_comments_survive_the_rewriting(name):
    cell = REFUSED[name][0]
    after = refusal(cell).after
    for line in cell.splitlines():
        if "#" in line and not line.startswith(("rng =",)) and "for n in" not in line:
            comment = line[line.index("#") :]
            assert comment in after


def test_errors_pickle():
    error = refusal(REFUSED["break"][0])
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.line, copy.cause, copy.after) == (error.line, error.cause, error.after)


def test_line_is_counted_in_the_whole_cell():
    error = refusal(REFUSED["break"][0], first_line=3)
    assert error.line == REFUSED["break"][1] + 2


def test_unknown_axis():
    error = refusal("rows = []\nfor n in ns:\n    rows.append(f(n))\n", axes=["n", "lam"])
    assert "lam" in error.cause
