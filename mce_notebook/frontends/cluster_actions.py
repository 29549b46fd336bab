"""What can be said to clusters, the same for `%cluster` and `mce clusters`."""

import contextlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.declare.options import Options
from mce_notebook.errors import ClusterError, HostError, OptionError, ProfileError
from mce_notebook.frontends.messages import table_text
from mce_notebook.run.client import HostHandle, ensure_host, hosts, stop_host
from mce_notebook.run.remote.place import Place

if TYPE_CHECKING:
    from mce_notebook.run.clusters.profiles import Profile

VERBS = {
    "list": "clusters that run, and the profiles there are",
    "start": "start one and wait until a task has run on it",
    "stop": "end one; sweeps on it resume on the next",
    "nodes": "its jobs: state, reason of waiting, slots",
    "resize": "keep so many slots; 0 gives them back once they are idle",
    "attach": "take one over: that of another notebook, or what a dead host left",
    "reap": "what hosts that are gone left behind; --yes deletes it",
    "log": "what its host and its jobs said last",
    "check": "what a profile would submit, and whether it would be taken",
    "init": "write a first clusters.toml from what the batch system has",
}
# Verbs that need no name of a cluster.
NAMELESS = ("list", "init", "reap")
START_SECONDS = 3600.0
# What a cluster has many of, and what is said when it has none.
UNITS = {"address": "machine", "gce": "VM"}
NOTHING = {"address": "It has no workers.", "gce": "It has no workers' VMs now; they come with work."}
# A host says what it does a little more often than this.
HEARTBEAT_SECONDS = 1.5
Say = Callable[[str], None]


def act(verb: str, name: str = "", count: int | None = None, *, sure: bool = False, say: Say = print) -> str:
    """Do what a verb says to the cluster of a profile; return what to tell.

    Parameters
    ----------
    verb : str
        One of VERBS.
    name : str
        Profile; empty for `list` and `init`, and for `reap` of all of them.
    count : int, optional
        Slots, for `start` and `resize`.
    sure : bool
        Whether `--yes` was said; without it a cluster with running sweeps is not stopped, and nothing reaped.
    say : callable
        Gets lines while something takes long.

    Raises
    ------
    OptionError
        If the verb is unknown, or something is missing.
    HostError, ClusterError, ProfileError
        If it cannot be done.
    """
    _check(verb, name)
    if verb == "list":
        return _list()
    if verb in ("init", "check"):
        return _looked(verb, name)
    if verb == "reap":
        from mce_notebook.frontends import cluster_care

        return cluster_care.reap(name, sure=sure)
    if not running(name) and (there := _on_vm(name)) is not None:
        from mce_notebook.frontends import cluster_vms

        return cluster_vms.act(verb, there, sure=sure)
    if verb == "attach":
        from mce_notebook.frontends import cluster_care

        return cluster_care.attach(name, running(name))
    if verb == "start":
        return _start(name, count, say)
    found = _running(name)
    if verb == "stop":
        return _stop(name, found, sure)
    if verb == "resize":
        return _resize(name, found, count)
    return "\n".join(_nodes(host) if verb == "nodes" else _log(host) for host in found)


def _check(verb: str, name: str) -> None:
    if verb not in VERBS:
        raise OptionError(f"There is no verb {verb!r} for clusters; there are {', '.join(VERBS)}.")
    if not name and verb not in NAMELESS:
        raise OptionError(f"{verb} needs the name of a cluster; `list` shows them.")


def _on_vm(name: str) -> "Profile | None":
    """Return the profile of a name if its hosts live on VMs that we make."""
    from mce_notebook.run.clusters.finding import find
    from mce_notebook.run.clusters.profiles import BUILT_IN

    if name in BUILT_IN:
        return None
    # Of a name that means nothing, others say so.
    with contextlib.suppress(ProfileError):
        found = find(name)
        return found if found.kind == "gce" and found.host == "vm" else None
    return None


