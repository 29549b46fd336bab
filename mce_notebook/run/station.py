"""The host on a machine that has only the store in common with those who ask: `mce host PROFILE --store ADDRESS`.

It looks into the inbox of the store, has the host of this machine drive what is wanted there, and ends when there has
been nothing to do for a while. Whoever asked may be gone: requests and outcomes are in the store.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mce_notebook.declare import bundle, signing
from mce_notebook.declare.environment import config_folder
from mce_notebook.declare.options import Options
from mce_notebook.errors import HostError, OptionError, StoreError, SweepError, UnknownSweep, UntrustedCode
from mce_notebook.run.client import HostHandle, ensure_host, serving, stop_host
from mce_notebook.run.clusters import host_vm
from mce_notebook.run.clusters.finding import find
from mce_notebook.run.registry import read_json
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.places import mirrored, shown
from mce_notebook.store.requests import Wanted, ask, done, tell, told, waiting

log = logging.getLogger("mce_notebook.station")

# A look at the inbox, and a heartbeat, are requests that are paid for (seconds).
LOOK_SECONDS = 2.0
TELL_SECONDS = 10.0
# Without a heartbeat for so long, another host takes over.
SILENCE = 2.5 * TELL_SECONDS
# A sweep that a host was asked for shows among those it drives by then.
SETTLE_SECONDS = 5.0
# What a host that is there says: that it serves, or that it lets its sweeps end.
HERE = ("serving", "ending")
REPLY_SECONDS = 120.0
# A host has so long to finish its blocks and to give its machines back; less than a VM has before Google ends it.
STOP_SECONDS = 100.0
# A machine has to be started, as a rule, before it can obey (seconds).
PATIENCE = 1800.0


def lives_elsewhere(on: str) -> bool:
    """Whether the host of a cluster is on a machine that runs `mce host`."""
    return on not in ("local", "inline") and find(on).host == "vm"


def refuse(on: str, root: Path) -> None:
    """Refuse a cluster whose host cannot see the store.

    Raises
    ------
    OptionError
    """
    profile = find(on)
    bucket = mirrored(root) is not None
    if profile.host == "vm" and not bucket:
        raise OptionError(
            f'The host of {on!r} is on another machine (host = "vm") and sees only buckets; write for example '
            "--store gs://my-bucket/experiments."
        )
    if profile.ssh and bucket:
        raise OptionError(
            f"{on!r} is behind ssh and brings outcomes to a store in a folder here; leave out --store, or write "
            'host = "vm" instead of ssh and run `mce host` there.'
        )


def request(sweep: SweepStore, on: str, declaration: int, by: str) -> None:
    """Ask the host of a cluster, wherever it is, to drive a sweep; a host here that does finishes what it has begun.

    Where the host lives on a VM of Compute Engine and none is seen, one is made.

    Raises
    ------
    HostError
        If Google makes none, with its words; the request stands.
    """
    _hand_over(sweep)
    root = sweep.paths.folder.parent
    if find(on).kind != "gce":
        intent = sweep.add_intent("run", by=by, waits=PATIENCE)
        ask(sweep, on, intent.number, declaration)
        return
    there = host_vm.seen(Store(root), on)
    note = "" if there else host_vm.STARTING
    intent = sweep.add_intent("run", by=by, waits=host_vm.BOOT_SECONDS, note=note)
    # First: a host that is about to end looks once more after it has said so.
    ask(sweep, on, intent.number, declaration)
    host_vm.summon(on, root, wait=not there)


def _hand_over(sweep: SweepStore) -> None:
    root = str(sweep.paths.folder.parent)
    if (host := serving(root, sweep.name)) is not None:
        host.request({"verb": "stop", "store": root, "name": sweep.name, "moved": True})
        host.close()


@dataclass
class _Asked:
    """What this machine's host was asked for."""

    wanted: Wanted
    host: HostHandle
    since: float


