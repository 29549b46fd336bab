"""One loop calls user code. Whatever way it is driven, every point has the outcome it would have by itself."""

import itertools
import os

import cloudpickle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Status, grid
from mce_notebook.plan import Block
from mce_notebook.run.evaluator import Evaluator
from mce_notebook.run.output import Ring, captured

META = {"version": "v", "generation": "0", "worker": "test"}


class Runner:
    """An evaluator and what it handed on."""

    def __init__(self, experiment, points, **options):
        self.ring = Ring()
        self.frames = []
        self.handed = []
        # As a slot gets it: a copy that holds nothing but what the code reaches.
        experiment = cloudpickle.loads(cloudpickle.dumps(experiment))
        self.evaluator = Evaluator(experiment, points, 1, dict(META), output=self.ring, **options)
        self.evaluator.write_to(1)

    def run(self, *ranges, each, **options):
        def flush(frames, done, failed):
            self.frames += frames
            self.handed.append((done, failed))

        with captured(self.ring):
            return self.evaluator.run(Block(tuple(ranges)), each=each, flush=flush, **options)


def all_bits(known):
    """Outcomes as something that compares equal only if every bit is the same."""

    def bits(value):
        return value.tobytes() if isinstance(value, np.ndarray | np.generic) else value

    return {
        index: (
            one.status,
            {name: bits(value) for name, value in one.values.items()},
            one.failure and one.failure.cause,
        )
        for index, one in known.items()
    }


DRAWS = """
    import random, numpy as np
    def f(a, b, rng):
        if (a + b) % 7 == 3:
            raise ValueError(f"{a} and {b}")
        return rng.standard_normal() * a + b, random.random() + np.random.rand()
"""


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.sets(st.integers(1, 239), max_size=6),
    each=st.lists(st.booleans(), min_size=7, max_size=7),
    order=st.randoms(),
)
def test_outcomes_do_not_depend_on_blocks_mode_or_order(notebook, outcomes, cuts, each, order):
    points = grid(a=list(range(20)), b=list(range(12)))
    experiment = notebook.function(DRAWS, points, outputs=("x", "y"))
    whole = Runner(experiment, points)
    whole.run((0, 240), each=False)
    edges = [0, *sorted(cuts), 240]
    pieces = list(itertools.pairwise(edges))
    order.shuffle(pieces)
    split = Runner(experiment, points)
    for piece, careful in zip(pieces, each):
        split.run(piece, each=careful)
    assert experiment.global_rng == "seeded"
    expected = all_bits(outcomes(whole.frames))
    assert len(expected) == 240
    assert all_bits(outcomes(split.frames)) == expected
    assert len({known[1]["x"] for known in expected.values() if known[0] == Status.DONE}) > 100


@pytest.mark.parametrize("each", [False, True])
def test_arguments_arrive_as_a_loop_would_give_them(notebook, outcomes, each):
    points = grid(a=[1, 2], b=np.array([0.5, 1.5]), c=["x", "y"])
    experiment = notebook.function("def f(c, a, b): return f'{c}{a}{b!r}{type(b).__name__}'", points)
    runner = Runner(experiment, points)
    runner.run((0, 8), each=each)
    expected = [f"{c}{a}{b!r}float64" for a in [1, 2] for b in np.array([0.5, 1.5]) for c in ["x", "y"]]
    assert [one.values["f"] for one in outcomes(runner.frames).values()] == expected


@pytest.mark.parametrize("each", [False, True])
def test_ranges_of_a_block_in_any_order(notebook, outcomes, each):
    points = grid(i=list(range(100)))
    runner = Runner(notebook.function("def f(i): return i * i", points), points)
    runner.run((90, 93), (5, 6), (40, 50), each=each)
    found = outcomes(runner.frames)
    assert sorted(found) == [5, *range(40, 50), 90, 91, 92]
    assert all(one.values["f"] == index**2 for index, one in found.items())


FAILING = """
    import sys
    class Mute(Exception):
        def __str__(self): raise RuntimeError("no")
    def deep(n): return deep(n + 1)
    def f(i):
        print("at", i)
        if i == 1: raise ValueError("one\\nand more")
        if i == 2: raise StopIteration
        if i == 3: sys.exit(4)
        if i == 4: raise KeyboardInterrupt
        if i == 5: deep(0)
        if i == 6: raise Mute
        if i == 7: raise MemoryError("too much")
        if i == 8: raise GeneratorExit
        if i == 9: raise ExceptionGroup("several", [KeyError("k"), TypeError("t")])
        if i == 10: raise ValueError("half a character: \\ud800")
        if i == 11: return open
        if i == 12: return (x for x in ())
        return float(i)
"""


