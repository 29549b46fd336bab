"""What a profile would submit on the other side, asked over a connection of its own."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.remote.connection import Connection, Unreachable
from mce_notebook.run.remote.place import Place


def check_there(profile: Profile) -> str:
    """Return what `checking.check` says on the other side, where nothing is started.

    Raises
    ------
    HostError
        If there is no way there: with what to do.
    """
    place = Place.of(profile)
    assert place is not None
    return asyncio.run(_asked(profile, place))


async def _asked(profile: Profile, place: Place) -> str:
    try:
        connection = await Connection.open(place, profile.environment)
    except Unreachable as error:
        raise HostError(f"{place.name} cannot be reached: {error}.") from None
    try:
        await connection.send({"do": "check", "id": 1, "profile": to_json(profile)})
        answer: dict[str, Any] = {}
        while answer.get("what") != "answer":
            answer, _ = await connection.receive()
    finally:
        await connection.close()
    if not answer["ok"]:
        raise HostError(f"{place.name}: {answer['error']}")
    where = "in a job of its own" if place.host == "job" else f"on {place.name}"
    return f"ok  {place.name} can be reached, and has the packages; the host lives {where}\n{answer['text']}"


def to_json(made: Profile) -> dict[str, Any]:
    """Return a profile as JSON has it."""
    return dataclasses.asdict(made)


def from_json(record: Mapping[str, Any]) -> Profile:
    """Return the profile `to_json` told of; raises TypeError for one of another version."""
    lists = {name: tuple(record[name]) for name in ("directives", "prologue")}
    return Profile(**{**record, **lists})
