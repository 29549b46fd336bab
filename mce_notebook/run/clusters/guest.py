"""What a VM runs: `python -m mce_notebook.run.clusters.guest worker`, or `scheduler`, or `host`.

Its orders are in the VM's metadata, its certificate and key in Secret Manager, where the VM's service account may read
them. Python and packages must be the host's, as in the jobs of a batch system (`node.py`). What it has to say, it says
on the console, which the host reads.
"""

import base64
import json
import os
import platform
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mce_notebook.run.clusters.node import differences, environment

TRIES, HTTP_SECONDS = 6, 20.0
PASSING = (403, 429, 500, 502, 503, 504)


def main(arguments: list[str]) -> None:
    """Do what the VM is for; returns when that is over."""
    from mce_notebook.run.clusters.vm import CONFIG, REFUSED, STATION, UP

    role = arguments[0]
    config = json.loads(metadata(f"instance/attributes/{CONFIG}"))
    why = misfit(config["environment"])
    if why:
        _say(f"{REFUSED}{why}")
        sys.exit(3)
    try:
        keys = secret(config["secret"])
    except (OSError, ValueError, KeyError) as error:
        _say(f"{REFUSED}its certificate cannot be read: {error}. {config['advice']}")
        sys.exit(3)
    _say(UP)
    if role == STATION:
        from mce_notebook.run.clusters import guest_host

        guest_host.serve(config, keys, metadata("instance/id"))
        return
    address = metadata("instance/network-interfaces/0/ip")
    if role == "scheduler":
        from mce_notebook.run.clusters.guest_scheduler import serve

        serve(config, keys, address)
    else:
        work(config, keys, address)


def metadata(path: str) -> str:
    """Return an entry of the metadata server: https://cloud.google.com/compute/docs/metadata/overview."""
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    return _get(f"http://{host}/computeMetadata/v1/{path}", {"Metadata-Flavor": "Google"}).decode()


def secret(url: str) -> dict[str, str]:
    """Return the content of a secret's version, by its address, in the name of the VM's service account."""
    token = json.loads(metadata("instance/service-accounts/default/token"))["access_token"]
    found = json.loads(_get(url, {"Authorization": f"Bearer {token}"}))
    kept: dict[str, str] = json.loads(base64.b64decode(found["payload"]["data"]))
    return kept


def _get(url: str, headers: Mapping[str, str]) -> bytes:
    for left in range(TRIES - 1, -1, -1):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=HTTP_SECONDS) as it:
                return bytes(it.read())
        except urllib.error.HTTPError as error:
            # A right that was just given takes some seconds to hold.
            if not left or error.code not in PASSING:
                raise OSError(f"{url}: {error}: {error.read()[:500].decode(errors='replace')}") from error
        except OSError:
            if not left:
                raise
        time.sleep(2.0 ** (TRIES - 1 - left) / 2)
    raise AssertionError("the last try returns or raises")


def misfit(host: Mapping[str, Any]) -> str:
    """Return why this Python cannot serve a host with that environment; empty when it can."""
    found = differences(host, environment())
    if not found:
        return ""
    return (
        f"The Python of the VMs, {sys.executable} on {platform.node()}, has {', '.join(found)}. Build `image` or "
        f"`docker` of the profile with the packages of {host['executable']} (its version of mce_notebook included), "
        "or set `python` to an interpreter there that has them."
    )


def work(config: Mapping[str, Any], keys: Mapping[str, str], address: str) -> None:
    """Be the Dask workers of this VM until the scheduler has gone."""
    import dask
    from distributed.cli import dask_worker

    from mce_notebook.run.clusters.local import QUIET

    began = time.time()
    # Google ends the VM at a time known to the second; before, it takes no more blocks (`run.walltime`).
    ends = began + float(config["seconds"])
    os.environ["MCE_ENDS"] = f"{began} {ends - float(config['leave'])} {ends - float(config['stop'])}"
    dask.config.set({**QUIET, "distributed.comm.timeouts.tcp": "20s", "distributed.comm.timeouts.connect": "30s"})
    dask.config.config["distributed"]["nanny"]["pre-spawn-environ"] = {}
    processes = int(config["processes"])
    with tempfile.TemporaryDirectory(prefix="mce-") as folder:
        files = {}
        for name, text in keys.items():
            files[name] = Path(folder, name)
            descriptor = os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
        options = [
            *(config["scheduler"], "--name", config["name"], "--host", address, "--nthreads", "1"),
            *("--tls-ca-file", str(files["ca"]), "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"])),
            *("--memory-limit", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
            *("--death-timeout", str(config["patience"]), "--local-directory", folder),
            *(("--nanny", "--nworkers", str(processes)) if processes > 1 else ("--no-nanny",)),
        ]
        dask_worker.main(options, standalone_mode=False)


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
