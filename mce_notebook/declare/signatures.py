"""How a function is called at a point, and what it is seen to return."""

import ast
import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mce_notebook.declare.closure import is_constant
from mce_notebook.declare.code_text import source_node
from mce_notebook.errors import DeclarationError

_STREAMS = ("rng", "seed")
_KINDS = inspect.Parameter
# Calls whose results are containers of outputs, to be named by what is in them.
_CONTAINERS = frozenset({"dict", "Dataset", "DataArray", "Series", "asdict", "_asdict"})


@dataclass(frozen=True)
class Call:
    """A callable with positional arguments in the order a grid gives them.

    Parameters
    ----------
    function : types.FunctionType or None
        The Python function at the bottom of decorators, methods and partials.
    name : str
    point : callable
        The callable itself, or an adapter where its own order differs.
    parameters : tuple of str
        Axes in their order, then `rng` and `seed`.
    drawn : tuple of str
        Those of `rng` and `seed` that are drawn for each point.
    constants : mapping
        Simple arguments that no axis gives: defaults and fixed ones.
    fixed_objects : mapping
        Other fixed arguments.
    """

    function: types.FunctionType | None
    name: str
    point: Callable[..., Any]
    parameters: tuple[str, ...]
    drawn: tuple[str, ...]
    constants: Mapping[str, Any]
    fixed_objects: Mapping[str, Any]


def call_of(fn: Callable[..., Any], axes: tuple[str, ...], fixed: Mapping[str, Any]) -> Call:
    """Match the parameters of a callable with axes and fixed arguments.

    Raises
    ------
    DeclarationError
        Listing every missing parameter and every unknown axis.
    """
    if not callable(fn):
        raise DeclarationError(f"A sweep needs a function to call at each point, not {fn!r}.")
    function = _python_function(fn)
    name = _name(fn, function)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        kind = "a generator" if inspect.isgeneratorfunction(function) else "async"
        raise DeclarationError(
            f"`{name}` is {kind}, so calling it gives no values. Write a function that returns them."
        )
    declared = _parameters(fn, axes)
    drawn = tuple(p for p in _STREAMS if p in declared and p not in axes and p not in fixed)
    _check(name, declared, axes, fixed, drawn)
    takes_all = any(p.kind is _KINDS.VAR_KEYWORD for p in declared.values())
    passed = tuple(axis for axis in axes if axis in declared or (takes_all and axis != "replicate"))
    parameters = passed + drawn
    defaults = {
        p.name: p.default
        for p in declared.values()
        if p.default is not _KINDS.empty and p.name not in parameters and p.name not in fixed
    }
    given = {**defaults, **fixed}
    return Call(
        function=function,
        name=name,
        point=fn if _is_direct(declared, parameters, fixed) else _adapter(fn, declared, parameters, fixed),
        parameters=parameters,
        drawn=drawn,
        constants={key: value for key, value in given.items() if is_constant(value)},
        fixed_objects={key: value for key, value in fixed.items() if not is_constant(value)},
    )


def output_names(function: types.FunctionType | None, name: str) -> tuple[str, ...] | None:
    """Names of the outputs of a function, from its `return` statements.

    Returns
    -------
    tuple of str or None
        ``return mse, time`` gives both names and any other expression the name of the function; so does a parameter,
        because no output can have the name of an axis. None where it returns a dict, a named tuple or an xarray
        object, whose parts are named by the first outcome.
    """
    node = source_node(function.__code__) if function is not None else None
    if function is None or node is None:
        return (name,)
    if isinstance(node, ast.Lambda):
        found = [node.body]
    else:
        found = [r.value for r in _returns(node.body) if r.value is not None]
    if any(_is_container(value, node, function) for value in found):
        return None
    code = function.__code__
    taken = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    tuples = [value.elts for value in found if isinstance(value, ast.Tuple)]
    if not tuples or len(tuples) < len(found):
        single = {value.id for value in found if isinstance(value, ast.Name)} - taken
        return (single.pop(),) if len(single) == 1 and len(found) == 1 else (name,)
    if len({len(elements) for elements in tuples}) > 1:
        return (name,)
    return _unique(
        [_element_name(column, name, number, taken) for number, column in enumerate(zip(*tuples, strict=True))]
    )


def _element_name(column: Sequence[ast.expr], name: str, number: int, taken: set[str]) -> str:
    names = {element.id for element in column if isinstance(element, ast.Name)} - taken
    return names.pop() if len(names) == 1 else f"{name}_{number}"


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{n}_{i}" if n in names[:i] else n for i, n in enumerate(names))


def _returns(body: Sequence[ast.AST]) -> Iterator[ast.Return]:
    """`return` statements of a function itself, not of functions inside it."""
    for node in body:
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _returns(list(ast.iter_child_nodes(node)))


def _is_container(value: ast.expr, node: ast.AST, function: types.FunctionType) -> bool:
    if isinstance(value, ast.Dict | ast.DictComp):
        return True
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        made = function.__globals__.get(called)
        return called in _CONTAINERS or (isinstance(made, type) and hasattr(made, "_fields"))
    if isinstance(value, ast.Name):
        assigned = (n for n in ast.walk(node) if isinstance(n, ast.Assign | ast.AnnAssign) and n.value is not None)
        sources = [n.value for n in assigned if value.id in _targets(n)]
        return any(not isinstance(s, ast.Name) and _is_container(s, node, function) for s in sources if s is not None)
    return False


