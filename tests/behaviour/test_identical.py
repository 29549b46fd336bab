"""The same cell in every way of running it gives the same bits, and what the plain cell gives when nothing is drawn."""

import dataclasses
import itertools
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mce_notebook.declare.options import Options
from mce_notebook.errors import DeclarationError
from mce_notebook.sweep import Sweep, declare_cell

PRELUDE = """
import math
import numpy as np
from mce_notebook import replicates

def mix(*values):
    total = 0.25
    for value in values:
        total = total * 1.37 + math.sin(float(value))
    return total

scale = 0.5
table = {"u": 0.125, "v": 2.5}
"""


@dataclass(frozen=True)
class Cell:
    """A cell, what it needs before it, and what can be asked of it."""

    text: str
    sinks: tuple[str, ...]
    draws: bool
    axes: tuple[str, ...]


if TYPE_CHECKING:
    import xarray as xr

VALUES = {
    "a": ["[1, 2, 3]", "range(4)", "[0.5]", "np.linspace(0, 1, 3)", "(3, 1, 2)"],
    "b": ["[10, 20]", "np.array([1.5, 2.5, 4.0])", "[True, False]", "[-1, 0, 1]"],
    "c": ["['u', 'v']", "list(table)", "['v']"],
    "d": ["[1e-3, 1e-2, 0.1]", "np.logspace(-2, 0, 3)", "[7]"],
}


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    """A cell with up to five axes whose outcomes are numbers, text or small arrays."""
    names = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4, unique=True))
    lines: list[str] = []
    known: list[str] = []
    depth = 0
    draws = False

    def emit(text: str) -> None:
        lines.append("    " * depth + text)

    numbers: list[str] = []
    for position, name in enumerate(names):
        ragged = position > 0 and numbers and name in "ad" and draw(st.integers(0, 4)) == 0
        zipped = not ragged and name == "b" and draw(st.booleans())
        if ragged:
            emit(f"for {name} in [k * 2 for k in range(1, 2 + int(abs({numbers[0]})) % 3)]:")
        elif zipped:
            emit("for b, b2 in zip([1, 2, 3], [0.5, 0.25, 0.125]):")
            numbers.append("b2")
            known.append("b2")
        else:
            emit(f"for {name} in {draw(st.sampled_from(VALUES[name]))}:")
        depth += 1
        known.append(name)
        numbers.append(f"table[{name}]" if name == "c" else name)
        if draw(st.integers(0, 4)) == 0 and name != "c":
            emit(f"if {name} * 2 == {draw(st.integers(0, 6))}: continue")
        last = position == len(names) - 1
        if not last and draw(st.integers(0, 3)) == 0:
            emit(f"s{position} = mix({', '.join(numbers)})")
            numbers.append(f"s{position}")
    if draw(st.booleans()):
        draws = True
        emit("for rng in replicates(2):")
        depth += 1
    emit(f"y = mix({', '.join(numbers)}) * scale" + (" + rng.normal()" if draws else ""))
    kind = draw(st.sampled_from(["append", "two", "dict", "array", "extend", "nested"]))
    head: list[str] = []
    coordinates = ", ".join(name for name in known)
    if kind == "append":
        head, sinks = ["rows = []"], ("rows",)
        emit(f"rows.append(({coordinates}, y, y * 2))")
    elif kind == "two":
        head, sinks = ["us = []", "vs = []"], ("us", "vs")
        emit("us.append(y)")
        emit("vs.append(int(y * 100))")
    elif kind == "array":
        head, sinks = ["rows = []"], ("rows",)
        emit("path = np.arange(3) * y")
        emit("rows.append({'y': y, 'path': path, 'label': f'{y:.1f}'})")
    elif kind == "extend":
        head, sinks = ["rows = []"], ("rows",)
        emit(f"rows += [({coordinates}, y)]")
    elif kind == "dict" and not draws:
        head, sinks = ["found = {}"], ("found",)
        emit(f"found[{coordinates}] = y")
    else:
        head, sinks = ["rows = []"], ("rows",)
        emit("if y > 0:")
        emit("    z = y ** 0.5")
        emit("else:")
        emit("    z = 0.0")
        emit("rows.append(z)")
    text = "\n".join([*head, *lines]) + "\n"
    return Cell(textwrap.dedent(text), sinks, draws, tuple(known))


pytestmark = pytest.mark.timeout(600)
COUNTER = itertools.count()
LAX = [
    HealthCheck.too_slow,
    HealthCheck.function_scoped_fixture,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
]


