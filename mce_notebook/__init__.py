"""A notebook cell becomes a durable, live, labelled dataset of a computational experiment.

Names are imported when first used: a kernel that only loads the magics must not pay for Dask or xarray.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mce_notebook.declare.designs import latin_hypercube, random_design, sobol, star
    from mce_notebook.declare.grid import grid, zipped
    from mce_notebook.declare.seeds import replicates
    from mce_notebook.frontends.dashboard import dashboard
    from mce_notebook.frontends.explore import explore
    from mce_notebook.frontends.magics import load_ipython_extension
    from mce_notebook.run.scratch import scratch
    from mce_notebook.sweep import Sweep, open, sweep

__version__ = "0.1.0"

__all__ = [
    "Sweep",
    "dashboard",
    "explore",
    "grid",
    "latin_hypercube",
    "load_ipython_extension",
    "open",
    "random_design",
    "replicates",
    "scratch",
    "sobol",
    "star",
    "sweep",
    "zipped",
]

_HOMES = {
    "Sweep": "mce_notebook.sweep",
    "dashboard": "mce_notebook.frontends.dashboard",
    "explore": "mce_notebook.frontends.explore",
    "grid": "mce_notebook.declare.grid",
    "latin_hypercube": "mce_notebook.declare.designs",
    "load_ipython_extension": "mce_notebook.frontends.magics",
    "open": "mce_notebook.sweep",
    "random_design": "mce_notebook.declare.designs",
    "replicates": "mce_notebook.declare.seeds",
    "scratch": "mce_notebook.run.scratch",
    "sobol": "mce_notebook.declare.designs",
    "star": "mce_notebook.declare.designs",
    "sweep": "mce_notebook.sweep",
    "zipped": "mce_notebook.declare.grid",
}


# What Jupyter and our own layers look for here; no public names.
_HOOKS = {
    "_jupyter_server_extension_points": "mce_notebook.frontends.server",
    # Behind `Sweep.widget`, which lies below the front ends.
    "_SweepWidget": "mce_notebook.frontends.widget",
}


class _CallableModule(ModuleType):
    """The module `mce_notebook.sweep`, which can be called like the function `sweep` inside it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.sweep(*args, **kwargs)

    @property
    def __signature__(self) -> Any:
        # Asked for by inspect.signature, hence by tab completion and `mce.sweep?`.
        import inspect

        return inspect.signature(self.sweep)


class _Package(ModuleType):
    """The package, which makes its submodule `sweep` callable the moment it is imported.

    Importing any submodule binds it as an attribute of its package, so `mce.sweep` becomes the module as
    soon as anything imports it, whatever was bound before. Binding the function again would make `mce.sweep`
    change its type with the order of imports, and hide the module from `import mce_notebook.sweep as module`.
    A callable module is the same object before and after, and serves both readings.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "sweep" and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "sweep":  # the callable module, see _Package
        return importlib.import_module("mce_notebook.sweep")
    home = _HOMES.get(name) or _HOOKS.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
