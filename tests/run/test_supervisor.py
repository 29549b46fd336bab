"""Whatever a point does to its process: it is named with its cause, and every other point is done."""

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from mce_notebook.declare.grid import Status, grid
from mce_notebook.plan import Block
from mce_notebook.run import processes
from mce_notebook.run.budget import machine_cores
from mce_notebook.run.supervisor import Supervisor, default_memory

GOOD = 8


@pytest.fixture
def supervisor():
    made = Supervisor(spare=False)
    yield made
    made.close()


def finish(supervisor, task, block, *, each, **options):
    """Send blocks until nothing is left, as an engine does; return all results."""
    results, todo = [], [block]
    while todo:
        result = supervisor.run(task, todo.pop(), each=each, **options)
        results.append(result)
        todo += result.leftover
        assert len(results) < 60
    return results


def frames_of(results):
    return [frame for result in results for frame in result.frames]


HOSTILE = """
    import ctypes, os, signal, subprocess, sys, threading, time
    import numpy as np
    def f(i):
        if i == 0: raise ValueError("bad zero")
        if i == 1:
            print("before the crash")
            ctypes.string_at(0)
        if i == 2: os._exit(3)
        if i == 3: time.sleep(1000)
        if i == 4: ctypes.PyDLL(None).sleep(1000)
        if i == 6:
            for _ in range(2000): print("x" * 100_000)
        if i == 7:
            if os.fork() == 0: return -7.0
        if i == 8:
            subprocess.Popen(["sleep", "1000"])
            threading.Thread(target=time.sleep, args=(1000,)).start()
        if i == 9: os.chdir("/")
        if i == 10: return "text"
        if i == 11: return np.ones(12_500_000)
        if i == 12: return threading.Lock()
        if i == 13: sys.exit(4)
        if i == 14: os.abort()
        if i == 15: os.kill(os.getpid(), signal.SIGTERM)
        if i == 16: os.write(1, b"z" * 50_000_000)
        if i == 17: os.close(1); os.close(2)
        if i == 18: return os.getcwd()
        return 0.5 * i
"""


def test_hostile_points_are_named_and_all_others_done(notebook, declared, outcomes, supervisor):
    points = grid(i=list(range(30)))
    task = declared(notebook.function(HOSTILE, points, outputs=("y",)), points)
    before = psutil.Process().memory_info().rss
    results = finish(supervisor, task, Block(((0, 30),)), each=True, timeout=2.5)
    found = outcomes(frames_of(results))
    assert sorted(found) == list(range(30))
    causes = {i: (one.status, one.failure.cause) for i, one in found.items() if one.failure}
    assert causes == {
        0: (Status.FAILED, "ValueError: bad zero"),
        1: (Status.KILLED, "killed by SIGSEGV (segmentation fault)"),
        2: (Status.KILLED, "exited with status 3 (os._exit)"),
        3: (Status.TIMEOUT, "timed out after 2.5 s"),
        4: (Status.TIMEOUT, "timed out after 2.5 s"),
        12: (Status.FAILED, causes[12][1]),
        13: (Status.FAILED, "SystemExit: 4"),
        14: (Status.KILLED, "killed by SIGABRT (aborted)"),
        15: (Status.KILLED, "killed by SIGTERM (terminated)"),
    }
    assert "lock" in causes[12][1]
    assert "before the crash" in found[1].output
    assert "in f" in found[1].failure.traceback
    assert "mce_notebook" not in found[1].failure.traceback
    assert found[7].values["y"] == 3.5
    assert found[18].values["y"] == os.getcwd()
    assert found[10].values["y"] == "text"
    assert found[11].values["y"].nbytes == 100_000_000
    assert len(found[6].output) <= 70_000
    assert sum(result.failed for result in results) == 9
    assert sum(result.done for result in results) == 30
    assert not any(result.lost for result in results)
    assert {r.killed_point for r in results} == {None, 1, 2, 3, 4, 14, 15}
    # 100 MB of values came through; 250 MB of prints did not stay.
    assert psutil.Process().memory_info().rss - before < 400_000_000


