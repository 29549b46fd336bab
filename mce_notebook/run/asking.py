"""What a slot does with a guard: it is evaluated as points are, over the axes it reads, from the signed snapshot."""

from collections.abc import Mapping
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from mce_notebook.declare.axes import Axis
from mce_notebook.declare.columns import coordinate
from mce_notebook.declare.experiment import Experiment
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.guards import Guard, asked_part
from mce_notebook.declare.parts import Part
from mce_notebook.errors import UntrustedCode
from mce_notebook.run.evaluator import Evaluator
from mce_notebook.run.outcome import meta

if TYPE_CHECKING:
    from mce_notebook.run.protocol import Task

OUTPUT = "kept"


def asked_grid(part: Part, guard: Guard) -> Grid:
    """Return the grid of what a guard is asked about: the product of the axes it reads."""
    smaller = asked_part(part, guard)
    # One that reads no axis is asked once.
    return Grid((smaller if smaller.axes else Part((Axis((coordinate("once", [0]),)),)),))


def asker(grid: Grid, values: Mapping[str, Any], task: "Task", **options: Any) -> Evaluator:
    """Return an evaluator of a guard.

    Parameters
    ----------
    grid : Grid
        Of the declaration, with what the bundle holds.
    values : mapping
        What the bundle holds of the grid.
    task : Task
        Names the guard.
    **options
        Passed to `Evaluator`.

    Raises
    ------
    UntrustedCode
        If the bundle does not hold the guard: text of a record is not executed.
    """
    assert task.guard is not None
    place, number = task.guard
    if f"{place}/all guards" not in values:
        raise UntrustedCode(f"The guards of {task.name!r} are not in its signed code; run the cell again.")
    guard = grid.parts[place].guards[number]
    test = guard.test()

    def kept(*row: Any) -> bool:
        return bool(test(*row))

    experiment = Experiment(task.name, kept, guard.names, (OUTPUT,), home=_read(guard))
    return Evaluator(
        experiment, asked_grid(grid.parts[place], guard), task.declaration, meta(task), reload=lambda: experiment,
        **options,
    )  # fmt: skip


def _filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        # A name that was never given a value.
        return False


def _read(guard: Guard) -> dict[str, Any]:
    """Return the names a guard reads besides axes, in which it is seen whether it changes anything.

    The very dictionary its functions have as globals, where they are all there is.
    """
    read = (guard.function, *guard.constants.values())
    homes = [one.__globals__ for one in read if isinstance(one, FunctionType) and one.__module__ == "__main__"]
    values = {name: value for name, value in guard.constants.items() if not isinstance(value, FunctionType)}
    for one in read:
        if isinstance(one, FunctionType):
            values |= {
                name: cell.cell_contents
                for name, cell in zip(one.__code__.co_freevars, one.__closure__ or (), strict=True)
                if _filled(cell)
            }
    if homes and not values:
        return homes[0]
    return {name: value for home in homes for name, value in home.items()} | values
