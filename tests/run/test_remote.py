"""The relay and its agent without a network between them: messages, what is sent, what comes back."""

import asyncio
import io
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mce_notebook as mce
from mce_notebook.errors import StoreError, UntrustedCode
from mce_notebook.frontends.cluster_actions import running
from mce_notebook.run.client import launch_for, stop_host
from mce_notebook.run.clusters.profiles import profile
from mce_notebook.run.registry import HostFolder, Launch, Process, machine, write_json
from mce_notebook.run.remote.connection import command
from mce_notebook.run.remote.feed import Feed
from mce_notebook.run.remote.hosting import SILENCE, FarHost
from mce_notebook.run.remote.landing import Landing
from mce_notebook.run.remote.link import Link
from mce_notebook.run.remote.looking import from_json, to_json
from mce_notebook.run.remote.mirror import Mirror
from mce_notebook.run.remote.place import Place, is_target
from mce_notebook.run.remote.wire import GREETING, NoMessage, Pipe, packed, receive
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.coverage import known, todo
from mce_notebook.store.frames import Outcomes, encode
from mce_notebook.store.journal import Journal, claim_epoch
from mce_notebook.store.litter import tidy
from mce_notebook.view.signs import HostSigns, boot_id

headers = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=4)


@given(st.lists(st.tuples(headers, st.binary(max_size=50)), max_size=5))
def test_messages_come_as_they_were_sent(messages: list[tuple[dict[str, Any], bytes]]) -> None:
    target = io.BytesIO()
    pipe = Pipe(io.BytesIO(), target)
    for header, payload in messages:
        pipe.say(header, payload)
    assert target.getvalue() == b"".join(packed(*message) for message in messages)
    there = Pipe(io.BytesIO(target.getvalue()), io.BytesIO())
    assert [there.hear() for _ in messages] == messages
    assert there.hear() is None

    async def heard() -> list[Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(target.getvalue())
        return [await receive(reader) for _ in messages]

    assert asyncio.run(heard()) == messages


@pytest.mark.parametrize("noise", [b"Last login: yesterday on tty1", bytes(12), b"\0\0\0\x02" + bytes(8) + b"[]"])
def test_what_is_no_message_is_refused(noise: bytes) -> None:
    async def hear() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(noise)
        await receive(reader)

    with pytest.raises(NoMessage):
        asyncio.run(hear())


def test_a_message_that_was_cut_is_none() -> None:
    whole = packed({"a": 1}, b"12345")
    for length in range(len(whole)):
        assert Pipe(io.BytesIO(whole[:length]), io.BytesIO()).hear() is None
    assert GREETING not in whole


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("login", (None, "login", None)),
        ("me@login.example.org:2222", ("me", "login.example.org", 2222)),
        ("me@[fe80::1]:22", ("me", "fe80::1", 22)),
    ],
)
def test_where_to_log_in(text: str, parts: tuple[Any, ...]) -> None:
    assert is_target(text)
    assert Place(text, "login", "", "").target == parts


@pytest.mark.parametrize("text", ["", "a b", "-oProxyCommand=x", "me@", "me@a@b", "a:b"])
def test_what_is_no_place_to_log_in(text: str) -> None:
    assert not is_target(text)


def test_what_a_profile_says_is_quoted_for_two_shells(tmp_path: Path) -> None:
    import subprocess

    marker = tmp_path / "it's; touch here"
    line = command(Place("x", "login", "/bin/echo", str(marker)), {"A": "$(touch no) '\""})
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == f"-P -m mce_notebook.run.remote.agent {marker}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_profile_survives_the_way_to_the_other_side() -> None:
    table = {"ssh": "me@login", "python": "~/env/bin/python", "directives": ["--qos=x"], "environment": {"A": "b"}}
    made = profile("slurm", table, Path("clusters.toml"))
    assert made.host == "login"
    assert from_json(json.loads(json.dumps(to_json(made)))) == made
    assert "~/env" in command(Place.of(made), {})  # type: ignore[arg-type]
    job = profile("slurm", {"host": "job", "max_walltime": "24h"}, Path("clusters.toml"))
    assert job.host_walltime == 86400
    assert Place.from_json(Place.of(job).to_json()) == Place.of(job)  # type: ignore[union-attr]


