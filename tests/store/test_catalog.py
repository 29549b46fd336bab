import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from mce_notebook.declare.grid import Grid, grid, zipped
from mce_notebook.errors import AlreadyExists, CorruptStore, NameConflict, StoreError, UnknownSweep
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.layout import Layout, find_root


def labels(design: Grid) -> list[tuple[object, ...]]:
    return list(design.points(0, design.size))


# Sweeps of a store


@pytest.mark.anywhere
def test_a_store_without_sweeps(store: Store) -> None:
    assert store.names() == []
    assert "recovery" not in store
    with pytest.raises(UnknownSweep, match=r"holds none"):
        store.sweep("recovery")
    assert not store.root.exists()


@pytest.mark.anywhere
def test_a_sweep_is_made_and_found(store: Store) -> None:
    made = store.create("Recovery", 2**127 + 1)
    assert store.names() == ["Recovery"]
    found = store.sweep("recovery")
    assert (found.name, found.id, found.root) == ("Recovery", made.id, 2**127 + 1)
    assert len(found.id) == 32
    assert Store(store.root).sweep("RECOVERY").id == made.id


@pytest.mark.anywhere
def test_names_are_unique_whatever_their_case(store: Store) -> None:
    store.create("Recovery", 1)
    with pytest.raises(AlreadyExists):
        store.create("Recovery", 1)
    with pytest.raises(NameConflict, match="in case only"):
        store.create("recovery", 1)
    assert store.names() == ["Recovery"]


@pytest.mark.anywhere
def test_a_misspelled_name_is_corrected(store: Store) -> None:
    store.create("recovery", 1)
    with pytest.raises(UnknownSweep, match="did you mean 'recovery'"):
        store.sweep("recovry")
    with pytest.raises(UnknownSweep, match="it holds recovery"):
        store.sweep("zzz")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "a/b",
        "a b",
        "1a",
        "..",
        ".",
        ".hidden",
        "a\x00b",
        "C:\\x",
        "-rf",
        "for",
        "None",
        "__x__",
        "a" * 300,
    ],
)
@pytest.mark.anywhere
def test_hostile_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(NameConflict):
        store.create(name, 1)
    with pytest.raises(NameConflict):
        store.sweep(name)
    assert not store.root.parent.joinpath("x").exists()
    assert not store.root.exists()


@pytest.mark.anywhere
def test_names_may_be_any_identifier(store: Store) -> None:
    for name in ("größe", "数据", "_private", "a" * 200):
        assert store.create(name, 1).name == name
    # Python reads this ligature as two letters, and so do we.
    assert store.create("\ufb01t", 1).name == "fit"


@pytest.mark.anywhere
def test_two_creators_at_once(store: Store) -> None:
    won: list[SweepStore] = []
    lost: list[Exception] = []

    def create() -> None:
        try:
            won.append(store.create("race", 1))
        except AlreadyExists as error:
            lost.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 7
    assert store.sweep("race").id == won[0].id
    assert sorted(os.listdir(store.root)) == ["race"]


def test_a_sweep_of_a_newer_format_is_not_touched(store: Store) -> None:
    sweep = store.create("recovery", 1)
    record = json.loads(sweep.paths.sweep_json.read_text())
    sweep.paths.sweep_json.write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(StoreError, match="newer mce_notebook"):
        _ = store.sweep("recovery").id
    sweep.paths.sweep_json.write_text("{")
    with pytest.raises(CorruptStore, match=r"sweep\.json cannot be read"):
        _ = store.sweep("recovery").id


def test_archiving_frees_the_name(store: Store) -> None:
    for number in (1, 2):
        sweep = store.create("recovery", 1)
        identity = sweep.id
        target = sweep.archive()
        assert target.name == f"recovery-{number}"
        assert json.loads((target / "sweep.json").read_text())["id"] == identity
    assert store.names() == []
    assert store.archived() == ["recovery-1", "recovery-2"]


def test_what_a_writer_leaves_of_a_deleted_sweep_frees_the_name(store: Store) -> None:
    first = store.create("recovery", 1)
    shutil.rmtree(first.paths.folder)
    first.beat(1, {"points": 3})
    first.add_event(1, {"event": "stopped"})
    assert "recovery" not in store
    assert store.create("recovery", 2).events() == []


def test_a_folder_that_is_no_sweep_is_not_touched(store: Store) -> None:
    (store.root / "recovery").mkdir(parents=True)
    (store.root / "recovery" / "paper.tex").write_text("mine")
    with pytest.raises(StoreError, match=r"recovery is no sweep but has files in it \(paper.tex\)"):
        store.create("recovery", 1)
    assert (store.root / "recovery" / "paper.tex").read_text() == "mine"


