"""What the code of an experiment reaches, walked over live objects and hashed as its version.

Every object becomes a token; objects that may be shared or cyclic become numbered nodes. A token is made of what the
object means (canonical text of functions, members of classes, content of data), never of pickle bytes or addresses, so
that a restart, a reordered cell or a comment changes nothing.
"""

import builtins
import functools
import importlib
import random
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mce_notebook.declare import class_parts, contents, hazards
from mce_notebook.declare.code_text import body_text, code_text
from mce_notebook.declare.graph import Graph, Node
from mce_notebook.declare.origins import is_local
from mce_notebook.declare.references import Reference, references
from mce_notebook.declare.routine import MARK_NAMES, Routine
from mce_notebook.declare.version import Version, explain

__all__ = ["Closure", "Version", "Walk", "explain"]

_BUILTINS = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    np.ufunc,
)
_MODULES_THAT_DRAW = frozenset({"random", "numpy.random"})
_SETTERS = frozenset({"seed", "set_state"})
_LONGEST_CONSTANT = 1000


@dataclass(frozen=True)
class Closure:
    """Result of a walk.

    Parameters
    ----------
    version : Version
    constants : mapping of str to simple value
        What the own code reads from the notebook itself: identity of the points, not version.
    captured : tuple of str
        All names the own code reads from the notebook.
    mirrored : tuple of str
        Parameters that helpers read as globals of the notebook.
    modules : tuple of str
        Local modules reached.
    module_values : mapping of str to tuple of str
        For each of them, the names that were read from it.
    undefined : tuple of str
        Names the own code reads and nobody defines.
    """

    version: Version
    constants: Mapping[str, Any]
    captured: tuple[str, ...]
    mirrored: tuple[str, ...]
    modules: tuple[str, ...]
    module_values: Mapping[str, tuple[str, ...]]
    undefined: tuple[str, ...]


