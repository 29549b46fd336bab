"""What is asked of Compute Engine for one VM: the body of `instances.insert`, and the script the VM starts with. Pure.

The body begins as dask-cloudprovider's own (`GCPInstance.create_gcp_config`) and is then made ours: labels, spot and
life, no open ports, and nothing secret in the metadata, which every viewer of the project can read.
"""

import getpass
import json
import os
import re
import shlex
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mce_notebook.run.clusters.cloud import Cloud, own_gpus
from mce_notebook.run.clusters.request import JobRequest

# Labels of all we make: whose it is and which host's, on which machine that host runs.
CLUSTER, USER, HOST, MACHINE = "mce-cluster", "mce-user", "mce-host", "mce-machine"
PROFILE, ROLE = "mce-profile", "mce-role"
SCHEDULER, WORKER, STATION = "scheduler", "worker", "host"
# Network tag of the scheduler's VM, for a firewall rule.
TAG = "mce-scheduler"
PORT = 8786
GUEST = "mce_notebook.run.clusters.guest"
# Compute Engine's limits on `maxRunDuration` (seconds): https://cloud.google.com/compute/docs/instances/limit-vm-runtime.
SHORTEST, LONGEST = 30, 120 * 86400
# A VM whose worker ended too early stays so long, so that its console can be read (seconds).
LINGER = 45
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Container-Optimized OS lets nobody in but by ssh; who comes from outside the network is the network's firewall's
# business. https://cloud.google.com/container-optimized-os/docs/how-to/firewall
OPEN = "! command -v iptables >/dev/null || iptables -w -A INPUT -p tcp -j ACCEPT"
# Where the guest says on the console what became of it.
MARK = "mce: "
UP, REFUSED, ENDED = f"{MARK}worker starts", f"{MARK}refused: ", f"{MARK}ended: "
# Of a VM, for all the console holds.
CONFIG = "mce-config"
# Variables on the VM that a host lives on: its name, and when its script began (seconds since 1970).
OWN, BEGAN = "MCE_VM", "MCE_VM_BEGAN"


@dataclass(frozen=True, kw_only=True)
class Family:
    """What all VMs of one host's life have in common.

    Parameters
    ----------
    cluster : str
        Prefix of their names.
    profile : str
    host, machine : str
        Key of the host's folder, and the name of the machine it is on.
    ends : float
        When the last of them is to be gone (seconds, monotonic).
    """

    cluster: str
    profile: str
    host: str
    machine: str
    ends: float

    @property
    def left(self) -> float:
        """Seconds until then."""
        return self.ends - time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Order:
    """One VM to be made.

    Parameters
    ----------
    name, zone : str
    role : str
        SCHEDULER, WORKER, or STATION: a host lives there.
    family : Family
    seconds : float
        Google deletes it after this long.
    config : mapping
        For the guest (`guest.py`); readable by everybody who may see the project.
    """

    name: str
    zone: str
    role: str
    family: Family
    seconds: float
    config: Mapping[str, Any] = field(default_factory=dict)


class _Cluster:
    """What `GCPInstance` wants of a cluster while it writes a body: nothing."""


def user() -> str:
    """Return whose VMs these are."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container, whose users may have no names.
        return f"uid-{os.getuid()}"


def machine() -> str:
    """Return on which machine a host lives, as labels tell it: on a VM that we made, the name of that."""
    return os.environ.get(OWN) or socket.gethostname()


def label(text: str) -> str:
    """Return a text as the value of a label: https://cloud.google.com/compute/docs/labeling-resources."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def labels(family: Family, more: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of all that one host makes, and those of the profile."""
    told = {
        CLUSTER: family.cluster,
        USER: user(),
        HOST: family.host,
        MACHINE: family.machine,
        PROFILE: family.profile,
    }
    return {**more, **{name: label(value) for name, value in told.items()}}


def body(request: JobRequest, order: Order) -> dict[str, Any]:
    """Return the body of `instances.insert`."""
    cloud = request.cloud
    assert cloud is not None
    made = _stock(cloud, order)
    made["labels"] = {**labels(order.family, cloud.labels), ROLE: order.role}
    # The stock tags open the ports of web servers.
    made["tags"] = {"items": [TAG if order.role == SCHEDULER else f"mce-{order.role}"]}
    made["scheduling"] = _scheduling(cloud, order)
    account = cloud.host_account if order.role == STATION else cloud.service_account
    made["serviceAccounts"] = [{"email": account, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}]
    made["metadata"] = {
        "items": [
            {"key": "startup-script", "value": script(request, order)},
            {"key": CONFIG, "value": json.dumps(dict(order.config), sort_keys=True)},
            {"key": "serial-port-logging-enable", "value": "TRUE"},
        ]
    }
    plain: dict[str, Any] = _typed(made)
    return plain


