"""Expressions over axes evaluated with NumPy, only where the result is what Python would give.

Where the two could differ (integers beyond 64 bits, division by zero, other number types, operators that
libraries round differently) the expression is refused here, and the caller evaluates it in Python.
"""

import ast
import builtins
import math
import operator
from collections.abc import Callable, Collection, Mapping
from types import BuiltinFunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.values import EXACT

if TYPE_CHECKING:
    from mce_notebook.declare.axes import Coordinate

Column = npt.NDArray[Any]

NATIVE = ("bool", "int", "float", "str", "numpy:<i8", "numpy:<f8")
LARGEST = 2**63 - 1
MOST_CALLS = 4_000_000  # elementwise Python calls; more, and the whole guard in Python is no slower

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_UFUNCS = {
    getattr(np, name)
    for name in [
        "sqrt",
        "log",
        "log2",
        "log10",
        "log1p",
        "exp",
        "expm1",
        "floor",
        "ceil",
        "absolute",
        "fabs",
        "isnan",
        "isfinite",
        "isinf",
        "sin",
        "cos",
        "tan",
        "arctan",
        "tanh",
        "minimum",
        "maximum",
        "hypot",
    ]
}


class Unvectorisable(Exception):
    """The expression must be evaluated in Python."""


def column_of(coordinate: "Coordinate") -> Column:
    """Return the labels of a coordinate as the column its name stands for in an expression."""
    if coordinate.kind not in NATIVE or coordinate.typed is not None or coordinate.values is None:
        raise Unvectorisable
    return coordinate.labels


def evaluate(
    expression: str, columns: Mapping[str, Column], constants: Mapping[str, Any], size: int
) -> npt.NDArray[np.bool_]:
    """Return the truth of an expression over broadcast columns.

    Parameters
    ----------
    expression : str
    columns : mapping of str to ndarray
        Columns of kinds b, i, f or U, shaped to broadcast against each other.
    constants : mapping
        What other names stand for.
    size : int
        Number of points, a bound on elementwise Python calls.

    Raises
    ------
    Unvectorisable
        If Python could give another result, or raise.
    """
    tree = ast.parse(expression.strip(), mode="eval").body
    try:
        with np.errstate(all="ignore"):
            return _Evaluator(columns, constants, size).truth(tree)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError, RecursionError, ArithmeticError):
        # Python will raise the same, or not, at the point where it happens.
        raise Unvectorisable from None


