"""`mce.explore`: a grid for a function by widgets, what it would cost, and its launch; or slices through data."""

import html
import inspect
import math
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from mce_notebook.calls import STREAMS, read_call
from mce_notebook.errors import DeclarationError, SweepError
from mce_notebook.frontends.abbreviations import Fixed, Parameter, parameter
from mce_notebook.frontends.slices import Slices, source_of
from mce_notebook.preview import estimate
from mce_notebook.store.layout import checked_name, find_root
from mce_notebook.store.places import root_path
from mce_notebook.sweep import sweep

if TYPE_CHECKING:
    from mce_notebook.handle import Sweep
    from mce_notebook.launch import Proposal

REPLICATES = 10
INTERVAL = 0.25


def explore(subject: Any, *, store: str | Path | None = None, **abbreviations: Any) -> "Explorer | Slices":
    """Build a sweep of a function by widgets, or look through the data of one.

    Parameters
    ----------
    subject : callable, Sweep, xarray.Dataset or xarray.DataArray
        A function: widgets choose the values of its parameters, say how many points that makes and what they would
        cost, launch the sweep or write its cell. Data: widgets choose what is drawn and cut slices.
    store : path, optional
        Root of the store.
    **abbreviations
        Values of parameters as for `ipywidgets.interact`: ``n=(10, 100)`` or ``n=(10, 100, 10)`` numbers between,
        a list choices, a bool, a number or a string one value. Parameters not named start with their default.

    Raises
    ------
    DeclarationError
        For a name that is no parameter, or a parameter without any value.

    Examples
    --------
    >>> import mce_notebook as mce
    >>> def mse(n, sigma, rng):
    ...     return rng.normal(0, sigma, n).mean() ** 2
    >>> mce.explore(mse, n=(10, 100, 10), sigma=[0.5, 1.0])  # doctest: +SKIP
    """
    if callable(subject) and not hasattr(subject, "dims"):
        return Explorer(subject, abbreviations, store)
    if abbreviations:
        raise DeclarationError(f"Data have no parameters; leave out {', '.join(abbreviations)}.")
    return Slices(source_of(subject))


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Widgets that build a sweep of a function.

    Parameters
    ----------
    fn : callable
    abbreviations : dict
    store : path or None

    Attributes
    ----------
    sweep : Sweep or None
        What was launched last.
    """

    def __init__(self, fn: Callable[..., Any], abbreviations: dict[str, Any], store: str | Path | None = None):
        self.sweep: Sweep | None = None
        self._fn = fn
        self._store = store
        self._title = getattr(fn, "__name__", type(fn).__name__)
        self._ready = False
        given, self._stream = _given(fn, abbreviations)
        self._points = ipywidgets.HTML()
        self._parameters: list[Parameter] = [parameter(name, one, self._count) for name, one in given.items()]
        wide = {"description_width": "7em"}
        self._replicates = ipywidgets.BoundedIntText(
            value=REPLICATES if self._stream else 1,
            min=1,
            max=1_000_000,
            description="replicates",
            style=wide,
            layout={"width": "14em"},
            tooltip="independent repetitions of every point",
        )
        self._name = ipywidgets.Text(
            value=f"{self._title}_sweep".strip("<>_"),
            description="name",
            style=wide,
            layout={"width": "22em"},
            tooltip="name of the sweep",
        )
        self._on = ipywidgets.Combobox(
            value="local",
            options=["local", "inline"],
            description="cluster",
            style=wide,
            layout={"width": "18em"},
            tooltip="where it runs",
            ensure_option=False,
        )
        self._estimate = ipywidgets.Button(description="Estimate", icon="clock-o", tooltip="try a few points here")
        self._launch = ipywidgets.Button(
            description="Launch", icon="play", button_style="primary", tooltip="run all points"
        )
        self._write = ipywidgets.Button(description="Write the cell", icon="code", tooltip="show it as a notebook cell")
        self._told = ipywidgets.HTML()
        self._live = ipywidgets.VBox([])
        self._text = ipywidgets.Textarea(
            layout={"width": "100%", "height": "9em", "display": "none"}, tooltip="the cell, to be copied"
        )
        self._replicates.observe(lambda _: self._count(), "value")
        self._estimate.on_click(lambda _: self._try(self._tell_estimate))
        self._launch.on_click(lambda _: self._try(self._start))
        self._write.on_click(lambda _: self._try(self._show_cell))
        heading = ipywidgets.HTML(f"<b>{html.escape(self._title)}</b>")
        options = ipywidgets.HBox([self._name, self._on, self._replicates], layout={"flex_flow": "row wrap"})
        buttons = ipywidgets.HBox(
            [self._launch, self._estimate, self._write, self._points],
            layout={"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px"},
        )
        rows = [one.row for one in self._parameters]
        super().__init__(
            [heading, *rows, options, buttons, self._told, self._text, self._live], layout={"max_width": "760px"}
        )
        self._ready = True
        self._count()

    # What is chosen

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `mce.sweep` that the widgets stand for.

        Raises
        ------
        DeclarationError
            If a parameter has no value, or the name cannot be one.
        """
        words: dict[str, Any] = {}
        for one in self._parameters:
            values = one.values()
            words[one.name] = values if len(values) > 1 else values[0]
        if self._replicates.value > 1 or self._stream:
            words["replicates"] = self._replicates.value
        return {**words, "name": checked_name(self._name.value.strip()), "on": self._on.value or "local"}

    @property
    def points(self) -> int:
        """Number of points chosen."""
        sizes = [len(one.values()) for one in self._parameters]
        return int(math.prod(sizes) * self._replicates.value)

    @property
    def cell(self) -> str:
        """The same as a notebook cell."""
        arguments = self.arguments()
        line = [f"%%sweep {arguments['name']}", *([f"--on {arguments['on']}"] if arguments["on"] != "local" else [])]
        call, constants = [], []
        for one in self._parameters:
            values = one.values()
            if len(values) > 1:
                line.append(f"{one.name}={one.source()}")
                call.append(f"{one.name}={one.name}")
            elif isinstance(one, Fixed):
                call.append(f"{one.name}={one.name}")
            else:
                constants.append(f"{one.name}={values[0]!r}")
        call += constants
        stream = {"rng": "rng=rng", "seed": "seed=int(rng.integers(2**32))"}.get(self._stream, "")
        body = f"{self._title}({', '.join([*call, *([stream] if stream else [])])})"
        if "replicates" not in arguments:
            return f"{' '.join(line)}\n{body}"
        loops = [f"{name}={text}" for name, text in self._loops()]
        return self._with_replicates(line[0] if arguments["on"] == "local" else " ".join(line[:2]), loops, body)

    def _loops(self) -> list[tuple[str, str]]:
        return [(one.name, one.source()) for one in self._parameters if len(one.values()) > 1]

    def _with_replicates(self, head: str, loops: list[str], body: str) -> str:
        """Write the axes as loops, because replicates are one."""
        lines, depth = [head, "from mce_notebook import replicates", "rows = []"], 0
        names = []
        for loop in loops:
            name, _, values = loop.partition("=")
            lines.append(f"{'    ' * depth}for {name} in {values}:")
            names.append(name)
            depth += 1
        lines.append(f"{'    ' * depth}for rng in replicates({self._replicates.value}):")
        inside = "    " * (depth + 1)
        found = [f"{name}_value" if name in (self._title, *names) else name for name in self._outputs()]
        lines.append(f"{inside}{', '.join(found)} = {body}")
        lines.append(f"{inside}rows.append(({', '.join([*names, *found])}{',' if len(names + found) == 1 else ''}))")
        return "\n".join(lines)

    def _outputs(self) -> tuple[str, ...]:
        return self._proposal().experiment.outputs or ("value",)

    def _proposal(self) -> "Proposal":
        words = self.arguments()
        name, replicates = words.pop("name"), words.pop("replicates", None)
        return read_call(self._fn, None, name, replicates, None, words)

    def insert(self) -> None:
        """Put the cell below the one that calls this."""
        from IPython.core.getipython import get_ipython

        shell: Any = get_ipython()
        if shell is None:
            raise SweepError("There is no notebook here to put a cell into; `.cell` is its text.")
        shell.set_next_input(self.cell)

    # What the buttons do

    def _try(self, action: Callable[[], None]) -> None:
        self._told.value = ""
        try:
            action()
        except SweepError as error:
            self._say(str(error), bad=True)
        except Exception as error:  # whatever the user's function raises is told where they look
            self._say(f"{type(error).__name__}: {error}", bad=True)

    def _say(self, text: str, *, bad: bool = False) -> None:
        colour = "var(--jp-error-color1, #d32f2f)" if bad else "inherit"
        self._told.value = (
            f'<pre style="white-space:pre-wrap;margin:0;color:{colour};font-size:var(--jp-code-font-size, 13px)"'
            f' role="status">{html.escape(text)}</pre>'
        )

    def _count(self) -> None:
        if not self._ready:
            return
        try:
            sizes = [f"{len(one.values())} {one.name}" for one in self._parameters if len(one.values()) > 1]
            if self._replicates.value > 1:
                sizes.append(f"{self._replicates.value} replicates")
            points = self.points
            text = f"{points:,} point{'' if points == 1 else 's'}" + (
                f" = {' × '.join(sizes)}" if len(sizes) > 1 else ""
            )
            self._points.value = f"<span>{html.escape(text)}</span>"
        except DeclarationError as error:
            self._points.value = f'<span style="color:var(--jp-error-color1, #d32f2f)">{html.escape(str(error))}</span>'

    def _tell_estimate(self) -> None:
        root = find_root() if self._store is None else root_path(self._store)
        self._say(estimate(self._proposal(), root).text())

    def _start(self) -> None:
        arguments = self.arguments()
        if arguments["on"] != "inline":
            # A callback that waits would keep every other widget waiting.
            arguments["block"] = False
        self.sweep = sweep(self._fn, store=self._store, **arguments)
        view = LiveProgress(self.sweep)
        self._live.children = [view, Slices(source_of(self.sweep))]
        self._say(f"Launched. The dataset is mce.open({self.sweep.name!r}).dataset.")

    def _show_cell(self) -> None:
        text = self.cell
        self._text.value = text
        self._text.layout.height = f"{text.count(chr(10)) * 1.4 + 3:.0f}em"
        self._text.layout.display = ""
        self._say("Copy this into a cell.")


