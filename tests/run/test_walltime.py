"""Jobs that end: blocks not begun, points stopped in time, and what is said of those that can never end."""

import time

import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.plan import Block, Plan
from mce_notebook.run.protocol import BlockResult
from mce_notebook.run.schedule import Schedule
from mce_notebook.run.supervisor import Supervisor
from mce_notebook.run.walltime import CUT, Walltime, hopeless, left_by, worn

BLOCK = Block(((0, 10),))


def plan_of(size: int) -> Plan:
    return Plan(grid(x=range(size)), None)


def walltime(left: float, stop: float = 5.0, began: float = 100.0) -> Walltime:
    now = time.time()
    return Walltime(now - began, now + left, now + left + stop)


def test_nothing_is_known_outside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MCE_ENDS", raising=False)
    assert Walltime.of_job() is None
    monkeypatch.setenv("MCE_ENDS", "1.5 2.5 3.5")
    assert Walltime.of_job() == Walltime(1.5, 2.5, 3.5)


def test_blocks_come_back_shortly_before_the_end_and_when_their_points_would_not_end() -> None:
    assert walltime(60).bounce(BLOCK, "tls://w:1") is None
    late = walltime(-1).bounce(BLOCK, "tls://w:1")
    assert late is not None
    assert (late.done, late.leftover, left_by(late)) == (0, (BLOCK,), "tls://w:1")
    assert left_by(BlockResult([], 0, reason="something else")) is None
    slow = walltime(60)
    slow.learn(BlockResult([], 2, seconds=100.0, setup=0.0))
    assert slow.bounce(BLOCK, "tls://w:1") is not None
    quick = walltime(60)
    quick.learn(BlockResult([], 2, seconds=10.0, setup=8.0))
    assert quick.bounce(BLOCK, "tls://w:1") is None


def test_a_point_is_given_up_when_it_had_a_whole_job_or_several_parts_of_one() -> None:
    cut = Walltime(0, 900, 1000).cut
    assert "ran for 950 s of a job of 1000 s; ask for longer jobs" in hopeless(cut(950))
    assert hopeless(cut(500)) == ""
    assert hopeless("cancelled") == worn("cancelled", 3) == ""
    assert "did not end before the walltime of its job, 3 times" in worn(cut(500), 3)


def test_the_schedule_tries_a_cut_point_again_and_then_reports_it() -> None:
    schedule = Schedule(plan_of(4))
    reason = Walltime(0, 900, 1000).cut(500)
    verdicts = []
    for _ in range(30):
        job = schedule.next(1)
        if job is None:
            break
        if 2 in job.block.indices():
            done = [point for point in job.block.indices() if point < 2]
            rest = Block(((2, int(job.block.indices()[-1]) + 1),))
            verdicts += schedule.returned(
                job, BlockResult([], len(done), (rest,), lost=True, killed_point=2, reason=reason)
            )
        else:
            verdicts += schedule.returned(job, BlockResult([], job.block.count))
    assert [verdict.point for verdict in verdicts] == [2]
    assert "3 times" in verdicts[0].reason
    assert schedule.finished


def test_blocks_of_a_job_the_system_ended_are_nobodys_fault() -> None:
    schedule = Schedule(plan_of(1))
    for _ in range(20):
        job = schedule.next(1)
        assert job is not None
        assert schedule.vanished(job, excused=True) == []
    assert schedule.remaining == 1


def test_a_point_that_runs_into_the_end_is_stopped_and_what_was_done_before_is_kept(notebook, declared, outcomes):
    points = grid(i=list(range(6)))
    point = notebook.function(
        "def f(i):\n    import time\n    time.sleep(600 if i == 3 else 0.3)\n    return 2.0 * i", points
    )
    task = declared(point, points)
    supervisor = Supervisor(spare=False)
    now = time.time()
    try:
        found = supervisor.run(task, Block(((0, 6),)), each=True, walltime=Walltime(now, now + 4, now + 5))
    finally:
        supervisor.close()
    assert (found.done, found.lost, found.killed_point) == (3, True, 3)
    assert [int(index) for block in found.leftover for index in block.indices()] == [3, 4, 5]
    assert found.reason.startswith(CUT)
    assert {index: known.values["f"] for index, known in outcomes(found.frames).items()} == {0: 0.0, 1: 2.0, 2: 4.0}