@pytest.mark.parametrize("each", [False, True])
def test_failures_are_data(notebook, outcomes, each):
    points = grid(i=list(range(20)))
    runner = Runner(notebook.function(FAILING, points), points)
    report = runner.run((0, 20), each=each)
    found = outcomes(runner.frames)
    assert sorted(found) == list(range(20))
    assert [i for i, one in found.items() if one.status == Status.DONE] == [0, *range(13, 20)]
    assert report.done == 20
    assert report.failed == 12
    types = [found[i].failure.type for i in range(1, 11)]
    assert types == [
        "ValueError", "StopIteration", "SystemExit", "KeyboardInterrupt", "RecursionError", "Mute", "MemoryError",
        "GeneratorExit", "ExceptionGroup", "ValueError",
    ]  # fmt: skip
    assert found[1].failure.cause == "ValueError: one"
    assert 'raise ValueError("one\\nand more")' in found[1].failure.traceback
    assert "mce_notebook" not in "".join(one.failure.traceback for one in found.values() if one.failure)
    assert "more times" in found[5].failure.traceback
    assert "RuntimeError" in found[6].failure.message
    assert "KeyError" in found[9].failure.traceback
    assert found[12].failure.cause == "cannot be stored: a generator"
    assert found[1].output.endswith("at 1\n")
    assert found[7].output == "at 7\n"


def test_cheap_points_that_fail_are_not_run_again(notebook, outcomes, tmp_path):
    points = grid(i=list(range(1000)))
    trace = tmp_path / "trace"
    experiment = notebook.function(
        f"""
        def f(i):
            with open({str(trace)!r}, "a") as file: file.write(f"{{i}} ")
            if i % 3 == 0: raise ValueError(i)
            return i
        """,
        points,
    )
    runner = Runner(experiment, points)
    runner.run((0, 1000), each=False)
    assert list(map(int, trace.read_text().split())) == list(range(1000))
    assert len(outcomes(runner.frames)) == 1000


@pytest.mark.parametrize("each", [False, True])
def test_the_budget_hands_back_the_rest_and_nothing_is_lost(notebook, outcomes, each):
    points = grid(i=list(range(100_000)))
    experiment = notebook.function(
        """
        import time
        def f(i):
            time.sleep(0.0005)
            return i
        """,
        points,
    )
    runner = Runner(experiment, points)
    report = runner.run((0, 100_000), each=each, budget=0.2)
    assert 1 <= report.done < 20_000
    assert report.leftover == Block(((report.done, 100_000),))
    assert sorted(outcomes(runner.frames)) == list(range(report.done))


def test_the_budget_bounds_bytes_too(notebook):
    points = grid(i=list(range(2000)))
    experiment = notebook.function("import numpy as np\ndef f(i): return np.ones(100_000)", points)
    report = Runner(experiment, points).run((0, 2000), each=True, budget=0.01)
    assert report.done < 20


def test_finished_points_are_handed_on_while_the_block_runs(notebook):
    points = grid(i=list(range(12)))
    experiment = notebook.function("import time\ndef f(i):\n    time.sleep(0.1)\n    return i", points)
    runner = Runner(experiment, points)
    runner.run((0, 12), each=True)
    assert len(runner.handed) >= 3
    assert runner.handed[-1][0] == 12


def test_values_that_are_hard_to_measure(notebook, outcomes):
    source = """
        class Shy:
            @property
            def nbytes(self): raise KeyError("nbytes")
        def f(i):
            if i == 1:
                loop = []
                loop.append(loop)
                return loop
            if i == 2:
                deep = {}
                for _ in range(100_000): deep = {"a": deep}
                return deep
            return Shy() if i == 3 else i
    """
    points = grid(i=list(range(6)))
    runner = Runner(notebook.function(source, points), points)
    runner.run((0, 6), each=False)
    found = outcomes(runner.frames)
    assert [i for i, one in found.items() if one.failure] == [1, 2, 3]
    assert all("stored" in found[i].failure.cause for i in (1, 2, 3))


