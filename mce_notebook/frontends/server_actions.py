"""What can be done to a sweep from the server: the orders of `%sweep` and `mce`, without any code of the user.

A host is started only on an explicit order, for code that this user signed, with the Python that the sweep was
declared with (DESIGN.md 13.6 and 13.7); otherwise the answer says what to do instead.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.declare import bundle
from mce_notebook.declare.options import Options
from mce_notebook.errors import RunError, UnknownSweep
from mce_notebook.frontends import server_clusters
from mce_notebook.frontends.actions import act
from mce_notebook.launch import start
from mce_notebook.run.client import HostHandle, hosts

if TYPE_CHECKING:
    from mce_notebook.store.catalog import SweepStore
    from mce_notebook.store.declaration import Declaration
    from mce_notebook.view.follower import Follower

VERBS = ("cancel", "pause", "resume", "rerun-failed", "rerun-stale")
_NOTHING = {
    "cancel": "it does not run",
    "pause": "it does not run",
    "resume": "there is nothing to go on with",
    "rerun-failed": "no point of it failed",
    "rerun-stale": "no point of it is stale",
}


def perform(follower: "Follower", verb: str) -> str:
    """Do it; return what to tell.

    Raises
    ------
    RunError
        If it cannot be done from here, with what to do instead.
    UnknownSweep
        If the sweep is gone.
    """
    sweep = follower.sweep
    summary = follower.summary()
    if verb not in summary["actions"]:
        raise RunError(f"{sweep.name} is {summary['state']}: {_NOTHING[verb]}.")
    if verb in ("cancel", "pause"):
        told = act(verb, sweep.name, str(sweep.paths.folder.parent))
        server_clusters.ring(str(sweep.paths.folder.parent), sweep.name)
        return told
    latest = sweep.latest()
    if latest is None:
        raise UnknownSweep(f"The sweep {sweep.name!r} was never declared; run its cell.")
    host = _host(sweep, latest)
    if verb == "resume":
        _run(sweep, latest, host)
        return f"{sweep.name} goes on."
    what = verb.removeprefix("rerun-")
    count = summary["counts"]["stale"]
    if what == "failed":
        count = sum(summary["counts"][status] for status in ("failed", "killed", "timeout"))
    _run(sweep, again(sweep, latest, what), host)
    points = (
        f"{count:,} {what} point of {sweep.name} is" if count == 1 else f"{count:,} {what} points of {sweep.name} are"
    )
    return f"{points} computed again."


def again(sweep: "SweepStore", latest: "Declaration", what: str) -> "Declaration":
    """Declare the latest grid and code once more, asking for points that failed or are stale.

    The code stays the recorded one and is not loaded: only a host does that.
    """
    declaration = dataclasses.replace(
        latest,
        rerun=what,
        selection=None,
        hold_stale=what != "stale",
        generation=latest.generation + (what == "failed"),
        options={**latest.options, "rerun": what},
        number=0,
        created="",
    )
    return sweep.declaration(sweep.declare(declaration))


def _host(sweep: "SweepStore", declaration: "Declaration") -> HostHandle | None:
    """Return a running host that may run a sweep, None if one may be started; else say why not."""
    options = Options.from_json(declaration.options)
    name = sweep.name
    if options.on == "inline":
        raise RunError(f"{name} ran inside its kernel (--on inline), so only its cell can go on with it; run it again.")
    if not bundle.trusted(sweep.code_folder(declaration.code)):
        raise RunError(
            f"The code of {name} was not signed by you, so it is not run from here. Run its cell in a kernel, or say "
            f"`mce trust {name}` in a terminal if you know where it comes from."
        )
    python: Any = sweep.environment(declaration.environment).get("python") or {}
    executable = str(python.get("executable") or sys.executable)
    for host in hosts():
        launch = host.folder.launch()
        if (
            launch is not None
            and (launch.profile, launch.cores, launch.gpus) == (options.on, options.cores, options.gpus)
            and same_python(launch.python, executable)
            and host.state().get("state") in ("starting", "ready")
        ):
            return host
        host.close()
    if not same_python(sys.executable, executable):
        # A path in a store is data: it is never executed.
        raise RunError(
            f"{name} was declared with another Python ({executable}) than this server's. Run its cell again, or say "
            f"`mce resume {name}` where that Python is active."
        )
    return None


def _run(sweep: "SweepStore", declaration: "Declaration", host: HostHandle | None) -> None:
    if host is None:
        start(sweep, declaration)
        return
    sweep.add_intent("run", by=f"jupyter server {os.getpid()}")
    host.request({"verb": "run", "store": str(sweep.paths.folder.parent), "name": sweep.name})
    host.close()


def same_python(one: str, other: str) -> bool:
    """Whether two paths are one interpreter of one environment, under whatever name."""
    return one == other or (Path(one).parent == Path(other).parent and os.path.realpath(one) == os.path.realpath(other))