@pytest.mark.parametrize("where", ["here", "in a child"])
def test_too_much_memory_is_named(notebook, declared, outcomes, supervisor, where):
    points = grid(i=list(range(6)))
    source = f"""
        import os, time
        import numpy as np
        def hoard():
            keep = []
            for _ in range(1000): keep.append(np.ones(1_000_000))
        def f(i):
            if i == 4:
                if {where == "here"}: hoard()
                elif os.fork() == 0: hoard()
                time.sleep(60)
            return i
    """
    task = declared(notebook.function(source, points), points)
    found = outcomes(frames_of(finish(supervisor, task, Block(((0, 6),)), each=True, memory=300_000_000)))
    assert sorted(found) == list(range(6))
    assert [(i, one.status, one.failure.cause) for i, one in found.items() if one.failure] == [
        (4, Status.KILLED, "exceeded the memory limit of 300 MB")
    ]


def test_nothing_is_left_running(notebook, declared):
    points = grid(i=list(range(3)))
    task = declared(
        notebook.function(
            """
            import os, subprocess
            def f(i):
                plain = subprocess.Popen(["sleep", "1000"])
                other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
                return plain.pid, other.pid
            """,
            points,
            outputs=("a", "b"),
        ),
        points,
    )
    # Hosts of other tests may be children of this process too, and the template that slots are forked from stays.
    processes.prepare(1)
    before = set(psutil.Process().children(recursive=True))
    supervisor = Supervisor()
    supervisor.run(task, Block(((0, 3),)), each=True)
    children = [child for child in psutil.Process().children(recursive=True) if child not in before]
    assert sum(child.name() == "sleep" for child in children) == 6
    supervisor.close()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


@pytest.mark.parametrize("bad", ["ctypes.string_at(0)", "os._exit(9)"])
def test_a_cheap_point_that_kills_is_found_by_one_careful_run(notebook, declared, outcomes, supervisor, bad):
    points = grid(i=list(range(6000)))
    source = f"import ctypes, os\ndef f(i):\n    if i == 4123: {bad}\n    return i"
    task = declared(notebook.function(source, points), points)
    results = finish(supervisor, task, Block(((0, 6000),)), each=False)
    found = outcomes(frames_of(results))
    assert len(found) == 6000
    assert [i for i, one in found.items() if one.status != Status.DONE] == [4123]
    assert found[4123].status == Status.KILLED
    assert all(one.values["f"] == i for i, one in found.items() if i != 4123)
    assert results[0].killed_point == 4123


def test_a_cheap_point_that_hangs_is_found(notebook, declared, outcomes, supervisor):
    points = grid(i=list(range(5000)))
    source = "def f(i):\n    while i == 3210: pass\n    return i"
    task = declared(notebook.function(source, points), points)
    found = outcomes(frames_of(finish(supervisor, task, Block(((0, 5000),)), each=False, timeout=1.0)))
    assert [(i, one.status) for i, one in found.items() if one.failure] == [(3210, Status.TIMEOUT)]
    assert len(found) == 5000


def test_a_sigkill_from_elsewhere_is_a_loss_not_an_outcome(notebook, declared, supervisor):
    points = grid(i=[0, 1, 2, 3])
    source = "import os, signal\ndef f(i):\n    if i == 2: os.kill(os.getpid(), signal.SIGKILL)\n    return i"
    task = declared(notebook.function(source, points), points)
    result = supervisor.run(task, Block(((0, 4),)), each=True)
    assert result.lost
    assert result.killed_point == 2
    assert result.frames == []
    assert result.leftover == (Block(((0, 4),)),)


def test_points_done_before_a_crash_are_kept(notebook, declared, outcomes, supervisor):
    points = grid(i=list(range(8)))
    source = "import os, time\ndef f(i):\n    time.sleep(0.15)\n    if i == 6: os._exit(1)\n    return i"
    task = declared(notebook.function(source, points), points)
    result = supervisor.run(task, Block(((0, 8),)), each=True)
    kept = outcomes(result.frames)
    assert len(kept) >= 4
    assert kept[6].status == Status.KILLED
    assert sorted([*kept, *(i for block in result.leftover for i in block.indices())]) == list(range(8))
    assert result.done == len(kept)


