"""The Dask scheduler on a VM of its own; it ends when its host has been away for long."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import dask
from distributed import Scheduler, Security

from mce_notebook.run.clusters.local import QUIET
from mce_notebook.run.clusters.scheduler import FAR
from mce_notebook.run.clusters.vm import PORT

LOOK_SECONDS = 1.0
# Of the clients a scheduler knows, this one is nobody.
NOBODY = "fire-and-forget"


def serve(config: Mapping[str, Any], keys: Mapping[str, str], address: str) -> None:
    """Run a scheduler at an address of this VM until nobody has used it for `patience` seconds."""
    dask.config.set({**QUIET, **FAR})
    security: Any = Security
    asyncio.run(
        _serve(
            security(
                tls_ca_file=keys["ca"],
                tls_scheduler_cert=keys["cert"],
                tls_scheduler_key=keys["key"],
                require_encryption=True,
            ),
            address,
            float(config["patience"]),
        )
    )


async def _serve(security: Security, address: str, patience: float) -> None:
    make: Any = Scheduler
    scheduler = await make(
        protocol="tls://",
        host=address,
        port=PORT,
        security=security,
        dashboard=False,
        dashboard_address="127.0.0.1:0",
    )
    used = time.monotonic()
    while time.monotonic() - used < patience:
        if any(name != NOBODY for name in scheduler.clients):
            used = time.monotonic()
        await asyncio.sleep(LOOK_SECONDS)
    await scheduler.close()
