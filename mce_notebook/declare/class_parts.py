"""Classes and objects taken apart into what decides their behaviour."""

import copyreg
import dataclasses
import enum
import functools
import inspect
import os
import types
from collections.abc import Iterator
from typing import Any

# Bookkeeping of Python, not behaviour; some of it differs between versions or fills up with use.
_BOOKKEEPING = frozenset(
    {
        "__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__", "__static_attributes__",
        "_abc_impl", "__abstractmethods__", "__annotations__", "__annotate__", "__annotate_func__",
        "__annotations_cache__", "__match_args__", "__slotnames__", "__dataclass_fields__", "__dataclass_params__",
        "__parameters__", "__orig_bases__", "_fields", "_field_defaults", "__type_params__", "__classdictcell__",
    }
)  # fmt: skip


_DATACLASS_OPTIONS = ("init", "repr", "eq", "order", "unsafe_hash", "frozen")


def defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Parameters of a function that have a default, with its live value."""
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    values = function.__defaults__ or ()
    yield from zip(positional[len(positional) - len(values) :], values, strict=True)
    yield from sorted((function.__kwdefaults__ or {}).items())


def is_descriptor(value: Any) -> bool:
    """Whether a member of a class only wraps functions."""
    return isinstance(value, staticmethod | classmethod | property | functools.cached_property)


def descriptor_functions(value: Any) -> tuple[Any, ...]:
    """List the functions inside a descriptor."""
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    return (value.func,) if isinstance(value, functools.cached_property) else (value.__func__,)


def facts(cls: type) -> list[str]:
    """Texts that tell what machinery generates in a class: fields of data classes and named tuples, annotations."""
    found: list[str] = []
    if dataclasses.is_dataclass(cls):
        # Named one by one, because newer Pythons know more of them.
        options = vars(cls).get("__dataclass_params__")
        found += [f"{name}={getattr(options, name, None)}" for name in _DATACLASS_OPTIONS]
        found += [f"field {f.name} {f.init} {f.repr} {f.compare} {f.kw_only}" for f in dataclasses.fields(cls)]
    if issubclass(cls, tuple) and "_fields" in vars(cls):
        found.append(f"fields {vars(cls)['_fields']}")
    elif type(cls) is not type and not issubclass(cls, enum.Enum) and not inspect.isabstract(cls):
        # A metaclass may read the annotations; of a plain class nobody does.
        annotations = vars(cls).get("__annotations__", {})
        found += [f"{name}: {getattr(kind, '__qualname__', kind)}" for name, kind in annotations.items()]
    return found


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Members of a class that were written by its author, in a fixed order."""
    if issubclass(cls, enum.Enum):
        for name, member in cls.__members__.items():
            yield name, member.value
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            for kind in ("default", "default_factory"):
                value = getattr(field, kind)
                if value is not dataclasses.MISSING:
                    yield f"{field.name} {kind}", value
    yield from sorted(vars(cls).get("_field_defaults", {}).items())
    for name, value in sorted(vars(cls).items()):
        if name not in _BOOKKEEPING and not _is_generated(cls, name, value):
            yield name, value


def reduced(value: Any) -> str | list[Any] | None:
    """Say what an object is rebuilt from: the name of a global, a list of parts, or None when it does not say."""
    if isinstance(value, os.PathLike):
        return ["path", os.fspath(value)]
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        parts = reducer(value) if reducer is not None else value.__reduce_ex__(4)
    except Exception:  # user classes may raise anything here
        return None
    if isinstance(parts, str):
        return parts
    function, arguments, *rest = parts
    state = rest[0] if rest else None
    items = [None if part is None else list(part) for part in rest[1:3]]
    return [function, arguments, state, *items]


def _is_generated(cls: type, name: str, value: Any) -> bool:
    """Whether a member was made by `dataclass`, `namedtuple` or `enum`, whose inputs are hashed instead."""
    if isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType):
        return True
    if issubclass(cls, enum.Enum):
        functions = descriptor_functions(value) if is_descriptor(value) else (value,)
        written = any(isinstance(f, types.FunctionType) and f.__module__ != "enum" for f in functions)
        return name in cls.__members__ or not written
    if issubclass(cls, tuple) and "_fields" in vars(cls):
        function = getattr(value, "__func__", value)
        code = getattr(function, "__code__", None)
        generated = code is None or "collections" in code.co_filename or code.co_filename.startswith("<string")
        return name in vars(cls)["_fields"] or generated
    if dataclasses.is_dataclass(cls):
        code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
        made = code is not None and code.co_filename in ("<string>", dataclasses.__file__)
        names = {field.name for field in dataclasses.fields(cls)}
        return name in names or made or (name == "__hash__" and value is None)
    return False
