"""The failures of a sweep: a table with coordinates, and the regions of the grid they live in."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.store.frames import Failure
from mce_notebook.view.causes import grouped, names
from mce_notebook.view.cells import Integers
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.gathered import cause_of
from mce_notebook.view.regions import Region, find, ranked

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 20
# Causes told apart by regions; rarer ones are in the table only.
CAUSES = 4


class Failures:
    """Failed points of a sweep, as they were when this was made.

    Parameters
    ----------
    snapshot : Snapshot
    """

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Failures":
        """Return the failures that a snapshot shows now."""
        return cls(snapshot)

    def __init__(self, snapshot: Snapshot):
        self._cells = snapshot.cells
        self._found = dict(sorted(snapshot.failures().items()))
        self._status = snapshot.status()

    def __len__(self) -> int:
        return len(self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row per failed point: coordinates, status, cause, type, message, where, traceback."""
        return table(self._cells.codes(self._points), list(self._found.values()))

    @cached_property
    def causes(self) -> dict[str, int]:
        """Number of failures by cause, the most frequent first; causes that differ only in a number are one."""
        return grouped(self._exact)

    @cached_property
    def regions(self) -> list[Region]:
        """Rules that cover the failures of each frequent cause and (nearly) no success."""
        good = np.flatnonzero(np.isin(self._status, (Status.DONE, Status.SKIPPED)))
        by_cause: dict[str, list[int]] = {}
        told = names(self._exact)
        for cell, failure in self._found.items():
            by_cause.setdefault(told[cause_of(failure)], []).append(cell)
        found: list[Region] = []
        for cause in list(self.causes)[:CAUSES]:
            bad = np.array(by_cause[cause], np.int64)
            codes = ranked(self._cells.codes(np.concatenate([bad, good])))
            failed = np.arange(bad.size + good.size) < bad.size
            found += find(codes, failed, cause=cause)
        return found

    @cached_property
    def _exact(self) -> Counter[str]:
        return Counter(map(cause_of, self._found.values()))

    @property
    def _points(self) -> Integers:
        return np.fromiter(self._found, np.int64, len(self._found))

    def text(self) -> str:
        """Causes, regions, and the first failures."""
        if not self._found:
            return "No failures."
        lines = [f"{len(self):,} failure{'' if len(self) == 1 else 's'}: {self._counted()}"]
        lines += [f"  {region}" for region in self.regions]
        lines += ["", self._short().to_string(index=False, max_colwidth=60)]
        if len(self) > SHOWN:
            lines.append(f"... and {len(self) - SHOWN:,} more in .table")
        return "\n".join(lines)

    def _short(self) -> "pd.DataFrame":
        return self.table.head(SHOWN).drop(columns="traceback")

    def _counted(self) -> str:
        shown = [f"{cause} {count:,}" for cause, count in list(self.causes.items())[:5]]
        return ", ".join(shown) + (", ..." if len(self.causes) > 5 else "")

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        if not self._found:
            return "<p>No failures.</p>"
        plural = "" if len(self) == 1 else "s"
        head = f"<p><b>{len(self):,} failure{plural}</b>: {html.escape(self._counted())}</p>"
        rules = "".join(f"<li>{html.escape(str(region))}</li>" for region in self.regions)
        # pandas escapes every cell.
        rows = self._short().to_html(index=False, border=0)
        more = f"<p>{len(self) - SHOWN:,} more in <code>.table</code></p>" if len(self) > SHOWN else ""
        return head + (f"<ul>{rules}</ul>" if rules else "") + rows + more


def table(codes: Mapping[str, tuple[Integers, npt.NDArray[Any]]], found: Sequence[Failure]) -> "pd.DataFrame":
    """Failures as a data frame, coordinates first."""
    import pandas as pd

    columns: dict[str, object] = {name: labels[code] for name, (code, labels) in codes.items()}
    columns["status"] = [failure.status.name.lower() for failure in found]
    columns["cause"] = [cause_of(failure) for failure in found]
    columns["type"] = [failure.type for failure in found]
    columns["message"] = [failure.message for failure in found]
    columns["where"] = [failure.where for failure in found]
    columns["traceback"] = [failure.traceback for failure in found]
    return pd.DataFrame(columns)
