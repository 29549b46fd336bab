"""The same evaluator and log, in this process: refuses what needs a slot, stops cleanly, gives everything back."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from mce_notebook.declare.grid import Status, grid
from mce_notebook.declare.options import Options
from mce_notebook.errors import OptionError, SweepStopped
from mce_notebook.run.inline import run_inline
from mce_notebook.store.catalog import Store
from mce_notebook.store.coverage import known


def statuses(task):
    sweep = Store(task.store).sweep(task.name)
    return known(sweep, sweep.latest()).status


def test_everything_is_computed_and_recorded(notebook, declared, capsys):
    points = grid(a=list(range(30)), b=list(range(20))).where("a != 3")
    source = """
        import random
        def f(a, b):
            if a == b == 5: raise ValueError('five')
            if b == 0: print('a is', a)
            return random.random()
    """
    task = declared(notebook.function(source, points), points)
    random.seed(1)
    np.random.seed(1)
    folder, draws = os.getcwd(), (random.Random(1).random(), np.random.RandomState(1).rand())
    run_inline(task.store, task.name, Options(on="inline"))
    found = statuses(task)
    assert (found == Status.DONE).sum() == 29 * 20 - 1
    assert (found == Status.FAILED).sum() == 1
    assert (found == Status.PENDING).sum() == 20
    assert (os.getcwd(), (random.random(), np.random.rand())) == (folder, draws)
    assert "a is 7" in capsys.readouterr().out
    epochs = len(Store(task.store).sweep(task.name).epochs())
    run_inline(task.store, task.name, Options(on="inline"))
    assert len(Store(task.store).sweep(task.name).epochs()) == epochs


@pytest.mark.parametrize("option", [{"timeout": 3.0}, {"memory": 10**9}])
def test_what_needs_a_slot_is_refused(option, tmp_path):
    (word,) = option
    with pytest.raises(OptionError, match=f"--{word}.*--on local"):
        run_inline(tmp_path, "any", Options(on="inline", **option))


def test_too_many_failures_stop_it(notebook, declared):
    points = grid(i=list(range(5000)))
    source = "import time\ndef f(i):\n    time.sleep(0.002)\n    raise ValueError(i)"
    options = Options(on="inline", max_failures=10)
    task = declared(notebook.function(source, points), points, options=options.to_json())
    with pytest.raises(SweepStopped, match="max-failures"):
        run_inline(task.store, task.name, options)
    found = statuses(task)
    assert 10 < (found == Status.FAILED).sum() < 5000


def test_a_cancelled_sweep_ends_here_too(notebook, declared):
    points = grid(i=list(range(100_000)))
    task = declared(notebook.function("import time\ndef f(i): time.sleep(0.002)", points), points)
    sweep = Store(task.store).sweep(task.name)
    timer = threading.Timer(0.5, lambda: sweep.add_intent("cancel", "test"))
    timer.start()
    run_inline(task.store, task.name, Options(on="inline"))
    timer.join()
    assert sweep.heartbeat(sweep.epochs()[-1].number)["state"] == "cancelled"
    assert 0 < (statuses(task) == Status.DONE).sum() < 100_000


def test_an_interrupt_keeps_what_is_done_and_the_next_run_finishes(notebook, declared, tmp_path):
    points = grid(i=list(range(300)))
    task = declared(notebook.function("import time\ndef f(i):\n    time.sleep(0.01)\n    return i", points), points)
    program = tmp_path / "run.py"
    program.write_text(
        textwrap.dedent(
            f"""
            from mce_notebook.declare.options import Options
            from mce_notebook.run.inline import run_inline
            try:
                run_inline({task.store!r}, {task.name!r}, Options(on="inline"))
            except KeyboardInterrupt:
                print("interrupted")
            """
        )
    )
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=os.environ.copy())
    deadline = time.monotonic() + 30
    while not (statuses(task) == Status.DONE).any() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "interrupted\n"
    done = (statuses(task) == Status.DONE).sum()
    assert 0 < done < 300
    run_inline(task.store, task.name, Options(on="inline"))
    assert (statuses(task) == Status.DONE).all()


def test_points_work_on_copies(notebook, declared):
    notebook.run("seen = []")
    points = grid(i=list(range(5)))
    task = declared(notebook.function("def f(i):\n    seen.append(i)\n    return len(seen)", points), points)
    run_inline(task.store, task.name, Options(on="inline"))
    assert notebook.namespace["seen"] == []
    assert (statuses(task) == Status.DONE).all()
