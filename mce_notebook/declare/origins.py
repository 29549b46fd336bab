"""Where a module comes from: the user's own files, an installed distribution, Python, or this package."""

import functools
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_STDLIB = tuple({sysconfig.get_path(key) for key in ("stdlib", "platstdlib")})
_SITE = ("site-packages", "dist-packages")
_OURSELVES = __name__.partition(".")[0]
_ABSENT = "unknown"
# What IPython puts into a notebook's namespace; code that mentions it runs elsewhere without a notebook.
_NOTEBOOK = frozenset({"IPython", "ipykernel", "ipywidgets", "traitlets"})


@dataclass(frozen=True)
class Origin:
    """Source of a module.

    Parameters
    ----------
    kind : {"local", "standard", "installed", "notebook", "ourselves"}
        Local code is hashed and shipped, installed code is named with its version, the rest is neither.
    distribution, version : str
        Of installed modules.
    """

    kind: Literal["local", "standard", "installed", "notebook", "ourselves"]
    distribution: str = ""
    version: str = ""


_known: dict[str, Origin] = {}


def origin(module: str | None) -> Origin:
    """Tell where a module comes from, by the name of its root.

    Editable installs are local: their files change without their version changing.
    """
    root = (module or "builtins").partition(".")[0]
    known = _known.get(root)
    if known is None:
        known = _find(root)
        # A module that is not there yet may be written or installed while the notebook is open.
        if known.version != _ABSENT:
            _known[root] = known
    return known


def _find(root: str) -> Origin:
    if root == "__main__":
        return Origin("local")
    if root == _OURSELVES:
        return Origin("ourselves")
    if root in _NOTEBOOK:
        return Origin("notebook")
    if root in sys.stdlib_module_names or root in sys.builtin_module_names:
        return Origin("standard")
    place = root_place(root)
    if not place or any(part in place for part in _SITE):
        return _installed(root)
    return Origin("standard") if place.startswith(_STDLIB) else Origin("local")


def is_local(module: str | None) -> bool:
    """Whether a module is the user's own code: the notebook, a script, files beside them, an editable install."""
    return origin(module).kind == "local"


def root_place(root: str) -> str:
    """Path of a top-level module or package, empty when it has none."""
    spec = getattr(sys.modules.get(root), "__spec__", None)
    if spec is None:
        try:
            spec = importlib.util.find_spec(root)
        except (ImportError, ValueError):
            spec = None
    if spec is None:
        return getattr(sys.modules.get(root), "__file__", None) or ""
    if spec.origin and spec.origin not in ("built-in", "frozen", "namespace"):
        return spec.origin
    return next(iter(spec.submodule_search_locations or ()), "")


def _installed(root: str) -> Origin:
    try:
        return Origin("installed", root, importlib.metadata.version(root))
    except importlib.metadata.PackageNotFoundError:
        name = (_distributions().get(root) or [root])[0]
    try:
        return Origin("installed", name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Origin("installed", name, _ABSENT)


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    # 50 ms, hence only for modules whose distribution has another name.
    return importlib.metadata.packages_distributions()


# Distributions that never touch the global state of `random` or `numpy.random`, and parts of SciPy that may.
_QUIET = frozenset(
    {
        "numpy",
        "pyarrow",
        "xarray",
        "xxhash",
        "numba",
        "cloudpickle",
        "sympy",
        "mpmath",
        "h5py",
        "zarr",
        "tqdm",
        "joblib",
    }
)
_RANDOM_OPTIMISERS = ("_basinhopping", "_differentialevolution", "_dual_annealing", "_shgo")
_QUIET_SCIPY = frozenset(
    {
        "special",
        "integrate",
        "fft",
        "fftpack",
        "interpolate",
        "ndimage",
        "constants",
        "signal",
        "io",
        "linalg",
        "misc",
    }
)


def may_draw(module: str) -> bool:
    """Whether an installed module might draw from the global generators when nobody passes it one."""
    source = origin(module)
    if source.kind != "installed" or source.distribution in _QUIET:
        return False
    if source.distribution == "scipy":
        parts = module.split(".")
        if parts[1:2] == ["optimize"]:
            # Of the optimisers, only these are random; they draw from NumPy's global state.
            return len(parts) < 3 or parts[2] in _RANDOM_OPTIMISERS
        return len(parts) > 1 and parts[1] not in _QUIET_SCIPY and not parts[1].startswith("_lib")
    return True
