"""What dask-jobqueue's own cluster class does on the Slurm of `SLURM_CONF`: one JSON object on standard output."""

import asyncio
import json
import subprocess
import sys
import tempfile
from typing import Any

from dask_jobqueue import SLURMCluster


async def cluster(**more: Any) -> Any:
    return await SLURMCluster(
        cores=1, processes=1, memory="500MB", interface="lo", walltime="00:05:00", asynchronous=True,
        log_directory=tempfile.mkdtemp(), scheduler_options={"dashboard_address": ":0"},
        job_extra_directives=["--begin=now+600", "-J stock"], **more,
    )  # fmt: skip


def queued() -> list[str]:
    told = subprocess.run(["squeue", "-h", "-n", "stock", "-o", "%i"], capture_output=True, text=True, check=True)
    return told.stdout.split()


async def main() -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting = await cluster()
    waiting.scale(jobs=1)
    while not queued():
        await asyncio.sleep(0.1)
    first = list(waiting.workers)
    subprocess.run(["scancel", *queued()], check=True)
    await asyncio.sleep(6)
    waiting.scale(jobs=1)
    await asyncio.sleep(2)
    found["queued after a cancelled job"] = len(queued())
    found["workers it believes in"] = len(waiting.workers)
    waiting.scale(jobs=0)
    await waiting
    waiting.scale(jobs=1)
    await waiting
    found["name used again"] = list(waiting.workers) == first
    refused = await cluster(queue="nosuch")
    refused.scale(jobs=1)
    await asyncio.sleep(3)
    found["ids of refused jobs"] = [job.job_id for job in refused.workers.values()]
    subprocess.run(["scancel", "-n", "stock"], check=True)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main())) + "\n")
    sys.stdout.flush()
    # Its own end hangs or raises after a refusal.
    import os

    os._exit(0)
