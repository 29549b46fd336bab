"""Options of a sweep: how it runs, never what it computes; parsed from words of a line or arguments of a call."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mce_notebook.errors import OptionError

ORDERS = ("coarse", "listed", "random", "longest-first")
RERUNS = ("failed", "stale", "all")

_SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(e[0-9]+)?\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """How a sweep runs.

    Parameters
    ----------
    on : str
        Cluster profile.
    block : bool or None
        Whether the call waits for the end; None: only where a notebook is executed from end to end.
    serial : bool
        One slot, listed order.
    order : {"coarse", "listed", "random", "longest-first"}
    seed : int or None
        Root seed; None: a hash of the name.
    timeout : float or None
        Seconds a point may take.
    memory : int or None
        Bytes a point may use.
    cores, gpus : int
        What a point needs.
    retries : int
        How often a killed point is tried again.
    max_failures : float, int or None
        Stop after this many failures; a float below 1 is a share of the outcomes so far, once there are twenty.
    confirm_above : float or None
        Core-seconds of estimated work from which the launch is refused without a flag.
    depends : tuple of str
        Files that belong to the version.
    rerun : {"failed", "stale", "all"} or None
    dims : tuple of (str, tuple of str)
        Names of the dimensions of array outputs.
    plot : str or None
        What to plot.
    """

    on: str = "local"
    block: bool | None = None
    serial: bool = False
    order: str = "coarse"
    seed: int | None = None
    timeout: float | None = None
    memory: int | None = None
    cores: int = 1
    gpus: int = 0
    retries: int = 1
    max_failures: float | int | None = None
    confirm_above: float | None = None
    depends: tuple[str, ...] = ()
    rerun: str | None = None
    dims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    plot: str | None = None

    @classmethod
    def parse(cls, **given: Any) -> "Options":
        """Return options from strings, or from values of the right type; None means the default.

        Raises
        ------
        OptionError
            Naming the option, what was given and an example of what is understood.

        Examples
        --------
        >>> Options.parse(timeout="10m", memory="2GB", max_failures="20%").timeout
        600.0
        """
        known = {field.name for field in fields(cls)}
        values = {}
        for raw, value in given.items():
            name = raw.replace("-", "_")
            if name not in known:
                close = difflib.get_close_matches(name, sorted(known), n=1)
                hint = (
                    f"did you mean {_flag(close[0])}?" if close else f"there is {', '.join(map(_flag, sorted(known)))}."
                )
                raise OptionError(f"There is no option {_flag(name)}; {hint}")
            if value is not None:
                values[name] = _PARSERS[name](name, value)
        if values.get("serial") and values.get("order", "listed") != "listed":
            raise OptionError("--serial runs points in listed order; leave out --order or --serial.")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values, only those that differ from their defaults."""
        default = asdict(Options())
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Options":
        """Return the options that `to_json` wrote; options of later versions are left out."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        if "depends" in values:
            values["depends"] = tuple(values["depends"])
        if "dims" in values:
            values["dims"] = tuple((output, tuple(names)) for output, names in values["dims"])
        return cls(**values)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _refuse(name: str, value: Any, meaning: str, example: str) -> OptionError:
    return OptionError(f"{_flag(name)} is {meaning}, not {value!r}; write for example {_flag(name)} {example}.")


def _quantity(name: str, value: Any, units: Mapping[str, float], plain: str, meaning: str, example: str) -> float:
    """Return a positive number of base units from `90`, `"1.5h"`, `"2 GB"`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount, unit = float(value), plain
    else:
        found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
        if found is None or (found[3].lower() or plain) not in units:
            raise _refuse(name, value, meaning, example)
        amount, unit = float(found[1] + (found[2] or "")), found[3].lower() or plain
    scaled = amount * units[unit]
    if not 0 < scaled < 1e18:
        raise _refuse(name, value, meaning, example)
    return scaled


def _time(example: str) -> Callable[[str, Any], float]:
    return lambda name, value: _quantity(name, value, _SECONDS, "s", "a time", example)


def _size(name: str, value: Any) -> int:
    return int(_quantity(name, value, _BYTES, "b", "an amount of memory", "2GB"))


def _whole(lowest: int, example: str) -> Callable[[str, Any], int]:
    def parse(name: str, value: Any) -> int:
        meaning = f"a whole number, {lowest} or more"
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise _refuse(name, value, meaning, example)
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise _refuse(name, value, meaning, example) from None
        if number < lowest:
            raise _refuse(name, value, meaning, example)
        return number

    return parse


def _share(name: str, value: Any) -> float | int:
    text = value.strip() if isinstance(value, str) else value
    refusal = _refuse(name, value, "a number of points or a share of them", "20%")
    if isinstance(text, bool):
        raise refusal
    try:
        number = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except (TypeError, ValueError):
        raise refusal from None
    if isinstance(text, str) and text.endswith("%"):
        if not 0 <= number <= 1:
            raise refusal
        # 100 % is every point; a share of 1.0 must not be read as one point.
        return min(number, 1 - 1e-12) if number else 0
    if not 0 <= number < 1e15 or (number >= 1 and not number.is_integer()):
        raise refusal
    return number if 0 < number < 1 else int(number)


def _flag_value(name: str, value: Any) -> bool:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise _refuse(name, value, "on or off", "true")


def _choice(allowed: tuple[str, ...]) -> Callable[[str, Any], str]:
    def parse(name: str, value: Any) -> str:
        word = value.strip().lower() if isinstance(value, str) else value
        if word in allowed:
            return str(word)
        close = difflib.get_close_matches(str(word), allowed, n=1)
        raise _refuse(name, value, f"one of {', '.join(allowed)}", close[0] if close else allowed[0])

    return parse


def _word(name: str, value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[\w.@-]+", value.strip()) and not value.strip().startswith((".", "-")):
        return value.strip()
    raise _refuse(name, value, "the name of a cluster profile", "local")


def _text(name: str, value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise _refuse(name, value, "text", "rho,delta")


def _paths(name: str, value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    try:
        found = tuple(str(item).strip() for item in items)
    except TypeError:
        found = ()
    if not found or not all(found) or any("\0" in item for item in found):
        raise _refuse(name, value, "a file or several between commas", "data.csv")
    return found


def _dims(name: str, value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return dimensions from `trace=iteration image=row,column`, or from a mapping."""
    example = "trace=iteration"
    meaning = "names of dimensions for array outputs"
    if isinstance(value, str):
        pairs = [item.partition("=")[::2] for item in value.split()]
    elif isinstance(value, Mapping):
        pairs = [(key, names if isinstance(names, str) else ",".join(map(str, names))) for key, names in value.items()]
    else:
        raise _refuse(name, value, meaning, example)
    found = tuple((output, tuple(part.strip() for part in names.split(","))) for output, names in pairs)
    if not found or not all(output.isidentifier() and all(map(str.isidentifier, names)) for output, names in found):
        raise _refuse(name, value, meaning, example)
    return found


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "on": _word,
    "block": _flag_value,
    "serial": _flag_value,
    "order": _choice(ORDERS),
    "seed": _whole(0, "42"),
    "timeout": _time("10m"),
    "memory": _size,
    "cores": _whole(1, "2"),
    "gpus": _whole(0, "1"),
    "retries": _whole(0, "2"),
    "max_failures": _share,
    "confirm_above": _time("10h"),
    "depends": _paths,
    "rerun": _choice(RERUNS),
    "dims": _dims,
    "plot": _text,
}
