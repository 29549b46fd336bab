"""Every error a user can meet, in one tree; grouped by what the person who reads it would do next.

    SweepError
    ├── DeclarationError        rewrite the cell or the call
    │   ├── LoopError           the loops cannot be read as a sweep; carries the line and the rewritten cell
    │   ├── GridError           an axis, a guard, a selection of points
    │   ├── OptionError         an option of the line or of the call
    │   ├── ProfileError        a profile of clusters.toml
    │   └── NameConflict        the name belongs to another experiment or to a variable
    ├── StoreError              look at the disk
    │   ├── UnknownSweep        no sweep of that name here
    │   ├── StoreFull           no room left; the sweep is paused and resumes
    │   ├── StoreUnreachable    the server of a bucket does not answer; tried again until it does
    │   ├── CorruptStore        bytes on disk are not what was written
    │   └── AlreadyExists       somebody else made that file first
    ├── UntrustedCode           code in the store was not written by this user
    ├── RunError                look at the cluster
    │   ├── HostError           the host could not start or went away
    │   ├── ClusterError        the batch system refused the jobs, or they end before their workers come up
    │   │   └── CloudError      Google's refusal, in its own words
    │   └── SweepStopped        the sweep ended before all points were computed
    ├── PointFailed             a point raised; `replay` shows it
    └── ViewError               ask for something else
        ├── IncompleteGrid      statistics over cells that are not known yet
        └── StaleResults        the values belong to an older version of the code

All of them survive pickling, because they cross processes.
"""

import difflib


class SweepError(Exception):
    """Base of every error raised on purpose."""


class DeclarationError(SweepError):
    """What was asked for cannot be a sweep as written."""


class LoopError(DeclarationError):
    """The loops of a cell cannot be read as a sweep.

    Parameters
    ----------
    cause : str
        What is wrong, one sentence.
    line : int or None
        Line of the cell, counted from 1.
    fix : str
        What to write instead, one sentence.
    before, after : str
        The cell as it is and as it should be; equal or empty when no rewriting is offered.
    """

    def __init__(self, cause: str, line: int | None = None, fix: str = "", before: str = "", after: str = ""):
        super().__init__(cause, line, fix, before, after)
        self.cause = cause
        self.line = line
        self.fix = fix
        self.before = before
        self.after = after

    @property
    def diff(self) -> str:
        """The rewriting as a unified diff, empty when none is offered."""
        if not self.after or self.after == self.before:
            return ""
        lines = difflib.unified_diff(
            self.before.splitlines(), self.after.splitlines(), "this cell", "as a sweep", lineterm="", n=2
        )
        return "\n".join(lines)

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        text = f"{where}{self.cause}"
        if self.fix:
            text += f" {self.fix}"
        return f"{text}\n\n{self.diff}" if self.diff else text


class GridError(DeclarationError):
    """An axis, a guard or a selection of points is not possible."""


class OptionError(DeclarationError):
    """An option has a value that means nothing."""


class ProfileError(DeclarationError):
    """A profile of a cluster is not there, not valid, or cannot hold what is asked of it."""


class NameConflict(DeclarationError):
    """The name of the sweep is taken."""


class StoreError(SweepError):
    """Reading or writing the store failed."""


class UnknownSweep(StoreError):
    """There is no sweep of that name in the store."""


class StoreFull(StoreError):
    """The disk has no room; what was acknowledged is safe."""


class StoreUnreachable(StoreError):
    """The server of a bucket does not answer; what was acknowledged is safe."""


class CorruptStore(StoreError):
    """Bytes in the store are not what was written."""


class AlreadyExists(StoreError):
    """A file that must be new was made by somebody else first."""


class UntrustedCode(SweepError):
    """The code in the store carries no signature of this user; nothing of it was loaded."""


class RunError(SweepError):
    """Running the sweep failed outside the user's code."""


class HostError(RunError):
    """The host process could not be started, or is gone."""


class ClusterError(RunError):
    """The batch system refused the jobs of a cluster, or they end before their workers come up."""


class CloudError(ClusterError):
    """A cloud refused, or cannot be reached.

    Parameters
    ----------
    message : str
        The cloud's words, and what to do.
    status : int
        Of the answer (HTTP), 0 where there was none.
    code : str
        The cloud's own name for it.
    quota, exhausted, passing : bool
        Whether the project has used up what it may have; whether the place has no such machine now; whether the same
        request may succeed in a moment.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        code: str = "",
        quota: bool = False,
        exhausted: bool = False,
        passing: bool = False,
    ):
        super().__init__(message, status, code, quota, exhausted, passing)
        self.message = message
        self.status = status
        self.code = code
        self.quota = quota
        self.exhausted = exhausted
        self.passing = passing

    def __str__(self) -> str:
        return self.message


class SweepStopped(RunError):
    """The sweep ended (cancelled, paused, too many failures, interrupted) before all points were computed."""


class PointFailed(SweepError):
    """A point of a sweep raised, was killed or timed out."""


class ViewError(SweepError):
    """What was asked of the data cannot be given."""


class IncompleteGrid(ViewError):
    """A statistic was asked over cells that are not all known."""


class StaleResults(ViewError):
    """Some values were computed by an older version of the code."""
