"""Whether points change what they share: a fingerprint of objects, and copies of them that points may spoil.

Two points that share a setup's array must not see what the other one did to it, or results would depend on order.
Objects are fingerprinted around points; where they changed, every point gets a copy of its own.
"""

import io
import pickle
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import cloudpickle
import xxhash

# Looking twice at more bytes than these would cost more than it tells.
_TWICE = 8_000_000


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


class _Sink(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, state: _Hash):
        self.state = state
        self.nbytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.state.update(data)
        size = len(memoryview(data).cast("B"))
        self.nbytes += size
        return size


def fingerprint(value: Any) -> tuple[bytes, int] | None:
    """Return a hash of an object's state and the bytes it took, or None when the object cannot be pickled.

    Buffers that nobody can write to (captured arrays are mapped read-only) count by size alone.
    """
    for pickler in (pickle.Pickler, cloudpickle.Pickler):
        state = xxhash.xxh3_128()
        sink = _Sink(state)

        def absorb(buffer: pickle.PickleBuffer, sink: _Sink = sink) -> bool:
            with buffer.raw() as view:
                if view.readonly:
                    sink.write(view.nbytes.to_bytes(8, "little"))
                else:
                    sink.write(view)
            return False

        try:
            pickler(sink, protocol=5, buffer_callback=absorb).dump(value)
        except Exception:
            continue
        return state.digest(), sink.nbytes
    return None


def steady(value: Any) -> bytes | None:
    """Return the hash of an object's state, or None where it cannot be told or differs from one look to the next."""
    first = fingerprint(value)
    if first is None or (first[1] <= _TWICE and fingerprint(value) != first):
        return None
    return first[0]


def copier(value: Any) -> Callable[[], Any] | None:
    """Return a function that makes a fresh copy of a value each time, or None when it cannot be copied."""
    try:
        frozen = cloudpickle.dumps(value, protocol=5)
        pickle.loads(frozen)
    except Exception:
        return None
    return lambda: pickle.loads(frozen)


def data(namespace: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Return the values of a namespace that hold state, in a fixed order: no modules, functions, classes, dunders."""
    return {
        name: value
        for name, value in sorted(namespace.items())
        if name not in without and not name.startswith("__") and not isinstance(value, _CODE)
    }


_CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
