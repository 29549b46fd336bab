"""Compute Engine of the stand-in: VMs that boot, quotas, capacity, spot, what Google refuses."""

import contextlib
import re
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from tests.gce.errors import ApiError
from tests.gce.machines import Machine, Room

if TYPE_CHECKING:
    from tests.gce.stand_in import StandIn

# Machine types: vCPUs, MB, accelerators they come with.
MACHINES = {
    "n1-standard-1": (1, 3840, 0),
    "n1-standard-4": (4, 15360, 0),
    "n2-standard-2": (2, 8192, 0),
    "e2-medium": (2, 4096, 0),
    "g2-standard-4": (4, 16384, 1),
}
ACCELERATORS = ("nvidia-tesla-t4", "nvidia-l4")
KEY, VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
LOOK_SECONDS = 0.1


class Instances:
    """All VMs of the project."""

    def __init__(self, stand_in: "StandIn", zones: tuple[str, ...]):
        self.zones = zones
        self.quotas = {"CPUS": 64, "GPUS_ALL_REGIONS": 2, "INSTANCES": 50}
        self.rules: list[dict[str, Any]] = []
        # Bodies of all VMs there ever were, by name.
        self.ever: dict[str, dict[str, Any]] = {}
        self.room = Room()
        self._stand_in = stand_in
        self._all: dict[str, dict[str, Any]] = {}
        self._machines: dict[str, Machine] = {}
        # How much faster time goes by at Google than here.
        self.haste = 1.0
        # When the time of each is over (monotonic seconds).
        self._ends: dict[str, float] = {}
        self._over_time: list[str] = []
        self._operations: dict[str, dict[str, Any]] = {}
        self._answered: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    # What tests see and do

    def names(self, role: str = "") -> list[str]:
        """Names of the VMs there are, in any state."""
        with self._lock:
            return sorted(name for name, one in self._all.items() if role in ("", one["labels"].get("mce-role")))

    def running(self, role: str = "worker") -> list[str]:
        """Names of those that run."""
        with self._lock:
            return [name for name in self.names(role) if self._all[name]["status"] == "RUNNING"]

    def record(self, name: str) -> dict[str, Any] | None:
        """What is known of a VM."""
        return self._all.get(name)

    def machine(self, name: str) -> Machine:
        """The machine of a VM, also when it is gone."""
        return self._machines[name]

    def preempt(self, name: str) -> None:
        """Take a spot VM away, with little notice."""
        with self._lock:
            found = self._all[name]
            assert found["scheduling"]["provisioningModel"] == "SPOT"
            found["status"] = "STOPPING"
            self._operation("compute.instances.preempted", found, user="system")
        self.room.switch_off(self._machines[name], notice=0.2)
        with self._lock:
            found["status"] = "TERMINATED"
            if found["scheduling"]["instanceTerminationAction"] == "DELETE":
                self._all.pop(name, None)

    def ended(self) -> list[str]:
        """Names of those whose time was over, since the beginning."""
        return list(self._over_time)

    def _expire(self, name: str) -> None:
        """End a VM whose time is over, as its `instanceTerminationAction` says."""
        with self._lock:
            found = self._all.get(name)
            if found is None:
                return
            # What Google calls this operation is not known to us: there is none to be read.
            found["status"] = "STOPPING"
            self._over_time.append(name)
        self.room.switch_off(self._machines[name], notice=0.2)
        with self._lock:
            found["status"] = "TERMINATED"
            if found["scheduling"]["instanceTerminationAction"] == "DELETE":
                self._all.pop(name, None)

    def vanish(self, name: str) -> None:
        """Lose a VM without a trace."""
        with self._lock:
            self._all.pop(name)
        self.room.switch_off(self._machines[name])

    def close(self) -> None:
        """Switch everything off."""
        self._closed.set()
        self._keeper.join()
        for machine in self._machines.values():
            self.room.switch_off(machine)
        self.room.close()

    # Requests

    def answer(self, method: str, given: dict[str, str], body: dict[str, Any], who: str, fault: str) -> Any:
        """Answer one request."""
        zone = given.get("zone")
        if given.get("project") not in (self._stand_in.project, "cos-cloud"):
            raise ApiError(404, "notFound", f"The resource 'projects/{given.get('project')}' was not found")
        if zone is not None and zone not in self.zones:
            raise ApiError(404, "notFound", f"The resource 'zones/{zone}' was not found")
        if method == "instances.insert":
            return self._insert(given, body, fault)
        return getattr(self, "_do_" + method.replace(".", "_"))(given, who)

    def _insert(self, given: dict[str, str], body: dict[str, Any], fault: str) -> dict[str, Any]:
        zone, name = given["zone"], body["name"]
        _check(body, zone)
        with self._lock:
            if given.get("requestId") in self._answered:
                return self._answered[given["requestId"]]
            if name in self._all:
                raise ApiError(409, "alreadyExists", f"The resource '{name}' already exists")
            record = self._made(zone, body)
            operation = self._operation("insert", record)
            self._answered[given.get("requestId", name)] = operation
            over = self._over(record)
            if over:
                message = f"Quota '{over}' exceeded.  Limit: {self.quotas[over]}.0 in region {zone[:-2]}."
                return _failed(operation, "QUOTA_EXCEEDED", 403, message)
            if fault.startswith("op:"):
                message = f"The zone '{zone}' does not have enough resources available to fulfill the request."
                return _failed(operation, fault[3:], 503, message)
            self._all[name] = record
            self.ever[name] = body
            entries = {item["key"]: item["value"] for item in body["metadata"]["items"]}
            metadata = f"{self._stand_in.url.removeprefix('http://')}/vm/{name}"
            nothing = "#!/bin/bash\nsleep 1000\n"
            script = nothing if fault == "silent" else entries.get("startup-script", nothing)
            self._machines[name] = self.room.boot(name, script, metadata)
            life = body["scheduling"].get("maxRunDuration", {}).get("seconds", "inf")
            self._ends[name] = time.monotonic() + float(life) / self.haste
            return operation

    def _made(self, zone: str, body: dict[str, Any]) -> dict[str, Any]:
        base = f"{self._stand_in.url}/compute/v1/projects/{self._stand_in.project}/zones/{zone}"
        address = self.room.address()
        card = {**body["networkInterfaces"][0], "name": "nic0", "networkIP": address}
        if card.get("accessConfigs"):
            card["accessConfigs"] = [{**card["accessConfigs"][0], "natIP": address}]
        return {
            **body,
            "id": str(uuid.uuid4().int >> 65),
            "status": "RUNNING",
            "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000-00:00", time.gmtime()),
            "networkInterfaces": [card],
            "zone": base,
            "selfLink": f"{base}/instances/{body['name']}",
        }

    def _over(self, record: dict[str, Any]) -> str:
        live = [one for one in self._all.values() if one["status"] == "RUNNING"]
        if len(self._all) + 1 > self.quotas["INSTANCES"]:
            return "INSTANCES"
        if sum(_cores(one) for one in [*live, record]) > self.quotas["CPUS"]:
            return "CPUS"
        gpus = sum(_gpus(one) for one in [*live, record])
        return "GPUS_ALL_REGIONS" if _gpus(record) and gpus > self.quotas["GPUS_ALL_REGIONS"] else ""

    def _operation(self, kind: str, record: dict[str, Any], user: str = "notebook") -> dict[str, Any]:
        name = f"operation-{uuid.uuid4().hex}"
        operation = {
            "kind": "compute#operation", "id": str(uuid.uuid4().int >> 65), "name": name, "operationType": kind,
            "zone": record["zone"], "targetId": record["id"], "targetLink": record["selfLink"], "status": "DONE",
            "progress": 100, "user": user,
        }  # fmt: skip
        self._operations[name] = operation
        return operation

    def _found(self, given: dict[str, str]) -> dict[str, Any]:
        name = given["instance"]
        found = self._all.get(name)
        if found is None or not found["zone"].endswith(f"/{given['zone']}"):
            raise ApiError(404, "notFound", f"The resource '{name}' was not found")
        return found

    def _do_instances_get(self, given: dict[str, str], who: str) -> dict[str, Any]:
        with self._lock:
            return self._found(given)

    def _do_instances_list(self, given: dict[str, str], who: str) -> dict[str, Any]:
        with self._lock:
            found = [one for one in self._all.values() if one["zone"].endswith(f"/{given['zone']}")]
        return {"items": [one for one in found if matches(one, given.get("filter", ""))]}

    def _do_instances_aggregatedList(self, given: dict[str, str], who: str) -> dict[str, Any]:
        items = {}
        for zone in self.zones:
            found = self._do_instances_list({**given, "zone": zone}, who)["items"]
            items[f"zones/{zone}"] = {"instances": found} if found else {"warning": {"code": "NO_RESULTS_ON_PAGE"}}
        return {"items": items}

    def _do_instances_delete(self, given: dict[str, str], who: str) -> dict[str, Any]:
        with self._lock:
            found = self._found(given)
            found["status"] = "STOPPING"
            operation = self._operation("delete", found, user=who)

        def gone() -> None:
            self.room.switch_off(self._machines[given["instance"]])
            with self._lock:
                self._all.pop(given["instance"], None)

        threading.Thread(target=gone, daemon=True).start()
        return operation

    def _do_instances_getSerialPortOutput(self, given: dict[str, str], who: str) -> dict[str, Any]:
        with self._lock:
            self._found(given)
        text = self._machines[given["instance"]].console
        start = int(given.get("start", 0))
        return {"contents": text[start:], "start": str(start), "next": str(len(text))}

    def _do_zoneOperations_get(self, given: dict[str, str], who: str) -> dict[str, Any]:
        return self._operations[given["operation"]]

    def _do_zoneOperations_list(self, given: dict[str, str], who: str) -> dict[str, Any]:
        with self._lock:
            return {"items": [one for one in self._operations.values() if matches(one, given.get("filter", ""))]}

    def _do_projects_get(self, given: dict[str, str], who: str) -> dict[str, Any]:
        return {
            "name": self._stand_in.project,
            "defaultServiceAccount": "123-compute@developer.gserviceaccount.com",
            "quotas": [{"metric": name, "limit": limit} for name, limit in self.quotas.items()],
        }

    def _do_machineTypes_get(self, given: dict[str, str], who: str) -> dict[str, Any]:
        if given["machineType"] not in MACHINES:
            raise ApiError(404, "notFound", f"The resource 'machineTypes/{given['machineType']}' was not found")
        cores, memory, _ = MACHINES[given["machineType"]]
        return {"name": given["machineType"], "guestCpus": cores, "memoryMb": memory}

    def _do_regions_get(self, given: dict[str, str], who: str) -> dict[str, Any]:
        with self._lock:
            used = sum(_cores(one) for one in self._all.values())
        return {
            "name": given["region"],
            "quotas": [{"metric": name, "limit": limit, "usage": used} for name, limit in self.quotas.items()],
        }

    def _do_images_get(self, given: dict[str, str], who: str) -> dict[str, Any]:
        if given["image"] != "sweeps":
            raise ApiError(404, "notFound", f"The resource 'images/{given['image']}' was not found")
        return {"name": given["image"]}

    def _do_firewalls_list(self, given: dict[str, str], who: str) -> dict[str, Any]:
        return {"items": self.rules}

    def _keep(self) -> None:
        """Take in that machines were shut down from inside."""
        while not self._closed.wait(LOOK_SECONDS):
            with self._lock:
                running = [(name, self._all[name]) for name in self._all if self._all[name]["status"] == "RUNNING"]
            for name, record in running:
                if time.monotonic() > self._ends[name]:
                    self._expire(name)
                elif self._machines[name].off:
                    self.room.switch_off(self._machines[name])
                    with contextlib.suppress(KeyError):
                        record["status"] = "TERMINATED"


