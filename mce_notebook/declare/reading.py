"""One attempt at reading a cell with a given number of its loops as axes."""

import ast
import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mce_notebook.declare import independence
from mce_notebook.declare.axes import RESERVED
from mce_notebook.declare.names import Write, bindings, mutations, read_names, reads, stores, targets
from mce_notebook.declare.nesting import Level, Noise, Problem, Spec, descend, sequence_of
from mce_notebook.declare.points import Lowering
from mce_notebook.declare.sinks import Extraction, Sinks, check_reads, containers_made, find_sinks, take_rows
from mce_notebook.declare.slots import Outline, Slot, name_outputs
from mce_notebook.declare.templates import Scope, Template, find_aliases

LAST = "rows"
"""Name of the sink that stands for a last expression."""


@dataclass
class Frame:
    """What a cell says around its loops, the same for every attempt."""

    loop: ast.For
    noise: Noise
    head: Mapping[str, ast.expr]
    imported: set[str]
    axes: Sequence[str] | None


@dataclass
class Reading:
    """A cell understood.

    Parameters
    ----------
    levels : list of Level
        The loops that are axes.
    setups : list of (int, list of ast.stmt, list of str)
        Number of the level, statements, names given on.
    point : list of ast.stmt
        Statements of the point, `Write` nodes among them.
    runtime : list of ast.stmt
        Those of them that stood between the loops.
    """

    levels: list[Level]
    sinks: Sinks
    setups: list[tuple[int, list[ast.stmt], list[str]]] = field(default_factory=list)
    point: list[ast.stmt] = field(default_factory=list)
    outline: Outline = field(default_factory=lambda: Outline(Scope(set())))
    outputs: list[str] = field(default_factory=list)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    counters: dict[str, tuple[int, int]] = field(default_factory=dict)
    last: bool = False

    @property
    def specs(self) -> list[Spec]:
        """Iterables of all levels, outermost first."""
        return [spec for level in self.levels for spec in level.specs]

    @property
    def names(self) -> list[str]:
        """Coordinates of all levels, counters left out."""
        return [name for spec in self.specs for name in spec.names]

    @property
    def generators(self) -> list[str]:
        """Loop variables that receive a generator."""
        return [spec.generator for spec in self.specs if spec.generator]

    def scope(self, records: Mapping[str, list[str]] | None = None) -> Scope:
        """Meaning of the names in the point; `records` gives the keys of dictionaries that are axes."""
        rebound = stores(self.point) | {name for _, body, _ in self.setups for name in stores(body)}
        axes = set(self.names) - rebound - set(self.generators)
        positions = {
            name: (number, begun)
            for number, spec in enumerate(self.specs)
            for name, start in spec.counters
            if name not in rebound and (begun := _start(start)) is not None
        }
        whole = {name: list(keys) for name, keys in (records or {}).items() if name not in rebound}
        axes -= whole.keys()
        return Scope(axes, positions, self.counters, self.aliases, whole)

    def lower(
        self, records: Mapping[str, list[str]] | None = None, plain: Collection[str] = ()
    ) -> tuple[Outline, list[ast.stmt], list[str]]:
        """Slots, statements of the point's function and names of its outputs; `plain` as `Outline` has it."""
        body = copy.deepcopy(self.point)
        outline = Outline(self.scope(records), plain)
        outline.run(body)
        taken = {*self.names, *(c for level in self.levels for c in level.counters)}
        taken |= {key for keys in (records or {}).values() for key in keys}
        outputs = name_outputs(outline.slots, taken)
        lowering = Lowering(outline)
        last = self.levels[-1].node.body[-1]
        return outline, lowering.run(body, last), outputs


def _start(node: ast.expr | None) -> int | None:
    if node is None:
        return 0
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None


