"""What the front ends say: launches, lists, failures and errors as plain text."""

import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mce_notebook.errors import LoopError

if TYPE_CHECKING:
    from mce_notebook.launch import Launched
    from mce_notebook.sweep import Sweep

PACKAGE = Path(__file__).parent.parent
_RED, _GREEN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def tell(text: str) -> None:
    """Say something to whoever ran the cell or the command."""
    sys.stdout.write(text + "\n")


def error_text(error: BaseException, *, colour: bool = False) -> str:
    """One message for an error raised on purpose: what was wrong, where, what to write instead."""
    text = f"{type(error).__name__}: {error}"
    if not colour or not isinstance(error, LoopError) or not error.diff:
        return text
    head = text.removesuffix(error.diff)
    return head + "\n".join(_coloured(line) for line in error.diff.splitlines())


def _coloured(line: str) -> str:
    if line.startswith("+") and not line.startswith("+++"):
        return f"{_GREEN}{line}{_PLAIN}"
    if line.startswith("-") and not line.startswith("---"):
        return f"{_RED}{line}{_PLAIN}"
    return line


def users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Find the traceback from the first frame of the user's own code on; None if there is none."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != "<string>" and not _ours(file) and "IPython" not in Path(file).parts:
            return trace
        trace = trace.tb_next
    return None


def only_users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Copy a traceback without frames of ours and of IPython; None if none is left."""
    frames = []
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not _ours(file) and "IPython" not in Path(file).parts:
            frames.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    for frame in reversed(frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept


def _ours(file: str) -> bool:
    path = Path(file)
    return path.is_absolute() and PACKAGE in path.parents


def user_error_text(error: BaseException) -> str:
    """Write the traceback of an error of the user's code, without our frames."""
    trace = users_frames(error.__traceback__)
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def launch_text(launched: "Launched") -> str:
    """Tell what was understood and what was set off, a line each."""
    declaration = launched.declaration
    lines = [str(note) for note in declaration.notes]
    if launched.held:
        why = f": {', '.join(launched.reasons)}" if launched.reasons else ""
        most = "at most " if declaration.deferred else ""
        lines.append(
            f"{most}{launched.held:,} stale points are kept as they are{why}; --rerun stale computes them again"
        )
    elif launched.reasons:
        lines.append(f"computing stale points again: {', '.join(launched.reasons)}")
    if launched.todo and not launched.started:
        lines.append("it was stopped; resume goes on")
    return "\n".join(lines)


def sweeps_text(sweeps: Iterable["Sweep"]) -> str:
    """Tell of sweeps in a table."""
    rows = [("name", "state", "points", "known", "failed", "stale")]
    for sweep in sweeps:
        found = sweep.progress
        bad = found.failed + found.killed + found.timeout
        total, share = f"{found.total:,}", f"{100 * found.known // max(found.total, 1)} %"
        if found.guard:
            total, share = "not known yet", ""
        rows.append((sweep.name, found.state, total, share, f"{bad:,}", f"{found.stale:,}"))
    if len(rows) == 1:
        return "There are no sweeps here yet."
    return table_text(rows)


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other, the first two left-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def events_text(events: Iterable[dict[str, object]]) -> str:
    """Tell what happened to a sweep, oldest first."""
    lines = []
    for event in events:
        rest = [
            f"{name}={value}"
            for name, value in event.items()
            if name not in ("time", "event") and value not in ("", None)
        ]
        lines.append(" ".join([str(event.get("time", ""))[:19].replace("T", " "), str(event.get("event", "")), *rest]))
    return "\n".join(lines) or "Nothing happened yet."