@pytest.mark.anywhere
def test_removing_leaves_nothing(store: Store) -> None:
    sweep = store.create("recovery", 1)
    sweep.write_object(b"x")
    sweep.remove()
    assert store.names() == []
    with pytest.raises(UnknownSweep):
        _ = sweep.id if "id" not in vars(sweep) and not vars(sweep).pop("record", None) else SweepStore(sweep.paths).id


# Declarations


def declaration(**given: object) -> Declaration:
    return Declaration.of(grid(n=[1, 2], rho=np.linspace(0, 1, 3)), outputs=("a",), version="v1", **given)


@pytest.mark.anywhere
def test_a_declaration_comes_back(sweep: SweepStore) -> None:
    given = declaration(
        dims={"a": ("t", "k")},
        constants={
            "c": 1 + 2j,
            "x": float("nan"),
            "i": float("-inf"),
            "n": np.float32(0.1),
            "b": True,
            "s": "é",
            "none": None,
        },
        root=2**128 - 1,
        generation=3,
        rerun="failed",
        options={"order": "coarse", "timeout": 3.5},
        cell="for n in [1, 2]:\n    pass\n",
        notebook="a b.ipynb",
        notes=("axes n (2)",),
        sinks={"rows": {"kind": "append"}},
        environment="abc",
        selection={"n": [1]},
        hold_stale=False,
    )
    number = sweep.declare(given)
    back = sweep.declaration(number)
    for name in ("outputs", "dims", "root", "generation", "rerun", "options", "cell", "notes", "sinks", "selection"):
        assert getattr(back, name) == getattr(given, name), name
    assert back.number == number == 2
    assert back.created.endswith("+00:00")
    assert np.isnan(back.constants.pop("x"))  # type: ignore[attr-defined]
    assert back.constants == {name: value for name, value in given.constants.items() if name != "x"}
    assert type(back.constants["n"]) is np.float32
    assert type(back.constants["b"]) is bool
    assert labels(back.grid) == labels(given.grid)
    latest = sweep.latest()
    assert latest is not None
    assert latest.number == 2


@pytest.mark.anywhere
def test_long_axes_are_kept_beside_it_and_shared(sweep: SweepStore) -> None:
    rng = np.random.default_rng(0)
    design = grid(x=rng.normal(size=1200), s=[f"w{at}" for at in range(1001)]) + zipped(x=[1.0, 2.0], s=["a", "b"])
    numbers = [sweep.declare(Declaration.of(design, version="v")) for _ in range(2)]
    tables = list((sweep.paths.declarations / "tables").iterdir())
    assert tables
    back = sweep.declaration(numbers[0])
    assert back.grid.size == design.size
    for index in (0, 1, 999_999, design.size - 1):
        assert back.grid.point(index) == design.point(index)
    tables[0].write_bytes(tables[0].read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptStore, match="not what was written"):
        sweep.declaration(numbers[0])
    tables[0].unlink()
    with pytest.raises(CorruptStore, match="is missing"):
        sweep.declaration(numbers[1])


@pytest.mark.anywhere
def test_concurrent_declarers_get_different_numbers(sweep: SweepStore) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.extend(sweep.declare(declaration()) for _ in range(5)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(2, 27))
    assert [one.number for one in sweep.declarations()] == list(range(1, 27))


@pytest.mark.anywhere
def test_declarations_that_are_not_there_or_broken(sweep: SweepStore) -> None:
    with pytest.raises(UnknownSweep, match="no declaration 9"):
        sweep.declaration(9)
    for text in ("", "[]", "{}", '{"tables": {}}'):
        sweep.paths.declaration(9).write_text(text)
        with pytest.raises(CorruptStore):
            sweep.declaration(9)


@pytest.mark.anywhere
def test_fields_of_later_versions_are_passed_over(sweep: SweepStore) -> None:
    record = json.loads(sweep.paths.declaration(1).read_text())
    sweep.paths.declaration(2).write_text(json.dumps(record | {"invented": 1}))
    assert sweep.declaration(2).version == "v1"


# Intents, objects, code, writers


@pytest.mark.anywhere
def test_the_latest_intent_holds(sweep: SweepStore) -> None:
    assert sweep.latest_intent() is None
    sweep.add_intent("run", "notebook")
    sweep.add_intent("pause", "cli")
    latest = sweep.latest_intent()
    assert latest is not None
    assert (latest.number, latest.verb, latest.by) == (2, "pause", "cli")
    with pytest.raises(StoreError, match="'explode' is no intent"):
        sweep.add_intent("explode", "cli")


