"""What a profile of kind gce would make and cost, and whether Google would take it; a first section for it."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mce_notebook.errors import CloudError
from mce_notebook.run.clusters import vm
from mce_notebook.run.clusters.cloud import Cloud, own_gpus
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.profiles import Profile
from mce_notebook.run.clusters.queue import finished
from mce_notebook.run.clusters.request import JobRequest, resolve

Finding = tuple[bool, str]
# Instead of what is only known once a host runs.
EXAMPLE = vm.Family(cluster="mce-1a2b3c4d", profile="", host="<host>", machine="<machine>", ends=0.0)
SECTION = """[gce]
kind = "gce"
project = "{project}"
zones = [{zones}]   # tried in this order
machine = "n2-standard-4"
docker = "us-docker.pkg.dev/{project}/images/sweeps:1"   # has Python and our packages, see docs/clusters.md
# image = "projects/{project}/global/images/family/sweeps"   # instead: a boot image that has them
# spot = true               # cheaper; what is taken away is replaced
# price = 0.20              # of a VM for an hour: https://cloud.google.com/compute/all-pricing
# scheduler_price = 0.04
# max_cost = 20             # the cluster ends when it has cost so much
max_workers = 16            # slots at most
idle_timeout = "15m"        # without work, the cluster ends
max_hours = 24              # Google deletes the VMs after that whatever happens
"""
# Where gcloud keeps credentials; looked at before Google's library, which else asks a network for seconds.
CREDENTIALS = "application_default_credentials.json"


def check(profile: Profile) -> Iterator[str]:
    """Yield what the cluster would be, the request for one VM, and what of it works; see `checking.check`."""
    request = resolve(profile)
    cloud = request.cloud
    assert cloud is not None
    count = -(-request.max_workers // request.processes)
    yield (
        f"{profile.name}: up to {request.max_workers} slots, {request.processes} in a VM of {cloud.machine} "
        f"({request.cores} vCPUs, {request.memory / 1e9:.3g} GB{_devices(cloud)}){', spot' if cloud.spot else ''}; "
        f"without work it ends after {profile.idle_timeout:g} s, in any case after {profile.max_hours:g} h."
    )
    if profile.host == "vm":
        request = replace(request, cloud=replace(cloud, scheduler="here"))
        yield (
            f"its host lives on a VM of {cloud.scheduler_machine}, which a sweep with a --store in a bucket makes, and "
            "which ends when there is nothing to do; its service account needs the roles Compute Instance Admin (v1), "
            "Secret Manager Admin, Service Account User, and Storage Object Admin of the bucket."
        )
    yield _cost(cloud, count, host=profile.host == "vm")
    if profile.host == "vm":
        yield ""
        yield json.dumps(example(request, vm.STATION), indent=2)
    yield ""
    yield json.dumps(example(request), indent=2)
    for fine, what in finished(_findings(request)):
        yield f"{'ok ' if fine else 'NO '} {what}"


def example(request: JobRequest, role: str = vm.WORKER) -> dict[str, Any]:
    """Return the request for a VM, with the start-up script as lines."""
    cloud = request.cloud
    assert cloud is not None
    name = "mce-1a2b3c4d-1" if role == vm.WORKER else f"mce-1a2b3c4d-{role}"
    order = vm.Order(name=name, zone=cloud.zones[0], role=role, family=EXAMPLE, seconds=request.walltime)
    made = vm.body(request, order)
    for item in made["metadata"]["items"]:
        if item["key"] == "startup-script":
            item["value"] = item["value"].splitlines()
    return made


def _devices(cloud: Cloud) -> str:
    has = max(cloud.gpus, own_gpus(cloud.machine))
    return f", {has} {cloud.gpu or 'of its own'} GPU{'s' * (has != 1)}" if has else ""


def _cost(cloud: Cloud, count: int, *, host: bool) -> str:
    if cloud.hourly is None:
        key = "spot_price" if cloud.spot else "price"
        return f"what it costs is not known; say {key}, of a VM for an hour, and max_cost"
    own = host or cloud.scheduler == "vm"
    head = cloud.scheduler_price or 0.0 if own else 0.0
    what = "host" if host else "scheduler"
    more = f" + {head:g} for {cloud.scheduler_machine} with the {what}" if own else ""
    limit = f"; it ends at {cloud.max_cost:g}" if cloud.max_cost is not None else "; max_cost limits it"
    return f"an hour costs up to {count * cloud.hourly + head:.2f}: {count} VMs of {cloud.hourly:g}{more}{limit}"


async def _findings(request: JobRequest) -> list[Finding]:
    cloud = request.cloud
    assert cloud is not None
    try:
        google = await asyncio.to_thread(Google, cloud.credentials)
        project = await google.call(google.compute.projects().get(project=cloud.project))
    except CloudError as error:
        return [(False, str(error))]
    account = str((project or {}).get("defaultServiceAccount", "?"))
    found: list[Finding] = [(True, f"project {cloud.project}; VMs run as {_account(cloud, account)}")]
    looks = [_machine(google, request, zone) for zone in cloud.zones]
    looks += [_quota(google, cloud, request.cores, region) for region in dict.fromkeys(_region(z) for z in cloud.zones)]
    looks += [_image(google, cloud), _secrets(google, cloud)]
    if cloud.scheduler == "vm":
        looks.append(_firewall(google, cloud))
    return found + [one for some in await asyncio.gather(*map(_safe, looks)) for one in some]


def _account(cloud: Cloud, account: str) -> str:
    return account if cloud.service_account == "default" else cloud.service_account


def _region(zone: str) -> str:
    return zone.rpartition("-")[0]


async def _safe(look: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        return await look
    except CloudError as error:
        return [(False, str(error))]


async def _machine(google: Google, request: JobRequest, zone: str) -> list[Finding]:
    """Look whether a zone has the machine, and whether it is what we believe."""
    cloud = request.cloud
    assert cloud is not None
    types = google.compute.machineTypes()
    found = await google.call(types.get(project=cloud.project, zone=zone, machineType=cloud.machine), missing=True)
    if found is None:
        return [(False, f"{zone} has no machine type {cloud.machine}; leave the zone out")]
    cores, memory = int(found["guestCpus"]), int(found["memoryMb"]) * 2**20
    told = f"{zone} has {cloud.machine}: {cores} vCPUs, {memory / 1e9:.3g} GB"
    if cores < request.cores or memory < request.memory:
        return [(False, f"{told}, which is less than the profile says; lower cores and memory")]
    if not cloud.gpu:
        return [(True, told)]
    kinds = google.compute.acceleratorTypes()
    there = await google.call(kinds.get(project=cloud.project, zone=zone, acceleratorType=cloud.gpu), missing=True)
    return [(True, told), (there is not None, f"{zone} has {'' if there else 'no '}{cloud.gpu}")]


async def _quota(google: Google, cloud: Cloud, cores: int, region: str) -> list[Finding]:
    """Look how many VMs the quota of a region leaves."""
    found = await google.call(google.compute.regions().get(project=cloud.project, region=region))
    metric = "PREEMPTIBLE_CPUS" if cloud.spot else "CPUS"
    for quota in (found or {}).get("quotas") or ():
        # Newer families have quotas of their own; this one says at least whether there is any.
        if quota.get("metric") == metric and float(quota.get("limit", 0)):
            left = float(quota["limit"]) - float(quota.get("usage", 0))
            return [(left >= cores, f"{region}: {left:g} {metric} left, enough for {int(left // cores)} VMs")]
    return [(True, f"{region}: no quota {metric} is told")]


async def _image(google: Google, cloud: Cloud) -> list[Finding]:
    """Look whether the boot image is there."""
    match = re.fullmatch(r"(?:.*/)?projects/([^/]+)/global/images/(family/)?([^/]+)", cloud.boot_image)
    owner, family, name = match.groups() if match else (cloud.project, None, cloud.boot_image)
    images = google.compute.images()
    request = images.getFromFamily(project=owner, family=name) if family else images.get(project=owner, image=name)
    found = await google.call(request, missing=True)
    told = f"image {cloud.boot_image}"
    return [(found is not None, told if found is not None else f"{told} is not there")]


async def _secrets(google: Google, cloud: Cloud) -> list[Finding]:
    """Look whether keys can be kept."""
    await google.call(google.secrets.list(parent=f"projects/{cloud.project}", pageSize=1))
    return [(True, "Secret Manager answers; keys of workers go there")]


async def _firewall(google: Google, cloud: Cloud) -> list[Finding]:
    """Look whether some rule lets anybody in to a scheduler."""
    pages = await google.pages(google.compute.firewalls(), project=cloud.project)
    rules = [rule for page in pages for rule in page.get("items") or ()]
    if any(_opens(rule) for rule in rules):
        return [(True, f"a firewall rule opens tcp:{vm.PORT} to {vm.TAG}; that it lets you in was not tried")]
    return [
        (
            False,
            f"no firewall rule opens tcp:{vm.PORT} to {vm.TAG}: gcloud compute firewall-rules create mce "
            f"--allow=tcp:{vm.PORT} --target-tags={vm.TAG} --source-ranges=YOUR_ADDRESS/32",
        )
    ]


def _opens(rule: Mapping[str, Any]) -> bool:
    tags = rule.get("targetTags")
    return (not tags or vm.TAG in tags) and any(map(_fits, rule.get("allowed") or ()))


def _fits(allowed: Mapping[str, Any]) -> bool:
    if allowed.get("IPProtocol") not in ("tcp", "6", "all"):
        return False
    spans = [str(port).split("-") for port in allowed.get("ports") or ["0-65535"]]
    return any(int(span[0]) <= vm.PORT <= int(span[-1]) for span in spans)


def section() -> str:
    """Return a section for `init`, from what the user's project has; empty where there are no credentials."""
    told = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not (told or _default().is_file()):
        return ""
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        project = google.auth.default()[1] or "my-project"
    except (GoogleAuthError, OSError, ValueError):
        return ""
    zones = [f"us-central1-{letter}" for letter in "abc"]
    return SECTION.format(project=project, zones=", ".join(f'"{zone}"' for zone in zones))


def _default() -> Path:
    folder = os.environ.get("CLOUDSDK_CONFIG")
    return (Path(folder) if folder else Path.home() / ".config" / "gcloud") / CREDENTIALS
