"""A sweep sent to a worker that does not see the store."""

import dataclasses
from pathlib import Path

import pytest

from mce_notebook.declare import signing
from mce_notebook.declare.grid import grid
from mce_notebook.errors import UntrustedCode
from mce_notebook.plan import Block
from mce_notebook.run import delivery
from mce_notebook.run.protocol import Task
from mce_notebook.run.service import opened
from mce_notebook.store.frames import Frame
from tests.run.conftest import Notebook, read


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_mirrors", {})
    monkeypatch.setattr(delivery, "_seen", set())
    monkeypatch.setattr(delivery, "VISIBLE_SECONDS", 0.2)


@pytest.fixture
def task(tmp_path: Path, declare: object) -> Task:
    return declare(tmp_path / "experiments")  # type: ignore[operator,no-any-return]


@pytest.fixture
def declare() -> object:
    from mce_notebook.declare import bundle
    from mce_notebook.declare.experiment import from_function
    from mce_notebook.store.catalog import Store
    from mce_notebook.store.declaration import Declaration

    def made(root: Path) -> Task:
        notebook = Notebook()
        namespace = notebook.run("import numpy as np\nheld = np.arange(200_000.0)\ndef f(x):\n    return held[x]\n")
        points = grid(x=range(5))
        experiment = from_function(namespace["f"], points.names, name="f", outputs=("f",))
        sweep = Store(root).create("f", experiment.root)
        packed = bundle.pack(experiment, points, sweep.write_object)
        sweep.write_code(packed.key, packed.files)
        number = sweep.declare(
            Declaration.of(points, outputs=("f",), version=experiment.version.hash, root=experiment.root,
                           code=packed.key, cwd=str(root))
        )  # fmt: skip
        return Task(str(root), "f", number, experiment.version.hash, 0, str(root), epoch=1, sweep=sweep.id)

    return made


def hidden(task: Task, tmp_path: Path) -> Task:
    return dataclasses.replace(task, store=str(tmp_path / "elsewhere"))


def test_a_worker_that_sees_the_store_uses_it(task: Task) -> None:
    assert delivery.local(task) == task
    assert delivery.mirror_of(task.store, "f") == [task.store]


def test_a_worker_that_does_not_gets_all_a_slot_reads(task: Task, tmp_path: Path) -> None:
    there = hidden(task, tmp_path)
    assert delivery.local(there) is None
    answer = delivery.unseen(Block(((0, 5),)), "tls://w:1")
    assert (delivery.missing_at(answer), answer.leftover, answer.done) == ("tls://w:1", (Block(((0, 5),)),), 0)
    delivery.receive(there, delivery.collect(task))
    here = delivery.local(there)
    assert here is not None
    assert here.epoch is None, "it would write large payloads into a folder that nobody reads"
    assert Path(here.store).is_dir()
    assert delivery.mirror_of(there.store, "f") == [there.store, here.store]
    frames: list[Frame] = []
    opened(here).run(
        Block(((0, 5),)),
        each=True,
        budget=None,
        singly=False,
        dead={},
        flush=lambda more, done, failed: frames.extend(more),
    )
    assert {index: known.values["f"] for index, known in read(frames).items()} == {x: float(x) for x in range(5)}


def test_a_later_declaration_is_sent_to_the_same_place(task: Task, tmp_path: Path) -> None:
    there = hidden(task, tmp_path)
    delivery.receive(there, delivery.collect(task))
    here = delivery.local(there)
    later = dataclasses.replace(there, declaration=2)
    assert delivery.local(later) is None
    assert here is not None
    delivery.receive(there, delivery.collect(task))
    assert delivery.local(there) == here


def test_code_that_is_not_the_users_is_not_sent(task: Task) -> None:
    (signature,) = Path(task.store).rglob(signing.SIGNATURE)
    signature.write_text("0" * 64)
    with pytest.raises(UntrustedCode, match="not signed by you"):
        delivery.collect(task)
    assert delivery.local(task) is None, "nor is it run where it is seen"
