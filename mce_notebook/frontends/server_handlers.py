"""The REST side of the server extension: parse, call one function off the loop, answer in JSON."""

import json
from collections.abc import Callable
from http.client import responses
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from mce_notebook.errors import HostError, SweepError, UnknownSweep, ViewError
from mce_notebook.frontends import server_clusters
from mce_notebook.frontends.rewrite import rewrite
from mce_notebook.frontends.server_actions import VERBS, perform
from mce_notebook.frontends.server_live import Live, dumped
from mce_notebook.view.heatmap import Request

RESOURCE = "mce_notebook"
LONGEST_BODY = 1 << 20
LONGEST_QUERY = 4096
LONGEST_SOURCE = 100_000


class Refused(web.HTTPError):
    """A request that is answered with one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(status, log_message=None)
        self.sentence = sentence


class Handler(APIHandler):
    """What all of them share: where answers come from and how errors are told."""

    auth_resource = RESOURCE

    @property
    def live(self) -> Live:
        """The live side of this server."""
        found: Live = self.settings["mce_notebook"]
        return found

    async def answer(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Answer with what a function returns; it runs off the loop, and so does its JSON."""
        await self._finish(self.live.read, lambda: dumped(function(*arguments)))

    async def obey(self, function: Callable[..., str], *arguments: Any) -> None:
        """Answer with the sentence that a slow function returns."""
        await self._finish(self.live.do, lambda: dumped({"message": function(*arguments)}))

    async def _finish(self, run: Callable[..., Any], function: Callable[[], str]) -> None:
        try:
            text = await run(function)
        except (UnknownSweep, FileNotFoundError) as error:
            raise Refused(404, _sentence(error)) from error
        except ViewError as error:
            raise Refused(400, str(error)) from error
        except (SweepError, OSError) as error:
            raise Refused(409, _sentence(error)) from error
        self.set_header("Cache-Control", "no-store")
        await self.finish(text)

    def query(self, name: str) -> str | None:
        """Return one argument of the address, None where it is missing or empty."""
        value = self.get_query_argument(name, None)
        if value is not None and len(value) > LONGEST_QUERY:
            raise Refused(400, f"`{name}` is longer than {LONGEST_QUERY} characters.")
        return value or None

    def number(self, name: str, default: int | None = None) -> int:
        """Return one argument of the address as a whole number."""
        text = self.query(name)
        if text is None and default is not None:
            return default
        if text is None or not (text.isascii() and text.isdigit() and len(text) <= 15):
            raise Refused(400, f"`{name}` is a whole number, 0 or more.")
        return int(text)

    def picture(self) -> Request:
        """Return which heatmap the address asks for."""
        text = self.query("at")
        try:
            at = None if text is None else json.loads(text)
            return Request.of(self.query("x"), self.query("y"), at)
        except (ValueError, RecursionError):
            raise Refused(400, '`at` is JSON, such as {"n": 3}.') from None
        except ViewError as error:
            raise Refused(400, str(error)) from error

    def body(self) -> dict[str, Any]:
        """Return the JSON object that was sent."""
        if len(self.request.body) > LONGEST_BODY:
            raise Refused(400, f"The request is larger than {LONGEST_BODY >> 20} MB.")
        try:
            found = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise Refused(400, "The request is not JSON.") from None
        if not isinstance(found, dict):
            raise Refused(400, "The request is not a JSON object.")
        return found

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tell an error in one sentence; what went wrong inside is for the log only."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, Refused):
            sentence = error.sentence
        elif isinstance(error, web.HTTPError) and error.log_message and status_code < 500:
            sentence = str(error.log_message)
        elif status_code < 500:
            sentence = f"{responses.get(status_code, 'Refused')}."
        else:
            sentence = "This failed inside the server; its log says why."
        self.set_header("Content-Type", "application/json")
        self.finish(dumped({"message": sentence}))


class SweepsHandler(Handler):
    """`api/sweeps`."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List sweeps and clusters."""
        await self._finish(self.live.read, self.live.listing)


class SweepHandler(Handler):
    """`api/sweeps/<key>`."""

    @web.authenticated
    @authorized
    async def get(self, key: str) -> None:
        """Show one sweep."""
        request = self.picture()
        await self.answer(lambda: self.live.feed.follower(key).view(request))


class FailuresHandler(Handler):
    """`api/sweeps/<key>/failures`."""

    @web.authenticated
    @authorized
    async def get(self, key: str) -> None:
        """Show some failures."""
        cause, offset, limit = self.query("cause"), self.number("offset", 0), self.number("limit", 50)
        await self.answer(lambda: self.live.feed.follower(key).failures(cause, offset, limit))


class CellHandler(Handler):
    """`api/sweeps/<key>/cell`."""

    @web.authenticated
    @authorized
    async def get(self, key: str) -> None:
        """Show the points of one cell of a heatmap."""
        request, column, row = self.picture(), self.number("column"), self.number("row", 0)
        await self.answer(lambda: self.live.feed.follower(key).cell(request, column, row))


class PointHandler(Handler):
    """`api/sweeps/<key>/points/<index>`."""

    @web.authenticated
    @authorized
    async def get(self, key: str, index: str) -> None:
        """Show one point."""
        try:
            await self.answer(lambda: self.live.feed.follower(key).point(int(index)))
        except Refused as error:
            # No such point is nothing malformed.
            raise Refused(404 if error.status_code == 400 else error.status_code, error.sentence) from error


class ActionsHandler(Handler):
    """`api/sweeps/<key>/actions`."""

    @web.authenticated
    @authorized
    async def post(self, key: str) -> None:
        """Do something to a sweep."""
        verb = self.body().get("verb")
        if verb not in VERBS:
            raise Refused(400, f"`verb` is one of {', '.join(VERBS)}.")
        await self.obey(lambda: perform(self.live.feed.follower(key), verb))
        self.live.poke(key)


class ClusterHandler(Handler):
    """`api/clusters/<key>/stop`."""

    @web.authenticated
    @authorized
    async def post(self, key: str) -> None:
        """Stop a cluster."""
        try:
            host = await self.live.do(server_clusters.find, key)
        except HostError as error:
            raise Refused(404, str(error)) from error
        await self.obey(_stop, host)
        self.live.poke("")


class RewriteHandler(Handler):
    """`api/rewrite`."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Read a cell as a sweep; nothing of it is executed."""
        body = self.body()
        source, name = body.get("source"), body.get("name")
        if not isinstance(source, str) or not (name is None or isinstance(name, str)):
            raise Refused(400, "`source` is the text of a cell, `name` a name or null.")
        if len(source) > LONGEST_SOURCE:
            raise Refused(400, f"The cell is longer than {LONGEST_SOURCE:,} characters.")
        await self.answer(rewrite, source, name)


def _stop(host: Any) -> str:
    name = server_clusters.told(host)["name"]
    server_clusters.stop(host)
    return f"The cluster {name!r} is stopped; sweeps it drove can be resumed."


def _sentence(error: BaseException) -> str:
    text = str(error).strip()
    return text or type(error).__name__
