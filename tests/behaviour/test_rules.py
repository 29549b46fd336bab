"""The rules of "what runs when the cell runs", through the handle and a real host."""

import time
from pathlib import Path

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.calls import read_cell
from mce_notebook.declare.options import Options
from mce_notebook.errors import NameConflict, StaleResults, SweepStopped
from mce_notebook.sweep import declare_cell


def runs(run: mce.Sweep) -> int:
    """How many points the last declaration set off."""
    assert run.launched is not None
    return run.launched.todo


def test_an_unchanged_call_computes_nothing(root: Path) -> None:
    def square(n: int) -> float:
        return n**2.0

    first = mce.sweep(square, n=[1, 2, 3])
    assert runs(first) == 3
    assert first.result(timeout=60).square.values.tolist() == [1, 4, 9]
    again = mce.sweep(square, n=[1, 2, 3])
    assert runs(again) == 0
    assert again.result(timeout=5).square.values.tolist() == [1, 4, 9]


def test_extension_computes_only_what_is_new(root: Path) -> None:
    def product(a: int, b: int) -> float:
        return a * b * 1.0

    mce.sweep(product, a=[1, 2], b=[1, 2, 3]).result(timeout=60)
    wider = mce.sweep(product, a=[1, 2, 5], b=[0, 1, 2, 3])
    assert runs(wider) == 12 - 6
    data = wider.result(timeout=60)
    assert np.array_equal(data.product.values, np.outer([1, 2, 5], [0, 1, 2, 3]))
    wider.extend(a=[7])
    assert runs(wider) == 4
    assert wider.result(timeout=60).sizes["a"] == 4
    # The call's own grid is unchanged, so what `extend` added stays.
    same = mce.sweep(product, a=[1, 2, 5], b=[0, 1, 2, 3])
    assert runs(same) == 0
    assert same.dataset.sizes["a"] == 4


def double(x: float) -> float:
    return 2 * x


def triple(x: float) -> float:
    return 3 * x


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: float) -> float:
        return self.factor * x


def apply(f: object, x: float) -> float:
    return f(x)  # type: ignore[operator]


def test_an_axis_of_objects_keeps_what_extend_added_when_the_cell_runs_again(root: Path) -> None:
    run = mce.sweep(apply, f=[("double", double), ("half", Scale(0.5))], x=[1, 2], on="inline")
    run.extend(f=[("triple", triple), ("ten", Scale(10.0))])
    assert runs(run) == 4
    again = mce.sweep(apply, f=[("double", double), ("half", Scale(0.5))], x=[1, 2], on="inline")
    assert runs(again) == 0
    assert again.dataset.f.values.tolist() == ["double", "half", "triple", "ten"]
    assert again.dataset["apply"].sel(x=2).values.tolist() == [4, 1, 6, 20]
    # They are there as objects too, for new points along another axis.
    again.extend(x=[3])
    assert again.result()["apply"].sel(x=3).values.tolist() == [6, 1.5, 9, 30]


def test_objects_that_cannot_be_loaded_are_left_out_and_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = mce.sweep(apply, f=[double], x=[1, 2], on="inline")
    run.extend(f=[triple])
    # As if another user had extended it: the signature is not by this key.
    monkeypatch.setenv("MCE_CONFIG_DIR", str(root / "another user"))
    again = mce.sweep(apply, f=[double], x=[1, 2], on="inline")
    assert again.dataset.f.values.tolist() == ["double"]
    assert again.launched is not None
    (note,) = [note for note in again.launched.declaration.notes if "`f`" in note]
    assert "triple" in note
    assert "extend" in note


def test_a_constant_becomes_an_axis_and_keeps_its_outcomes(root: Path) -> None:
    def noisy(n: int, sigma: float, rng: np.random.Generator) -> float:
        return float(rng.normal(0, sigma, n).sum())

    fixed = mce.sweep(noisy, n=[10, 20], sigma=0.5, name="noisy").result(timeout=60)
    swept = mce.sweep(noisy, n=[10, 20], sigma=[0.5, 1.0], name="noisy")
    assert runs(swept) == 2
    data = swept.result(timeout=60)
    assert np.array_equal(data.noisy.sel(sigma=0.5).values, fixed.noisy.values)


def test_changed_code_makes_points_stale_and_reverting_brings_them_back(root: Path) -> None:
    def first(n: int) -> float:
        return n + 1.0

    def second(n: int) -> float:
        return n + 2.0

    assert mce.sweep(first, n=[1, 2], name="versions", outputs=["y"]).result(timeout=60).y.values.tolist() == [2, 3]
    changed = mce.sweep(second, n=[1, 2], name="versions", outputs=["y"])
    assert runs(changed) == 2
    assert any("changed" in reason for reason in changed.launched.reasons)
    assert changed.result(timeout=60).y.values.tolist() == [3, 4]
    back = mce.sweep(first, n=[1, 2], name="versions", outputs=["y"])
    assert runs(back) == 0
    assert back.result(timeout=60).y.values.tolist() == [2, 3]


