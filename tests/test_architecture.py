"""What holds the package together: public names, lazy imports, sizes, the map, import order."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mce_notebook as mce

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mce_notebook"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 500
HEAVY = (
    "dask",
    "distributed",
    "xarray",
    "hvplot",
    "holoviews",
    "pandas",
    "pyarrow",
    "scipy",
    "IPython",
    "matplotlib",
    "panel",
    "ipywidgets",
)

# A new public name is a decision: it is made here too.
PUBLIC = [
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


def run_python(code: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def module_name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


# Public names


def test_public_names_are_the_decided_ones() -> None:
    assert sorted(mce.__all__) == sorted(PUBLIC)
    assert set(mce._HOMES) == set(PUBLIC)


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.asname or alias.name: node.module
        for block in guarded
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == mce._HOMES


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there(name: str) -> None:
    value = getattr(mce, name)
    assert callable(value)
    assert name in dir(mce)


def test_nothing_else_is_public() -> None:
    found = run_python(
        "import types, mce_notebook as m\n"
        "[getattr(m, name) for name in m.__all__]\n"
        "print(*(n for n, v in vars(m).items() if n[0] != '_' and not isinstance(v, types.ModuleType)))"
    ).split()
    # `sweep` is a callable module, the others are what they are called; typing's names are not for users.
    assert sorted({*found, "sweep"} - {"TYPE_CHECKING", "Any", "ModuleType"}) == sorted(PUBLIC)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        _ = mce.swep


# `sweep` is a function's name and a module's


@pytest.mark.parametrize(
    "imports",
    [
        "import mce_notebook as mce; call = mce.sweep",
        "import mce_notebook as mce; import mce_notebook.sweep; call = mce.sweep",
        "import mce_notebook.sweep as call; import mce_notebook as mce",
        "from mce_notebook.sweep import Sweep; import mce_notebook as mce; call = mce.sweep",
        "import mce_notebook as mce; before = mce.sweep; import mce_notebook.sweep; call = mce.sweep; "
        "assert before is call",
    ],
)
def test_sweep_is_callable_whatever_was_imported_first(imports: str) -> None:
    code = (
        f"{imports}\n"
        "import inspect, sys\n"
        "module = sys.modules['mce_notebook.sweep']\n"
        "assert callable(call) and call.Sweep is mce.Sweep is module.Sweep\n"
        "assert inspect.signature(call) == inspect.signature(module.sweep)\n"
        "module.sweep = lambda *args, **kwargs: (args, kwargs)\n"
        "print(call(1, n=[2]))"
    )
    assert run_python(code).strip() == "((1,), {'n': [2]})"


# Imports


def test_import_is_lazy() -> None:
    loaded = set(run_python("import mce_notebook, sys; print(*sys.modules)").split())
    assert not loaded & set(HEAVY)


def test_listing_names_is_lazy() -> None:
    loaded = set(run_python("import mce_notebook, sys; dir(mce_notebook); print(*sys.modules)").split())
    assert not loaded & set(HEAVY)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    # The working folder comes first on the linter's path, so a copy is judged, not the installed package.
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "mce_notebook", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_point_down(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("planted", "line", "complaint"),
    [
        ("view/planted.py", "import mce_notebook.run.clusters", "imports point down only BROKEN"),
        ("run/planted.py", "from mce_notebook import view", "imports point down only BROKEN"),
        ("store/planted.py", "def f():\n    import mce_notebook.plan", "imports point down only BROKEN"),
        ("newcomer.py", "", "newcomer"),
        ("declare/planted.py", "def f():\n    import xarray", "notebooks BROKEN"),
    ],
)
def test_a_planted_import_is_found(copy: Path, planted: str, line: str, complaint: str) -> None:
    (copy / "mce_notebook" / planted).write_text(line + "\n")
    done = lint_imports(copy)
    assert done.returncode != 0
    assert complaint in done.stdout


# Sizes and the map


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_module_is_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_the_map_names_every_module() -> None:
    mapped = set(re.findall(r"`([a-z_/]+\.py)`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")))
    existing = {module_name(path) for path in MODULES if path.name != "__init__.py"}
    assert existing - mapped == set(), "modules missing from ARCHITECTURE.md"
    assert mapped - existing == set(), "ARCHITECTURE.md names modules that do not exist"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "no module docstring"


# What must not be committed

# A path into somebody's home or into the folder a check happened to run in means nothing to anyone else.
MACHINE_PATH = re.compile(rb"""(?<![\w.~$}-])/(?:home|Users|root|work)/[\w.-]+""")
# In two halves, so that this file passes its own check.
INDEX_HOST = re.compile(rb"(?:py" + rb"pi|python" + rb"hosted|npm" + rb"js|deb\.deb" + rb"ian)\.org")


def committed_text() -> list[tuple[str, bytes]]:
    found = [(path.relative_to(ROOT).as_posix(), path.read_bytes()) for path in tracked_files()]
    return [(name, text) for name, text in found if b"\0" not in text[:8192] and name != "tests/test_architecture.py"]


def test_no_machine_path_is_committed() -> None:
    hits = [(name, hit) for name, text in committed_text() for hit in MACHINE_PATH.findall(text)]
    assert hits == []


def test_the_machine_path_check_can_fail() -> None:
    assert MACHINE_PATH.search(b'open("/home/someone/data.csv")')
    assert MACHINE_PATH.search(b"see /" + b"work/tree")
    assert not MACHINE_PATH.search(b"experiments/root/work docs/work")


def test_no_registry_host_is_committed() -> None:
    assert [name for name, text in committed_text() if INDEX_HOST.search(text)] == []


def test_the_lock_installs_from_any_index() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    requirements = [line for line in lines if not line.startswith(" ")]
    assert requirements
    assert all(re.match(r"[a-z0-9][a-z0-9._-]*==\S+( ; .+)? \\$", line) for line in requirements)
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines if line[:1] == " ")


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "load_ipython_extension"])
def test_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(mce, name))
