import json
import linecache
import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.errors import AlreadyExists, StoreError
from mce_notebook.store import bucket as module
from mce_notebook.store import bucket_journal, mirror
from mce_notebook.store.answers import read_draft, write_draft, write_mask
from mce_notebook.store.bucket import Bucket
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Frame, spill
from mce_notebook.store.journal import claim_epoch, open_journal
from mce_notebook.store.layout import find_root
from mce_notebook.store.places import address_of, folder_of, mirrored, root_path, shown
from mce_notebook.store.reader import LogReader
from tests.buckets import Weather, new_bucket, proxy, served, variables

Make = Callable[..., list[Frame]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture
def weather() -> Weather:
    return Weather()


@pytest.fixture
def remote(server: str, weather: Weather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store in a new bucket, reached through the proxy."""
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "RETRY_SECONDS", 3.0)
    monkeypatch.setattr(mirror, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(mirror, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(bucket_journal, "COMMIT_SECONDS", 0.0)
    with proxy(server, weather) as address:
        for name, value in variables(address).items():
            monkeypatch.setenv(name, value)
        yield f"s3://{new_bucket(server)}/experiments"


def seen(sweep: SweepStore) -> set[int]:
    found: set[int] = set()
    reader = LogReader(sweep.paths)
    for batch in reader.poll():
        index = np.asarray(batch.index)
        assert batch.columns["a"].values().tobytes() == np.sqrt(index).tobytes()
        found |= set(index.tolist())
    assert reader.problems == []
    return found


# Addresses


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("s3://lab/experiments", "s3://lab/experiments"),
        ("gs://lab//a/b/", "gs://lab/a/b"),
        (Path("s3://lab/experiments"), "s3://lab/experiments"),
        ("az://container/é ü", "az://container/é ü"),
        ("experiments", None),
        ("/tmp/s3:x", None),
        ("file:///tmp/x", None),
    ],
)
def test_addresses(said: str | Path, meant: str | None) -> None:
    assert address_of(said) == meant


@pytest.mark.parametrize("said", ["s3://", "gs:///", "s3://lab/../other", "s3://lab/./x"])
def test_addresses_that_name_no_bucket(said: str) -> None:
    with pytest.raises(StoreError, match="names no bucket; write for example"):
        address_of(said)


@pytest.mark.parametrize("said", ["ftp://a/b", "file:///tmp/x", "https://lab.example.org/x", "S3://lab/x"])
def test_addresses_of_other_kinds_make_no_folder(said: str) -> None:
    with pytest.raises(StoreError, match=f"'{said}' is no place for a store; write a folder, or the address of a buck"):
        root_path(said)


def test_a_root_tells_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path))
    root = root_path("gs://lab/ex periments/@é")
    assert root.parent == tmp_path / "buckets"
    assert mirrored(root / "recovery" / "log") == (root, "gs://lab/ex periments/@é")
    assert shown(root / "recovery") == "gs://lab/ex periments/@é/recovery"
    assert mirrored(tmp_path / "experiments") is None
    assert shown(tmp_path) == str(tmp_path)
    with pytest.raises(StoreError, match="too long"):
        root_path("s3://lab/" + "x" * 300)


def test_servers_with_buckets_of_the_same_name_have_mirrors_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = root_path("s3://lab/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    second = root_path("s3://lab/x")
    assert first != second
    found = mirrored(second)
    assert found is not None
    assert found[1] == "s3://lab/x"


def test_the_store_may_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCE_STORE", "s3://lab/x")
    assert find_root() == root_path("s3://lab/x")


def test_a_store_in_a_folder_needs_no_client() -> None:
    code = (
        "import sys, mce_notebook.store.journal, mce_notebook.store.catalog as c; c.Store('/tmp/none').names();"
        "print(any(name.startswith('obstore') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"pip install 'mce_notebook\[cloud\]'"):
        Bucket("s3://lab/x")


# Requests


def test_a_server_that_is_busy_is_asked_again(remote: str, weather: Weather) -> None:
    turns = iter(range(10_000))
    weather.each = lambda method, path: "busy" if next(turns) % 3 else ""
    bucket = Bucket(remote)
    bucket.put("a/b", b"1")
    bucket.create("a/c", b"2")
    assert bucket.get("a/b") == b"1"
    assert [(one.key, one.size) for one in bucket.entries("a")] == [("a/b", 1), ("a/c", 1)]
    assert [one.key for one in bucket.entries("a", after="a/b")] == ["a/c"]
    assert bucket.names("") == ["a"]
    bucket.delete(["a/b", "a/missing"])
    assert not bucket.exists("a/b")
    assert bucket.exists("a/c")
    with pytest.raises(FileNotFoundError):
        bucket.get("a/b")


def test_who_made_an_object_is_told_though_the_answer_was_lost(remote: str, weather: Weather) -> None:
    fates = ["lost"]
    weather.each = lambda method, path: fates.pop() if method == "PUT" and fates else ""
    Bucket(remote).create("claim", b"same")
    assert not fates
    # Another writer with the very same content was not first.
    with pytest.raises(AlreadyExists):
        Bucket(remote).create("claim", b"same")
    assert Bucket(remote).get("claim") == b"same"


def test_one_of_many_makes_an_object(remote: str) -> None:
    made: list[int] = []

    def attempt(number: int) -> None:
        bucket = Bucket(remote)
        for key in range(5):
            try:
                bucket.create(f"claim-{key}", b"%d" % number)
            except AlreadyExists:
                continue
            made.append(key)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(5))


@pytest.mark.parametrize(
    ("verb", "permission"), [("get", "s3:GetObject"), ("put", "s3:PutObject"), ("create", "s3:PutObject")]
)
def test_a_missing_permission_is_named(remote: str, weather: Weather, verb: str, permission: str) -> None:
    weather.each = lambda method, path: "refused"
    bucket = Bucket(remote)
    given: tuple[Any, ...] = ("x",) if verb == "get" else ("x", b"1")
    with pytest.raises(StoreError) as found:
        getattr(bucket, verb)(*given)
    assert f"The bucket {bucket.name!r} refuses to" in str(found.value)
    assert str(found.value).endswith(f"need the permission {permission}.")
    with pytest.raises(StoreError, match="s3:ListBucket"):
        bucket.entries("")


@pytest.mark.parametrize(
    ("address", "text", "told"),
    [
        ("s3://lab/x", "Error performing PUT http://169.254.169.254/latest/api/token", "set AWS_ACCESS_KEY_ID"),
        ("gs://lab/x", "Error performing GET http://metadata.google.internal/computeMetadata", "gcloud auth"),
        ("az://lab/x", "Error performing GET http://169.254.169.254/metadata/identity", "or run `az login`"),
    ],
)
def test_missing_credentials_are_told(address: str, text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    with pytest.raises(StoreError, match=told) as found:
        raise Bucket(address)._told("get", "x", ValueError(text))
    assert "There are no credentials for the bucket 'lab'" in str(found.value)


def test_an_address_that_needs_more_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StoreError, match=r"Account must be specified.*set AZURE_STORAGE_ACCOUNT_NAME"):
        Bucket("az://lab/x")


def test_a_bucket_that_is_not_there(remote: str) -> None:
    for call in (lambda one: one.put("x", b"1"), lambda one: one.entries(""), lambda one: one.get("x")):
        with pytest.raises(StoreError, match=r"There is no bucket 'nowhere-at-all': create it"):
            call(Bucket("s3://nowhere-at-all/x"))


def test_a_server_that_does_not_answer(remote: str, weather: Weather) -> None:
    weather.each = lambda method, path: "dead"
    bucket = Bucket(remote)
    with pytest.raises(StoreError, match=f"The bucket {bucket.name!r} did not get {remote}/x") as found:
        bucket.get("x")
    assert "\n" not in str(found.value)


# The store


def test_outcomes_are_shown_though_the_network_is_gone(
    remote: str,
    weather: Weather,
    sweep_in: Callable[[str], SweepStore],
    frames: Make,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = sweep_in(remote)
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {})) as journal:
        journal.append(frames(0, 10))
    weather.each = lambda method, path: "refused"
    with caplog.at_level(logging.WARNING):
        assert seen(sweep) == set(range(10))
    assert "is shown as it was known here" in caplog.text
    with pytest.raises(StoreError, match="s3:PutObject"):
        sweep.add_intent("pause", "me")
    with pytest.raises(StoreError, match="s3:ListBucket"):
        Store(remote).names()
    monkeypatch.setattr(module, "HASTY_SECONDS", 0.2)
    weather.each = lambda method, path: "dead"
    folder_of(sweep.paths.folder).bucket.__dict__.pop("hasty", None)  # type: ignore[attr-defined]
    assert Store(remote).names() == ["recovery"]


def test_what_the_bucket_refuses_is_not_acknowledged(
    remote: str, weather: Weather, sweep_in: Callable[[str], SweepStore], frames: Make
) -> None:
    sweep = sweep_in(remote)
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    journal.append(frames(0, 10))
    weather.each = lambda method, path: "refused" if method == "PUT" else ""
    with pytest.raises(StoreError, match="s3:PutObject"):
        journal.append(frames(10, 20))
    assert seen(sweep) == set(range(10))
    weather.each = lambda method, path: ""
    journal.append(frames(10, 20))
    journal.close()
    assert seen(sweep) == set(range(20))
    assert seen(another_machine(sweep)) == set(range(20))


def test_a_server_that_is_gone_for_a_while_costs_nothing(
    remote: str,
    weather: Weather,
    sweep_in: Callable[[str], SweepStore],
    frames: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(bucket_journal, "AGAIN_SECONDS", 0.05)
    sweep = sweep_in(remote)
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    journal.append(frames(0, 10))
    failed: list[str] = []

    def each(method: str, path: str) -> str:
        if len(failed) == 30:
            return ""
        failed.append(path)
        return "dead"

    weather.each = each
    journal.append(frames(10, 20))
    assert len(failed) == 30
    journal.append(frames(20, 30))
    journal.close()
    assert seen(another_machine(sweep)) == set(range(30))


def test_a_journal_can_be_closed_while_the_server_is_gone(
    remote: str,
    weather: Weather,
    sweep_in: Callable[[str], SweepStore],
    frames: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.2)
    sweep = sweep_in(remote)
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    journal.append(frames(0, 10))
    weather.each = lambda method, path: "dead"
    errors: list[StoreError] = []

    def append() -> None:
        try:
            journal.append(frames(10, 20))
        except StoreError as error:
            errors.append(error)

    thread = threading.Thread(target=append)
    thread.start()
    journal.close()
    thread.join(60)
    assert len(errors) == 1
    weather.each = lambda method, path: ""
    assert seen(another_machine(sweep)) == set(range(10))


def test_a_sweep_on_a_bad_day(remote: str, weather: Weather) -> None:
    """Requests that are refused, lost before or lost after they took effect: all outcomes, each once."""
    chance = random.Random(1)
    weather.each = lambda method, path: chance.choice([""] * 12 + ["busy", "lost", "dead"])
    square = in_a_cell("def square(n):\n    return n * n\n")["square"]
    run = mce.sweep(square, n=list(range(5000)), on="inline", store=remote)
    assert run.result(timeout=100).square.values.tolist() == [n * n for n in range(5000)]
    run.extend(n=[5000])
    assert int(run.result(timeout=100).square[-1]) == 5000 * 5000
    weather.each = lambda method, path: ""
    assert set(weather.seen)
    reader = LogReader(another_machine(Store(remote).sweep("square")).paths)
    listed = [int(index) for batch in reader.poll() for index in np.asarray(batch.index)]
    assert sorted(listed) == [*range(5001)]
    assert reader.problems == []


def another_machine(sweep: SweepStore) -> SweepStore:
    """The same sweep where nothing of it is known yet."""
    folder_of(sweep.paths.folder)._drop(sweep.paths.folder)  # type: ignore[attr-defined]
    return SweepStore(sweep.paths)


@pytest.fixture
def sweep_in() -> Callable[[str], SweepStore]:
    def make(address: str) -> SweepStore:
        from mce_notebook.declare.grid import grid
        from mce_notebook.store.declaration import Declaration

        made = Store(address).create("recovery", 42)
        made.declare(Declaration.of(grid(i=range(1000)), outputs=("a", "b"), version="v1"))
        return made

    return make


def test_payloads_are_there_before_what_refers_to_them(
    remote: str, weather: Weather, sweep_in: Callable[[str], SweepStore], frames: Make
) -> None:
    sweep = sweep_in(remote)
    epoch = claim_epoch(sweep.paths, {})
    with open_journal(sweep.paths, epoch) as journal:
        weather.seen.clear()
        journal.append([spill(frame, sweep.paths.big_epoch(epoch)) for frame in frames(0, 50)])
        puts = [path for method, path in weather.seen if method == "PUT"]
        assert ["/big/" in path for path in puts] == [True, False]
        assert seen(another_machine(sweep)) == set(range(50))
    assert seen(another_machine(sweep)) == set(range(50))


def test_a_finished_log_is_that_of_a_store_in_a_folder(
    remote: str, sweep_in: Callable[[str], SweepStore], frames: Make
) -> None:
    """So a bucket that was copied to a disk is a store, and any Arrow reader opens a segment of it."""
    import pyarrow as pa

    sweep = sweep_in(remote)
    with open_journal(sweep.paths, claim_epoch(sweep.paths, {}), roll=2000) as journal:
        for start in range(0, 300, 10):
            journal.append(frames(start, start + 10))
    bucket = Bucket(remote)
    keys = [entry.key for entry in bucket.entries("recovery/log")]
    assert not any("parts" in key for key in keys)
    segments = [key for key in keys if key.endswith(".arrows")]
    assert len(segments) > 2
    tables = [pa.ipc.open_stream(bucket.get(key)).read_all() for key in segments]
    assert [value for table in tables for value in table.column("b").to_pylist()] == list(range(300))
    stated = json.loads(bucket.get("recovery/log/e000001/closed"))
    assert stated["segments"] == len(segments)


def test_a_name_that_is_used_again_shows_nothing_of_the_first(
    remote: str, sweep_in: Callable[[str], SweepStore], frames: Make
) -> None:
    old = sweep_in(remote)
    late = open_journal(old.paths, claim_epoch(old.paths, {}))
    late.append(frames(0, 10))
    Store(remote).sweep("recovery").remove()
    fresh = sweep_in(remote)
    assert seen(fresh) == set()
    epoch = claim_epoch(fresh.paths, {})
    assert epoch == 1
    with open_journal(fresh.paths, epoch) as journal:
        journal.append(frames(20, 30))
        # The writer that knows nothing of all this goes on, and ends.
        late.append(frames(10, 20))
        late.close()
        journal.append(frames(30, 40))
    assert seen(another_machine(fresh)) == set(range(20, 40))


def test_sweeps_are_archived_and_removed(remote: str, sweep_in: Callable[[str], SweepStore]) -> None:
    store = Store(remote)
    identity = sweep_in(remote).id
    store.sweep("recovery").archive()
    assert store.names() == []
    assert store.archived() == ["recovery-1"]
    kept = json.loads(Bucket(remote).get(".archive/recovery-1/sweep.json"))
    assert kept["id"] == identity
    sweep_in(remote).remove()
    assert store.names() == []
    assert [entry.key for entry in Bucket(remote).entries("recovery")] == []


def in_a_cell(source: str) -> dict[str, Any]:
    """What a cell of a notebook defines: its code goes by value, without the modules around this test."""
    name = f"<cell {source[:20]}>"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), namespace)
    return namespace


def test_a_sweep_whose_maker_was_killed_is_completed(remote: str) -> None:
    """Its name is taken, and it has no declaration: running the cell again gives it one."""
    Store(remote).create("half", 1)

    half = in_a_cell("def half(n):\n    return n\n")["half"]
    found = mce.sweep(half, n=[1, 2, 3], on="inline", store=remote).result(timeout=60)
    assert found.half.values.tolist() == [1, 2, 3]


def test_many_commits_leave_few_objects(
    remote: str, weather: Weather, sweep_in: Callable[[str], SweepStore], frames: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_journal, "MERGE", 8)
    sweep = sweep_in(remote)
    journal = open_journal(sweep.paths, claim_epoch(sweep.paths, {}))
    bucket = Bucket(remote)
    most = 0
    for at in range(60):
        journal.append(frames(at, at + 1))
        most = max(most, sum("/parts/" in entry.key for entry in bucket.entries("recovery/log")))
    assert most <= 16
    # Killed here: what was merged and what was not are read alike.
    assert seen(another_machine(sweep)) == set(range(60))


def test_the_number_of_requests_of_a_sweep(remote: str, weather: Weather) -> None:
    """What the documentation says it costs."""
    cheap = in_a_cell("def cheap(n, k):\n    return n * k\n")["cheap"]
    mce.sweep(cheap, n=list(range(100)), k=list(range(100)), on="inline", store=remote).result(timeout=60)
    puts = sum(method == "PUT" for method, _ in weather.seen)
    objects = len(Bucket(remote).entries("cheap"))
    assert objects <= 18, objects
    assert puts <= 25, puts


def test_what_slow_guards_keep_is_seen_from_other_machines(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0123456789abcdef" * 2
    design = mce.grid(n=range(20_000)).where(lambda n: n % 3 == 0)
    here = Store(remote).create("guarded", 1)
    here.declare(Declaration.of(design.postponed(key), version="v"))
    write_draft(here, key, {(0, 0, 0): np.arange(20_000) < 9})
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path / "elsewhere"))
    there = Store(remote).sweep("guarded")
    assert there.declaration(1).deferred == key
    assert read_draft(there, key)[0, 0, 0].sum() == 9
    mask = design.mask()
    assert mask is not None
    write_mask(there, key, mask)
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path / "cache"))
    seen = here.declaration(1)
    assert not seen.deferred
    assert np.array_equal(seen.grid.mask(), mask)
    # Whoever evaluated them at the same time came second.
    write_mask(here, key, ~mask)
    monkeypatch.setenv("MCE_CACHE_DIR", str(tmp_path / "third"))
    assert np.array_equal(Store(remote).sweep("guarded").declaration(1).grid.mask(), mask)
