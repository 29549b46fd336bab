"""Random streams: 128 bits of (root seed, identity of the point), independent of order, block, worker and extension.

Streams are Philox-4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11), a counter-based
generator for which every key is a good one. A new generator costs 11 microseconds, one that is set to a new key through
its `state` 0.9, and one whose memory is overwritten with a state made by NumPy for thousands of points at once 0.2.
"""

import ctypes
import hashlib
import itertools
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.errors import GridError

if TYPE_CHECKING:
    from mce_notebook.declare.grid import Grid

Keys = npt.NDArray[np.uint64]
KeyRow = npt.NDArray[np.uint64] | Sequence[int]


def root_seed(name: str, seed: Any = None) -> int:
    """Return the 128-bit root seed of an experiment: a hash of its name, or of `seed` where the user gave one.

    Raises
    ------
    GridError
        If `seed` is not a whole number that is zero or more.
    """
    if seed is None:
        # Names are unique whatever their case, so the seed must not depend on it either.
        return _hash(b"name\0" + name.casefold().encode())
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise GridError(f"The seed must be a whole number, zero or more, not {seed!r}.")
    return _hash(b"seed\0%d" % int(seed))


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")


@dataclass(frozen=True)
class Replicates:
    """`replicates(n)`: an axis of independent repetitions; in plain Python, n generators."""

    n: int
    shared: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[np.random.Generator]:
        for number in range(self.n):
            yield np.random.Generator(np.random.Philox(key=_hash(b"replicate\0%d" % number)))

    def __len__(self) -> int:
        return self.n


