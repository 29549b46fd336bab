"""Batch systems for tests, real ones, on this machine. They are never skipped: what is missing is a failure."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mce_notebook.declare.environment import config_folder
from mce_notebook.run.client import hosts
from tests.profiles import Profiles

HERE = Path(__file__).parent


def run(*command: str, **options: Any) -> str:
    """Run a command; its output."""
    done = subprocess.run(command, text=True, capture_output=True, timeout=120, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def until(true: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, what or f"not within {seconds:g} s"
        time.sleep(0.05)
    return found


def free_port(count: int = 1) -> int:
    """The first of so many ports that nobody listens on."""
    for first in range(18_800, 28_000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@contextlib.contextmanager
def system(script: str, environment: dict[str, str], folder: Path) -> Iterator[str]:
    """A batch system from its script, up to the end of the block; what the script prints."""
    everything = {**os.environ, **environment}
    log, errors = folder / "out", folder / "err"
    try:
        # Into files: daemons would keep a pipe open.
        with log.open("w") as out, errors.open("w") as err:
            done = subprocess.run(
                [str(HERE / script), "up"], env=everything, stdout=out, stderr=err, timeout=100, check=False
            )
        assert done.returncode == 0, log.read_text() + errors.read_text()
        yield log.read_text().strip()
    finally:
        subprocess.run([str(HERE / script), "down"], env=everything, timeout=60, check=False)


@contextlib.contextmanager
def variables(told: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment, up to the end of the block."""
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm of four nodes with eight cores each, said to be; its configuration file."""
    folder, first = tmp_path_factory.mktemp("slurm"), free_port(8)
    told = {"SLURM_ROOT": str(folder / "s"), "SLURM_CTL_PORT": str(first), "SLURM_D_PORT": str(first + 1)}
    with system("slurm.sh", told, folder) as conf, variables({"SLURM_CONF": conf}):
        yield Path(conf)


@pytest.fixture(scope="session")
def sge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Grid Engine of one host with sixteen slots, which takes six jobs of a user."""
    folder, first = tmp_path_factory.mktemp("sge"), free_port(2)
    told = {
        "SGE_TEST_ROOT": str(folder / "s"),
        "SGE_QMASTER_PORT": str(first),
        "SGE_EXECD_PORT": str(first + 1),
    }
    with system("sge.sh", told, folder) as exports, variables(_exported(exports)):
        yield


def _exported(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line.startswith("SGE_"))


class Login:
    """An sshd on this machine, for somebody whose home is elsewhere, and whose keys are in another home."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = folder / "home"
        self._environment: dict[str, str] = {}
        self._port = free_port()

    def up(self, **variables: str) -> None:
        """Start it; sessions get the variables, and those of an earlier start."""
        self._environment |= variables
        told = "\n".join(f"{name}={value}" for name, value in self._environment.items())
        self._call("up", told)

    def down(self) -> None:
        """Stop it, and cut every connection that there is."""
        sessions = self.sessions()
        self._call("down", "")
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def sessions(self) -> list[int]:
        """The processes of sshd that hold connections."""
        listening = psutil.Process(int((self.folder / "sshd.pid").read_text()))
        return [child.pid for child in listening.children(recursive=True) if child.name() == "sshd"]

    def attempts(self) -> int:
        """How often somebody was let in, or refused, so far."""
        lines = (self.folder / "sshd.log").read_text().splitlines()
        return sum("Accepted publickey" in line or "Connection closed by authenticating" in line for line in lines)

    @contextlib.contextmanager
    def twin(self) -> Iterator[int]:
        """Another machine of the same name, with the same folders: an sshd that sees other processes; its port."""
        port = free_port()
        known = self.home / ".ssh" / "known_hosts"
        known.write_text(known.read_text() + known.read_text().replace(f":{self._port} ", f":{port} "))
        sshd = ["/usr/sbin/sshd", "-D", "-f", str(self.folder / "sshd_config"), "-p", str(port), "-o", "PidFile=none"]
        with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *sshd]) as process:
            until(lambda: answers(port))
            yield port
            process.kill()

    def lead(self, name: str, port: int) -> None:
        """Have a name of the configuration lead to a port."""
        config = self.home / ".ssh" / "config"
        kept = config.read_text().partition(f"Host {name}\n")[0]
        config.write_text(f"{kept}Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n")

    @property
    def port(self) -> int:
        """Where the first one listens."""
        return self._port

    def _call(self, verb: str, environment: str) -> None:
        told = {"SSHD_ROOT": str(self.folder), "SSHD_PORT": str(self._port), "SSHD_ENV": environment}
        with (self.folder / "out").open("a") as out:
            subprocess.run(
                [str(HERE / "sshd.sh"), verb],
                env={**os.environ, **told},
                stdout=out,
                stderr=out,
                timeout=60,
                check=True,
            )


def answers(port: int) -> bool:
    """Whether something listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    """What `ssh = "login"` leads to, by the configuration in the home folder of the tests."""
    made = Login(tmp_path_factory.mktemp("sshd"))
    made.up(MCE_CONFIG_DIR=str(made.folder / "there" / "config"))
    with variables({"HOME": str(made.home)}):
        yield made
    made.down()


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    """The folder that host and nodes share."""
    folder = Path("/tmp") / f"mce-shared-{os.getpid()}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def profiles(shared: Path, runtime: Path) -> Iterator[Profiles]:
    # Of workers on this machine.
    yield Profiles({"interface": "lo", "folder": str(shared), "idle_timeout": "10m"})
    (config_folder() / "clusters.toml").unlink(missing_ok=True)


def jobs() -> dict[str, str]:
    """Jobs of Slurm that are not over, by id: their states."""
    lines = run("squeue", "-h", "-o", "%i %T").splitlines()
    return dict(line.split() for line in lines)


@pytest.fixture
def queue(slurm: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """What is in Slurm's queue; every host but those of `warm` profiles ends with the test, and its jobs too."""
    yield jobs
    leave()


def leave() -> None:
    """End every host but those of `warm` profiles, and its jobs with it."""
    for host in hosts():
        launch = host.folder.launch()
        if launch is not None and launch.job and launch.profile != "warm":
            os.kill(host.process.pid, signal.SIGTERM)
            until(lambda: not host.alive(), 30, "the host did not leave")
            # Shown by pytest when the test failed.
            sys.stdout.write(host.folder.log.read_text())