def test_a_point_that_replaces_the_output_does_so_for_itself(notebook, outcomes):
    source = """
        import io, sys
        def f(i):
            if i == 0: sys.stdout = io.StringIO()
            print("point", i)
            return i
    """
    points = grid(i=[0, 1])
    runner = Runner(notebook.function(source, points), points)
    runner.run((0, 2), each=True)
    assert [one.output for one in outcomes(runner.frames).values()] == ["", "point 1\n"]


def test_slow_points_in_a_cheap_block_are_run_one_by_one(notebook, outcomes):
    points = grid(i=list(range(6)))
    experiment = notebook.function(
        "import time, os\ndef f(i):\n    time.sleep(0.01)\n    f = os.getcwd()\n    os.chdir('/')\n    return f", points
    )
    runner = Runner(experiment, points)
    runner.run((0, 6), each=False)
    assert {one.values["f"] for one in outcomes(runner.frames).values()} == {os.getcwd()}
    assert os.getcwd() != "/"


def test_a_point_that_changes_and_removes_its_directory(notebook, outcomes):
    points = grid(i=[0, 1, 2])
    source = """
        import os, tempfile
        def f(i):
            f = os.getcwd()
            folder = tempfile.mkdtemp()
            os.chdir(folder)
            os.rmdir(folder)
            return f
    """
    runner = Runner(notebook.function(source, points), points)
    runner.run((0, 3), each=True)
    assert {one.values["f"] for one in outcomes(runner.frames).values()} == {os.getcwd()}


@pytest.mark.parametrize("each", [False, True])
def test_marks_become_skipped_points_and_missing_outputs(notebook, outcomes, each):
    points = grid(i=list(range(6)))
    experiment = notebook.nest(
        """
        def point(i):
            if i == 2: return __mce_skip__
            if i == 4: return (i, __mce_missing__)
            return (i, i / 2)
        """,
        [],
        outputs=("x", "y"),
    )
    runner = Runner(experiment, points)
    report = runner.run((0, 6), each=each)
    found = outcomes(runner.frames)
    assert [one.status for one in found.values()] == [Status.DONE] * 2 + [Status.SKIPPED] + [Status.DONE] * 3
    assert found[4].values == {"x": 4}
    assert report.failed == 0


# Setups


def noted(trace, name):
    """A statement that leaves a trace of a call and its argument."""
    return f"with open({str(trace)!r}, 'a') as file: file.write(f'{name}{{{name}}} ')"


def test_a_setup_runs_once_for_the_points_that_share_it(notebook, outcomes, tmp_path):
    points = grid(n=[1, 2, 3], m=[1, 2], i=list(range(5)))
    trace = tmp_path / "trace"
    experiment = notebook.nest(
        "def point(i, A, B): return float(A.sum() + B + i)",
        [
            (
                1,
                f"def setup(n):\n    import numpy as np\n    {noted(trace, 'n')}\n    return (np.full(3, n),)",
                ("A",),
            ),
            (
                2,
                f"def setup(A, m):\n    {noted(trace, 'm')}\n    return (int(A[0]) * m,)",
                ("B",),
            ),
        ],
    )
    runner = Runner(experiment, points)
    for low, high in [(0, 3), (3, 12), (12, 30)]:
        runner.run((low, high), each=False)
    assert trace.read_text().split() == ["n1", "m1", "m2", "n2", "m1", "m2", "n3", "m1", "m2"]
    expected = [3.0 * n + n * m + i for n in [1, 2, 3] for m in [1, 2] for i in range(5)]
    assert [outcomes(runner.frames)[index].values["y"] for index in range(30)] == expected


def test_points_that_change_what_a_setup_made_get_copies(notebook, outcomes):
    points = grid(n=[1, 2], i=list(range(50)))
    experiment = notebook.nest(
        "def point(i, A):\n    A += 1\n    A[0] *= 2\n    return float(A.sum())",
        [(1, "def setup(n):\n    import numpy as np\n    return (np.full(3, float(n)),)", ("A",))],
    )
    for each in (False, True):
        runner = Runner(experiment, points)
        report = runner.run((0, 100), each=each)
        found = outcomes(runner.frames)
        assert [found[i].values["y"] for i in range(100)] == [8.0] * 50 + [12.0] * 50
        assert "`A`" in report.notes[0]
        assert runner.handed[-1] == (100, 0)


