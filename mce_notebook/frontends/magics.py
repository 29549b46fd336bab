"""`%%sweep` and `%sweep`: a cell becomes a sweep; its words are those of the command line."""

import ast
import builtins
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Bool, Unicode

from mce_notebook.errors import NameConflict, OptionError, SweepError
from mce_notebook.frontends.line import FLAGS, METAVARS, OWN, VALUES, VERBS, Line, click_options, parse
from mce_notebook.frontends.messages import error_text, launch_text, only_users_frames, tell, users_frames

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from mce_notebook.frontends.live import LiveView
    from mce_notebook.launch import Launched
    from mce_notebook.sweep import Sweep

_HELP = """Run the nested loops of a cell as a sweep: in parallel, durably, as a labelled dataset.

Write the loops as you would without us, and put a line above them:

    %%sweep accuracy
    rows = []
    for n in [100, 200, 400]:
        for noise in [0.1, 0.2, 0.5]:
            data = make_data(n, noise)
            rows.append((n, noise, score(data)))

The cell returns at once. `accuracy` is then a variable that fills while the sweep runs:

    accuracy.dataset        what is known now, an xarray.Dataset with dimensions n and noise
    accuracy.result()       waits for the end, then the same
    accuracy.failures       points that raised: where and why

Every point is computed once and kept on disk. Run the cell again, after a restart too: nothing is computed twice.
Add values to a loop and run it again: only the new points are computed.

Random numbers: draw from `replicates`, and every point has a stream of its own, in any order and on any machine:

    %%sweep estimate --on local --timeout 10m
    from mce_notebook import replicates
    out = {}
    for n in [10, 100]:
        for rng in replicates(50):
            out[n, rng] = rng.normal(size=n).mean()

No loops? Give the axes on the line; the last expression of the cell is the result:

    %%sweep mse n=[10, 100] sigma=np.logspace(-2, 0, 9)
    estimate(n, sigma)

%%sweep NAME [options] [axis=values ...]

Options
"""


def help_text() -> str:
    """Write the help of `%%sweep`, its options included."""
    lines = [_HELP.rstrip("\n")]
    for name, meaning in {**VALUES, **OWN}.items():
        lines.append(f"    --{name + ' ' + METAVARS.get(name, name.upper()):30} {meaning}")
    lines += [f"    --{name:30} {meaning}" for name, meaning in FLAGS.items()]
    return "\n".join(lines) + "\n"


