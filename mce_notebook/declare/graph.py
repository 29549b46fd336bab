"""Objects as numbered nodes and tokens: the part of a version that is data.

Every object becomes a token; objects that may be shared or cyclic become numbered nodes, so that a token is finite. A
token is made of what the object means, never of pickle bytes or addresses.
"""

import re
import types
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mce_notebook.declare import class_parts, contents
from mce_notebook.declare.origins import Origin, may_draw, origin
from mce_notebook.errors import DeclarationError

Handler = Callable[[Any, Any, str], str]


@dataclass
class Node:
    """One numbered object: its label, what is its own, and tokens of what it refers to."""

    label: str
    is_code: bool
    own: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)


class Graph:
    """Tokens of data, to be completed by a subclass that knows code.

    Attributes
    ----------
    module_values : dict of str to dict of str to None
        Local modules reached, and the names read from each.
    uses_global_rng : bool
        Whether anything reached draws, or may draw, from the global generators.
    draws_globally : bool
        Whether code of the user's itself does.
    """

    # By exact type first, then the first condition that holds.
    handlers: ClassVar[dict[type, Handler]] = {}
    general: ClassVar[tuple[tuple[Callable[[Any], bool], Handler], ...]] = ()

    def __init__(self) -> None:
        self.module_values: dict[str, dict[str, None]] = {}
        self.uses_global_rng = False
        self.draws_globally = False
        self._complete = True
        self._nodes: list[Node] = []
        self._tokens: dict[int, str] = {}
        # Visited objects stay alive, or another object could take the id of a temporary one.
        self._alive: list[Any] = []
        self._edges: dict[tuple[str, str], None] = {}
        self._packages: dict[str, str] = {}
        self._warnings: dict[str, None] = {}
        self._roots: list[str] = []

    def add(self, value: Any, label: str) -> None:
        """Walk an object, and make it part of the hash."""
        self._roots.append(self.visit(value, label))

    def hash(self) -> str:
        """32 hexadecimal digits of everything added."""
        whole = "\x01".join("\x02".join((*node.own, *node.parts)) for node in self._nodes)
        return contents.digest("\x01".join(self._roots) + "\x03" + whole)

    def _dependencies(self) -> dict[str, str]:
        found: dict[str, str] = {}
        listed = [(node.label, contents.digest("\x02".join(node.own))) for node in self._nodes if node.is_code]
        # Digests of data come last, when no cycle is half visited.
        listed += [(label, self._content(token)) for label, token in self._edges]
        for label, token in listed:
            unique, number = label, 2
            while unique in found:
                unique, number = f"{label} ({number})", number + 1
            found[unique] = token
        return found

    def visit(self, value: Any, label: str) -> str:
        """Token of any object; `label` is how a person would reach it."""
        if type(value) in contents.SIMPLE_TYPES:
            return contents.simple_token(value)
        if id(value) in self._tokens:
            return self._tokens[id(value)]
        handler = self.handlers.get(type(value))
        if handler is not None:
            return handler(self, value, label)
        for matches, general in self.general:
            if matches(value):
                return general(self, value, label)
        return self._data(value, label)

    def _node(self, value: Any, label: str, *, is_code: bool = False) -> Node:
        self._alive.append(value)
        # NUL cannot occur in a repr or a canonical text, so references are told from content.
        self._tokens[id(value)] = f"\x00{len(self._nodes)}\x00"
        node = Node(label, is_code)
        self._nodes.append(node)
        return node

    def _leaf(self, value: Any, token: str) -> str:
        self._alive.append(value)
        return self._tokens.setdefault(id(value), token)

    def _warn(self, warnings: Iterable[str]) -> None:
        self._warnings.update(dict.fromkeys(warnings))

    def _module_origin(self, module: str | None) -> Origin:
        """Note that a module is reached."""
        name = module or "builtins"
        source = origin(name)
        if source.kind == "installed":
            self._packages[source.distribution] = source.version
            self.uses_global_rng = self.uses_global_rng or may_draw(name)
        elif source.kind == "local" and name != "__main__":
            self.module_values.setdefault(name, {})
        return source

    # ---- containers

    def _sequence(self, value: Any, label: str) -> str:
        kind = type(value).__name__
        if set(map(type, value)) <= set(contents.SIMPLE_TYPES):
            # Sharing of immutable items must not show; the text is taken whole, at the speed of repr.
            return self._leaf(value, f"{kind}:{contents.digest(repr(value))}")
        node = self._node(value, label)
        node.parts.append(kind)
        node.parts += [self.visit(item, f"{label}[{position}]") for position, item in enumerate(value)]
        return self._tokens[id(value)]

    def _mapping(self, value: Any, label: str) -> str:
        node = self._node(value, label)
        node.parts.append("dict")
        for key, item in list(value.items()):
            node.parts.append(f"{self.visit(key, label)}=>{self.visit(item, f'{label}[{key!r}]')}")
        return self._tokens[id(value)]

    def _set(self, value: Any, label: str) -> str:
        if set(map(type, value)) <= set(contents.SIMPLE_TYPES):
            return self._leaf(value, f"{type(value).__name__}:{contents.digest(repr(sorted(map(repr, value))))}")
        node = self._node(value, label)
        # Sorted by content before numbering: the order of a set differs between processes.
        ordered = sorted(value, key=lambda item: self._alone(item, label))
        node.parts += [type(value).__name__, *(self.visit(item, label) for item in ordered)]
        return self._tokens[id(value)]

    def _alone(self, value: Any, label: str) -> str:
        graph = type(self)()
        graph.add(value, label)
        return graph.hash()

    def _edge(self, name: str, value: Any, label: str) -> str:
        """Token of something code refers to; data is listed under its label, code under its own name."""
        try:
            token = self.visit(value, label)
        except RecursionError:
            raise DeclarationError(f"{label} is nested too deeply to be hashed, or to be sent to a worker.") from None
        is_library = token.startswith(_LIBRARY) and "\x00" not in token
        if not is_code(value) and not is_library:
            self._edges[label, token] = None
        return f"{name}={token}"

    def _content(self, token: str) -> str:
        """Digest of one piece of data alone: its nodes renumbered from it, code by name."""
        places: dict[int, int] = {}
        waiting: list[int] = []

        def rename(match: re.Match[str]) -> str:
            number = int(match[1])
            if self._nodes[number].is_code:
                return self._nodes[number].label
            if number not in places:
                places[number] = len(places)
                waiting.append(number)
            return f"+{places[number]}"

        texts = [_REFERENCE.sub(rename, token)]
        for number in waiting:  # grows while nodes refer to further ones
            texts.append(_REFERENCE.sub(rename, "\x02".join(self._nodes[number].parts)))  # noqa: PERF401
        return contents.digest("\x01".join(texts))

    # ---- data

    def _array(self, array: np.ndarray[Any, Any], label: str) -> str:
        self._module_origin("numpy")
        token = contents.array_token(array)
        if token is not None:
            return self._leaf(array, token)
        node = self._node(array, label)
        node.parts += [f"array {array.dtype}{array.shape}", self.visit(array.ravel().tolist(), label)]
        return self._tokens[id(array)]

    def _scalar(self, scalar: np.generic, label: str) -> str:
        return contents.scalar_token(scalar) or self.visit(scalar.item(), label)

    def _frame(self, frame: Any, label: str) -> str:
        self._module_origin(type(frame).__module__)
        node = self._node(frame, label)
        node.parts.append(self.visit(contents.frame_parts(frame), label))
        return self._tokens[id(frame)]

    def _labelled(self, value: Any, label: str) -> str:
        """Visit an xarray object by dims, values and attributes: its own state keeps caches and file handles."""
        self._module_origin("xarray")
        node = self._node(value, label)
        node.parts.append(f"xarray {type(value).__name__}")
        variables = value.variables if hasattr(value, "variables") else {"": value.variable, **value.coords}
        for name, variable in variables.items():
            parts = [str(name), list(variable.dims), np.asarray(variable.values), dict(variable.attrs)]
            node.parts.append(self.visit(parts, label))
        node.parts.append(self.visit([getattr(value, "name", None), dict(value.attrs)], label))
        return self._tokens[id(value)]

    def _data(self, value: Any, label: str) -> str:
        """Any other object, through what it says it is rebuilt from (``__reduce_ex__``), part by part."""
        cls = type(value)
        source = origin(cls.__module__)
        if source.kind in ("notebook", "ourselves"):
            # Their state is of this session, not of the experiment.
            return self._leaf(value, f"{source.kind} {cls.__qualname__}")
        node = self._node(value, label)
        parts = class_parts.reduced(value)
        if parts is None:
            wrapped = getattr(value, "__wrapped__", None)
            if wrapped is None:
                self._opaque(value, label)
            node.parts += [f"opaque {cls.__module__}.{cls.__qualname__}", self.visit(wrapped, label)]
        elif isinstance(parts, str):
            self._module_origin(getattr(value, "__module__", None) or cls.__module__)
            node.parts.append(f"global {cls.__module__}.{parts}")
        else:
            # Parts made on the spot are the object's own; numbering them keeps cycles finite.
            node.parts += [self.visit(cls, label), *(self.visit(part, label) for part in parts)]
        return self._tokens[id(value)]

    def _opaque(self, value: Any, label: str) -> None:
        self._complete = False
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        self._warn([f"{label} ({kind}) has no content that can be hashed: the version compares it by type only"])


_REFERENCE = re.compile("\x00(\\d+)\x00")


# How tokens begin that name something installed; what it does belongs to its package.
_LIBRARY = ("builtin ", "function ", "class ", "module ")


def is_code(value: Any) -> bool:
    """Whether a value is listed in a version by itself, as code."""
    return isinstance(value, types.FunctionType | types.ModuleType | type | types.BuiltinFunctionType | np.ufunc)


Graph.handlers = {
    list: Graph._sequence,
    tuple: Graph._sequence,
    dict: Graph._mapping,
    types.MappingProxyType: Graph._mapping,
    set: Graph._set,
    frozenset: Graph._set,
}
Graph.general = (
    (lambda value: isinstance(value, weakref.ReferenceType), lambda graph, value, label: "weak reference"),
    (lambda value: type(value) in (np.ndarray, np.memmap), Graph._array),
    (lambda value: isinstance(value, np.generic), Graph._scalar),
    (contents.is_frame, Graph._frame),
    (contents.is_labelled, Graph._labelled),
)
