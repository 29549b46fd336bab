"""What batch systems say of our jobs: which are there, why they wait, how they ended. One entry for each system.

dask-jobqueue submits and cancels jobs but never asks about them; here is the asking. Every command runs with a time
limit, and one that fails says nothing: a controller that does not answer is no reason to believe that jobs are gone.
"""

import asyncio
import concurrent.futures
import getpass
import re
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

COMMAND_SECONDS = 20.0
# What a job can be, whatever the system calls it.
WAITING, RUNNING, ENDED, HELD = "waiting", "running", "ended", "held"


@dataclass(frozen=True)
class Seen:
    """One job as its batch system tells it: its state in our words, the system's own word, and its reason."""

    state: str
    word: str
    reason: str = ""

    @property
    def excuses(self) -> bool:
        """Whether the system itself ended the job, so that nothing computed in it is to blame."""
        return self.state == ENDED and self.word in EXCUSES


EXCUSES = {"CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "DEADLINE", "REVOKED", "BOOT_FAIL"}


@dataclass(frozen=True)
class System:
    """How to ask one batch system.

    Parameters
    ----------
    ask : tuple of str
        The command that lists this user's jobs; `{user}` is the user's name.
    read : callable
        Makes `Seen` by job id of its output.
    last : tuple of str
        The command that tells of one job that is gone; `{id}` is its id. Empty: there is none.
    read_last : callable
        Makes `Seen` of that output, None where it says nothing.
    survey : tuple of tuple of str
        Commands that tell what the system has, for `init`.
    by_id : bool
        Whether `ask` wants the ids of the jobs after it, and fails when it does not know one.
    verify : tuple of str
        The command that says whether a script would be taken, without submitting it; the script follows.
    transient : str
        Pattern of refusals that are about the moment, not about the request.
    """

    ask: tuple[str, ...]
    read: Callable[[str], dict[str, Seen]]
    last: tuple[str, ...] = ()
    read_last: Callable[[str], Seen | None] = lambda text: None
    survey: tuple[tuple[str, ...], ...] = ()
    by_id: bool = False
    verify: tuple[str, ...] = ()
    transient: str = r"timed out|unable to contact|temporarily|cannot connect|connection refused|try again"


async def look(system: System, ids: Sequence[str] = ()) -> dict[str, Seen] | None:
    """Return the jobs of this user by id; None when the batch system does not answer."""
    command = [word.format(user=getpass.getuser()) for word in system.ask]
    told = await call([*command, *ids] if system.by_id else command, tolerated="nknown" if system.by_id else "")
    return None if told is None else system.read(told)


async def last_words(system: System, job: str) -> Seen | None:
    """Return how a job that is no longer listed ended, as far as the system remembers."""
    if not system.last:
        return None
    told = await call([word.format(id=job) for word in system.last])
    return None if told is None else system.read_last(told)


async def call(command: Sequence[str], tolerated: str = "") -> str | None:
    """Return what a command prints; None when it fails (but with `tolerated` in its errors), is missing or slow."""
    try:
        done = await asyncio.to_thread(
            subprocess.run, command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and not (tolerated and tolerated in done.stderr.decode(errors="replace")):
        return None
    return str(done.stdout.decode(errors="replace"))


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; from a thread of its own, because notebooks have a loop that runs already."""
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


# Slurm: squeue with ended jobs too, which it remembers for some minutes.


def _slurm(text: str) -> dict[str, Seen]:
    states = {"PENDING": WAITING, "CONFIGURING": WAITING, "RUNNING": RUNNING, "SUSPENDED": HELD, "COMPLETING": RUNNING}
    found = {}
    for line in text.splitlines():
        job, word, reason = [*line.split("|", 2), "", ""][:3]
        state = states.get(word, ENDED)
        # What can never run waits for ever with one of these.
        if state == WAITING and reason in ("JobHeldUser", "JobHeldAdmin", "BadConstraints"):
            state = HELD
        found[job] = Seen(state, word, "" if reason == "None" else reason)
    return found


# Grid Engine: the table of qstat; the columns are job, priority, name, user, state.


def _sge(text: str) -> dict[str, Seen]:
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 4 and words[0].isdigit():
            state = words[4]
            kind = HELD if "E" in state or "h" in state else RUNNING if "r" in state or "t" in state else WAITING
            reason = "the job is in error: qstat -explain E" if "E" in state else ""
            found[words[0]] = Seen(kind, state, reason)
    return found


def _sge_last(text: str) -> Seen | None:
    told = dict(re.findall(r"^(failed|exit_status|maxvmem)\s+(.*\S)", text, re.MULTILINE))
    failed = told.get("failed", "")
    if not told:
        return None
    if failed.startswith("37"):  # qmaster enforced h_rt, h_cpu or h_vmem
        return Seen(ENDED, "TIMEOUT", failed)
    if failed.startswith("100") and told.get("exit_status", "").split(" ")[0] in ("137", "143"):
        return Seen(ENDED, "CANCELLED", failed)
    return Seen(ENDED, "COMPLETED" if failed in ("", "0") else "FAILED", f"exit status {told.get('exit_status', '?')}")


# PBS: the long form of qstat, which PBS Pro and Torque share.


def _pbs(text: str) -> dict[str, Seen]:
    found = {}
    for part in re.split(r"^Job Id: ", text, flags=re.MULTILINE)[1:]:
        job, _, rest = part.partition("\n")
        fields = dict(re.findall(r"^\s+(job_state|comment|Exit_status) = (.*)$", rest, re.MULTILINE))
        letter = fields.get("job_state", "")
        kind = {"Q": WAITING, "W": WAITING, "T": WAITING, "H": HELD, "S": HELD}.get(letter, RUNNING)
        if letter in ("F", "C", "X"):
            kind = ENDED
        found[job.strip().partition(".")[0]] = Seen(kind, letter, fields.get("comment", ""))
    return found


# LSF: id, state, and with -p the reasons, which follow in lines of their own.


def _lsf(text: str) -> dict[str, Seen]:
    kinds = {"PEND": WAITING, "RUN": RUNNING, "PSUSP": HELD, "USUSP": HELD, "SSUSP": HELD, "PROV": WAITING}
    words = {"EXIT": "FAILED", "DONE": "COMPLETED"}
    found: dict[str, Seen] = {}
    for line in text.splitlines():
        job, word, reason = [*line.split(";", 2), "", ""][:3]
        if job.isdigit():
            limit = "TERM_RUNLIMIT" in reason
            told = "TIMEOUT" if limit else words.get(word, word)
            reasons = [part.strip() for part in reason.split(";") if part.strip(" -")]
            found[job] = Seen(kinds.get(word, ENDED), told, "; ".join(reasons))
    return found


# HTCondor: numbers for states; 5 is held, with a reason.


def _condor(text: str) -> dict[str, Seen]:
    kinds = {"1": WAITING, "2": RUNNING, "3": ENDED, "4": ENDED, "5": HELD, "6": RUNNING, "7": HELD}
    found = {}
    for line in text.splitlines():
        job, _, rest = line.strip().partition(" ")
        number, _, reason = rest.strip().partition(" ")
        if re.fullmatch(r"\d+\.\d+", job):
            found[job] = Seen(kinds.get(number, ENDED), number, reason.replace("undefined", "").strip())
    return found


# OAR: one line a job: id, state, message.


def _oar(text: str) -> dict[str, Seen]:
    kinds = {"Waiting": WAITING, "toLaunch": WAITING, "Launching": WAITING, "Hold": HELD, "Suspended": HELD}
    kinds |= {"Running": RUNNING, "Finishing": RUNNING, "toError": ENDED, "Error": ENDED, "Terminated": ENDED}
    found: dict[str, Seen] = {}
    job = ""
    for line in text.splitlines():
        if match := re.match(r"\s*(?:Job_Id|id)\s*[:=]\s*(\d+)", line):
            job = match[1]
        elif job and (match := re.match(r"\s*state\s*[:=]\s*(\w+)", line)):
            found[job] = Seen(kinds.get(match[1], RUNNING), match[1])
        elif job in found and (match := re.match(r"\s*(?:scheduler_info|message)\s*[:=]\s*(.+)", line)):
            found[job] = Seen(found[job].state, found[job].word, match[1].strip())
    return found


SYSTEMS: Mapping[str, System] = {
    "slurm": System(
        ("squeue", "-h", "-u", "{user}", "-t", "all", "-o", "%i|%T|%r"),
        _slurm,
        survey=(("sinfo", "-o", "%P %a %l %D %c %m %G"),),
        verify=("sbatch", "--test-only"),
    ),
    "sge": System(
        ("qstat", "-u", "{user}"),
        _sge,
        last=("qacct", "-j", "{id}"),
        read_last=_sge_last,
        survey=(("qconf", "-sql"), ("qconf", "-spl")),
        verify=("qsub", "-w", "v"),
    ),
    "pbs": System(("qstat", "-f"), _pbs, by_id=True, survey=(("qstat", "-Q"),)),
    "lsf": System(
        ("bjobs", "-a", "-noheader", "-o", "jobid stat pend_reason exit_reason delimiter=';'"),
        _lsf,
        survey=(("bqueues", "-w"),),
    ),
    "htcondor": System(
        ("condor_q", "-af:j", "JobStatus", "HoldReason"), _condor, survey=(("condor_status", "-total"),)
    ),
    "oar": System(("oarstat", "-f", "-u", "{user}"), _oar, survey=(("oarnodes", "--sql", "state='Alive'"),)),
}