class _Evaluator:
    def __init__(self, columns: Mapping[str, Column], constants: Mapping[str, Any], size: int):
        self.columns = columns
        self.constants = constants
        self.size = size

    def truth(self, node: ast.expr) -> npt.NDArray[np.bool_]:
        """Return whether the value of a node counts as true; `and`, `or` and `not` are only that."""
        if isinstance(node, ast.BoolOp):
            parts = [self.truth(value) for value in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            joined: npt.NDArray[np.bool_] = parts[0]
            for part in parts[1:]:
                joined = join(joined, part)
            return joined
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return np.logical_not(self.truth(node.operand))
        column = self.value(node)
        if column.dtype.kind == "U":
            raise Unvectorisable
        if column.dtype.kind == "m":
            raise Unvectorisable
        return column if column.dtype.kind == "b" else column != 0

    def value(self, node: ast.expr) -> Column:
        if isinstance(node, ast.Constant | ast.Name):
            return self._leaf(node)
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node.op, self.value(node.left), self.value(node.right))
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Attribute):
            return _scalar(self._attribute(node))
        raise Unvectorisable

    def _leaf(self, node: ast.Constant | ast.Name) -> Column:
        if isinstance(node, ast.Constant):
            return _scalar(node.value)
        if node.id in self.columns:
            return self.columns[node.id]
        if node.id in self.constants:
            return _scalar(self.constants[node.id])
        raise Unvectorisable

    def _attribute(self, node: ast.Attribute) -> Any:
        # Only `math.x` and `np.x`: looking up anything else could run code.
        module = self.constants.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if not isinstance(module, ModuleType) or module not in (np, math):
            raise Unvectorisable
        return getattr(module, node.attr, None)

    # Comparisons

    def _compare(self, node: ast.Compare) -> Column:
        result: Column = np.array(True)
        left = node.left
        for operation, right in zip(node.ops, node.comparators, strict=True):
            result = np.logical_and(result, self._comparison(operation, left, right))
            left = right
        return result

    def _comparison(self, operation: ast.cmpop, left: ast.expr, right: ast.expr) -> Column:
        if isinstance(operation, ast.In | ast.NotIn):
            found = self._among(self.value(left), right)
            return found if isinstance(operation, ast.In) else np.logical_not(found)
        if type(operation) not in _COMPARISONS:
            raise Unvectorisable
        first, second = self.value(left), self.value(right)
        _comparable(first, second)
        compared: Column = np.asarray(_COMPARISONS[type(operation)](first, second))
        return compared

    def _among(self, column: Column, node: ast.expr) -> Column:
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            members = [self.value(item) for item in node.elts]
        elif isinstance(node, ast.Name) and node.id not in self.columns:
            held: Any = self.constants.get(node.id)
            if type(held) not in (tuple, list, set, frozenset, range) or len(held) > 1000:
                raise Unvectorisable
            members = [_scalar(item) for item in held]
        else:
            raise Unvectorisable
        found: Column = np.zeros(column.shape, dtype=np.bool_)
        for member in members:
            _comparable(column, member)
            found = np.logical_or(found, column == member)
        if column.dtype.kind == "f" and np.isnan(column).any():
            raise Unvectorisable
        return found

    # Arithmetic

    def _unary(self, node: ast.UnaryOp) -> Column:
        if isinstance(node.op, ast.Not):
            return self.truth(node)
        column = _number(self.value(node.operand))
        if isinstance(node.op, ast.USub):
            _whole(column, _reach(column))
            return -column
        if isinstance(node.op, ast.UAdd):
            return column
        raise Unvectorisable

    def _arithmetic(self, operation: ast.operator, left: Column, right: Column) -> Column:
        left, right = _number(left), _number(right)
        whole = left.dtype.kind == right.dtype.kind == "i"
        if not whole and max(_reach(left), _reach(right)) > EXACT:
            raise Unvectorisable
        if isinstance(operation, ast.Add | ast.Sub | ast.Mult):
            a, b = _reach(left), _reach(right)
            if whole and (a * b if isinstance(operation, ast.Mult) else a + b) > LARGEST:
                raise Unvectorisable
            plain = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}[type(operation)]
            return np.asarray(plain(left, right))
        if isinstance(operation, ast.Div | ast.FloorDiv | ast.Mod):
            return _divide(operation, left, right)
        if isinstance(operation, ast.Pow):
            return self._map(operator.pow, [left, right])
        raise Unvectorisable

    # Calls

    def _call(self, node: ast.Call) -> Column:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise Unvectorisable
        function = self._function(node.func)
        arguments = [self.value(argument) for argument in node.args]
        if isinstance(function, np.ufunc):
            return self._ufunc(function, arguments)
        if function in (min, max):
            return _extreme(function, arguments)
        if function is abs and len(arguments) == 1:
            column = _number(arguments[0])
            _whole(column, _reach(column))
            return np.asarray(np.abs(column))
        # What is left rounds, truncates or calls the C library: Python itself decides, element by element.
        return self._map(function, [_number(argument) for argument in arguments])

    def _function(self, node: ast.expr) -> Callable[..., Any]:
        if isinstance(node, ast.Attribute):
            found: Callable[..., Any] = self._attribute(node)
            known = found in _UFUNCS if isinstance(found, np.ufunc) else getattr(math, node.attr, None) is found
            if known and callable(found):
                return found
            raise Unvectorisable
        if isinstance(node, ast.Name) and node.id not in self.columns:
            found = self.constants.get(node.id, getattr(builtins, node.id, None))
            if found in (abs, min, max, round, int, float, bool):
                return found
            if isinstance(found, BuiltinFunctionType) and found.__module__ == "math":
                return found
        raise Unvectorisable

    def _ufunc(self, function: np.ufunc, arguments: list[Column]) -> Column:
        if len(arguments) != function.nin or any(argument.dtype.kind == "b" for argument in arguments):
            # Of a bool, NumPy makes one of its own kind, which refuses the arithmetic of Python's.
            raise Unvectorisable
        for argument in arguments:
            # NumPy turns a wide integer into a float just as it does for the scalar.
            _whole(_number(argument), _reach(argument))
        return np.asarray(function(*(_number(argument) for argument in arguments)))

    def _map(self, function: Callable[..., Any], arguments: list[Column]) -> Column:
        spread = np.broadcast_arrays(*arguments) if len(arguments) > 1 else arguments
        if spread[0].size > MOST_CALLS:
            raise Unvectorisable
        values = list(map(function, *(column.reshape(-1).tolist() for column in spread)))
        types = set(map(type, values))
        if types == {int} and max(map(abs, values)) > LARGEST:
            raise Unvectorisable
        if len(types) != 1 or not types <= {int, float, bool}:
            raise Unvectorisable
        return np.array(values).reshape(spread[0].shape)


def _scalar(value: Any) -> Column:
    if type(value) not in (bool, int, float, str) or (type(value) is str and value.endswith("\0")):
        raise Unvectorisable
    if type(value) is int and abs(value) > LARGEST:
        raise Unvectorisable
    return np.array(value)


def _number(column: Column) -> Column:
    if column.dtype.kind == "b":
        return column.astype(np.int64)
    if column.dtype.kind not in "if":
        raise Unvectorisable
    return column


def _reach(column: Column) -> int:
    """Return the largest magnitude in a column of integers as a Python integer, 0 for other kinds."""
    if column.dtype.kind != "i" or not column.size:
        return 0
    return max(abs(int(column.min())), abs(int(column.max())))


def _whole(column: Column, reach: int) -> None:
    if column.dtype.kind == "i" and reach > LARGEST:
        raise Unvectorisable


def _comparable(first: Column, second: Column) -> None:
    kinds = {"U" if column.dtype.kind == "U" else "n" for column in (first, second)}
    if len(kinds) != 1 or (first.dtype.kind == "m") != (second.dtype.kind == "m"):
        raise Unvectorisable
    if {first.dtype.kind, second.dtype.kind} == {"i", "f"} and max(_reach(first), _reach(second)) > EXACT:
        raise Unvectorisable


def _divide(operation: ast.operator, left: Column, right: Column) -> Column:
    if (right == 0).any():
        raise Unvectorisable
    if isinstance(operation, ast.Div):
        if max(_reach(left), _reach(right)) > EXACT:
            raise Unvectorisable
        return np.asarray(left / right)
    _whole(left, _reach(left))
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise Unvectorisable
    return np.asarray(left // right if isinstance(operation, ast.FloorDiv) else left % right)


def _extreme(function: Callable[..., Any], arguments: Collection[Column]) -> Column:
    columns = [_number(argument) for argument in arguments]
    if len(columns) < 2 or len({column.dtype.kind for column in columns}) != 1:
        raise Unvectorisable
    best = columns[0]
    for column in columns[1:]:
        # Python keeps the first unless the next is strictly better; this also decides what NaN does.
        best = np.where(column < best if function is min else column > best, column, best)
    return best
