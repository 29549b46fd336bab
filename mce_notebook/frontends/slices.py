"""Slices through a dataset: widgets that choose an output, its axes and the labels of the others, and the picture."""

import base64
import html
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets

from mce_notebook.errors import SweepError
from mce_notebook.view.frames import Frame, frame, labels_of
from mce_notebook.view.plots import DatasetSource, Look, Source, SweepSource
from mce_notebook.view.questions import KINDS, Layout, Question, ask, outputs
from mce_notebook.view.scales import label_text
from mce_notebook.view.stills import png

if TYPE_CHECKING:
    import xarray as xr

    from mce_notebook.handle import Sweep

AUTOMATIC, NONE = "choose for me", "none"
# A running sweep is looked at again so often (seconds).
INTERVAL = 1.0
_WIDE = {"description_width": "5.5em"}


class Slices(ipywidgets.VBox):  # type: ignore[misc]
    """Slices through a dataset or a sweep.

    Parameters
    ----------
    source : Source
        See `source_of`; a sweep is followed while it runs.
    """

    def __init__(self, source: Source):
        self._source = source
        self._look: Look = self._source.look()
        self._quiet = False
        self._question: Question | None = None
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._choices = {
            name: ipywidgets.Dropdown(description=name, style=_WIDE, layout={"width": "auto"})
            for name in ("output", "x", "y", "colour", "kind")
        }
        self._sliders: dict[str, Any] = {}
        self._box = ipywidgets.VBox([], layout={"padding": "0 0 0 0"})
        self._picture = ipywidgets.HTML()
        self._note = ipywidgets.HTML()
        for widget in self._choices.values():
            widget.observe(self._chosen, "value")
        self._offer()
        side = ipywidgets.VBox([*self._choices.values(), self._box], layout={"width": "260px", "min_width": "220px"})
        right = ipywidgets.VBox([self._picture, self._note], layout={"flex": "1 1 420px", "min_width": "300px"})
        super().__init__([ipywidgets.HBox([side, right], layout={"flex_flow": "row wrap"})])
        self._draw(rebuild=True)
        if self._look.running:
            threading.Thread(target=self._follow, name="mce-slices", daemon=True).start()

    @property
    def frame(self) -> Frame:
        """What is drawn now."""
        question = ask(self._look.dataset, **self._request())
        return frame(
            self._look.dataset, question, self._at(question), running=self._look.running, heading=self._source.name
        )

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        super().close()

    def _offer(self) -> None:
        """Fill the lists with what there is."""
        dataset = self._look.dataset
        names = outputs(dataset)
        self._quiet = True
        try:
            self._options("output", names, names[0] if names else None)
            layout = Layout.of(dataset, names[0] if names else None)
            own = [str(dim) for dim in (dataset[names[0]].dims if names else ()) if dim not in layout.dims]
            axes = [*layout.axes, *own]
            self._options("x", [AUTOMATIC, *axes], AUTOMATIC)
            self._options("y", [AUTOMATIC, *axes], AUTOMATIC)
            self._options("colour", [AUTOMATIC, *axes], AUTOMATIC)
            self._options("kind", [AUTOMATIC, *KINDS], AUTOMATIC)
        finally:
            self._quiet = False

    def _options(self, name: str, options: list[str], default: str | None) -> None:
        widget = self._choices[name]
        before = widget.value
        widget.options = options
        widget.value = before if before in options else default

    def _request(self) -> dict[str, Any]:
        chosen = {name: widget.value for name, widget in self._choices.items()}
        found = {name: None if value == AUTOMATIC else value for name, value in chosen.items()}
        return {
            "value": found["output"],
            "x": found["x"],
            "y": found["y"],
            "by": found["colour"],
            "kind": found["kind"],
        }

    def _at(self, question: Question) -> dict[str, Any]:
        return {name: slider.value for name, slider in self._sliders.items() if name in question.selectors}

    def _chosen(self, _: Mapping[str, Any]) -> None:
        if not self._quiet:
            self._draw(rebuild=True)

    def _moved(self, _: Mapping[str, Any]) -> None:
        if not self._quiet:
            self._draw(rebuild=False)

    def _draw(self, *, rebuild: bool) -> None:
        with self._lock:
            try:
                if rebuild:
                    question = ask(self._look.dataset, **self._request())
                    self._selectors(question)
                found = self.frame
                image = base64.b64encode(png(found)).decode()
            except SweepError as error:
                self._note.value = f'<p style="margin:0.5em">{html.escape(str(error))}</p>'
                return
            alt = html.escape(" · ".join(part for part in (found.title, found.value_name, found.subtitle) if part))
            self._note.value = ""
            self._picture.value = f'<img style="max-width:100%" alt="{alt}" src="data:image/png;base64,{image}">'

    def _selectors(self, question: Question) -> None:
        """Make a slider for each axis that is neither drawn nor averaged."""
        self._quiet = True
        try:
            sliders = {}
            for name in question.selectors:
                labels = labels_of(self._look.dataset, question, name)
                options = _distinct([(label_text(label), label) for label in labels])
                slider = self._sliders.get(name)
                if slider is None or list(slider.options) != options:
                    slider = ipywidgets.SelectionSlider(
                        options=options,
                        description=name,
                        style=_WIDE,
                        continuous_update=False,
                        layout={"width": "auto"},
                    )
                    slider.observe(self._moved, "value")
                sliders[name] = slider
            self._sliders = sliders
            self._box.children = list(sliders.values())
        finally:
            self._quiet = False

    def _follow(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                look = self._source.look()
            except (SweepError, FileNotFoundError):
                return
            if look.text != self._look.text:
                before, self._look = self._look, look
                if outputs(before.dataset) != outputs(look.dataset) or before.dataset.sizes != look.dataset.sizes:
                    self._offer()
                self._draw(rebuild=True)
            if not look.running:
                return


def _distinct(options: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Labels that look alike when they are shortened are numbered: a slider needs them to differ."""
    seen: dict[str, int] = {}
    found = []
    for text, label in options:
        seen[text] = seen.get(text, 0) + 1
        found.append((text if seen[text] == 1 else f"{text} ({seen[text]})", label))
    return found


def source_of(subject: "xr.Dataset | xr.DataArray | Sweep") -> Source:
    """Return where slices of a sweep or a dataset are cut from.

    Raises
    ------
    SweepError
        If it is neither a sweep nor a dataset.
    """
    import xarray as xr

    from mce_notebook.handle import Sweep
    from mce_notebook.store.catalog import Store

    if isinstance(subject, Sweep):
        return SweepSource(Store(subject.folder.parent).sweep(subject.name))
    if isinstance(subject, xr.DataArray):
        subject = subject.to_dataset(name="value" if subject.name is None else subject.name)
    if isinstance(subject, xr.Dataset):
        return DatasetSource(subject, str(subject.attrs.get("sweep", "")))
    raise SweepError(
        f"`explore` takes a function, a sweep or an xarray.Dataset, and this is a {type(subject).__name__}."
    )