def test_a_relay_is_another_host_than_one_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mce_notebook.declare.options import Options

    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "clusters.toml").write_text(
        '[here]\nkind = "slurm"\n[there]\nkind = "slurm"\nssh = "a"\npython = "/p"\n'
        '[desk]\nkind = "local"\nssh = "b"\npython = "/p"\n'
    )
    here, there, desk = (launch_for(Options.parse(on=name)) for name in ("here", "there", "desk"))
    assert not here.place
    assert Place.from_json(there.place).ssh == "a"
    assert desk.profile == "desk"
    assert len({here.key, there.key, desk.key}) == 3


# A sweep on its way


def work(x: int, rng: np.random.Generator) -> np.ndarray:
    if x in (5, 6):
        (mce.scratch() / f"{x}.txt").write_text("left" * (x - 5))
    return rng.normal(size=300_000 if x == 3 else 2)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """A sweep that is done: the other side of what follows."""
    root = tmp_path_factory.mktemp("done") / "experiments"
    mce.sweep(work, x=range(12), on="inline", name="far", outputs=["y"], store=root).result()
    sweep = Store(root).sweep("far")
    # One more writer, whose outcome was large.
    number = claim_epoch(sweep.paths, {"host": "x", "pid": 1, "time": 0.0})
    latest = sweep.latest()
    assert latest is not None
    frames = encode(
        Outcomes([np.zeros(300_000)], {}), ("y",), declaration=1, ranges=[(3, 4)], meta={"version": latest.version},
        big=sweep.paths.big_epoch(number),
    )  # fmt: skip
    with Journal(sweep.paths, number) as journal:
        journal.append(frames)
    return sweep


class Wire:
    """Takes what a feed sends to a mirror, up to a number of messages."""

    def __init__(self, mirror: Mirror, most: int = 10**9):
        self.mirror = mirror
        self.left = most
        self.sent = 0

    def __call__(self, header: Any, payload: bytes) -> None:
        if not self.left:
            raise ConnectionError
        self.left -= 1
        self.sent += len(payload)
        self.mirror.take(json.loads(json.dumps(header)), payload)


def declared(tmp_path: Path, far: SweepStore) -> SweepStore:
    """The same sweep, declared and nothing known of it."""
    import shutil

    folder = tmp_path / "experiments" / "far"
    folder.parent.mkdir(parents=True)
    shutil.copytree(far.paths.folder, folder, ignore=shutil.ignore_patterns("e0*", "0000*.beat", "artifacts"))
    for path in (folder / "epochs").iterdir():
        path.unlink()
    return Store(folder.parent).sweep("far")


def content(sweep: SweepStore, epoch: int) -> dict[str, bytes]:
    folder = sweep.paths.log_epoch(epoch)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "reserve"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=6), st.randoms(use_true_random=False))
def test_a_log_arrives_whole_however_often_it_is_cut(
    done: SweepStore, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], chance: random.Random
) -> None:
    here = declared(tmp_path_factory.mktemp("here"), done)
    for cut in [*cuts, 10**9]:
        mirror = Mirror(SweepStore(here.paths), "login")
        mirror.site = "s"
        try:
            Feed(done, json.loads(json.dumps(mirror.have())), Wire(mirror, cut)).round()
        except ConnectionError:
            # Whatever is readable now is an outcome, and the last bytes may be lost with the power.
            declaration = here.latest()
            assert declaration is not None
            assert known(here, declaration).problems == []
            tear(here, chance)
    copied = {one.number: one.host["mirrors"]["epoch"] for one in here.epochs()}
    assert sorted(copied.values()) == [1, 2]
    for number, there in copied.items():
        assert content(here, number) == content(done, there)
    assert {path.name for path in here.paths.big.rglob("*.arrows")} == {
        path.name for path in done.paths.big.rglob("*.arrows")
    }
    again = Mirror(here, "login")
    again.site = "s"
    wire = Wire(again)
    assert not Feed(done, again.have(), wire).round()
    assert wire.sent == 0


