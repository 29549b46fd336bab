"""Jobs kept in line with what is wanted: every row of what may go wrong, with a batch system made of a dictionary."""

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.run.clusters import fleet as module
from mce_notebook.run.clusters.fleet import Fleet, Refused
from mce_notebook.run.clusters.profiles import profile
from mce_notebook.run.clusters.queue import ENDED, HELD, RUNNING, WAITING, Seen
from mce_notebook.run.clusters.request import resolve


@dataclass
class Lab:
    """A batch system whose clock and jobs the test moves, and the fleet that uses it."""

    table: dict[str, Any] = field(default_factory=dict)
    now: float = 1000.0
    room: int = 10**9
    refuses: str = ""
    answers: bool = True
    stderr: tuple[str, bool] = ("", False)
    transient: str = "timed out"

    def __post_init__(self) -> None:
        self.queue: dict[str, Seen] = {}
        self.names: dict[str, str] = {}
        self.endings: dict[str, Seen] = {}
        self.loads: dict[str, int] = {}
        self.paused: set[str] = set()
        self.killed_busy: list[str] = []
        self.submitted: list[str] = []
        self.ids = itertools.count(1)
        request = resolve(profile("slurm", self.table, Path("clusters.toml")))
        self.fleet = Fleet(request, self, "mce-t", lambda: self.loads, self.paused.update, clock=lambda: self.now)

    # The backend

    async def submit(self, name: str) -> str:
        await asyncio.sleep(0)
        self.submitted.append(name)
        if self.refuses or len(self.queue) >= self.room:
            raise Refused(self.refuses or "QOSMaxSubmitJobPerUserLimit")
        job = str(next(self.ids))
        self.queue[job] = Seen(WAITING, "PENDING", "Resources")
        self.names[job] = name
        return job

    async def cancel(self, ids: Iterable[str]) -> None:
        for job in ids:
            self.queue.pop(job, None)
            for address in [one for one in self.loads if one.startswith(f"{self.names[job]}@")]:
                if self.loads[address]:
                    self.killed_busy.append(address)
                self.go(address)

    async def look(self, ids: Iterable[str]) -> dict[str, Seen] | None:
        return dict(self.queue) if self.answers else None

    async def last(self, job: str) -> Seen | None:
        return self.endings.get(job)

    def words(self, name: str, job: str) -> tuple[str, bool]:
        return self.stderr

    # What tests do

    def steps(self, count: int = 1, seconds: float = 2.0) -> None:
        async def go() -> None:
            for _ in range(count):
                self.now += seconds
                await self.fleet.step()

        asyncio.run(go())

    def start(self, *ids: str, workers: int = 1) -> None:
        for job in ids:
            self.queue[job] = Seen(RUNNING, "RUNNING")
            name = self.names[job]
            for number in range(workers):
                worker = name if workers == 1 else f"{name}-{number}"
                self.loads[f"{name}@{number}"] = 0
                self.fleet.arrived(worker, f"{name}@{number}")

    def go(self, address: str) -> None:
        self.loads.pop(address, None)
        self.fleet.left(address)

    def end(self, job: str, word: str) -> None:
        """The batch system ends a job, and its workers with it."""
        self.queue[job] = Seen(ENDED, word)
        for address in [one for one in self.loads if one.startswith(f"{self.names[job]}@")]:
            self.go(address)

    @property
    def alive(self) -> list[str]:
        return [job for job, seen in self.queue.items() if seen.state != ENDED]


def test_as_many_jobs_as_slots_are_wanted_and_no_more_than_allowed() -> None:
    lab = Lab({"max_workers": 6})
    lab.steps()
    assert not lab.alive
    lab.fleet.wanted = 4
    lab.steps()
    assert len(lab.alive) == 4
    lab.fleet.wanted = 100
    lab.steps(3)
    assert len(lab.alive) == 6
    limited = Lab({"max_workers": 6, "max_jobs": 2})
    limited.fleet.wanted = 100
    limited.steps(3)
    assert len(limited.alive) == 2