def is_constant(value: Any) -> bool:
    """Whether a value of the notebook is a simple constant: a number, a short string, a bool or None."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_CONSTANT
    if isinstance(value, np.generic):
        return value.dtype.kind in "biufcU"
    return value is None or type(value) in (bool, int, float, complex)


class Walk(Graph):
    """Visits the own code of an experiment and all it reaches.

    Parameters
    ----------
    home : dict, optional
        Namespace of the notebook; the object itself, functions are compared with it by identity.
    own : iterable of types.CodeType
        Code of the point and of setups given as functions.
    parameters : iterable of str
        Names of the axes and of what setups provide.
    mirror : bool
        Whether those names are set in the notebook while points run, as a plain loop would.
    """

    def __init__(
        self,
        home: dict[str, Any] | None = None,
        own: Iterable[types.CodeType] = (),
        parameters: Iterable[str] = (),
        mirror: bool = False,
    ) -> None:
        super().__init__()
        self.home = home
        self.own = tuple(own)
        self.parameters = frozenset(parameters)
        self.hidden = self.parameters if mirror else frozenset()
        self.constants: dict[str, Any] = {}
        self.captured: dict[str, None] = {}
        self.mirrored: dict[str, None] = {}
        self.undefined: dict[str, None] = {}

    # ---- entry points

    def add_argument(self, name: str, value: Any) -> None:
        """Walk an argument that is the same at all points."""
        self._roots.append(self._edge(name, value, f"argument `{name}`"))

    def add_routine(self, routine: Routine, label: str) -> None:
        """Walk statements of a cell; its parameters are not part of the version."""
        node = self._node(routine, label, is_code=True)
        text = body_text(routine.tree.body)
        node.own.append(text)
        self._warn(hazards.seed_notes(text, label))
        self._references(routine.code(), self.home or {}, {}, label, node, own=True)
        self._roots.append(self._tokens[id(routine)])

    def add_fact(self, label: str, text: str) -> None:
        """Make a text part of the version, with a label that explains it."""
        self._roots.append(f"{label}={text}")
        self._edges[label, text] = None

    def finish(self) -> Closure:
        """Hash everything visited."""
        version = Version(
            hash=self.hash(),
            dependencies=self._dependencies(),
            packages=dict(sorted(self._packages.items())),
            warnings=tuple(self._warnings),
            complete=self._complete,
            uses_global_rng=self.uses_global_rng,
            draws_globally=self.draws_globally,
        )
        return Closure(
            version=version,
            constants=dict(self.constants),
            captured=tuple(self.captured),
            mirrored=tuple(self.mirrored),
            modules=tuple(sorted(self.module_values)),
            module_values={module: tuple(names) for module, names in self.module_values.items()},
            undefined=tuple(self.undefined),
        )

    def _define(self, module: str | None, qualified: str) -> None:
        """Note something a local module defines; what is made inside a function travels by value."""
        self._module_origin(module)
        if module in self.module_values and "<locals>" not in qualified:
            self.module_values[module][qualified.partition(".")[0]] = None

    # ---- callables

    def _function(self, function: types.FunctionType, label: str) -> str:
        at_home = function.__globals__ is self.home
        module = "__main__" if at_home else function.__globals__.get("__name__")
        if not is_local(function.__module__) and not is_local(module):
            self._module_origin(function.__module__)
            self._draws(function)
            return f"function {function.__module__}.{function.__qualname__}"
        if not is_local(module):
            return self._library_wrapper(function, label)
        code = function.__code__
        name = function_label(function)
        node = self._node(function, f"`{name}`", is_code=True)
        self._define(module, function.__qualname__)
        own = any(code is mine for mine in self.own)
        text = code_text(code, signature=not own)
        node.own.append(text)
        self._warn(hazards.seed_notes(text, f"`{name}`"))
        for argument, default in class_parts.defaults(function):
            if not own or not (argument in self.parameters or is_constant(default)):
                node.parts.append(self._edge(f"default {argument}", default, f"default `{argument}` of `{name}`"))
        for attribute, value in sorted(vars(function).items()):
            if attribute != "__wrapped__":
                node.parts.append(self._edge(attribute, value, f"attribute `{attribute}` of `{name}`"))
        self._references(code, function.__globals__, _cells(function), name, node, own=own)
        return self._tokens[id(function)]

    def _library_wrapper(self, function: types.FunctionType, label: str) -> str:
        """Visit a function that a library made around one of the user's: only what it holds counts."""
        node = self._node(function, label)
        module = function.__globals__.get("__name__")
        self._module_origin(module)
        node.parts.append(f"wrapper {module}.{function.__code__.co_qualname}")
        held = {**_cells(function), "__wrapped__": getattr(function, "__wrapped__", None)}
        for name, value in held.items():
            code = isinstance(value, types.FunctionType | type) and is_local(value.__module__)
            if code or type(value) in (*contents.SIMPLE_TYPES, list, tuple, dict, set, frozenset):
                node.parts.append(f"{name}={self.visit(value, label)}")
        return self._tokens[id(function)]

    def _references(
        self,
        code: types.CodeType,
        namespace: dict[str, Any],
        cells: dict[str, Any],
        user: str,
        node: Node,
        own: bool,
    ) -> None:
        """Follow all names a code object reads, and add them to its node."""
        read = references(code)
        self._warn(hazards.reach_notes(read, user))
        for name, value in cells.items():
            # Of a module only what is taken from it counts, which the references below tell.
            if not isinstance(value, types.ModuleType):
                node.parts.append(self._edge(f"cell {name}", value, f"captured `{name}`"))
        for reference in (*read.names, *hazards.soft_references(read, namespace)):
            part = self._reference(reference, namespace, cells, own)
            if part is not None:
                node.parts.append(part)

    def _reference(
        self, reference: Reference, namespace: dict[str, Any], cells: dict[str, Any], own: bool
    ) -> str | None:
        """Token of one name, or None where it is nothing of the user's."""
        root = reference.root
        if reference.kind == "import":
            return self._import(reference, namespace)
        if reference.kind == "cell":
            is_module = isinstance(cells.get(root), types.ModuleType)
            return self._follow(cells[root], root, reference.path) if is_module else None
        at_home = namespace is self.home
        if at_home and root in self.hidden:
            self.mirrored[root] = None
            return f"{root} is a parameter"
        if root not in namespace:
            return self._undefined(root, own)
        if root in MARK_NAMES:
            return None
        value = namespace[root]
        if at_home and own and not _is_dunder(root):
            self.captured[root] = None
            if is_constant(value):
                self.constants[root] = value
                return None
        module = namespace.get("__name__")
        if module in self.module_values:
            self.module_values[module][root] = None
        return self._follow(value, root if module == "__main__" or at_home else f"{module}.{root}", reference.path)

    def _undefined(self, root: str, own: bool) -> str | None:
        if hasattr(builtins, root) or root in MARK_NAMES:
            return None
        if own:
            self.undefined[root] = None
        return f"{root} is not defined"

    def _import(self, reference: Reference, namespace: Mapping[str, Any]) -> str | None:
        """Follow an import inside a function; it is done now, or the version would depend on whether it already was."""
        if not reference.level and not is_local(reference.root):
            self._module_origin(".".join((reference.root, *reference.path)))
            module = _imported(reference.root, None) if self._module_draws(reference) else None
        else:
            module = _imported("." * reference.level + reference.root, namespace.get("__package__"))
            if module is None:
                self._warn([f"`{reference.root}` could not be imported here: what it does is not part of the version"])
                self._complete = False
        if module is None:
            return f"import {reference.level} {reference.root} {'.'.join(reference.path)}"
        if not reference.path:
            # Its attributes follow as references of their own.
            self._module_origin(module.__name__)
            return None
        return self._follow(module, module.__name__, reference.path)

    def _module_draws(self, reference: Reference) -> bool:
        return reference.root.partition(".")[0] in ("random", "numpy")

    def _follow(self, value: Any, path: str, attributes: tuple[str, ...]) -> str:
        """Take attributes through modules only; any other object is visited whole."""
        for attribute in attributes:
            if not isinstance(value, types.ModuleType):
                break
            source = self._module_origin(value.__name__)
            if source.kind == "local" and value.__name__ in self.module_values:
                self.module_values[value.__name__][attribute] = None
            if not hasattr(value, attribute):
                # A submodule that is not loaded yet, or a typing error that the point will meet.
                submodule = _imported(f"{value.__name__}.{attribute}", None) if source.kind == "local" else None
                if submodule is None:
                    return f"{path}.{attribute} is not defined"
                value, path = submodule, submodule.__name__
                continue
            owner, value = value, getattr(value, attribute)
            path = f"{path}.{attribute}"
            if owner.__name__ in _MODULES_THAT_DRAW:
                self._draws(value)
            if source.kind != "local" and not isinstance(value, types.ModuleType) and not _is_users(value):
                # What a package holds is told by its version, which marks the environment.
                return f"{path} of {owner.__name__}"
        return self._edge(path, value, f"captured `{path}`")

    def _draws(self, value: Any) -> None:
        """Note functions that draw from, or set, the global state of `random` or `numpy.random`."""
        bound = getattr(value, "__self__", None)
        sets = getattr(value, "__module__", None) == "numpy.random" and getattr(value, "__name__", "") in _SETTERS
        if sets or bound is np.random.mtrand._rand or bound is getattr(random, "_inst"):  # noqa: B009 - a private name
            self._draws_globally()

    def _draws_globally(self) -> None:
        self.uses_global_rng = self.draws_globally = True

    def _builtin(self, value: Any, label: str) -> str:
        bound = getattr(value, "__self__", None)
        name = getattr(value, "__qualname__", None) or value.__name__
        self._draws(value)
        if bound is None or isinstance(bound, types.ModuleType | type):
            owner = getattr(bound, "__name__", None) or getattr(value, "__module__", None) or type(value).__module__
            self._module_origin(owner)
            return f"builtin {owner}.{name}"
        return f"builtin {name} of {self.visit(bound, label)}"

    def _method(self, method: types.MethodType, label: str) -> str:
        self._draws(method)
        if hazards.is_generator(method.__self__):
            self._generator(method.__self__, label)
            return f"builtin {method.__qualname__}"
        node = self._node(method, label)
        node.parts += [
            "method",
            self.visit(method.__func__, label),
            self.visit(method.__self__, f"{label}.__self__"),
        ]
        return self._tokens[id(method)]

    def _partial(self, value: "functools.partial[Any]", label: str) -> str:
        node = self._node(value, label)
        node.parts += [
            "partial",
            *(self.visit(part, label) for part in (value.func, value.args, value.keywords)),
        ]
        return self._tokens[id(value)]

    def _cached(self, value: Any, label: str) -> str:
        node = self._node(value, label)
        node.parts += ["cached", repr(value.cache_parameters()), self.visit(value.__wrapped__, label)]
        return self._tokens[id(value)]

    def _compiled(self, value: Any, label: str) -> str:
        """Visit a function compiled by Numba: its Python function and options."""
        self._module_origin(type(value).__module__)
        node = self._node(value, label)
        options = sorted((key, repr(option)) for key, option in value.targetoptions.items() if not callable(option))
        node.parts += ["compiled", repr(options), self.visit(value.py_func, label)]
        return self._tokens[id(value)]

    def _descriptor(self, value: Any, label: str) -> str:
        inner = class_parts.descriptor_functions(value)
        return f"{type(value).__name__}({','.join(self.visit(part, label) for part in inner)})"

    # ---- classes and modules

    def _class(self, cls: type, label: str) -> str:
        if not is_local(cls.__module__):
            self._module_origin(cls.__module__)
            return f"class {cls.__module__}.{cls.__qualname__}"
        self._define(cls.__module__, cls.__qualname__)
        prefix = "" if cls.__module__ == "__main__" else f"{cls.__module__}."
        name = f"{prefix}{cls.__qualname__.replace('<locals>.', '')}"
        node = self._node(cls, f"class `{name}`", is_code=True)
        node.parts += [f"base {self.visit(base, label)}" for base in cls.__bases__]
        node.parts.append(f"meta {self.visit(type(cls), label)}")
        node.own += class_parts.facts(cls)
        for member, value in class_parts.members(cls):
            node.own.append(member)
            node.parts.append(self._edge(member, value, f"`{name}.{member}`"))
        return self._tokens[id(cls)]

    def _module(self, module: types.ModuleType, label: str) -> str:
        source = self._module_origin(module.__name__)
        if module.__name__ in _MODULES_THAT_DRAW:
            self._draws_globally()
        if source.kind != "local" or module.__name__ == "__main__":
            return f"module {module.__name__}"
        node = self._node(module, f"module `{module.__name__}`", is_code=True)
        for name, value in sorted(vars(module).items()):
            if not _is_dunder(name):
                self.module_values[module.__name__][name] = None
                node.own.append(name)
                node.parts.append(self._edge(name, value, f"captured `{module.__name__}.{name}`"))
        return self._tokens[id(module)]

    def _generator(self, value: Any, label: str) -> str:
        if value is np.random.mtrand._rand or value is getattr(random, "_inst"):  # noqa: B009
            self._draws_globally()
            return "the global generator"
        raise hazards.captured_generator(value, label)


