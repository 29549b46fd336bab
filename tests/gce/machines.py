"""The machines of the stand-in: a VM is a process group that runs its start-up script, at an address of its own."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# `docker run OPTIONS IMAGE COMMAND` becomes the command; what was asked for is left in a file.
DOCKER = r"""#!{python} -S
import json, os, sys
words = sys.argv[1:]
if words[:1] != ["run"]:
    sys.exit(0)
at, passed = 1, []
while words[at].startswith("-"):
    if words[at] == "-e":
        at += 1
        passed.append(words[at])
    at += 1
folder = os.environ["FAKE_VM"]
with open(folder + "/docker.json", "w") as file:
    json.dump({{"options": words[1:at], "image": words[at], "command": words[at + 1:], "passed": passed}}, file)
kept = [*passed, "PATH", "HOME", "FAKE_VM", *os.environ["FAKE_KEPT"].split()]
environment = {{name: os.environ[name] for name in kept if name in os.environ}}
os.execvpe(words[at + 1], words[at + 1:], environment)
"""
# As much of curl as a start-up script uses, which Google's images have and this machine may not.
CURL = r"""#!{python} -S
import sys, urllib.request
words, method, headers, quiet, url = sys.argv[1:], "GET", {{}}, False, ""
while words:
    word = words.pop(0)
    if word == "-X":
        method = words.pop(0)
    elif word == "-H":
        name, _, value = words.pop(0).partition(": ")
        headers[name] = value
    elif word == "-o":
        quiet = words.pop(0) == "/dev/null"
    elif not word.startswith("-"):
        url = word
try:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=20) as found:
        text = found.read().decode()
except OSError:
    sys.exit(22)
if not quiet:
    sys.stdout.write(text)
"""
# What a VM does to its own firewall is not done to this machine's.
IPTABLES = '#!/bin/sh\necho "iptables $*" >> "$FAKE_VM/firewall"\n'
SHUTDOWN = '#!/bin/sh\n: > "$FAKE_VM/off"\n'
# A link would lose the environment that the interpreter belongs to.
PYTHON = '#!/bin/sh\nexec "{python}" "$@"\n'


@dataclass
class Machine:
    """One machine that was switched on."""

    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def console(self) -> str:
        """All it has said."""
        return (self.folder / "console").read_text(errors="replace")

    def processes(self) -> list[int]:
        """Ids of its processes, those of other sessions included: they have its variable."""
        mark = f"FAKE_VM={self.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    @property
    def off(self) -> bool:
        """Whether it was shut down from inside."""
        return (self.folder / "off").exists()

    @property
    def alive(self) -> bool:
        """Whether its script still runs."""
        return self.process.poll() is None


class Room:
    """Where the machines stand."""

    def __init__(self, python: str = sys.executable):
        self.folder = Path(tempfile.mkdtemp(prefix="fakegce-"))
        # Read by every machine; when we are gone, however that came, they notice and go too.
        self._alive = self.folder / "alive"
        os.mkfifo(self._alive)
        self._held = os.open(self._alive, os.O_RDWR)
        self._bin = self.folder / "bin"
        self._bin.mkdir()
        tools = {"docker": DOCKER, "curl": CURL, "shutdown": SHUTDOWN, "iptables": IPTABLES, "python3": PYTHON}
        for name, text in tools.items():
            tool = self._bin / name
            tool.write_text(text.format(python=python) if "{python}" in text else text)
            tool.chmod(0o755)
        self._numbers = itertools.count(2)
        # More variables of every machine.
        self.variables: dict[str, str] = {}

    def address(self) -> str:
        """One that no other machine has."""
        number = next(self._numbers)
        return f"127.{77 + os.getpid() % 50}.{number // 250}.{number % 250 + 2}"

    def boot(self, name: str, script: str, metadata: str) -> Machine:
        """Switch a machine on."""
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir()
        lines = script.split("\n", 1)
        # $$ leads the group: the machine.
        # Hosts are processes of sessions of their own, and parts of the machine nevertheless.
        rest = f"grep -lzs '^FAKE_VM={folder}$' /proc/[0-9]*/environ | cut -d/ -f3 | xargs -r kill -KILL"
        watch = f"(trap '' TERM; read _ <'{self._alive}'; {rest}; kill -KILL -$$) >/dev/null 2>&1 &"
        (folder / "startup").write_text(f"{lines[0]}\n{watch}\n{lines[1] if len(lines) > 1 else ''}")
        environment = {
            "PATH": f"{self._bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "FAKE_VM": str(folder),
            "GCE_METADATA_HOST": metadata,
            # Where Google's library looks whether it runs on a VM; on real ones that is an address of its own.
            "GCE_METADATA_IP": metadata,
            "FAKE_KEPT": " ".join(["GCE_METADATA_IP", *self.variables]),
            **self.variables,
        }
        with (folder / "console").open("ab") as console:
            process = subprocess.Popen(
                ["/bin/bash", str(folder / "startup")],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        return Machine(folder, process)

    def switch_off(self, machine: Machine, notice: float = 0.0) -> None:
        """End a machine: SIGTERM for all that runs, if there is some notice, then the power is gone."""
        if notice and machine.alive:
            _signal(machine, signal.SIGTERM)
            end = time.monotonic() + notice
            while machine.alive and time.monotonic() < end:
                time.sleep(0.05)
        _signal(machine, signal.SIGKILL)
        machine.process.wait()
        for process in machine.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def close(self) -> None:
        """Let go of what was written."""
        os.close(self._held)
        shutil.rmtree(self.folder, ignore_errors=True)


def _signal(machine: Machine, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(machine.process.pid, number)