def test_a_setup_that_crashes_fails_its_points_and_is_not_tried_again(
    notebook, declared, outcomes, supervisor, tmp_path
):
    trace = tmp_path / "trace"
    points = grid(n=[1, 0, 2], i=list(range(4)))
    experiment = notebook.nest(
        "def point(i, A): return A + i",
        [
            (
                1,
                f"def setup(n):\n    import os\n    with open({str(trace)!r}, 'a') as file: file.write(str(n))\n"
                "    if n == 0: os._exit(5)\n    return (n,)",
                ("A",),
            )
        ],
    )
    task = declared(experiment, points)
    results = [r for low in (0, 6, 4) for r in finish(supervisor, task, Block(((low, low + 2),)), each=False)]
    results += finish(supervisor, task, Block(((2, 4),)), each=False) + finish(
        supervisor, task, Block(((8, 12),)), each=True
    )
    found = outcomes(frames_of(results))
    assert len(found) == 12
    assert trace.read_text().count("0") == 1
    assert {i for i, one in found.items() if one.status == Status.KILLED} == {4, 5, 6, 7}
    assert {found[i].failure.where for i in (4, 5, 6, 7)} == {"setup"}
    assert found[6].failure.cause == "exited with status 5 (os._exit)"


def test_a_setup_that_hangs_times_out(notebook, declared, outcomes, supervisor):
    points = grid(n=[0, 1], i=[0, 1])
    experiment = notebook.nest(
        "def point(i, A): return A + i",
        [(1, "def setup(n):\n    import time\n    if n == 0: time.sleep(100)\n    return (n,)", ("A",))],
    )
    task = declared(experiment, points)
    found = outcomes(frames_of(finish(supervisor, task, Block(((0, 4),)), each=False, timeout=0.8)))
    assert [one.status for _, one in sorted(found.items())] == [
        Status.TIMEOUT,
        Status.TIMEOUT,
        Status.DONE,
        Status.DONE,
    ]


def test_code_that_cannot_be_loaded_fails_its_points(notebook, declared, outcomes, supervisor):
    points = grid(i=[0, 1, 2])
    notebook.run(
        """
        class Picky:
            def __reduce__(self): return (Picky.refuse, ())
            @staticmethod
            def refuse(): raise OSError("the licence server is down")
        licence = Picky()
        """
    )
    task = declared(notebook.function("def f(i): return licence", points), points)
    found = outcomes(frames_of(finish(supervisor, task, Block(((0, 3),)), each=True)))
    assert {one.failure.cause for one in found.values()} == {"OSError: the licence server is down"}
    assert {one.failure.where for one in found.values()} == {"slot"}


def test_cancel_stops_a_slot_within_a_second(notebook, declared, supervisor):
    points = grid(i=[0, 1])
    task = declared(notebook.function("import time\ndef f(i): time.sleep(100)", points), points)
    assert not supervisor.cancel()
    results = []
    thread = threading.Thread(target=lambda: results.append(supervisor.run(task, Block(((0, 2),)), each=True)))
    thread.start()
    time.sleep(1.5)
    assert not supervisor.cancel(task.store, "another")
    begun = time.monotonic()
    assert supervisor.cancel(task.store, task.name)
    thread.join(timeout=10)
    assert time.monotonic() - begun < 1.0
    assert results[0].reason == "cancelled"
    assert results[0].leftover == (Block(((0, 2),)),)
    assert not results[0].lost


def test_a_slot_is_kept_for_its_version_and_left_for_another(notebook, declared, outcomes, supervisor):
    points = grid(i=[0, 1])
    first = declared(
        notebook.function("import os\ndef f(i): return os.getpid()", points, name="a", outputs=("y",)), points
    )
    second = declared(
        notebook.function("import os\ndef f(i): return os.getpid() + 0", points, name="b", outputs=("y",)), points
    )

    def pids(task):
        return {one.values["y"] for one in outcomes(supervisor.run(task, Block(((0, 2),)), each=True).frames).values()}

    one, two = pids(first), pids(second)
    assert one == pids(first)
    assert two == pids(second)
    assert len(one | two) == 2
    assert os.getpid() not in one | two