def test_files_of_a_point_are_there_before_its_outcome(done: SweepStore, tmp_path: Path) -> None:
    here = declared(tmp_path, done)
    mirror = Mirror(here, "login")
    mirror.site = "s"
    declaration = here.latest()
    assert declaration is not None
    told: list[str] = []

    def send(header: Any, payload: bytes) -> None:
        told.append(header["what"])
        mirror.take(header, payload)
        status = known(here, declaration).status
        for x in (5, 6):
            assert not status[x] or here.artifacts(x), "its outcome came first"

    feed = Feed(done, mirror.have(), send)
    feed.round()
    assert known(here, declaration).status.all()
    for x, text in ((5, ""), (6, "left")):
        (path,) = here.artifacts(x)
        assert path.read_text() == text
    count = len(told)
    feed.artifacts()
    assert len(told) == count
    Feed(done, mirror.have(), send).artifacts()
    assert len(told) == count


def tear(sweep: SweepStore, chance: random.Random) -> None:
    """Do to files that grow what a power cut may."""
    for path in sweep.paths.log.rglob("*"):
        grows = path.suffix == ".arrows" and not path.with_suffix(".closed").exists()
        if grows or (path.name == "coverage" and not path.with_name("closed").exists()):
            size = path.stat().st_size
            with path.open("r+b") as file:
                lost = chance.randrange(min(64, size + 1))
                file.truncate(size - lost)
                file.seek(0, 2)
                file.write(bytes(chance.randrange(lost + 1)))


def test_two_relays_that_copy_the_same_log_do_no_harm(done: SweepStore, tmp_path: Path) -> None:
    here = declared(tmp_path, done)
    mirrors = [Mirror(SweepStore(here.paths), "login") for _ in range(2)]
    for mirror in mirrors:
        mirror.site = "s"
    haves = [mirror.have() for mirror in mirrors]
    for mirror, have in zip(mirrors, haves, strict=True):
        Feed(done, have, Wire(mirror)).round()
    declaration = here.latest()
    assert declaration is not None
    found = known(here, declaration)
    assert not todo(found, declaration).any()
    assert not found.problems


def test_names_that_lead_out_of_a_sweep_are_refused(done: SweepStore, tmp_path: Path) -> None:
    here = declared(tmp_path, done)
    mirror = Mirror(here, "login")
    mirror.take({"what": "epoch", "epoch": 1, "claim": {"host": "x"}}, b"")
    whole = {"at": 0, "last": True, "crc": 0, "time": 0, "epoch": 1}
    for what, name in [
        ("bytes", "../x.arrows"), ("bytes", "000001.closed"), ("marker", "../closed"), ("payload", "../../a.arrows"),
        ("payload", "e1/../../a.arrows"), ("artifact", "../x"), ("artifact", f"{'0' * 32}/../../../x"),
    ]:  # fmt: skip
        with pytest.raises(StoreError, match="is no file of a sweep"):
            mirror.take({"what": what, "file": name, **whole}, b"")
    for name in ("../x", "/etc/x", "code/../../x", ""):
        with pytest.raises(StoreError, match="leads out of the sweep"):
            Landing(tmp_path, "a" * 32, "far").put(name, 0, b"")
    with pytest.raises(StoreError, match="is no key"):
        Landing(tmp_path, "../../a", "far")


