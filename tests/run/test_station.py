"""Two machines with a bucket in common and nothing else: one asks, the other works, and the first may go away."""

import os
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mce_notebook as mce
from mce_notebook.declare.environment import config_folder
from mce_notebook.errors import HostError, OptionError, StoreError
from mce_notebook.run import station
from mce_notebook.run.station import Station
from mce_notebook.store.catalog import Store
from mce_notebook.store.places import shown
from mce_notebook.store.requests import Wanted, ask, done, tell, told, waiting
from tests.buckets import new_bucket, served, variables

PROFILES = '[away]\nkind = "local"\nhost = "vm"\nmax_workers = 2\n'


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as address:
        yield address


class Machine:
    """What one machine has of its own: configuration, cache, runtime folder."""

    def __init__(self, folder: Path, server: str, profiles: str = PROFILES):
        own = {"MCE_CONFIG_DIR": "config", "MCE_CACHE_DIR": "cache", "MCE_RUNTIME_DIR": "run"}
        for name in own.values():
            (folder / name).mkdir(parents=True)
        (folder / "run").chmod(0o700)
        (folder / "config" / "clusters.toml").write_text(profiles)
        paths = {variable: str(folder / name) for variable, name in own.items()}
        self.names = {**os.environ, **variables(server), **paths, "MCE_HOST_IDLE": "60"}
        self.folder = folder

    def is_of(self, key: bytes) -> None:
        """Give it the signing key of a person."""
        path = self.folder / "config" / "signing.key"
        path.write_bytes(key)
        path.chmod(0o600)

    def python(self, code: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", textwrap.dedent(code)]
        return subprocess.Popen(command, env=self.names, stdout=subprocess.PIPE, text=True, cwd=self.folder)

    def host(self, store: str, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from mce_notebook.frontends.cli import main; main()"]
        command += ["host", "away", "--store", store, "--idle", "3s", *more]
        return subprocess.Popen(command, env=self.names, stdout=subprocess.PIPE, text=True, cwd=self.folder)


@pytest.fixture
def machines(tmp_path_factory: pytest.TempPathFactory, server: str) -> Callable[[str], Machine]:
    def make(name: str) -> Machine:
        # Short, because of the length that paths of sockets have.
        return Machine(tmp_path_factory.mktemp(name), server)

    return make


def answer(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


ASK = """
    import time
    import mce_notebook as mce
    def slow(n, k):
        time.sleep(0.03)
        return n * k
    run = mce.sweep(slow, n=list(range(15)), k=list(range(10)), on="away", store={store!r})
    while run.progress.done < 10:
        time.sleep(0.1)
    print("some", flush=True)
    time.sleep(1000)
"""


@pytest.mark.timeout(300)
def test_a_closed_laptop_stops_nothing(server: str, machines: Callable[[str], Machine]) -> None:
    store = f"s3://{new_bucket(server)}/experiments"
    laptop, vm = machines("laptop"), machines("vm")
    asking = laptop.python(ASK.format(store=store))
    working = vm.host(store, "--trust")
    try:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "some\n"
        asking.kill()
        asking.communicate()
        # The kernel that is started later, on another machine at that, gets all of it.
        said = answer(
            machines("other").python(f"""
            import mce_notebook as mce
            run = mce.open("slow", store={store!r})
            assert run.state in ("running", "done"), run.state
            found = run.result(timeout=200)
            print(int(found.slow.sum()), int((found.status == 2).sum()), run.progress.failed, run.state)
            """)
        )
        assert said.split() == [str(sum(range(15)) * sum(range(10))), "150", "0", "done"]
        assert "Nothing to do" in answer(working)
    finally:
        asking.kill()
        working.kill()


@pytest.mark.timeout(300)
def test_orders_reach_the_other_machine_and_a_dead_host_is_replaced(
    server: str, machines: Callable[[str], Machine]
) -> None:
    store = f"s3://{new_bucket(server)}/experiments"
    laptop, vm = machines("laptop"), machines("vm")
    # The same person on both machines.
    key = os.urandom(32)
    laptop.is_of(key)
    vm.is_of(key)
    working = vm.host(store)
    asking = laptop.python(f"""
        import time
        import mce_notebook as mce
        def slow(n, k):
            time.sleep(0.05)
            return n * k
        run = mce.sweep(slow, n=list(range(20)), k=list(range(30)), on="away", store={store!r})
        while run.progress.done < 5:
            time.sleep(0.1)
        run.pause()
        assert run.wait(120).state == "paused", run.state
        paused = run.progress.done
        assert paused < 600
        print("paused", flush=True)
        run.resume()
        while run.progress.done < paused + 20:
            time.sleep(0.1)
        run.cancel()
        assert run.wait(120).state == "cancelled", run.state
        print("cancelled", run.progress.done, flush=True)
        run.resume()
    """)
    try:
        said = answer(asking).split()
        assert said[:2] == ["paused", "cancelled"]
        assert int(said[2]) < 600
        # The machine dies while the rest of it is computed, host and all; the next one has not even its mirror.
        time.sleep(1.0)
        working.kill()
        working.communicate()
        stop_hosts(vm)
        other = machines("vm2")
        other.is_of(key)
        # What the new host would find out by itself, by waiting.
        answer(
            laptop.python(f"""
            from mce_notebook.store.catalog import Store
            from mce_notebook.store.requests import tell
            tell(Store({store!r}), "away", {{"state": "gone"}})
            """)
        )
        again = other.host(store)
        found = laptop.python(f"""
            import mce_notebook as mce, time
            run = mce.open("slow", store={store!r})
            while run.progress.done < 600:
                time.sleep(0.2)
            print(int(run.dataset.slow.sum()))
        """)
        assert int(answer(found)) == sum(range(20)) * sum(range(30))
        assert "Nothing to do" in answer(again)
    finally:
        for process in (asking, working):
            process.kill()


def stop_hosts(machine: Machine) -> None:
    """Kill the host of a machine and its slots, as a power cut does."""
    done = machine.python("""
        import os, signal, psutil
        from mce_notebook.run.client import hosts
        for host in hosts():
            there = psutil.Process(host.process.pid)
            for one in [*there.children(recursive=True), there]:
                one.kill()
            print(host.process.pid)
    """)
    assert answer(done).strip()


# What is asked for, without machines


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "clusters.toml").write_text(
        PROFILES + '[far]\nkind = "local"\nssh = "me@far"\npython = "/bin/python"\n'
    )
    monkeypatch.chdir(tmp_path)
    return Store(f"memory://{secrets.token_hex(8)}/experiments")


def test_requests_are_kept_until_they_are_done(store: Store) -> None:
    first, other = store.create("recovery", 1), store.create("größe", 1)
    ask(first, "away", 2, 1)
    ask(first, "away", 2, 1)
    ask(first, "away", 12, 3)
    ask(other, "away", 1, 1)
    ask(other, "elsewhere", 1, 1)
    assert waiting(store, "away") == [Wanted("größe", 1, 1), Wanted("recovery", 2, 1), Wanted("recovery", 12, 3)]
    done(store, "away", Wanted("recovery", 2, 1))
    done(store, "away", Wanted("recovery", 2, 1))
    assert waiting(store, "away") == [Wanted("größe", 1, 1), Wanted("recovery", 12, 3)]
    # Neither inbox nor heartbeat is taken for a sweep.
    tell(store, "away", {"state": "serving"})
    assert told(store, "away")["state"] == "serving"
    assert told(store, "elsewhere") == {}
    assert store.names() == ["größe", "recovery"]


def square(n: int) -> int:
    return n * n


def test_a_cluster_is_refused_that_cannot_see_the_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="sees only buckets; write for example --store gs://"):
        mce.sweep(square, n=[1, 2], on="away", store=tmp_path / "experiments")
    assert not (tmp_path / "experiments").exists()
    with pytest.raises(OptionError, match="'far' is behind ssh and brings outcomes to a store in a folder here"):
        mce.sweep(square, n=[1, 2], on="far", store=str(shown(store.root)))


def test_asking_starts_nothing_here(store: Store) -> None:
    run = mce.sweep(square, n=[1, 2], on="away", store=shown(store.root))
    assert run.state == "queued"
    assert [wanted.name for wanted in waiting(store, "away")] == ["square"]
    intent = store.sweep("square").latest_intent()
    assert intent is not None
    # A machine may have to be started first.
    assert (intent.verb, intent.waits >= 600) == ("run", True)


def test_code_of_others_is_not_run_and_whoever_asked_is_told_why(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = mce.sweep(square, n=[1, 2], on="away", store=shown(store.root))
    # The user of the other machine has another key.
    (config_folder() / "signing.key").write_bytes(os.urandom(32))
    said: list[str] = []
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    run_station(Station("away", shown(store.root), idle=0.05, say=said.append))
    assert waiting(store, "away") == []
    assert any("was not signed by the user of this machine" in text for text in said)
    assert run.state == "stopped"
    assert "start `mce host` with --trust" in run.progress.message


def run_station(made: Station) -> None:
    """Run it in this process, whose signals it takes only for that time."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        made.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_requests_for_what_is_gone_or_not_wanted_any_more_are_done(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, paused = store.create("gone", 1), store.create("paused", 1)
    ask(gone, "away", 1, 1)
    ask(paused, "away", 1, 1)
    gone.remove()
    paused.add_intent("pause", by="me")
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    run_station(Station("away", shown(store.root), idle=0.05))
    assert waiting(store, "away") == []


def test_one_host_serves_a_profile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(station, "SILENCE", 30.0)
    beats = iter(range(1000))
    tell(store, "away", {"state": "serving", "host": "other", "pid": 1})
    monkeypatch.setattr(
        station, "told", lambda *_: {"state": "serving", "host": "other", "pid": 1, "time": next(beats)}
    )
    with pytest.raises(HostError, match=r"other \(pid 1\) serves 'away' in memory://"):
        run_station(Station("away", shown(store.root), idle=0.05))


def test_a_host_that_fell_silent_is_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(station, "SILENCE", 0.1)
    tell(store, "away", {"state": "serving", "host": "other", "pid": 1})
    run_station(Station("away", shown(store.root), idle=0.05))
    assert told(store, "away")["state"] == "ended"


class Busy:
    """A host of this machine, as far as a heartbeat tells of it."""

    @property
    def process(self) -> "Busy":
        return self

    def alive(self) -> bool:
        return True

    def state(self) -> dict[str, object]:
        return {"workers": 3}

    @property
    def folder(self) -> "Busy":
        return self

    @property
    def path(self) -> Path:
        return Path("/nowhere")


def test_a_host_has_a_heartbeat_while_it_is_busy_and_while_its_sweeps_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(station, "TELL_SECONDS", 0.05)
    seen: list[tuple[str, int]] = []

    def busy(*_: object) -> list[Wanted]:
        # As when a large sweep is brought here first, and when blocks are finished.
        first, end = told(store, "away"), time.monotonic() + 30
        while told(store, "away") == first and time.monotonic() < end:
            time.sleep(0.01)
        later = told(store, "away")
        seen.append((str(later["state"]), int(later["workers"])) if later != first else ("silent", 0))
        return []

    monkeypatch.setattr(station, "waiting", busy)
    monkeypatch.setattr(station, "stop_host", lambda *_: busy())
    made = Station("away", shown(store.root), idle=0.0)
    made._hosts["one"] = made._hosts["two"] = Busy()  # type: ignore[assignment]
    run_station(made)
    assert ("serving", 6) in seen
    assert ("ending", 6) in seen
    assert ("silent", 0) not in seen
    assert told(store, "away")["state"] == "ended"


def test_one_that_lets_its_sweeps_end_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(station, "SILENCE", 30.0)
    tell(store, "away", {"state": "ending", "host": "other", "pid": 1})
    states = iter(["ending", "ending", "ending", "ended"])
    monkeypatch.setattr(station, "told", lambda *_: {"state": next(states), "time": 0})
    run_station(Station("away", shown(store.root), idle=0.0))
    assert next(states, None) is None


def test_on_a_vm_of_ours_code_of_others_is_refused_with_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mce.sweep(square, n=[1, 2], on="away", store=shown(store.root))
    (config_folder() / "signing.key").write_bytes(os.urandom(32))
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    run_station(Station("away", shown(store.root), idle=0.05, vm="7"))
    # Nobody can copy anything to a folder of that VM, nor start `mce host` there.
    assert "`mce clusters stop away`" in run.progress.message
    assert "--trust" not in run.progress.message


def test_a_bucket_out_of_reach_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "LOOK_SECONDS", 0.01)
    fails = iter([True, True])

    def listed(*given: object) -> list[Wanted]:
        if next(fails, False):
            raise StoreError("no network")
        return []

    monkeypatch.setattr(station, "waiting", listed)
    run_station(Station("away", shown(store.root), idle=0.05))
    assert next(fails, None) is None


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_sweep_is_moved_from_here_to_there_and_back(server: str, machines: Callable[[str], Machine]) -> None:
    store = f"s3://{new_bucket(server)}/experiments"
    laptop, vm = machines("laptop"), machines("vm")
    working = vm.host(store, "--trust", "--idle", "200s")
    asking = laptop.python(f"""
        import time
        import mce_notebook as mce
        def slow(n, k):
            time.sleep(0.05)
            return n * k
        axes = dict(n=list(range(20)), k=list(range(20)), store={store!r})
        def until(count):
            while run.progress.done < count:
                time.sleep(0.1)
        run = mce.sweep(slow, on="local", **axes)
        until(40)
        run = mce.sweep(slow, on="away", **axes)
        until(160)
        run = mce.sweep(slow, on="local", **axes)
        found = run.result(timeout=200)
        print(int(found.slow.sum()))
        print(" ".join(sorted(set(claim.host["boot"] + str(claim.host["pid"]) for claim in run._store.epochs()))))
        import numpy as np
        from mce_notebook.store.reader import LogReader
        print(sum(len(batch) for batch in LogReader(run._store.paths).poll()))
    """)
    try:
        total, writers, outcomes = answer(asking).splitlines()
        assert int(total) == sum(range(20)) * sum(range(20))
        # Here and there; neither went on to the end beside the other, though some blocks crossed.
        assert len(writers.split()) == 2
        assert int(outcomes) < 640
        # Told to leave, it does so in good order.
        working.terminate()
        assert "slow: nothing left to do" in answer(working)
    finally:
        asking.kill()
        working.kill()