def test_a_change_seen_late_takes_back_only_what_was_not_handed_on(notebook, outcomes):
    """The tenth point is the first to spoil the array; those before are right and stay."""
    points = grid(n=[1], i=list(range(30)))
    experiment = notebook.nest(
        "def point(i, A):\n    if i >= 10: A += 1\n    return float(A.sum())",
        [(1, "def setup(n):\n    import numpy as np\n    return (np.zeros(2),)", ("A",))],
    )
    runner = Runner(experiment, points)
    runner.run((0, 30), each=False)
    found = outcomes(runner.frames)
    assert [found[i].values["y"] for i in range(30)] == [0.0] * 10 + [2.0] * 20


def test_what_cannot_be_copied_is_set_up_again(notebook, outcomes):
    notebook.run(
        """
        class Counter:
            def __init__(self): self.n = 0
            def __getstate__(self): return {"n": self.n}
            def __setstate__(self, state): raise TypeError("one of a kind")
        """
    )
    points = grid(n=[3], i=list(range(8)))
    experiment = notebook.nest(
        "def point(i, counter):\n    counter.n += 1\n    return counter.n",
        [(1, "def setup(n):\n    return (Counter(),)", ("counter",))],
        captured=("Counter",),
    )
    runner = Runner(experiment, points)
    runner.run((0, 8), each=False)
    assert [one.values["y"] for one in outcomes(runner.frames).values()] == [1] * 8


def test_an_inner_setup_that_changes_an_outer_result(notebook, outcomes):
    points = grid(n=[1, 2], m=[10, 20], i=[0, 1])
    experiment = notebook.nest(
        "def point(i, A, B): return A[0] + B",
        [
            (1, "def setup(n): return ([n],)", ("A",)),
            (2, "def setup(A, m):\n    A[0] += m\n    return (A[0],)", ("B",)),
        ],
    )
    runner = Runner(experiment, points)
    runner.run((0, 8), each=False)
    expected = [2 * (n + m) for n in [1, 2] for m in [10, 20] for _ in range(2)]
    assert [outcomes(runner.frames)[i].values["y"] for i in range(8)] == expected


def test_a_setup_that_fails_is_tried_once_and_fails_its_points(notebook, outcomes, tmp_path):
    trace = tmp_path / "trace"
    points = grid(n=[1, 0, 2], i=list(range(4)))
    experiment = notebook.nest(
        "def point(i, A): return A + i",
        [
            (
                1,
                f"def setup(n):\n    {noted(trace, 'n')}\n    print('dividing')\n    return (1 / n,)",
                ("A",),
            )
        ],
    )
    runner = Runner(experiment, points)
    runner.run((0, 6), each=False)
    runner.run((6, 12), each=True)
    found = outcomes(runner.frames)
    assert trace.read_text() == "n1 n0 n2 "
    assert [i for i, one in found.items() if one.status == Status.FAILED] == [4, 5, 6, 7]
    assert {found[i].failure.where for i in range(4, 8)} == {"setup"}
    assert found[5].failure.cause == "ZeroDivisionError: division by zero"
    assert "dividing" in found[5].output


def test_random_setups_draw_from_the_axes_around_them(notebook, outcomes):
    points = grid(n=[1, 2], m=[1, 2, 3], replicate=list(range(3)))
    fields = {"streams": "rng", "generator_names": ("rng",), "draws_in_setup": True}
    experiment = notebook.nest(
        "def point(A, rng): return (A, float(rng.random()))",
        [(1, "def setup(n, rng): return (float(rng.random()),)", ("A",))],
        outputs=("A", "y"),
        **fields,
    )
    forward, backward = Runner(experiment, points), Runner(experiment, points)
    forward.run((0, 18), each=False)
    for index in reversed(range(18)):
        backward.run((index, index + 1), each=True)
    found = outcomes(forward.frames)
    assert all_bits(found) == all_bits(outcomes(backward.frames))
    assert len({found[i].values["A"] for i in range(9)}) == 1
    assert found[0].values["A"] != found[9].values["A"]
    assert len({found[i].values["y"] for i in range(18)} | {found[0].values["A"]}) == 19


# Captured values


