"""Setups of axes: computed once per combination of the enclosing axes and kept, a bounded number of bytes, per slot."""

import ast
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.declare import seeds
from mce_notebook.declare.experiment import Compiled, Experiment
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.routine import Setup
from mce_notebook.errors import DeclarationError
from mce_notebook.plan import Block
from mce_notebook.run import scratch
from mce_notebook.run.causes import Causes, Interruption
from mce_notebook.run.integrity import fingerprint
from mce_notebook.run.outcome import cut
from mce_notebook.run.protocol import Prefix
from mce_notebook.store.frames import Failure

MEMO_BYTES = 512 * 1024 * 1024
# What a result that cannot be pickled, hence measured, is taken for.
_UNKNOWN = 16 * 1024 * 1024


@dataclass(frozen=True)
class Span:
    """Points of a block, by position, that share the innermost setup."""

    start: int
    stop: int


@dataclass
class _Kept:
    value: tuple[Any, ...] | Failure
    nbytes: int
    digest: bytes | None


class Memo:
    """Results of setups, least recently used forgotten first.

    Parameters
    ----------
    limit : int
        Bytes in all; one result is kept whatever its size.
    """

    def __init__(self, limit: int = MEMO_BYTES):
        self._limit = limit
        self._kept: OrderedDict[tuple[int, Prefix], _Kept] = OrderedDict()
        self._nbytes = 0

    def get(self, key: tuple[int, Prefix]) -> tuple[Any, ...] | Failure | None:
        """Return a result, or None where there is none."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept.value

    def put(self, key: tuple[int, Prefix], value: tuple[Any, ...] | Failure) -> None:
        """Keep a result."""
        self.drop(key)
        measured = None if isinstance(value, Failure) else fingerprint(value)
        digest, nbytes = measured if measured is not None else (None, _UNKNOWN)
        kept = _Kept(value, nbytes, digest)
        self._kept[key] = kept
        self._nbytes += kept.nbytes
        while self._nbytes > self._limit and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._nbytes -= oldest.nbytes

    def intact(self, key: tuple[int, Prefix]) -> bool:
        """Whether a result is as it was when it was put here; True where that cannot be told."""
        kept = self._kept.get(key)
        if kept is None or kept.digest is None or isinstance(kept.value, Failure):
            return True
        found = fingerprint(kept.value)
        return found is None or found[0] == kept.digest

    def drop(self, key: tuple[int, Prefix]) -> None:
        """Forget a result."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._nbytes -= kept.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._nbytes = 0


