"""The Jupyter server extension: live views, actions and rewriting over REST and one websocket, all authenticated."""

from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp

from mce_notebook.frontends.server_handlers import (
    ActionsHandler,
    CellHandler,
    ClusterHandler,
    FailuresHandler,
    PointHandler,
    RewriteHandler,
    SweepHandler,
    SweepsHandler,
)
from mce_notebook.frontends.server_live import Live
from mce_notebook.frontends.server_socket import LiveSocket
from mce_notebook.frontends.server_static import ScriptHandler, scripts

# A key never leads to a path: it is looked up among the sweeps of the registered stores.
KEY = r"(?P<key>[A-Za-z0-9]{1,64}(?:~[0-9a-f]{8})?)"
ROUTES: tuple[tuple[str, type[Any]], ...] = (
    (r"api/sweeps", SweepsHandler),
    (rf"api/sweeps/{KEY}", SweepHandler),
    (rf"api/sweeps/{KEY}/failures", FailuresHandler),
    (rf"api/sweeps/{KEY}/cell", CellHandler),
    (rf"api/sweeps/{KEY}/points/(?P<index>[0-9]{{1,15}})", PointHandler),
    (rf"api/sweeps/{KEY}/actions", ActionsHandler),
    (r"api/clusters/(?P<key>[0-9a-f]{1,64})/stop", ClusterHandler),
    (r"api/rewrite", RewriteHandler),
    (r"api/live", LiveSocket),
    (r"static/(?P<name>[A-Za-z0-9._/-]{1,200})", ScriptHandler),
)


class MceExtension(ExtensionApp):
    """`mce_notebook` in a Jupyter server."""

    name = "mce_notebook"
    extension_url = "/lab"
    load_other_extensions = True

    def initialize_settings(self) -> None:
        """Make what all handlers share."""
        server: Any = self.serverapp
        self.settings["mce_notebook"] = Live(Path(server.root_dir), self.log)
        self.settings["mce_notebook_scripts"] = scripts()

    def initialize_handlers(self) -> None:
        """Add ours, each with the base URL the server adds itself."""
        self.handlers.extend((f"/mce_notebook/{route}", handler) for route, handler in ROUTES)

    async def stop_extension(self) -> None:
        """End what runs beside the requests."""
        await self.settings["mce_notebook"].close()


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "mce_notebook.frontends.server", "app": MceExtension}]
