"""Whether the turns of the loops depend on each other; an axis whose turns do cannot be one."""

import ast
from collections.abc import Iterator, Mapping, Sequence

from mce_notebook.declare.carriers import check_carriers
from mce_notebook.declare.names import bindings, callee, exposed, mutations, read_names, reads, stores
from mce_notebook.declare.nesting import Level, Problem

_GENERATORS = {"default_rng", "RandomState", "Generator", "Random", "SeedSequence", "PCG64", "Philox", "MT19937"}
_LIST_METHODS = {"append", "extend", "insert", "appendleft", "extendleft", "popleft", "sort", "reverse", "clear"}
_OTHER_METHODS = {"update", "add", "pop", "popitem", "remove", "discard", "fill", "setdefault"}
_GROWING = {"append", "concat", "vstack", "hstack", "concatenate", "column_stack", "union"}
_FRAME = {"loc", "iloc", "at", "iat"}
# Settings of libraries are not results, and children have their own.
_MODULES = {
    "plt",
    "np",
    "numpy",
    "os",
    "sys",
    "pd",
    "mpl",
    "matplotlib",
    "torch",
    "tf",
    "jax",
    "random",
    "warnings",
    "sns",
}


def check(
    levels: Sequence[Level],
    point: Sequence[ast.stmt],
    head: Mapping[str, ast.expr],
    imported: set[str],
    *,
    asked: bool = False,
) -> None:
    """Refuse what makes one point depend on another.

    Parameters
    ----------
    levels : sequence of Level
        The loops that would be axes, outermost first.
    point : sequence of ast.stmt
        Body of the innermost, its writes to sinks taken out.
    head : mapping
        What the cell binds above the loops.
    imported : set of str
        Names of modules.
    asked : bool
        The axes were named by the user, who knows what their turns do to objects.
    """
    regions = _regions(levels, point)
    for number, (level, region) in enumerate(zip(levels, regions, strict=True)):
        _check_forms(level, number, point if number == len(levels) - 1 else level.before)
        _check_carried(level, number, region)
    _check_generators(levels, regions, head)
    _check_mutations(levels, regions, point, head, imported)
    if not asked:
        check_carriers(levels, regions, head)


def _regions(levels: Sequence[Level], point: Sequence[ast.stmt]) -> list[list[ast.stmt]]:
    """Everything inside each loop, with the loops below as one statement."""
    regions: list[list[ast.stmt]] = []
    inner: list[ast.stmt] = list(point)
    for number in range(len(levels) - 1, -1, -1):
        level = levels[number]
        tests: list[ast.stmt] = [ast.copy_location(ast.Expr(test), test) for test, _ in level.guards]
        if number < len(levels) - 1:
            below = levels[number + 1]
            loop = ast.For(below.node.target, below.node.iter, inner or [ast.Pass()], [])
            inner = [*tests, *level.before, ast.copy_location(loop, below.node)]
        else:
            inner = [*tests, *inner]
        regions.insert(0, inner)
    return regions


def _check_forms(level: Level, number: int, statements: Sequence[ast.stmt]) -> None:
    for node, inside in _flat(statements):
        if isinstance(node, ast.Break) and not inside:
            raise Problem(
                "break",
                node,
                f"`break` ends the loop over {_named(level)} early, but points of a sweep all run.",
                "Use `continue` to leave points out.",
                level=number,
            )
        if isinstance(node, ast.Global):
            raise Problem("global", node, f"`global {', '.join(node.names)}` would change the notebook from a worker.")
    for statement in statements:
        for child in ast.walk(statement):
            if isinstance(child, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield | ast.YieldFrom):
                raise Problem("await", child, "points run as ordinary functions and cannot wait for a coroutine.")


