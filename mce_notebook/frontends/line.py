"""The line of a cell, read: a name, options, axes. The same words are the command line's."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click

from mce_notebook.declare.options import Options
from mce_notebook.errors import OptionError

# Options that take a value and belong to `Options`; what they mean is told once, for the cell and for `mce`.
VALUES = {
    "on": "cluster to run on: local (default), inline, or a profile of clusters.toml",
    "rerun": "compute again: failed, stale or all",
    "order": "order of the points: coarse (default; any prefix covers the grid evenly), listed, random, longest-first",
    "seed": "root seed; default: from the name",
    "timeout": "time a point may take, such as 10m",
    "memory": "memory a point may use, such as 2GB",
    "cores": "cores a point needs",
    "gpus": "GPUs a point needs",
    "retries": "how often a killed point is tried again (default 1)",
    "max-failures": "stop after this many failures, such as 20% or 50",
    "confirm-above": "refuse to start if the estimate is above this many core-hours, such as 10h",
    "depends": "files whose content belongs to the version, between commas",
    "dims": "names for the dimensions of array outputs, such as trace=iteration",
    "plot": "the output to draw, live, below the progress",
}
# Options of the front ends themselves.
OWN = {
    "axes": "names of the loops that are axes, between commas, where the usual rule is not wanted",
    "store": "folder of the store; default: `experiments` here or above, or MCE_STORE",
}
FLAGS = {
    "dry-run": "say what would run and what it would cost; start nothing",
    "block": "wait until the sweep ends",
    "no-block": "return at once, also where notebooks are executed from end to end",
    "serial": "one slot, points in listed order",
    "adopt": "take the name over although axes or constants have other names now",
    "replace": "put the old sweep of that name aside and start afresh",
}
# What one can say to a sweep.
VERBS = {
    "list": "all sweeps of the store",
    "status": "how far a sweep is",
    "errors": "its failures: causes, regions, the first ones",
    "log": "what happened to it, or what the point at the given coordinates printed",
    "cancel": "stop it and keep what is done",
    "pause": "let what is under way finish, then wait",
    "resume": "go on",
    "rm": "delete it with all its results",
    "seal": "freeze the finished dataset as a folder with checksums",
    "trust": "accept the code in its folder as if you had written it",
}
# How the value of an option is called in its help.
METAVARS = {
    "on": "CLUSTER",
    "rerun": "WHICH",
    "timeout": "TIME",
    "memory": "SIZE",
    "cores": "N",
    "gpus": "N",
    "retries": "N",
    "seed": "N",
    "max-failures": "COUNT",
    "confirm-above": "TIME",
    "depends": "FILES",
    "dims": "OUTPUT=NAMES",
    "plot": "OUTPUT",
    "axes": "NAMES",
    "store": "FOLDER",
}
_SPLIT = re.compile(r"\s")
_OPEN, _CLOSE = "([{", ")]}"
_AXIS = re.compile(r"([^\W\d]\w*)=(?!=)", re.UNICODE)


@dataclass(frozen=True)
class Line:
    """What a line asks for.

    Parameters
    ----------
    words : tuple of str
        What is neither option nor axis: the name, or a verb and a name.
    values : mapping of str to str
        Options with a value, by name without dashes.
    flags : frozenset of str
    axes : mapping of str to str
        Axes of the line, name to source text.
    """

    words: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    axes: Mapping[str, str] = field(default_factory=dict)

    def options(self, defaults: Mapping[str, object]) -> Options:
        """Return the options of the line over the defaults.

        Raises
        ------
        OptionError
            For a value that means nothing, with an example.
        """
        given = {name.replace("-", "_"): value for name, value in self.values.items() if name in VALUES}
        if "serial" in self.flags:
            given["serial"] = "true"
            # A default is no wish: only an order on the line itself contradicts --serial.
            defaults = {name: value for name, value in defaults.items() if name != "order"}
        return Options.parse(**{**defaults, **given})

    @property
    def block(self) -> bool | None:
        """Whether the line says to wait; None when it says nothing."""
        if "no-block" in self.flags:
            return False
        return True if "block" in self.flags else None

    @property
    def chosen_axes(self) -> tuple[str, ...] | None:
        """Loops named by --axes."""
        text = self.values.get("axes")
        return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def click_options() -> list[click.Parameter]:
    """Return the same options for the command line."""
    options: list[click.Parameter] = []
    for name, meaning in {**VALUES, **OWN}.items():
        metavar = METAVARS.get(name, name.upper())
        options.append(click.Option([f"--{name}"], help=told(meaning), metavar=metavar, multiple=name == "dims"))
    options += [click.Option([f"--{name}"], is_flag=True, help=told(meaning)) for name, meaning in FLAGS.items()]
    return options


def told(meaning: str) -> str:
    """Write a meaning as a sentence."""
    return meaning[0].upper() + meaning[1:] + "."


def tokens(text: str) -> list[str]:
    """Split at blanks, but not inside brackets or quotes.

    Raises
    ------
    OptionError
        If a bracket or a quote is not closed.

    Examples
    --------
    >>> tokens("mse n=[1, 2] --on local")
    ['mse', 'n=[1, 2]', '--on', 'local']
    """
    found: list[str] = []
    current, quote, depth = "", "", []
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPEN:
            depth.append(character)
        elif character in _CLOSE:
            if not depth or _OPEN.index(depth.pop()) != _CLOSE.index(character):
                raise OptionError(f"There is a {character!r} too many in {text.strip()!r}.")
        elif not depth and _SPLIT.match(character):
            if current:
                found.append(current)
            current = ""
            continue
        current += character
    if quote or depth:
        raise OptionError(f"The {quote or depth[-1]} is never closed in {text.strip()!r}.")
    return _joined([*found, current] if current else found)


def _joined(found: list[str]) -> list[str]:
    """Undo blanks around an equals sign: `n = [1, 2]` is one axis."""
    out: list[str] = []
    for token in found:
        if out and not out[-1].startswith("-") and (token.startswith("=") or re.fullmatch(r"[^\W\d]\w*=", out[-1])):
            out[-1] += token
        else:
            out.append(token)
    return out


def parse(text: str, extra: Sequence[str] = ()) -> Line:
    """Read a line.

    Parameters
    ----------
    text : str
    extra : sequence of str
        More flags that are understood.

    Raises
    ------
    OptionError
        For an option there is not, one without its value, one given twice.
    """
    found = tokens(text)
    words: list[str] = []
    values: dict[str, str] = {}
    flags: set[str] = set()
    axes: dict[str, str] = {}
    position = 0
    while position < len(found):
        token = found[position]
        position += 1
        if token.startswith("-") and not re.match(r"-[\d.]", token):
            position += _option(token, found[position:], values, flags, extra)
        elif match := _AXIS.match(token):
            _axis(match[1], token[match.end() :], axes)
        else:
            words.append(token)
    return Line(tuple(words), values, frozenset(flags), axes)


def _option(token: str, rest: Sequence[str], values: dict[str, str], flags: set[str], extra: Sequence[str]) -> int:
    """Take one option; return how many of the following tokens belong to it."""
    name, equals, value = token.lstrip("-").partition("=")
    name = name.replace("_", "-")
    known = [*VALUES, *OWN, *FLAGS, *extra]
    if not token.startswith("--") or name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean --{near[0]}?" if near else f"there are {', '.join('--' + one for one in sorted(known))}."
        raise OptionError(f"There is no option {token.partition('=')[0]}; {hint}")
    if name in FLAGS or name in extra:
        if equals:
            raise OptionError(f"--{name} takes no value; write --{name} alone, or leave it out.")
        flags.add(name)
        return 0
    taken = 0
    if not equals:
        if not rest or rest[0].startswith("--"):
            raise OptionError(f"--{name} needs a value: {(VALUES | OWN)[name]}.")
        value, taken = rest[0], 1
    value = _unquoted(value)
    if name in values and name == "dims":
        value = f"{values[name]} {value}"
    elif name in values:
        raise OptionError(f"--{name} is given twice: {values[name]} and {value}.")
    values[name] = value
    return taken


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _axis(name: str, text: str, axes: dict[str, str]) -> None:
    if not text:
        raise OptionError(f"The axis {name} has no values; write for example {name}=[1, 2, 3].")
    if name in axes:
        raise OptionError(f"The axis {name} is given twice: {axes[name]} and {text}.")
    try:
        compile(text, "<line>", "eval")
    except (SyntaxError, ValueError):
        raise OptionError(
            f"The values of axis {name} are no Python expression: {text!r}; write for example {name}=[1, 2, 3]."
        ) from None
    axes[name] = text
