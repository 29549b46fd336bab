"""A live picture in the output of a cell: Bokeh in the page that saw it made, an image everywhere else.

The saved notebook holds the image and a few kilobytes of JSON. The page that shows a picture within minutes of its
making brings it to life: it loads BokehJS from our server extension, never from the network, and connects it to the
kernel. A notebook that is opened later shows the image alone, since nothing would answer its selectors.
"""

import base64
import contextlib
import html
import json
import os
import re
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXEC_TYPE = "application/vnd.holoviews_exec.v0+json"
# A page may bring a picture to life so long after it was made (seconds); clocks of kernel and browser may differ.
FRESH = 900
_CONFIG = "jupyter_server_config.d/mce_notebook.json"
_lock = threading.RLock()

# Pictures are drawn on white paper, in dark themes too, where selectors would otherwise be white on white.
_PAPER = "background:#fff;color:#263238;color-scheme:light;overflow-x:auto;padding:4px;" + "".join(
    f"--{name}:{colour};"
    for name, colour in {
        "design-background-color": "#fff",
        "design-background-text-color": "#263238",
        "design-surface-color": "#eceff1",
        "design-surface-text-color": "#263238",
        "jp-ui-font-color0": "#263238",
        "jp-ui-font-color1": "#263238",
        "jp-layout-color0": "#fff",
        "jp-layout-color1": "#fff",
        "jp-border-color1": "#cfd8dc",
    }.items()
)
# Runs where the HTML of the output is shown.
_SCRIPT = """
(function () {
  const id = %(id)s, ref = %(ref)s;
  const known = (window.mcePlots = window.mcePlots || {});
  const box = document.getElementById(id);
  if (!box || (!known[id] && Math.abs(Date.now() / 1000 - %(made)s) > %(fresh)s)) return;
  function load(address) {
    return new Promise(function (resolve, reject) {
      const script = document.createElement('script');
      script.src = address;
      script.async = false;
      script.onload = resolve;
      script.onerror = function () { reject(new Error('cannot load ' + address)); };
      document.head.appendChild(script);
    });
  }
  function bokeh() {
    if (window.Bokeh && window.Bokeh.Panel) return Promise.resolve();
    if (!window.mceBokeh) {
      const config = document.getElementById('jupyter-config-data');
      const base = config ? JSON.parse(config.textContent).baseUrl || '/' : '/';
      window.mceBokeh = %(files)s.reduce(
        function (before, file) { return before.then(function () { return load(base + file); }); }, Promise.resolve());
      // A server that was not there yet is asked again by the next picture.
      window.mceBokeh.catch(function () { window.mceBokeh = undefined; });
    }
    return window.mceBokeh;
  }
  function unpacked() {
    const packed = Uint8Array.from(atob(box.querySelector('.mce-plot-code').textContent), one => one.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'))).json();
  }
  Promise.all([unpacked(), bokeh()]).then(function (found) {
    if (!box.isConnected || !(window.PyViz && window.PyViz.kernels && window.PyViz.kernels[ref])) return;
    let code = found[0].code;
    for (const [address, style] of found[0].styles) {
      code = code.split(address).join(URL.createObjectURL(new Blob([style], {type: 'text/css'})));
    }
    box.querySelector('.mce-plot-live').hidden = false;
    box.querySelector('.mce-plot-still').remove();
    known[id] = true;
    if (!window.PyViz.comm_manager) new Function(found[0].manager)();
    const script = document.createElement('script');
    script.textContent = code;
    box.appendChild(script);
  }).catch(function () {});
})();
"""