def attempt(frame: Frame, depth: int | None) -> Reading:
    """Read the cell with its `depth` outermost loops as axes (None: as many as its form allows).

    Raises
    ------
    Problem
        With the outermost loop that cannot be an axis.
    """
    levels = descend(copy.deepcopy(frame.loop), frame.noise, frame.axes)[:depth]
    levels[-1].inner, levels[-1].before, levels[-1].after = None, [], []
    _check_names(levels)
    for level in levels:
        _pick(level, levels)
    sinks = find_sinks(levels, frame.head)
    reading = Reading(levels, sinks)
    extraction = Extraction(sinks)
    for number, level in enumerate(levels[:-1]):
        take_rows(level, sinks, number + 1)
        level.before = extraction.block(level.before)
        _check_mixed(level, number)
    _last_expression(reading)
    body = extraction.block(_without_made(levels, sinks))
    _split_setups(reading, body, frame.noise)
    statements = [*reading.point, *(s for level in levels for s in level.before), *_tests(levels)]
    _check_state(sinks, statements)
    check_reads(sinks, statements)
    independence.check(levels, reading.point, frame.head, frame.imported, asked=frame.axes is not None)
    _check_headers(reading)
    known = {*reading.names, *(c for level in levels for c in level.counters)}
    reading.aliases = find_aliases(reading.point, known - stores(reading.point))
    reading.counters = _point_counters(levels[-1], frame.noise)
    reading.outline, _, reading.outputs = reading.lower()
    _check_places(reading)
    return reading


def _without_made(levels: Sequence[Level], sinks: Sinks) -> list[ast.stmt]:
    """Return the body without ``if a not in D: D[a] = {}``."""
    kept: list[ast.stmt] = []
    for statement in levels[-1].body:
        made = containers_made(statement, sinks) if isinstance(statement, ast.If) else []
        if not made:
            kept.append(statement)
        sinks.made += [(*one, len(levels)) for one in made]
    return kept


def _point_counters(level: Level, noise: Noise) -> dict[str, tuple[int, int]]:
    """Names counted up once at the end of every point: where they start, and the step."""
    found: dict[str, tuple[int, int]] = {}
    written = False
    for statement in level.node.body:
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            if name in noise.counters and name in noise.starts:
                step = noise.counters[name]
                found[name] = (noise.starts[name] + (0 if written else step), step)
        written = written or any(True for _ in mutations(statement))
    return found


def _check_state(sinks: Sinks, statements: Sequence[ast.AST]) -> None:
    """Refuse an object of which every point changes the same part before it reads the whole."""
    used = read_names(statements)
    for write in (node for s in statements for node in ast.walk(s) if isinstance(node, Write)):
        fixed = not any(True for step in write.path for _ in reads(step))
        if write.op == "set" and write.base in used and fixed and write.path:
            place: ast.expr = ast.Name(write.base, ast.Load())
            for step in write.path:
                place = ast.Subscript(place, step, ast.Load())
            raise independence.mutated(ast.unparse(place), write.base, write, 0, "above the loops")


def _tests(levels: Sequence[Level]) -> list[ast.expr]:
    return [test for level in levels for test, _ in level.guards]


def _check_names(levels: Sequence[Level]) -> None:
    seen: set[str] = set()
    for level in levels:
        for name in (*level.names, *level.counters):
            if name in seen and name != "_":
                raise Problem("twice", level.node, f"two loops are both called `{name}`.", "Rename one.", name=name)
            if name in RESERVED - {"rng"}:
                raise Problem(
                    "reserved",
                    level.node,
                    f"`{name}` cannot name an axis, because results carry a column of that name.",
                    "Call it differently.",
                    name=name,
                )
            seen.add(name)


def _pick(level: Level, levels: Sequence[Level]) -> None:
    """Turn ``for j in range(len(A))`` into the axis A where j only serves to read ``A[j]``."""
    for spec in level.specs:
        sequence = sequence_of(spec)
        if spec.target is not None or sequence is None:
            continue
        counter = spec.counters[0][0]
        for statement in list(level.body):
            name = _picked_alias(statement, counter)
            if name is not None and _bound_count(levels[0].node, name) == 1:
                assert isinstance(statement, ast.Assign)
                assert isinstance(statement.value, ast.Subscript)
                spec.picks.append((name, statement.value.value))
                level.body.remove(statement)
                if statement in level.before:
                    level.before.remove(statement)
        _pick_direct(spec, counter, levels)
        if not spec.picks:
            spec.target, spec.counters = ast.copy_location(ast.Name(counter, ast.Store()), level.node), []