class Station:
    """Serves the inbox of one profile in one store.

    Parameters
    ----------
    profile : str
        A profile of this machine; requests are for its name.
    store : str
        Address or folder.
    idle : float or None
        Seconds without work after which it ends; None: as the profile says.
    trust : bool
        Take the code of everybody who can write to the store as one's own.
    say : callable
        Told in a sentence what happens.
    vm : str
        Google's number of the VM that it lives on, if that is one of ours.
    """

    def __init__(
        self,
        profile: str,
        store: str,
        *,
        idle: float | None = None,
        trust: bool = False,
        say: Callable[[str], None] = log.info,
        vm: str = "",
    ):
        self.profile = profile
        self.store = Store(store)
        self.idle = find(profile).idle_timeout if idle is None else idle
        self._trust = trust
        self._say = say
        self._vm = vm
        self._asked: dict[str, _Asked] = {}
        self._hosts: dict[str, HostHandle] = {}
        self._leaving = threading.Event()

    def run(self) -> None:
        """Serve until idle, or told to leave by SIGTERM or SIGINT; hosts then finish their blocks, requests stay.

        Raises
        ------
        HostError
            If another station serves this profile in this store.
        """
        self._claim()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._leaving.set())
        self._say(f"Serving {self.profile} in {shown(self.store.root)}.")
        try:
            with self._telling("serving"):
                self._serve()
        finally:
            self._end()

    def _serve(self) -> None:
        busy = time.monotonic()
        while not self._leaving.is_set():
            if self._look():
                busy = time.monotonic()
            elif time.monotonic() - busy > self.idle:
                self._say(f"Nothing to do for {self.idle:g} s: leaving.")
                break
            self._leaving.wait(LOOK_SECONDS)

    def leave(self) -> None:
        """End soon, as on SIGTERM."""
        self._leaving.set()

    @property
    def told_to_leave(self) -> bool:
        """Whether it ends, or has ended, because it was told to."""
        return self._leaving.is_set()

    def _claim(self) -> None:
        # Whether somebody is there is seen by what changes: clocks of two machines may differ.
        end = time.monotonic() + SILENCE
        first = told(self.store, self.profile)
        if self._vm and first.get("vm") and time.time() - float(first.get("time") or 0.0) > SILENCE:
            # Of a VM before this one, which is made only once that is gone.
            end = 0.0
        while (other := told(self.store, self.profile)).get("state") in HERE and time.monotonic() < end:
            if other != first and other["state"] == "serving":
                raise HostError(
                    f"{other.get('host')} (pid {other.get('pid')}) serves {self.profile!r} in "
                    f"{shown(self.store.root)} already; stop it first, or use a profile of another name."
                )
            if self._leaving.wait(LOOK_SECONDS):
                return
        self._beat("serving")

    def _beat(self, state: str) -> None:
        who = {"host": socket.gethostname(), "pid": os.getpid(), **({"vm": self._vm} if self._vm else {})}
        tell(self.store, self.profile, {"state": state, **who, **self._driven()})

    @contextlib.contextmanager
    def _telling(self, state: str) -> Iterator[None]:
        """Have a heartbeat meanwhile, whatever takes long: who is silent counts as dead, and its VM is replaced."""
        over = threading.Event()

        def tell_on() -> None:
            while True:
                try:
                    self._beat(state)
                except StoreError as error:
                    log.warning("%s", error)
                if over.wait(TELL_SECONDS):
                    return

        telling = threading.Thread(target=tell_on, name="mce-heartbeat", daemon=True)
        telling.start()
        try:
            yield
        finally:
            over.set()
            telling.join()

    def _driven(self) -> dict[str, object]:
        """Return what is to be told of the hosts here: sweeps, slots, jobs, cost."""
        # Children are reaped by the thread that starts them.
        alive = [host for host in list(self._hosts.values()) if host.process.alive()]
        states = [host.state() for host in alive]
        return {
            "sweeps": sorted(self._asked),
            "workers": sum(int(state.get("workers") or 0) for state in states),
            "messages": [str(state["message"]) for state in states if state.get("message")],
            "cost": sum(float(state.get("cost") or 0.0) for state in states),
            "cost_per_hour": sum(float(state.get("cost_per_hour") or 0.0) for state in states),
            "nodes": [row for host in alive for row in read_json(host.folder.path / "nodes.json") or ()],
        }

    def _look(self) -> bool:
        """See to everything that is wanted; whether there was anything."""
        try:
            listed = waiting(self.store, self.profile)
            newest = {wanted.name: wanted for wanted in listed}
            for wanted in listed:
                if newest[wanted.name] == wanted:
                    self._see_to(wanted)
                else:
                    done(self.store, self.profile, wanted)
        except StoreError as error:
            # The bucket cannot be reached: what runs goes on, and so does the waiting.
            log.warning("%s", error)
            return True
        return bool(listed)

    def _see_to(self, wanted: Wanted) -> None:
        asked = self._asked.get(wanted.name)
        if asked is not None and asked.wanted == wanted and asked.host.alive():
            if time.monotonic() - asked.since > SETTLE_SECONDS:
                self._look_after(wanted)
            return
        try:
            sweep = self.store.sweep(wanted.name)
        except UnknownSweep:
            self._settled(wanted)
            return
        intent = sweep.latest_intent()
        if intent is not None and intent.verb != "run":
            self._settled(wanted)
            return
        try:
            self._start(sweep, wanted)
        except StoreError:
            raise
        except SweepError as error:
            sweep.add_intent("stop", by=f"{socket.gethostname()}: {error}")
            self._say(f"{wanted.name}: {error}")
            self._settled(wanted)

    def _look_after(self, wanted: Wanted) -> None:
        """See whether a sweep that was begun has ended, or is to go on with another `--on`."""
        if serving(str(self.store.root), wanted.name) is None:
            self._settled(wanted)
            return
        try:
            sweep = self.store.sweep(wanted.name)
            elsewhere = sweep.declaration(sweep.numbers()[-1]).options.get("on") != self.profile
        except UnknownSweep:
            # Its host notices, too.
            return
        if elsewhere:
            _hand_over(sweep)

    def _start(self, sweep: SweepStore, wanted: Wanted) -> None:
        sweep.folder.refresh(sweep.paths.folder, strictly=True)
        declaration = sweep.declaration(sweep.numbers()[-1])
        code = sweep.code_folder(declaration.code)
        if not bundle.trusted(code):
            if not self._trust:
                raise UntrustedCode(
                    f"the code of {sweep.name} was not signed by the user of this machine. {self._advice()}"
                )
            signing.trust(code)
        host = ensure_host(Options.from_json(declaration.options))
        self._hosts[host.folder.path.name] = host
        reply = host.reply(
            host.request({"verb": "run", "store": str(self.store.root), "name": sweep.name}), REPLY_SECONDS
        )
        if not reply.get("ok"):
            raise HostError(str(reply.get("error")))
        self._say(f"{wanted.name}: {reply.get('state')}")
        self._asked[wanted.name] = _Asked(wanted, host, time.monotonic())

    def _advice(self) -> str:
        """Return what to do about code that somebody else has signed."""
        if self._vm:
            return (
                "Its VM has the signing.key of the machine whose cell made it. If that was you, use one key on both "
                f"(~/.config/mce_notebook/signing.key), or say `mce clusters stop {self.profile}`, so that the next "
                "VM is made from where you run the cell; if not, use a profile of another name."
            )
        return (
            f"Copy {config_folder() / 'signing.key'} from where the cell was run, if that was you, or start "
            "`mce host` with --trust to run code of everybody who can write to the bucket."
        )

    def _settled(self, wanted: Wanted) -> None:
        self._asked.pop(wanted.name, None)
        done(self.store, self.profile, wanted)
        self._say(f"{wanted.name}: nothing left to do")

    def _end(self) -> None:
        alive = [host for host in self._hosts.values() if host.alive()]
        if alive:
            with self._telling("ending"), ThreadPoolExecutor(len(alive)) as threads:
                # All at once: there may not be the time for one after the other.
                list(threads.map(lambda host: stop_host(host, STOP_SECONDS), alive))
        try:
            self._beat("ended")
        except StoreError as error:
            log.warning("%s", error)
