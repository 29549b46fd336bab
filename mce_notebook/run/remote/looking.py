"""What a profile would submit on the other side, asked over a connection of its own."""

import asyncio
from typing import Any

from mce_notebook.errors import HostError
from mce_notebook.run.clusters.profiles import Profile, to_json
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