def test_jobs_cancelled_while_they_waited_are_replaced_by_others_of_other_names() -> None:
    lab = Lab()
    lab.fleet.wanted = 3
    lab.steps()
    for job in list(lab.alive):
        del lab.queue[job]
    lab.steps(4)
    assert len(lab.alive) == 3
    assert len(set(lab.submitted)) == len(lab.submitted) == 6
    assert not lab.fleet.refusal


def test_a_job_lost_with_several_workers_is_replaced_whole() -> None:
    lab = Lab({"cores": 2, "max_workers": 4})
    lab.fleet.wanted = 4
    lab.steps()
    assert lab.alive == ["1", "2"]
    lab.start("1", "2", workers=2)
    lab.steps()
    assert lab.fleet.slots == 4
    lab.end("1", "CANCELLED")
    assert lab.fleet.slots == 2
    lab.steps(2)
    assert lab.alive == ["2", "3"]
    assert lab.submitted == ["mce-t-1", "mce-t-2", "mce-t-3"]


def test_one_worker_of_several_gone_is_no_lost_job() -> None:
    lab = Lab({"cores": 2, "max_workers": 2})
    lab.fleet.wanted = 2
    lab.steps()
    lab.start("1", workers=2)
    lab.go("mce-t-1@0")
    lab.steps(30)
    assert lab.submitted == ["mce-t-1"]


def test_waiting_jobs_go_first_idle_ones_after_a_while_busy_ones_never() -> None:
    lab = Lab()
    lab.fleet.wanted = 4
    lab.steps()
    lab.start("1", "2")
    lab.loads["mce-t-1@0"] = 2
    lab.fleet.wanted = 0
    lab.steps()
    assert lab.alive == ["1", "2"], "those that wait are wanted by nobody"
    lab.steps(12)
    assert lab.alive == ["1"]
    lab.steps(50, seconds=60)
    assert lab.alive == ["1"]
    lab.loads["mce-t-1@0"] = 0
    lab.steps(12)
    assert not lab.alive
    assert not lab.killed_busy


def test_a_refusal_is_told_in_the_systems_words_and_forgotten_when_nobody_waits() -> None:
    lab = Lab(refuses="sbatch: error: invalid partition specified: nosuch")
    lab.fleet.wanted = 3
    lab.steps(6)
    assert lab.fleet.refusal == "sbatch: error: invalid partition specified: nosuch"
    tries = len(lab.submitted)
    lab.steps(20)
    assert len(lab.submitted) == tries, "it goes on asking"
    lab.fleet.wanted = 0
    lab.steps()
    lab.refuses, lab.fleet.wanted = "", 1
    lab.steps(2)
    assert len(lab.alive) == 1
    assert not lab.fleet.refusal


def test_slots_that_are_kept_without_work_are_not_asked_for_on_and_on_after_a_refusal() -> None:
    lab = Lab({"min_workers": 1}, refuses="no")
    lab.steps(25)
    assert lab.fleet.refusal == "no"
    assert len(lab.submitted) == 3
    lab.refuses = ""
    lab.steps(30)
    assert len(lab.alive) == 1, "it never tries again"


def test_a_fleet_that_is_stopped_in_the_middle_of_submitting_loses_track_of_no_job() -> None:
    lab = Lab({"max_workers": 40})
    lab.fleet.wanted = 40

    async def go() -> None:
        lab.now += 2
        step = asyncio.create_task(lab.fleet.step())
        while not lab.submitted:
            await asyncio.sleep(0)
        lab.fleet.stop()
        await step
        await lab.fleet.close()

    asyncio.run(go())
    assert 0 < len(lab.submitted) < 40
    assert not lab.queue