def run(cell: Cell, root: Path, **options: Any) -> Sweep:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(PRELUDE, namespace)
    handle = declare_cell("same", cell.text, namespace, Options.parse(**options), store=root)
    handle.result(timeout=60)
    return handle


def plain(cell: Cell) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(PRELUDE, namespace)
    exec(cell.text, namespace)
    return {sink: namespace[sink] for sink in cell.sinks}


def same(left: Any, right: Any) -> bool:
    """Equal to the last bit, in value and, for containers, in shape."""
    if isinstance(left, dict):
        return isinstance(right, dict) and list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(itertools.starmap(same, zip(left, right, strict=True)))
    if isinstance(left, np.ndarray):
        return bool(np.array_equal(left, right, equal_nan=True))
    return bool(left == right)


@settings(max_examples=20, deadline=None, suppress_health_check=LAX)
@given(cell=cells(), order=st.sampled_from(["coarse", "random", "listed"]))
def test_every_way_of_running_is_the_same(cell: Cell, order: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        expected = plain(cell)
    except ZeroDivisionError:
        return
    base = tmp_path_factory.mktemp(f"same{next(COUNTER)}")
    try:
        serial = run(cell, base / "serial", on="inline", serial=True)
    except DeclarationError as error:
        # Guards may leave no point at all; that is said, not run.
        if "no point" not in str(error):
            raise
        return
    found = {sink: serial.rows(sink) for sink in cell.sinks}
    if not cell.draws:
        assert same(found, expected), (cell.text, found, expected)
    else:
        assert {sink: len(rows) for sink, rows in found.items()} == {s: len(r) for s, r in expected.items()}
    spread = run(cell, base / "local", on="local", order=order)
    assert same({sink: spread.rows(sink) for sink in cell.sinks}, found), cell.text
    assert data(spread).identical(data(serial))
    for number, earlier in enumerate((begun(cell), constant(cell))):
        if earlier is None:
            continue
        grown = base / f"grown{number}"
        try:
            run(earlier, grown, on="inline", order="random")
        except DeclarationError as error:
            if "no point" not in str(error):
                raise
        again = run(cell, grown, on="inline")
        assert same({sink: again.rows(sink) for sink in cell.sinks}, found), (earlier.text, cell.text)
        assert data(again).identical(data(serial)), (earlier.text, cell.text)


def data(handle: Sweep) -> "xr.Dataset":
    """What was computed, without the provenance, which names the declaration and its time."""
    return handle.dataset.drop_attrs()


def begun(cell: Cell) -> Cell | None:
    """The cell with only the first value of its outermost axis, as if it were extended later."""
    lines = cell.text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("for "))
    header, values = lines[at].removesuffix(":").split(" in ", 1)
    if "zip(" in values:
        return None
    lines[at] = f"{header} in {values}[:1]:"
    return dataclasses.replace(cell, text="\n".join(lines) + "\n")


def constant(cell: Cell) -> Cell | None:
    """The cell with its outermost axis as a constant above the loops, where it has more axes."""
    lines = cell.text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("for "))
    header, values = lines[at].removesuffix(":").split(" in ", 1)
    inner = [line[4:] for line in lines[at + 1 :]]
    if "zip(" in values or not any(line.startswith("for ") for line in inner) or inner[0].startswith("if "):
        return None
    name = header.removeprefix("for ")
    if any(f"({name}," in line or f"[{name}" in line for line in inner) or f" {name} " in "".join(inner[:1]):
        # The rows hold the axis, which a constant would turn into one more output.
        return None
    return dataclasses.replace(cell, text="\n".join([*lines[:at], f"{name} = {values}[0]", *inner]) + "\n")


@pytest.mark.parametrize("slots", ["1", "3"])
def test_any_number_of_slots(slots: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
rows = []
for a in [1, 2, 3]:
    base = mix(a)
    for b in np.linspace(0, 1, 11):
        for rng in replicates(7):
            rows.append((a, b, base + rng.normal(size=3), rng.integers(9)))
"""
    cell = Cell(text, ("rows",), True, ("a", "b"))
    serial = run(cell, root / "serial", on="inline", serial=True)
    monkeypatch.setenv("MCE_HOST_WORKERS", slots)
    spread = run(cell, root / "spread", on="local", order="random")
    assert data(spread).identical(data(serial))
    assert same(spread.rows(), serial.rows())
