"""Why a point has no values: exceptions, exit statuses and limits, told as text the store can keep."""

import os
import signal
import traceback
from pathlib import Path
from types import CodeType, TracebackType
from typing import Literal

from mce_notebook.declare.grid import Status
from mce_notebook.store.frames import Failure

Where = Literal["point", "setup", "slot"]

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
_TEXT = 64 * 1024
_LINE = 300
_DEPTH = 50


class Interruption(BaseException):
    """Raised inside a point by whoever wants the evaluation to stop; never taken for a failure of the point."""


class Causes:
    """Failures made from exceptions, formatted once per kind.

    A sweep where one point in a hundred raises the same error at the same line spends its time on points, not on
    formatting tracebacks: the text is kept by exception type, message and line numbers.
    """

    def __init__(self, limit: int = 256):
        self._limit = limit
        # Beside each text, the code objects of its key: while they live, their ids belong to nobody else.
        self._texts: dict[object, tuple[tuple[str, str, str], list[CodeType]]] = {}

    def failure(self, error: BaseException, *, where: Where = "point", output: str = "") -> Failure:
        """Return the failure an exception of user code stands for.

        Parameters
        ----------
        error : BaseException
            Anything raised, `SystemExit` and `KeyboardInterrupt` included.
        where : {"point", "setup", "slot"}
        output : str
            What was printed before it.
        """
        name, text, trace = self._told(error)
        return Failure(
            status=Status.FAILED,
            type=name,
            message=text,
            traceback=trace,
            output=output,
            where=where,
            cause=one_line(f"{name}: {text}" if text else name),
        )

    def _told(self, error: BaseException) -> tuple[str, str, str]:
        codes, lines = _place(error)
        if not codes:
            return type_name(error), message(error), trimmed(error)
        key = (type(error), message(error), tuple(map(id, codes)), lines)
        known = self._texts.get(key)
        if known is None:
            if len(self._texts) >= self._limit:
                self._texts.clear()
            known = self._texts[key] = ((type_name(error), key[1], trimmed(error)), codes)
        return known[0]


def killed(cause: str, *, where: Where, output: str, kind: str = "", status: Status = Status.KILLED) -> Failure:
    """Return the failure of a point whose slot had to die, or died by itself; `kind` is short: SIGSEGV, MemoryLimit."""
    return Failure(
        status=status,
        type=kind,
        message=cause,
        traceback=_dumped(output),
        output=output,
        where=where,
        cause=one_line(cause),
    )


def type_name(error: BaseException) -> str:
    """Return the name of an exception's class as users know it: builtins bare, others with their module."""
    kind = type(error)
    module = str(kind.__module__)
    name = _clean(str(kind.__qualname__))
    return name if module in {"builtins", "__main__"} else f"{_clean(module)}.{name}"


def message(error: BaseException) -> str:
    """Return the message of an exception, whatever its `__str__` does."""
    try:
        text = str(error)
    except BaseException as broken:
        return f"<its __str__ raised {type(broken).__name__}>"
    return _clean(text)[:_TEXT]


def trimmed(error: BaseException) -> str:
    """Return the traceback of an exception without our own frames, nor those of the exceptions behind it."""
    try:
        told = traceback.TracebackException.from_exception(error, compact=True)
        _cut(told, set())
        text = "".join(told.format())
    except BaseException as broken:
        return f"{type_name(error)} (its traceback could not be formatted: {type(broken).__name__})"
    text = _clean(text)
    if len(text) > _TEXT:
        text = f"{text[: _TEXT // 2]}\n... cut ...\n{text[-_TEXT // 2 :]}"
    return text


def one_line(text: str) -> str:
    """Return the first line of a text, shortened."""
    line = text.strip().split("\n", 1)[0].strip()
    return line if len(line) <= _LINE else f"{line[: _LINE - 3]}..."


def exit_cause(returncode: int) -> str:
    """Say how a process ended, from its return code as `subprocess` gives it."""
    if returncode >= 0:
        return f"exited with status {returncode} (os._exit)"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        return f"killed by signal {-returncode}"
    words = signal.strsignal(-returncode)
    return f"killed by {name} ({words.lower()})" if words else f"killed by {name}"


def exit_kind(returncode: int) -> str:
    """Return the short name of how a process ended: of the signal, or `Exit`."""
    try:
        return "Exit" if returncode >= 0 else signal.Signals(-returncode).name
    except ValueError:
        return "Signal"


def size(nbytes: float) -> str:
    """Return a number of bytes in GB or MB."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


def _place(error: BaseException) -> tuple[list[CodeType], tuple[int, ...]]:
    """Return the code and lines an error passed through; nothing when its text has more in it than that."""
    if error.__cause__ is not None or error.__context__ is not None or getattr(error, "__notes__", None):
        return [], ()
    codes: list[CodeType] = []
    lines: list[int] = []
    step: TracebackType | None = error.__traceback__
    while step is not None:
        if len(codes) == _DEPTH:
            return [], ()
        codes.append(step.tb_frame.f_code)
        lines.append(step.tb_lineno)
        step = step.tb_next
    return codes, tuple(lines)


def _cut(told: traceback.TracebackException, seen: set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if not ours(frame.filename)])
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None:
            _cut(other, seen)


def ours(filename: str) -> bool:
    """Return whether a source file belongs to this package or to the machinery that starts it."""
    return filename.startswith((_PACKAGE, "<frozen "))


def _clean(text: str) -> str:
    # Lone surrogates (undecodable file names) cannot be stored as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _dumped(output: str) -> str:
    """Return the traceback that faulthandler left in the output of a crashed process, our frames cut."""
    _, found, dump = output.rpartition("Fatal Python error: ")
    if not found:
        return ""
    lines = (found + dump).splitlines()
    ours_too = (f'  File "{_PACKAGE}', '  File "<frozen ', "Extension modules:")
    return "\n".join(line for line in lines if not line.startswith(ours_too)).rstrip()
