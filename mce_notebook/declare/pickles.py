"""Pickling of user code: by value what the notebook defines, by reference what lies in modules."""

import functools
import importlib
import io
import pickle
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np

from mce_notebook.declare.origins import is_local, origin

PROTOCOL = 5


class Packer(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Cloudpickle with the exceptions that running elsewhere asks for.

    - The global generators are named and not copied: a copy would keep the numbers of this process.
    - A function with a cache is rebuilt around its function; by name, it would be looked up in another notebook.
    - The notebook's own shell is left behind.

    Parameters
    ----------
    file : binary file
    buffer_callback : callable, optional
        As for `pickle.Pickler`.

    Attributes
    ----------
    modules : set of str
        Local modules that the pickle refers to by name.
    """

    def __init__(self, file: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=buffer_callback)
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """See `pickle.Pickler.reducer_override`."""
        if isinstance(obj, types.ModuleType):
            self._note(obj.__name__)
            if type(obj) is not types.ModuleType and sys.modules.get(obj.__name__) is obj:
                # Modules of a class of their own, as lazy packages are, are as importable as others.
                return importlib.import_module, (obj.__name__,)
        elif isinstance(obj, types.FunctionType | type):
            self._note(obj.__module__)
        elif obj is np.random.mtrand._rand:
            return _numpy_generator, ()
        elif obj is getattr(random, "_inst"):  # noqa: B009 - a private name
            return _random_generator, ()
        elif isinstance(obj, functools._lru_cache_wrapper) and not _is_importable(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        elif isinstance(obj, types.BuiltinMethodType | types.MethodType) and obj.__self__ in _GLOBAL_GENERATORS:
            return getattr, (obj.__self__, obj.__name__)
        elif _is_shell(getattr(obj, "__self__", obj)):
            return _no_shell, (isinstance(obj, types.MethodType),)
        return super().reducer_override(obj)

    def _note(self, module: str | None) -> None:
        if module != "__main__" and is_local(module):
            self.modules.add(str(module))


def dumps(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> tuple[bytes, set[str]]:
    """Pickle a value.

    Returns
    -------
    bytes, set of str
        The pickle, and the local modules that must be importable where it is read.
    """
    file = io.BytesIO()
    packer = Packer(file, buffer_callback)
    packer.dump(value)
    return file.getvalue(), packer.modules


def copy(value: Any) -> Any:
    """Make a deep copy the way a slot would get it; functions of modules are shared."""
    return pickle.loads(dumps(value)[0])


class _Identities:
    """A set of objects compared by identity, for objects whose `==` may mean anything."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __contains__(self, item: Any) -> bool:
        return any(item is one for one in self._items)


_GLOBAL_GENERATORS = _Identities(np.random.mtrand._rand, getattr(random, "_inst"))  # noqa: B009


def _is_importable(value: Any) -> bool:
    """Whether a function is what its module has under its name."""
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _is_shell(value: Any) -> bool:
    cls = type(value)
    return origin(cls.__module__).kind == "notebook" and hasattr(value, "run_cell") and hasattr(value, "user_ns")


def _numpy_generator() -> Any:
    return np.random.mtrand._rand


def _random_generator() -> Any:
    return getattr(random, "_inst")  # noqa: B009


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.update_wrapper(functools.lru_cache(**parameters)(function), function)


def _no_shell(is_method: bool) -> Any:
    # As `IPython.get_ipython()` answers in plain Python.
    return (lambda *arguments, **options: None) if is_method else None