@pytest.mark.anywhere
def test_objects_are_kept_once(sweep: SweepStore) -> None:
    data = os.urandom(100_000)
    digest = sweep.write_object(data)
    assert sweep.write_object(memoryview(data)) == digest
    assert sweep.paths.object(digest).read_bytes() == data
    assert len(os.listdir(sweep.paths.objects)) == 1
    assert sweep.write_object(np.arange(4.0).data) == sweep.write_object(np.arange(4.0).tobytes())


@pytest.mark.anywhere
def test_code_is_kept_whole(sweep: SweepStore) -> None:
    files = {"manifest.json": b"{}", "modules/pack/a.py": b"x = 1\n"}
    folder = sweep.write_code("v1", files)
    assert folder == sweep.code_folder("v1")
    assert (folder / "modules/pack/a.py").read_bytes() == b"x = 1\n"
    sweep.write_code("v1", {"manifest.json": b"other"})
    assert (folder / "manifest.json").read_bytes() == b"{}"
    for name in ("../evil", "/tmp/evil", "a/../../evil"):
        with pytest.raises(StoreError, match="leads out"):
            sweep.write_code("v2", {name: b"x"})
    assert os.listdir(sweep.paths.folder / "code") == ["v1"]


def test_heartbeats_and_events(sweep: SweepStore) -> None:
    assert sweep.last_epoch() == 0
    assert sweep.heartbeat(3) == {}
    sweep.beat(3, {"counter": 1})
    sweep.beat(3, {"counter": 2})
    assert sweep.heartbeat(3) == {"counter": 2}
    assert sweep.epochs() == []
    sweep.add_event(1, {"what": "started \ud800"})
    sweep.add_event(2, {"what": "ended"})
    with sweep.paths.events(2).open("a") as file:
        file.write('{"what": "torn')
    assert [event["what"] for event in sweep.events()][1:] == ["ended"]


@pytest.mark.anywhere
def test_artifacts_are_found_by_point(sweep: SweepStore) -> None:
    assert sweep.artifacts(5) == []
    folder = sweep.artifact_folder(5)
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "plot.png").write_bytes(b"x")
    (folder / "link").symlink_to("/etc/passwd")
    assert sweep.artifacts(5) == [folder / "sub" / "plot.png"]
    # Another declaration lists the point elsewhere; its files stay where they are.
    sweep.declare(Declaration.of(grid(i=range(3, 9)), version="v1"))
    assert sweep.artifact_folder(2) == folder
    with pytest.raises(StoreError, match="no key of a point"):
        sweep.paths.artifact("../../x")


# Roots


@pytest.mark.anywhere
def test_a_configuration_that_cannot_be_written_is_no_reason_to_fail(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "file" / "config"))
    assert store.create("recovery", 1).name == "recovery"


def test_the_root_is_found_upward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    deep = project / "notebooks" / "deep"
    deep.mkdir(parents=True)
    assert find_root(deep) == deep / "experiments"
    Store(project / "experiments").create("recovery", 1)
    assert find_root(deep) == project / "experiments"
    (project / "notebooks" / ".git").mkdir()
    assert find_root(deep) == deep / "experiments"
    monkeypatch.setenv("MCE_STORE", str(tmp_path / "elsewhere"))
    assert find_root(deep) == tmp_path / "elsewhere"


def test_every_path_lies_in_its_sweep(tmp_path: Path) -> None:
    paths = Layout(tmp_path).sweep("recovery")
    made = [
        *(
            paths.intent(1),
            paths.declaration(1),
            paths.mask("0" * 32),
            paths.table("d"),
            paths.object("d"),
            paths.code("v"),
        ),
        *(paths.env("s"), paths.epoch(1), paths.beat(1), paths.segment(1, 0), paths.closed(1, 0)),
        *(paths.epoch_closed(1), paths.coverage(1), paths.reserve(1), paths.big_epoch(1), paths.events(1)),
        *(paths.artifact("0" * 32), paths.sealed_cube("s"), *paths.folders()),
    ]
    assert all(path.is_relative_to(tmp_path / "recovery") for path in made)
    assert len(set(made)) == len(made)


def test_the_catalogue_does_not_load_arrow() -> None:
    import subprocess
    import sys

    code = "import sys, mce_notebook.store.catalog, mce_notebook.store.layout; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
