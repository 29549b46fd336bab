"""Real hosts, workers and slots; and what happens when each of them is killed."""

import itertools
import json
import os
import random
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

from mce_notebook.declare import bundle
from mce_notebook.declare.experiment import from_function
from mce_notebook.declare.grid import Grid, Status, grid
from mce_notebook.declare.options import Options
from mce_notebook.errors import HostError
from mce_notebook.run.client import HostHandle, ensure_host, find_host, hosts, stop_host
from mce_notebook.run.registry import HostFolder, Launch, machine
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.coverage import known
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.reader import LogReader

ROOT = Path(__file__).resolve().parents[2]


def product(x: int, y: int) -> int:
    return 1000 * x + y


def slow(x: int) -> int:
    time.sleep(0.02)
    return x * x


def endless(x: int) -> int:
    while True:
        time.sleep(3600)


@pytest.fixture
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own; whatever runs in it is killed in the end, by pid."""
    folder = tmp_path / "r"
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(folder))
    yield folder
    for host in hosts():
        os.kill(host.process.pid, signal.SIGKILL)
        host.close()


@pytest.fixture
def sweeps(tmp_path: Path, runtime_folder: Path) -> "Sweeps":
    return Sweeps(tmp_path / "experiments")


class Sweeps:
    """Declares sweeps in a store and asks hosts for them, as a kernel does."""

    def __init__(self, root: Path):
        self.root = root
        self.host: HostHandle | None = None

    def declare(self, function: Callable[..., Any], points: Grid, name: str, **options: Any) -> SweepStore:
        experiment = from_function(function, points.names, name=name)
        store = Store(self.root)
        sweep = store.sweep(name) if name in store else store.create(name, experiment.root)
        packed = bundle.pack(experiment, points, sweep.write_object)
        sweep.write_code(packed.key, packed.files)
        sweep.declare(
            Declaration.of(
                points,
                outputs=experiment.outputs,
                version=experiment.version.hash,
                code=packed.key,
                root=experiment.root,
                cwd=str(self.root.parent),
                options=Options.parse(**options).to_json(),
            )
        )
        return sweep

    def ask(self, verb: str, sweep: SweepStore, launch: Launch = Launch(workers=2)) -> dict[str, Any]:
        self.host = ensure_host(launch=launch)
        request = self.host.request({"verb": verb, "store": str(self.root), "name": sweep.name})
        return self.host.reply(request, 60)


def status(sweep: SweepStore) -> np.ndarray:
    declaration = sweep.latest()
    assert declaration is not None
    return known(sweep, declaration).status


def wait(what: Callable[[], Any], timeout: float = 60.0) -> Any:
    end = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def wait_done(sweep: SweepStore, timeout: float = 60.0) -> None:
    wait(lambda: not (status(sweep) == Status.PENDING).any(), timeout)


def state(sweep: SweepStore) -> str:
    epochs = sweep.epochs()
    return str(sweep.heartbeat(epochs[-1].number).get("state", "")) if epochs else ""


def values(sweep: SweepStore) -> dict[int, Any]:
    """Values by listed index, from the log; no point may be there twice."""
    found: dict[int, Any] = {}
    reader = LogReader(sweep.paths)
    for batch in reader.poll():
        (column,) = batch.columns.values()
        for at, index in enumerate(np.asarray(batch.index).tolist()):
            assert index not in found, f"point {index} was recorded twice"
            found[index] = column.data[at].as_py()
    assert not reader.problems
    return found


def listen(host: HostHandle, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        host.wait_change(seconds)


def family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def slot_processes(pid: int) -> list[psutil.Process]:
    found = []
    for process in family(pid):
        try:
            if "mce_notebook.run.slot" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def worker_processes(pid: int) -> list[psutil.Process]:
    slots = {process.pid for process in slot_processes(pid)}
    found = []
    for process in family(pid):
        try:
            if process.pid not in slots and "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def victims_of(kind: str, pid: int) -> list[psutil.Process]:
    if kind == "host":
        return [psutil.Process(pid)]
    return worker_processes(pid) if kind == "worker" else slot_processes(pid)


def pid_of(host: HostHandle | None) -> int:
    assert host is not None
    return host.process.pid


# Running


def test_a_sweep_is_computed_and_the_host_serves_the_next(sweeps: Sweeps) -> None:
    first = sweeps.declare(product, grid(x=range(40), y=range(50)), "first")
    assert sweeps.ask("run", first)["ok"]
    wait_done(first)
    pid = pid_of(sweeps.host)
    found = values(first)
    assert found == {at: 1000 * x + y for at, (x, y) in enumerate(itertools.product(range(40), range(50)))}
    wait(lambda: state(first) == "done")
    beat = first.heartbeat(1)
    assert (beat["done"], beat["failed"], beat["total"]) == (2000, 0, 2000)

    second = sweeps.declare(slow, grid(x=range(8)), "second")
    sweeps.ask("run", second)
    assert pid_of(sweeps.host) == pid
    wait_done(second)
    assert values(second) == {x: x * x for x in range(8)}
    # An unchanged sweep leaves no trace when asked for again, an extended one runs what is new.
    assert sweeps.ask("run", second) == {"ok": True, "state": "done"}
    assert len(second.epochs()) == 1
    sweeps.declare(slow, grid(x=range(12)), "second")
    sweeps.ask("run", second)
    wait_done(second)
    assert [epoch.number for epoch in second.epochs()] == [1, 2]
    assert sum(len(batch) for batch in LogReader(second.paths).poll()) == 12
    assert sweeps.host is not None
    everything = family(pid)
    stop_host(sweeps.host)
    assert not sweeps.host.alive()
    _, alive = psutil.wait_procs(everything, timeout=20)
    assert not alive


def test_requests_that_cannot_be_obeyed_are_answered(sweeps: Sweeps) -> None:
    host = ensure_host(launch=Launch(workers=1))
    reply = host.reply(host.request({"verb": "run", "store": str(sweeps.root), "name": "nothing"}), 30)
    assert reply["ok"] is False
    assert "nothing" in reply["error"]
    assert reply["type"] == "UnknownSweep"
    assert host.reply(host.request({"verb": "run"}), 30)["ok"] is False
    with pytest.raises(HostError, match="does not know 'dance'"):
        host.request({"verb": "dance"})
    stop_host(host)


def test_cancel_within_two_seconds_of_points_that_never_end(sweeps: Sweeps) -> None:
    sweep = sweeps.declare(endless, grid(x=range(20)), "forever")
    sweeps.ask("run", sweep)
    assert sweeps.host is not None
    sweeps.host.wait_ready()
    wait(lambda: sweep.heartbeat(1).get("in_flight"))
    time.sleep(1.0)
    begun = time.monotonic()
    sweeps.ask("cancel", sweep)
    wait(lambda: state(sweep) == "cancelled", 20)
    # Two seconds on a quiet machine; this one may be busy with other tests.
    assert time.monotonic() - begun < 8
    assert (status(sweep) == Status.PENDING).all()
    # It waits for `resume` then, even if the cell runs again.
    assert sweeps.ask("run", sweep)["state"] == "cancelled"
    assert sweeps.ask("resume", sweep)["ok"]
    wait(lambda: state(sweep) == "running")


def test_pause_and_resume_compute_every_point_once(sweeps: Sweeps) -> None:
    sweep = sweeps.declare(slow, grid(x=range(200)), "paused")
    sweeps.ask("run", sweep)
    wait(lambda: (status(sweep) == Status.DONE).sum() > 5)
    sweeps.ask("pause", sweep)
    wait(lambda: state(sweep) == "paused")
    done = (status(sweep) == Status.DONE).sum()
    assert done < 200
    time.sleep(0.5)
    assert (status(sweep) == Status.DONE).sum() == done
    sweeps.ask("resume", sweep)
    wait_done(sweep)
    assert values(sweep) == {x: x * x for x in range(200)}


def test_two_sweeps_share_the_slots(sweeps: Sweeps) -> None:
    long = sweeps.declare(slow, grid(x=range(1000)), "long")
    sweeps.ask("run", long)
    wait(lambda: (status(long) == Status.DONE).any())
    short = sweeps.declare(product, grid(x=range(2), y=range(4)), "short")
    sweeps.ask("run", short)
    wait_done(short)
    assert (status(long) == Status.PENDING).any()


# Finding


def test_two_kernels_at_once_start_one_host(runtime_folder: Path) -> None:
    code = (
        "from mce_notebook.run.client import ensure_host; from mce_notebook.run.registry import Launch; "
        "print(ensure_host(launch=Launch(workers=1)).process.pid)"
    )
    kernels = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, text=True) for _ in range(3)
    ]
    pids = {kernel.communicate(timeout=60)[0].strip() for kernel in kernels}
    assert len(pids) == 1
    (host,) = hosts()
    assert str(host.process.pid) in pids
    # It outlives those who started it.
    host.wait_ready()
    assert host.alive()


def test_finding_a_host_that_is_up_is_fast_and_imports_nothing_heavy(runtime_folder: Path) -> None:
    host = ensure_host(launch=Launch(workers=1))
    code = (
        "import sys, time; from mce_notebook.run.client import ensure_host; "
        "from mce_notebook.run.registry import Launch; ensure_host(launch=Launch(workers=1)); "
        "t = time.perf_counter(); h = ensure_host(launch=Launch(workers=1)); print(time.perf_counter() - t); "
        "print([m for m in ('numpy', 'dask', 'distributed', 'pyarrow', 'pandas', 'psutil') if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    ).stdout.splitlines()
    assert float(told[0]) < 1.0
    assert told[1] == "[]"
    host.close()


def test_an_idle_host_leaves(runtime_folder: Path) -> None:
    host = ensure_host(launch=Launch(workers=1, idle=1.0))
    wait(lambda: not host.alive(), 60)
    assert host.folder.state()["state"] == "stopped"
    assert find_host(Launch(workers=1)) is None
    assert not host.folder.socket.exists()


def test_a_request_made_while_an_idle_host_leaves_is_obeyed(sweeps: Sweeps) -> None:
    launch = Launch(workers=1, idle=1.0)
    sweep = sweeps.declare(slow, grid(x=range(5)), "late")
    host = ensure_host(launch=launch)
    wait(lambda: host.state().get("state") in ("draining", "stopped"), 60)
    # Left by a client that looked just before.
    host.request({"verb": "run", "store": str(sweeps.root), "name": "late"})
    wait_done(sweep)


def test_a_host_on_its_way_out_is_waited_for(sweeps: Sweeps) -> None:
    launch = Launch(workers=1)
    first = ensure_host(launch=launch)
    first.wait_ready()
    first.request({"verb": "shutdown"})
    wait(lambda: first.state()["state"] != "ready")
    second = ensure_host(launch=launch)
    assert second.process != first.process
    assert not first.alive()


def test_an_entry_with_a_reused_pid_is_no_host(runtime_folder: Path) -> None:
    launch = Launch(workers=1)
    folder = HostFolder.of(launch)
    process = {"machine": machine(), "hostname": "h", "pid": os.getpid(), "start": "1"}
    (folder.claims / "000001.json").write_text(json.dumps({"number": 1, "process": process, "time": 0.0}))
    assert find_host(launch) is None
    host = ensure_host(launch=launch)
    assert host.process.pid != os.getpid()
    wait(lambda: [path.name for path in folder.claims.iterdir()] == ["000002.json"])


def test_a_host_that_cannot_start_says_why(runtime_folder: Path) -> None:
    host = ensure_host(launch=Launch(profile="nowhere"))
    with pytest.raises(HostError, match="no cluster profile 'nowhere'"):
        host.wait_ready()


def test_a_python_that_is_not_there_is_told(runtime_folder: Path) -> None:
    with pytest.raises(HostError, match="could be started"):
        ensure_host(launch=Launch(python="/bin/false"))


# Killing


def test_the_host_dies_and_everything_of_it_and_the_client_hears_at_once(sweeps: Sweeps) -> None:
    sweep = sweeps.declare(slow, grid(x=range(300)), "cut")
    sweeps.ask("run", sweep)
    wait(lambda: (status(sweep) == Status.DONE).any())
    host = sweeps.host
    assert host is not None
    host.wait_change(0.01)
    everything = family(pid_of(host))
    assert len(everything) >= 4
    os.kill(pid_of(host), signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(HostError, match="is gone"):
        listen(host, 30)
    assert time.monotonic() - begun < 5
    _, alive = psutil.wait_procs(everything, timeout=20)
    assert not alive
    done = (status(sweep) == Status.DONE).sum()
    # The next host goes on where this one was cut.
    sweeps.ask("run", sweep)
    assert pid_of(sweeps.host) != host.process.pid
    wait_done(sweep)
    found = LogReader(sweep.paths).poll()
    assert sum(len(batch) for batch in found) >= 300 >= done


def test_a_worker_is_killed_and_the_sweep_goes_on(sweeps: Sweeps) -> None:
    sweep = sweeps.declare(slow, grid(x=range(300)), "worker")
    sweeps.ask("run", sweep)
    wait(lambda: (status(sweep) == Status.DONE).any())
    workers = worker_processes(pid_of(sweeps.host))
    assert workers
    workers[0].kill()
    wait_done(sweep)
    assert values(sweep) == {x: x * x for x in range(300)}
    host = sweeps.host
    wait(lambda: host is not None and host.state()["workers"] == 2)


@pytest.mark.timeout(300)
@pytest.mark.nightly
def test_kills_at_random_moments_lose_and_repeat_nothing(sweeps: Sweeps) -> None:
    chance = random.Random(os.environ.get("MCE_SEED", "7"))
    sweep = sweeps.declare(slow, grid(x=range(900)), "hunted")
    sweeps.ask("run", sweep)
    acknowledged = 0
    for _ in range(10):
        if not (status(sweep) == Status.PENDING).any():
            break
        time.sleep(chance.uniform(0.0, 0.5))
        host = find_host(Launch(workers=2))
        if host is None:
            sweeps.ask("run", sweep)
            continue
        kind = chance.choice(("host", "worker", "slot", "slot"))
        victims = victims_of(kind, host.process.pid)
        if victims:
            acknowledged = int((status(sweep) == Status.DONE).sum())
            chance.choice(victims).kill()
            if kind == "host":
                psutil.wait_procs(victims, 10)
                sweeps.ask("run", sweep)
        assert (status(sweep) == Status.DONE).sum() >= acknowledged
    wait_done(sweep, 120)
    assert (status(sweep) == Status.DONE).all()
    reader = LogReader(sweep.paths)
    found: dict[int, int] = {}
    for batch in reader.poll():
        (column,) = batch.columns.values()
        found.update(zip(np.asarray(batch.index).tolist(), column.data.to_pylist(), strict=True))
    assert found == {x: x * x for x in range(900)}
    assert not reader.problems


def test_of_two_hosts_on_one_sweep_the_second_takes_over(sweeps: Sweeps) -> None:
    sweep = sweeps.declare(slow, grid(x=range(100)), "twice")
    sweeps.ask("run", sweep, Launch(workers=1))
    sweeps.ask("run", sweep, Launch(workers=2))
    assert len(hosts()) == 2
    wait_done(sweep)
    wait(lambda: all(sweep.heartbeat(epoch.number).get("state") in ("moved", "done") for epoch in sweep.epochs()))
    assert (status(sweep) == Status.DONE).all()
    assert not LogReader(sweep.paths).problems


def test_sigterm_drains(sweeps: Sweeps) -> None:
    sweep = sweeps.declare(slow, grid(x=range(2000)), "drained")
    sweeps.ask("run", sweep)
    wait(lambda: (status(sweep) == Status.DONE).any())
    host = sweeps.host
    assert host is not None
    os.kill(host.process.pid, signal.SIGTERM)
    wait(lambda: not host.alive(), 40)
    assert state(sweep) == "interrupted"
    found = values(sweep)
    assert 0 < len(found) < 2000
    assert (status(sweep) == Status.DONE).sum() == len(found)


def once_then_fast(x: int) -> int:
    """Sleep for long the first time a point is computed: whoever waits for that sees a probe."""
    mark = Path(os.environ["MCE_MARK"]) / str(x)
    if not mark.exists():
        mark.touch()
        time.sleep(600)
    return x * x


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("MCE_MARK", str(folder))
    return folder


@pytest.mark.parametrize("victim", ["slot", "worker"])
def test_what_is_killed_during_the_probe_costs_no_point(sweeps: Sweeps, marks: Path, victim: str) -> None:
    sweep = sweeps.declare(once_then_fast, grid(x=[0, 1]), "probed")
    assert sweeps.ask("run", sweep)["ok"]
    wait(lambda: len(list(marks.iterdir())) == 2)
    for process in victims_of(victim, pid_of(sweeps.host)):
        process.kill()
    wait_done(sweep)
    assert values(sweep) == {0: 0, 1: 1}


def test_a_probe_is_cancelled_within_two_seconds(sweeps: Sweeps, marks: Path) -> None:
    sweep = sweeps.declare(once_then_fast, grid(x=[0, 1]), "probed")
    assert sweeps.ask("run", sweep)["ok"]
    wait(lambda: len(list(marks.iterdir())) == 2)
    asked = time.monotonic()
    sweep.add_intent("cancel", "a test")
    assert sweeps.ask("run", sweep)["ok"]
    wait(lambda: state(sweep) == "cancelled", 10)
    # Two seconds are promised; a machine full of tests may take longer to be asked.
    assert time.monotonic() - asked < 6
    assert (status(sweep) == Status.PENDING).all()
    assert sweeps.ask("resume", sweep)["ok"]
    wait_done(sweep)
    assert values(sweep) == {0: 0, 1: 1}


def test_a_probe_that_takes_long_times_out_and_is_named(sweeps: Sweeps, marks: Path) -> None:
    sweep = sweeps.declare(once_then_fast, grid(x=[0, 1]), "probed", timeout=1.0, retries=0)
    assert sweeps.ask("run", sweep)["ok"]
    wait_done(sweep)
    assert (status(sweep) == Status.TIMEOUT).all()


def test_a_long_probe_keeps_no_other_sweep_from_the_other_slot(sweeps: Sweeps, marks: Path) -> None:
    long = sweeps.declare(once_then_fast, grid(x=[0]), "long")
    assert sweeps.ask("run", long)["ok"]
    wait(lambda: len(list(marks.iterdir())) == 1)
    other = sweeps.declare(slow, grid(x=list(range(200))), "other")
    assert sweeps.ask("run", other)["ok"]
    wait_done(other, 90)
    assert (status(long) == Status.PENDING).all()
    long.add_intent("cancel", "a test")
    assert sweeps.ask("run", long)["ok"]
    wait(lambda: state(long) == "cancelled", 20)
