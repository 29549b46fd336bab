"""Processes of slots: forked from a template that ran no user code, or started anew where that cannot be."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import psutil
import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.plan import Block
from mce_notebook.run import processes
from mce_notebook.run.child import Child
from mce_notebook.run.protocol import Ready
from mce_notebook.run.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("own_templates")
FORKS = sys.platform == "linux"


def template_of(child: Child) -> psutil.Process:
    parent = psutil.Process(child.pid).parent()
    assert parent is not None
    return parent


def test_slots_are_copies_of_one_template():
    first, second = Child(), Child()
    try:
        assert isinstance(first.receive(30), Ready)
        assert isinstance(second.receive(30), Ready)
        if FORKS:
            assert template_of(first).pid == template_of(second).pid != os.getpid()
        assert os.getpgid(first.pid) == first.pid
    finally:
        first.close()
        second.close()
    assert not psutil.pid_exists(first.pid)


def test_the_exit_of_a_slot_is_told_as_if_it_were_our_child():
    child = Child()
    assert isinstance(child.receive(30), Ready)
    os.kill(child.pid, signal.SIGSEGV)
    assert child.process.ended(10)
    assert child.process.returncode is None
    assert child.bury() == -signal.SIGSEGV
    child.close()


def test_an_end_is_seen_without_waitid(monkeypatch):
    """As on macOS with Python 3.11 and 3.12, which also have no copies of a template."""
    monkeypatch.delattr(os, "waitid")
    monkeypatch.setattr(processes, "_FORKS", False)
    child = Child()
    assert isinstance(child.process, processes.Spawned)
    assert isinstance(child.receive(60), Ready)
    assert not child.process.ended(0.05)
    child.kill()
    assert child.process.ended(None)
    # Not reaped: its number is still its own.
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert child.process.ended(0.0)
    assert child.bury() == -signal.SIGKILL
    child.close()


def test_a_slot_killed_before_it_is_ready_is_reaped():
    for _ in range(5):
        child = Child()
        child.kill()
        assert child.bury() == -signal.SIGKILL
        child.close()


def test_a_template_that_was_killed_takes_its_slots_along_and_is_replaced():
    child = Child()
    assert isinstance(child.receive(30), Ready)
    template = template_of(child)
    if template.pid == os.getpid():
        # No templates on this system: the child itself goes.
        child.close()
        return
    template.kill()
    assert child.process.ended(10)
    assert child.bury() == -signal.SIGKILL
    child.close()
    again = Child()
    assert isinstance(again.receive(30), Ready)
    assert template_of(again).pid not in (os.getpid(), template.pid)
    again.close()


def test_a_template_with_threads_does_not_fork(monkeypatch):
    told = processes._TEMPLATE.replace(
        "__import__('mce_notebook", "__import__('threading').Thread(target=input and __import__('time').sleep, "
        "args=(60,), daemon=True).start() or __import__('mce_notebook", 1
    )  # fmt: skip
    monkeypatch.setattr(processes, "_TEMPLATE", told)
    child = Child()
    assert isinstance(child.receive(30), Ready)
    assert psutil.Process(child.pid).ppid() == os.getpid()
    assert not processes.forks(1)
    child.close()


def test_no_room_for_a_process_is_an_error_and_the_template_lives(monkeypatch):
    template = processes._template(1)
    if template is None:
        return
    assert processes.prepare(1)
    child = Child()
    child.close()
    monkeypatch.setattr(type(template), "ask", lambda *_: str(-errno.EAGAIN).encode())
    before = psutil.Process().num_fds()
    with pytest.raises(BlockingIOError):
        Child()
    assert psutil.Process().num_fds() == before
    monkeypatch.undo()
    Child().close()


def test_several_threads_ask_at_once():
    made: list[Child] = []

    def make() -> None:
        child = Child()
        assert isinstance(child.receive(30), Ready)
        made.append(child)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({child.pid for child in made}) == 6
    for child in made:
        child.close()


def test_copies_draw_different_numbers(notebook, declared, outcomes):
    source = """
        import random
        import numpy as np
        def f(i): return np.random.random(), random.random()
    """
    points = grid(i=[0])
    # As for code of which nobody could tell that it draws: its generators are not seeded per point.
    experiment = dataclasses.replace(notebook.function(source, points, outputs=("a", "b")), global_rng="none")
    task = declared(experiment, points)
    drawn = set()
    for _ in range(3):
        supervisor = Supervisor()
        result = supervisor.run(task, Block(((0, 1),)), each=True)
        drawn |= set(outcomes(result.frames)[0].values.values())
        supervisor.close()
    assert len(drawn) == 6


def test_user_code_that_forks_and_threads_is_as_free_as_ever(notebook, declared, outcomes):
    source = """
        import multiprocessing, os, sys, threading
        def g(x): return x * x
        def f(i):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                total = sum(pool.map(g, range(4)))
            thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
            return total, os.getpid() == os.getpgid(0), threading.current_thread() is threading.main_thread()
    """
    points = grid(i=[0, 1])
    task = declared(notebook.function(source, points, outputs=("total", "leads", "main")), points)
    supervisor = Supervisor()
    result = supervisor.run(task, Block(((0, 2),)), each=True, timeout=60)
    supervisor.close()
    for one in outcomes(result.frames).values():
        assert one.failure is None
        assert one.values == {"total": 14, "leads": True, "main": True}


def test_a_process_that_ends_leaves_nothing_open():
    program = """
        import gc
        from mce_notebook.run.child import Child
        child = Child()
        child.receive(30)
        child.close()
    """
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "ResourceWarning" not in ended.stderr


def test_a_template_that_cannot_be_started_is_an_error_that_leaves_nothing_open():
    # In a process of its own: other tests' connections come and go in this one.
    program = """
        import errno, os, subprocess
        from mce_notebook.run import processes
        from mce_notebook.run.child import Child

        def refuse(*_, **__):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

        Child().close()
        processes.close()
        before, start = sorted(os.listdir("/dev/fd")), subprocess.Popen
        for _ in range(3):
            subprocess.Popen = refuse
            try:
                Child()
            except BlockingIOError:
                subprocess.Popen = start
            assert subprocess.Popen is start
            assert sorted(os.listdir("/dev/fd")) == before
        Child().close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=True)


