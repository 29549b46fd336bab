"""Bokeh's and Panel's JavaScript from the installed packages, so that plots work without any other server."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from mce_notebook.frontends.server_handlers import RESOURCE

_BOKEH = ("bokeh.min.js", "bokeh-widgets.min.js", "bokeh-tables.min.js", "bokeh-gl.min.js", "bokeh-mathjax.min.js")
# The version is in the address, so whatever is kept under it never changes.
_YEAR = 365 * 24 * 3600


def scripts() -> dict[str, Path]:
    """Return the files that are served, by what stands behind `static/`."""
    found: dict[str, Path] = {}
    for package, folder, names in (("bokeh", "server/static/js", _BOKEH), ("panel", "dist", ("panel.min.js",))):
        home = _folder(package)
        if home is not None:
            files = {f"{package}-{_version(package)}/{name}": home / folder / name for name in names}
            found |= {name: path for name, path in files.items() if path.is_file()}
    return found


def _folder(package: str) -> Path | None:
    # Without importing them: Panel takes a second.
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


class ScriptHandler(APIHandler):
    """`static/<package>-<version>/<file>`: one of a fixed list of files, whatever the address says."""

    auth_resource = RESOURCE

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Send one file."""
        known: dict[str, Path] = self.settings["mce_notebook_scripts"]
        path = known.get(name)
        if path is None:
            raise web.HTTPError(404, "There is no such script.")
        data = await self.settings["mce_notebook"].read(path.read_bytes)
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", f"private, max-age={_YEAR}, immutable")
        await self.finish(data)

    def finish(self, *args: Any, **kwargs: Any) -> Any:
        """Keep our content type, which the base class would set to JSON."""
        return web.RequestHandler.finish(self, *args, **kwargs)
