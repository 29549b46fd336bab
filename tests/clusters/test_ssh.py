"""A real sshd on loopback: sweeps on the other side of it, and everything that may happen to the connection."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mce_notebook as mce
from mce_notebook.errors import HostError, SweepStopped
from mce_notebook.frontends.cluster_actions import act
from mce_notebook.run.client import HostHandle, hosts
from mce_notebook.run.remote.connection import AGENT
from tests.clusters.conftest import Login, jobs, run, until
from tests.profiles import Profiles

pytestmark = pytest.mark.timeout(240)
PATIENCE = 90.0


def far_hosts() -> list[psutil.Process]:
    """Hosts of the far side: processes whose folder is in one that machines share."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "mce_notebook.run.host" in words and "/hosts/" in words[-1]:
            found.append(process)
    return found


def relay_of(profile: str) -> HostHandle:
    (found,) = (host for host in hosts() if (launch := host.folder.launch()) and launch.profile == profile)
    return found


@pytest.fixture(scope="session")
def desk(login: Login, profiles: Profiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A workstation behind ssh, whose host serves several tests."""
    folder = tmp_path_factory.mktemp("desk")
    yield profiles.set(
        "desk", kind="local", ssh="login", python=sys.executable, max_workers=2, interface=None, folder=str(folder)
    )
    for relay in [host for host in hosts() if (launch := host.folder.launch()) and launch.place]:
        os.kill(relay.process.pid, signal.SIGKILL)
    for host in far_hosts():
        host.terminate()
    psutil.wait_procs(far_hosts(), timeout=30)


captured = np.arange(300_000, dtype=float)


def everything(n: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    if n == 4:
        raise ValueError("four")
    if n == 3:
        (mce.scratch() / "seen.txt").write_text(f"{rng.normal()} ünï")
    return float(rng.normal()) + float(captured[n]), rng.normal(size=200_000 if n == 2 else 3)


def test_outcomes_from_the_other_side_are_those_of_this_one(root: Path, desk: str) -> None:
    there = mce.sweep(everything, n=[1, 2, 3, 4], replicates=2, on=desk, name="all", outputs=["x", "trace"])
    assert there.wait(PATIENCE).state == "done"
    here = mce.sweep(
        everything, n=[1, 2, 3, 4], replicates=2, on="inline", name="all", outputs=["x", "trace"], store=root / "b"
    )
    for name in ("x", "trace", "status"):
        assert there.dataset[name].values.tobytes() == here.dataset[name].values.tobytes(), name
    assert len(there.failures) == 2
    (left,), (same,) = there.artifacts(n=3, replicate=1), here.artifacts(n=3, replicate=1)
    assert left.read_bytes() == same.read_bytes()
    assert list((root / "all" / "big").rglob("*.arrows")), "no outcome was large"


def test_through_a_gateway(root: Path, login: Login, profiles: Profiles, tmp_path: Path) -> None:
    """`ProxyJump` of ~/.ssh/config: a connection to the gateway, and one inside it."""
    before = login.attempts()
    profile = profiles.set(
        "behind", kind="local", ssh="behind", python=sys.executable, max_workers=1, interface=None, folder=str(tmp_path)
    )
    try:
        there = mce.sweep(everything, n=[1, 2], on=profile, name="inside", outputs=["x", "trace"])
        assert there.wait(PATIENCE).state == "done", there.progress.message
    finally:
        act("stop", profile, sure=True)
    assert login.attempts() == before + 2


@pytest.fixture
def signed_in(login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Signs in to `once`, which lets nobody in by key, as somebody who types a password in a terminal does."""
    # OpenSSH looks for the home folder where the system says it is.
    config = login.home / ".ssh" / "config"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssh"
    program.write_text(f'#!/bin/sh\nexec "{shutil.which("ssh")}" -F "{config}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    yield lambda: run("ssh", "-i", str(login.home / ".ssh" / "id_ed25519"), "-M", "-N", "-f", "once") and None
    subprocess.run([program, "-O", "exit", "once"], capture_output=True, check=False)


def test_a_connection_that_a_terminal_shares_is_used_and_waited_for(
    root: Path, login: Login, profiles: Profiles, tmp_path: Path, signed_in: Callable[[], None]
) -> None:
    folder = str(tmp_path / "there")
    profile = profiles.set(
        "once", kind="local", ssh="once", python=sys.executable, max_workers=1, interface=None, folder=folder
    )
    refused = mce.sweep(endless, x=[0], on=profile, name="no3").wait(PATIENCE)
    assert refused.state == "stopped"
    assert "does not let you in without a password" in refused.message
    assert "ControlMaster auto" in refused.message
    signed_in()
    log = tmp_path / "log"
    handle = mce.sweep(counted, x=range(40), log=[str(log)], on=profile, name="shared")
    until(lambda: handle.progress.done > 3, PATIENCE, handle.progress.message)
    attempts = login.attempts()
    run("ssh", "-O", "exit", "once")
    until(lambda: "type `ssh once` to sign in again" in handle.progress.message, PATIENCE, handle.progress.message)
    until(lambda: len(times(log)) == 40, PATIENCE, "the sweep does not go on without a connection")
    # A site may lock out who tries too often: nothing was tried meanwhile.
    assert login.attempts() == attempts
    signed_in()
    assert handle.wait(PATIENCE).state == "done"
    assert set(times(log).values()) == {1}
    act("stop", profile, sure=True)


def counted(x: int, log: str) -> int:
    with open(log, "a") as file:
        file.write(f"{x}\n")
    time.sleep(0.15)
    return x * x


def times(log: Path) -> dict[int, int]:
    lines = log.read_text().split() if log.exists() else []
    return {int(x): lines.count(x) for x in lines}


def test_a_connection_that_breaks_comes_back_and_nothing_is_lost(
    root: Path, tmp_path: Path, desk: str, login: Login
) -> None:
    log = tmp_path / "log"
    handle = mce.sweep(counted, x=range(80), log=[str(log)], on=desk, name="cut")
    until(lambda: handle.progress.done > 3, PATIENCE)
    for pid in login.sessions():
        os.kill(pid, signal.SIGKILL)
    before = handle.progress.done
    until(lambda: handle.progress.done > before + 5, PATIENCE, "the connection does not come back")
    login.down()
    until(lambda: "no connection to login since" in handle.progress.message, PATIENCE, handle.progress.message)
    assert handle.progress.message.endswith("the sweep goes on there")
    assert handle.progress.state == "running"
    with pytest.raises(HostError, match="no connection to login since"):
        act("stop", desk, sure=True)
    until(lambda: len(times(log)) == 80, PATIENCE, "the sweep does not go on without a connection")
    login.up()
    assert handle.wait(PATIENCE).state == "done"
    assert handle.dataset["counted"].values.ravel().tolist() == [x * x for x in range(80)]
    assert set(times(log).values()) == {1}


def test_a_relay_that_is_killed_is_replaced_when_the_cell_runs_again(root: Path, tmp_path: Path, desk: str) -> None:
    log = tmp_path / "log"

    def declare() -> Any:
        return mce.sweep(counted, x=range(60), log=[str(log)], on=desk, name="torn")

    handle = declare()
    until(lambda: handle.progress.done > 3, PATIENCE)
    os.kill(relay_of(desk).process.pid, signal.SIGKILL)
    until(lambda: handle.progress.state == "interrupted", 20)
    seen = handle.progress.done
    until(lambda: len(times(log)) == 60, PATIENCE, "the sweep does not go on without a relay")
    assert handle.progress.done == seen < 60
    # What a power cut does to a file that grows.
    segments = list((root / "torn" / "log").rglob("*.arrows"))
    open_ones = [path for path in segments if not path.with_suffix(".closed").exists()]
    for path in open_ones:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 5)
            file.seek(0, 2)
            file.write(bytes(64))
    again = declare()
    assert again.wait(PATIENCE).state == "done"
    assert again.dataset["counted"].values.ravel().tolist() == [x * x for x in range(60)]
    assert set(times(log).values()) == {1}
    assert not again.dataset.attrs.get("problems")


def agents_elsewhere() -> list[int]:
    """Agents that do not see the processes of this machine."""
    ours = os.readlink("/proc/self/ns/pid")
    found = []
    for one in psutil.process_iter(["cmdline"]):
        # The one before is on its way out.
        with contextlib.suppress(OSError):
            if AGENT in (one.info["cmdline"] or []) and os.readlink(f"/proc/{one.pid}/ns/pid") != ours:
                found.append(one.pid)
    return found


def test_login_nodes_of_one_name_are_one_place(root: Path, tmp_path: Path, login: Login, profiles: Profiles) -> None:
    log, folder = tmp_path / "log", tmp_path / "there"
    profile = profiles.set(
        "several", kind="local", ssh="several", python=sys.executable, max_workers=1, interface=None, folder=str(folder)
    )
    login.lead("several", login.port)
    handle = mce.sweep(counted, x=range(60), log=[str(log)], on=profile, name="nodes")
    until(lambda: handle.progress.done > 3, PATIENCE, handle.progress.message)
    os.kill(relay_of(profile).process.pid, signal.SIGKILL)
    with login.twin() as port:
        login.lead("several", port)
        again = mce.sweep(counted, x=range(60), log=[str(log)], on=profile, name="nodes")
        until(agents_elsewhere, PATIENCE, "the agent is on the same machine as the host")
        assert again.wait(PATIENCE).state == "done"
        assert set(times(log).values()) == {1}, "a second host computed them, too"
        assert sum(str(folder) in (host.info["cmdline"] or [""])[-1] for host in far_hosts()) == 1
        # The host sees neither the agent nor a signal of it, only what the two share.
        act("stop", profile, sure=True)
    until(lambda: not any(str(folder) in host.info["cmdline"][-1] for host in far_hosts()), PATIENCE)


def test_what_is_known_on_either_side_is_not_computed_again_on_the_other(root: Path, tmp_path: Path, desk: str) -> None:
    log = tmp_path / "log"
    told = [str(log)]
    mce.sweep(counted, x=range(5), log=told, on="inline", name="shared").result()
    there = mce.sweep(counted, x=range(9), log=told, on=desk, name="shared").result()
    assert there["counted"].values.ravel().tolist() == [x * x for x in range(9)]
    here = mce.sweep(counted, x=range(12), log=told, on="inline", name="shared").result()
    again = mce.sweep(counted, x=range(14), log=told, on=desk, name="shared")
    assert again.result()["counted"].values.ravel().tolist() == [x * x for x in range(14)]
    assert np.isfinite(here["counted"].values).all()
    assert set(times(log).values()) == {1}
    assert len(times(log)) == 14


def test_a_sweep_that_is_moved_here_ends_what_was_begun_there(root: Path, tmp_path: Path, desk: str) -> None:
    log = tmp_path / "log"
    there = mce.sweep(counted, x=range(60), log=[str(log)], on=desk, name="moving")
    until(lambda: there.progress.done > 3, PATIENCE)
    here = mce.sweep(counted, x=range(60), log=[str(log)], on="local", name="moving")
    assert here.wait(PATIENCE).state == "done"
    assert here.dataset["counted"].values.ravel().tolist() == [x * x for x in range(60)]
    assert times(log) == dict.fromkeys(range(60), 1)
    writers = {path.parent for path in (root / "moving" / "log").rglob("0*.arrows")}
    assert len(writers) == 2, "all of it was computed on one side"


def endless(x: int) -> int:
    time.sleep(60 if x > 1 else 0.01)
    return x


def test_orders_reach_the_other_side(root: Path, desk: str) -> None:
    handle = mce.sweep(endless, x=range(6), on=desk, order="listed")
    until(lambda: handle.progress.done == 2, PATIENCE)
    handle.cancel()
    assert handle.wait(PATIENCE).state == "cancelled"
    assert handle.progress.done == 2
    with pytest.raises(SweepStopped):
        handle.result()


def test_too_many_failures_stop_the_sweep_on_both_sides(root: Path, desk: str) -> None:
    def bad(x: int) -> int:
        time.sleep(0.05)
        raise ValueError("bad")

    handle = mce.sweep(bad, x=range(500), on=desk, max_failures=3)
    assert handle.wait(PATIENCE).state == "stopped"
    assert "outcomes are failures" in handle.progress.message


def test_an_unknown_host_key_is_refused_with_what_to_type(root: Path, login: Login, profiles: Profiles) -> None:
    known = login.home / ".ssh" / "known_hosts"
    before = known.read_text()
    config = login.home / ".ssh" / "config"
    config.write_text(config.read_text().replace("Host login\n", "Host login\n  StrictHostKeyChecking no\n"))
    known.write_text("")
    try:
        profile = profiles.set("unknown", kind="local", ssh="login", python=sys.executable, interface=None)
        progress = mce.sweep(endless, x=[0], on=profile, name="no1").wait(PATIENCE)
    finally:
        known.write_text(before)
    assert progress.state == "stopped"
    assert "The host key of login, SHA256:" in progress.message
    assert "type `ssh login`, which asks you and remembers it" in progress.message


@pytest.mark.parametrize(
    ("python", "told"),
    [
        ("/usr/bin/python3", "/usr/bin/python3 on login has no mce_notebook"),
        ("/no/python", "There is no /no/python on"),
    ],
)
def test_a_wrong_python_is_told(root: Path, login: Login, profiles: Profiles, python: str, told: str) -> None:
    profile = profiles.set("wrong", kind="local", ssh="login", python=python, interface=None)
    progress = mce.sweep(endless, x=[0], on=profile, name="no2").wait(PATIENCE)
    assert progress.state == "stopped"
    assert told in progress.message
    with pytest.raises(HostError, match=told):
        act("check", profile)


def test_slurm_behind_ssh_with_its_verbs_and_nothing_is_left(
    root: Path, login: Login, slurm: Path, profiles: Profiles
) -> None:
    login.down()
    login.up(SLURM_CONF=str(slurm))
    profile = profiles.set(
        "beyond", kind="slurm", ssh="login", python=sys.executable, cores=2, max_workers=4, memory="2GB"
    )
    checked = act("check", profile)
    assert "ok  login can be reached, and has the packages; the host lives on login" in checked
    assert "#SBATCH" in checked
    assert "ok  squeue answers" in checked
    said: list[str] = []
    assert "beyond is ready after" in act("start", profile, 2, say=said.append)
    assert any(state == "RUNNING" for state in jobs().values())
    assert "ready" in until(lambda: "ready" in act("nodes", profile) and act("nodes", profile), 30)
    assert "Registered to:" in act("log", profile)
    assert act("resize", profile, 4) == "beyond goes to 4 slots."
    until(lambda: len(jobs()) == 2, 30)

    def noise(n: int, rng: np.random.Generator) -> float:
        return float(rng.normal(size=n).mean())

    there = mce.sweep(noise, n=[3, 5, 7], replicates=4, on=profile, name="there")
    assert there.wait(PATIENCE).state == "done"
    here = mce.sweep(noise, n=[3, 5, 7], replicates=4, on="inline", name="there", store=root / "b").result()
    assert there.dataset["noise"].values.tobytes() == here["noise"].values.tobytes()
    assert act("stop", profile, sure=True) == "beyond is stopped, and its jobs are cancelled."
    until(lambda: not jobs(), 30, "its jobs are still there")
    until(lambda: not [one for one in far_hosts() if "mce-shared-" in one.cmdline()[-1]], 30, "the host is still there")
    assert "beyond" not in [launch.profile for host in hosts() if (launch := host.folder.launch())]


@pytest.mark.parametrize("way", ["here", pytest.param("login", marks=pytest.mark.nightly)])
def test_a_host_in_a_job_of_its_own_is_found_ends_and_is_replaced(
    root: Path, tmp_path: Path, login: Login, slurm: Path, profiles: Profiles, way: str
) -> None:
    log = tmp_path / "log"
    told: dict[str, Any] = {"cores": 1, "max_workers": 2, "memory": "2GB", "host_walltime": "1h"}
    if way == "login":
        login.down()
        login.up(SLURM_CONF=str(slurm))
        told |= {"ssh": "login", "python": sys.executable}
    profile = profiles.set(f"nested-{way}", kind="slurm", host="job", **told)
    handle = mce.sweep(counted, x=range(60), log=[str(log)], on=profile, name="jobbed")
    until(lambda: handle.progress.done > 3, PATIENCE, handle.progress.message)
    names = {line.split()[1]: line.split()[0] for line in squeue()}
    assert "mce-host" in names
    run("scancel", names["mce-host"])
    until(lambda: handle.progress.state == "interrupted", 60, handle.progress.state)
    until(lambda: not jobs(), 60, "the jobs of its workers are still there")
    handle.resume()
    assert handle.wait(PATIENCE).state == "done"
    assert handle.dataset["counted"].values.ravel().tolist() == [x * x for x in range(60)]
    act("stop", profile, sure=True)
    until(lambda: not jobs(), 30)


def squeue() -> list[str]:
    return run("squeue", "-h", "-o", "%i %j").splitlines()
