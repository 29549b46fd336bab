"""What leaves this repository: the wheel with the JupyterLab extension in it, its sources, and what Binder builds."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from scripts import try_binder

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / "binder"
# Programs of Node that a machine may have; where we build, there may be none of them.
NODE = {"node", "nodejs", "npm", "npx", "corepack", "yarn", "yarnpkg", "pnpm"}


def run(*words: str | Path, **options) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{words}: {(done.stdout + done.stderr)[-4000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def without_node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a machine on which Node was never installed."""
    folder = tmp_path_factory.mktemp("bin")
    for place in reversed(os.get_exec_path()):
        for program in Path(place).glob("*") if Path(place) != Path(sys.executable).parent else ():
            link = folder / program.name
            if program.name not in NODE:
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    assert not any(shutil.which(name, path=str(folder)) for name in NODE)
    hidden = ("SKIP_JUPYTER_BUILDER", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"PATH": str(folder)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "mce"
    run("git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), folder)
    return folder


# Binder


def test_binder_would_take_our_steps(tmp_path: Path) -> None:
    assert "FROM" in try_binder.image(ROOT)
    shutil.copytree(BINDER, tmp_path / "binder")
    (tmp_path / "binder/start").unlink()
    with pytest.raises(RuntimeError, match="binder/start"):
        try_binder.image(tmp_path)


def test_binder_takes_the_locked_environment_and_a_python_we_run_on() -> None:
    (requirement,) = [line for line in (BINDER / "requirements.txt").read_text().splitlines() if line[:1] != "#"]
    assert (BINDER / requirement.removeprefix("-r ")).resolve() == ROOT / "requirements.lock"
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    runtime = (BINDER / "runtime.txt").read_text().strip()
    assert runtime.removeprefix("python-") in SpecifierSet(wanted)


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_binder_scripts_run(name: str) -> None:
    assert run("git", "ls-files", "--stage", f"binder/{name}", cwd=ROOT).startswith("100755")
    run("bash", "-n", BINDER / name)


def test_start_becomes_what_it_is_given() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("MCE_CORES", "MCE_DEMO")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    script = 'echo "$MCE_CORES $MCE_DEMO $1"; exit 7'
    words = [BINDER / "start", "sh", "-c", script, "sh", "two  words"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert re.fullmatch(r"[12] reduced two  words\n", done.stdout), done
    told = run(*words[:3], 'echo "$MCE_CORES $MCE_DEMO"', env={**environment, "MCE_CORES": "5", "MCE_DEMO": ""})
    assert told == "5 \n"


@pytest.mark.parametrize(
    ("origin", "where"),
    [
        ("https://github.com/anna/paper.git", "gh/anna/paper"),
        ("git@github.com:anna/paper.git", "gh/anna/paper"),
        ("https://secret@github.com/anna/paper", "gh/anna/paper"),
        ("https://gitlab.com/group/sub/paper", "gl/group%2Fsub%2Fpaper"),
        ("https://git.example.org:8443/anna/paper.git/", "git/https%3A%2F%2Fgit.example.org%3A8443%2Fanna%2Fpaper"),
        ("ssh://git@git.example.org:22/anna/paper", "git/https%3A%2F%2Fgit.example.org%2Fanna%2Fpaper"),
    ],
)
def test_link(origin: str, where: str) -> None:
    opened = "?urlpath=lab%2Ftree%2Fnotebooks%2F01_phase_transition.ipynb"
    assert try_binder.link(origin) == f"https://mybinder.org/v2/{where}/HEAD{opened}"
    assert (ROOT / try_binder.NOTEBOOK).is_file()


@pytest.mark.parametrize("origin", ["", "../elsewhere", "/somewhere/mce", "file:///somewhere/mce", "https://", "a b"])
def test_no_link_to_what_is_not_public(origin: str) -> None:
    with pytest.raises(ValueError, match="public"):
        try_binder.link(origin)


def test_the_badge_leads_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    (target,) = re.findall(r"\[!\[Binder\]\(https://mybinder\.org/badge_logo\.svg\)\]\(([^)]+)\)", readme)
    assert (ROOT / target).is_file()


def test_memory_is_that_of_the_marked_processes() -> None:
    """Also of one that left the tree, and of no other."""
    mark = f"MCE_TEST_MARK={os.getpid()}"
    hold = "import sys; kept = b'x' * 60_000_000; print('up', flush=True); sys.stdin.read()"
    name, _, value = mark.partition("=")
    memory = try_binder.Memory(mark)
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, name: value},
        start_new_session=True,
    ) as one:
        assert one.stdout.readline() == b"up\n"
        memory.start()
        while not memory.peak:
            memory._over.wait(0.1)
        memory.stop()
        one.stdin.close()
    assert 60e6 < memory.peak < 120e6
    assert len(memory.parts) == 1


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_a_notebook_runs_as_on_binder(without_node: dict[str, str]) -> None:
    """Build the environment and the extension, open the notebook in a browser, stay below 2 GB."""
    told = run(sys.executable, "-m", "scripts.try_binder", cwd=ROOT, env=without_node)
    assert re.search(r"01_phase_transition\.ipynb: open after .* [2-9] live views", told), told
    assert re.search(r"memory    [01]\.\d\d GB at most, of 2 GB", told), told


# Distributions


@pytest.fixture(scope="module")
def distributions(clone: Path, without_node: dict[str, str]) -> Path:
    """Build both as a release does, the wheel from the source distribution, with no Node but the wheel's."""
    programs = {**without_node, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{without_node['PATH']}"}
    assert Path(shutil.which("node", path=programs["PATH"])).resolve().is_relative_to(Path(sys.prefix).resolve())
    run(sys.executable, "-m", "build", "--no-isolation", cwd=clone, env=programs)
    return clone / "dist"


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_what_is_in_the_distributions(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {one.filename: one.file_size for one in archive.infolist()}
    tops = {name.split("/")[0] for name in names}
    version = wheel.name.split("-")[1]
    assert tops == {"mce_notebook", f"mce_notebook-{version}.data", f"mce_notebook-{version}.dist-info"}
    data = f"mce_notebook-{version}.data/data/"
    lab = f"{data}share/jupyter/labextensions/mce-notebook/"
    assert {f"{lab}package.json", f"{lab}install.json", f"{lab}static/style.js"} <= names.keys()
    assert any(re.fullmatch(re.escape(lab) + r"static/remoteEntry\.\w+\.js", name) for name in names)
    assert any(name.startswith(f"{lab}schemas/") for name in names)
    assert f"{data}etc/jupyter/jupyter_server_config.d/mce_notebook.json" in names
    assert names["mce_notebook/frontends/static/widget.js"] > 10_000
    assert "mce_notebook/py.typed" in names
    assert not any(re.search(r"node_modules|__pycache__|\.(tsx?|map|ipynb)$|/tests?/", name) for name in names)
    assert not any(name.startswith("mce_notebook/labextension") for name in names), "carried twice"
    assert wheel.stat().st_size < 1_000_000

    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = [name.partition("/")[2] for name in archive.getnames()]
    assert {"pyproject.toml", "labextension/yarn.lock", "mce_notebook/labextension/package.json"} <= set(inside)
    assert not any(
        re.search(r"node_modules|\.yarn/|\.venv|tsbuildinfo|__pycache__|^labextension/lib|(^|/)tests/", n)
        for n in inside
    )
    assert sdist.stat().st_size < 3_000_000


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_wheel_in_a_fresh_environment(distributions: Path, without_node: dict[str, str], tmp_path: Path) -> None:
    fresh = tmp_path / "environment"
    run(sys.executable, "-m", "venv", fresh)
    environment = {**without_node, "PATH": f"{fresh / 'bin'}{os.pathsep}{without_node['PATH']}"}
    private = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    python, quiet = fresh / "bin/python", ("-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    run(python, *quiet, "--require-hashes", "-r", ROOT / "requirements.lock", env=environment)
    (wheel,) = distributions.glob("*.whl")
    run(python, *quiet, "--no-deps", wheel, env=environment)
    run(python, "-m", "pip", "check", env=environment)
    options = {"env": {**environment, **private}, "cwd": tmp_path}
    labs = run(fresh / "bin/jupyter", "labextension", "list", **options)
    assert re.search(r"mce-notebook v\S+ .*enabled.* .*OK.* \(python, mce_notebook\)", labs), labs
    servers = run(fresh / "bin/jupyter", "server", "extension", "list", **options)
    assert re.search(r"mce_notebook .*enabled", servers), servers
    assert re.search(r"mce_notebook \S+ .*OK", servers), servers
    told = run(
        python,
        "-c",
        "import mce_notebook, mce_notebook.frontends.widget as w; from pathlib import Path\n"
        "print(mce_notebook.__file__); print((Path(w.__file__).parent / 'static/widget.js').stat().st_size)",
        **options,
    )
    assert told.startswith(str(fresh))
    assert run(fresh / "bin/mce", "--version", **options)
