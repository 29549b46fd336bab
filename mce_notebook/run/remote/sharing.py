"""A connection that the user's own `ssh` holds and shares (`ControlMaster` in `~/.ssh/config`).

Where a site asks for a one-time password, somebody has to type it: `ssh login` in a terminal does, and whatever goes to
the same place afterwards is a channel of that connection, without being asked again. OpenSSH describes the sockets in
https://man.openbsd.org/ssh_config#ControlMaster; asyncssh does not know them: the channel is a process of `ssh`.
"""

import asyncio
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process

from mce_notebook.run.remote.place import Place

# `ssh -O check` asks a process of this machine.
_CHECK_SECONDS = 10.0


async def shared(place: Place) -> bool:
    """Return whether `ssh` holds a connection to a place now."""
    if shutil.which("ssh") is None:
        return False
    process = await asyncio.create_subprocess_exec(
        "ssh", "-O", "check", *_target(place), stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return await process.wait() == 0
    except TimeoutError:
        process.kill()
        await process.wait()
        return False


async def channel(place: Place, line: str) -> Process:
    """Start a command line at the other end of the connection that is shared; it never makes one of its own."""
    # With a command in its place for the way there, `ssh` cannot connect by itself, whatever else it is told.
    options = ["-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ProxyCommand=false"]
    return await asyncio.create_subprocess_exec(
        "ssh", *options, *_target(place), line, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=1 << 20
    )


def _target(place: Place) -> list[str]:
    user, host, port = place.target
    return [*(["-p", str(port)] if port else []), *(["-l", user] if user else []), "--", host]
