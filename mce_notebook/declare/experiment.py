"""What a point means: its code with setups and constants, its outputs and streams, the version of all it reaches."""

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mce_notebook.declare import contents
from mce_notebook.declare.closure import Closure, Walk
from mce_notebook.declare.code_text import source_node
from mce_notebook.declare.hazards import keeps_generator
from mce_notebook.declare.routine import MISSING, SKIP, Routine, Setup
from mce_notebook.declare.seeds import root_seed
from mce_notebook.declare.signatures import Call, call_of, output_names
from mce_notebook.declare.version import Version, explain
from mce_notebook.errors import DeclarationError

__all__ = [
    "MISSING",
    "SKIP",
    "Compiled",
    "Experiment",
    "Routine",
    "Setup",
    "Version",
    "explain",
    "from_function",
    "from_nest",
]

if TYPE_CHECKING:
    from mce_notebook.declare.importing import Sources
    from mce_notebook.declare.loops import Bound

Streams = Literal["none", "rng", "seed", "both"]


@dataclass(frozen=True)
class Compiled:
    """Callables of an experiment, ready to be called with positional arguments.

    Parameters
    ----------
    point : callable
        Takes the values of `Experiment.parameters`.
    setups : tuple of callable
        Each takes the values of its routine's parameters and returns the tuple it provides.
    namespace : dict
        Globals of the notebook's code; `mirrored` parameters are set here before each point.
    """

    point: Callable[..., Any]
    setups: tuple[Callable[..., Any], ...]
    namespace: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Experiment:
    """What is computed at each point of a grid.

    Parameters
    ----------
    name : str
    point : Routine or callable
    parameters : tuple of str
        What the point is called with, by position: axes, what setups provide, `rng`, `seed`.
    outputs : tuple of str or None
        Names of the elements of what it returns (one name: the bare value); None when the first outcome tells.
    setups : tuple of Setup
    constants : mapping of str to simple value
        Part of the identity of points, never of the version.
    namespace : mapping of str to object
        What the point and the setups read from the notebook.
    mirrored : tuple of str
        Parameters that helpers read as globals.
    streams : {"none", "rng", "seed", "both"}
        What is drawn for the point and handed to it.
    generator_names : tuple of str
        Parameters that receive a `numpy.random.Generator`.
    fresh_generators : bool
        Whether each point needs a generator object of its own, because the point may keep it.
    global_rng : {"none", "seeded"}
        Whether the global generators are seeded before each point.
    draws_in_setup : bool
        Whether a setup draws random numbers.
    shared : tuple of str
        Axes left out of the stream's key (common random numbers).
    root : int
        Root seed, 128 bits.
    dims : mapping of str to tuple of str
        Names of the dimensions of array outputs.
    version : Version
    module_values : mapping of str to tuple of str
        Local modules reached, and the names that were read from them.
    home : dict or None
        The namespace that the notebook's functions have as their globals.
    sources : Sources or None
        Of an experiment loaded from a bundle beside other code (see `bundle.load`): where its modules are.
    """

    name: str
    point: Routine | Callable[..., Any]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...] | None
    setups: tuple[Setup, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    namespace: Mapping[str, Any] = field(default_factory=dict)
    mirrored: tuple[str, ...] = ()
    streams: Streams = "none"
    generator_names: tuple[str, ...] = ()
    fresh_generators: bool = False
    global_rng: Literal["none", "seeded"] = "none"
    draws_in_setup: bool = False
    shared: tuple[str, ...] = ()
    root: int = 0
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    version: Version = field(default_factory=lambda: Version(""))
    module_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    home: dict[str, Any] | None = field(default=None, repr=False)
    sources: "Sources | None" = field(default=None, repr=False)

    def compiled(self) -> Compiled:
        """Make the callables; done once per slot."""
        namespace = self.home if self.home is not None else {}
        point = self.point.compile(namespace) if isinstance(self.point, Routine) else self.point
        return Compiled(point, tuple(setup.routine.compile(namespace) for setup in self.setups), namespace)

    def token(self, value: Any) -> str:
        """Digest of any object by its content, as the version sees it."""
        walk = Walk(self.home)
        walk.add(value, "value")
        return walk.finish().version.hash

    def __getstate__(self) -> dict[str, Any]:
        state = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        state["sources"] = None
        if self.home is not None:
            state["home"] = _anchor(self.home)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        anchor = state["home"]
        if anchor is not None:
            home = state["home"] = anchor.__globals__
            home.update(state["namespace"])
            home.update(state["constants"] if isinstance(state["point"], Routine) else {})
        for name, value in state.items():
            object.__setattr__(self, name, value)


def _anchor(home: dict[str, Any]) -> types.FunctionType:
    """Make a function that carries a namespace through a pickle.

    Cloudpickle gives all functions that shared their globals one new dictionary. An empty function among them is how
    that dictionary can be found again, to compile routines in it and to set what helpers read from it.
    """
    anchor = types.FunctionType((lambda: None).__code__, home, "anchor")
    # Functions of `__main__` are pickled by value.
    anchor.__module__ = "__main__"
    return anchor


def from_nest(
    bound: "Bound",
    namespace: dict[str, Any],
    *,
    name: str,
    seed: int | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    shared: Sequence[str] = (),
    depends: Iterable[str | Path] = (),
) -> Experiment:
    """Make the experiment of a cell of loops.

    Parameters
    ----------
    bound : loops.Bound
        The loops, with their iterables evaluated.
    namespace : dict
        The notebook's namespace, the very object its functions have as their globals.
    name : str
        Name of the experiment; its hash is the root seed unless `seed` is given.
    seed : int, optional
    dims : mapping, optional
        Names of the dimensions of array outputs, besides those the loops give.
    shared : sequence of str, optional
        Axes left out of the stream's key, besides those `replicates` names.
    depends : iterable of paths, optional
        Data files whose content belongs to the version.

    Raises
    ------
    DeclarationError
        When the point reads a name nobody defines or captures a generator, or a file is missing.
    """
    routines = (*(setup.routine for setup in bound.setups), bound.point)
    parameters = {*bound.grid.names, *(p for routine in routines for p in routine.parameters)}
    parameters |= {provided for setup in bound.setups for provided in setup.provides}
    walk = Walk(namespace, parameters=parameters, mirror=True)
    draws = False
    for number, setup in enumerate(bound.setups, start=1):
        walk.add_routine(setup.routine, f"the setup of axis {number}" if len(bound.setups) > 1 else "the setup")
        if _setup_draws(setup, bound, namespace, parameters):
            draws = True
            axes = bound.grid.parts[0].axes[: setup.depth]
            names = [coordinate.name for axis in axes for coordinate in axis.coordinates]
            enclosing = ", ".join((*names, *setup.enclosing))
            walk.add_fact(f"the axes around the random setup at depth {setup.depth}", enclosing)
    walk.add_routine(bound.point, "the point")
    _add_files(walk, depends)
    closure = walk.finish()
    _check_defined(closure)
    return Experiment(
        name=name,
        point=bound.point,
        parameters=bound.point.parameters,
        outputs=bound.outputs,
        setups=bound.setups,
        constants=closure.constants,
        namespace={captured: namespace[captured] for captured in closure.captured},
        mirrored=closure.mirrored,
        streams="rng" if bound.generator_names else "none",
        generator_names=tuple(bound.generator_names),
        fresh_generators=_keeps(bound.point, bound.generator_names),
        global_rng=_global_rng(closure.version),
        draws_in_setup=draws,
        shared=tuple(dict.fromkeys((*bound.shared, *shared))),
        root=root_seed(name, seed),
        dims=_tuples({**bound.dims, **(dims or {})}),
        version=closure.version,
        module_values=closure.module_values,
        home=namespace,
    )


def from_function(
    fn: Callable[..., Any],
    grid_names: Sequence[str],
    *,
    name: str | None = None,
    seed: int | None = None,
    outputs: Sequence[str] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    shared: Sequence[str] = (),
    constants: Mapping[str, Any] | None = None,
    depends: Iterable[str | Path] = (),
) -> Experiment:
    """Make the experiment of a function.

    Parameters
    ----------
    fn : callable
        A parameter named `rng` receives a generator, one named `seed` an int, unless they are axes.
    grid_names : sequence of str
        Names of the axes; `replicate` need not be a parameter.
    name : str, optional
        The function's own by default.
    constants : mapping, optional
        Fixed arguments, passed at every point; simple ones are identity, others belong to the version.

    Other parameters are those of `from_nest`.

    Raises
    ------
    DeclarationError
        When arguments are missing or unknown, the function captures a generator, or a file is missing.
    """
    fixed = dict(constants or {})
    call = call_of(fn, tuple(grid_names), fixed)
    home = _notebook_of(call.function)
    own = [call.function.__code__] if call.function is not None else []
    walk = Walk(home, own, {*grid_names, *call.drawn, *fixed})
    walk.add(fn, f"`{call.name}`")
    for argument, value in sorted(call.fixed_objects.items()):
        walk.add_argument(argument, value)
    _add_files(walk, depends)
    closure = walk.finish()
    _check_defined(closure)
    return Experiment(
        name=name or call.name,
        point=call.point,
        parameters=call.parameters,
        outputs=tuple(outputs) if outputs is not None else output_names(call.function, call.name),
        constants={**closure.constants, **call.constants},
        namespace={captured: home[captured] for captured in closure.captured} if home is not None else {},
        streams=_streams(call),
        generator_names=tuple(argument for argument in call.drawn if argument == "rng"),
        fresh_generators="rng" in call.drawn and _keeps(call.function, ("rng",)),
        global_rng=_global_rng(closure.version),
        shared=tuple(shared),
        root=root_seed(name or call.name, seed),
        dims=_tuples(dims),
        version=closure.version,
        module_values=closure.module_values,
        home=home,
    )


def _notebook_of(function: types.FunctionType | None) -> dict[str, Any] | None:
    """Namespace of the notebook, when the function was defined in it."""
    if function is None or function.__globals__.get("__name__") not in ("__main__", None):
        return None
    return function.__globals__


def _setup_draws(setup: Setup, bound: "Bound", namespace: dict[str, Any], parameters: set[str]) -> bool:
    if set(setup.routine.parameters) & set(bound.generator_names):
        return True
    walk = Walk(namespace, parameters=parameters, mirror=True)
    walk.add_routine(setup.routine, "the setup")
    return _global_rng(walk.finish().version) == "seeded"


def _global_rng(version: Version) -> Literal["none", "seeded"]:
    # What could not be followed might draw, and seeding is cheap beside streams that repeat themselves.
    unsure = not version.complete or any("computed while it runs" in warning for warning in version.warnings)
    return "seeded" if version.uses_global_rng or unsure else "none"


def _keeps(point: Routine | types.FunctionType | None, names: Sequence[str]) -> bool:
    if not names:
        return False
    if isinstance(point, Routine):
        return keeps_generator(point.tree, names)
    return keeps_generator(source_node(point.__code__) if point is not None else None, names)


def _streams(call: Call) -> Streams:
    kinds: dict[frozenset[str], Streams] = {
        frozenset(): "none",
        frozenset({"rng"}): "rng",
        frozenset({"seed"}): "seed",
        frozenset({"rng", "seed"}): "both",
    }
    return kinds[frozenset(call.drawn)]


def _check_defined(closure: Closure) -> None:
    if closure.undefined:
        names = ", ".join(f"`{name}`" for name in closure.undefined)
        verb = "is" if len(closure.undefined) == 1 else "are"
        raise DeclarationError(
            f"{names} {verb} not defined: the points would all fail. Run the cell that defines it first."
        )


def _add_files(walk: Walk, files: Iterable[str | Path]) -> None:
    for file in files:
        try:
            content = contents.file_digest(Path(file))
        except OSError as error:
            raise DeclarationError(f"--depends {file}: the file cannot be read ({error.strerror}).") from None
        walk.add_fact(f"file `{file}`", content)


def _tuples(dims: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    return {name: (names,) if isinstance(names, str) else tuple(names) for name, names in (dims or {}).items()}