def replicates(n: Any, shared: str | Sequence[str] = ()) -> Replicates:
    """Repeat every point `n` times, each with its own random stream.

    Parameters
    ----------
    n : int
        Number of repetitions, at least 1.
    shared : str or sequence of str
        Axes along which a repetition keeps its stream, so that for example all methods see the same noise
        (common random numbers).

    Returns
    -------
    Replicates
        Iterating over it in plain Python yields `n` independent `numpy.random.Generator`.

    Raises
    ------
    GridError
        If `n` is not a whole number of at least 1, or `shared` is not made of names.

    Examples
    --------
    >>> [rng.integers(10) >= 0 for rng in replicates(2)]
    [np.True_, np.True_]
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise GridError(f"replicates needs a whole number of repetitions, at least 1, not {n!r}.")
    names = (shared,) if isinstance(shared, str) else tuple(shared)
    if not all(str(name).isidentifier() for name in names):
        raise GridError(f'shared must name axes, such as shared="method", not {shared!r}.')
    return Replicates(int(n), names)


# SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014): a bijection that scatters neighbouring inputs.
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def stream_keys(point_keys: Keys, root: int) -> Keys:
    """Return the Philox keys of points, uint64[n, 2], from their identities and the root seed.

    Point keys are sums of hashes, so adding another hash of the root keeps them distinct and uniformly spread;
    a bijective mix then keeps differences between points from being differences between keys.
    """
    shift = _hash(b"root\0" + int(root).to_bytes(16, "little"))
    low = point_keys[:, 0] + np.uint64(shift & 0xFFFFFFFFFFFFFFFF)
    high = point_keys[:, 1] + np.uint64(shift >> 64) + (low < point_keys[:, 0])
    # Two rounds of a Feistel network over the halves: each bit of either reaches both.
    high ^= _scatter(low)
    low ^= _scatter(high)
    return np.stack([low, high], axis=1)


def _scatter(words: Keys) -> Keys:
    mixed = (words ^ (words >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    scattered: Keys = mixed ^ (mixed >> np.uint64(31))
    return scattered


# The state of NumPy's Philox: the addresses of counter and key, then what `_FRAME` lists, with these two at its end.
_FRAME = np.dtype(
    [
        ("position", np.uint64),
        ("buffer", np.uint64, 4),
        ("half", np.uint64),
        ("key", np.uint64, 2),
        ("counter", np.uint64, 4),
    ]
)
_FRAME_AT = 16
_CHUNK = 4096
_EVERYTHING = slice(None)


def _window(philox: np.random.Philox) -> memoryview | None:
    """Return the memory of a bit generator that `_FRAME` describes; None where NumPy lays it out otherwise.

    The address is public (`BitGenerator.ctypes`), the layout is not: so it is recognised before it is used, by the two
    addresses in it and by what NumPy itself says of a state that was written there.
    """
    start = philox.ctypes.state_address
    inside = start - id(philox)
    if not 0 < inside <= type(philox).__basicsize__ - _FRAME_AT - _FRAME.itemsize:
        return None
    memory = (ctypes.c_ubyte * (_FRAME_AT + _FRAME.itemsize)).from_address(start)
    # Whoever can write there keeps the generator alive.
    memory.owner = philox  # type: ignore[attr-defined]
    everything = memoryview(memory).cast("B")
    pointers = np.frombuffer(everything[:_FRAME_AT], np.uint64).tolist()
    fields: Mapping[str, Any] = _FRAME.fields or {}
    if pointers != [start + _FRAME_AT + fields[name][1] for name in ("counter", "key")]:
        return None
    window = everything[_FRAME_AT:]
    before = philox.state
    philox.random_raw(3)
    window[:] = _frames(np.array([[1, 2**63 + 5]], np.uint64))[0]
    written, fresh = philox.state, np.random.Philox(key=np.array([1, 2**63 + 5], np.uint64)).state
    philox.state = before
    return window if repr(written) == repr(fresh) else None


def _frames(keys: Keys) -> list[bytes]:
    """Return the states of new generators with some keys, as bytes each."""
    frames = np.zeros(len(keys), _FRAME)
    # All four numbers of the buffer are used up.
    frames["position"] = 4
    frames["key"] = keys
    made: list[bytes] = frames.view(f"V{_FRAME.itemsize}").tolist()
    return made


class Stream:
    """The random numbers of one slot: generators and seeds made from stream keys."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)
        # NumPy reads the state element by element, which takes half the time from tuples of Python integers.
        self._key: dict[str, Any] = {"counter": (0,) * 4, "key": (0, 0)}
        self._fresh_state: dict[str, Any] = {**self._philox.state, "state": self._key, "buffer": (0,) * 4}
        self._memory = _window(self._philox)

    def generator(self, key_row: KeyRow, *, fresh: bool = False) -> np.random.Generator:
        """Return the generator of a point: bit-identical whether fresh or reused.

        A reused one is reset at the next call, so it must not be handed to code that may keep it.
        """
        if fresh:
            return np.random.Generator(np.random.Philox(key=np.array(key_row, np.uint64)))
        self._key["key"] = key_row
        self._philox.state = self._fresh_state  # type: ignore[assignment]
        return self._generator

    def generators(self, keys: Keys) -> Iterator[np.random.Generator]:
        """Return the reused generator once for each key, reset when it is asked for; goes on after an exception."""
        chunks = (keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK))
        if self._memory is None:
            return map(self.generator, itertools.chain.from_iterable(map(np.ndarray.tolist, chunks)))
        states = itertools.chain.from_iterable(map(_frames, chunks))
        # `__setitem__` resets it and returns None; everything here runs in C.
        return map(
            {None: self._generator}.__getitem__, map(self._memory.__setitem__, itertools.repeat(_EVERYTHING), states)
        )

    def seed(self, key_row: KeyRow) -> int:
        """Return a 32-bit unsigned seed, what most libraries accept."""
        return int(key_row[0]) & 0xFFFFFFFF

    def seed_globals(self, key_row: KeyRow) -> None:
        """Seed `random` and NumPy's legacy generator with all 128 bits; 32 would collide at 1e5 points."""
        words = [int(key_row[0]), int(key_row[1])]
        random.seed(words[0] | words[1] << 64)
        np.random.seed([word >> shift & 0xFFFFFFFF for word in words for shift in (0, 32)])


def setup_key(
    grid: "Grid",
    index: int,
    inside: Collection[str],
    constants: Mapping[str, Any],
    root: int,
    shared: Collection[str] = (),
) -> Keys:
    """Return the stream key, uint64[2], of a setup: the axes that enclose it and the constants it reads.

    Parameters
    ----------
    grid : Grid
    index : int
        Listed index of any point that uses the setup.
    inside : collection of str
        Names of the loops inside the setup.
    constants : mapping
        Simple constants that the setup reads.
    root : int
        Root seed.
    shared : collection of str
        Axes left out, as for points.
    """
    key = grid.keys(np.array([index]), without={*inside, *shared}, constants=constants)
    # A setup and a point that read the same names must still draw different numbers.
    setup: Keys = stream_keys(key, root ^ _hash(b"setup"))[0]
    return setup
