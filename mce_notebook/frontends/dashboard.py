"""`mce.dashboard()`: every sweep and cluster of this user as widgets, and what can be done to them."""

import html
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ipywidgets

from mce_notebook.errors import SweepError
from mce_notebook.frontends import server_clusters
from mce_notebook.frontends.explore import LiveProgress
from mce_notebook.frontends.server_actions import perform
from mce_notebook.frontends.slices import Slices, source_of
from mce_notebook.store.layout import find_root
from mce_notebook.store.places import root_path
from mce_notebook.store.roots import remembered_roots
from mce_notebook.sweep import open as open_sweep
from mce_notebook.view.live import Feed
from mce_notebook.view.progress import duration

INTERVAL = 1.0
# More rows than this make a notebook slow; the rest is listed by name.
ROWS = 40
VERBS = {
    "cancel": ("Stop", "stop"),
    "pause": ("Pause", "pause"),
    "resume": ("Resume", "play"),
    "rerun-failed": ("Rerun failed", "repeat"),
    "rerun-stale": ("Rerun stale", "refresh"),
}
COLUMNS = "minmax(8em, 1.3fr) 6em minmax(9em, 1.5fr) 6em 8em minmax(17em, auto)"
BARS = (
    (("done", "skipped"), "var(--jp-success-color1, #388e3c)"),
    (("stale",), "var(--jp-warn-color1, #f57c00)"),
    (("failed", "killed", "timeout"), "var(--jp-error-color1, #d32f2f)"),
    (("running",), "var(--jp-brand-color1, #1976d2)"),
)
_QUIET = "color:var(--jp-ui-font-color2, #616161)"


def dashboard(store: str | Path | None = None) -> "Dashboard":
    """Show every sweep of the stores you opened, and every cluster that runs.

    Parameters
    ----------
    store : path, optional
        Only this store; by default all you opened, and `experiments` here or above.
    """
    return Dashboard(store)