def bundle(view: Any, picture: bytes, alt: str, *, live: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the output of a cell.

    Parameters
    ----------
    view : panel.viewable.Viewable or None
        What becomes alive.
    picture : bytes
        PNG shown otherwise.
    alt : str
        What the picture shows, for those who do not see it.
    live : bool
        Whether there is a page that can bring it to life; else the image is all there is.

    Returns
    -------
    data, metadata : dict
    """
    image = base64.b64encode(picture).decode()
    if not live or view is None:
        return {"image/png": image, "text/plain": alt}, {"image/png": {"alt": alt}}
    data, metadata = _panel(view)
    source = f"data:image/png;base64,{image}"
    still = f'<img class="mce-plot-still" style="max-width:100%" alt="{html.escape(alt)}" src="{source}">'
    page = _page(data["text/html"], still, metadata[EXEC_TYPE]["id"])
    return {EXEC_TYPE: "", "text/html": page, "text/plain": alt}, metadata


def _page(markup: str, still: str, ref: str) -> str:
    body, _, script = markup.partition('<script type="application/javascript">')
    code = script.rpartition("</script>")[0]
    name = f"mce-plot-{uuid.uuid4().hex}"
    filled = _SCRIPT % {
        "id": json.dumps(name),
        "ref": json.dumps(ref),
        "made": round(time.time()),
        "fresh": FRESH,
        "files": json.dumps([f"mce_notebook/static/{file}" for file, _ in scripts()]),
    }
    # A tenth of the size, in every saved notebook.
    content = json.dumps({"code": code, "styles": _styles(code), "manager": _manager()}).encode()
    packed = base64.b64encode(zlib.compress(content, 9)).decode()
    return (
        f'<div id="{name}" style="{_PAPER}">{still}'
        f'<div class="mce-plot-live" hidden>{body}</div>'
        f'<script type="text/plain" class="mce-plot-code">{packed}</script></div><script>{filled}</script>'
    )


def scripts() -> list[tuple[str, Path]]:
    """Return the JavaScript that pictures need: name under `static/` of the server extension, and file, in order."""
    import bokeh
    import panel

    folder = Path(bokeh.__file__).parent / "server" / "static" / "js"
    names = ("bokeh", "bokeh-widgets", "bokeh-tables")
    found = [(f"bokeh-{bokeh.__version__}/{name}.min.js", folder / f"{name}.min.js") for name in names]
    bundled = Path(panel.__file__).parent / "dist" / "panel.min.js"
    return [*found, (f"panel-{panel.__version__}/panel.min.js", bundled)]


def _manager() -> str:
    """Return the script that connects pictures to the kernel, which Panel loads from a cell of its own otherwise."""
    from pyviz_comms import JupyterCommManager

    return str(JupyterCommManager.js_manager)


def _styles(code: str) -> list[tuple[str, str]]:
    """Style sheets that a document names by an address in the network, longest address first."""
    import panel
    from panel.io.resources import CDN_DIST

    folder = Path(panel.__file__).parent / "dist"
    found = []
    for address in sorted(
        set(re.findall(re.escape(CDN_DIST) + r"[\w./?=-]+\.css[\w.?=-]*", code)), key=len, reverse=True
    ):
        path = folder / address.removeprefix(CDN_DIST).split("?")[0]
        found.append((address, path.read_text(encoding="utf-8") if path.is_file() else ""))
    return found


def _panel(view: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    import panel

    with _loaded(), panel.config.set(console_output="disable", inline=False):
        data, metadata = view._repr_mimebundle_()
    return data, metadata


@contextlib.contextmanager
def _loaded() -> Iterator[None]:
    """Let Panel make output although nobody loaded its JavaScript in a cell: our page does."""
    from panel.config import panel_extension

    with _lock:
        before = panel_extension._loaded
        panel_extension._loaded = True
        try:
            yield
        finally:
            panel_extension._loaded = before


def connected(metadata: dict[str, Any]) -> bool:
    """Whether a page has opened the connection of a live picture."""
    from panel.io.state import state

    view = state._views.get(metadata.get(EXEC_TYPE, {}).get("id", ""))
    return view is not None and view[3] is not None and view[3]._comm is not None


def interactive() -> bool:
    """Whether the output of this kernel is looked at in JupyterLab or Notebook 7 by somebody.

    Notebooks that are executed from end to end, VS Code and Colab show images: they update there just as well, and
    nothing but an image would be left of the picture afterwards.
    """
    shell = _shell()
    kernel = getattr(shell, "kernel", None)
    if kernel is None or not getattr(kernel, "_allow_stdin", True):
        return False
    return not (any(name.startswith("VSCODE_") for name in os.environ) or "google.colab" in sys.modules)


def served() -> bool:
    """Whether our server extension is configured where Jupyter looks, so that pages can ask it for JavaScript."""
    from jupyter_core.paths import jupyter_config_path

    return any(Path(folder, _CONFIG).is_file() for folder in jupyter_config_path())


def inline_scripts() -> str:
    """HTML that carries the JavaScript itself, for servers without our extension: three megabytes, hence once."""
    texts = [path.read_text(encoding="utf-8").replace("</script", "<\\/script") for _, path in scripts()]
    return "".join(f"<script>{text}</script>" for text in texts)


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()
