"""The chain of `for` statements of a cell: its levels, what their headers list, what stands between them."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mce_notebook.declare.names import callee, mutations, read_names, reads, stores, targets

_PROGRESS = {"tqdm", "trange", "tqdm_notebook", "track", "progress_bar", "master_bar", "tnrange", "alive_it", "atpbar"}
_SILENT_CALLS = {"clear_output", "display.clear_output", "sys.stdout.flush", "sys.stdout.write", "gc.collect"}


class Problem(Exception):
    """Why the loop at `level` cannot be an axis; a refusal at level 0, one axis less at any other.

    Parameters
    ----------
    cause, fix : str
        One sentence each.
    node : ast.AST
        Where.
    level : int
        The outermost loop whose turns depend on each other.
    kind : str
        Which rewriting to offer.
    name : str
        The variable it is about.
    """

    def __init__(self, kind: str, node: ast.AST, cause: str, fix: str = "", *, level: int = 0, name: str = ""):
        super().__init__(cause)
        self.kind, self.node, self.cause, self.fix, self.level, self.name = kind, node, cause, fix, level, name


@dataclass
class Spec:
    """One iterable of a header.

    Parameters
    ----------
    target : ast.expr or None
        Names that receive each element; None when only counters do.
    iterable : ast.expr
        What is listed, without progress bars.
    counters : list of (str, ast.expr or None)
        Names that count the elements, with the start.
    picks : list of (str, ast.expr)
        Coordinates read as ``A[j]`` from a sequence A.
    """

    target: ast.expr | None
    iterable: ast.expr
    counters: list[tuple[str, ast.expr | None]] = field(default_factory=list)
    picks: list[tuple[str, ast.expr]] = field(default_factory=list)
    replicate: str = ""
    generator: str = ""

    @property
    def names(self) -> list[str]:
        """Coordinates the function may receive, without counters."""
        if self.replicate:
            return [self.replicate]
        own = [n.id for n in targets(self.target)] if self.target is not None else []
        return [n for n in own if n != "_"] + [n for n, _ in self.picks]


@dataclass
class Level:
    """One `for` of the chain.

    Parameters
    ----------
    node : ast.For
        The loop.
    specs : list of Spec
        One, or several for ``product(...)``.
    guards : list of (ast.expr, bool)
        Conditions at the top of the body; True means the condition skips, False that it keeps.
    body : list of ast.stmt
        The statements after the guards, progress bars and counters removed.
    before : list of ast.stmt
        Those above the inner loop.
    after : list of ast.stmt
        Those below it, which only put away a row list.
    inner : ast.For or None
        The next loop of the chain.
    """

    node: ast.For
    specs: list[Spec]
    guards: list[tuple[ast.expr, bool]]
    body: list[ast.stmt]
    before: list[ast.stmt] = field(default_factory=list)
    after: list[ast.stmt] = field(default_factory=list)
    inner: ast.For | None = None

    @property
    def names(self) -> list[str]:
        """Coordinates of all iterables."""
        return [name for spec in self.specs for name in spec.names]

    @property
    def counters(self) -> list[str]:
        """Names that only count."""
        return [name for spec in self.specs for name, _ in spec.counters]


@dataclass
class Noise:
    """What a sweep does without: progress bars, counters that are only shown, prints between the loops."""

    bars: set[str] = field(default_factory=set)
    counters: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    removed: list[ast.stmt] = field(default_factory=list)

    def strip(self, statements: Sequence[ast.stmt], *, prints: bool = False) -> list[ast.stmt]:
        """Return the statements that matter; `prints` says whether printing is noise here."""
        kept: list[ast.stmt] = []
        for statement in statements:
            if self.is_noise(statement, prints):
                self.removed.append(statement)
            else:
                kept.append(statement)
        return kept

    def is_noise(self, node: ast.stmt, prints: bool) -> bool:
        """Whether the statement only shows progress."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return isinstance(node.value.value, str) or node.value.value is ...
        if isinstance(node, ast.Pass):
            return True
        if isinstance(node, ast.Expr):
            return self._is_noisy_call(node.value, prints)
        if isinstance(node, ast.AugAssign):
            return isinstance(node.target, ast.Name) and node.target.id in self.counters
        if isinstance(node, ast.Assign):
            return is_progress(node.value) and all(isinstance(t, ast.Name) for t in node.targets)
        if isinstance(node, ast.If) and not node.orelse:
            shown = prints or bool(read_names(node.test) & (self.counters.keys() | self.bars))
            return all(self.is_noise(child, shown) for child in node.body)
        return False

    def _is_noisy_call(self, node: ast.expr, prints: bool) -> bool:
        name = callee(node)
        if not name:
            return False
        if name.partition(".")[0] in self.bars or name in _SILENT_CALLS:
            return True
        if name.rpartition(".")[2] == "write" and name.partition(".")[0] in _PROGRESS:
            return True
        if name == "print":
            return prints or bool(read_names(node) & self.counters.keys())
        return False