def _targets(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _python_function(fn: Any) -> types.FunctionType | None:
    """Find the function whose body is the point, below partials, methods, caches and decorators."""
    for _ in range(100):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif callable(getattr(fn, "__wrapped__", None)):
            fn = fn.__wrapped__
        else:
            break
    if not isinstance(fn, types.FunctionType | type | types.BuiltinFunctionType):
        fn = vars(type(fn)).get("__call__")
    return fn if isinstance(fn, types.FunctionType) else None


def _name(fn: Any, function: types.FunctionType | None) -> str:
    name = getattr(fn, "__name__", None) or (function.__name__ if function is not None else type(fn).__name__)
    if name == "__call__":
        name = type(fn).__name__
    return str(name) if str(name).isidentifier() else "value"


def _parameters(fn: Any, axes: tuple[str, ...]) -> Mapping[str, inspect.Parameter]:
    if isinstance(fn, np.ufunc) and fn.nin != len([name for name in axes if name != "replicate"]):
        raise DeclarationError(f"`{fn.__name__}` takes {fn.nin} arguments and there are {len(axes)} axes.")
    # Arguments of functions in C, which often have no names: axes in their order.
    in_order = {name: _KINDS(name, _KINDS.POSITIONAL_ONLY) for name in axes if name != "replicate"}
    if isinstance(fn, np.ufunc):
        return in_order
    try:
        declared = inspect.signature(fn).parameters
    except (ValueError, TypeError):
        return in_order
    kinds = {parameter.kind for parameter in declared.values()}
    nameless = _KINDS.VAR_POSITIONAL in kinds and kinds <= {_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD}
    by_keyword = _KINDS.VAR_KEYWORD in kinds and _python_function(fn) is not None
    return in_order if nameless and not by_keyword else declared


def _check(
    name: str,
    declared: Mapping[str, inspect.Parameter],
    axes: tuple[str, ...],
    fixed: Mapping[str, Any],
    drawn: tuple[str, ...],
) -> None:
    variadic = (_KINDS.VAR_KEYWORD, _KINDS.VAR_POSITIONAL)
    named = {p.name: p for p in declared.values() if p.kind not in variadic}
    takes_all = any(p.kind is _KINDS.VAR_KEYWORD for p in declared.values())
    given = {*axes, *fixed, *drawn}
    both = [key for key in fixed if key in axes]
    unknown = [key for key in (*axes, *fixed) if key not in named and key != "replicate" and not takes_all]
    missing = [p.name for p in named.values() if p.default is _KINDS.empty and p.name not in given]
    problems = [f"`{key}` is both an axis and a fixed argument" for key in both]
    problems += [f"it has no parameter `{key}`{_nearest(key, named, given)}" for key in unknown]
    if missing:
        listed = ", ".join(f"`{key}`" for key in missing)
        problems.append(f"nothing gives its parameter{'s' * (len(missing) > 1)} {listed}: add {missing[0]}=[...]")
    if problems:
        raise DeclarationError(f"`{name}` cannot be called with these axes: {'; '.join(problems)}.")


def _nearest(key: str, named: Mapping[str, Any], given: set[str]) -> str:
    free = [name for name in named if name not in given]
    near = difflib.get_close_matches(key, free, n=1, cutoff=0.5)
    if near:
        return f" (did you mean `{near[0]}`?)"
    return f" (it takes {', '.join(f'`{name}`' for name in named)})" if named else " (it takes none)"


def _is_direct(
    declared: Mapping[str, inspect.Parameter], parameters: tuple[str, ...], fixed: Mapping[str, Any]
) -> bool:
    positional = (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)
    names = tuple(p.name for p in declared.values() if p.kind in positional)
    return not fixed and names[: len(parameters)] == parameters


def _adapter(
    fn: Callable[..., Any],
    declared: Mapping[str, inspect.Parameter],
    parameters: tuple[str, ...],
    fixed: Mapping[str, Any],
) -> Callable[..., Any]:
    """Make a function of the parameters in grid order that calls another in its own order."""
    # Compiled once, so that a call costs one call more and nothing else; names of ours cannot meet the user's.
    places = {name: f"p{number}" for number, name in enumerate(parameters)}
    namespace: dict[str, Any] = {"__name__": "__main__", "function": fn}
    for number, (name, value) in enumerate(fixed.items()):
        places[name] = f"fixed{number}"
        namespace[f"fixed{number}"] = value
    arguments: list[str] = []
    last = [n for n, p in enumerate(declared.values()) if p.kind is _KINDS.POSITIONAL_ONLY and p.name in places]
    for number, parameter in enumerate(declared.values()):
        if parameter.kind is _KINDS.POSITIONAL_ONLY and number <= max(last, default=-1):
            if parameter.name not in places:
                # A default in front of an argument that has no keyword.
                places[parameter.name] = f"default{number}"
                namespace[f"default{number}"] = parameter.default
            arguments.append(places[parameter.name])
    by_position = {p.name for p in declared.values() if p.kind is _KINDS.POSITIONAL_ONLY}
    arguments += [f"{name}={place}" for name, place in places.items() if name not in by_position]
    heads = ", ".join(places[name] for name in parameters)
    exec(
        compile(f"def adapter({heads}): return function({', '.join(arguments)})", "<adapter>", "exec"),
        namespace,
    )
    adapter = namespace.pop("adapter")
    assert isinstance(adapter, types.FunctionType)
    return adapter