class LiveProgress(ipywidgets.HTML):  # type: ignore[misc]
    """How far a sweep is, followed from a thread, so that it goes on while a cell blocks the kernel."""

    def __init__(self, handle: "Sweep"):
        from mce_notebook.sweep import open as open_sweep

        # A handle of its own: the user's is not made for two threads.
        self._handle = open_sweep(handle.name, handle.folder.parent)
        super().__init__(self._handle.progress.html())
        threading.Thread(target=self._follow, name="mce-progress", daemon=True).start()

    def _follow(self) -> None:
        stop = threading.Event()
        while True:
            try:
                progress = self._handle.progress
            except (SweepError, FileNotFoundError) as error:
                self.value = f"<p>{html.escape(str(error))}</p>"
                return
            if self.value != (shown := progress.html()):
                self.value = shown
            if progress.ended:
                return
            stop.wait(INTERVAL)


def _given(fn: Callable[..., Any], abbreviations: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a value or an abbreviation of every parameter, and the name of the one that takes random numbers."""
    try:
        known = inspect.signature(fn).parameters
    except (TypeError, ValueError) as error:
        raise DeclarationError(f"The parameters of {fn!r} are not known; wrap it in a function of yours.") from error
    anything = any(one.kind is one.VAR_KEYWORD for one in known.values())
    names = [name for name, one in known.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    wrong = next((name for name in abbreviations if name not in names and not anything), None)
    if wrong is not None:
        raise DeclarationError(f"`{wrong}` is no parameter of {_name(fn)}, which has {', '.join(names) or 'none'}.")
    stream = next((name for name in STREAMS if name in names and name not in abbreviations), "")
    found: dict[str, Any] = {}
    for name in dict.fromkeys([*names, *abbreviations]):
        if name == stream:
            continue
        default = known[name].default if name in known else inspect.Parameter.empty
        if name in abbreviations:
            found[name] = abbreviations[name]
        elif default is not inspect.Parameter.empty:
            found[name] = default
        else:
            example = textwrap.shorten(f"mce.explore({_name(fn)}, {name}=(1, 10))", 80)
            raise DeclarationError(f"`{name}` has no default: give it values, such as `{example}`.")
    return found, stream


def _name(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__name__", type(fn).__name__))
