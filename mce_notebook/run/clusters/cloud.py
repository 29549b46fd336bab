"""What a profile of Google Compute Engine says more than others do, and what a machine type holds. Plain data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mce_notebook.errors import ProfileError

# An image with Docker and nothing else, for profiles that name a container.
DOCKER_IMAGE = "projects/cos-cloud/global/images/family/cos-stable"
# Least memory for each vCPU of a class of machine types, over all families (bytes): a promise that holds for each.
PER_CORE = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9, "megamem": 14.0, "ultramem": 24.0}
# Machine types whose names do not tell their size: vCPUs, GB.
SHARED_CORE = {"e2-micro": (2, 1.0), "e2-small": (2, 2.0), "e2-medium": (2, 4.0)}
# GPUs that g2 machines come with, by vCPUs.
G2_GPUS = {24: 2, 48: 4, 96: 8}


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The VMs of one profile; money in whatever currency the prices are in.

    Parameters
    ----------
    project : str
        Id of the project that pays.
    zones : tuple of str
        Tried in this order.
    machine : str
        Machine type of a worker's VM, as in n2-standard-8.
    image : str
        Boot image: name, or path as in projects/PROJECT/global/images/family/FAMILY.
    docker : str
        Image of the container that runs the worker; empty: the boot image has Python and the packages itself.
    gpus : int
        Devices of one VM.
    gpu : str
        Accelerator type to attach, as in nvidia-tesla-t4; empty where the machine type comes with its own.
    spot : bool
        Whether VMs may be taken away at any time, for less money.
    boot_disk : int
        Bytes.
    disk_type, network : str
        Type of the boot disk; subnetwork, or PROJECT/SUBNETWORK of a shared VPC.
    external_ip : bool
        Whether VMs have addresses in the Internet.
    service_account : str
        What the VMs may do in the project is what this account may; `default` is the project's.
    host_service_account : str
        The same of the VM that a host lives on, which makes the others; empty: as of the others.
    credentials : str
        Key file of a service account for us; empty: application default credentials.
    scheduler : str
        Where Dask's scheduler runs: `vm`, or `here` where VMs can connect to this machine.
    scheduler_machine : str
        Machine type of the scheduler's VM.
    price, spot_price, scheduler_price : float or None
        Of a VM for an hour.
    max_cost : float or None
        The cluster ends when it has cost this much.
    labels : mapping of str to str
        More labels for all that is made.
    """

    project: str
    zones: tuple[str, ...]
    machine: str
    image: str = ""
    docker: str = ""
    gpus: int = 0
    gpu: str = ""
    spot: bool = False
    boot_disk: int = 50 * 10**9
    disk_type: str = "pd-balanced"
    network: str = "default"
    external_ip: bool = True
    service_account: str = "default"
    host_service_account: str = ""
    credentials: str = ""
    scheduler: str = "vm"
    scheduler_machine: str = "e2-medium"
    price: float | None = None
    spot_price: float | None = None
    scheduler_price: float | None = None
    max_cost: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def hourly(self) -> float | None:
        """What a worker's VM costs for an hour, as far as the profile says."""
        return self.spot_price if self.spot else self.price

    @property
    def host_account(self) -> str:
        """The service account of the VM that a host lives on."""
        return self.host_service_account or self.service_account

    @property
    def boot_image(self) -> str:
        """The boot image, Container-Optimized OS where only a container is named."""
        return self.image or DOCKER_IMAGE


def size_of(machine: str) -> tuple[int, int] | None:
    """Return vCPUs and bytes of a machine type, None where its name does not tell.

    The memory is what every family of that class has at least; `mce clusters check` shows what Google says.
    """
    if machine in SHARED_CORE:
        cores, memory = SHARED_CORE[machine]
        return cores, int(memory * 2**30)
    if match := re.fullmatch(r"(?:[a-z0-9]+-)?custom-(\d+)-(\d+)(?:-ext)?", machine):
        return int(match[1]), int(match[2]) * 2**20
    if match := re.fullmatch(r"[a-z0-9]+-([a-z]+)-(\d+)(?:-lssd)?", machine):
        each = PER_CORE.get(match[1])
        return (int(match[2]), int(each * int(match[2]) * 2**30)) if each is not None else None
    return None


def own_gpus(machine: str) -> int:
    """Return how many GPUs a machine type comes with."""
    if match := re.fullmatch(r"a\d[a-z]*-[a-z]+-(\d+)g(?:-.*)?", machine):
        return int(match[1])
    if match := re.fullmatch(r"g2-standard-(\d+)", machine):
        return G2_GPUS.get(int(match[1]), 1)
    return 0


def check(where: str, cloud: Cloud, cores: int | None, memory: int | None) -> None:
    """Refuse what cannot be.

    Raises
    ------
    ProfileError
        With what to write instead.
    """
    if size_of(cloud.machine) is None and (cores is None or memory is None):
        raise ProfileError(
            f"{where}: the name {cloud.machine} does not tell how large the machine is; write its size too, as in "
            'cores = 12 and memory = "85GB".'
        )
    if not (cloud.image or cloud.docker):
        raise ProfileError(
            f"{where}: say what the VMs boot, `image`, a boot image with Python and your packages, or `docker`, a "
            'container that has them, as in docker = "us-docker.pkg.dev/my-project/images/sweeps:1".'
        )
    if cloud.gpus and not (cloud.gpu or own_gpus(cloud.machine)):
        raise ProfileError(f'{where}: say which GPUs to attach to {cloud.machine}, as in gpu = "nvidia-tesla-t4".')
    if cloud.gpu and not cloud.gpus:
        raise ProfileError(f"{where}: say how many {cloud.gpu} a VM has, as in gpus = 1.")
    _check_money(where, cloud)


def _check_money(where: str, cloud: Cloud) -> None:
    if cloud.max_cost is None:
        return
    if cloud.hourly is None:
        key = "spot_price" if cloud.spot else "price"
        raise ProfileError(f"{where}: max_cost needs to know what a VM costs for an hour: write {key} = 0.20.")
    if cloud.scheduler == "vm" and cloud.scheduler_price is None:
        raise ProfileError(
            f"{where}: max_cost needs to know what the scheduler's VM ({cloud.scheduler_machine}) costs for an hour: "
            "write scheduler_price = 0.04."
        )