class Setups:
    """Runs the setups of an experiment for the points of a block.

    Parameters
    ----------
    experiment : Experiment
    compiled : callable
        Returns the setups to call; new ones each time once points are known to change captured values.
    grid : Grid
    causes : Causes
        Makes failures of exceptions.
    stream : Stream
        What random setups draw from.
    output : callable
        Returns a function that gives what was printed since its making.
    """

    def __init__(
        self,
        experiment: Experiment,
        compiled: Callable[[], Compiled],
        grid: Grid,
        causes: Causes,
        stream: seeds.Stream,
        output: Callable[[], Callable[[], str]],
    ):
        self._experiment = experiment
        self._compiled = compiled
        self._grid = grid
        self._memo = Memo()
        self.dead: Mapping[Prefix, Failure] = {}
        self._volatile = False
        self._causes = causes
        self._stream = stream
        self._output = output

    @property
    def names(self) -> tuple[str, ...]:
        """Everything setups provide, outermost first."""
        return tuple(name for setup in self._experiment.setups for name in setup.provides)

    def spans(self, block: Block) -> Iterator[Span]:
        """Cut a block where the values of the axes around the innermost setup change."""
        if not self._experiment.setups:
            yield Span(0, block.count)
            return
        innermost = self._experiment.setups[-1]
        start = 0
        for piece in self._by_part(block):
            indices = piece.indices()
            without = innermost.inside(self._grid, int(indices[0]))
            keys = self._grid.keys(indices, without=without)
            breaks = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1
            edges = [0, *breaks.tolist(), piece.count]
            for low, high in itertools.pairwise(edges):
                yield Span(start + low, start + high)
            start += piece.count

    def _by_part(self, block: Block) -> Iterator[Block]:
        edges = np.cumsum([part.size for part in self._grid.parts])
        position = 0
        for first, last in block.ranges:
            inside = [int(edge) for edge in edges if first < edge < last]
            for low, high in zip([first, *inside], [*inside, last], strict=True):
                piece = cut(block, position, position + high - low)
                position += high - low
                if piece is not None:
                    yield piece

    def values(self, index: int, entering: Callable[[Prefix], None]) -> tuple[Any, ...] | Failure:
        """Return what all setups around a point provide, or the failure of one of them.

        Parameters
        ----------
        index : int
            Listed index of the point.
        entering : callable
            Called before a setup is computed (not when its result is kept).
        """
        known = self._known(index)
        provided: tuple[Any, ...] = ()
        outer: list[tuple[int, Prefix]] = []
        for number, setup in enumerate(self._experiment.setups):
            key = (number, self._prefix(index, setup))
            kept = self._kept(key)
            value = kept if kept is not None else self._compute(key, index, known, entering)
            if isinstance(value, Failure):
                return value
            if kept is None and not self._volatile and not all(map(self._memo.intact, outer)):
                # The inner setup changed what an outer one made: from now on each chain is computed from its start.
                self._volatile = True
                self.forget()
                return self.values(index, entering)
            known.update(zip(setup.provides, value, strict=True))
            provided += value
            outer.append(key)
        return provided

    def again(self, index: int) -> tuple[Any, ...]:
        """Compute all setups around a point anew, keeping nothing; raises what they raise.

        For objects that points change and that cannot be copied.
        """
        known = self._known(index)
        provided: tuple[Any, ...] = ()
        for number, setup in enumerate(self._experiment.setups):
            value = self._call(number, index, known)
            known.update(zip(setup.provides, value, strict=True))
            provided += value
        return provided

    def _known(self, index: int) -> dict[str, Any]:
        (row,) = self._grid.points(index, index + 1)
        return {**self._experiment.constants, **dict(zip(self._grid.names, row, strict=True))}

    def forget(self) -> None:
        """Drop every result, because points may have changed them."""
        self._memo.clear()

    def _prefix(self, index: int, setup: Setup) -> Prefix:
        # Axes that share a stream still have setups of their own, so this is not the stream key.
        (key,) = self._grid.keys(np.array([index]), without=setup.inside(self._grid, index))
        return Prefix(setup.depth, (int(key[0]), int(key[1])))

    def _stream_key(self, number: int, index: int) -> Any:
        experiment = self._experiment
        setup = experiment.setups[number]
        read = {node.id for node in ast.walk(setup.routine.tree) if isinstance(node, ast.Name)}
        constants = {name: value for name, value in experiment.constants.items() if name in read}
        return seeds.setup_key(
            self._grid, index, setup.inside(self._grid, index), constants, experiment.root, experiment.shared
        )

    def _kept(self, key: tuple[int, Prefix]) -> tuple[Any, ...] | Failure | None:
        dead = self.dead.get(key[1])
        if dead is not None:
            return dead
        kept = self._memo.get(key)
        return kept if isinstance(kept, Failure) or not self._volatile else None

    def _compute(
        self, key: tuple[int, Prefix], index: int, known: dict[str, Any], entering: Callable[[Prefix], None]
    ) -> tuple[Any, ...] | Failure:
        number, prefix = key
        entering(prefix)
        printed = self._output()
        value: tuple[Any, ...] | Failure
        try:
            with scratch.point(_no_files):
                value = self._call(number, index, known)
        except Interruption:
            raise
        except BaseException as error:
            value = self._causes.failure(error, where="setup", output=printed())
        self._memo.put(key, value)
        return value

    def _call(self, number: int, index: int, known: dict[str, Any]) -> tuple[Any, ...]:
        experiment = self._experiment
        key = self._stream_key(number, index)
        setup = experiment.setups[number]
        drawn: dict[str, Any] = {"seed": self._stream.seed(key)}
        for name in {"rng", *experiment.generator_names}:
            # A setup may keep its generator in what it provides, so it gets one of its own.
            drawn[name] = self._stream.generator(key, fresh=True)
        if experiment.global_rng == "seeded":
            self._stream.seed_globals(key)
        values = {**drawn, **known, **{name: drawn[name] for name in experiment.generator_names}}
        compiled = self._compiled()
        compiled.namespace.update((name, values[name]) for name in experiment.mirrored if name in values)
        result = compiled.setups[number](*(values[name] for name in setup.routine.parameters))
        return tuple(result) if isinstance(result, tuple) else (result,)


def _no_files() -> Path:
    raise DeclarationError(
        "scratch() is the folder of a point, and this is a setup: call it inside the innermost loop."
    )