def _check(body: dict[str, Any], zone: str) -> None:
    """Refuse what Google would, beyond what its schema says."""
    machine = body["machineType"].rpartition("/")[2]
    if machine not in MACHINES:
        raise ApiError(400, "invalid", f"Machine type with name '{machine}' does not exist in zone '{zone}'.")
    for name, value in body["labels"].items():
        if not KEY.fullmatch(name) or not VALUE.fullmatch(value):
            raise ApiError(400, "invalid", f"Invalid value for field 'resource.labels': {name}={value}")
    scheduling = {"provisioningModel": "STANDARD", **body["scheduling"]}
    if scheduling["provisioningModel"] == "SPOT" and scheduling["automaticRestart"]:
        raise ApiError(400, "invalid", "automaticRestart cannot be true for spot instances")
    attached = [one["acceleratorType"].rpartition("/")[2] for one in body.get("guestAccelerators", [])]
    for one in attached:
        if one not in ACCELERATORS:
            raise ApiError(404, "notFound", f"acceleratorTypes/{one} was not found")
    if attached and not machine.startswith("n1-"):
        raise ApiError(400, "invalid", f"accelerators cannot be attached to {machine}")
    migrates = scheduling["onHostMaintenance"] == "MIGRATE"
    if migrates and (attached or MACHINES[machine][2] or scheduling["provisioningModel"] == "SPOT"):
        raise ApiError(400, "invalid", "instances with guest accelerators do not support live migration")
    size = sum(len(item["value"]) for item in body["metadata"]["items"])
    if size > 262_144:
        raise ApiError(400, "invalid", "the metadata is too large")


