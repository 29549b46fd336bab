"""What a supervisor and its slot say to each other: small frozen messages over a socket pair.

Length-prefixed pickles, written and read by `multiprocessing.connection.Connection`. The slot sends only these
classes, made of bytes and numbers, so its supervisor never unpickles anything of the user's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mce_notebook.plan import Block
from mce_notebook.store.frames import Failure, Frame

# How the reason of a block begins that no slot could take: none can be started, or somebody kills those that are. The
# second is a fault of the machine, however often it happens.
NO_SLOT = "no slot could be started"
SLOT_KILLED = "slots were killed while they started"


@dataclass(frozen=True)
class Task:
    """Which experiment a slot is to evaluate; everything else is read from the store.

    Parameters
    ----------
    store : str
        Root of the store.
    name : str
        Name of the sweep.
    declaration : int
        Number of the declaration whose grid the listed indices refer to.
    version : str
        Hash of the version to run.
    generation : int
        Counts `--rerun`.
    cwd : str
        Working directory of every point.
    cores : int
        Threads that BLAS and OpenMP may use in one slot.
    epoch : int, optional
        The writer's epoch, when slots share its file system: large payloads are then written by them.
    sweep : str
        Id of the sweep: a folder may be deleted and its name used again while slots keep what they have loaded.
    guard : tuple of int, optional
        Part and number of a guard that is evaluated, instead of the experiment, over the axes it reads.
    """

    store: str
    name: str
    declaration: int
    version: str
    generation: int
    cwd: str
    cores: int = 1
    epoch: int | None = None
    sweep: str = ""
    guard: tuple[int, int] | None = None


@dataclass(frozen=True)
class BlockResult:
    """What became of a block.

    Parameters
    ----------
    frames : list of Frame
        Outcomes, encoded; those already given to `on_frames` are not repeated.
    done : int
        Points that have an outcome now, whatever it is.
    leftover : tuple of Block
        Points without one, to be submitted again.
    seconds, cpu : float
        Wall and processor time spent on points and setups.
    setup : float
        Of these seconds, those spent on setups that had to be computed.
    failed : int
        Of the points done, those that failed, were killed or timed out.
    nbytes : int
        Size of the frames.
    lost : bool
        The slot got a SIGKILL that nobody here sent: infrastructure, not an outcome.
    killed_point : int or None
        Listed index of the point that was running when the slot died.
    reason : str
        Why the block is not complete; empty when it is.
    """

    frames: list[Frame]
    done: int
    leftover: tuple[Block, ...] = ()
    seconds: float = 0.0
    cpu: float = 0.0
    failed: int = 0
    nbytes: int = 0
    lost: bool = False
    killed_point: int | None = None
    reason: str = ""
    setup: float = 0.0


@dataclass(frozen=True)
class Prefix:
    """A setup of a sweep with the values it is for: its depth and the stream key of the enclosing axes."""

    depth: int
    key: tuple[int, int]


@dataclass(frozen=True)
class Evaluate:
    """Supervisor to slot: evaluate this block.

    With `singly` every point is handed over before the next begins. `dead` are setups that killed an earlier slot:
    they fail their points without being tried again.
    """

    task: Task
    block: Block
    each: bool
    budget: float | None
    singly: bool = False
    dead: Mapping[Prefix, Failure] = field(default_factory=dict)


@dataclass(frozen=True)
class Entering:
    """Slot to supervisor: a setup begins, for the points from `start` to `stop` of the block.

    Sent because the supervisor has no grid to work the prefix out.
    """

    prefix: Prefix
    start: int
    stop: int


@dataclass(frozen=True)
class Ready:
    """Slot to supervisor: imports are done."""


@dataclass(frozen=True)
class Handed:
    """Slot to supervisor: outcomes of the block's first `done` points, less those handed before."""

    frames: list[Frame]
    done: int
    failed: int


@dataclass(frozen=True)
class Report:
    """Slot to supervisor, last message of a block: how it went. The frames came before.

    Parameters
    ----------
    done : int
        Points of the block that have an outcome.
    leftover : Block or None
        The rest, when the budget ran out.
    seconds, cpu : float
    failed, nbytes : int
    notes : tuple of str
        Warnings for the user, such as a captured value that points change.
    setup : float
        Of the seconds, those spent on setups that had to be computed.
    """

    done: int
    leftover: Block | None
    seconds: float
    cpu: float
    failed: int
    nbytes: int
    notes: tuple[str, ...] = ()
    setup: float = 0.0


@dataclass(frozen=True)
class Refused:
    """Slot to supervisor, instead of a report: the code of the sweep could not be loaded or run, and why."""

    failure: Failure
