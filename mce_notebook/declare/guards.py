"""Guards: which combinations of a grid are points of the design.

Arithmetic over axes is evaluated with NumPy on broadcast columns where that provably gives what Python gives;
anything else runs as Python, over no more axes than the guard reads.
"""

import ast
import builtins
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.values import pack_value
from mce_notebook.declare.vectors import Unvectorisable, column_of, evaluate
from mce_notebook.errors import GridError

if TYPE_CHECKING:
    from mce_notebook.declare.grid import Part

Mask = npt.NDArray[np.bool_]
Slow = Callable[["Guard", Iterator[tuple[Any, ...]]], Sequence[bool]]

PYTHON_CHUNK = 65_536
MODULES: dict[str, Any] = {"np": np, "numpy": np, "math": math}


@dataclass(frozen=True)
class Guard:
    """A condition that points must meet.

    Parameters
    ----------
    expression : str or None
        A Python expression over `names` and `constants`; true keeps the point.
    function : callable or None
        Called with the values of `names`, in their order, instead of an expression.
    names : tuple of str
        The axes it reads.
    constants : mapping
        Everything else it reads. `math`, `np` and the builtins are known anyway.
    """

    expression: str | None = None
    function: Callable[..., Any] | None = None
    names: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.expression is not None:
            return self.expression
        return getattr(self.function, "__name__", "a function") if self.function is not None else "a function"

    @property
    def whole(self) -> bool:
        """Whether it can be evaluated here: a record keeps no functions."""
        if self.expression is None:
            return self.function is not None
        return _names_read(self.expression) <= {*self.names, *self.constants, *MODULES, *dir(builtins)}

    @property
    def recordable(self) -> bool:
        """Whether a record keeps all of it: an expression over values that have a text form."""
        return self.expression is not None and all(pack_value(value) is not None for value in self.constants.values())

    def test(self) -> Callable[..., Any]:
        """Return the function of the values of `names` that tells whether a point is kept."""
        if self.function is not None:
            return self.function
        if self.expression is None:
            raise GridError("The code of this guard is not known here; run the cell that declares the grid again.")
        code = compile(ast.Expression(_lambda(self)), f"<guard {self.expression}>", "eval")
        test: Callable[..., Any] = eval(code, {"__builtins__": builtins, **MODULES, **self.constants})
        return test


def _lambda(guard: Guard) -> ast.expr:
    # Built from the parsed expression, so no text can close the lambda and add something of its own.
    assert guard.expression is not None
    body = ast.parse(guard.expression.strip(), mode="eval").body
    arguments = ast.arguments([], [ast.arg(name) for name in guard.names], None, [], [], None, [])
    return ast.fix_missing_locations(ast.Lambda(arguments, body))


def make_guard(condition: Any, names: Sequence[str], constants: Mapping[str, Any]) -> Guard:
    """Return a guard from what `where` was given.

    Raises
    ------
    GridError
        If the condition is neither an expression nor a function, or reads names that are neither axes nor constants.
    """
    if isinstance(condition, str):
        read = _names_read(condition)
        used = tuple(name for name in names if name in read)
        known = {*names, *constants, *MODULES, *dir(builtins)}
        unknown = sorted(read - known)
        if unknown:
            raise GridError(
                f"The guard {condition!r} reads {unknown[0]!r}, which is no axis ({', '.join(names)}); "
                f"pass it as a constant: .where({condition!r}, {unknown[0]}=...)."
            )
        kept = {name: value for name, value in constants.items() if name in read and name not in used}
        return Guard(condition.strip(), None, used, kept)
    if not callable(condition):
        raise GridError(f'A guard is an expression such as "rho * n > 5" or a function, not {condition!r}.')
    return Guard(None, condition, _parameters(condition, names))


def _names_read(expression: str) -> set[str]:
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise GridError(f"The guard {expression!r} is no Python expression: {getattr(error, 'msg', error)}.") from None
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - bound


def _parameters(function: Callable[..., Any], names: Sequence[str]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise GridError(f"The parameters of the guard {function!r} cannot be read; wrap it in a lambda.") from None
    wanted = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise GridError(f"A guard takes axes by name; {parameter} of {function!r} cannot be filled.")
        if parameter.name in names:
            wanted.append(parameter.name)
        elif parameter.default is parameter.empty:
            raise GridError(f"The guard takes {parameter.name!r}, which is no axis; there is {', '.join(names)}.")
        else:
            break
    return tuple(wanted)


def part_mask(part: "Part", slow: Slow | None = None) -> Mask | None:
    """Return which combinations of a part its guards keep, bool[size] in listed order, or None if it has no guards.

    Guards are evaluated one after another, and Python ones only where those before them hold, as in the loop.
    """
    if not part.guards:
        return None
    # Kept as broadcastable pieces until Python has to look at points: most guards read few axes.
    kept: Mask = np.ones((1,) * len(part.shape), dtype=np.bool_)
    for guard in part.guards:
        try:
            kept = kept & _vectorised(part, guard)
        except Unvectorisable:
            kept = kept & _by_python(part, guard, kept, slow)
    return np.ascontiguousarray(np.broadcast_to(kept, part.shape)).reshape(-1)


def _vectorised(part: "Part", guard: Guard) -> Mask:
    if guard.expression is None:
        raise Unvectorisable
    columns = {}
    for dimension, axis in enumerate(part.axes):
        shape = [1] * len(part.axes)
        shape[dimension] = axis.size
        for coordinate in axis.coordinates:
            if coordinate.name in guard.names:
                columns[coordinate.name] = column_of(coordinate).reshape(shape)
    return evaluate(guard.expression, columns, {**MODULES, **guard.constants}, part.size)


def _by_python(part: "Part", guard: Guard, kept: Mask, slow: Slow | None) -> Mask:
    read = [dimension for dimension, axis in enumerate(part.axes) if set(axis.names) & set(guard.names)]
    others = tuple(dimension for dimension in range(len(part.axes)) if dimension not in read)
    asked = np.broadcast_to(kept, np.broadcast_shapes(kept.shape, _shape(part, read))).any(axis=others, keepdims=True)
    answer = np.zeros(asked.shape, dtype=np.bool_)
    wanted = np.flatnonzero(asked)
    smaller = part.with_axes([part.axes[dimension] for dimension in read])
    for start in range(0, len(wanted), PYTHON_CHUNK):
        chunk = wanted[start : start + PYTHON_CHUNK]
        rows = smaller.tuples(chunk, guard.names)
        answer.reshape(-1)[chunk] = slow(guard, rows) if slow is not None else _ask(guard, rows, smaller, chunk)
    return answer


def _shape(part: "Part", read: Sequence[int]) -> tuple[int, ...]:
    return tuple(size if dimension in read else 1 for dimension, size in enumerate(part.shape))


def _ask(guard: Guard, rows: Iterator[tuple[Any, ...]], part: "Part", indices: npt.NDArray[np.int64]) -> Mask:
    answers: list[bool] = []
    try:
        answers.extend(map(bool, itertools.starmap(guard.test(), rows)))
    except GridError:
        raise
    except Exception as error:
        # `extend` keeps what it had, so its length tells which point failed.
        labels = part.labels_at(int(indices[len(answers)]))
        shown = ", ".join(f"{name}={value}" for name, value in labels.items() if name in guard.names)
        raise GridError(f"The guard {str(guard)!r} failed at {shown}: {type(error).__name__}: {error}.") from error
    return np.array(answers, dtype=np.bool_)