def sent(home: SweepStore, folder: Path) -> Landing:
    """What a relay sends, at the other side."""
    mirror = Mirror(home, "login")
    code, files = mirror.files()
    landing = Landing(folder, mirror.key, home.name)
    missing = landing.missing({name: path.stat().st_size for name, path in files.items()}, code)
    for name in missing:
        data = files[name].read_bytes()
        # In two pieces.
        landing.put(name, 0, data[: len(data) // 2])
        landing.put(name, len(data) // 2, data[len(data) // 2 :])
    landing.commit()
    mirror.site = landing.site
    digest, sidecar = mirror.known()
    if digest and digest != landing.told():
        landing.know(digest, sidecar)
    return landing


def test_what_is_sent_can_be_computed_there_and_what_is_known_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = np.arange(200_000.0)

    def total(x: int) -> float:
        return float(captured.sum()) + x

    root = tmp_path / "experiments"
    mce.sweep(total, x=range(5), on="inline", name="some", store=root).result()
    home = Store(root).sweep("some")
    # Elsewhere another key signs.
    config = tmp_path / "config"
    monkeypatch.setenv("MCE_CONFIG_DIR", str(config))
    with pytest.raises(UntrustedCode, match="not signed by you, so it is not sent to login"):
        Mirror(home, "login").files()
    monkeypatch.undo()
    landing = sent(home, tmp_path / "there")
    declaration = landing.sweep.latest()
    assert declaration is not None
    assert not todo(known(landing.sweep, declaration), declaration).any()
    seconds = known(landing.sweep, declaration).seconds
    assert np.isfinite(seconds).all()
    mirror = Mirror(home, "login")
    code, files = mirror.files()
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert landing.missing(sizes, code) == []
    mirror.site = landing.site
    assert mirror.known()[0] == landing.told()
    # More of it: only that is to be done.
    mce.sweep(total, x=range(8), on="inline", name="some", store=root, order="listed")
    landing = sent(home, tmp_path / "there")
    assert landing.sweep.numbers() == home.numbers()
    # A store that was deleted there is another one, to which all that is known here is told again.
    import shutil

    before = landing.site
    shutil.rmtree(landing.root)
    landing = sent(home, tmp_path / "there")
    assert landing.site != before
    latest = landing.sweep.latest()
    assert latest is not None
    assert not todo(known(landing.sweep, latest), latest).any()


def test_what_was_computed_there_is_not_told_back(done: SweepStore, tmp_path: Path) -> None:
    here = declared(tmp_path, done)
    mirror = Mirror(here, "login")
    mirror.site = "s"
    Feed(done, mirror.have(), Wire(mirror)).round()
    assert mirror.known() == ("", b"")
    mirror.site = "another"
    assert mirror.known()[1]


def test_damaged_code_is_not_signed_there(done: SweepStore, tmp_path: Path) -> None:
    mirror = Mirror(done, "login")
    code, files = mirror.files()
    landing = Landing(tmp_path, mirror.key, "far")
    for name in landing.missing(dict.fromkeys(files, 1), code):
        landing.put(name, 0, files[name].read_bytes() + (b" " if name.endswith("pickle") else b""))
    with pytest.raises(UntrustedCode):
        landing.commit()
    assert not landing.paths.code(code).exists()


def test_payloads_of_a_copied_log_are_no_litter(done: SweepStore, tmp_path: Path) -> None:
    here = declared(tmp_path, done)
    mirror = Mirror(here, "login")
    mirror.site = "s"
    mirror.show({"state": "starting", "time": 0})
    Feed(done, mirror.have(), Wire(mirror)).round()
    payloads = set(here.paths.big.rglob("*.arrows"))
    assert payloads
    tidy(here, 99, lambda claim: True)
    assert set(here.paths.big.rglob("*.arrows")) == payloads


# Signs of life


def test_a_sweep_elsewhere_lives_as_long_as_its_relay(done: SweepStore, tmp_path: Path) -> None:
    import time

    here = declared(tmp_path, done)
    mirror = Mirror(here, "login")
    mirror.site = "s"
    mirror.take({"what": "epoch", "epoch": 7, "claim": {"host": "n1", "pid": 1}}, b"")
    mirror.show({"state": "running", "workers": 3, "message": "hello", "time": time.time()})
    (epoch,) = here.epochs()
    signs = HostSigns.of(here, time.time())
    assert signs.alive
    assert signs.state(5, time.time()) == "running"
    assert (signs.workers, signs.message) == (3, "hello")
    beat = here.heartbeat(epoch.number)
    here.beat(epoch.number, beat | {"relay": {**beat["relay"], "pid": 2**22 + 1}})
    assert not HostSigns.of(here, time.time()).alive
    assert beat["relay"]["boot"] == boot_id()


def test_a_host_of_another_machine_lives_as_long_as_its_heart_beats(tmp_path: Path) -> None:
    import os

    host = FarHost(tmp_path, Launch())
    assert not host.alive()
    me = Process.current()
    (host.folder.claims / "000001.json").write_text(
        json.dumps({"number": 1, "process": {**me.__dict__, "machine": "other"}, "time": 0.0})
    )
    write_json(host.folder.state_file, {"pid": me.pid, "state": "ready", "counter": 4})
    assert machine() != "other"
    assert host.alive()
    old = host.folder.state_file.stat().st_mtime - 2 * SILENCE
    for path in (host.folder.state_file, host.folder.claims / "000001.json"):
        os.utime(path, (old, old))
    assert not host.alive()
    write_json(host.folder.state_file, {"pid": me.pid, "state": "stopped"})
    assert not host.alive()


def test_a_folder_that_machines_share_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    folder = FarHost(tmp_path, Launch()).folder
    assert (folder.path / HostFolder.SHARED).exists()
    assert not folder.socket.is_relative_to(tmp_path)
    assert not folder.scratch.is_relative_to(tmp_path)
    folder.socket.parent.rmdir()


def test_a_link_says_since_when_it_is_down() -> None:
    async def remarks() -> list[str]:
        link = Link(Place("login", "login", "/p", ""), {}, lambda: asyncio.sleep(0))
        found = [link.remark]
        link.why = "refused"
        found.append(link.remark)
        link.since = 0.0
        return [*found, link.remark]

    first, second, third = asyncio.run(remarks())
    assert first == "no connection to login yet"
    assert second == "no connection to login yet: refused"
    assert third.startswith("no connection to login since 19")
    assert third.endswith("(refused); the sweep goes on there")


class DeadEnd:
    """A link of which the far side answers everything, and sends one sweep's log whenever it is followed."""

    def __init__(self, far: SweepStore):
        self.place = Place("login", "login", "/p", "")
        self.up, self.refusal, self.remark = asyncio.Event(), "", ""
        self.up.set()
        self.far = far
        self.take: Any = None
        self.follows = 0

    def on(self, what: str, take: Any) -> None:
        self.take = take

    async def ask(self, header: Any, payload: bytes = b"") -> dict[str, Any]:
        if header["do"] == "follow":
            self.follows += 1
            self.have, self.turn = header["have"], header["turn"]
        if header["do"] == "order":
            asyncio.get_running_loop().create_task(self.send(int(header["order"])))
        return {"ok": True, "site": "s", "missing": [], "known": "", "intent": 1}

    async def send(self, order: int) -> None:
        messages: list[tuple[Any, bytes]] = []
        Feed(self.far, self.have, lambda header, payload: messages.append((header, payload))).round()
        beat = {"state": "done", "done": 12, "failed": 0, "total": 12}
        status = {
            "what": "status",
            "order": order,
            "active": False,
            "alive": True,
            "beat": beat,
            "intent": [1, "run", ""],
        }
        for header, payload in [*messages, (status, b"")]:
            await self.take({**header, "turn": self.turn}, payload)
            # Of an earlier telling, which goes on for a moment.
            await self.take({**header, "turn": self.turn - 1, "at": 1}, b"x")

    async def gone(self) -> None:
        await asyncio.sleep(3600)


def test_a_full_disk_here_loses_nothing(done: SweepStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mce_notebook.errors import StoreFull
    from mce_notebook.run.remote import errand
    from mce_notebook.run.store_ledger import StoreLedger

    here = declared(tmp_path, done)
    on = here.latest().options["on"]  # type: ignore[union-attr]
    monkeypatch.setattr(errand, "RETRY_SECONDS", 0.05)
    full = [True, False, True, True]
    real = Mirror.take
    messages: list[str] = []

    def take(mirror: Mirror, header: Any, payload: bytes) -> None:
        if header.get("file") == "000000.arrows" and full and full.pop():
            raise StoreFull("No room left")
        real(mirror, header, payload)

    monkeypatch.setattr(Mirror, "take", take)
    link: Any = DeadEnd(done)

    async def run() -> str:
        made = errand.Errand(
            StoreLedger(str(here.paths.folder.parent), "far"), on, link, lambda: messages.append(made._trouble)
        )
        return await made.run()

    assert asyncio.run(run()) == "done"
    assert link.follows >= 3
    declaration = here.latest()
    assert declaration is not None
    found = known(here, declaration)
    assert not todo(found, declaration).any()
    assert not found.problems
    import time

    assert HostSigns.of(here, time.time()).state(0, time.time()) == "done"


def test_what_is_shown_last_is_what_became_of_it(
    done: SweepStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine: the heartbeat before the last is still being written when the sweep has ended."""
    from mce_notebook.run.remote import errand
    from mce_notebook.run.store_ledger import StoreLedger

    here = declared(tmp_path, done)
    here.add_intent("cancel", by="you")
    on = here.latest().options["on"]  # type: ignore[union-attr]
    shown: list[str] = []
    real, begun = Mirror.show, threading.Event()

    def show(mirror: Mirror, beat: Any, *, new: bool = True) -> None:
        begun.set()
        if beat["state"] == "starting":
            time.sleep(0.5)
        real(mirror, beat, new=new)
        shown.append(beat["state"])

    monkeypatch.setattr(Mirror, "show", show)
    link: Any = DeadEnd(done)
    link.up.clear()

    async def run() -> str:
        made = errand.Errand(StoreLedger(str(here.paths.folder.parent), "far"), on, link, lambda: None)
        look = made._look

        async def after_a_beat() -> Any:
            await asyncio.to_thread(begun.wait, 30)
            return await look()

        monkeypatch.setattr(made, "_look", after_a_beat)
        return await made.run()

    assert asyncio.run(run()) == "cancelled"
    assert shown[-1] == "cancelled"
    assert HostSigns.of(here, time.time()).state(12, time.time()) == "cancelled"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A profile whose login node does not answer, with hosts of its own."""
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MCE_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "config").mkdir()
    table = '[nowhere]\nkind = "local"\nssh = "me@127.0.0.1:1"\npython = "/p"\n'
    (tmp_path / "config" / "clusters.toml").write_text(table)
    yield "nowhere"
    for host in running("nowhere"):
        stop_host(host)


def test_what_was_never_sent_is_cancelled_at_once(tmp_path: Path, nowhere: str) -> None:
    handle = mce.sweep(work, x=range(3), name="never", store=tmp_path / "s", on=nowhere)
    end = time.monotonic() + 60
    while "no connection to me@127.0.0.1:1 yet" not in handle.progress.message:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert handle.state == "queued"
    handle.cancel()
    assert handle.wait(30).state == "cancelled"
    assert "goes on there" not in handle.progress.message
    handle.resume()
    while "no connection" not in handle.progress.message:
        assert time.monotonic() < end + 60
        time.sleep(0.05)


def test_what_a_relay_has_sent_is_not_taken_for_cancelled_by_the_next(tmp_path: Path, nowhere: str) -> None:
    handle = mce.sweep(work, x=range(3), name="sent", store=tmp_path / "s", on="inline")
    sweep = Store(tmp_path / "s").sweep("sent")
    mirror = Mirror(sweep, "there")
    assert not mirror.sent()
    sweep.beat(claim_epoch(sweep.paths, {}), {"state": "interrupted", "sent": True})
    assert mirror.sent()
    assert handle.state == "done"
