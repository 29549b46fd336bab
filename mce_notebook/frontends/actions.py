"""What the verbs do, the same for `%sweep` and `mce`: each calls one public function and says what happened."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.calls import read_cell
from mce_notebook.declare.options import Options
from mce_notebook.errors import OptionError
from mce_notebook.frontends.messages import events_text, sweeps_text
from mce_notebook.handle import RUNNING
from mce_notebook.preview import estimate
from mce_notebook.store.catalog import Store
from mce_notebook.store.layout import find_root
from mce_notebook.store.places import root_path
from mce_notebook.sweep import open as open_sweep
from mce_notebook.sweep import sweeps

if TYPE_CHECKING:
    from mce_notebook.sweep import Sweep


def dry_run(
    name: str, cell: str, namespace: dict[str, Any], options: Options, *, store: str | None = None, **words: Any
) -> str:
    """Say what a cell would set off and cost; nothing is written or started.

    Parameters
    ----------
    name, cell, namespace, options, store, **words
        As for `mce_notebook.sweep.declare_cell`.
    """
    proposal = read_cell(name, cell, namespace, options, **words)
    root = find_root() if store is None else root_path(store)
    return estimate(proposal, root).text()


def act(verb: str, name: str, store: str | None, labels: Mapping[str, str] | None = None, *, sure: bool = False) -> str:
    """Do what a verb says to the sweep of a name.

    Parameters
    ----------
    verb : str
        One of VERBS.
    name : str
        Empty for `list`.
    store : str or None
    labels : mapping of str to str, optional
        Coordinates of a point as Python literals, for `log`.
    sure : bool
        Whether `--yes` was said; `rm` deletes nothing without it.

    Returns
    -------
    str
        What to tell.

    Raises
    ------
    UnknownSweep
        With the names there are.
    OptionError
        If something would be deleted and nobody said --yes.
    """
    if verb == "list":
        return sweeps_text(sweeps(store))
    if verb == "trust" and name.endswith(".toml"):
        return _trust_profiles(Path(name).expanduser().absolute())
    handle = open_sweep(name, store)
    if verb == "rm" and not sure:
        # We never prompt: where nobody could answer, a question would hang.
        raise OptionError(f"rm deletes {handle.folder} with all its results; add --yes to do that.")
    return str(_ACTIONS[verb](handle, dict(labels or {})))


def values(labels: Mapping[str, str]) -> dict[str, Any]:
    """Read coordinates from text: Python literals, or else the text itself."""
    import ast

    found = {}
    for name, text in labels.items():
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


def _status(handle: "Sweep", _: Mapping[str, str]) -> str:
    return handle.progress.text()


def _errors(handle: "Sweep", _: Mapping[str, str]) -> str:
    return handle.failures.text()


def _log(handle: "Sweep", labels: Mapping[str, str]) -> str:
    if labels:
        return handle.log(**values(labels)) or "It printed nothing."
    return events_text(Store(handle.folder.parent).sweep(handle.name).events())


def _cancel(handle: "Sweep", _: Mapping[str, str]) -> str:
    state = handle.state
    if state in ("done", "cancelled", "stopped"):
        return f"{_already(handle, state)}: there is nothing to cancel."
    handle.cancel()
    if state in ("paused", "interrupted"):
        return f"{handle.name} was {state} and is cancelled now; what is done is kept, resume goes on."
    return f"{handle.name} is being cancelled; what is done is kept, resume goes on."


def _pause(handle: "Sweep", _: Mapping[str, str]) -> str:
    state = handle.state
    if state not in RUNNING:
        return f"{_already(handle, state)}: there is nothing to pause."
    handle.pause()
    return f"{handle.name} pauses once what is under way is done; resume goes on."


def _resume(handle: "Sweep", _: Mapping[str, str]) -> str:
    progress = handle.progress
    if progress.state in RUNNING:
        return f"{_already(handle, progress.state)}."
    if progress.state == "done":
        told = f"{_already(handle, 'done')}: there is nothing to go on with."
        return f"{told} --rerun failed computes failed points again." if progress.failed else told
    handle.resume()
    return f"{handle.name} goes on."


def _already(handle: "Sweep", state: str) -> str:
    return f"{handle.name} {'runs' if state == 'running' else f'is {state}'} already"


def _rm(handle: "Sweep", _: Mapping[str, str]) -> str:
    folder = handle.folder
    handle.remove()
    return f"{folder} is deleted."


def _seal(handle: "Sweep", _: Mapping[str, str]) -> str:
    return f"sealed as {handle.seal()}"


def _trust(handle: "Sweep", _: Mapping[str, str]) -> str:
    from mce_notebook.declare.signing import trust

    folder = handle.folder / "code"
    versions = [path.parent for path in sorted(folder.rglob("manifest.json"))]
    if not versions:
        raise OptionError(f"There is no code in {folder}; nothing to trust.")
    for version in versions:
        trust(version)
    return f"The code of {handle.name} ({len(versions)} version{'' if len(versions) == 1 else 's'}) is trusted now."


def _trust_profiles(path: Path) -> str:
    from mce_notebook.run.clusters.finding import trust

    names = trust(path)
    return f"The profiles of {path} ({', '.join(names)}) are trusted as they are now."


_ACTIONS = {
    "status": _status,
    "errors": _errors,
    "log": _log,
    "cancel": _cancel,
    "pause": _pause,
    "resume": _resume,
    "rm": _rm,
    "seal": _seal,
    "trust": _trust,
}