def test_a_machine_without_room_for_a_thread_costs_nothing(notebook, declared, monkeypatch):
    """As while a fork bomb of a point is dying: the blocks that are done must not be lost to it."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    points = grid(i=[0, 1])
    task = declared(notebook.function("def f(i): return i", points), points)
    processes._launcher.cache_clear()
    supervisor = Supervisor()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    lost = supervisor.run(task, Block(((0, 2),)), each=True)
    assert lost.lost
    assert lost.reason.startswith("no slot could be started")
    monkeypatch.undo()
    child = Child()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert supervisor.run(task, Block(((0, 2),)), each=True).done == 2
    monkeypatch.undo()
    child.close()
    supervisor.close()


def cpu(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


def test_sweeps_that_follow_one_another_need_no_new_interpreter(notebook, declared, outcomes, monkeypatch):
    """Each takes a copy of the one template, in a fraction of what starting Python takes; none waits for a spare."""
    if not FORKS:
        return
    sweeps = 6
    points = grid(i=[0, 1])
    tasks = []
    for number in range(sweeps):
        source = f"def f(i):\n    import os\n    return {number} * i, os.getpid(), os.getppid()"
        experiment = dataclasses.replace(
            notebook.function(source, points, outputs=("y", "slot", "template")), name=f"sweep{number}"
        )
        tasks.append(declared(experiment, points))
    started = processes.Spawned
    anew: list[processes.Spawned] = []
    monkeypatch.setattr(processes, "Spawned", lambda *given: anew.append(started(*given)) or anew[-1])
    forked = 0
    fork = processes.Template.fork

    def counted(*given):
        nonlocal forked
        forked += 1
        return fork(*given)

    monkeypatch.setattr(processes.Template, "fork", counted)
    supervisor = Supervisor()
    supervisor.warm()
    slots, templates, spent = set(), set(), []
    for number, task in enumerate(tasks):
        found = outcomes(supervisor.run(task, Block(((0, 2),)), each=True).frames)
        assert found[1].values["y"] == number
        slots.add(found[0].values["slot"])
        templates.add(found[0].values["template"])
        spent.append(cpu(found[0].values["slot"]))
    assert len(slots) == sweeps
    assert len(templates) == 1
    assert not anew
    # One for each sweep, and a spare for the next.
    assert forked <= sweeps + 2
    supervisor.close()
    monkeypatch.setattr(processes, "_FORKS", False)
    child = Child()
    assert isinstance(child.receive(60), Ready)
    assert sorted(spent)[sweeps // 2] < 0.6 * cpu(child.pid)
    child.close()
    assert len(anew) == 1


def test_a_slot_that_cannot_be_watched_is_not_left_behind(monkeypatch):
    if not FORKS:
        return

    def refuse(pid):
        raise OSError(errno.EMFILE, "Too many open files")

    child = Child()
    template = template_of(child)
    child.close()
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        Child()
    assert not template.children()
    monkeypatch.undo()
    Child().close()