def is_progress(node: ast.AST) -> bool:
    """Whether a call makes a progress bar."""
    name = callee(node)
    return bool(name) and (name.rpartition(".")[2] in _PROGRESS or name.partition(".")[0] == "tqdm")


def find_noise(head: Sequence[ast.stmt], loop: ast.For) -> Noise:
    """Progress bars and counters of a cell."""
    noise = Noise()
    inside = list(ast.walk(loop))
    for node in (*head, *inside):
        if isinstance(node, ast.Assign) and is_progress(node.value):
            noise.bars |= {n.id for t in node.targets for n in targets(t)}
        if isinstance(node, ast.For) and is_progress(node.iter) and isinstance(node.iter, ast.Name):
            noise.bars.add(node.iter.id)
    noise.bars |= {"pbar"} & read_names(loop)
    for name, step in _steps(inside):
        if _bound_once(loop, name) and _only_shown(loop, name, noise):
            noise.counters[name] = step
    for node in head:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and type(node.value.value) is int:
            noise.starts |= {n.id: node.value.value for t in node.targets for n in targets(t)}
    return noise


def _steps(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, int]]:
    for node in nodes:
        if (
            isinstance(node, ast.AugAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(node.op, ast.Add)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, int)
        ):
            yield node.target.id, node.value.value


def _bound_once(loop: ast.For, name: str) -> bool:
    bound = [n for n in ast.walk(loop) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)]
    return len(bound) == 1


def _only_shown(loop: ast.For, name: str, noise: Noise) -> bool:
    """Whether a counter is read only in prints, in progress bars and in subscripts that are written."""
    allowed: set[int] = set()
    for node in ast.walk(loop):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            allowed |= {id(n) for n in reads(node.slice)}
        elif isinstance(node, ast.Call):
            called = callee(node)
            if called == "print" or called.partition(".")[0] in noise.bars:
                allowed |= {id(n) for n in reads(node)}
        elif isinstance(node, ast.If) and _prints_only(node, noise):
            allowed |= {id(n) for n in reads(node.test)}
        elif isinstance(node, ast.AugAssign):
            allowed.add(id(node.target))
    return all(id(n) in allowed for n in reads(loop) if n.id == name)


def _prints_only(node: ast.If, noise: Noise) -> bool:
    return not node.orelse and all(noise.is_noise(child, True) for child in node.body)


def unwrap(node: ast.expr) -> ast.expr:
    """Return an iterable without the progress bar or `list` around it."""
    while isinstance(node, ast.Call) and node.args:
        name = callee(node)
        short = name.rpartition(".")[2]
        if short in {"trange", "tnrange"}:
            call = ast.Call(ast.Name("range", ast.Load()), list(node.args), [])
            return ast.copy_location(ast.fix_missing_locations(ast.copy_location(call, node)), node)
        if is_progress(node) or name in {"list", "tuple", "iter"}:
            node = node.args[0]
            continue
        break
    return node


def header(node: ast.For) -> list[Spec]:
    """Return what a `for` lists."""
    return _header(node.target, unwrap(node.iter), node)


