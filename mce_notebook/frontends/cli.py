"""`mce`: sweeps from a terminal, with the words of `%%sweep`."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from mce_notebook import __version__
from mce_notebook.errors import DeclarationError, SweepError
from mce_notebook.frontends.line import FLAGS, OWN, VALUES, VERBS, Line, click_options, parse

# A line of progress this often on a terminal, and this often where lines pile up (seconds).
REFRESH, RARELY = 0.5, 30.0

_STORE = click.option(
    "--store",
    metavar="FOLDER",
    help="Folder of the store, or a bucket (s3://lab/experiments); default: `experiments` here or above, or MCE_STORE.",
)
_NAME = click.argument("name")


class _Told(click.ClickException):
    """An error raised on purpose, as one message."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(self.message, file=file or sys.stderr)


@contextlib.contextmanager
def _clean() -> Iterator[None]:
    from mce_notebook.frontends.messages import error_text

    try:
        yield
    except SweepError as error:
        raise _Told(error_text(error)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mce")
def main() -> None:
    """Run nested loops as sweeps: in parallel, on disk, as labelled datasets.

    A script holds plain loops; `mce run` computes every combination once, keeps each outcome the moment it is known,
    and goes on where it was when you run it again:

    \b
        mce run study.py                    run the loops of study.py, watch them
          mce status study                    how far it is
        mce errors study                    which points failed, and where in the grid

    In Python, `mce_notebook.open("study").dataset` is the result, while it runs and after.
    """  # noqa: D301  click reads the escape


def _script_arguments(command: click.Command) -> click.Command:
    command.params += [option for option in click_options() if option.name != "plot"]
    return command


@_script_arguments
@main.command("run", context_settings={"ignore_unknown_options": False})
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("axes_of_line", metavar="[AXIS=VALUES]...", nargs=-1)
@click.option("--name", metavar="NAME", help="Name of the sweep; default: the name of the script.")
def run(script: Path, axes_of_line: tuple[str, ...], name: str | None, **given: Any) -> None:
    """Run the loops of a script as a sweep.

    The statements before the loops run once, here; each combination of the loops runs on the cluster. Watching ends
    with the sweep, or with Ctrl-C, which stops only the watching.

    \b
        mce run study.py
        mce run study.py --timeout 10m --max-failures 20%
        mce run one_point.py "n=[10, 100]" "sigma=np.logspace(-2, 0, 9)"
    """  # noqa: D301
    with _clean():
        line = _line(axes_of_line, given)
        handle = _declared(script, name or script.stem, line)
        if handle is not None:
            _watch(handle, wait=line.block is not False)


def _line(axes: tuple[str, ...], given: dict[str, Any]) -> Line:
    """Return what was asked for, as the line of a cell would have said it."""
    named = {word.replace("_", "-"): value for word, value in given.items()}
    values = {
        word: " ".join(value) if isinstance(value, tuple) else value
        for word, value in named.items()
        if word in VALUES or word in OWN
    }
    found = parse(" ".join(axes))
    if found.words or found.values or found.flags:
        raise DeclarationError(f"{' '.join(axes)!r} is no axis; write for example n=[1,2,3] after the script.")
    flags = frozenset(word for word, value in named.items() if word in FLAGS and value)
    return Line((), {word: value for word, value in values.items() if value}, flags, found.axes)


def _declared(script: Path, name: str, line: Line) -> Any:
    from mce_notebook.frontends.actions import dry_run
    from mce_notebook.frontends.messages import launch_text
    from mce_notebook.sweep import declare_cell

    words: dict[str, Any] = {
        "line_axes": line.axes or None,
        "axes": line.chosen_axes,
        "store": line.values.get("store"),
        "kind": "script",
        "notebook": str(script.absolute()),
        "adopt": "adopt" in line.flags,
        "replace": "replace" in line.flags,
    }
    text = _text(script)
    # As `python script.py` would have it: its folder first on the path, its name, the main module.
    sys.path.insert(0, str(script.absolute().parent))
    namespace = {"__name__": "__main__", "__file__": str(script.absolute()), "__builtins__": __builtins__}
    options = line.options({})
    if "dry-run" in line.flags:
        click.echo(dry_run(name, text, namespace, options, **words))
        return None
    handle = declare_cell(name, text, namespace, options, **words)
    launched = handle.launched
    if launched is not None:
        click.echo(launch_text(launched))
        if launched.declaration.tail.strip():
            click.echo("The statements after the loops were not run: they need the results, which are in")
            click.echo(f"`mce_notebook.open({name!r}).result()`.")
    return handle


def _text(script: Path) -> str:
    try:
        return script.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DeclarationError(f"{script} is no text in UTF-8; save it as such.") from None


def _watch(handle: Any, *, wait: bool) -> None:
    """Show progress until the sweep ends."""
    line = _Line(sys.stdout.isatty())
    if not wait:
        line.last(handle.progress.text())
        return
    try:
        while True:
            try:
                progress = handle.wait(REFRESH)
            except TimeoutError:
                line.show(handle.progress.text())
                continue
            line.last(progress.text())
            break
    except KeyboardInterrupt:
        line.last(f"Only the watching stopped: {handle.name} goes on. `mce cancel {handle.name}` stops it.")
        return
    if progress.state != "done":
        raise click.exceptions.Exit(1)


class _Line:
    """A line rewritten in place on a terminal, and written now and then where lines pile up."""

    def __init__(self, terminal: bool):
        self._terminal = terminal
        self._shown = ""
        self._time = -RARELY

    def show(self, text: str) -> None:
        first, now = text.splitlines()[0], time.monotonic()
        if self._terminal:
            click.echo(f"\r\x1b[K{first}", nl=False)
        elif text != self._shown and now - self._time >= RARELY:
            click.echo(text)
            self._time = now
        self._shown = text

    def last(self, text: str) -> None:
        click.echo(("\r\x1b[K" if self._terminal and self._shown else "") + text)


def _verb(verb: str, help_text: str) -> Callable[..., None]:
    @main.command(verb, help=help_text, short_help=VERBS[verb])
    @_NAME
    @_STORE
    def command(name: str, store: str | None) -> None:
        from mce_notebook.frontends.actions import act

        with _clean():
            click.echo(act(verb, name, store))

    return command


@main.command("list", short_help=VERBS["list"])
@_STORE
def list_sweeps(store: str | None) -> None:
    """List all sweeps of the store, how far they are and how many points failed."""
    from mce_notebook.frontends.actions import act

    with _clean():
        click.echo(act("list", "", store))


@main.command("log", short_help=VERBS["log"])
@_NAME
@click.argument("labels", metavar="[AXIS=LABEL]...", nargs=-1)
@_STORE
def log(name: str, labels: tuple[str, ...], store: str | None) -> None:
    """Show what happened to a sweep, or what one point printed.

    \b
        mce log study               what happened to it
        mce log study n=100 k=3     what the point at n=100, k=3 printed
    """  # noqa: D301
    from mce_notebook.frontends.actions import act

    with _clean():
        click.echo(act("log", name, store, parse(" ".join(labels)).axes))


for _word, _meaning in (
    ("status", "Show how far a sweep is: points done, rate, time left, failures by cause."),
    ("errors", "Show the failures of a sweep: causes, the regions of the grid they fill, the first ones."),
    ("cancel", "Stop a sweep within two seconds; what is done is kept."),
    ("pause", "Let what is under way finish, then wait for `mce resume`."),
    ("resume", "Go on with a sweep that was paused, cancelled, stopped or interrupted."),
    ("seal", "Freeze a finished sweep as a Zarr folder with checksums, named by its content."),
    ("trust", "Accept the code in the folder of a sweep as if you had written it."),
):
    _verb(_word, _meaning)


@main.command("host", short_help="run what others want of this machine through a bucket")
@click.argument("profile")
@click.option("--store", metavar="ADDRESS", required=True, help="Bucket of the store, as s3://my-bucket/experiments.")
@click.option("--idle", metavar="TIME", help="End after so long without work; default: idle_timeout of the profile.")
@click.option("--trust", is_flag=True, help="Run code of everybody who can write to the bucket, not only your own.")
def host(profile: str, store: str, idle: str | None, trust: bool) -> None:
    """Drive sweeps on this machine that were asked for elsewhere, with a bucket in common and nothing else.

    The profile says host = "vm" there and here. Requests, orders, code and outcomes are in the bucket, so that whoever
    asked can close the laptop. Ends when there is nothing to do for a while, or on SIGTERM; what is left over then is
    done by the next one.
    """
    from mce_notebook.declare.options import Options
    from mce_notebook.run.station import Station

    with _clean():
        seconds = None if idle is None else Options.parse(timeout=idle).timeout
        Station(profile, store, idle=seconds, trust=trust, say=click.echo).run()


@main.group("clusters", short_help="clusters: start, stop, look after")
def clusters() -> None:
    """Start, stop and look after clusters: those of this machine and those of clusters.toml.

    \b
        mce clusters init              a first clusters.toml, from what the batch system has
        mce clusters check slurm       what would be submitted, and whether it would be taken
        mce clusters list              what runs
    """  # noqa: D301


def _cluster_verb(verb: str, help_text: str, arguments: tuple[str, ...]) -> None:
    from mce_notebook.frontends.cluster_actions import VERBS as MEANINGS

    def command(name: str = "", workers: int | None = None, yes: bool = False) -> None:
        from mce_notebook.frontends.cluster_actions import act

        with _clean():
            click.echo(act(verb, name, workers, sure=yes, say=click.echo))

    made = clusters.command(verb, help=help_text, short_help=MEANINGS[verb])(command)
    if "[name]" in arguments:
        made.params.append(click.Argument(["name"], required=False, default=""))
    if "name" in arguments:
        made.params.append(click.Argument(["name"]))
    if "workers" in arguments:
        made.params.append(click.Argument(["workers"], type=int, metavar="SLOTS"))
    if "[workers]" in arguments:
        made.params.append(click.Argument(["workers"], type=int, metavar="[SLOTS]", required=False))
    if "yes" in arguments:
        made.params.append(click.Option(["--yes"], is_flag=True, help=YES[verb]))


YES = {"stop": "Also with sweeps running; they resume later.", "reap": "Delete what was found."}
for _word, _meaning, _arguments in (
    ("list", "List the clusters that run, and the profiles there are.", ()),
    ("start", "Start a cluster and wait until a task has run on it.", ("name", "[workers]")),
    ("stop", "End a cluster and cancel its jobs; what is done is kept.", ("name", "yes")),
    ("nodes", "List the jobs of a cluster: state, why they wait, slots.", ("name",)),
    ("resize", "Keep so many slots, no fewer and no more; 0 gives them back once they are idle.", ("name", "workers")),
    ("attach", "Take over a cluster: that of another notebook, or what a dead host left.", ("name",)),
    ("reap", "List what hosts that are gone left behind, of one cluster or all; --yes deletes it.", ("[name]", "yes")),
    ("log", "Show what the host of a cluster and its jobs said last.", ("name",)),
    ("check", "Show what a profile would submit, and whether it would be taken.", ("name",)),
    ("init", "Write a first clusters.toml from what the batch system here has.", ()),
):
    _cluster_verb(_word, _meaning, _arguments)


@main.command("rm", short_help=VERBS["rm"])
@_NAME
@_STORE
@click.option("--yes", is_flag=True, help="Really; without it nothing is deleted.")
def remove(name: str, store: str | None, yes: bool) -> None:
    """Delete a sweep with all its results."""
    from mce_notebook.frontends.actions import act

    with _clean():
        click.echo(act("rm", name, store, sure=yes))