@pytest.mark.usefixtures("own_templates")
def test_blocks_and_threads_of_the_environment(notebook, declared, outcomes, supervisor, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("MPLBACKEND", "module://somewhere")
    source = """
        import os, sys
        def f(name):
            return str(os.environ.get(name)) if name != "stdin" else repr(sys.stdin.read())
    """
    names = ["OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "MPLBACKEND", "PYTHONHASHSEED", "stdin"]
    points = grid(name=names)
    task = declared(notebook.function(source, points), points)
    found = outcomes(supervisor.run(task, Block(((0, 5),)), each=True).frames)
    assert [found[i].values["f"] for i in range(5)] == ["1", "None", "Agg", "0", "''"]


def test_processes_of_user_code_can_be_pools(notebook, declared, outcomes, supervisor):
    source = """
        import multiprocessing
        def main(x): return x * x
        def f(i):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                return sum(pool.map(main, range(i)))
    """
    points = grid(i=[3, 4])
    task = declared(notebook.function(source, points, outputs=("y",)), points)
    found = outcomes(supervisor.run(task, Block(((0, 2),)), each=True, timeout=30).frames)
    assert [found[i].values["y"] for i in (0, 1)] == [5, 14]


def test_a_slot_dies_with_its_supervisor(notebook, declared, tmp_path):
    points = grid(i=[0])
    trace = tmp_path / "pid"
    source = f"""
        import os, time
        def f(i):
            with open({str(trace)!r}, "w") as file: file.write(str(os.getpid()))
            time.sleep(100)
    """
    task = declared(notebook.function(source, points), points)
    pid = os.fork()
    if pid == 0:
        Supervisor().run(task, Block(((0, 1),)), each=True)
        os._exit(0)
    deadline = time.monotonic() + 20
    while not (trace.exists() and trace.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    slot = psutil.Process(int(trace.read_text()))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _, alive = psutil.wait_procs([slot], timeout=5)
    assert not alive


def test_the_default_memory_is_a_share_of_the_machine():
    total, cores = psutil.virtual_memory().total, machine_cores()
    assert default_memory(cores) <= 0.9 * total
    assert default_memory(1) <= default_memory(2)
    assert np.isclose(default_memory(1) * cores, default_memory(cores), rtol=1e-6)


def test_a_value_that_kills_while_it_is_written_is_named(notebook, declared, outcomes, supervisor):
    """The point is over, and what it returned ends the process when it is looked at."""
    points = grid(i=list(range(40)))
    source = """
        import os
        class Trap:
            def __array__(self, *args, **kwargs): os._exit(7)
        def f(i): return Trap() if i == 23 else i
    """
    task = declared(notebook.function(source, points), points)
    found = outcomes(frames_of(finish(supervisor, task, Block(((0, 40),)), each=False)))
    assert len(found) == 40
    assert [(i, one.status, one.failure.cause) for i, one in found.items() if one.failure] == [
        (23, Status.KILLED, "exited with status 7 (os._exit)")
    ]


def test_closing_all_descriptors_is_named(notebook, declared, outcomes, supervisor):
    points = grid(i=[0, 1, 2])
    source = """
        import os, time
        def f(i):
            if i == 1:
                os.closerange(0, 256)
                time.sleep(60)
            return i
    """
    task = declared(notebook.function(source, points), points)
    found = outcomes(frames_of(finish(supervisor, task, Block(((0, 3),)), each=True)))
    assert [i for i, one in found.items() if one.failure] == [1]
    assert "file descriptors" in found[1].failure.cause


def test_a_machine_that_starts_no_process_costs_no_outcome(notebook, declared, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    points = grid(i=[0, 1])
    task = declared(notebook.function("def f(i): return i", points), points)
    supervisor = Supervisor()
    processes.prepare(1)
    before = psutil.Process().num_fds()
    monkeypatch.setattr(processes, "start", refuse)
    result = supervisor.run(task, Block(((0, 2),)), each=True)
    assert result.lost
    assert "Resource temporarily unavailable" in result.reason
    assert result.leftover == (Block(((0, 2),)),)
    assert psutil.Process().num_fds() == before
    monkeypatch.undo()
    assert supervisor.run(task, Block(((0, 2),)), each=True).done == 2
    supervisor.close()
    assert psutil.Process().num_fds() <= before