@magics_class
class SweepMagics(Magics):
    """Defaults of `%%sweep`, to be set in a configuration file or with `%config SweepMagics.order = "random"`."""

    on = Unicode("local", help="Cluster to run on.").tag(config=True)
    block = Bool(
        None,
        allow_none=True,
        help="Whether a cell waits for its sweep; by default only where a notebook is executed from end to end.",
    ).tag(config=True)
    order = Unicode("coarse", help="Order of the points.").tag(config=True)
    timeout = Unicode("", help="Time a point may take, such as 10m; empty: any.").tag(config=True)
    memory = Unicode("", help="Memory a point may use, such as 2GB; empty: any.").tag(config=True)
    max_failures = Unicode("", help="Stop after this many failures, such as 20%; empty: never.").tag(config=True)
    confirm_above = Unicode("", help="Refuse sweeps above this many core-hours, such as 10h.").tag(config=True)
    store = Unicode("", help="Folder of the store; empty: `experiments` here or above.").tag(config=True)
    live = Bool(True, help="Whether the output of a cell follows its sweep.").tag(config=True)

    def __init__(self, shell: "InteractiveShell"):
        super().__init__(shell)
        self._ip: Any = shell
        self._views: dict[str, LiveView] = {}

    @no_var_expand
    @cell_magic("sweep")  # type: ignore[arg-type]
    def cell(self, line: str, cell: str) -> None:
        """Declare and run; the help is `help_text`."""
        self._clean(lambda: self._run(parse(line), cell))

    @no_var_expand
    @line_magic("sweep")  # type: ignore[arg-type]
    def line(self, line: str) -> Any:
        """List sweeps, or say something to one.

        %sweep                      all sweeps of the store
        %sweep NAME                 show one, live
        %sweep status NAME          how far it is
        %sweep errors NAME          its failures
        %sweep log NAME             what happened to it
        %sweep log NAME n=100       what the point at n=100 printed
        %sweep pause|resume|cancel NAME
        %sweep rm NAME --yes        delete it with all its results
        """
        return self._clean(lambda: self._say(parse(line, extra=("yes",))))

    # The cell

    def _run(self, line: Line, cell: str) -> None:
        name = self._name(line)
        self._check_name(name, cell)
        handle = self._declare(name, line, self._python(cell))
        if handle is None:
            return
        self._ip.user_ns[name] = handle
        launched = handle.launched
        if launched is not None and (text := launch_text(launched)):
            tell(text)
        if launched is not None and launched.declaration.tail.strip():
            self._offer_tail(name, launched)
        self._show(handle, line)

    def _name(self, line: Line) -> str:
        if not line.words:
            raise OptionError("The sweep needs a name: write %%sweep NAME above the loops. %%sweep? explains.")
        if len(line.words) > 1:
            raise OptionError(
                f"A sweep has one name, and there are {len(line.words)} words: {', '.join(line.words)}. Options start "
                "with --, axes are written name=[values]."
            )
        return line.words[0]

    def _check_name(self, name: str, cell: str) -> None:
        """Refuse a name whose variable is the user's own."""
        from mce_notebook.store.layout import checked_name
        from mce_notebook.sweep import Sweep

        checked_name(name)
        held = self._ip.user_ns.get(name)
        if held is not None and not (isinstance(held, Sweep) and held.name == name):
            raise NameConflict(
                f"`{name}` is a variable of yours ({type(held).__name__}) and would be overwritten. Choose another "
                f"name for the sweep, or `del {name}` first."
            )
        if hasattr(builtins, name):
            raise NameConflict(f"`{name}` is a built-in function of Python; choose another name for the sweep.")
        if name in _bound(self._python(cell)):
            raise NameConflict(f"The cell itself uses `{name}` as a variable; choose another name for the sweep.")

    def _python(self, cell: str) -> str:
        """Return the cell as Python, with IPython's own syntax translated where there is any."""
        try:
            ast.parse(cell)
        except (SyntaxError, ValueError):
            translated = str(self._ip.transform_cell(cell))
            try:
                ast.parse(translated)
            except (SyntaxError, ValueError):
                return cell
            return translated
        return cell

    def _declare(self, name: str, line: Line, cell: str) -> "Sweep | None":
        from mce_notebook.sweep import declare_cell

        words: dict[str, Any] = {
            "line_axes": line.axes or None,
            "axes": line.chosen_axes,
            "store": line.values.get("store") or self.store or None,
            "notebook": notebook_path(self._ip.user_ns),
            "adopt": "adopt" in line.flags,
            "replace": "replace" in line.flags,
            # Line 1 of the cell, as JupyterLab counts, is the one with `%%sweep`.
            "first_line": 2,
        }
        options = line.options(self._defaults())
        if "dry-run" in line.flags:
            from mce_notebook.frontends.actions import dry_run

            tell(dry_run(name, cell, self._ip.user_ns, options, **words))
            return None
        return declare_cell(name, cell, self._ip.user_ns, options, **words)

    def _defaults(self) -> dict[str, object]:
        """Options as configured; those that say nothing are left to `Options`."""
        given = {
            "on": self.on,
            "order": self.order,
            "timeout": self.timeout,
            "memory": self.memory,
            "max_failures": self.max_failures,
            "confirm_above": self.confirm_above,
        }
        return {name: value for name, value in given.items() if value}

    def _offer_tail(self, name: str, launched: "Launched") -> None:
        """Offer the statements after the loops as the next cell, once; the launch line says so."""
        from mce_notebook.declare.rows import sink_names

        declaration = launched.declaration
        if declaration.number != 1 or not launched.started:
            return
        used = [sink for sink in sink_names(declaration.sinks) if re.search(rf"\b{sink}\b", declaration.tail)]
        lines = [f"{sink} = {name}.rows({sink!r})" for sink in used]
        self._ip.set_next_input("\n".join([f"{name}.result()", *lines, declaration.tail.rstrip()]))

    def _show(self, handle: "Sweep", line: Line) -> None:
        block = line.block if line.block is not None else self.block
        waits = unattended(self._ip) if block is None else block
        view = self._view(handle, line) if self.live and hasattr(self._ip, "kernel") else None
        if view is not None:
            view.start()
            if "plot" in line.values:
                handle.plot(value=line.values["plot"]).show(wait=False)
        if waits:
            self._wait(handle)
            if view is not None:
                view.finish()
        if view is None:
            tell(handle.progress.text())

    def _view(self, handle: "Sweep", line: Line) -> "LiveView":
        from mce_notebook.frontends.live import LiveView

        key = str(handle.folder)
        if key in self._views:
            # The cell was run again: the output of the earlier run is gone or stays as it is.
            self._views[key].stop()
        widget = without_extension(self._ip.user_ns)
        self._views[key] = LiveView(handle, line.values.get("plot"), widget=widget)
        return self._views[key]

    def _wait(self, handle: "Sweep") -> None:
        try:
            handle.wait()
        except KeyboardInterrupt:
            tell(f"Only the waiting stopped: {handle.name} goes on. %sweep cancel {handle.name} stops it.")

    # The line

    def _say(self, line: Line) -> Any:
        from mce_notebook.frontends.actions import act
        from mce_notebook.sweep import open as open_sweep

        store = line.values.get("store") or self.store or None
        words = line.words or ("list",)
        verb = words[0]
        if verb == "list" and len(words) == 1:
            tell(act("list", "", store))
            return None
        if len(words) == 1 and verb not in VERBS:
            return open_sweep(verb, store)
        if verb not in VERBS or len(words) != 2:
            raise OptionError(f"Write %sweep VERB NAME, where VERB is one of {', '.join(VERBS)}. %sweep? explains.")
        tell(act(verb, words[1], store, line.axes, sure="yes" in line.flags))
        return None

    @no_var_expand
    @line_magic("cluster")  # type: ignore[arg-type]
    def cluster(self, line: str) -> None:
        """Say something to clusters, those of this machine and those of clusters.toml.

        %cluster                    what runs, and the profiles there are
        %cluster init               write a first clusters.toml from what the batch system has
        %cluster check NAME         what would be submitted, and whether it would be taken
        %cluster start NAME [N]     start it with N slots and wait until a task has run
        %cluster resize NAME N      keep N slots; 0 gives them back once they are idle
        %cluster nodes NAME         its jobs, and why they wait
        %cluster log NAME           what its host and its jobs said last
        %cluster attach NAME        take it over: that of another notebook, or what a dead host left
        %cluster reap [NAME]        what hosts that are gone left behind; --yes deletes it
        %cluster stop NAME [--yes]  end it; --yes also with sweeps running, which resume later
        """
        self._clean(lambda: self._cluster(parse(line, extra=("yes",))))

    def _cluster(self, line: Line) -> None:
        from mce_notebook.frontends.cluster_actions import act

        verb, name, count = (*line.words, "", "", "")[:3] if line.words else ("list", "", "")
        if len(line.words) > 3 or (count and not count.isdigit()):
            raise OptionError(
                "Write %cluster VERB NAME, and a number of slots for start and resize. %cluster? explains."
            )
        tell(act(verb, name, int(count) if count else None, sure="yes" in line.flags, say=tell))

    def _clean(self, action: Callable[[], Any]) -> Any:
        """Show errors raised on purpose as one message, and the user's own without our frames."""
        try:
            return action()
        except SweepError as error:
            shown = error_text(error, colour=True).splitlines()
            error._render_traceback_ = lambda: shown  # type: ignore[attr-defined]
            raise
        except Exception as error:
            lines = self._user_traceback(error)
            if lines is not None:
                error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
            raise

    def _user_traceback(self, error: BaseException) -> list[str] | None:
        trace = users_frames(error.__traceback__)
        if trace is None:
            return None
        return list(self._ip.InteractiveTB.structured_traceback(type(error), error, trace))