def _stock(cloud: Cloud, order: Order) -> dict[str, Any]:
    from dask_cloudprovider.gcp.instances import GCPInstance

    gpus = cloud.gpus if order.role == WORKER and cloud.gpu else 0
    owner, _, network = cloud.network.rpartition("/")
    instance: Any = GCPInstance(
        cluster=_Cluster(),
        config={"public_ingress": cloud.external_ip, "instance_labels": {}, "ngpus": 0, "gpu_type": ""},
        projectid=cloud.project,
        zone=order.zone,
        machine_type=cloud.machine if order.role == WORKER else cloud.scheduler_machine,
        source_image=cloud.boot_image,
        filesystem_size=-(-cloud.boot_disk // 10**9),
        disk_type=cloud.disk_type,
        on_host_maintenance="TERMINATE",
        network=network,
        network_projectid=owner or cloud.project,
        ngpus=gpus,
        gpu_type=cloud.gpu,
        instance_labels={},
        service_account=cloud.service_account,
    )
    instance.name, instance.cloud_init = order.name, ""
    return dict(instance.create_gcp_config())


def _scheduling(cloud: Cloud, order: Order) -> dict[str, Any]:
    spot = cloud.spot and order.role == WORKER
    gpus = order.role == WORKER and (cloud.gpus or own_gpus(cloud.machine))
    return {
        "provisioningModel": "SPOT" if spot else "STANDARD",
        # One that was taken away or went down is replaced by us, under a new name.
        "automaticRestart": False,
        "onHostMaintenance": "TERMINATE" if spot or gpus else "MIGRATE",
        # Nothing of ours is to be left behind and paid for, whoever is there to delete it.
        "instanceTerminationAction": "DELETE",
        "maxRunDuration": {"seconds": str(max(SHORTEST, min(LONGEST, int(order.seconds))))},
    }


def _typed(value: Any) -> Any:
    """Return the value with booleans where dask-cloudprovider writes "true" and "false"."""
    if isinstance(value, dict):
        return {name: _typed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_typed(one) for one in value]
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def script(request: JobRequest, order: Order) -> str:
    """Return what the VM runs when it has booted, as root.

    Whatever happens to the guest, the VM deletes itself; where its service account may not do that, it powers off.
    """
    cloud = request.cloud
    assert cloud is not None
    place = f"projects/{cloud.project}/zones/{order.zone}/instances/{order.name}"
    life = max(SHORTEST, int(order.seconds))
    exports = [f"export {name}={shlex.quote(value)}" for name, value in _variables(request).items()]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# A {order.role} of mce_notebook. It ends by itself: docs/clusters.md.",
            'metadata="http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1"',
            f"api={shlex.quote(order.config.get('compute', ''))}",
            f'say() {{ echo "{MARK}$*"; }}',
            "leave() {",
            '    token=$(curl -s -H "Metadata-Flavor: Google" "$metadata/instance/service-accounts/default/token" |'
            """ sed -n 's/.*"access_token": *"\\([^"]*\\)".*/\\1/p')""",
            f'    curl -s -f -o /dev/null -X DELETE -H "Authorization: Bearer $token" "${{api}}{place}" ||'
            ' say "it could not delete itself and powers off"',
            "    sleep 5",
            "    shutdown -h now",
            "}",
            f"( sleep {life}; leave ) &",
            *([OPEN] if cloud.docker else ()),
            "began=$SECONDS",
            # In a shell of their own, so that no `exit` of a prologue keeps the VM.
            "(",
            *exports,
            *([f"export {BEGAN}=$(date +%s)"] if order.role == STATION else ()),
            *(request.prologue if order.role != SCHEDULER else ()),
            _command(request, order),
            ")",
            "code=$?",
            f'echo "{ENDED}exit code $code after $((SECONDS - began)) s"',
            f'if [ "$code" -ne 0 ] && [ "$((SECONDS - began))" -lt 600 ]; then sleep {LINGER}; fi',
            "leave",
            "",
        ]
    )


def _variables(request: JobRequest) -> dict[str, str]:
    return {
        **dict.fromkeys(THREAD_VARIABLES, str(request.slot_cores)),
        "MCE_NICE": "0",
        "MCE_SLOT_MEMORY": str(request.slot_memory),
        **request.environment,
    }


def _command(request: JobRequest, order: Order) -> str:
    cloud = request.cloud
    assert cloud is not None
    guest = f"{shlex.quote(request.python or 'python3')} -P -m {GUEST} {order.role}"
    if not cloud.docker:
        return guest
    options = ["--rm", "--net=host", "--ipc=host", "-e GCE_METADATA_HOST"]
    if order.role == WORKER and (cloud.gpus or own_gpus(cloud.machine)):
        options.append("--gpus=all")
    options += [f"-e {name}" for name in (*_variables(request), *([BEGAN] if order.role == STATION else ()))]
    return f"docker run {' '.join(options)} {shlex.quote(cloud.docker)} {guest}"
