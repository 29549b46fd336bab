"""When the job a worker runs in ends, so that nothing finished is lost with it.

A batch system kills a job at its walltime with whatever runs in it. Some time before, the worker takes no more blocks
(`bounce`); a point that still runs shortly before the end is stopped, and what its block had finished is reported.
"""

import os
import time
from dataclasses import dataclass

from mce_notebook.plan import Block
from mce_notebook.run.protocol import BlockResult

# Begins the reason of a result that says so; the address of the worker follows.
LEAVING = "the job ends soon at "
# Begins the reason of a block that was cut; the seconds its last point ran, and of the job, follow.
CUT = "stopped before the walltime of its job: "
# A point that had this share of a job to itself and did not end will not end in the next one either.
WHOLE = 0.8
# What a block must be expected to have left, as a multiple of the longest point so far.
MARGIN = 1.5


@dataclass
class Walltime:
    """The life of a job: seconds since 1970.

    Parameters
    ----------
    began : float
    leaves : float
        From then on, no new blocks.
    stops : float
        Then, points are stopped.
    longest : float
        Seconds of the longest point this worker has seen.
    """

    began: float
    leaves: float
    stops: float
    longest: float = 0.0

    @classmethod
    def of_job(cls) -> "Walltime | None":
        """Return that of the job this process runs in; None where it runs in none."""
        told = os.environ.get("MCE_ENDS", "").split()
        return cls(*map(float, told)) if told else None

    def bounce(self, block: Block, address: str) -> BlockResult | None:
        """Return the answer to a block that is not begun any more; None while there is time for it."""
        now = time.time()
        # A worker always takes its first block: it has all the time there is.
        if now < self.leaves and (not self.longest or now + MARGIN * self.longest < self.stops):
            return None
        return BlockResult([], 0, (block,), reason=f"{LEAVING}{address}")

    def learn(self, result: BlockResult) -> None:
        """Take in how long points take."""
        if result.done:
            self.longest = max(self.longest, (result.seconds - result.setup) / result.done)

    @property
    def over(self) -> bool:
        """Whether it is time to stop what still runs."""
        return time.time() > self.stops

    def cut(self, ran: float) -> str:
        """Return the reason of a block whose last point was stopped after `ran` seconds."""
        return f"{CUT}{ran:.0f} of {self.stops - self.began:.0f} s"


def hopeless(reason: str) -> str:
    """Return why a point that was cut for `reason` is not to be tried again; empty where it may fit another job."""
    if not reason.startswith(CUT):
        return ""
    ran, _, life = reason.removeprefix(CUT).removesuffix(" s").partition(" of ")
    if float(ran) < WHOLE * float(life):
        return ""
    return f"it did not end within the walltime: it ran for {ran} s of a job of {life} s; {REMEDY}"


def worn(reason: str, times: int) -> str:
    """Return why a point that was cut `times` times is not to be tried again; empty where that was not the reason."""
    if not reason.startswith(CUT):
        return ""
    return f"it did not end before the walltime of its job, {times} times; {REMEDY}"


REMEDY = "ask for longer jobs: walltime in the profile, or --timeout"


def left_by(result: BlockResult) -> str | None:
    """Return the address of the worker that takes no more blocks, if that is what a result says."""
    return result.reason.removeprefix(LEAVING) if result.reason.startswith(LEAVING) else None