def _looked(verb: str, name: str) -> str:
    from mce_notebook.run.clusters.checking import check, init
    from mce_notebook.run.clusters.finding import find

    if verb == "check":
        profile = find(name)
        if Place.of(profile) is None:
            return check(profile)
        from mce_notebook.run.remote.looking import check_there

        return check_there(profile)
    return f"{init(Path.cwd())}\nwritten to {Path.cwd() / 'clusters.toml'}, and trusted"


def running(name: str) -> list[HostHandle]:
    """Return the hosts that run for a profile, one for each request for resources."""
    return [host for host in hosts() if (launch := host.folder.launch()) is not None and launch.profile == name]


def _running(name: str) -> list[HostHandle]:
    found = running(name)
    if not found:
        raise HostError(f"No cluster {name!r} runs; `start {name}` starts it, and so does a sweep --on {name}.")
    return found


def _list() -> str:
    from mce_notebook.run.clusters.finding import available, trusted

    rows: list[tuple[str, ...]] = [("cluster", "state", "slots", "sweeps", "jobs", "ready after", "cost")]
    alive = set()
    for host in hosts():
        state, launch = host.state(), host.folder.launch()
        name = launch.profile if launch is not None else ""
        alive.add(name)
        jobs = len(_rows(host)) if launch is not None and launch.job else ""
        rows.append(
            (name, str(state.get("state", "starting")), str(state.get("workers", 0)),
             str(len(state.get("sweeps") or ())), str(jobs), _after(state), _cost(state))
        )  # fmt: skip
    for name, path in available().items():
        if trusted(path) and (there := _on_vm(name)) is not None:
            from mce_notebook.frontends import cluster_vms

            far = cluster_vms.rows(there)
            rows += far
            alive.update(row[0] for row in far)
        if name not in alive:
            rows.append((name, "-" if trusted(path) else f"not trusted: mce trust {path}", "", "", "", "", ""))
    if len(rows) == 1:
        return "No cluster runs; local needs no profile, and `mce clusters init` writes the first one for others."
    return table_text(rows)


def _after(state: dict[str, Any]) -> str:
    """Say how long it took from the start of the host until a task had run."""
    found = state.get("ready_after")
    return "" if found is None else f"{found:.1f} s"


def _cost(state: dict[str, Any]) -> str:
    if state.get("cost") is None:
        return ""
    hourly = state.get("cost_per_hour")
    return f"{state['cost']:.2f} {state.get('currency', '')}" + (f", {hourly:.2f} an hour now" if hourly else "")


def _start(name: str, count: int | None, say: Say) -> str:
    began, told = time.monotonic(), ""
    host = ensure_host(Options.parse(on=name))
    launch = host.folder.launch()
    if launch is not None and launch.job:
        _ask(host, {"verb": "resize", "least": max(1, count or 1), "most": None})
    elif launch is not None and launch.place and count is None:
        _ask(host, {"verb": "start"})
    elif count is not None:
        raise OptionError("A local cluster has as many slots as its machine; leave out the number.")
    while not host.ready():
        state = host.state()
        message = str(state.get("message") or "")
        if not host.alive() or state.get("state") in ("draining", "stopped"):
            host.wait_ready(0.0)
        if message and message != told:
            told = message
            say(message)
        if state.get("refused"):
            if launch is not None and launch.job:
                # One that could not even start keeps nothing.
                with contextlib.suppress(HostError):
                    _ask(host, {"verb": "resize", "least": 0, "most": None})
            raise ClusterError(message)
        if time.monotonic() - began > START_SECONDS:
            raise ClusterError(
                f"{name} is not ready after an hour: {message}. It goes on trying; `stop {name}` ends it."
            )
        time.sleep(0.1)
    seconds = time.monotonic() - began
    slots = host.state().get("workers", 0)
    return f"{name} is ready after {seconds:.1f} s: {slots} slot{'' if slots == 1 else 's'}."


