"""Google's REST interfaces, Compute Engine and Secret Manager: credentials, retries, operations, errors that teach.

The client comes from the discovery documents inside google-api-python-client, so nothing is fetched to make it.
"""

import asyncio
import contextlib
import email.utils
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mce_notebook.errors import CloudError

log = logging.getLogger("mce_notebook.cluster")

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
# gcloud's own variables for other addresses of these services, as Private Service Connect has them.
ENDPOINTS = {
    "compute": "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE",
    "secretmanager": "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER",
}
# Of one request; none of those used here waits at the other end.
HTTP_SECONDS = 30.0
# Tries of one request, and the longest wait between two (seconds): together about a minute.
TRIES, LONGEST = 8, 16.0
FIRST = 0.5
# An operation is looked at so often, and given up after so long (seconds).
POLL_SECONDS, OPERATION_SECONDS = 1.0, 300.0
# What passes by itself (https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation).
PASSING = (408, 429, 500, 502, 503, 504)
LIMITS = ("rateLimitExceeded", "userRateLimitExceeded", "backendError")
# Codes of operations, and reasons of requests, that say that there is no such machine now.
EXHAUSTED = ("EXHAUSTED", "STOCKOUT", "RESOURCE_AVAILABILITY")


class Google:
    """Calls to Google in the name of one user.

    Parameters
    ----------
    credentials : str
        Path of a service account's key file; empty: application default credentials.

    Raises
    ------
    CloudError
        If there are no credentials.
    """

    def __init__(self, credentials: str = ""):
        import googleapiclient.discovery

        self._credentials = _credentials(credentials)
        self._lock = threading.Lock()
        self._ahead = 0.0
        self._services: dict[str, Any] = {}
        for name, variable in ENDPOINTS.items():
            told = os.environ.get(variable, "")
            self._services[name] = googleapiclient.discovery.build(
                name,
                "v1",
                credentials=self._credentials,
                requestBuilder=self._request,
                client_options={"api_endpoint": told} if told else None,
                static_discovery=True,
                cache_discovery=False,
            )

    @property
    def compute(self) -> Any:
        """Compute Engine, v1."""
        return self._services["compute"]

    @property
    def address(self) -> str:
        """Where Compute Engine answers, for those who ask without this client."""
        return str(self.compute.projects().get(project="p").uri).partition("projects/")[0]

    @property
    def secrets(self) -> Any:
        """Secrets of projects in Secret Manager, v1."""
        return self._services["secretmanager"].projects().secrets()

    def now(self) -> float:
        """Return the time by Google's clock, as its last answer told (seconds since 1970): ours may be wrong."""
        return time.time() + self._ahead

    def _heard(self, response: Mapping[str, str]) -> None:
        # RFC 9110, 6.6.1; to the second.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            self._ahead = email.utils.parsedate_to_datetime(response["date"]).timestamp() - time.time()

    def _request(self, _: Any, *arguments: Any, **more: Any) -> Any:
        # A connection of its own for each: httplib2 is not safe between threads, and has no time limit by itself.
        import google_auth_httplib2
        import googleapiclient.http
        import httplib2

        http = google_auth_httplib2.AuthorizedHttp(self._credentials, http=httplib2.Http(timeout=HTTP_SECONDS))
        return googleapiclient.http.HttpRequest(http, *arguments, **more)

    async def call(self, request: Any, *, missing: bool = False) -> dict[str, Any] | None:
        """Execute a request, again where its failure is of the kind that passes.

        Parameters
        ----------
        request
            Made by a method of `compute` or `secrets`.
        missing : bool
            Whether None is returned where there is no such thing, instead of an error.

        Raises
        ------
        CloudError
            With Google's words, and what to do where that is known.
        """
        for left in range(TRIES - 1, -1, -1):
            try:
                return dict(await asyncio.to_thread(self._execute, request))
            except CloudError as error:
                if missing and error.status == 404:
                    return None
                if not (left and error.passing):
                    raise
                log.info("Google: %s; tried again", error)
            wait = min(LONGEST, FIRST * 2.0 ** (TRIES - 1 - left))
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        raise AssertionError("the last try returns or raises")

    def _execute(self, request: Any) -> Any:
        with _taught():
            if not self._credentials.valid:
                # One at a time: a token serves all.
                with self._lock:
                    self._refresh()
            request.response_callbacks = [self._heard]
            try:
                return request.execute()
            finally:
                request.http.close()

    def _refresh(self) -> None:
        import google.auth.transport.requests

        if not self._credentials.valid:
            self._credentials.refresh(google.auth.transport.requests.Request())

    async def pages(self, method: Any, **arguments: Any) -> list[dict[str, Any]]:
        """Return all pages of a listing."""
        found, token = [], None
        while True:
            page = await self.call(method.list(**arguments, pageToken=token))
            assert page is not None
            found.append(page)
            token = page.get("nextPageToken")
            if not token:
                return found

    async def insert(self, project: str, zone: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a VM and return its operation, done.

        A request that is repeated carries the same id, so that Google makes one VM however often it is asked.

        Raises
        ------
        CloudError
            If there is no VM; `exhausted` where the zone has no such machine now, `quota` where the project has
            used up what it may have.
        """
        request = self.compute.instances().insert(
            project=project, zone=zone, body=dict(body), requestId=str(uuid.uuid4())
        )
        operation = await self.call(request)
        assert operation is not None
        return await self.done(project, zone, operation)

    async def delete(self, project: str, zone: str, name: str, *, wait: bool = False) -> None:
        """Delete a VM; one that is gone does not matter.

        Raises
        ------
        CloudError
            If it may still be there.
        """
        operation = await self.call(
            self.compute.instances().delete(project=project, zone=zone, instance=name), missing=True
        )
        if wait and operation is not None:
            with contextlib.suppress(_Gone):
                await self.done(project, zone, operation)

    async def done(self, project: str, zone: str, operation: dict[str, Any]) -> dict[str, Any]:
        """Wait until an operation of a zone is done, and return it.

        Raises
        ------
        CloudError
            If it failed, with the code and the words of the operation, or has not ended in time.
        """
        end = asyncio.get_running_loop().time() + OPERATION_SECONDS
        while operation.get("status") != "DONE":
            if asyncio.get_running_loop().time() > end:
                raise CloudError(f"Google has not finished {operation.get('operationType')} in {OPERATION_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)
            seen = await self.call(
                self.compute.zoneOperations().get(project=project, zone=zone, operation=operation["name"])
            )
            operation = seen or operation
        errors = (operation.get("error") or {}).get("errors") or ()
        for error in errors:
            kind = _Gone if error.get("code") == "RESOURCE_NOT_FOUND" else CloudError
            raise _made(kind, int(operation.get("httpErrorStatusCode", 0)), error.get("code", ""), error.get("message"))
        return operation


class _Gone(CloudError):
    """What was to be deleted went away meanwhile."""


def _credentials(path: str) -> Any:
    with _taught():
        if path:
            from google.oauth2.service_account import Credentials

            try:
                return Credentials.from_service_account_file(str(Path(path).expanduser()), scopes=SCOPES)  # type: ignore[no-untyped-call]
            except (OSError, ValueError) as error:
                raise CloudError(f"credentials of the profile, {path}, cannot be used: {error}.") from error
        import google.auth

        return google.auth.default(SCOPES)[0]


@contextlib.contextmanager
def _taught() -> Iterator[None]:
    """Make errors of Google's libraries ours, with what to do."""
    import google.auth.exceptions
    import httplib2
    from googleapiclient.errors import HttpError

    try:
        yield
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise CloudError(
            "There are no Google credentials here. Run: gcloud auth application-default login. Or name a service "
            'account\'s key file in the profile: credentials = "~/keys/sweeps.json"'
        ) from error
    except google.auth.exceptions.RefreshError as error:
        said = error.args[0] if error.args else error
        raise CloudError(
            f"Google does not accept the credentials any more ({said}). Renew them: gcloud auth "
            "application-default login, or a new key file for `credentials` in the profile.",
            status=401,
        ) from error
    except HttpError as error:
        raise _refusal(error) from error
    except (OSError, httplib2.HttpLib2Error, google.auth.exceptions.TransportError) as error:
        raise CloudError(f"Google cannot be reached: {error}", passing=True) from error


def _refusal(error: Any) -> CloudError:
    """Return the error of one answer that is none."""
    status = int(error.status_code)
    details = error.error_details if isinstance(error.error_details, list) else []
    reason = next((str(one["reason"]) for one in details if isinstance(one, dict) and "reason" in one), "")
    return _made(CloudError, status, reason, str(error.reason or error))


def _made(kind: Callable[..., CloudError], status: int, code: str, words: str | None) -> CloudError:
    said = f"{code}: {words}" if code and words else str(words or code or f"HTTP {status}")
    quota = "quota" in code.lower()
    exhausted = any(mark in code.upper() for mark in EXHAUSTED)
    passing = not (quota or exhausted) and (status in PASSING or code in LIMITS)
    if status == 401:
        said += ". Renew the credentials: gcloud auth application-default login"
    elif quota:
        said += ". Ask for more at https://console.cloud.google.com/iam-admin/quotas, or lower max_workers"
    elif status == 403 and not passing:
        said += ". The account of the profile's credentials needs a role that allows this, see docs/clusters.md"
    return kind(said, status=status, code=code, quota=quota, exhausted=exhausted, passing=passing)
