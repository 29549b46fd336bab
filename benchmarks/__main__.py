"""`python -m benchmarks [p1 p5 ...]`: measure, print, and write JSON or the docs page."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import report, rig
from benchmarks.targets import TITLES


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="P", help=f"which: {', '.join(TITLES)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the page of results there")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="source", help="numbers of earlier runs to add to")
    parser.add_argument("--quick", action="store_true", help="few repetitions and small grids, to see that it works")
    parser.add_argument("--no-peers", action="store_true", help="measure only ourselves")
    parser.add_argument("--inside", metavar="FILE", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    names = told.names or list(TITLES)
    unknown = [name for name in names if name not in TITLES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(TITLES)}")
    if told.inside:
        inside(names[0], quick=told.quick, peers=not told.no_peers, path=Path(told.inside))
        return 0
    about = report.machine()
    rows: list[report.Row] = []
    if told.source:
        kept = json.loads(told.source.read_text(encoding="utf-8"))["rows"]
        rows = [row for row in (report.Row(**one) for one in kept) if row.of not in names]
    failed = [name for name in names if not run(name, told.quick, told.no_peers, rows)]
    about["load_end"] = report.machine()["load"]
    if told.json:
        told.json.write_text(report.to_json(rows, about), encoding="utf-8")
    if told.docs:
        report.write_docs(told.docs, rows, about)
    missed = [row for row in rows if row.verdict == "miss"]
    print(f"\n{sum(row.verdict == 'pass' for row in rows)} targets met, {len(missed)} missed.")
    for row in missed:
        print(f"  {row.of}: {row.what}: {row.measured}, target {row.target}")
    return 1 if failed else 0


def run(name: str, quick: bool, alone: bool, rows: list[report.Row]) -> bool:
    """Measure one in a process of its own, without memory and imports of the others; True if it ended well."""
    print(f"\n{name}: {TITLES[name]} (load {os.getloadavg()[0]:.1f})", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.json")
        flags = ["--quick"] * quick + ["--no-peers"] * alone
        command = [sys.executable, "-m", "benchmarks", name, "--inside", str(path), *flags]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MCE_NICE": "0"}
        code = subprocess.run(command, env=environment, check=False).returncode
        if path.exists():
            rows += [report.Row(**one) for one in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    if code:
        print(f"  {name} ended with code {code}")
    return code == 0


def inside(name: str, *, quick: bool, peers: bool, path: Path) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    rows: list[report.Row] = []
    try:
        with rig.private():
            for row in module.measure(quick=quick, peers=peers):
                rows.append(row)
                report.show([row])
    finally:
        path.write_text(report.to_json(rows, {}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