class Dashboard(ipywidgets.VBox):  # type: ignore[misc]
    """Sweeps and clusters as widgets; `close` ends it.

    Parameters
    ----------
    store : path or None
    """

    def __init__(self, store: str | Path | None = None):
        self._stores = [root_path(store)] if store is not None else None
        self._feed = Feed(self._roots)
        self._rows: dict[str, _Row] = {}
        self._stop = threading.Event()
        self._sweeps = ipywidgets.GridBox(
            [],
            layout={
                "grid_template_columns": COLUMNS,
                "grid_gap": "2px 10px",
                "align_items": "center",
                "overflow": "auto hidden",
            },
        )
        self._more = ipywidgets.HTML()
        self._clusters = ipywidgets.VBox([])
        self._shown_clusters: list[dict[str, Any]] = []
        self._told = ipywidgets.HTML()
        self._detail = ipywidgets.VBox([])
        super().__init__(
            [
                _heading("Sweeps"),
                self._sweeps,
                self._more,
                self._told,
                _heading("Clusters"),
                self._clusters,
                self._detail,
            ]
        )
        self._refresh()
        self._thread = threading.Thread(target=self._follow, name="mce-dashboard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following and take the widgets away."""
        self._stop.set()
        self._feed.close()
        super().close()

    def _roots(self) -> Iterable[Path]:
        return self._stores if self._stores is not None else [*remembered_roots(), find_root()]

    def _follow(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._refresh()

    def _refresh(self) -> None:
        summaries = self._feed.sweeps()
        keys = [summary["key"] for summary in summaries[:ROWS]]
        new = [key for key in keys if key not in self._rows]
        for summary in summaries[:ROWS]:
            row = self._rows.get(summary["key"])
            if row is None:
                row = self._rows[summary["key"]] = _Row(summary["key"], self._act, self._open)
            row.show(summary)
        if new or len(keys) != len(self._rows) or not self._sweeps.children:
            self._rows = {key: self._rows[key] for key in keys}
            cells = [widget for key in keys for widget in self._rows[key].widgets]
            titles = ("name", "state", "progress", "failed", "left", "")
            head = [ipywidgets.HTML(f'<span style="{_QUIET}">{title}</span>') for title in titles]
            self._sweeps.children = [*head, *cells] if cells else [_quiet("No sweeps yet.")]
        rest = summaries[ROWS:]
        names = ", ".join(html.escape(str(summary["name"])) for summary in rest[:100])
        self._more.value = f'<span style="{_QUIET}">and {len(rest):,} older: {names}</span>' if rest else ""
        self._show_clusters()

    def _show_clusters(self) -> None:
        found = server_clusters.clusters()
        if found == self._shown_clusters and self._clusters.children:
            return
        self._shown_clusters = found
        self._clusters.children = [self._cluster(one) for one in found] or [_quiet("No cluster runs.")]

    def _cluster(self, told: dict[str, Any]) -> Any:
        workers = told["workers"]
        facts = [told["state"], f"{workers} worker{'' if workers == 1 else 's'}", *told["sweeps"][:5]]
        if told["message"]:
            facts.append(told["message"])
        text = html.escape(" · ".join(facts))
        label = ipywidgets.HTML(f'<b>{html.escape(told["name"])}</b> <span style="{_QUIET}">{text}</span>')
        button = _button("Stop", "stop", f"stop the cluster {told['name']}")
        button.on_click(lambda _: self._stop_cluster(told["key"], told["name"], button))
        return ipywidgets.HBox([label, button], layout={"align_items": "center", "grid_gap": "10px"})

    def _stop_cluster(self, key: str, name: str, button: Any) -> None:
        button.disabled = True

        def stop() -> None:
            try:
                server_clusters.stop(server_clusters.find(key))
                self._say(f"The cluster {name} has stopped.")
            except SweepError as error:
                self._say(str(error), bad=True)

        # Blocks that are under way may end first, which takes its time.
        threading.Thread(target=stop, name="mce-stop", daemon=True).start()
        self._say(f"The cluster {name} stops once its blocks are done.")

    def _act(self, key: str, verb: str) -> None:
        try:
            self._say(perform(self._feed.follower(key), verb))
        except SweepError as error:
            self._say(str(error), bad=True)
        self._refresh()

    def _open(self, key: str) -> None:
        try:
            folder = self._feed.follower(key).sweep.paths.folder
            handle = open_sweep(folder.name, folder.parent)
            failures = handle.failures
            parts = [_heading(handle.name), LiveProgress(handle), Slices(source_of(handle))]
            if failures:
                parts.append(ipywidgets.HTML(failures._repr_html_(), layout={"overflow": "auto"}))
        except (SweepError, FileNotFoundError) as error:
            self._say(str(error), bad=True)
            return
        for old in self._detail.children:
            old.close()
        self._detail.children = parts

    def _say(self, text: str, *, bad: bool = False) -> None:
        colour = "var(--jp-error-color1, #d32f2f)" if bad else "inherit"
        self._told.value = f'<span role="status" style="color:{colour}">{html.escape(text)}</span>'


class _Row:
    """The widgets of one sweep."""

    def __init__(self, key: str, act: Callable[[str, str], None], show: Callable[[str], None]):
        self._key, self._do = key, act
        self._name = ipywidgets.Button(layout={"width": "auto"}, tooltip="show it below")
        self._name.style.button_color = "transparent"
        self._name.on_click(lambda _: show(key))
        self._texts = {column: ipywidgets.HTML() for column in ("state", "bar", "failed", "left")}
        self._buttons = ipywidgets.HBox([], layout={"flex_flow": "row wrap"})
        self._verbs: list[str] | None = None
        self.widgets = [self._name, *self._texts.values(), self._buttons]

    def show(self, summary: dict[str, Any]) -> None:
        """Show how it is now."""
        name = str(summary["name"])
        if self._name.description != name:
            self._name.description, self._name.tooltip = name, f"show {name} below"
        counts = summary["counts"]
        failed = sum(counts[status] for status in ("failed", "killed", "timeout"))
        texts = {
            "state": html.escape(summary["state"]),
            "bar": _bar(summary),
            "failed": f'<span style="color:var(--jp-error-color1, #d32f2f)">{failed:,}</span>' if failed else "0",
            "left": html.escape(_left(summary)),
        }
        for column, text in texts.items():
            if self._texts[column].value != text:
                self._texts[column].value = text
        verbs = [verb for verb in summary["actions"] if verb in VERBS]
        if verbs != self._verbs:
            self._verbs = verbs
            self._buttons.children = [self._verb(verb, name) for verb in verbs]

    def _verb(self, verb: str, name: str) -> Any:
        text, icon = VERBS[verb]
        button = _button(text, icon, f"{text.lower()}: {name}")
        button.on_click(lambda _: self._do(self._key, verb))
        return button


def _bar(summary: dict[str, Any]) -> str:
    total, counts = max(summary["total"], 1), summary["counts"]
    parts = "".join(
        f'<span style="display:inline-block;height:100%;width:{100 * sum(counts[one] for one in names) / total:.2f}%;'
        f'background:{colour}"></span>'
        for names, colour in BARS
    )
    text = f"{summary['known']:,} of {summary['total']:,}"
    return (
        f'<div style="line-height:1.2"><div role="img" aria-label="{text} points known" style="height:6px;'
        "border-radius:3px;overflow:hidden;font-size:0;white-space:nowrap;"
        f'background:var(--jp-layout-color3, #bdbdbd)">{parts}</div><small style="{_QUIET}">{text}</small></div>'
    )


def _left(summary: dict[str, Any]) -> str:
    if summary["eta"] is not None:
        return f"{duration(summary['eta'][0])} to {duration(summary['eta'][1])}"
    return f"took {duration(summary['elapsed'])}" if summary["state"] == "done" and summary["elapsed"] else ""


def _button(text: str, icon: str, tooltip: str) -> Any:
    return ipywidgets.Button(description=text, icon=icon, tooltip=tooltip, layout={"width": "auto"})


def _heading(text: str) -> Any:
    return ipywidgets.HTML(f'<b style="font-size:1.1em">{html.escape(text)}</b>')


def _quiet(text: str) -> Any:
    return ipywidgets.HTML(f'<span style="{_QUIET}">{html.escape(text)}</span>')
