"""One connection to the far side, with an agent at its other end: through ssh, or as a process of this machine.

The connection is asyncssh's, the user's own keys, agent and `~/.ssh/config` count, and the key of the other side has to
be known: nothing is sent to a host that is not. Where the user's own `ssh` shares a connection, it is a channel of
that.
"""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.client import environment as own_environment
from mce_notebook.run.clusters.node import differences, environment
from mce_notebook.run.remote import sharing
from mce_notebook.run.remote.place import Place
from mce_notebook.run.remote.wire import GREETING, Message, NoMessage, packed, receive

# A connection that says nothing for three of these is lost (seconds).
KEEPALIVE_SECONDS = 10
CONNECT_SECONDS = 30.0
# A login shell on a busy login node, and the imports of the agent from a slow file system (seconds).
GREET_SECONDS = 120.0
AGENT = "mce_notebook.run.remote.agent"
# So much of what the other side complains of is kept.
_COMPLAINTS = 4000


class Unreachable(HostError):
    """There is no connection now; there may be one later."""


class Connection:
    """A connection that stands, and the agent at its other end.

    Attributes
    ----------
    shared : bool
        Whether it is a channel of a connection that the user's own `ssh` holds.
    """

    def __init__(self, process: Any, connection: Any = None, *, shared: bool = False):
        self.shared = shared
        self._process = process
        self._connection = connection
        self._complaints = b""
        # What a connection that breaks may raise; asyncssh's errors are no OSErrors.
        self._broken: tuple[type[Exception], ...] = (OSError, EOFError, NoMessage, asyncio.LimitOverrunError)
        if connection is not None:
            import asyncssh

            self._broken += (asyncssh.Error,)
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def open(cls, place: Place, variables: Mapping[str, str], *, shared: bool = False) -> "Connection":
        """Connect, start the agent, and see whether the two sides understand each other.

        Parameters
        ----------
        place : Place
        variables : mapping of str to str
            Of the agent and its host.
        shared : bool
            Connect only if the user's own `ssh` shares a connection, as it did before: a site that wants a one-time
            password counts every attempt without.

        Raises
        ------
        Unreachable
            If it cannot be reached now.
        HostError
            If it will not work later either: with what to do.
        """
        if not place.ssh:
            opened = await _here(place, variables)
        elif await sharing.shared(place):
            opened = cls(await sharing.channel(place, command(place, variables)), shared=True)
        elif shared:
            raise Unreachable(f"your own connection is closed; type `ssh {_typed(place)}` to sign in again")
        else:
            opened = await _over_ssh(place, variables)
        try:
            await opened._greeted(place)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def _greeted(self, place: Place) -> None:
        try:
            async with asyncio.timeout(GREET_SECONDS):
                await self._process.stdout.readuntil(b"\n" + GREETING)
                header, _ = await receive(self._process.stdout)
        except TimeoutError:
            raise Unreachable(f"{place.name} did not start our Python within {GREET_SECONDS:g} s") from None
        except self._broken:
            # What it complained of may still be on its way.
            await asyncio.wait([self._listening], timeout=2.0)
            raise self._no_agent(place) from None
        found = differences(environment(), header["environment"])
        if found:
            raise HostError(
                f"{_python(place)} on {header['host']} has {', '.join(found)}. Install there what is here "
                f"(`{sys.executable} -m pip freeze` lists it), or set `python` in the profile to an interpreter that "
                "has it."
            )

    def _no_agent(self, place: Place) -> HostError:
        said = self.complaints
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
        if "No module named" in said:
            return HostError(
                f"{_python(place)} on {place.name} has no mce_notebook ({last}). Install it there, "
                f"`{_python(place)} -m pip install 'mce_notebook[hpc]'`, or set `python` in the profile to an "
                "interpreter that has it."
            )
        if "not found" in said or "No such file" in said:
            return HostError(
                f"There is no {_python(place)} on {place.name} ({last}). Set `python` in the profile to the whole path "
                "of an interpreter that has mce_notebook."
            )
        if last:
            return HostError(f"{_python(place)} on {place.name} cannot start: {last}")
        return Unreachable(f"{place.name} closed the connection")

    @property
    def complaints(self) -> str:
        """What the other side wrote to its error output last."""
        return self._complaints.decode(errors="replace")

    async def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send a message; raises Unreachable where there is no connection any more."""
        try:
            self._process.stdin.write(packed(header, payload))
            await self._process.stdin.drain()
        except self._broken as error:
            raise Unreachable(str(error) or "the connection broke") from None

    async def receive(self) -> Message:
        """Wait for a message; raises Unreachable when there will be none."""
        try:
            return await receive(self._process.stdout)
        except asyncio.IncompleteReadError:
            last = next((line for line in reversed(self.complaints.splitlines()) if line.strip()), "")
            raise Unreachable(last or "the connection was closed") from None
        except self._broken as error:
            raise Unreachable(str(error) or "the connection broke") from None

    async def close(self) -> None:
        """End the agent; the host goes on."""
        self._listening.cancel()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self._connection is not None:
            self._connection.abort()
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(2.0):
                    await self._connection.wait_closed()
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._process.wait()

    async def _listen(self) -> None:
        with contextlib.suppress(*self._broken):
            while data := await self._process.stderr.read(4096):
                self._complaints = (self._complaints + data)[-_COMPLAINTS:]


def _python(place: Place) -> str:
    return place.python or sys.executable


def command(place: Place, variables: Mapping[str, str]) -> str:
    """Return the line that starts an agent in a login shell, which knows where the batch system's commands are."""
    exports = [f"export {name}={shlex.quote(value)};" for name, value in variables.items()]
    python = place.python
    quoted = f"~/{shlex.quote(python[2:])}" if python.startswith("~/") else shlex.quote(python)
    line = " ".join([*exports, "exec", quoted, "-P", "-m", AGENT, shlex.quote(place.folder)])
    return f"bash -lc {shlex.quote(line)}"


