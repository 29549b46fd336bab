"""The arguments of points, made without a Python object per point beyond the tuple that is called with.

Everything per point is a chain of `map`, `zip` and `itemgetter`: they run in C and, unlike generators, go on after an
exception. At a microsecond a point, a dictionary per point would double the time.
"""

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mce_notebook.declare import seeds
from mce_notebook.declare.experiment import Experiment
from mce_notebook.declare.grid import Grid
from mce_notebook.errors import DeclarationError
from mce_notebook.plan import Block

_CHUNK = 8192


@dataclass(frozen=True)
class Streams:
    """What an experiment draws from at each point.

    Parameters
    ----------
    experiment : Experiment
    grid : Grid
    stream : Stream
        The slot's own; its generator is reset from point to point.
    """

    experiment: Experiment
    grid: Grid
    stream: seeds.Stream

    @property
    def drawn(self) -> bool:
        """Whether points draw at all."""
        return self.experiment.streams != "none" or self.experiment.global_rng == "seeded"

    def keys(self, indices: np.ndarray) -> np.ndarray:
        """Return the stream keys of points, uint64[n, 2]."""
        experiment = self.experiment
        points = self.grid.keys(indices, without=experiment.shared, constants=experiment.constants)
        return seeds.stream_keys(points, experiment.root)

    def columns(self, indices: np.ndarray) -> dict[str, Iterator[Any]]:
        """Return what each point receives besides its axes: generators, seeds; the last column only has an effect."""
        if not self.drawn:
            return {}
        experiment, stream = self.experiment, self.stream
        keys = self.keys(indices)
        columns: dict[str, Iterator[Any]] = {}
        if experiment.generator_names and experiment.streams in {"rng", "both"}:
            fresh = map(partial(stream.generator, fresh=True), _pairs(keys))
            columns[experiment.generator_names[0]] = fresh if experiment.fresh_generators else stream.generators(keys)
        if experiment.streams in {"seed", "both"}:
            columns["seed"] = map(stream.seed, _pairs(keys))
        if experiment.global_rng == "seeded":
            columns["<global>"] = map(stream.seed_globals, _pairs(keys))
        return columns


@dataclass(frozen=True)
class Arguments:
    """Makes argument tuples in the order of an experiment's parameters.

    Parameters
    ----------
    parameters : tuple of str
        What the point is called with, in order.
    grid : Grid
    streams : Streams
    """

    parameters: tuple[str, ...]
    grid: Grid
    streams: Streams

    def rows(self, block: Block, shared: Sequence[str], values: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Return the argument tuples of a block.

        Parameters
        ----------
        block : Block
        shared : sequence of str
            Names that are the same for all its points: what setups provide, constants taken as parameters.
        values : iterable of tuple
            Their values, once per point (`itertools.repeat` of one tuple, or a new copy each).
        """
        rows = self.grid.points_in(block.ranges)
        columns = self.streams.columns(block.indices()) if self.streams.drawn else {}
        names = [*self.grid.names, *columns, *shared]
        if columns:
            rows = map(operator.add, rows, zip(*columns.values(), strict=False))
        if shared:
            rows = map(operator.add, rows, values)
        return self._ordered(rows, names)

    def _ordered(self, rows: Iterator[tuple[Any, ...]], names: list[str]) -> Iterator[tuple[Any, ...]]:
        # A later name wins: what a setup or a stream gives replaces an axis of that name.
        place = {name: position for position, name in enumerate(names)}
        generators = self.streams.experiment.generator_names
        place.update((name, place[generators[0]]) for name in generators if generators[0] in place)
        missing = [name for name in self.parameters if name not in place]
        if missing:
            raise DeclarationError(
                f"The point takes {_listed(missing)}, which no axis, setup or constant provides; "
                f"there are {_listed(place)}."
            )
        order = [place[name] for name in self.parameters]
        if order == list(range(len(names))):
            return rows
        if not order:
            return map(_nothing, rows)
        if len(order) == 1:
            return zip(map(operator.itemgetter(order[0]), rows))
        return map(operator.itemgetter(*order), rows)


def _pairs(keys: np.ndarray) -> Iterator[list[int]]:
    """Return the rows of an array as Python integers, a few thousand of them at a time."""
    chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
    return itertools.chain.from_iterable(map(np.ndarray.tolist, chunks))


def mirror(
    names: Sequence[str], parameters: Sequence[str], namespace: dict[str, Any]
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return a function that writes some arguments into a namespace as globals, and returns all of them."""
    places = [(name, parameters.index(name)) for name in names]

    def written(row: tuple[Any, ...]) -> tuple[Any, ...]:
        for name, position in places:
            namespace[name] = row[position]
        return row

    return written


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _nothing(_: tuple[Any, ...]) -> tuple[()]:
    return ()