def function_label(function: types.FunctionType) -> str:
    """Name of a function as people know it, with its module unless that is the notebook."""
    # The name it was written under; decorators give their wrappers the name of what they wrap.
    name = function.__code__.co_qualname.replace("<locals>.", "")
    return name if function.__module__ in ("__main__", None) else f"{function.__module__}.{name}"


def _is_users(value: Any) -> bool:
    """Whether a function or class was written by the user, wherever it was found."""
    return isinstance(value, types.FunctionType | type) and is_local(value.__module__)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _cells(function: types.FunctionType) -> dict[str, Any]:
    """Values of the free variables that have one."""
    cells: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return cells


def _imported(name: str, package: str | None) -> types.ModuleType | None:
    try:
        return importlib.import_module(name, package)
    except Exception:  # the user's module may raise anything while it is imported
        return None


Walk.handlers = {
    **Graph.handlers,
    types.FunctionType: Walk._function,
    types.MethodType: Walk._method,
    types.ModuleType: Walk._module,
}
Walk.general = (
    (lambda value: isinstance(value, type), Walk._class),
    (lambda value: isinstance(value, types.ModuleType), Walk._module),
    (lambda value: isinstance(value, _BUILTINS), Walk._builtin),
    (lambda value: isinstance(value, functools.partial), Walk._partial),
    (lambda value: isinstance(value, functools._lru_cache_wrapper), Walk._cached),
    (hazards.is_compiled, Walk._compiled),
    (class_parts.is_descriptor, Walk._descriptor),
    (hazards.is_generator, Walk._generator),
    *Graph.general,
)