def _picked_alias(node: ast.stmt, counter: str) -> str | None:
    """Return the name of ``a = A[j]``."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        value = node.value
        if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Name) and value.slice.id == counter:
            return node.targets[0].id if isinstance(value.value, ast.Name | ast.Attribute) else None
    return None


def _bound_count(node: ast.AST, name: str) -> int:
    return sum(1 for other, _ in bindings(node) if other == name)


def _pick_direct(spec: Spec, counter: str, levels: Sequence[Level]) -> None:
    """Sequences read only as ``A[j]`` become coordinates of their own name."""
    places = [node for level in levels for node in (*level.body, *(t for t, _ in level.guards))]
    subscripts: dict[str, list[ast.Subscript]] = {}
    for place in places:
        for node in ast.walk(place):
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.ctx, ast.Load)
                and isinstance(node.value, ast.Name)
                and isinstance(node.slice, ast.Name)
                and node.slice.id == counter
                and not any(node is known for known in subscripts.get(node.value.id, []))
            ):
                subscripts.setdefault(node.value.id, []).append(node)
    lengths = {id(n) for level in levels if any(map(sequence_of, level.specs)) for n in reads(level.node.iter)}
    for name, nodes in subscripts.items():
        inside = {id(node.value) for node in nodes} | lengths
        alone = all(id(n) in inside for place in places for n in reads(place) if n.id == name)
        if not alone or any(name in stores(place) for place in places) or name in {n for n, _ in spec.picks}:
            continue
        spec.picks.append((name, ast.copy_location(ast.Name(name, ast.Load()), nodes[0])))
        swap = _Swap({id(node): name for node in nodes})
        for level in levels:
            level.body = [swap.visit(s) for s in level.body]
            level.before = [swap.visit(s) for s in level.before]
            level.guards = [(swap.visit(test), skip) for test, skip in level.guards]
            for other in level.specs:
                other.iterable = swap.visit(other.iterable)


class _Swap(ast.NodeTransformer):
    """Replaces some subscripts by names."""

    def __init__(self, nodes: dict[int, str]):
        self.nodes = nodes

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        name = self.nodes.get(id(node))
        if name is not None:
            return ast.copy_location(ast.Name(name, ast.Load()), node)
        return self.generic_visit(node)


def _check_mixed(level: Level, number: int) -> None:
    for statement in level.before:
        for node in ast.walk(statement):
            if isinstance(node, Write):
                raise Problem(
                    "mixed",
                    node,
                    f"`{node.base}` is written between the loops as well as inside them.",
                    level=number + 1,
                    name=node.base,
                )


def _last_expression(reading: Reading) -> None:
    """Take a last line of names, a tuple or a dictionary as the outputs, as a notebook does."""
    body = reading.levels[-1].body
    if not body or not isinstance(body[-1], ast.Expr):
        return
    value = body[-1].value
    names = isinstance(value, ast.Tuple) and all(isinstance(e, ast.Name | ast.Attribute) for e in value.elts)
    if not (isinstance(value, ast.Name | ast.Dict) or names):
        return
    base = value.id if isinstance(value, ast.Name) else LAST
    body[-1] = Write.at(body[-1], base, "append", [], value)
    reading.last = True
    reading.sinks.bases.discard(LAST)


def _split_setups(reading: Reading, body: list[ast.stmt], noise: Noise) -> None:
    """Divide what stands between the loops into setups, and what has to run with every point."""
    runtime: list[ast.stmt] = []
    made: set[str] = set()
    setups: list[tuple[int, list[ast.stmt]]] = []
    for number, level in enumerate(reading.levels):
        late = [(test, skip) for test, skip in level.guards if read_names(test) & (made | set(_generators(level)))]
        level.guards = [guard for guard in level.guards if guard not in late]
        runtime += [_skip(test, skip) for test, skip in late]
        if number == len(reading.levels) - 1:
            break
        cut = next((i for i, s in enumerate(level.before) if _continues(s)), len(level.before))
        cut = 0 if runtime else cut
        setup = level.before[:cut]
        runtime += level.before[cut:]
        made |= stores(level.before)
        if setup:
            setups.append((number, setup))
    reading.point = [*runtime, *body]
    _provide(reading, setups)


def _generators(level: Level) -> list[str]:
    return [spec.generator for spec in level.specs if spec.generator]


def _skip(test: ast.expr, skip: bool) -> ast.stmt:
    condition = test if skip else ast.copy_location(ast.UnaryOp(ast.Not(), test), test)
    node = ast.If(condition, [ast.copy_location(ast.Continue(), test)], [])
    return ast.copy_location(node, test)


def _continues(node: ast.stmt | ast.ExceptHandler) -> bool:
    """Whether a statement between the loops can go on to the next turn."""
    if isinstance(node, ast.Continue):
        return True
    if isinstance(node, ast.For | ast.While | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return any(
        _continues(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)
    )


def _provide(reading: Reading, setups: list[tuple[int, list[ast.stmt]]]) -> None:
    """Find what each setup gives on: the names it binds that something further in reads."""
    for index, (number, statements) in enumerate(setups):
        later: list[ast.AST] = [s for _, body in setups[index + 1 :] for s in body]
        wanted = read_names([*later, *reading.point])
        provides = [name for name in dict.fromkeys(n for n, _ in bindings(statements)) if name in wanted]
        if provides or any(isinstance(s, ast.Expr) for s in statements):
            reading.setups.append((number, statements, provides))


def _check_headers(reading: Reading) -> None:
    made: set[str] = set()
    for number, level in enumerate(reading.levels):
        for spec in level.specs:
            needed = sorted((read_names(spec.iterable) & made) - set(reading.names))
            if needed:
                raise Problem(
                    "ragged",
                    level.node,
                    f"the loop over {', '.join(n.id for n in targets(level.node.target))} needs `{needed[0]}`, "
                    "which is computed between the loops and known only on a worker.",
                    "Say in the `for` itself what it lists.",
                    level=number,
                    name=needed[0],
                )
        made |= stores(level.before)


def _covered(template: Template, specs: Sequence[Spec]) -> set[int]:
    """Return iterables on which a subscript depends."""
    if "axis" in template:
        return {n for n, spec in enumerate(specs) if template["axis"] in spec.names}
    if "position" in template:
        return {template["position"]}
    if "counter" in template:
        return set(range(len(specs)))
    if "record" in template:
        return set(range(len(specs)))
    inner = template.get("tuple", []) or list(template.get("names", {}).values())
    return {n for t in inner for n in _covered(t, specs)}


def _check_places(reading: Reading) -> None:
    """Refuse a place of a sink that several points would write."""
    specs = reading.specs
    owner = [number for number, level in enumerate(reading.levels) for _ in level.specs]
    for slot in reading.outline.slots:
        grouped = max((t["group"] for t in slot.path if "group" in t), default=0)
        covered = {n for t in slot.path for n in _covered(t, specs)} | {n for n, k in enumerate(owner) if k < grouped}
        if any("unknown" in t for t in _flat(slot.path)):
            raise _computed_place(slot)
        if slot.op == "set":
            missing = [n for n in range(len(specs)) if n not in covered]
            if missing and any("output" in t for t in _flat(slot.path)):
                raise _computed_place(slot)
            if missing:
                raise _overwritten(reading, slot.sites[0].write, specs[missing[0]])


def _computed_place(slot: Slot) -> Problem:
    write = slot.sites[0].write
    place = ", ".join(ast.unparse(step) for step in write.path)
    return Problem(
        "index",
        write,
        f"the place `{place}` in `{slot.base}` is not given by the axes alone, so points may write over each other.",
        "Append a row with that value in it.",
        name=slot.base,
    )


def _flat(path: Sequence[Template]) -> list[Template]:
    return [t for template in path for t in (template.get("tuple") or [template])]


def _overwritten(reading: Reading, write: Write, spec: Spec) -> Problem:
    name = (spec.names or [c for c, _ in spec.counters])[0]
    return Problem(
        "overwrite",
        write,
        f"every {name} writes to the same place of `{write.base}`, so only the last would remain.",
        f"Keep {name} with the result.",
        name=write.base,
    )
