"""What was measured, beside its target: a table for people, JSON for machines, a page for the docs."""

import datetime
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.targets import TITLES


@dataclass(frozen=True)
class Row:
    """One number.

    Parameters
    ----------
    of : str
        Which target, `p1`...
    what : str
        Of what.
    value : float
        Measured.
    unit : str
        `x` for a multiple of the bare loop on two cores.
    limit : float or None
        The target; None for peers, and for numbers that are only told.
    most : bool
        Whether the target is an upper limit.
    note : str
        How it was measured.
    who : str
        Who was measured.
    """

    of: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    most: bool = True
    note: str = ""
    who: str = "mce"

    @property
    def verdict(self) -> str:
        """`pass`, `miss`, or nothing where there is no target."""
        if self.limit is None:
            return ""
        met = self.value <= self.limit if self.most else self.value >= self.limit
        return "pass" if met else "miss"

    @property
    def target(self) -> str:
        """The limit with its direction."""
        return "" if self.limit is None else f"{'<=' if self.most else '>='} {number(self.limit)} {self.unit}"

    @property
    def measured(self) -> str:
        """The value with its unit."""
        return f"{number(self.value)} {self.unit}"


def number(value: float) -> str:
    """Write three significant digits without an exponent.

    >>> number(1.2345), number(43211.0)
    ('1.23', '43211')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def skipped(of: str, who: str, why: str) -> None:
    """Say that somebody was not measured."""
    print(f"  {of}: {who} skipped: {why}", flush=True)


def show(rows: Iterable[Row]) -> None:
    """Print rows as a table."""
    for row in rows:
        head = f"  {row.who:<24} {row.what:<44} {row.measured:>12}"
        print(f"{head}  {row.target:>12}  {row.verdict:<4}  {row.note}".rstrip(), flush=True)


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    load = os.getloadavg()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load": [round(one, 2) for one in load],
    }


def to_json(rows: list[Row], about: dict[str, Any]) -> str:
    """Return everything as JSON."""
    return json.dumps({"machine": about, "rows": [asdict(row) for row in rows]}, indent=1)


def write_docs(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Write the page of results: a table for each target, and the command that makes it."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks --docs docs/benchmarks.md`; `make bench` installs the peers and runs it.",
        "`x` is a multiple of the time a bare Python loop takes, split on two clean processes and measured just before",
        "and after in the same run, so that a slow or busy machine slows both. Numbers are medians; the time includes",
        "making every outcome durable (`fdatasync`) and handing over a labelled dataset. Peers make nothing durable",
        "unless it says so.",
        "",
        f"Measured {about['date']} on {about['cores']} cores, Python {about['python']}, {about['system']}; "
        f"load average {about['load'][0]} at the start, {about.get('load_end', about['load'])[0]} at the end.",
    ]
    for of, title in TITLES.items():
        mine = [row for row in rows if row.of == of]
        if not mine:
            continue
        lines += ["", f"## {of.upper()}: {title}", "", f"`python -m benchmarks {of}`", ""]
        lines += ["| who | what | measured | target | | how |", "|---|---|---|---|---|---|"]
        for row in mine:
            cells = (row.who, row.what, row.measured, row.target, row.verdict, row.note)
            lines.append("| " + " | ".join(cells) + " |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
