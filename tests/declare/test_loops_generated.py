"""Cells made at random: any mix of axes, guards, setups and sinks leaves what the plain cell leaves."""

import importlib.util
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_spec = importlib.util.spec_from_file_location("nest_harness", Path(__file__).with_name("test_loops.py"))
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)

ITERABLES = {
    "list": "[{i} + 1, {i} + 3]",
    "range": "range({i}, {i} + 3)",
    "linspace": "np.linspace({i}, {i} + 1, 3)",
    "tuple": "({i}, {i} + 0.5, {i} + 2)",
    "list of range": "list(range(2))",
    "tqdm": "tqdm([{i}, {i} + 7])",
    "reversed": "reversed([1, 2, {i} + 5])",
    "enumerate": None,
    "zip": None,
    "length": None,
    "ragged": None,
    "repeat": None,
}


@st.composite
def cells(draw):
    """A cell of one to four loops; its loops never depend on each other's results."""
    depth = draw(st.integers(1, 4))
    head, lines, names, counters = ["rows, other, table = [], [], {}", "X = [2, 3, 5]"], [], [], []
    setups = []
    margin = ""
    for level in range(depth):
        name = "abcd"[level]
        kind = draw(st.sampled_from(sorted(ITERABLES)))
        if kind == "ragged" and not names:
            kind = "list"
        if kind == "enumerate":
            start = draw(st.sampled_from(["", ", 1"]))
            lines.append(f"{margin}for {name}_n, {name} in enumerate([4, 6, {level}]{start}):")
            counters.append(f"{name}_n")
            names.append(name)
        elif kind == "zip":
            lines.append(f"{margin}for {name}, {name}_z in zip([1, 2, 3], [.5, .25, {level}]):")
            names += [name, f"{name}_z"]
        elif kind == "length":
            lines.append(f"{margin}for {name}_n in range(len(X)):")
            counters.append(f"{name}_n")
        elif kind == "ragged":
            whole = next((n for n in names if not n.endswith("_z")), None)
            lines.append(f"{margin}for {name} in [{whole} * 2, {whole} * 2 + 1]:")
            names.append(name)
        elif kind == "repeat":
            lines.append(f"{margin}for _ in range(2):")
        else:
            lines.append(f"{margin}for {name} in {ITERABLES[kind].format(i=level)}:")
            names.append(name)
        margin += "    "
        if names and draw(st.booleans()):
            lines.append(f"{margin}if {draw(st.sampled_from(names))} == {draw(st.integers(0, 4))}: continue")
        if draw(st.booleans()) and level < depth - 1:
            lines.append(f"{margin}s{level} = ({', '.join([*names, *setups, '1'])},)[0] * 3")
            setups.append(f"s{level}")
            if draw(st.booleans()):
                lines.append(f"{margin}print({setups[-1]})")
    known = [*names, *counters, *setups, "1"]
    lines.append(f"{margin}y = {' + '.join(known)}")
    lines.append(f"{margin}z = y * {draw(st.integers(2, 9))}")
    if draw(st.booleans()):
        lines.append(f"{margin}if y > {draw(st.integers(0, 20))}: continue")
    everything = ", ".join([*names, *counters])
    unique = bool(everything) and not any("for _ in" in line for line in lines)
    for sink in draw(st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True)):
        lines += [margin + line for line in written(sink, everything, unique)]
    return "\n".join([*head, *lines]) + "\n"


def written(sink, everything, unique):
    """Statements that write a result, in one of the ways people do."""
    if sink in (4, 5) and not unique:
        return ["other.append(y)"]
    return [
        [f"rows.append(({everything + ', ' if everything else ''}y, z))"],
        ["rows.append(z)"],
        ["rows.append({'y': y, 'z': z, 'kind': 'x'})"],
        ["if z % 2: other.append((y, z))", "else: rows.append((z, y))"],
        [f"table[{everything},] = z"],
        [f"table['y', {everything}] = {{'y': y, 'z': z}}"],
        ["for w in range(3):", "    other.append((w, y + w))"],
        ["try:", "    other.append(60 // int(z % 4))", "except ZeroDivisionError:", "    other.append(-1)"],
    ][sink]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(cells())
def test_generated_cell(cell):
    _, made = harness.swept(cell)
    wanted = harness.plain(cell)
    for name, value in made.items():
        assert harness.same(value, wanted[name]), f"{cell}\n{name}: {value!r} is not {wanted[name]!r}"
