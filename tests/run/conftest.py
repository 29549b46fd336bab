import ast
import linecache
import os
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mce_notebook.declare import bundle
from mce_notebook.declare.experiment import Experiment, from_function
from mce_notebook.declare.grid import Grid, Status
from mce_notebook.declare.routine import Routine, Setup
from mce_notebook.run import processes
from mce_notebook.run.protocol import Task
from mce_notebook.store.catalog import Store
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Failure, Frame, decode
from mce_notebook.store.messages import unpack


@dataclass(frozen=True)
class Known:
    """What the frames say about one point."""

    status: Status
    values: dict[str, Any]
    failure: Failure | None
    output: str


def read(frames: list[Frame]) -> dict[int, Known]:
    found: dict[int, Known] = {}
    for frame in frames:
        for data, record in unpack(frame.head + frame.body):
            batch = decode(data, record)
            columns = {name: (column.values(), column.valid) for name, column in batch.columns.items()}
            for place, index in enumerate(batch.index):
                assert int(index) not in found, f"point {index} twice"
                status = Status.DONE if batch.status is None else Status(int(batch.status[place]))
                values = {
                    name: value[place] for name, (value, valid) in columns.items() if valid is None or valid[place]
                }
                found[int(index)] = Known(status, values, batch.failures.get(place), batch.outputs.get(place, ""))
    return found


class Notebook:
    """Code as a notebook's cells define it: by value, in a namespace that is `__main__`."""

    count = 0

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def run(self, source: str) -> dict[str, Any]:
        source = textwrap.dedent(source)
        Notebook.count += 1
        filename = f"<cell {Notebook.count}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        exec(compile(source, filename, "exec"), self.namespace)
        return self.namespace

    def function(self, source: str, grid: Grid, **options: Any) -> Experiment:
        name = source.split("def ")[-1].split("(")[0]
        return from_function(self.run(source)[name], grid.names, **{"outputs": (name,), **options})

    def routine(self, source: str) -> Routine:
        source = textwrap.dedent(source)
        Notebook.count += 1
        (tree,) = ast.parse(source).body
        assert isinstance(tree, ast.FunctionDef)
        return Routine(tree, source, f"<cell {Notebook.count}>")

    def nest(
        self,
        point: str,
        setups: list[tuple[int, str, tuple[str, ...]]],
        *,
        captured: tuple[str, ...] = (),
        **fields: Any,
    ) -> Experiment:
        routine = self.routine(point)
        return Experiment(
            name="nest",
            point=routine,
            parameters=routine.parameters,
            setups=tuple(Setup(depth, self.routine(text), provides) for depth, text, provides in setups),
            namespace={name: self.namespace[name] for name in captured},
            home=self.namespace,
            root=7,
            **{"outputs": ("y",), **fields},
        )


@pytest.fixture
def own_templates() -> Iterator[None]:
    """Templates started in this test, with the environment it makes, and by nobody before."""
    processes.close()
    yield
    processes.close()


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def outcomes() -> Callable[[list[Frame]], dict[int, Known]]:
    return read


@pytest.fixture
def declared(tmp_path: Path) -> Callable[..., Task]:
    """Write an experiment and its grid into a store, as a kernel does."""

    def declare(experiment: Experiment, grid: Grid, **fields: Any) -> Task:
        store = Store(tmp_path / "experiments")
        name = experiment.name
        sweep = store.sweep(name) if name in store else store.create(name, experiment.root)
        packed = bundle.pack(experiment, grid, sweep.write_object)
        sweep.write_code(packed.key, packed.files)
        number = sweep.declare(
            Declaration.of(
                grid,
                outputs=experiment.outputs,
                constants=dict(experiment.constants),
                version=experiment.version.hash,
                code=packed.key,
                cwd=os.getcwd(),
                root=experiment.root,
                **fields,
            )
        )
        return Task(str(tmp_path / "experiments"), name, number, experiment.version.hash, 0, os.getcwd())

    return declare