@pytest.mark.parametrize("each", [False, True])
def test_points_that_change_captured_values_get_the_declared_ones(notebook, outcomes, each):
    points = grid(i=list(range(40)))
    experiment = notebook.function(
        """
        seen = []
        count = 0
        def helper(i):
            global count
            count += 1
            seen.append(i)
            return count + len(seen)
        def f(i): return helper(i)
        """,
        points,
    )
    runner = Runner(experiment, points)
    report = runner.run((0, 40), each=each)
    assert [one.values["f"] for one in outcomes(runner.frames).values()] == [2] * 40
    assert "`seen`" in " ".join(report.notes)


def test_captured_values_that_stay_as_they_are_cost_nothing(notebook, outcomes):
    points = grid(i=list(range(100)))
    experiment = notebook.function(
        "import numpy as np\nA = np.arange(1000.)\nnames = {'x': [1, 2]}\ndef f(i): return A[i] + names['x'][1]", points
    )
    runner = Runner(experiment, points)
    assert runner.run((0, 100), each=False).notes == ()
    assert outcomes(runner.frames)[9].values["f"] == 11.0


# Files


@pytest.mark.parametrize("each", [False, True])
def test_scratch_is_a_folder_of_the_point_and_is_kept(notebook, outcomes, tmp_path, each):
    points = grid(i=list(range(4)))
    experiment = notebook.function(
        """
        from mce_notebook.run.scratch import scratch
        def f(i):
            if i == 3: return -1
            folder = scratch()
            assert scratch() == folder and not list(folder.iterdir())
            (folder / "trace.txt").write_text(f"point {i}")
            if i == 2: raise ValueError("after writing")
            return i
        """,
        points,
    )
    runner = Runner(experiment, points, artifacts=lambda index: tmp_path / f"p{index}")
    runner.run((0, 4), each=each)
    found = outcomes(runner.frames)
    runner.run((0, 1), each=each)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p0", "p1", "p2"]
    assert (tmp_path / "p1" / "trace.txt").read_text() == "point 1"
    assert found[2].failure.type == "ValueError"
    assert [one.status for one in found.values()].count(Status.DONE) == 3


def test_scratch_outside_a_sweep_is_a_plain_folder(tmp_path, monkeypatch):
    from mce_notebook import scratch

    monkeypatch.chdir(tmp_path)
    assert scratch() == tmp_path / "scratch"
    assert scratch().is_dir()


def test_outputs_of_points_that_went_well(notebook, outcomes):
    points = grid(i=[0, 1, 2])
    runner = Runner(notebook.function("def f(i):\n    if i: print('hello', i)\n    return i", points), points)
    runner.run((0, 3), each=True)
    assert [one.output for one in outcomes(runner.frames).values()] == ["", "hello 1\n", "hello 2\n"]


def test_a_block_of_unknown_cost_goes_on_in_bulk_once_points_prove_fast(notebook, outcomes):
    points = grid(i=list(range(5000)))
    source = "def f(i):\n    return i * 2"
    looked, careful = (Runner(notebook.function(source, points), points) for _ in range(2))
    looked.run((0, 5000), each=True, budget=60.0)
    careful.run((0, 5000), each=True)
    assert all_bits(outcomes(looked.frames)) == all_bits(outcomes(careful.frames))
    # Time is measured per point only where points run one by one.
    assert not any(b"_seconds" in frame.head for frame in looked.frames)
    assert all(b"_seconds" in frame.head for frame in careful.frames)


def test_large_payloads_go_to_files_of_their_own(notebook, tmp_path):
    points = grid(i=list(range(3)))
    source = "import numpy as np\ndef f(i): return np.full(200_000, i)"
    runner = Runner(notebook.function(source, points), points, big=lambda epoch: tmp_path / str(epoch))
    runner.run((0, 3), each=True)
    assert sum(frame.nbytes for frame in runner.frames) < 10_000
    assert sum(path.stat().st_size for path in (tmp_path / "1").iterdir()) > 3 * 200_000 * 8


def test_payloads_without_room_are_no_failures_of_points(notebook, tmp_path):
    points = grid(i=list(range(3)))
    (tmp_path / "full").write_text("a file, where nothing can be put")
    runner = Runner(
        notebook.function("import numpy as np\ndef f(i): return np.full(200_000, i)", points),
        points,
        big=lambda epoch: tmp_path / "full" / str(epoch),
    )
    runner.run((0, 3), each=True)
    assert sum(failed for _, failed in runner.handed) == 0
    assert sum(frame.nbytes for frame in runner.frames) > 3 * 200_000 * 8