async def _here(place: Place, variables: Mapping[str, str]) -> Connection:
    process = await asyncio.create_subprocess_exec(
        _python(place), "-P", "-m", AGENT, place.folder,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**own_environment(), **variables}, limit=1 << 20,
    )  # fmt: skip
    return Connection(process)


async def _over_ssh(place: Place, variables: Mapping[str, str]) -> Connection:
    try:
        import asyncssh
    except ImportError:
        raise HostError("Clusters behind ssh need asyncssh: pip install 'mce_notebook[hpc]'.") from None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await asyncssh.connect(**_options(place, asyncssh))
            process = await connection.create_process(command(place, variables), encoding=None)
    except asyncssh.HostKeyNotVerifiable:
        raise HostError(await _unknown_key(place, asyncssh)) from None
    except asyncssh.PermissionDenied as error:
        raise HostError(
            f"{place.ssh} does not let you in without a password ({error.reason}). Type `ssh {_typed(place)}` to see; "
            "a key with a passphrase is used once `ssh-add` gave it to your agent. Where a password has to be typed "
            "each time, `ControlMaster auto` and `ControlPath ~/.ssh/%C` in ~/.ssh/config let us use the connection "
            "of the terminal you typed it in."
        ) from None
    except asyncssh.ConfigParseError as error:
        raise HostError(f"Your ~/.ssh/config cannot be read: {error}") from None
    except TimeoutError:
        raise Unreachable(f"{place.ssh} did not answer within {CONNECT_SECONDS:g} s") from None
    except (asyncssh.Error, OSError, ValueError) as error:
        raise Unreachable(str(error) or type(error).__name__) from None
    return Connection(process, connection)


def _options(place: Place, asyncssh: Any) -> dict[str, Any]:
    user, host, port = place.target
    told: dict[str, Any] = {"host": host, "keepalive_interval": KEEPALIVE_SECONDS}
    told |= {name: value for name, value in (("username", user), ("port", port)) if value is not None}
    # asyncssh takes `UserKnownHostsFile none` for the wish to check nothing.
    if asyncssh.SSHClientConnectionOptions(**told).known_hosts is None:
        told["known_hosts"] = b""
    return told


async def _unknown_key(place: Place, asyncssh: Any) -> str:
    _, host, port = place.target
    shown = ""
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError, ValueError):
        async with asyncio.timeout(CONNECT_SECONDS):
            key = await asyncssh.get_server_host_key(host, **({"port": port} if port else {}))
        shown = f", {key.get_fingerprint()}," if key is not None else ""
    return (
        f"The host key of {place.ssh}{shown} is not the one you have in known_hosts, or there is none, so nothing was "
        f"sent. Compare it with what the site publishes; then type `ssh {_typed(place)}`, which asks you and "
        "remembers it."
    )


def _typed(place: Place) -> str:
    user, host, port = place.target
    name = f"{user}@{host}" if user else host
    return f"-p {port} {name}" if port else name
