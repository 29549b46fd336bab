"""Keeps points apart: sees when one changes what it shares with others, and from then on gives each its own copy."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cloudpickle

from mce_notebook.declare.experiment import Compiled, Experiment
from mce_notebook.declare.routine import MARK_NAMES, Routine
from mce_notebook.run.integrity import copier, data, fingerprint, steady

# Captured values are looked at again when at least this many times as long as the look itself has passed.
_RARELY = 20


class Protection:
    """What points of an experiment share, and whether they leave it alone.

    Two kinds of objects are shared: results of setups, and values captured from the notebook. Where points change
    the first, each gets a copy; where they change the second, the experiment is loaded anew for each point.

    Parameters
    ----------
    experiment : Experiment
        As loaded from a bundle.
    reload : callable, optional
        Returns the experiment as it was declared.
    """

    def __init__(self, experiment: Experiment, reload: Callable[[], Experiment] | None = None):
        self.copying = False
        self.reloading = False
        self.canary = True
        self.notes: list[str] = []
        self._experiment = experiment
        self._reload = self._pristine = reload if reload is not None else _reloader(experiment)
        self._compiled = experiment.compiled()
        self._captured = {name: steady(value) for name, value in self._state().items()}
        self._checked = time.perf_counter()
        self._cost = 0.0
        self._provided: tuple[Any, ...] | None = None
        self._names: tuple[str, ...] = ()
        self._before: list[bytes | None] = []

    @property
    def marks(self) -> bool:
        """Whether the point may return `SKIP` or `MISSING`."""
        point = self._experiment.point
        return isinstance(point, Routine) and bool(set(MARK_NAMES) & set(point.code().co_names))

    def compiled(self) -> Compiled:
        """Return the callable experiment; a new one each time when points change captured values."""
        return self._pristine().compiled() if self.reloading else self._compiled

    def call(self, *row: Any) -> Any:
        """Evaluate one point on an experiment of its own."""
        compiled = self.compiled()
        for name in self._experiment.mirrored:
            compiled.namespace[name] = row[self._experiment.parameters.index(name)]
        return compiled.point(*row)

    def watch(self, names: tuple[str, ...], provided: tuple[Any, ...]) -> None:
        """Remember what setups provide, as it is before points see it."""
        if self.copying or provided is self._provided:
            return
        self._names, self._provided = names, provided
        self._before = [steady(value) for value in provided]

    def intact(self) -> bool:
        """Whether everything shared is as it was; after False, points are kept apart and must run again."""
        canary, self.canary = self.canary, False
        changed = self._changed_provided()
        if changed:
            self.copying = True
            self.notes.append(f"points change {_listed(changed)}, made by a setup: each point gets its own copy")
        spoiled = [] if self.reloading else self._changed_captured(canary)
        if spoiled:
            self.reloading = True
            # From memory, once it is needed for every point.
            self._pristine = _reloader(self._reload())
            self.notes.append(
                f"points change {_listed(spoiled)}, made before the loops: each point gets the value it had there"
            )
        return not changed and not spoiled

    def copies(
        self,
        names: Sequence[str],
        shared: Mapping[str, Any],
        again: Callable[[], tuple[Any, ...]],
        provides: Sequence[str],
    ) -> Iterator[tuple[Any, ...]]:
        """Return an endless iterator of the values of `names`, new objects each time.

        Parameters
        ----------
        names : sequence of str
        shared : mapping
            Their values, unspoiled.
        again : callable
            Computes what the setups provide once more, for what cannot be copied.
        provides : sequence of str
            The names of that.
        """
        copy = copier(tuple(shared[name] for name in names))
        if copy is not None:
            return itertools.starmap(copy, itertools.repeat(()))

        def computed() -> tuple[Any, ...]:
            values = {**shared, **dict(zip(provides, again(), strict=True))}
            return tuple(values[name] for name in names)

        return itertools.starmap(computed, itertools.repeat(()))

    def _changed_provided(self) -> list[str]:
        if self.copying or self._provided is None:
            return []
        return [
            name
            for name, value, before in zip(self._names, self._provided, self._before, strict=True)
            if before is not None and _digest(value) != before
        ]

    def _changed_captured(self, canary: bool) -> list[str]:
        begun = time.perf_counter()
        if not canary and begun - self._checked < _RARELY * self._cost:
            return []
        now = {name: _digest(value) for name, value in self._state().items()}
        self._checked = time.perf_counter()
        self._cost = self._checked - begun
        return [
            name
            for name in {**self._captured, **now}
            if name not in self._captured or self._captured[name] not in {None, now.get(name)}
        ]

    def _state(self) -> dict[str, Any]:
        # An experiment that was loaded has nothing in its namespace but what its code reaches.
        return data(self._compiled.namespace, without=self._experiment.mirrored)


def _digest(value: Any) -> bytes | None:
    found = fingerprint(value)
    return None if found is None else found[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _reloader(experiment: Experiment) -> Callable[[], Experiment]:
    frozen = cloudpickle.dumps(experiment, protocol=5)

    def reload() -> Experiment:
        loaded: Experiment = cloudpickle.loads(frozen)
        return loaded

    return reload