def _cores(record: dict[str, Any]) -> int:
    return MACHINES[record["machineType"].rpartition("/")[2]][0]


def _gpus(record: dict[str, Any]) -> int:
    attached = sum(int(one["acceleratorCount"]) for one in record.get("guestAccelerators", []))
    return attached + MACHINES[record["machineType"].rpartition("/")[2]][2]


def _failed(operation: dict[str, Any], code: str, status: int, message: str) -> dict[str, Any]:
    operation.update(
        error={"errors": [{"code": code, "message": message}]}, httpErrorStatusCode=status, httpErrorMessage=code
    )
    return operation


def matches(record: dict[str, Any], told: str) -> bool:
    """Whether a record fits a filter, of which `a.b = c`, and several of them in brackets with AND, is understood."""
    parts = told.split(" AND ") if told else []
    for part in parts:
        match = re.fullmatch(r'(\(?)([\w.-]+) ?= ?"?([^"() ]*)"?(\)?)', part)
        if match is None or bool(match[1]) != bool(match[4]):
            raise ApiError(400, "invalid", f"Invalid list filter expression: {told!r}")
        # Compute Engine: "provide each separate expression within parentheses".
        if len(parts) > 1 and not match[1] and "machineType" in record:
            raise ApiError(400, "invalid", f"Invalid list filter expression: {told!r}")
        found: Any = record
        for name in match[2].split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if str(found) != match[3]:
            return False
    return True
