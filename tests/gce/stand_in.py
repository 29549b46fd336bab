"""A stand-in for Google on this machine: Compute Engine, Secret Manager, tokens, and the metadata server of its VMs.

Requests are held against Google's discovery documents, answers too; VMs boot and run their start-up scripts. What it
does not know: IAM but for tokens and secrets, networks and firewalls, images and drivers.
"""

import base64
import json
import re
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.gce import discovery
from tests.gce.errors import ApiError
from tests.gce.instances import Instances
from tests.gce.secrets_api import Secrets

EMAIL = "notebook@fake-project.iam.gserviceaccount.com"
VM_EMAIL = "123-compute@developer.gserviceaccount.com"


@dataclass
class Fault:
    """What goes wrong the next `times` times that a method is called with something in it.

    `http:CODE:REASON` refuses the request, `late:CODE:REASON` does what it says and refuses then, `op:CODE` fails its
    operation, `silent` boots nothing.
    """

    kind: str
    method: str
    match: str
    times: int


class StandIn:
    """Google, for as long as `with` lasts."""

    def __init__(self, zones: tuple[str, ...] = ("us-east1-c", "us-central1-a")):
        self.project = "fake-project"
        self.lock = threading.RLock()
        self.faults: list[Fault] = []
        # Requests by method; what was wrong with any of them.
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.problems: list[str] = []
        # Whether what is wrong is refused; Google itself takes "true" for true.
        self.strict = True
        # Whether the credentials of the notebook are still good.
        self.expired = False
        self.instances = Instances(self, zones)
        self.secrets = Secrets()
        self._tokens: dict[str, str] = {}
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self.instances.close()
        self._server.shutdown()
        self._server.server_close()

    def key_file(self) -> dict[str, str]:
        """A service account's key file: Google's own library gets its tokens here."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }

    def fail(self, kind: str, method: str = "instances.insert", match: str = "", times: int = 1) -> None:
        """Have something go wrong."""
        with self.lock:
            self.faults.append(Fault(kind, method, match, times))

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(name == method for name, _ in self.calls)

    def expire(self) -> None:
        """Take back all tokens of the notebook, and give no more."""
        with self.lock:
            self.expired = True
            self._tokens = {token: who for token, who in self._tokens.items() if who != EMAIL}

    # The server

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                kind = "application/json"
                try:
                    status, body = stand_in.handle(self.command, self.path, raw, lower(self.headers.items()))
                except ApiError as error:
                    status, body = error.status, error.body()
                if isinstance(body, str):
                    kind, data = "application/text", body.encode()
                else:
                    data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                if self.path.startswith("/vm/"):
                    self.send_header("Metadata-Flavor", "Google")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = answer

        return Handler

    def handle(self, verb: str, target: str, raw: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        """Answer one request."""
        parts = urlsplit(target)
        if parts.path == "/token":
            return 200, self._grant(raw)
        if parts.path.startswith("/vm/"):
            if headers.get("metadata-flavor") != "Google":
                raise ApiError(403, "forbidden", "Metadata-Flavor is missing")
            name, _, path = parts.path.removeprefix("/vm/").partition("/computeMetadata/v1/")
            return 200, self._metadata(name, path)
        who = self._tokens.get(headers.get("authorization", "")[7:], "")
        if not who:
            raise ApiError(401, "authError", "Invalid Credentials")
        return 200, self._call(verb, parts.path, parts.query, raw, who)

    def _call(self, verb: str, path: str, query: str, raw: bytes, who: str) -> Any:
        service = "compute" if path.startswith("/compute/v1/") else "secretmanager"
        path = path.removeprefix("/compute/v1/").removeprefix("/")
        for route in discovery.routes():
            match = route.pattern.fullmatch(path)
            if match and (route.service, route.verb) == (service, verb):
                break
        else:
            raise ApiError(404, "notFound", f"no method {verb} {path}")
        given = {name: unquote(value) for name, value in match.groupdict().items()}
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        body = json.loads(raw) if raw else {}
        wrong = discovery.parameter_problems(service, route.method, {**asked})
        if "request" in route.method:
            wrong += discovery.problems(service, body, route.method["request"])
        if wrong and self.strict:
            self.problems += [f"{route.name}: {one}" for one in wrong]
            raise ApiError(400, "badRequest", "Invalid JSON payload received. " + "; ".join(wrong))
        with self.lock:
            self.calls.append((route.name, {**given, **asked}))
        fault = self._fault(route.name, json.dumps([given, body]))
        if fault and fault.kind.startswith("http:"):
            _, code, reason = fault.kind.split(":")
            raise ApiError(int(code), reason, f"injected {reason}")
        answerer = self.instances if service == "compute" else self.secrets
        found = answerer.answer(route.name, {**given, **asked}, body, who, fault.kind if fault else "")
        if fault and fault.kind.startswith("late:"):
            _, code, reason = fault.kind.split(":")
            raise ApiError(int(code), reason, f"injected {reason}")
        wrong = discovery.problems(service, found, route.method["response"]) if self.strict else []
        self.problems += [f"answer of {route.name}: {one}" for one in wrong]
        return found

    def _fault(self, method: str, text: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.times > 0 and re.search(fault.match, text):
                    fault.times -= 1
                    return fault
        return None

    # Who is who

    def _grant(self, raw: bytes) -> dict[str, Any]:
        """Give a token for a signed statement, RFC 7523."""
        form = {name: values[-1] for name, values in parse_qs(raw.decode()).items()}
        head, claim, signature = form["assertion"].split(".")
        padded = signature + "=" * (-len(signature) % 4)
        self._key.public_key().verify(
            base64.urlsafe_b64decode(padded), f"{head}.{claim}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        if self.expired:
            raise ApiError(400, "invalid_grant", "Token has been expired or revoked.", plain=True)
        return self._token(EMAIL)

    def _token(self, who: str) -> dict[str, Any]:
        token = f"ya29.{uuid.uuid4().hex}"
        with self.lock:
            self._tokens[token] = who
        return {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def _metadata(self, name: str, path: str) -> Any:
        record = self.instances.record(name)
        if record is None:
            raise ApiError(404, "notFound", name)
        if not path:
            # Somebody looks whether this is a VM.
            return "computeMetadata/"
        account = record["serviceAccounts"][0]["email"]
        email = VM_EMAIL if account == "default" else account
        if path in ("instance/service-accounts/default/token", f"instance/service-accounts/{email}/token"):
            return self._token(email)
        if path == "instance/service-accounts/default/":
            return {"email": email, "scopes": record["serviceAccounts"][0]["scopes"], "aliases": ["default"]}
        if path == "project/project-id":
            return self.project
        if path == "instance/id":
            return str(record["id"])
        if path == "instance/network-interfaces/0/ip":
            return str(record["networkInterfaces"][0]["networkIP"])
        entries = {item["key"]: item["value"] for item in record["metadata"]["items"]}
        key = path.removeprefix("instance/attributes/")
        if key not in entries:
            raise ApiError(404, "notFound", path)
        return str(entries[key])


def lower(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in small letters."""
    return {name.lower(): value for name, value in headers}


def now() -> str:
    """The time as Google writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000-00:00", time.gmtime())