def _header(target: ast.expr, iterable: ast.expr, node: ast.For) -> list[Spec]:
    _check_target(target, node)
    name = callee(iterable).rpartition(".")[2]
    if isinstance(iterable, ast.Call) and not any(isinstance(a, ast.Starred) for a in iterable.args):
        if name == "enumerate" and _is_pair(target) and iterable.args:
            assert isinstance(target, ast.Tuple | ast.List)
            counter, rest = target.elts
            start = iterable.args[1] if len(iterable.args) > 1 else next((k.value for k in iterable.keywords), None)
            if isinstance(counter, ast.Name):
                return _enumerated(counter.id, start, _header(rest, unwrap(iterable.args[0]), node), rest, iterable)
        if name == "product":
            return _product(target, iterable, node)
        if name == "range" and len(iterable.args) == 1 and isinstance(target, ast.Name) and _sized(iterable.args[0]):
            return [Spec(None, iterable, [(target.id, None)])]
    return [Spec(target, iterable)]


def _enumerated(
    counter: str, start: ast.expr | None, specs: list[Spec], target: ast.expr, iterable: ast.Call
) -> list[Spec]:
    if len(specs) > 1:
        # A counter over a product runs through all its axes, so they stay one.
        specs = [Spec(target, unwrap(iterable.args[0]))]
    specs[0].counters.append((counter, start))
    return specs


def _is_pair(target: ast.expr) -> bool:
    return isinstance(target, ast.Tuple | ast.List) and len(target.elts) == 2


def _sized(node: ast.expr) -> ast.expr | None:
    """Return the sequence A of ``len(A)``, ``A.shape[0]`` or ``A.size``."""
    if isinstance(node, ast.Call) and callee(node) == "len" and len(node.args) == 1:
        return node.args[0]
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
        first = node.slice
        return node.value.value if isinstance(first, ast.Constant) and first.value == 0 else None
    return node.value if isinstance(node, ast.Attribute) and node.attr == "size" else None


def sequence_of(spec: Spec) -> ast.expr | None:
    """Return the sequence whose length a counter runs over."""
    if isinstance(spec.iterable, ast.Call) and callee(spec.iterable) == "range" and len(spec.iterable.args) == 1:
        return _sized(spec.iterable.args[0])
    return None


def _product(target: ast.expr, iterable: ast.Call, node: ast.For) -> list[Spec]:
    repeat = next((k.value for k in iterable.keywords if k.arg == "repeat"), None)
    factors = list(iterable.args)
    if repeat is not None:
        if not (isinstance(repeat, ast.Constant) and isinstance(repeat.value, int)):
            return [Spec(target, iterable)]
        factors *= repeat.value
    if not isinstance(target, ast.Tuple | ast.List) or len(target.elts) != len(factors):
        return [Spec(target, iterable)]
    return [
        spec
        for element, factor in zip(target.elts, factors, strict=True)
        for spec in _header(element, unwrap(factor), node)
    ]


def _check_target(target: ast.expr, node: ast.For) -> None:
    for child in ast.walk(target):
        if isinstance(child, ast.Starred | ast.Attribute | ast.Subscript):
            raise Problem(
                "target", node, f"`{ast.unparse(target)}` cannot name an axis.", "Use plain names in the `for`."
            )


def split_guards(statements: list[ast.stmt], noise: Noise) -> tuple[list[tuple[ast.expr, bool]], list[ast.stmt]]:
    """Conditions that leave points out, taken from the top of a body.

    A statement above the condition does not keep it from being a guard, unless it makes what the condition reads.
    """
    guards: list[tuple[ast.expr, bool]] = []
    kept: list[ast.stmt] = []
    for number, statement in enumerate(statements):
        if skips(statement, noise):
            assert isinstance(statement, ast.If)
            made = stores(kept) | {name for name, _, _ in mutations(kept)}
            # A write above the condition would be lost with the point.
            if not (read_names(statement.test) & made) and not any(_may_write(s) for s in kept):
                guards.append((statement.test, True))
                continue
        elif isinstance(statement, ast.If) and not statement.orelse and len(statements) == number + 1 and not kept:
            inner, rest = split_guards(noise.strip(statement.body), noise)
            return [*guards, (statement.test, False), *inner], rest
        kept.append(statement)
    return guards, kept


