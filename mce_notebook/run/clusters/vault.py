"""Keys on their way to VMs: one secret for each role, in Secret Manager, gone when it is no longer needed.

Metadata of VMs is no place for keys: everybody who may view the project reads it. A secret can be read by the service
account of the VMs alone, which gets the right to this one secret and no other.
"""

import base64
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mce_notebook.errors import CloudError
from mce_notebook.run.clusters.compute import Google

log = logging.getLogger("mce_notebook.cluster")

ACCESSOR = "roles/secretmanager.secretAccessor"
# A secret of a cluster that was lost ends by itself, so long after its cluster would have (seconds).
SPARE_SECONDS = 3600


@dataclass(frozen=True)
class Vault:
    """The secrets of one cluster.

    Parameters
    ----------
    google : Google
    project : str
    labels : mapping
        Of every secret.
    reader : str
        E-mail of the service account that may read them.
    seconds : float
        The longest life of the cluster.
    """

    google: Google
    project: str
    labels: Mapping[str, str]
    reader: str
    seconds: float

    async def put(self, name: str, content: Mapping[str, str]) -> str:
        """Keep something under a name; return where a VM finds it.

        Raises
        ------
        CloudError
            If it cannot be kept.
        """
        parent = f"projects/{self.project}"
        body = {
            "replication": {"automatic": {}},
            "labels": dict(self.labels),
            "ttl": f"{int(self.seconds) + SPARE_SECONDS}s",
        }
        secrets = self.google.secrets
        await self.google.call(secrets.create(parent=parent, secretId=name, body=body))
        data = base64.b64encode(json.dumps(dict(content)).encode()).decode()
        made = await self.google.call(
            secrets.addVersion(parent=f"{parent}/secrets/{name}", body={"payload": {"data": data}})
        )
        await self._allow(f"{parent}/secrets/{name}")
        assert made is not None
        access = secrets.versions().access(name=f"{parent}/secrets/{name}/versions/1")
        return str(access.uri).partition("?")[0]

    async def _allow(self, name: str) -> None:
        policy = {"bindings": [{"role": ACCESSOR, "members": [f"serviceAccount:{self.reader}"]}]}
        try:
            await self.google.call(self.google.secrets.setIamPolicy(resource=name, body={"policy": policy}))
        except CloudError as error:
            if error.status != 403:
                raise
            # It may have the right from elsewhere; where it has not, the VM says so on its console.
            log.warning("%s was not given the right to read %s: %s", self.reader, name, error)

    async def drop(self, name: str) -> None:
        """Delete one; one that is gone does not matter."""
        await self.google.call(self.google.secrets.delete(name=f"projects/{self.project}/secrets/{name}"), missing=True)


async def kept(google: Google, project: str, labels: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    """Return names and labels of the secrets that have some labels."""
    told = " AND ".join(f"labels.{name}={value}" for name, value in labels.items())
    pages = await google.pages(google.secrets, parent=f"projects/{project}", filter=told)
    found: Iterable[Mapping[str, object]] = (one for page in pages for one in page.get("secrets") or ())
    return [(str(one["name"]).rpartition("/")[2], dict(one.get("labels") or {})) for one in found]  # type: ignore[call-overload]
