"""Objects in a bucket: get, put, create, list, delete, through obstore; every error as one sentence.

What an object store promises, and all that is built on here: an object appears whole or not at all; after a put was
answered everybody reads it; a conditional put (`If-None-Match: *`) succeeds for one of several writers; a listing shows
every object that was answered before it began.
"""

import contextlib
import datetime
import functools
import importlib.util
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from mce_notebook.errors import AlreadyExists, StoreError, StoreUnreachable
from mce_notebook.store.folder import Bytes
from mce_notebook.store.places import endpoint

# A server that is busy (503) or does not answer is asked again for this long (seconds), with growing pauses.
RETRY_SECONDS = 20.0
HASTY_SECONDS = 3.0
_REQUEST_SECONDS = "60s"
_CONNECT_SECONDS = "5s"
# Requests at the same time.
_AT_ONCE = 16
# Metadata of an object that had to be new; a name that every provider takes.
_MARK = "mcemark"
# Larger objects are put in parts.
_WHOLE = 8 << 20

_PERMISSIONS = {
    "s3": {"get": "s3:GetObject", "put": "s3:PutObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject"},
    "gs": {
        "get": "storage.objects.get",
        "put": "storage.objects.create",
        "list": "storage.objects.list",
        "delete": "storage.objects.delete",
    },
}
_AZURE = {"get": "Storage Blob Data Reader", "list": "Storage Blob Data Reader"}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure` and install boto3",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or run `az login`",
}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """One object of a listing; `tag` changes with its content."""

    key: str
    size: int
    tag: str


class Bucket:
    """The objects under one address.

    Parameters
    ----------
    address : str
        As `s3://bucket/prefix`; keys are relative to it.
    patience : float, optional
        Seconds for which a server that is busy or does not answer is asked again; RETRY_SECONDS by default.

    Raises
    ------
    StoreError
        If obstore is not installed, or the address or the settings in the environment mean nothing to it.
    """

    def __init__(self, address: str, patience: float | None = None):
        self.address = address
        self.scheme, _, rest = address.partition("://")
        self.name = rest.partition("/")[0]
        try:
            import obstore
        except ImportError:
            raise StoreError(
                f"The store {address} is in a bucket, which needs obstore. Run: pip install 'mce_notebook[cloud]'"
            ) from None
        self._obstore = obstore
        self._client = _client(address, RETRY_SECONDS if patience is None else patience)
        # Requests made so far, by verb: what a provider bills.
        self.requests: dict[str, int] = {}

    @functools.cached_property
    def hasty(self) -> "Bucket":
        """The same for who has something to show without it: gives up sooner."""
        made = Bucket(self.address, HASTY_SECONDS)
        made.requests = self.requests
        return made

    def get(self, key: str) -> bytes:
        """Return the content of an object; FileNotFoundError if there is none."""
        return self._asked("get", key, lambda: bytes(self._obstore.get(self._client, key).bytes()))

    def put(self, key: str, data: Bytes) -> None:
        """Make an object, or replace it."""
        whole = len(data) <= _WHOLE
        self._asked(
            "put",
            key,
            lambda: self._obstore.put(self._client, key, _plain(data), use_multipart=not whole),
            written=True,
        )

    def create(self, key: str, data: Bytes) -> None:
        """Make an object that must be new; AlreadyExists if somebody else made it.

        A put whose answer was lost is tried again, and then finds its own object, which it knows by a mark.
        """
        mark = {_MARK: secrets.token_hex(8)}
        try:
            self._asked(
                "put",
                key,
                lambda: self._obstore.put(self._client, key, _plain(data), mode="create", attributes=mark),
                written=True,
            )
        except AlreadyExists:
            with contextlib.suppress(FileNotFoundError):
                found = self._asked("get", key, lambda: self._obstore.get(self._client, key))
                if found.attributes.get(_MARK) == mark[_MARK]:
                    return
            raise

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        try:
            self._asked("get", key, lambda: self._obstore.head(self._client, key))
        except FileNotFoundError:
            return False
        return True

    def entries(self, prefix: str, after: str | None = None) -> list[Entry]:
        """List the objects below `prefix/`, sorted by key, those behind the key `after` only."""
        return self._asked("list", prefix, lambda: sorted(self._listed(prefix, after), key=lambda one: one.key))

    def _listed(self, prefix: str, after: str | None) -> Iterator[Entry]:
        for page in self._obstore.list(self._client, prefix=prefix or None, offset=after, chunk_size=1000):
            for one in page:
                yield Entry(one["path"], one["size"], one["e_tag"] or str(one["last_modified"]))

    def names(self, prefix: str) -> list[str]:
        """List the names directly below a prefix, as those of a folder."""
        found = self._asked("list", prefix, lambda: self._obstore.list_with_delimiter(self._client, prefix or None))
        keys = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return sorted({key.rstrip("/").rpartition("/")[2] for key in keys})

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        for start in range(0, len(keys), 1000):
            some = list(keys[start : start + 1000])
            with contextlib.suppress(FileNotFoundError):
                self._asked("delete", some[0], lambda some=some: self._obstore.delete(self._client, some))  # type: ignore[misc]

    def copy(self, key: str, target: str) -> None:
        """Copy an object within the bucket."""
        self._asked("put", key, lambda: self._obstore.copy(self._client, key, target))

    def together(self, calls: Iterable[Callable[[], Result]]) -> list[Result]:
        """Make several calls at the same time; the first error is raised after all have ended."""
        listed = list(calls)
        if len(listed) < 2:
            return [call() for call in listed]
        with ThreadPoolExecutor(min(_AT_ONCE, len(listed)), thread_name_prefix="mce-bucket") as executor:
            running = [executor.submit(call) for call in listed]
        return [one.result() for one in running]

    def _asked(self, verb: str, key: str, call: Callable[[], Result], *, written: bool = False) -> Result:
        self.requests[verb] = self.requests.get(verb, 0) + 1
        try:
            return call()
        except FileNotFoundError as error:
            if not written and "NoSuchBucket" not in str(error) and "ContainerNotFound" not in str(error):
                raise FileNotFoundError(f"{self.address}/{key}") from None
            raise self._told(verb, key, error) from error
        except self._obstore.exceptions.AlreadyExistsError:
            raise AlreadyExists(f"{self.address}/{key} exists already.") from None
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise self._told(verb, key, error) from error

    def _told(self, verb: str, key: str, error: Exception) -> StoreError:
        text = str(error)
        refused = (self._obstore.exceptions.PermissionDeniedError, self._obstore.exceptions.UnauthenticatedError)
        where = f"{self.address}/{key}" if key else self.address
        if any(mark in text for mark in ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")):
            return StoreError(f"There is no bucket {self.name!r}: create it, or correct the address {self.address}.")
        if isinstance(error, refused) or "403 Forbidden" in text or "AccessDenied" in text:
            return StoreError(
                f"The bucket {self.name!r} refuses to {verb} {where}: the credentials in use need the permission "
                f"{self._permission(verb)}."
            )
        if "169.254.169.254" in text or "metadata.google.internal" in text or "InvalidCredentials" in text:
            return StoreError(f"There are no credentials for the bucket {self.name!r}: {_credentials(self.address)}.")
        # Ours is the only address in it; what matters stands behind the attempts that were made.
        said = text.partition("\n")[0].rpartition(" - ")[2].strip(" .")[:200]
        return StoreUnreachable(f"The bucket {self.name!r} did not {verb} {where} ({said}).")

    def _permission(self, verb: str) -> str:
        scheme = "s3" if self.scheme == "s3a" else self.scheme
        if scheme in _PERMISSIONS:
            return _PERMISSIONS[scheme][verb]
        return _AZURE.get(verb, "Storage Blob Data Contributor")


def _credentials(address: str) -> str:
    """Say how to get credentials for an address."""
    scheme = address.partition("://")[0]
    return _CREDENTIALS.get(scheme, _CREDENTIALS["s3" if scheme.startswith("s3") else "az"])


def _plain(data: Bytes) -> bytes:
    return data if isinstance(data, bytes) else bytes(data)


def _client(address: str, patience: float) -> Any:
    import obstore
    from obstore.store import from_url

    if address.startswith("memory://"):
        return _memory(address)
    options: Any = {"timeout": _REQUEST_SECONDS, "connect_timeout": _CONNECT_SECONDS}
    if endpoint().startswith("http://"):
        # A server on this machine, or one in a laboratory; said by the user in the environment.
        options["allow_http"] = True
    retry: Any = {
        # Enough for the time to be what ends it.
        "max_retries": 100,
        "retry_timeout": datetime.timedelta(seconds=patience),
        "backoff": {
            "init_backoff": datetime.timedelta(milliseconds=100),
            "max_backoff": datetime.timedelta(seconds=3),
            "base": 2,
        },
    }
    try:
        connect: Any = from_url
        return connect(address, client_options=options, retry_config=retry, **_provider(address))
    except (obstore.exceptions.BaseError, ValueError, OSError) as error:
        said = str(error).partition("\n")[0]
        raise StoreError(f"{address} cannot be used as a store ({said}): {_credentials(address)}.") from error


def _provider(address: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the credentials of `aws configure`, which only boto3 reads, where nothing else gives any."""
    named = any(environment.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"))
    if not address.startswith(("s3://", "s3a://")) or named or importlib.util.find_spec("boto3") is None:
        return {}
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session()
    if session.get_credentials() is None:
        return {}
    found: dict[str, Any] = {"credential_provider": Boto3CredentialProvider(session)}
    if session.region_name and not environment.get("AWS_REGION"):
        found["region"] = session.region_name
    return found


@functools.cache
def _memory(address: str) -> Any:
    # Lives as long as this process, which is what tests of one process want.
    from obstore.store import MemoryStore

    return MemoryStore()
