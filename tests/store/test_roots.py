import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.store.catalog import Store
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.layout import roots_folder
from mce_notebook.store.roots import SWEPT_EVERY, remember_root, remembered_roots


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))


def test_roots_are_remembered_once_and_in_order(tmp_path):
    first = Store(tmp_path / "first")
    sweep = first.create("recovery", 1)
    second = tmp_path / "zweiter ß"
    second.mkdir()
    remember_root(second)
    remember_root(second)
    sweep.declare(Declaration.of(grid(n=[1])))
    assert remembered_roots() == [first.root, second]
    assert len(os.listdir(roots_folder())) == 2
    second.rmdir()
    assert remembered_roots() == [first.root]
    second.mkdir()
    assert remembered_roots() == [first.root, second]


def test_declaring_in_a_store_that_came_from_elsewhere_remembers_it(tmp_path, monkeypatch):
    sweep = Store(tmp_path / "store").create("recovery", 1)
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "another user"))
    assert remembered_roots() == []
    sweep.declare(Declaration.of(grid(n=[1])))
    assert remembered_roots() == [tmp_path / "store"]


def test_opening_remembers(tmp_path, monkeypatch):
    import mce_notebook as mce

    Store(tmp_path / "store").create("recovery", 1)
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "another user"))
    mce.open("recovery", tmp_path / "store")
    assert remembered_roots() == [tmp_path / "store"]


def test_rubbish_is_passed_over(tmp_path):
    remember_root(tmp_path)
    for name, text in {"a": "rubbish", "b": '["x"]', "c": '"relative"', "d": '"/a\\u0000b"', "e": ""}.items():
        (roots_folder() / name).write_text(text)
    (roots_folder() / "f").write_bytes(b"\xff")
    (roots_folder() / "g").mkdir()
    assert remembered_roots() == [tmp_path]


def test_what_is_gone_is_forgotten_in_time(tmp_path):
    for number in range(3 * SWEPT_EVERY):
        root = tmp_path / str(number)
        root.mkdir()
        remember_root(root)
        root.rmdir()
    assert len(os.listdir(roots_folder())) < 2 * SWEPT_EVERY


def test_processes_that_remember_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mce_notebook.store.roots import remember_root\n"
        "for n in range(10): remember_root(Path(sys.argv[1]) / f'{sys.argv[2]}-{n}')"
    )
    for process in range(4):
        for number in range(10):
            (tmp_path / f"{process}-{number}").mkdir()
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert {root.name for root in remembered_roots()} == {f"{p}-{n}" for p in range(4) for n in range(10)}
    assert all(json.loads(path.read_text()) for path in Path(roots_folder()).iterdir())