def test_a_controller_that_times_out_is_no_refusal() -> None:
    lab = Lab(refuses="sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    lab.fleet.wanted = 1
    lab.steps(10)
    assert not lab.fleet.refusal
    assert "Socket timed out" in lab.fleet.remark
    lab.refuses = ""
    lab.steps(4)
    assert len(lab.alive) == 1


def test_a_limit_on_jobs_is_lived_with_told_and_tried_again_later() -> None:
    lab = Lab(room=5)
    lab.fleet.wanted = 16
    lab.steps(3)
    assert len(lab.alive) == 5
    assert not lab.fleet.refusal
    assert "no more than 5 jobs are taken: QOSMaxSubmitJobPerUserLimit" in lab.fleet.remark
    tries = len(lab.submitted)
    lab.steps(10)
    assert len(lab.submitted) == tries, "it goes on asking"
    lab.end("1", "COMPLETED")
    del lab.queue["1"]
    lab.steps(4)
    assert len(lab.alive) == 5, "a free place is not used"
    lab.room = 100
    lab.steps(40)
    assert len(lab.alive) == 16


def test_a_refusal_that_is_told_first_does_not_make_the_limit_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(room=6)
    real = Lab.submit

    async def submit(self: Lab, name: str) -> str:
        job = await real(self, name)
        if int(job) > 3:
            # The answers that say yes take longer than those that say no.
            for _ in range(50):
                await asyncio.sleep(0)
        return job

    monkeypatch.setattr(Lab, "submit", submit)
    lab.fleet.wanted = 12
    lab.steps(3)
    assert len(lab.alive) == 6
    assert "no more than 6 jobs are taken" in lab.fleet.remark


def test_a_silent_controller_ends_nothing() -> None:
    lab = Lab(answers=False)
    lab.fleet.wanted = 2
    lab.steps(10)
    assert len(lab.alive) == 2
    assert "does not answer" in lab.fleet.remark


def test_a_job_not_listed_yet_is_not_replaced() -> None:
    lab = Lab()
    lab.fleet.wanted = 1
    lab.steps()
    hidden = lab.queue.pop("1")
    lab.steps(1, seconds=2)
    lab.queue["1"] = hidden
    lab.steps(3)
    assert lab.alive == ["1"]


def test_jobs_that_never_bring_a_worker_end_the_waiting_with_their_last_words() -> None:
    lab = Lab(stderr=("bash: module: command not found", False))
    lab.fleet.wanted = 1
    for _ in range(10):
        lab.steps()
        for job in lab.alive:
            lab.end(job, "FAILED")
    assert lab.fleet.refusal == "A job ended before its worker came up: bash: module: command not found"
    assert len(lab.submitted) <= 4


def test_a_wrong_environment_is_told_at_once_unless_others_work() -> None:
    lab = Lab(stderr=("numpy 1 instead of 2", True))
    lab.fleet.wanted = 2
    lab.steps()
    lab.start("1")
    lab.end("2", "FAILED")
    lab.steps(2)
    assert not lab.fleet.refusal
    lab.end("1", "CANCELLED")
    lab.end(lab.alive[-1], "FAILED")
    lab.steps(3)
    assert "numpy 1 instead of 2" in lab.fleet.refusal


def test_held_jobs_are_taken_back_and_told() -> None:
    lab = Lab()
    lab.fleet.wanted = 1
    for _ in range(8):
        lab.steps()
        for job in lab.alive:
            lab.queue[job] = Seen(HELD, "Eqw", "can't make directory")
    assert "can't make directory" in lab.fleet.refusal
    assert len(lab.alive) <= 1


def test_a_job_cut_off_from_us_is_given_up_and_replaced() -> None:
    lab = Lab()
    lab.fleet.wanted = 1
    lab.steps()
    lab.start("1")
    lab.steps()
    lab.go("mce-t-1@0")
    lab.steps(8)
    assert lab.alive == ["1"], "a worker may come back"
    lab.steps(14)
    assert lab.alive == ["2"]
    lab.queue["2"] = Seen(RUNNING, "RUNNING")
    lab.steps(100)
    assert "2" not in lab.alive, "a job that runs without a worker is kept"


def test_a_job_that_leaves_gets_no_more_blocks_and_is_replaced_at_once() -> None:
    lab = Lab()
    lab.fleet.wanted = 1
    lab.steps()
    lab.start("1")
    lab.loads["mce-t-1@0"] = 1
    lab.fleet.leaves("mce-t-1@0")
    assert lab.paused == {"mce-t-1@0"}
    assert lab.fleet.slots == 0
    lab.steps(3)
    assert lab.alive == ["1", "2"], "the old one computes, the new one is asked for"
    lab.loads["mce-t-1@0"] = 0
    lab.steps(2)
    assert lab.alive == ["2"]
    assert not lab.killed_busy


def test_reasons_of_waiting_are_told_and_explained() -> None:
    lab = Lab()
    lab.fleet.wanted = 2
    lab.steps()
    lab.queue["1"] = Seen(WAITING, "PENDING", "QOSMaxCpuPerUserLimit")
    lab.queue["2"] = Seen(WAITING, "PENDING", "Nothing known")
    lab.steps()
    assert lab.fleet.remark == (
        "0 slots; 2 jobs wait in the queue: QOSMaxCpuPerUserLimit (your limit is reached); Nothing known"
    )
    lab.start("1", "2")
    assert lab.fleet.remark == ""


@pytest.mark.parametrize("word", ["CANCELLED", "PREEMPTED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY", "FAILED"])
def test_deaths_the_system_explains_are_nobodys_fault(word: str) -> None:
    excused = word not in ("OUT_OF_MEMORY", "FAILED")
    lab = Lab()
    lab.fleet.wanted = 1
    lab.steps()
    lab.start("1")
    lab.end("1", word)

    async def ask() -> bool:
        asked = asyncio.create_task(lab.fleet.excused("mce-t-1"))
        await asyncio.sleep(0)
        lab.now += 2
        await lab.fleet.step()
        return await asked

    assert asyncio.run(ask()) is excused
    assert asyncio.run(lab.fleet.excused("mce-t-1")) is excused, "asked after it was buried"


def test_a_death_nobody_explains_is_no_excuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPLAIN_SECONDS", 0.05)
    lab = Lab()
    lab.fleet.wanted = 1
    lab.steps()
    lab.start("1")
    assert asyncio.run(lab.fleet.excused("mce-t-1")) is False
    assert asyncio.run(lab.fleet.excused("stranger")) is False


def test_closing_cancels_everything() -> None:
    lab = Lab()
    lab.fleet.wanted = 3
    lab.steps()
    lab.start("1")
    asyncio.run(lab.fleet.close())
    assert not lab.queue


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_happens_no_name_is_used_twice_no_busy_job_cancelled_no_limit_passed(data: st.DataObject) -> None:
    lab = Lab({"max_workers": 4, "cores": data.draw(st.sampled_from([1, 2]))})
    processes = lab.fleet.request.processes
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["want", "start", "end", "lose", "busy", "rest", "leave", "silence", "full"])):
            case "want":
                lab.fleet.wanted = data.draw(st.integers(0, 9))
            case "start":
                waiting = [job for job in lab.alive if lab.queue[job].state == WAITING]
                lab.start(*waiting[:1], workers=processes)
            case "end" if lab.alive:
                lab.end(data.draw(st.sampled_from(lab.alive)), data.draw(st.sampled_from(["FAILED", "CANCELLED"])))
            case "lose" if lab.alive:
                lost = data.draw(st.sampled_from(lab.alive))
                lab.end(lost, "CANCELLED")
                del lab.queue[lost]
            case "busy" if lab.loads:
                lab.loads[data.draw(st.sampled_from(sorted(lab.loads)))] = 2
            case "rest":
                lab.loads = dict.fromkeys(lab.loads, 0)
            case "leave" if lab.loads:
                lab.fleet.leaves(data.draw(st.sampled_from(sorted(lab.loads))))
            case "silence":
                lab.answers = not lab.answers
            case "full":
                lab.room = data.draw(st.sampled_from([2, 100]))
        lab.steps(data.draw(st.integers(1, 3)), seconds=data.draw(st.sampled_from([0.5, 2.0, 20.0])))
        leaving = [job for job in lab.fleet.jobs.values() if job.leaving]
        assert (len(lab.fleet.jobs) - len(leaving)) * processes <= 4 + processes - 1
        assert len(set(lab.submitted)) == len(lab.submitted)
    # Everything is well again: it gets what is wanted.
    assert not [address for address in lab.killed_busy if address in lab.loads]
    lab.answers, lab.room, lab.fleet.refusal = True, 100, ""
    lab.fleet.wanted = 0
    lab.steps(2)
    lab.fleet.wanted = 3
    for _ in range(60):
        lab.steps(1, seconds=10)
        lab.start(*[job for job in lab.alive if lab.queue[job].state == WAITING], workers=processes)
    assert lab.fleet.slots >= 3
