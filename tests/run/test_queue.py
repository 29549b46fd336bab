"""What batch systems print of jobs, read; texts as the systems write them."""

import asyncio

import pytest

from mce_notebook.run.clusters import queue
from mce_notebook.run.clusters.queue import ENDED, HELD, RUNNING, SYSTEMS, WAITING, Seen, System, call, look

SAMPLES: dict[str, tuple[str, dict[str, Seen]]] = {
    "slurm": (
        "12|PENDING|Resources\n13|RUNNING|None\n14|TIMEOUT|TimeLimit\n15|COMPLETING|None\n16|PENDING|JobHeldUser\n"
        "17|OUT_OF_MEMORY|OutOfMemory\n18|PENDING|ReqNodeNotAvail, UnavailableNodes:n1\n",
        {
            "12": Seen(WAITING, "PENDING", "Resources"),
            "13": Seen(RUNNING, "RUNNING"),
            "14": Seen(ENDED, "TIMEOUT", "TimeLimit"),
            "15": Seen(RUNNING, "COMPLETING"),
            "16": Seen(HELD, "PENDING", "JobHeldUser"),
            "17": Seen(ENDED, "OUT_OF_MEMORY", "OutOfMemory"),
            "18": Seen(WAITING, "PENDING", "ReqNodeNotAvail, UnavailableNodes:n1"),
        },
    ),
    "sge": (
        "job-ID  prior   name       user         state submit/start at     queue                          slots\n"
        "---------------------------------------------------------------------------------------------------\n"
        "      7 0.50500 mce-1a2b-1 me           r     11/23/2026 19:00:00 all.q@n1                           1\n"
        "      8 0.00000 mce-1a2b-2 me           qw    11/23/2026 19:00:00                                    1\n"
        "      9 0.50500 mce-1a2b-3 me           Eqw   11/23/2026 19:00:00                                    1\n"
        "     10 0.50500 mce-1a2b-4 me           dr    11/23/2026 19:00:00 all.q@n1                           1\n",
        {
            "7": Seen(RUNNING, "r"),
            "8": Seen(WAITING, "qw"),
            "9": Seen(HELD, "Eqw", "the job is in error: qstat -explain E"),
            "10": Seen(RUNNING, "dr"),
        },
    ),
    "pbs": (
        "Job Id: 21.server\n    Job_Name = mce-1\n    job_state = R\n    comment = Job run at Mon\n\n"
        "Job Id: 22.server\n    job_state = Q\n    comment = Not Running: Insufficient amount of resource: ncpus\n"
        "Job Id: 23.server\n    job_state = F\n    Exit_status = 271\n",
        {
            "21": Seen(RUNNING, "R", "Job run at Mon"),
            "22": Seen(WAITING, "Q", "Not Running: Insufficient amount of resource: ncpus"),
            "23": Seen(ENDED, "F"),
        },
    ),
    "lsf": (
        "31;RUN;-;-\n32;PEND;New job is waiting for scheduling;-\n33;EXIT;-;TERM_RUNLIMIT: job killed\n34;DONE;-;-\n",
        {
            "31": Seen(RUNNING, "RUN"),
            "32": Seen(WAITING, "PEND", "New job is waiting for scheduling"),
            "33": Seen(ENDED, "TIMEOUT", "TERM_RUNLIMIT: job killed"),
            "34": Seen(ENDED, "COMPLETED"),
        },
    ),
    "htcondor": (
        "41.0 1 undefined\n42.0 2 undefined\n43.0 5 Error from slot1: memory usage exceeded\n44.0 4 undefined\n",
        {
            "41.0": Seen(WAITING, "1"),
            "42.0": Seen(RUNNING, "2"),
            "43.0": Seen(HELD, "5", "Error from slot1: memory usage exceeded"),
            "44.0": Seen(ENDED, "4"),
        },
    ),
    "oar": (
        "Job_Id: 51\n    job_name = mce\n    state = Waiting\n    scheduler_info = FIFO scheduling OK\n"
        "Job_Id: 52\n    state = Running\nJob_Id: 53\n    state = Error\n",
        {
            "51": Seen(WAITING, "Waiting", "FIFO scheduling OK"),
            "52": Seen(RUNNING, "Running"),
            "53": Seen(ENDED, "Error"),
        },
    ),
}


@pytest.mark.parametrize("kind", SYSTEMS)
def test_listings_are_read(kind: str) -> None:
    text, expected = SAMPLES[kind]
    assert SYSTEMS[kind].read(text) == expected
    assert SYSTEMS[kind].read("") == {}


@pytest.mark.parametrize("kind", SYSTEMS)
@pytest.mark.parametrize("text", ["\n\n", "|||", "garbage\nmore of it | here", "Job Id:\n", "\x00\xff", "1;2"])
def test_whatever_they_print_is_survived(kind: str, text: str) -> None:
    assert len(SYSTEMS[kind].read(text)) <= 2
    SYSTEMS[kind].read_last(text)


def test_endings_of_grid_engine_are_read() -> None:
    read = SYSTEMS["sge"].read_last
    killed = "qname  all.q\nfailed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit\nexit_status  137\n"
    assert read(killed) == Seen(ENDED, "TIMEOUT", "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit")
    deleted = read("failed       100 : assumedly after job\nexit_status  137 (Killed)\n")
    assert deleted is not None
    assert deleted.word == "CANCELLED"
    done = read("failed       0\nexit_status  3\n")
    assert done == Seen(ENDED, "COMPLETED", "exit status 3")
    assert read("error: job id 7 not found") is None


def test_commands_that_fail_hang_or_are_missing_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "COMMAND_SECONDS", 0.3)
    assert asyncio.run(call(["false"])) is None
    assert asyncio.run(call(["sleep", "30"])) is None
    assert asyncio.run(call(["no-such-command-anywhere"])) is None
    assert asyncio.run(call(["echo", "x"])) == "x\n"


def test_a_listing_by_id_survives_ids_that_are_unknown() -> None:
    script = 'echo "$@"; echo "qstat: Unknown Job Id 9" >&2; exit 153'
    system = System(
        ("sh", "-c", script, "sh"), lambda text: dict.fromkeys(text.split(), Seen(RUNNING, "R")), by_id=True
    )
    assert asyncio.run(look(system, ["8", "9"])) == {"8": Seen(RUNNING, "R"), "9": Seen(RUNNING, "R")}
    broken = System(("sh", "-c", "echo x; exit 1"), lambda text: {}, by_id=True)
    assert asyncio.run(look(broken, ["8"])) is None
