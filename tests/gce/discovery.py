"""Google's own description of its interfaces, from google-api-python-client: routes, and what bodies may hold."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import googleapiclient

FILES = {"compute": "compute.v1.json", "secretmanager": "secretmanager.v1.json"}


@functools.cache
def document(service: str) -> dict[str, Any]:
    """The discovery document of a service."""
    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    return dict(json.loads((folder / FILES[service]).read_text()))


@dataclass(frozen=True)
class Route:
    """One method of a service."""

    service: str
    verb: str
    pattern: re.Pattern[str]
    name: str
    method: dict[str, Any]


@functools.cache
def routes() -> tuple[Route, ...]:
    """All methods of all services."""
    found: list[Route] = []

    def walk(service: str, resources: dict[str, Any], prefix: str) -> None:
        for part, resource in resources.items():
            for name, method in resource.get("methods", {}).items():
                path = method.get("flatPath", method["path"])
                pattern = re.compile(re.sub(r"\{\+?(\w+)\}", r"(?P<\1>[^/:]+)", path))
                found.append(Route(service, method["httpMethod"], pattern, f"{prefix}{part}.{name}", method))
            walk(service, resource.get("resources", {}), f"{prefix}{part}.")

    for service in FILES:
        walk(service, document(service)["resources"], "")
    return tuple(found)


def problems(service: str, value: Any, schema: dict[str, Any], path: str = "body") -> list[str]:
    """What is wrong with a value, by Google's schema; strictly, though Google itself takes "true" for true."""
    if "$ref" in schema:
        schema = document(service)["schemas"][schema["$ref"]]
    if value is None:
        return []
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return _object(service, value, schema, path)
    if kind == "array":
        if not isinstance(value, list):
            return [f"{path}: no list"]
        return [
            one for at, item in enumerate(value) for one in problems(service, item, schema["items"], f"{path}[{at}]")
        ]
    if kind == "string":
        return _string(value, schema, path)
    right = {"boolean": bool, "integer": int, "number": (int, float)}.get(str(kind), object)
    wrong = not isinstance(value, right) or (kind != "boolean" and isinstance(value, bool))
    return [f"{path}: {value!r} is no {kind}"] if wrong else []


def _object(service: str, value: Any, schema: dict[str, Any], path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: no object"]
    found = []
    for name, one in value.items():
        inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        if inner is None:
            found.append(f'{path}: Unknown name "{name}": Cannot find field.')
        else:
            found += problems(service, one, inner, f"{path}.{name}")
    return found


def _string(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    if schema.get("format") in ("int64", "uint64"):
        return [] if re.fullmatch(r"-?\d+", str(value)) else [f"{path}: {value!r} is no int64"]
    if not isinstance(value, str):
        return [f"{path}: {value!r} is no string"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r} is none of {schema['enum']}"]
    if (pattern := schema.get("pattern")) and not re.fullmatch(pattern, value):
        return [f"{path}: {value!r} does not match {pattern}"]
    return []


def parameter_problems(service: str, method: dict[str, Any], given: dict[str, str]) -> list[str]:
    """What is wrong with the parameters of a request."""
    found = []
    common = document(service)["parameters"]
    for name, value in given.items():
        known = method.get("parameters", {}).get(name) or common.get(name)
        if known is None:
            found.append(f"Unknown name {name!r}")
        elif known.get("location") != "path" and (pattern := known.get("pattern")):
            found += [] if re.fullmatch(pattern, value) else [f"Invalid value for {name}: {value!r}"]
    return found
