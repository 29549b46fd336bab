"""Where a host lives when it is not beside the notebook, as a profile says it."""

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mce_notebook.errors import ProfileError

if TYPE_CHECKING:
    from mce_notebook.run.clusters.profiles import Profile

# Where the process lives that drives sweeps.
HOSTS = ("here", "login", "job", "vm")
_TARGET = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>[^@\s:]+|\[[^\]\s]+\])(?::(?P<port>\d+))?")


@dataclass(frozen=True)
class Place:
    """Where the host of a profile lives.

    Parameters
    ----------
    ssh : str
        ``user@login`` or a name of `~/.ssh/config`; empty for this machine.
    host : str
        ``login``: a process there; ``job``: a job of the batch system there.
    python : str
        Interpreter there that has mce_notebook; empty for the one that asks.
    folder : str
        Folder there for sweeps on their way and the files of hosts; empty: `.mce` in the home folder.
    walltime : float
        Of a host in a job (seconds).
    """

    ssh: str
    host: str
    python: str
    folder: str
    walltime: float = 0.0

    @property
    def name(self) -> str:
        """What to call it."""
        return self.ssh or "the batch system"

    @property
    def target(self) -> tuple[str | None, str, int | None]:
        """User, host and port, as far as they are said."""
        found = _TARGET.fullmatch(self.ssh)
        assert found is not None
        return found["user"], found["host"].strip("[]"), int(found["port"]) if found["port"] else None

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Place":
        """Return what `to_json` wrote."""
        return cls(**json.loads(text))

    @classmethod
    def of(cls, profile: "Profile") -> "Place | None":
        """Return where the host of a profile lives; None for beside the notebook."""
        if profile.host in ("here", "vm"):
            return None
        return cls(profile.ssh, profile.host, profile.python, profile.folder, profile.host_walltime or 0.0)


def check(where: str, made: "Profile") -> None:
    """Refuse a profile whose host cannot live where it says.

    Raises
    ------
    ProfileError
        With what to write.
    """
    if made.host not in HOSTS:
        raise ProfileError(
            f"{where}: host is one of {', '.join(HOSTS)}, not {made.host!r}: beside the notebook, on the login node of "
            '`ssh`, in a job of its own, or on a machine that runs `mce host`; write host = "login".'
        )
    if made.kind == "gce" and made.host not in ("here", "vm"):
        raise ProfileError(f'{where}: a cluster of kind gce has no login node; write host = "here" or host = "vm".')
    if made.host == "login" and not made.ssh:
        raise ProfileError(f'{where}: host = "login" needs to know where that is; write ssh = "user@login".')
    if made.host in ("here", "vm") and made.ssh:
        raise ProfileError(
            f'{where}: with ssh the host lives where the batch system is; write host = "login", or host = "job".'
        )
    if made.ssh and not made.python:
        raise ProfileError(
            f'{where}: say which Python of {made.ssh} has mce_notebook, by its whole path: python = "~/env/bin/python".'
        )
    if made.kind == "local" and (made.host == "job" or (not made.ssh and (made.python or made.folder))):
        raise ProfileError(
            f"{where}: kind local has no jobs; `python` and `folder` belong to `ssh`, and its host is there."
        )


def is_target(text: str) -> bool:
    """Return whether something can be the `ssh` of a profile."""
    return _TARGET.fullmatch(text) is not None and not text.startswith("-")
