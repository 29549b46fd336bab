"""The cores of this machine, shared by the local hosts of one user; nothing but their heartbeats is exchanged.

Every host says in its state file, once a second, how many slots it could use and how many are busy. From the
same files each works out the same division: one slot for whoever has work, then one more at a time for whoever
has the fewest cores. A dead host is seen by its process, so its share comes back with the next beat.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mce_notebook.run import limits
from mce_notebook.run.registry import folders


@dataclass(frozen=True)
class Demand:
    """What one host could use now.

    Parameters
    ----------
    slots : int
        Slots it has work for.
    cores : int
        Cores of one of its slots.
    busy : int
        Slots that compute now.
    least : int
        Cores it was told to use whatever the machine has, 0 where it takes what there is.
    """

    slots: int = 0
    cores: int = 1
    busy: int = 0
    least: int = 0

    def to_json(self) -> dict[str, int]:
        """Return it as part of a heartbeat."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Demand":
        """Read it from a heartbeat; of a host that does not say, from its workers and whether it has sweeps."""
        told = state.get("demand")
        if isinstance(told, dict):
            return cls(**{name: int(told.get(name, value)) for name, value in asdict(cls()).items()})
        slots = int(state.get("workers") or 0) if state.get("sweeps") else 0
        return cls(slots, 1, slots)


def machine_cores() -> int:
    """Return how many cores hosts may use: `MCE_CORES`, or all this process may run on and has the memory for.

    The limits of a container count, see `mce_notebook.run.limits`.
    """
    told = os.environ.get("MCE_CORES", "").strip()
    if told.isdecimal() and int(told):
        return int(told)
    return _found()


@cache
def _found() -> int:
    # Hosts ask once a second, and a container keeps the limits it was started with.
    return max(1, min(limits.cores(), limits.memory() // limits.SLOT_BYTES))


def others(mine: Path) -> dict[str, Demand]:
    """Return what the other living local hosts of this user want, by name of their folder in the registry."""
    found = {}
    for folder in folders(mine.parent):
        if folder.path == mine:
            continue
        state, owner = folder.state(), folder.owner()
        if owner is not None and state.get("pid") == owner.pid and state.get("kind") == "local":
            found[folder.path.name] = Demand.of(state)
    return found


def allowance(name: str, mine: Demand, others: Mapping[str, Demand], cores: int) -> int:
    """Return how many slots a host may keep busy; at least one.

    Parameters
    ----------
    name : str
        Of the host, as in `others`.
    mine : Demand
        What it could use.
    others : mapping of str to Demand
        What the others want and use.
    cores : int
        Cores to be shared.
    """
    cores = max(cores, mine.least, *(demand.least for demand in others.values() if demand.slots), 0)
    share = division({**others, name: mine}, cores)[name]
    # What others still compute on is not there yet, whatever they should have.
    free = cores - sum(demand.busy * demand.cores for demand in others.values())
    return max(1, min(share, free // mine.cores))


def division(demands: Mapping[str, Demand], cores: int) -> dict[str, int]:
    """Return slots by host: one for each that wants any, then whoever has the fewest cores gets one more that fits."""
    slots = {name: min(1, demand.slots) for name, demand in demands.items()}
    left = cores - sum(demands[name].cores for name, count in slots.items() if count)
    while True:
        fitting = [name for name, demand in demands.items() if slots[name] < demand.slots and demand.cores <= left]
        if not fitting:
            return slots
        name = min(fitting, key=lambda name: (slots[name] * demands[name].cores, name))
        slots[name] += 1
        left -= demands[name].cores
