"""Secret Manager of the stand-in: who may read what is held to."""

import threading
from typing import Any

from tests.gce.errors import ApiError

OWNER = "notebook@"
ACCESSOR = "roles/secretmanager.secretAccessor"


class Secrets:
    """All secrets of the project, by name."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        # Who read which secret; and all names there ever were.
        self.read: list[tuple[str, str]] = []
        self.ever: list[str] = []
        # Whether policies may be set by the notebook's account.
        self.administrated = True
        self._lock = threading.RLock()

    def answer(self, method: str, given: dict[str, str], body: dict[str, Any], who: str, fault: str) -> Any:
        """Answer one request."""
        verb = method.removeprefix("projects.secrets.").replace(".", "_")
        with self._lock:
            return getattr(self, f"_{verb}")(given, body, who)

    def _found(self, given: dict[str, str]) -> dict[str, Any]:
        name = given["secretsId"]
        if name not in self.kept:
            raise ApiError(404, "notFound", f"Secret [projects/123/secrets/{name}] not found.")
        return self.kept[name]

    def _create(self, given: dict[str, str], body: dict[str, Any], who: str) -> dict[str, Any]:
        name = given["secretId"]
        if name in self.kept:
            raise ApiError(409, "alreadyExists", f"Secret [{name}] already exists.")
        secret = {**body, "name": f"projects/123/secrets/{name}"}
        secret.pop("ttl")
        self.kept[name] = {"secret": secret, "versions": [], "policy": {}, "ttl": body["ttl"]}
        self.ever.append(name)
        return secret

    def _addVersion(self, given: dict[str, str], body: dict[str, Any], who: str) -> dict[str, Any]:
        versions = self._found(given)["versions"]
        versions.append(body["payload"])
        return {"name": f"projects/123/secrets/{given['secretsId']}/versions/{len(versions)}", "state": "ENABLED"}

    def _setIamPolicy(self, given: dict[str, str], body: dict[str, Any], who: str) -> dict[str, Any]:
        if not self.administrated:
            raise ApiError(403, "forbidden", "Permission 'secretmanager.secrets.setIamPolicy' denied")
        self._found(given)["policy"] = body["policy"]
        return dict(body["policy"])

    def _versions_access(self, given: dict[str, str], body: dict[str, Any], who: str) -> dict[str, Any]:
        found = self._found(given)
        readers = [
            member
            for binding in found["policy"].get("bindings", [])
            if binding["role"] == ACCESSOR
            for member in binding["members"]
        ]
        if f"serviceAccount:{who}" not in readers:
            raise ApiError(403, "forbidden", f"Permission 'secretmanager.versions.access' denied for {who}")
        self.read.append((who, given["secretsId"]))
        return {"name": given["versionsId"], "payload": found["versions"][int(given["versionsId"]) - 1]}

    def _delete(self, given: dict[str, str], body: dict[str, Any], who: str) -> dict[str, Any]:
        self._found(given)
        del self.kept[given["secretsId"]]
        return {}

    def _list(self, given: dict[str, str], body: dict[str, Any], who: str) -> dict[str, Any]:
        from tests.gce.instances import matches

        return {
            "secrets": [one["secret"] for one in self.kept.values() if matches(one["secret"], given.get("filter", ""))]
        }