def _flat(statements: Sequence[ast.stmt], inside: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    for node in statements:
        yield node, inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        deeper = inside or isinstance(node, ast.For | ast.While)
        yield from _flat(getattr(node, "body", []), deeper)
        for name in ("orelse", "finalbody"):
            yield from _flat(getattr(node, name, []), inside)
        for child in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            yield from _flat(child.body, inside)


def _named(level: Level) -> str:
    return ", ".join(level.names or level.counters)


def _check_carried(level: Level, number: int, region: Sequence[ast.stmt]) -> None:
    found = exposed(region, stores(level.node.target))
    bound = stores(region)
    for name, node in found.items():
        if name in bound:
            raise _carried(name, node, level, number, region)


def _carried(name: str, node: ast.Name, level: Level, number: int, region: Sequence[ast.stmt]) -> Problem:
    best = _best_so_far(name, region)
    if best is not None:
        return _best(best, name, number)
    where: ast.AST = next((n for other, n in bindings(list(region)) if other == name), node)
    grown = next((s for s in _statements(region) if isinstance(s, ast.Assign) and grows(s, name) is not None), None)
    if grown is not None:
        return Problem(
            "grow",
            grown,
            f"`{name}` is made anew from itself at every point, so every point would need the ones before it.",
            "Append to a list, and put it together after the loops.",
            level=number,
            name=name,
        )
    running = next((s for s in _statements(region) if _running_best(s, name)), None)
    if running is not None:
        return _best(running, name, number)
    adds = next((s for s in _statements(region) if isinstance(s, ast.AugAssign) and s.target is where), None)
    if adds is not None and isinstance(adds.value, ast.Constant):
        return Problem(
            "counter",
            adds,
            f"`{name}` counts the points and they use the number, which depends on their order.",
            "Count with `enumerate`.",
            level=number,
            name=name,
        )
    if adds is not None:
        return Problem(
            "accumulate",
            adds,
            f"`{name}` adds up over {_named(level)}, so every point would need the ones before it.",
            "Let every point keep its own result, and add up after the loops.",
            level=number,
            name=name,
        )
    return Problem(
        "carried",
        node,
        f"`{name}` is carried from one {_named(level)} to the next, so every point would need the one before it.",
        f"Give `{name}` its value inside the loop.",
        level=number,
        name=name,
    )


def _best(node: ast.stmt, name: str, number: int) -> Problem:
    return Problem(
        "best",
        node,
        f"`{name}` keeps the best so far, so every point would need the ones before it.",
        "Look for the best after the loops.",
        level=number,
        name=name,
    )


def grows(node: ast.Assign, name: str) -> ast.expr | None:
    """Return what ``x = np.append(x, y)`` or ``x = pd.concat([x, y])`` adds to a name."""
    if name not in stores(node.targets) or not isinstance(node.value, ast.Call):
        return None
    if callee(node.value).rpartition(".")[2] not in _GROWING:
        return None
    arguments = list(node.value.args[:1] if isinstance(node.value.args[0], ast.List | ast.Tuple) else node.value.args)
    if arguments and isinstance(arguments[0], ast.List | ast.Tuple):
        arguments = list(arguments[0].elts)
    added = [a for a in arguments if not (isinstance(a, ast.Name) and a.id == name)]
    itself = callee(node.value).partition(".")[0] == name
    return added[0] if len(added) == 1 and (len(arguments) == 2 or itself) and name not in read_names(added) else None


def _running_best(node: ast.stmt, name: str) -> bool:
    """Whether a statement is ``low = min(low, …)``."""
    if not isinstance(node, ast.Assign) or callee(node.value) not in {"min", "max", "np.minimum", "np.maximum"}:
        return False
    return name in stores(node.targets) and name in read_names(node.value)


def _best_so_far(name: str, region: Sequence[ast.stmt]) -> ast.If | None:
    """Return the ``if y < best: best = y`` that keeps a best."""
    for node in _statements(region):
        if isinstance(node, ast.If) and name in read_names(node.test) and name in stores(node.body):
            compares = any(isinstance(n, ast.Compare) for n in ast.walk(node.test))
            return node if compares else None
    return None


def _statements(region: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    return (node for node, _ in _flat(region))


def makes_generator(node: ast.AST) -> bool:
    """Whether an expression makes a random generator."""
    return callee(node).rpartition(".")[2] in _GENERATORS


def _check_generators(
    levels: Sequence[Level], regions: Sequence[Sequence[ast.stmt]], head: Mapping[str, ast.expr]
) -> None:
    used = {name.id: name for name in reads(list(regions[0]))}
    bound = stores(list(regions[0]))
    for name, value in head.items():
        if makes_generator(value) and name in used and name not in bound:
            raise generator_above(name, used[name])
    for number, level in enumerate(levels[:-1]):
        below = regions[number + 1]
        for statement in level.before:
            if isinstance(statement, ast.Assign) and makes_generator(statement.value):
                for name in sorted(stores(statement) & read_names(list(below))):
                    raise Problem(
                        "generator",
                        statement,
                        f"`{name}` is made once per {_named(level)} and advanced by every point inside, "
                        "so points would depend on their order.",
                        "Let `replicates` give every point a generator of its own.",
                        name=name,
                    )


def generator_above(name: str, node: ast.AST) -> Problem:
    """Return the refusal of a generator made before the loops."""
    return Problem(
        "generator",
        node,
        f"the generator `{name}` is made above the loops and advanced by every point, "
        "so points would depend on their order.",
        "Let `replicates` give every point a generator of its own.",
        name=name,
    )


def _check_mutations(
    levels: Sequence[Level],
    regions: Sequence[Sequence[ast.stmt]],
    point: Sequence[ast.stmt],
    head: Mapping[str, ast.expr],
    imported: set[str],
) -> None:
    everywhere = stores(list(regions[0])) | stores(levels[0].node.target)
    own = stores(list(point))
    made = [stores(level.before) for level in levels]
    for name, node, method in mutations(list(regions[0])):
        if name in own or name in imported or name in _MODULES:
            continue
        if name not in everywhere:
            frame = _frame(name, node)
            if frame is not None:
                raise frame
            if not method or _known_container(name, node, head):
                raise _mutated(name, node, 0, "above the loops")
            continue
        level = next((k for k in range(len(levels) - 1) if name in made[k]), None)
        if level is None or _inside(node, levels[level].before):
            continue
        if isinstance(node, ast.Subscript) or (method and _method(node) in _LIST_METHODS):
            raise _mutated(name, node, level + 1, f"once per {_named(levels[level])}")


def _frame(name: str, node: ast.AST) -> Problem | None:
    """Refuse rows put into a data frame, which has no place for them before all are known."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Attribute):
        return None
    if node.value.attr not in _FRAME or not isinstance(node.value.value, ast.Name):
        return None
    return Problem(
        "frame",
        node,
        f"`{ast.unparse(node)}` writes to a data frame made above the loops.",
        "Append the rows to a list, and make the frame after the loops.",
        name=name,
    )


def _inside(node: ast.AST, statements: Sequence[ast.stmt]) -> bool:
    return any(child is node for statement in statements for child in ast.walk(statement))


def _method(node: ast.AST) -> str:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def _known_container(name: str, node: ast.AST, head: Mapping[str, ast.expr]) -> bool:
    """Whether a method certainly changes the object: `append` always, `update` if the head shows a dictionary."""
    if _method(node) in _LIST_METHODS:
        return True
    made = head.get(name)
    shown = isinstance(made, ast.Dict | ast.Set | ast.List) or (
        made is not None and callee(made) in {"dict", "set", "list"}
    )
    return _method(node) in _OTHER_METHODS and shown


def mutated(text: str, name: str, node: ast.AST, level: int, where: str) -> Problem:
    """Return the refusal of an object that points share and change."""
    return Problem(
        "mutated",
        node,
        f"`{text}` changes `{name}`, which is made {where} and which other points read too.",
        f"Let every point change a copy of `{name}`.",
        level=level,
        name=name,
    )


def _mutated(name: str, node: ast.AST, level: int, where: str) -> Problem:
    return mutated(ast.unparse(node.func if isinstance(node, ast.Call) else node), name, node, level, where)