def unattended(shell: "InteractiveShell") -> bool:
    """Whether the notebook is executed from end to end (nbconvert, papermill, nbclient), with nobody to look later.

    Such clients say so with every request: they allow no input, since nobody is there to type it.
    """
    kernel = getattr(shell, "kernel", None)
    return kernel is not None and not getattr(kernel, "_allow_stdin", True)


def without_extension(namespace: dict[str, Any]) -> bool:
    """Whether a notebook runs where our extension cannot be: VS Code names its file, Colab brings a module."""
    return "__vsc_ipynb_file__" in namespace or "google.colab" in sys.modules


def notebook_path(namespace: dict[str, Any]) -> str:
    """Return the path of the notebook a kernel belongs to, as the server or VS Code told it; empty elsewhere."""
    told = namespace.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    return str(told) if str(told).endswith(".ipynb") else ""


def _bound(cell: str) -> set[str]:
    """Names the cell assigns."""
    try:
        tree = ast.parse(cell)
    except (SyntaxError, ValueError):
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


vars(SweepMagics)["cell"].__doc__ = help_text()

# The same options as a command, for documentation and completion.
sweep_options = click.Command("%%sweep", params=click_options(), help="Run the nested loops of a cell as a sweep.")


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Make `%%sweep` and `%sweep` known: `%load_ext mce_notebook`."""
    shell.register_magics(SweepMagics(shell))
    if not shell.custom_exceptions:
        # What `recovery.result()` raises is for people too; a handler of the user's own is left alone.
        show: Any = shell.set_custom_exc
        show((SweepError,), _show_error)


def _show_error(
    shell: Any, kind: type[SweepError], error: SweepError, trace: Any, tb_offset: int | None = None
) -> None:
    """Show an error raised on purpose: its message, and where in the user's own functions it came from."""
    frames = only_users_frames(trace)
    # Errors of the magics carry their text already; one frame is the line of the cell itself.
    if not hasattr(error, "_render_traceback_"):
        if frames is not None and frames.tb_next is not None:
            lines = list(shell.InteractiveTB.structured_traceback(kind, error, frames))
        else:
            lines = error_text(error, colour=True).splitlines()
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def unload_ipython_extension(shell: "InteractiveShell") -> None:
    """Take them away again."""
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop("sweep", None)
    shell.magics_manager.magics["line"].pop("cluster", None)
    sys.modules.pop(__name__, None)
