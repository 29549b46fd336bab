"""An existing Dask cluster, of processes that somebody else started: `dask scheduler`, `dask worker`."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client, Security

import mce_notebook as mce
from mce_notebook.declare.environment import config_folder
from mce_notebook.errors import HostError
from mce_notebook.frontends.cluster_actions import act, running

pytestmark = pytest.mark.timeout(240)


def until(true: Callable[[], Any], seconds: float = 60.0, what: Callable[[], Any] = lambda: "") -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, what()
        time.sleep(0.05)
    return found


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class Theirs:
    """A Dask cluster of processes, with the certificates that it wants."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"tls://127.0.0.1:{self.port}"
        security: Any = Security.temporary()  # type: ignore[no-untyped-call]
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.certificate.write_text(security.tls_worker_cert)
        self.key.write_text(security.tls_worker_key)
        self.tls = ["--tls-ca-file", self.certificate, "--tls-cert", self.certificate, "--tls-key", self.key]
        self.processes: list[subprocess.Popen[bytes]] = []

    def _start(self, *words: Any, **environment: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"log-{len(self.processes)}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + words[0], *map(str, words[1:]), *map(str, self.tls)],
                stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def scheduler(self) -> "subprocess.Popen[bytes]":
        """Start the scheduler, at the same address each time."""
        return self._start(
            "scheduler", "--host", self.address.rpartition(":")[0], "--port", self.port, "--no-dashboard"
        )

    def worker(self, name: str, threads: int = 1, nanny: bool = True, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a worker, or its nanny."""
        folder = self.folder / name
        return self._start(
            "worker", self.address, "--name", name, "--nthreads", threads, "--no-dashboard", "--death-timeout", 60,
            "--local-directory", folder, "--nanny" if nanny else "--no-nanny", **environment,
        )  # fmt: skip

    def profile(self, **more: str) -> str:
        """Write a profile of it."""
        told = {
            "address": self.address, "tls_ca": self.certificate, "tls_certificate": self.certificate,
            "tls_key": self.key, "idle_timeout": "10m", **more,
        }  # fmt: skip
        lines = [
            f'{key} = "{value}"' if not isinstance(value, int) else f"{key} = {value}" for key, value in told.items()
        ]
        config_folder().mkdir(parents=True, exist_ok=True)
        (config_folder() / "clusters.toml").write_text('[theirs]\nkind = "address"\n' + "\n".join(lines) + "\n")
        return "theirs"

    def client(self) -> Any:
        """Another user of the cluster."""
        files = {"tls_ca_file": self.certificate, "tls_client_cert": self.certificate, "tls_client_key": self.key}
        security: Any = Security
        connect: Any = Client
        return connect(self.address, security=security(**{name: str(path) for name, path in files.items()}))

    def close(self) -> None:
        """End all of it."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


@pytest.fixture
def theirs(tmp_path: Path, runtime: Path) -> Iterator[Theirs]:
    made = Theirs(tmp_path)
    yield made
    for host in running("theirs"):
        os.kill(host.process.pid, signal.SIGTERM)
        until(lambda: not host.alive(), 40, host.folder.log.read_text)
        sys.stdout.write(host.folder.log.read_text())
    made.close()
    (config_folder() / "clusters.toml").unlink(missing_ok=True)


def noise(n: int, rng: np.random.Generator) -> float:
    return float(rng.normal(size=n).mean())


def test_a_sweep_on_workers_of_others_leaves_them_as_they_were(root: Path, theirs: Theirs, tmp_path: Path) -> None:
    scheduler, two = theirs.scheduler(), theirs.worker("two", threads=2)
    # Of another user, as it were: what it sees of the store is not signed by its own key.
    theirs.worker("far", nanny=False, MCE_CONFIG_DIR=str(tmp_path / "other"))
    profile = theirs.profile()
    there = mce.sweep(noise, n=[3, 5, 7], replicates=20, on=profile, name="there").result()
    here = mce.sweep(noise, n=[3, 5, 7], replicates=20, on="inline", name="there", store=root / "b").result()
    assert there["noise"].values.tobytes() == here["noise"].values.tobytes()

    def who(x: int) -> tuple[int, int]:
        import time

        time.sleep(0.3)
        return os.getpid(), os.getppid()

    found = mce.sweep(who, x=range(24), outputs=["slot", "parent"], on=profile).result()
    told = until(lambda: re.findall(r"^\S+ +ready +(\d) +(\w+)", act("nodes", profile), re.MULTILINE), 30)
    assert sorted(told) == [("1", "far"), ("2", "two")]
    slots = {int(pid) for pid in found["slot"].values}
    assert len(slots) >= 3, "three blocks are computed at once"
    with theirs.client() as client:
        workers = client.run(os.getpid)
        assert not slots & set(workers.values()), "code of users ran in a worker"
        with pytest.raises(HostError, match="max_workers = 16; raise it there"):
            act("resize", profile, 17)
        assert act("stop", profile) == f"{profile} is stopped; the Dask cluster it used goes on."
        assert client.run(os.getpid) == workers
        assert client.submit(sum, [1, 2]).result() == 3
    children = [child for pid in workers.values() for child in psutil.Process(pid).children(recursive=True)]
    assert not [child for child in children if "mce_notebook.run" in " ".join(child.cmdline())], "slots were left"
    assert alive(scheduler.pid)
    assert alive(two.pid)


def counted(folder: str) -> Callable[[int], int]:
    def point(x: int) -> int:
        import time

        time.sleep(0.5)
        with open(f"{folder}/{x}", "ab") as file:
            file.write(b".")
        return x * x

    return point


def test_a_scheduler_that_is_killed_is_told_and_the_sweep_goes_on_with_the_next(
    root: Path, theirs: Theirs, tmp_path: Path
) -> None:
    (tmp_path / "ran").mkdir()
    first, worker = theirs.scheduler(), theirs.worker("one")
    point = counted(str(tmp_path / "ran"))
    handle = mce.sweep(point, x=range(14), name="squares", outputs=["y"], on=theirs.profile())
    until(lambda: handle.progress.done > 3, 60, lambda: handle.progress)
    first.kill()
    until(lambda: "is lost (the connection broke)" in handle.progress.message, 30, lambda: handle.progress)
    assert handle.progress.state == "running"
    assert handle.progress.workers == 0
    # Workers of Dask leave when their scheduler is gone; this one is helped.
    os.killpg(worker.pid, signal.SIGKILL)
    theirs.scheduler()
    theirs.worker("two")
    until(lambda: handle.progress.ended, 60, lambda: handle.progress)
    assert handle.result()["y"].values.tolist() == [x * x for x in range(14)]
    times = [len((tmp_path / "ran" / str(x)).read_bytes()) for x in range(14)]
    assert sum(times) <= 14 + 4, f"more than the open blocks was computed again: {times}"
    assert handle.progress.message == ""


def test_a_scheduler_that_stays_away_interrupts_the_sweep_with_the_reason(root: Path, theirs: Theirs) -> None:
    def slow(x: int) -> int:
        import time

        time.sleep(0.3)
        return x

    scheduler = theirs.scheduler()
    worker = theirs.worker("one")
    handle = mce.sweep(slow, x=range(200), on=theirs.profile(idle_timeout="4s"))
    until(lambda: handle.progress.done > 1, 60, lambda: handle.progress)
    os.kill(worker.pid, signal.SIGSTOP)
    scheduler.kill()
    known = until(lambda: handle.progress.state == "interrupted" and handle.progress, 60, lambda: handle.progress)
    assert re.search(r"scheduler at tls://127.0.0.1:\d+ is lost .*, and did not come back within 4 s", known.message)


def test_what_cannot_be_used_is_told_with_the_fix(root: Path, theirs: Theirs, tmp_path: Path) -> None:
    profile = theirs.profile()
    assert re.search(r"NO  The scheduler at tls://127.0.0.1:\d+ cannot be reached: .", act("check", profile))
    theirs.scheduler()
    other = tmp_path / "other" / "numpy-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    told = act("check", profile)
    assert re.search(r"^theirs: up to 16 slots of the Dask cluster at tls://", told)
    assert "NO  the scheduler answers, and has 0 workers" in told
    theirs.worker("old", PYTHONPATH=str(tmp_path / "other"))
    handle = mce.sweep(noise, n=[3], replicates=3, on=profile, name="later")
    until(lambda: handle.progress.state == "stopped", 60, lambda: handle.progress)
    assert re.search(r"None of the 1 workers can be used: old has numpy 0.1 instead of", handle.progress.message)
    assert sys.executable in handle.progress.message
    assert "NO  old has numpy 0.1 instead of" in act("check", profile)
