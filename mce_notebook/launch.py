"""What happens when a cell or a call declares a sweep: the rules, the declaration, the request to a host.

Order matters here. Whatever can fail because of what the user wrote happens in memory first; then objects,
code and the declaration are written, each complete before the next refers to it; the host is asked last. A
declaration that was refused leaves nothing behind.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.declare import bundle, environment
from mce_notebook.declare.experiment import Experiment
from mce_notebook.declare.grid import Grid
from mce_notebook.declare.options import Options
from mce_notebook.declare.version import Version, explain
from mce_notebook.errors import AlreadyExists, DeclarationError, NameConflict, SweepStopped
from mce_notebook.run.trial import settled
from mce_notebook.store.catalog import Store, SweepStore, object_digest
from mce_notebook.store.coverage import Known, known, todo, unknown
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.first import first_files
from mce_notebook.store.layout import checked_name

# Stale points that cost less than this in all are recomputed without asking (core-seconds).
STALE_SECONDS = 600.0


@dataclass(frozen=True)
class Proposal:
    """What a cell or a call asks for; nothing is written yet.

    Parameters
    ----------
    experiment : Experiment
        What a point means.
    grid : Grid
        Which points, as the cell or the call itself lists them.
    options : Options
        How to run them.
    kind : str
        ``cell``, ``function`` or ``script``.
    cell : str
        The text it came from.
    notebook : str
        Path of the notebook or script, empty when unknown.
    info : mapping
        More fields of the declaration: ``notes``, ``sinks``, ``tail``.
    joins : bool
        Whether the grid holds the points declared before, and more (`extend`), instead of replacing them.
    selection : mapping, optional
        Labels by name of the points to rerun.
    adopt, replace : bool
        Whether a name that belongs to another experiment is taken over, or its sweep put aside.
    """

    experiment: Experiment
    grid: Grid
    options: Options
    kind: str
    cell: str = ""
    notebook: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    joins: bool = False
    selection: Mapping[str, list[Any]] | None = None
    adopt: bool = False
    replace: bool = False


@dataclass(frozen=True)
class Launched:
    """A declaration that stands in the store, and what it set off.

    Parameters
    ----------
    sweep : SweepStore
        Where it stands.
    declaration : Declaration
        The declaration that holds now.
    todo : int
        Points to be computed; at most so many while a slow guard is still to be evaluated.
    held : int
        Stale points that were held back, because recomputing them is expensive and nobody asked for it.
    reasons : tuple of str
        Why points are stale.
    started : bool
        Whether a host was asked to run it.
    """

    sweep: SweepStore
    declaration: Declaration
    todo: int
    held: int
    reasons: tuple[str, ...]
    started: bool


@dataclass(frozen=True)
class Draft:
    """A proposal seen beside what the store already holds."""

    proposal: Proposal
    sweep: SweepStore | None
    # With the objects its axes hold; a declaration keeps their labels only.
    grid: Grid
    declaration: Declaration
    latest: Declaration | None
    known: Known
    todo: np.ndarray
    held: int

    @property
    def unchanged(self) -> bool:
        """Whether the latest declaration already says all this."""
        latest = self.latest
        if latest is None or _content(latest) != _content(self.declaration):
            return False
        if self.todo.any() and _placing(latest) != _placing(self.declaration):
            # What is left is to be computed elsewhere, or on slots of another kind.
            return False
        # Whether stale points are held back matters only where there are any.
        return bool(np.array_equal(self.todo, todo(self.known, latest)))


def draft(proposal: Proposal, root: Path) -> Draft:
    """Work out what `proposal` means in the store at `root`; nothing is written.

    Raises
    ------
    NameConflict
        If the name belongs to another experiment.
    GridError
        If the grid cannot be joined with the recorded one.
    """
    _check(proposal, root)
    store = Store(root)
    name = checked_name(proposal.experiment.name)
    sweep = store.sweep(name) if name in store else None
    if proposal.replace:
        sweep = None
    earlier = sweep.declarations() if sweep is not None else []
    latest = earlier[-1] if earlier else None
    if earlier and not proposal.adopt:
        _check_names(proposal, latest)
    own = proposal.grid.with_tokens(lambda value: proposal.experiment.token(value).encode()).snap(
        declaration.grid for declaration in earlier
    )
    own = settled(own, proposal.experiment.token, sweep, earlier, patient=proposal.options.on == "inline")
    grid, missing = _joined(own, proposal, latest, sweep)
    if missing:
        notes = (*proposal.info.get("notes", ()), missing)
        proposal = dataclasses.replace(proposal, info={**proposal.info, "notes": notes})
    declaration = _declaration(proposal, grid, _digest(own), latest)
    found = known(sweep, declaration) if sweep is not None else unknown(grid.size)
    if _costs_little(found, declaration) and declaration.hold_stale:
        declaration = dataclasses.replace(declaration, hold_stale=False)
    wanted = todo(found, declaration)
    held = int(np.count_nonzero(_stale(found, declaration))) if declaration.hold_stale else 0
    return Draft(proposal, sweep, grid, declaration, latest, found, wanted, held)


def launch(proposal: Proposal, root: Path, *, attempts: int = 5) -> Launched:
    """Declare a sweep in the store at `root` and have it run.

    Raises
    ------
    DeclarationError
        If it cannot be declared as written; nothing is left behind.
    HostError
        If no host could be started; the declaration stands, and running the cell again goes on from there.
    """
    plan = draft(proposal, root)
    if plan.unchanged and plan.latest is not None and plan.sweep is not None:
        _sign_again(plan, plan.sweep, plan.latest)
        return _relaunch(plan, plan.sweep, plan.latest)
    facts = _facts()
    buffers: dict[str, Any] = {}

    def keep(data: Any) -> str:
        digest = object_digest(data)
        buffers[digest] = data
        return digest

    packed = bundle.pack(proposal.experiment, plan.grid, keep)
    written = _Written(packed, buffers, facts.result())
    declaration = dataclasses.replace(plan.declaration, code=packed.key, environment=environment.digest(written.facts))
    if plan.sweep is None:
        try:
            sweep = _create(proposal, Store(root), declaration, written)
        except AlreadyExists:
            if attempts <= 1:
                raise
            # Another process declared it meanwhile; seen beside that, this may be no change at all, or a conflict.
            return launch(proposal, root, attempts=attempts - 1)
        declaration = sweep.declaration(1)
    else:
        sweep = plan.sweep
        declaration = sweep.declaration(_declare_again(sweep, declaration, written))
    count = int(np.count_nonzero(plan.todo))
    reasons = stale_reasons(sweep, declaration, plan.known)
    started = bool(count or declaration.deferred)
    if started:
        start(sweep, declaration, wanted=plan.sweep is None)
    return Launched(sweep, declaration, count, plan.held, reasons, started)


@dataclass(frozen=True)
class _Written:
    """What is written with a declaration: its code, captured buffers by digest, and the environment."""

    packed: bundle.Bundle
    buffers: Mapping[str, Any]
    facts: Mapping[str, Any]


def _facts() -> "Future[dict[str, Any]]":
    # Beside packing the code: git takes ten milliseconds, most of them in a process of its own.
    found: Future[dict[str, Any]] = Future()

    def look() -> None:
        try:
            found.set_result(environment.capture())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=look, name="mce-environment", daemon=True).start()
    return found


def _declare_again(sweep: SweepStore, declaration: Declaration, written: _Written) -> int:
    """Add a declaration to a sweep that is there; what it refers to first. Return its number."""
    for data in written.buffers.values():
        sweep.write_object(data)
    packed = written.packed
    if not bundle.trusted(sweep.write_code(packed.key, packed.files)):
        sweep.replace_code(packed.key, packed.files)
    sweep.write_environment(declaration.environment, written.facts)
    return sweep.declare(declaration)


def _sign_again(plan: Draft, sweep: SweepStore, latest: Declaration) -> None:
    # Whoever runs the cell vouches for its code, so code of the same experiment that somebody else left is replaced.
    if plan.todo.any() and not bundle.trusted(sweep.code_folder(latest.code), sweep.paths.objects):
        packed = bundle.pack(plan.proposal.experiment, plan.declaration.grid, sweep.write_object)
        sweep.replace_code(latest.code, packed.files)


def _create(proposal: Proposal, store: Store, declaration: Declaration, written: _Written) -> SweepStore:
    name = proposal.experiment.name
    if proposal.replace and name in store:
        store.sweep(name).archive()
    files = first_files(declaration, code=written.packed.files, objects=written.buffers, facts=written.facts, by=_who())
    return store.create(name, proposal.experiment.root, files)


def start(sweep: SweepStore, declaration: Declaration, *, wanted: bool = False) -> None:
    """Record that the sweep is to run, unless that is `wanted` already, and run it here (`inline`) or ask a host to.

    Raises
    ------
    HostError
        If no host could be started.
    """
    options = Options.from_json(declaration.options)
    root = str(sweep.paths.folder.parent)
    if options.on not in ("local", "inline"):
        from mce_notebook.run.station import lives_elsewhere, request

        if lives_elsewhere(options.on):
            request(sweep, options.on, declaration.number, by=_who())
            return
    if not wanted:
        sweep.add_intent("run", by=_who())
    if options.on == "inline":
        from mce_notebook.run.inline import run_inline

        # With too many failures the store says that it stopped, as it does when a host runs the sweep.
        with contextlib.suppress(SweepStopped):
            run_inline(root, sweep.name, options)
        return
    from mce_notebook.run.client import ensure_host

    host = ensure_host(options)
    host.request({"verb": "run", "store": root, "name": sweep.name})
    host.close()


def _relaunch(plan: Draft, sweep: SweepStore, latest: Declaration) -> Launched:
    # An unchanged cell goes on where a crash cut it, and leaves alone what somebody stopped.
    count = int(np.count_nonzero(plan.todo))
    intent = sweep.latest_intent()
    started = bool(count or latest.deferred) and (intent is None or intent.verb == "run")
    if started:
        start(sweep, latest)
    reasons = stale_reasons(sweep, latest, plan.known)
    return Launched(sweep, latest, count if started else 0, plan.held, reasons, started)


def stale_reasons(sweep: SweepStore, declaration: Declaration, found: Known) -> tuple[str, ...]:
    """Say what changed between the code that computed the stale points and the code of `declaration`."""
    if not np.any(found.stale):
        return ()
    older = [one for one in reversed(sweep.declarations()) if one.version != declaration.version]
    if not older:
        return ()
    return tuple(explain(_version(sweep, older[0]), _version(sweep, declaration)))


def _version(sweep: SweepStore, declaration: Declaration) -> Version:
    path = sweep.code_folder(declaration.code) / bundle.CLOSURE
    try:
        return Version.from_json(json.loads(sweep.folder.read(path)))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # Code that was deleted by hand: the hash still tells versions apart, only the reason is lost.
        return Version(declaration.version)


def _check(proposal: Proposal, root: Path) -> None:
    """Refuse what no store has to be looked at for."""
    options = proposal.options
    if options.on == "inline":
        from mce_notebook.run.inline import refuse_limits

        refuse_limits(options)
    elif options.on != "local":
        from mce_notebook.run.client import launch_for
        from mce_notebook.run.station import refuse

        # A profile that is missing, wrong, not trusted or too small for a point is refused before anything is written.
        launch_for(options)
        refuse(options.on, root)
    outputs = proposal.experiment.outputs or ()
    taken = {*proposal.grid.names, "status"}
    for number, output in enumerate(outputs):
        if output in taken:
            raise DeclarationError(
                f"An output cannot be called `{output}`, which is an axis or a column of every dataset."
            )
        if output in outputs[:number]:
            raise DeclarationError(f"Two outputs are called `{output}`; give each a name of its own.")


def _check_names(proposal: Proposal, latest: Declaration | None) -> None:
    if latest is None:
        return
    now = {*proposal.grid.names, *proposal.experiment.constants}
    before = {*latest.grid.names, *latest.constants}
    if now <= before or before <= now:
        return
    gone, new = sorted(before - now), sorted(now - before)
    raise NameConflict(
        f"`{proposal.experiment.name}` is another experiment already: it has {_listed(gone)}, this one "
        f"has {_listed(new)} instead. Choose another name, or add --adopt if it is the same experiment, or "
        f"--replace to put the old one aside."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _joined(own: Grid, proposal: Proposal, latest: Declaration | None, sweep: SweepStore | None) -> tuple[Grid, str]:
    """Return the latest grid: the last own one joined with later extends, until the own one changes.

    And what cannot be joined, as a sentence.
    """
    if latest is None or proposal.joins or latest.own_grid not in (_digest(own), own.guarded or None):
        return own, ""
    objects = own.object_values()
    if not objects or sweep is None:
        return latest.grid, ""
    if _digest(latest.grid) == _digest(own):
        return own, ""
    try:
        # Running a cell may load code that this user signed; only looking at a sweep never does.
        _, values = bundle.load(sweep.code_folder(latest.code), sweep.paths.objects, stay=False)
        return latest.grid.with_object_values(values, own), ""
    except Exception as error:  # whatever the user's own classes raise while they are loaded
        names = sorted({key.partition("/")[2] for key in objects})
        return own, _left_out(own, latest.grid, names, error)


def _left_out(own: Grid, latest: Grid, names: Iterable[str], error: Exception) -> str:
    def labels(grid: Grid, name: str) -> list[str]:
        columns = [part.coordinates[name][1] for part in grid.parts if name in part.names]
        return list(dict.fromkeys(str(label) for column in columns for label in column.labels))

    gone = {name: [label for label in labels(latest, name) if label not in labels(own, name)] for name in names}
    told = "; ".join(f"`{name}`: {', '.join(found)}" for name, found in gone.items() if found)
    return (
        f"what `extend` added is left out, because its objects cannot be loaded ({type(error).__name__}: {error}): "
        f"{told}. List them in the cell."
    )


def _declaration(proposal: Proposal, grid: Grid, own: str, latest: Declaration | None) -> Declaration:
    experiment, options = proposal.experiment, proposal.options
    rerun = "points" if proposal.selection else options.rerun
    generation = latest.generation if latest is not None else 0
    return Declaration.of(
        grid,
        outputs=experiment.outputs,
        dims=dict(experiment.dims),
        constants=dict(experiment.constants),
        version=experiment.version.hash,
        root=experiment.root,
        generation=generation + (rerun in ("failed", "all", "points")),
        rerun=rerun,
        selection=proposal.selection,
        hold_stale=rerun not in ("stale", "all"),
        own_grid=latest.own_grid if proposal.joins and latest is not None else own,
        options=options.to_json(),
        kind=proposal.kind,
        cell=proposal.cell,
        notebook=proposal.notebook,
        cwd=os.getcwd(),
        setup_depth=max((setup.depth for setup in experiment.setups), default=0),
        setups=tuple((setup.depth, setup.enclosing) for setup in experiment.setups),
        **proposal.info,
    )


def _digest(grid: Grid) -> str:
    if grid.deferred:
        return grid.guarded
    record, tables = grid.to_record()
    # Whether a guard took long is no part of the grid.
    record.pop("guarded", None)
    text = json.dumps(record, sort_keys=True, default=str)
    state = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tables):
        state.update(name.encode())
        state.update(repr(tables[name].tolist()).encode() if tables[name].dtype == object else tables[name].tobytes())
    return state.hexdigest()


def _content(declaration: Declaration) -> tuple[Any, ...]:
    """Return what makes a declaration another one: not when and where it was written, not how points are scheduled."""
    return (
        _digest(declaration.grid),
        declaration.outputs,
        dict(declaration.dims),
        dict(declaration.constants),
        declaration.version,
        declaration.generation,
        declaration.root,
    )


def _placing(declaration: Declaration) -> tuple[Any, ...]:
    """Return what decides which host runs a sweep."""
    options = Options.from_json(declaration.options)
    return options.on, options.cores, options.gpus, options.memory, options.timeout


def _stale(found: Known, declaration: Declaration) -> np.ndarray:
    return np.asarray(found.stale & (found.status == 0))


def _costs_little(found: Known, declaration: Declaration) -> bool:
    seconds = found.seconds[_stale(found, declaration)]
    return bool(np.nansum(seconds) * max(int(declaration.options.get("cores", 1)), 1) < STALE_SECONDS)


def _who() -> str:
    return f"{os.path.basename(sys.argv[0]) or 'python'} {os.getpid()}"


def refuse_expensive(seconds: float, limit: float | None) -> None:
    """Refuse a sweep that costs more core-seconds than the user confirmed.

    Raises
    ------
    DeclarationError
        If it does, naming the option.
    """
    if limit is not None and seconds > limit:
        raise DeclarationError(
            f"This would take about {seconds / 3600:.1f} core-hours, above --confirm-above {limit / 3600:g}h; "
            f"nothing was submitted. Raise the limit to {seconds / 3600:.1f}h if that is what you want."
        )