def skips(node: ast.stmt, noise: Noise) -> bool:
    """Whether a statement is ``if …: continue``, a print before it allowed."""
    if not isinstance(node, ast.If) or node.orelse or not isinstance(node.body[-1], ast.Continue):
        return False
    return all(noise.is_noise(child, True) for child in node.body[:-1])


def _may_write(node: ast.stmt) -> bool:
    return any(True for _ in mutations(node))


def descend(loop: ast.For, noise: Noise, axes: Sequence[str] | None) -> list[Level]:
    """Follow the chain of loops inwards as far as it can be followed by its form alone."""
    wanted = set(axes) if axes else None
    levels: list[Level] = []
    node: ast.For | None = loop
    while node is not None:
        if node.orelse:
            raise Problem(
                "else", node.orelse[0], "`else` after a loop has no meaning in a sweep.", "Put it after the loops."
            )
        specs = header(node)
        guards, body = split_guards(noise.strip(node.body), noise)
        level = Level(node, specs, guards, body)
        levels.append(level)
        if wanted is not None:
            wanted -= {*level.names, *level.counters}
        node = _inner(level, noise) if wanted is None or wanted else None
    if wanted:
        missing = ", ".join(sorted(wanted))
        raise Problem(
            "axes", loop, f"there is no loop over {missing} in this cell.", "Name loops of the chain in --axes."
        )
    _name_replicates(levels)
    return levels


def _inner(level: Level, noise: Noise) -> ast.For | None:
    loops = [i for i, s in enumerate(level.body) if isinstance(s, ast.For)]
    if not loops:
        return None
    where = loops[-1]
    after = noise.strip(level.body[where + 1 :], prints=True)
    before = level.body[:where]
    if after and not all(_puts_away(s, before) for s in after):
        return None
    level.before, level.after = noise.strip(before, prints=True), after
    inner = level.body[where]
    level.inner = inner if isinstance(inner, ast.For) else None
    return level.inner


def _puts_away(node: ast.stmt, before: list[ast.stmt]) -> bool:
    """Whether a statement stores a list that the level began empty: ``out.append(row)``, ``out[a] = row``."""
    name = row_stored(node)
    return name is not None and any(is_empty_list(s, name) for s in before)


def row_stored(node: ast.stmt) -> str | None:
    """Return the list put away by ``out.append(row)`` or ``out[a] = row``."""
    value: ast.expr | None = None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and len(node.value.args) == 1:
        if isinstance(node.value.func, ast.Attribute) and node.value.func.attr == "append":
            value = node.value.args[0]
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
        value = node.value
    return value.id if isinstance(value, ast.Name) else None


def is_empty_list(node: ast.stmt, name: str) -> bool:
    """Whether a statement is ``name = []``."""
    if not isinstance(node, ast.Assign):
        return False
    empty = isinstance(node.value, ast.List) and not node.value.elts
    empty = empty or (isinstance(node.value, ast.Call) and callee(node.value) == "list" and not node.value.args)
    return empty and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)


def _name_replicates(levels: list[Level]) -> None:
    """Call the axis of a loop over `_`, or over ``replicates(...)``, `replicate`."""
    taken = {name for level in levels for name in level.names}
    for spec in (spec for level in levels for spec in level.specs):
        if not isinstance(spec.target, ast.Name) or spec.picks:
            continue
        generates = callee(spec.iterable).rpartition(".")[2] == "replicates"
        if not generates and spec.target.id != "_":
            continue
        spec.generator = spec.target.id if generates and spec.target.id != "_" else ""
        taken.discard(spec.generator)
        number = 1
        while (name := "replicate" if number == 1 else f"replicate_{number}") in taken:
            number += 1
        taken.add(name)
        spec.replicate = name
