"""The questions a page asks the server, asked of a kernel: the same paths, for one sweep."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from mce_notebook.errors import SweepError, UnknownSweep, ViewError
from mce_notebook.view.heatmap import Request

if TYPE_CHECKING:
    from mce_notebook.view.follower import Follower

Query = Mapping[str, str]


def respond(follower: "Follower", method: Any, path: Any, body: Any) -> tuple[int, Any]:
    """Answer one question.

    Parameters
    ----------
    follower : Follower
        Of the only sweep that can be asked about.
    method, path, body
        As to the server: ``GET`` and ``api/sweeps/<key>/failures?limit=20``.

    Returns
    -------
    (int, JSON)
        HTTP status and answer; errors are ``{"message": sentence}``.
    """
    try:
        return 200, _answered(follower, str(method), str(path), body)
    except UnknownSweep as error:
        return 404, {"message": str(error)}
    except (ViewError, ValueError) as error:
        return 400, {"message": str(error)}
    except (SweepError, OSError) as error:
        return 409, {"message": str(error)}


def _answered(follower: "Follower", method: str, path: str, body: Any) -> Any:
    split = urlsplit(path)
    parts = [unquote(part) for part in split.path.strip("/").split("/")]
    query = dict(parse_qsl(split.query))
    if parts[:2] != ["api", "sweeps"] or len(parts) < 3 or parts[2] != follower.key:
        raise UnknownSweep("A widget answers for its own sweep only.")
    rest = parts[3:]
    if method == "POST" and rest == ["actions"]:
        return {"message": _performed(follower, body)}
    if method == "GET" and len(rest) == 2 and rest[0] == "points":
        return follower.point(_number(rest[1], "index"))
    asked = _QUESTIONS.get("/".join(rest)) if method == "GET" else None
    if asked is None:
        raise UnknownSweep(f"A widget does not know {method} {path!r}.")
    return asked(follower, query)


def _performed(follower: "Follower", body: Any) -> str:
    from mce_notebook.frontends.server_actions import VERBS, perform

    verb = body.get("verb") if isinstance(body, dict) else None
    if verb not in VERBS:
        raise ViewError(f"`verb` is one of {', '.join(VERBS)}.")
    return perform(follower, verb)


def _view(follower: "Follower", query: Query) -> Any:
    return follower.view(_request(query))


def _failures(follower: "Follower", query: Query) -> Any:
    offset, limit = _number(query.get("offset", "0"), "offset"), _number(query.get("limit", "50"), "limit")
    return follower.failures(query.get("cause"), offset, limit)


def _cell(follower: "Follower", query: Query) -> Any:
    column, row = _number(query.get("column", ""), "column"), _number(query.get("row", "0"), "row")
    return follower.cell(_request(query), column, row)


_QUESTIONS: dict[str, Callable[["Follower", Query], Any]] = {"": _view, "failures": _failures, "cell": _cell}


def _request(query: Query) -> Request:
    at = query.get("at")
    try:
        return Request.of(query.get("x"), query.get("y"), None if at is None else json.loads(at))
    except (ValueError, RecursionError):
        raise ViewError('`at` is JSON, such as {"n": 3}.') from None


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise ViewError(f"`{name}` is a whole number, 0 or more.")
    return int(text)
