"""dask-cloudprovider's own class, for so long: `python stock.py URL KEY-FILE SECONDS`; says how that ended."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import dask_cloudprovider.gcp.instances as stock
import googleapiclient.discovery


def redirect(url: str) -> None:
    """Have it find Google at a URL; no other address can be told to it."""
    build = googleapiclient.discovery.build
    address = {"api_endpoint": f"{url}/compute/v1/"}
    googleapiclient.discovery.build = lambda *told, **more: build(*told, client_options=address, **more)
    stock.is_inside_gce = lambda: False


async def start(key: dict[str, Any], seconds: float) -> str:
    """Start a cluster without workers, for so long at most."""
    try:
        async with asyncio.timeout(seconds):
            await stock.GCPCluster(
                projectid=key["project_id"], zone="us-east1-c", machine_type="n1-standard-1", bootstrap=False,
                scheduler_ngpus=0, worker_ngpus=0, n_workers=0, security=True, asynchronous=True,
                service_account_credentials=key,
            )  # fmt: skip
    except TimeoutError:
        return "waits"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "started"


if __name__ == "__main__":
    redirect(sys.argv[1])
    told = asyncio.run(start(json.loads(Path(sys.argv[2]).read_text()), float(sys.argv[3])))
    sys.stdout.write(f"\nended: {told}\n")
    sys.stdout.flush()
    # Its own end hangs.
    os._exit(0)
