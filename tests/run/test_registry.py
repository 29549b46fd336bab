"""Where hosts are found: claims, liveness, private folders."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mce_notebook.errors import HostError
from mce_notebook.run import registry
from mce_notebook.run.registry import (
    HostFolder,
    Launch,
    Process,
    clean,
    folders,
    private_folder,
    runtime_root,
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "runtime"))
    return runtime_root()


def ended_process() -> Process:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = Process(registry.machine(), "here", child.pid, registry.start_time(child.pid) or "")
    assert found.alive()
    child.communicate(b"\n")
    return found


def forge_claim(folder: HostFolder, process: Process, number: int = 1) -> None:
    content = {"number": number, "process": process.__dict__, "time": 0.0}
    (folder.claims / f"{number:06d}.json").write_text(json.dumps(content))


def test_this_process_is_alive_and_an_ended_one_is_not() -> None:
    assert Process.current().alive()
    assert not ended_process().alive()


def test_a_reused_pid_is_not_the_process_it_was() -> None:
    me = Process.current()
    assert not replace(me, start="1").alive()
    assert not replace(me, machine="an earlier boot").alive()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    start = registry.start_time(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not Process(registry.machine(), "here", child.pid, start or "").alive()
    child.wait()


def test_first_claim_wins_while_its_process_lives(root: Path) -> None:
    folder = HostFolder.of(Launch())
    assert folder.owner() is None
    claim = folder.take()
    assert claim is not None
    assert claim.number == 1
    assert folder.owner() == Process.current()
    assert folder.take() is None
    renewed = folder.take(renew=True)
    assert renewed is not None
    assert renewed.number == 2


def test_a_dead_owner_is_outnumbered_and_forgotten(root: Path) -> None:
    folder = HostFolder.of(Launch())
    forge_claim(folder, ended_process(), 4)
    assert folder.owner() is None
    claim = folder.take()
    assert claim is not None
    assert claim.number == 5
    assert [path.name for path in folder.claims.iterdir()] == ["000005.json"]


def test_a_pid_used_again_does_not_hold_the_folder(root: Path) -> None:
    folder = HostFolder.of(Launch())
    forge_claim(folder, replace(Process.current(), start="7"))
    assert folder.take() is not None


def test_of_many_at_once_exactly_one_wins(root: Path) -> None:
    for round_ in range(20):
        folder = HostFolder.of(Launch(profile=f"p{round_}"))
        forge_claim(folder, replace(Process.current(), start="7"))
        start = threading.Barrier(8)
        won: list[object] = []

        def attempt() -> None:
            start.wait()
            won.append(folder.take())

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(claim is not None for claim in won) == 1


def test_a_slow_claimant_below_the_owner_loses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = HostFolder.of(Launch())
    forge_claim(folder, Process.current(), 3)
    # It read the folder before the owner's claim was there, and writes its own after.
    seen = iter([[]])
    numbers = HostFolder._numbers
    monkeypatch.setattr(HostFolder, "_numbers", lambda self: next(seen, numbers(self)))
    assert folder.take() is None
    assert [path.name for path in folder.claims.iterdir()] == ["000003.json"]


def test_a_torn_claim_is_no_claim(root: Path) -> None:
    folder = HostFolder.of(Launch())
    (folder.claims / "000002.json").write_text("")
    assert folder.owner() is None
    # Its number is taken all the same, so nobody can make it twice.
    assert folder.take() is not None
    assert folder.owner() == Process.current()


def test_key_depends_on_what_the_host_is_for_and_not_on_its_idle_time() -> None:
    launch = Launch()
    assert replace(launch, idle=1.0).key == launch.key
    for change in ({"profile": "slurm"}, {"cores": 2}, {"gpus": 1}, {"python": "/other"}, {"workers": 3}):
        assert replace(launch, **change).key != launch.key


def test_runtime_root_is_private(root: Path) -> None:
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o755)
    assert runtime_root().stat().st_mode & 0o777 == 0o700


def test_a_link_or_a_file_is_no_runtime_root(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(HostError, match="not a folder of yours"):
        private_folder(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="MCE_RUNTIME_DIR"):
        private_folder(tmp_path / "file")


def test_socket_path_is_short_however_long_the_folder_is(tmp_path: Path) -> None:
    folder = HostFolder(private_folder(tmp_path / ("d" * 100) / "ü"))
    assert len(os.fsencode(folder.socket)) <= registry.MAX_SOCKET_PATH
    assert folder.socket == HostFolder(folder.path).socket
    assert folder.socket.parent.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert not folder.path.exists()


def test_clean_removes_hosts_of_earlier_boots_only(root: Path) -> None:
    import socket

    old = HostFolder.of(Launch(profile="old"))
    forge_claim(old, replace(Process.current(), machine="earlier boot", hostname=socket.gethostname()))
    dead = HostFolder.of(Launch(profile="dead"))
    forge_claim(dead, ended_process())
    elsewhere = HostFolder.of(Launch(profile="elsewhere"))
    forge_claim(elsewhere, replace(Process.current(), machine="other", hostname="other"))
    assert clean() == [old.path]
    assert {folder.path for folder in folders()} == {dead.path, elsewhere.path}
