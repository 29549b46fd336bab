"""The user's own file of profiles, as tests write it."""

import json
from collections.abc import Mapping
from typing import Any

from mce_notebook.declare.environment import config_folder


class Profiles:
    """Profiles with something in common.

    Parameters
    ----------
    common : mapping
        What every one of them says, unless told otherwise; None leaves it out.
    """

    def __init__(self, common: Mapping[str, Any]):
        self.common = common
        self.tables: dict[str, dict[str, Any]] = {}

    def set(self, name: str, **values: Any) -> str:
        """Add a profile; return its name."""
        told = {**self.common, **values}
        self.tables[name] = {key: value for key, value in told.items() if value is not None}
        lines = [
            f"[{table}]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in found.items())
            for table, found in self.tables.items()
        ]
        config_folder().mkdir(parents=True, exist_ok=True)
        (config_folder() / "clusters.toml").write_text("\n\n".join(lines) + "\n")
        return name


def _toml(value: Any) -> str:
    # JSON is TOML but for tables.
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)