def _stop(name: str, found: list[HostHandle], sure: bool) -> str:
    end = time.monotonic() + HEARTBEAT_SECONDS
    while (sweeps := _sweeps(found)) and not sure and time.monotonic() < end:
        # One that has just ended is still told of until the next heartbeat.
        time.sleep(0.1)
    if sweeps and not sure:
        raise OptionError(
            f"{name} runs {', '.join(sweeps)}; add --yes to stop it. What is done is kept, and resume goes on."
        )
    kinds = {_kind(host) for host in found}
    for host in found:
        # Jobs take longer to cancel than workers of this machine to end.
        stop_host(host, timeout=30.0 if _kind(host) in ("local", "address") else 120.0)
    endings = {
        "local": ".",
        "address": "; the Dask cluster it used goes on.",
        "gce": ", and its VMs are deleted.",
    }
    return f"{name} is stopped{endings.get(kinds.pop(), ', and its jobs are cancelled.')}"


def _sweeps(found: list[HostHandle]) -> list[str]:
    return [str(sweep.get("name")) for host in found for sweep in host.state().get("sweeps") or ()]


def _kind(host: HostHandle) -> str:
    launch = host.folder.launch()
    return str(json.loads(launch.job)["kind"]) if launch is not None and launch.job else "local"


def _place(host: HostHandle) -> Place | None:
    """Return where a host lives, None for beside us."""
    launch = host.folder.launch()
    return Place.from_json(launch.place) if launch is not None and launch.place else None


def _resize(name: str, found: list[HostHandle], count: int | None) -> str:
    if count is None or count < 0:
        raise OptionError(f"Say how many slots: resize {name} 8.")
    if not count and any(_kind(host) == "address" for host in found):
        raise OptionError(f"The workers of {name} are not ours to give back; say how many to use: resize {name} 8.")
    for host in found:
        _ask(host, {"verb": "resize", "least": count, "most": count or None})
    return f"{name} goes to {count} slots." if count else f"{name} gives its slots back once they are idle."


def _ask(host: HostHandle, body: dict[str, Any]) -> None:
    """Make a request that a host which is still starting refuses, until it does not."""
    end = time.monotonic() + 60
    while True:
        reply = host.reply(host.request(body), 60.0)
        if reply.get("ok"):
            return
        if not re.search("still starting|no connection to .* yet", str(reply.get("error"))) or time.monotonic() > end:
            raise HostError(str(reply.get("error")))
        time.sleep(0.1)


def _rows(host: HostHandle) -> list[dict[str, Any]]:
    try:
        return list(json.loads((host.folder.path / "nodes.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def _nodes(host: HostHandle) -> str:
    if _kind(host) == "local":
        there = _place(host)
        return f"{host.state().get('workers', 0)} slots on {'this machine' if there is None else there.name}"
    found = _rows(host)
    if not found:
        return _money(host) + NOTHING.get(_kind(host), "It has no jobs now; they come with work.")
    rows = [(UNITS.get(_kind(host), "job"), "state", "slots", "name", "reason")]
    rows += [
        (str(row["job"]), str(row["state"]), str(len(row["workers"])), str(row["name"]), str(row["reason"]))
        for row in found
    ]
    return _money(host) + table_text(rows)


def _money(host: HostHandle) -> str:
    """Return a line on what a cluster has cost, where its profile has prices."""
    told = _cost(host.state())
    return f"cost so far: {told}\n" if told else ""


def _log(host: HostHandle) -> str:
    from mce_notebook.run.clusters.request import JobRequest
    from mce_notebook.run.clusters.script import shared_folder

    parts = [f"== {host.folder.log}", _tail(host.folder.log)]
    launch = host.folder.launch()
    if (there := _place(host)) is not None:
        reply = host.reply(host.request({"verb": "log"}), 60.0)
        parts += [f"on {there.name}:", str(reply.get("state") if reply.get("ok") else reply.get("error"))]
    elif launch is not None and _kind(host) not in ("local", "address"):
        logs = shared_folder(JobRequest.from_json(launch.job), host.folder.path.name) / "logs"
        newest = sorted(logs.glob("*"), key=lambda path: path.stat().st_mtime)[-6:] if logs.is_dir() else []
        for path in newest:
            if text := _tail(path):
                parts += [f"== {path}", text]
    return "\n".join(parts)


def _tail(path: Path, lines: int = 20) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])
    except OSError as error:
        return str(error)
