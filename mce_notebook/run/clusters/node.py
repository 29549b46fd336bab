"""What a job runs: `python -m mce_notebook.run.clusters.node FOLDER ADDRESS ...`, a Dask worker that may come.

FOLDER is shared with the host. Python and the packages that host and worker exchange objects of must be the host's;
where they are not, the worker says so there and in its own output, and leaves.
"""

import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENVIRONMENT = "environment.json"
# Objects of these travel between host, worker and slot, or decide what is computed.
SHARED = ("mce_notebook", "dask", "distributed", "cloudpickle", "numpy", "pyarrow", "msgpack", "tornado")


def main(arguments: list[str]) -> None:
    """Compare environments, note when the job ends, become a Dask worker."""
    began = time.time()
    folder, options = Path(arguments[0]), arguments[1:]
    name = options[options.index("--name") + 1]
    why = _misfit(folder)
    if why:
        _refuse(folder, name, why)
        sys.exit(why)
    _note_end(began)

    import dask
    from distributed.cli import dask_worker

    from mce_notebook.run.clusters.local import QUIET

    dask.config.set({**QUIET, "distributed.comm.timeouts.tcp": "20s", "distributed.comm.timeouts.connect": "30s"})
    # Dask's own would bind BLAS to one thread, and have memory given back after every free.
    dask.config.config["distributed"]["nanny"]["pre-spawn-environ"] = {}
    with tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as scratch:
        dask_worker.main([*options, "--local-directory", scratch])


def environment() -> dict[str, Any]:
    """Return what host and worker must have in common, and what else is installed."""
    installed: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.name:
            installed.setdefault(distribution.name.lower().replace("-", "_"), distribution.version)
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": installed,
        "shared": {name: installed.get(name, "") for name in SHARED},
    }


def differences(host: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say what keeps a worker with the environment `here` from serving the host."""
    found = []
    if host["python"].split(".")[:2] != here["python"].split(".")[:2]:
        found.append(f"Python {here['python']} instead of {host['python']}")
    for package, version in host["shared"].items():
        other = here["shared"].get(package, "")
        if other != version:
            found.append(f"{package} {other or 'missing'} instead of {version}")
    return found


def _misfit(folder: Path) -> str:
    try:
        host = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return (
            f"{platform.node()} cannot read {folder / ENVIRONMENT} ({error}); set `folder` in the profile to a folder "
            "that the host and the nodes share."
        )
    here = environment()
    found = differences(host, here)
    if not found:
        return ""
    return (
        f"The Python of the jobs, {sys.executable} on {platform.node()}, has {', '.join(found)}. Set `python` in the "
        f"profile to an interpreter with the packages of {host['executable']}, or install these there."
    )


def _refuse(folder: Path, name: str, why: str) -> None:
    try:
        (folder / "refusals").mkdir(exist_ok=True)
        temporary = folder / "refusals" / f".{name}"
        temporary.write_text(why, encoding="utf-8")
        temporary.replace(folder / "refusals" / f"{name}.txt")
    except OSError as error:
        print(f"Nor can {folder} be written: {error}", file=sys.stderr)  # noqa: T201  the job's own log


def _note_end(began: float) -> None:
    """Leave in the environment when this job ends, for `run.walltime` in the worker."""
    told = os.environ.get("MCE_WALLTIME", "").split()
    if told:
        length, leave, stop = map(float, told)
        spent = os.environ.get("MCE_SPENT", "")
        ends = began + length - (float(spent) if spent.isdigit() else 0.0)
        os.environ["MCE_ENDS"] = f"{began} {ends - leave} {ends - stop}"


if __name__ == "__main__":
    main(sys.argv[1:])