def test_expensive_stale_points_wait_for_a_word(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mce_notebook.launch.STALE_SECONDS", 0.0)

    def first(n: int) -> float:
        return sum(i * 0.5 for i in range(20_000)) * n

    def second(n: int) -> float:
        return sum(i * 0.5 for i in range(20_000)) * n + 1

    mce.sweep(first, n=[1, 2], name="dear", outputs=["y"]).result(timeout=60)
    held = mce.sweep(second, n=[1, 2, 3], name="dear", outputs=["y"])
    assert runs(held) == 1
    assert held.launched.held == 2
    with pytest.raises(StaleResults, match="--rerun stale"):
        held.result(timeout=60)
    assert held.dataset.status.values.tolist() == [7, 7, 2]
    done = mce.sweep(second, n=[1, 2, 3], name="dear", outputs=["y"], rerun="stale")
    assert runs(done) == 2
    assert done.result(timeout=60).status.values.tolist() == [2, 2, 2]


def test_failed_points_are_terminal_until_rerun(root: Path, tmp_path: Path) -> None:
    flag = str(tmp_path / "mended")

    def flaky(n: int) -> float:
        import os.path

        if n == 2 and not os.path.exists(flag):
            raise OSError("not yet")
        return float(n)

    run = mce.sweep(flaky, n=[1, 2, 3])
    run.result(timeout=60)
    assert runs(mce.sweep(flaky, n=[1, 2, 3])) == 0
    Path(flag).touch()
    again = mce.sweep(flaky, n=[1, 2, 3], rerun="failed")
    assert runs(again) == 1
    assert again.result(timeout=60).flaky.values.tolist() == [1, 2, 3]
    assert runs(mce.sweep(flaky, n=[1, 2, 3])) == 0


def test_rerun_at_labels(root: Path) -> None:
    def entropy(n: int) -> float:
        import time

        return time.time_ns() * 1.0

    run = mce.sweep(entropy, n=[1, 2, 3])
    before = run.result(timeout=60).entropy.values.copy()
    run.rerun(n=2)
    assert runs(run) == 1
    after = run.result(timeout=60).entropy.values
    assert (before == after).tolist() == [True, False, True]


def test_cancelled_waits_for_resume(root: Path) -> None:
    def slow(n: int) -> float:
        import time

        time.sleep(0.2)
        return n * 1.0

    run = mce.sweep(slow, n=list(range(200)))
    run.cancel()
    assert run.wait(timeout=20).state == "cancelled"
    with pytest.raises(SweepStopped, match="resume"):
        run.result(timeout=20)
    assert runs(mce.sweep(slow, n=list(range(200)))) == 0
    shorter = mce.sweep(slow, n=list(range(6)))
    assert shorter.result(timeout=60).slow.values.tolist() == [0, 1, 2, 3, 4, 5]


def test_pause_and_resume(root: Path) -> None:
    def slow(n: int) -> float:
        import time

        time.sleep(0.05)
        return n * 1.0

    run = mce.sweep(slow, n=list(range(40)))
    run.pause()
    assert run.wait(timeout=20).state == "paused"
    run.resume()
    assert run.result(timeout=60).slow.values.tolist() == list(range(40))


def test_max_failures_stops_early(root: Path) -> None:
    def hopeless(n: int) -> float:
        raise RuntimeError("always")

    run = mce.sweep(hopeless, n=list(range(100_000)), max_failures="20%")
    assert run.wait(timeout=60).state == "stopped"
    assert run.progress.failed < 100_000
    assert runs(mce.sweep(hopeless, n=list(range(100_000)), max_failures="20%")) == 0


def test_a_name_belongs_to_one_experiment(root: Path) -> None:
    def one(a: int) -> float:
        return a * 1.0

    def other(b: int) -> float:
        return b * 1.0

    mce.sweep(one, a=[1], name="taken").result(timeout=60)
    with pytest.raises(NameConflict, match="--replace"):
        mce.sweep(other, b=[1], name="taken")
    replaced = mce.sweep(other, b=[3], name="taken", replace=True)
    assert replaced.result(timeout=60).other.values.tolist() == [3]


def test_moved_to_another_cluster_half_way(root: Path) -> None:
    def draw(n: int, rng: np.random.Generator) -> float:
        return float(rng.random())

    here = mce.sweep(draw, n=list(range(10)), on="inline").result(timeout=60)
    there = mce.sweep(draw, n=list(range(20)), on="local")
    assert runs(there) == 10
    assert np.array_equal(there.result(timeout=60).draw.values[:10], here.draw.values)


def test_a_cell_takes_over_or_replaces_a_name(root: Path) -> None:
    from mce_notebook.sweep import declare_cell

    def declare(cell: str, **flags: bool) -> mce.Sweep:
        return declare_cell("taken", cell, {"__name__": "__main__"}, Options.parse(on="inline"), **flags)

    declare("r = []\nfor a in [1, 2]:\n    r.append(a * 2)\n")
    other = "r = []\nfor b in [1, 2, 3]:\n    r.append(b * 3)\n"
    with pytest.raises(NameConflict, match="--adopt"):
        declare(other)
    assert declare(other, replace=True).rows() == [3, 6, 9]
    assert [folder.name for folder in (root / ".archive").iterdir()] == ["taken-1"]
    assert declare("r = []\nfor c in [5]:\n    r.append(c)\n", adopt=True).dataset.sizes == {"c": 1}


def test_a_design_has_one_dimension(root: Path) -> None:
    def area(a: float, b: float) -> float:
        return a * b

    data = mce.sweep(area, mce.latin_hypercube(10, a=(0, 1), b=(2, 3)), on="inline").result()
    assert dict(data.sizes) == {"point": 10}
    assert np.array_equal(data.area.values, data.a.values * data.b.values)


def test_the_global_stream_is_announced_only_where_it_is_sure(root: Path) -> None:
    def notes(body: str) -> str:
        cell = f"rows = []\nfor n in [1, 2]:\n    rows.append({body})\n"
        space = {"__name__": "__main__"}
        exec("import random\nimport numpy as np\nimport pandas as pd", space)
        return "\n".join(read_cell("said", cell, space, Options()).info["notes"])

    assert "global RNG: each point gets its own stream" in notes("np.random.normal(n)")
    assert "global RNG" in notes("random.random() + n")
    assert "global RNG" not in notes("pd.Series([n]).sum()")
    fixed = notes("(np.random.seed(42), np.random.normal(n))[1]")
    assert "seed fixed at 42 in every point" in fixed
    assert "own stream" not in fixed


def test_guards_that_are_functions_hold_for_what_is_added_later(root: Path) -> None:
    def product(n: int, k: int) -> float:
        return 1.0 * n * k

    def even(value: int) -> bool:
        return value % 2 == 0

    design = mce.grid(n=[1, 2, 3], k=[1, 2]).where(lambda n, k: even(n + k))
    run = mce.sweep(product, design, on="inline")
    assert runs(run) == 3
    run.extend(n=[4])
    assert runs(run) == 1
    # From disk too: the guard is in the signed bundle, and looking at the sweep does not load it.
    found = mce.open("product")
    assert found.dataset.sizes == {"n": 4, "k": 2}
    found.extend(n=[5])
    assert np.isnan(found.dataset.product.sel(n=5, k=2))
    assert found.dataset.product.sel(n=5, k=1) == 5
    cell = "out = []\nfor n in [1, 2, 3]:\n    if not even(n): continue\n    out.append(n * 10)\n"
    declare_cell("guarded", cell, {"__name__": "__main__", "even": even}, Options(on="inline"))
    mce.open("guarded").extend(n=[4, 5])
    assert mce.open("guarded").dataset["out"].values[1::2].tolist() == [20, 40]


def test_guards_that_leave_nothing_leave_no_rows(root: Path) -> None:
    cell = "out = []\nfor n in [1, 2]:\n    for m in [1, 2]:\n        if n > 5:\n            out.append(n * m)"
    declare_cell("nothing", cell, {"__name__": "__main__"}, Options(on="inline"))
    assert mce.open("nothing").rows("out") == []
    assert mce.open("nothing").dataset["out"].size == 0


def unhurried(x: int) -> int:
    time.sleep(0.05)
    return x


def test_a_sweep_that_was_declared_anew_without_its_points_says_so(root: Path) -> None:
    first = mce.sweep(unhurried, x=range(1000), name="both")
    while not first.progress.done:
        time.sleep(0.05)
    assert mce.sweep(unhurried, x=[2000, 2001], name="both").result(timeout=60).x.values.tolist() == [2000, 2001]
    with pytest.raises(
        SweepStopped, match=r"declared anew since, without [\d,]+ of these points; run this cell"
    ) as told:
        first.result(timeout=60)
    assert "resume" not in str(told.value)
    assert first.state == "stopped"
    missing = first.progress.pending
    assert runs(mce.sweep(unhurried, x=range(1000), name="both")) == missing
    mce.open("both").cancel()
