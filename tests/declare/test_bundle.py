"""Experiments leave this process as files and run in another one, as they were declared."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mce_notebook.declare import bundle, signing
from mce_notebook.declare.experiment import Experiment, from_function, from_nest
from mce_notebook.declare.grid import grid
from mce_notebook.declare.routine import Setup
from mce_notebook.errors import DeclarationError, UntrustedCode
from tests.declare.cells import nest, routine, run_cell

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import json, sys
from pathlib import Path
import numpy as np
from mce_notebook.declare import bundle
experiment, values = bundle.load(Path(sys.argv[1]), Path(sys.argv[2]))
compiled = experiment.compiled()
"""


class Written:
    """A store of one bundle."""

    def __init__(self, folder: Path) -> None:
        self.code = folder / "code"
        self.objects = folder / "objects"
        self.objects.mkdir(parents=True)
        self.writes = 0

    def write_object(self, content) -> str:
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        (self.objects / digest).write_bytes(content)
        self.writes += 1
        return digest

    def pack(self, experiment: Experiment, grid=None) -> bundle.Bundle:
        packed = bundle.pack(experiment, grid, self.write_object)
        for name, content in packed.files.items():
            path = self.code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return packed

    def run(self, code: str, cwd: Path) -> str:
        script = RUN + textwrap.dedent(code)
        done = subprocess.run(
            [sys.executable, "-c", script, str(self.code), str(self.objects)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "store")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], Path]:
    """Writes local modules that this process can import; they are forgotten afterwards."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return folder

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


PACKAGE = {
    "bundled/__init__.py": "from . import first\n",
    "bundled/first.py": """
        from . import second
        import bundled_solo
        CALLS = []
        def go(x):
            CALLS.append(x)
            return second.back(x) + bundled_solo.K
        def late(x):
            import bundled.third as third
            from bundled_other import plus
            return plus(third.value(x))
        class Model:
            def predict(self, x):
                return 10 * x
        """,
    "bundled/second.py": """
        from . import first
        def back(x):
            return first.Model().predict(x)
        """,
    "bundled/third.py": "def value(x):\n    return x + 1000\n",
    "bundled/data.json": '{"a": 1}',
    "bundled_solo.py": "K = 5\n",
    "bundled_other.py": "def plus(x):\n    return x + 0.5\n",
}


def test_local_modules_run_as_declared_whatever_happens_to_their_files(local, written: Written, tmp_path: Path) -> None:
    folder = local(PACKAGE)
    cell = """
    import bundled
    import bundled_solo
    from bundled.first import Model
    def point(n):
        return bundled.first.go(n), bundled.first.late(n), isinstance(bundled.first.Model(), Model)
    """
    experiment = from_function(run_cell(cell, {})["point"], ("n",), name="e")
    packed = written.pack(experiment)
    names = {name for name in packed.files if name.startswith("modules/")}
    assert names == {f"modules/{name}" for name in PACKAGE}
    for name in PACKAGE:
        (folder / name).write_text("raise RuntimeError('a later edit')\n")
    code = """
    print(compiled.point(2), compiled.point(3))
    import bundled.first, bundled.third
    print(bundled.first.CALLS, bundled.third.__file__)
    import inspect
    print(inspect.getsource(bundled.third.value).split()[-1])
    """
    lines = written.run(code, cwd=folder).splitlines()
    assert lines[0] == "(25, 1002.5, True) (35, 1003.5, True)"
    assert lines[1].startswith("[2, 3]")
    assert "store" in lines[1]
    assert lines[2] == "1000"
    assert not list((written.code).rglob("__pycache__"))


def test_an_edit_of_the_same_size_within_a_second_is_seen(local, tmp_path: Path) -> None:
    results = []
    for value in "123":
        folder = local({"samesize.py": f"def f(x):\n    return x + {value}\n"})
        sys.modules.pop("samesize", None)
        os.utime(folder / "samesize.py", (1_600_000_000, 1_600_000_000))
        store = Written(tmp_path / f"store{value}")
        namespace = run_cell("import samesize\ndef point(n):\n    return samesize.f(n)", {})
        store.pack(from_function(namespace["point"], ("n",)))
        results.append(store.run("print(compiled.point(0))", cwd=folder))
    assert results == ["1", "2", "3"]


def test_an_edited_module_that_was_not_reloaded_is_refused(local, written: Written) -> None:
    folder = local(
        {"unreloaded.py": "def f(x, k=1):\n    return x + k\nclass C:\n    def m(self):\n        return 1\n"}
    )
    namespace = run_cell("import unreloaded as u\ndef point(n):\n    return u.f(n) + u.C().m()", {})
    path = folder / "unreloaded.py"
    text = path.read_text()
    written.pack(from_function(namespace["point"], ("n",)))
    path.write_text("# a comment above\n\n" + text.replace("return x + k", "return (x + k)  # same"))
    written.pack(from_function(namespace["point"], ("n",)))
    for old, new in (("x + k", "x - k"), ("k=1", "k=2"), ("return 1", "return 2")):
        path.write_text(text.replace(old, new))
        with pytest.raises(DeclarationError, match=r"edited but not reloaded.*importlib\.reload"):
            written.pack(from_function(namespace["point"], ("n",)))
    path.write_text("def f(:\n")
    with pytest.raises(DeclarationError, match="no longer compiles"):
        written.pack(from_function(namespace["point"], ("n",)))
    path.unlink()
    with pytest.raises(DeclarationError, match="is gone"):
        written.pack(from_function(namespace["point"], ("n",)))


def test_values_set_in_memory_travel(local, written: Written, tmp_path: Path) -> None:
    text = """
        K = 1
        TABLE = {'a': 1}
        def f(x):
            return x + K + TABLE['a'] + helper(x)
        def helper(x):
            return 0
        """
    local({"patched.py": text})
    cell = """
    import patched
    patched.K = 50
    patched.TABLE["a"] = 600
    patched.EXTRA = 7000
    def replacement(x):
        return 80000
    patched.helper = replacement
    def point(n):
        return patched.f(n) + patched.EXTRA
    """
    written.pack(from_function(run_cell(cell, {})["point"], ("n",)))
    assert written.run("print(compiled.point(1))", cwd=tmp_path) == "87651"


def test_large_arrays_travel_once_and_are_mapped(written: Written, tmp_path: Path) -> None:
    big = np.arange(6_250_000, dtype=float)
    small = np.arange(10)

    def point(n):
        return big[n] + same[n] + small[n]

    same = big
    packed = written.pack(from_function(point, ("n",)))
    assert written.writes == 1
    assert len(packed.files["experiment.pickle"]) < 100_000
    assert sum(path.stat().st_size for path in written.objects.iterdir()) == big.nbytes
    code = """
    print(compiled.point(3))
    big = next(c.cell_contents for c in experiment.point.__closure__ if getattr(c.cell_contents, "size", 0) > 100)
    big[3] = 100
    print(compiled.point(3))
    import resource
    """
    before = [path.read_bytes() for path in written.objects.iterdir()]
    assert written.run(code, cwd=tmp_path).split() == ["9.0", "203.0"]
    assert [path.read_bytes() for path in written.objects.iterdir()] == before


def test_routines_setups_constants_and_mirrored_names(written: Written, tmp_path: Path) -> None:
    cell = """
    import numpy as np
    K = 10
    table = {"x": 1}
    def helper(v):
        table["x"] += 1
        return v + n
    def make(n):
        return np.full(3, n)
    """
    namespace = run_cell(cell, {})
    setup = Setup(1, routine("n", "A = make(n)\nreturn (A,)", "setup"), ("A",))
    loops = nest("n rho", "n, A, rho", "y = A.sum() * rho * K + helper(0)\nreturn y, table['x']", setups=(setup,))
    experiment = from_nest(loops, namespace, name="e")
    assert experiment.mirrored == ("n",)
    assert experiment.constants == {"K": 10}
    written.pack(experiment)
    code = """
    (A,) = compiled.setups[0](4)
    compiled.namespace["n"] = 100000
    print(compiled.point(4, A, 2), compiled.namespace["table"])
    try:
        compiled.point(4, None, 2)
    except AttributeError:
        import traceback
        print(traceback.format_exc())
    """
    lines = written.run(code, cwd=tmp_path).splitlines()
    # Helpers and routines share one namespace: what a helper changes, the point reads.
    assert lines[0] == "(np.int64(100240), 2) {'x': 2}"
    assert any("y = A.sum() * rho * K + helper(0)" in line for line in lines)


def test_things_that_pickle_badly(written: Written, tmp_path: Path) -> None:
    cell = """
    import functools, enum, dataclasses, random
    import mce_notebook as mce
    from numpy.random import normal
    import numpy as np
    @functools.lru_cache(maxsize=7)
    def cached(x):
        return x * 2
    class Color(enum.Enum):
        RED = 3
    @dataclasses.dataclass
    class P:
        a: int = 4
    class Base:
        def v(self): return 5
    class Child(Base):
        def v(self): return super().v() + 1
    def recursive(n):
        return n if n < 1 else recursive(n - 1)
    def draws():
        return random.gauss(0, 1), normal(), np.random.rand()
    def point(n):
        assert mce.__version__
        return cached(n) + Color.RED.value + P().a + Child().v() + recursive(3), draws()
    """
    written.pack(from_function(run_cell(cell, {})["point"], ("n",)))
    code = """
    import random
    def seeded():
        random.seed(1); np.random.seed(1)
        return compiled.point(1)
    one = seeded(); compiled.point(1)
    print(one[0], one == seeded())
    """
    assert written.run(code, cwd=tmp_path) == "15 True"


def test_object_values_travel(written: Written, tmp_path: Path) -> None:
    class Grid:
        def object_values(self):
            return {"solver": [np.sin, lambda x: x + 1]}

    def point(solver):
        return solver(1)

    one = written.pack(from_function(point, ("solver",)), Grid())
    assert written.run("print(values['solver'][1](4))", cwd=tmp_path) == "5"
    assert written.pack(from_function(point, ("solver",)), Grid()).key == one.key


def test_keys_repeat_and_tell_declarations_apart(written: Written) -> None:
    text = "K = 3\ndef point(n):\n    return n + K"
    keys = [written.pack(from_function(run_cell(text, {}, "<key>")["point"], ("n",), name="e")).key for _ in range(2)]
    assert keys[0] == keys[1]
    other = run_cell(text.replace("3", "4"), {}, "<key>")
    experiment = from_function(other["point"], ("n",), name="e")
    assert written.pack(experiment).key != keys[0]
    assert keys[0].startswith(experiment.version.hash)


def test_what_cannot_be_sent_is_named(written: Written, tmp_path: Path) -> None:
    namespace = run_cell("import threading\nlock = threading.Lock()\ndef point(n):\n    return lock", {})
    with pytest.raises(DeclarationError, match=r"`lock` cannot be sent to a worker"):
        written.pack(from_function(namespace["point"], ("n",)))


# ---- trust


def sample(written: Written) -> bundle.Bundle:
    def point(n):
        return n + 1

    return written.pack(from_function(point, ("n",)))


def refused(written: Written) -> None:
    with pytest.raises(UntrustedCode) as caught:
        bundle.load(written.code, written.objects)
    assert str(caught.value)


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def test_a_changed_pickle_is_never_read(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    sample(written)
    evil = pickle.dumps(Evil())
    (written.code / "experiment.pickle").write_bytes(evil)
    refused(written)
    # Nor when its digest in the manifest is changed with it.
    manifest = json.loads((written.code / "manifest.json").read_bytes())
    manifest["files"]["experiment.pickle"] = signing.file_digest(evil)
    (written.code / "manifest.json").write_text(json.dumps(manifest))
    refused(written)
    assert not (tmp_path / "evil").exists()


def test_every_bit_of_the_manifest_and_signature_counts(written: Written) -> None:
    sample(written)
    for name in ("manifest.json", "manifest.hmac"):
        content = (written.code / name).read_bytes()
        for position in range(0, len(content), 37):
            (written.code / name).write_bytes(
                content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
            )
            refused(written)
        (written.code / name).write_bytes(b"")
        refused(written)
        (written.code / name).unlink()
        refused(written)
        (written.code / name).write_bytes(content)


def test_another_user_is_not_trusted_until_told(written: Written, config: Path, tmp_path: Path) -> None:
    sample(written)
    (config / "signing.key").unlink()
    refused(written)
    bundle.trust(written.code, ask=lambda manifest: False)
    refused(written)
    bundle.trust(written.code)
    experiment, _ = bundle.load(written.code, written.objects)
    assert experiment.compiled().point(1) == 2
    (written.code / "experiment.pickle").write_bytes(b"other")
    with pytest.raises(UntrustedCode):
        bundle.trust(written.code)


def test_files_added_to_the_snapshot_are_not_imported(local, written: Written, tmp_path: Path) -> None:
    local({"spare/__init__.py": "", "spare/a.py": "def f(x):\n    from spare import planted\n    return x\n"})
    cell = "import spare.a\ndef point(n):\n    return spare.a.f(n)"
    with pytest.raises(ImportError):
        run_cell(cell, {})["point"](1)
    written.pack(from_function(run_cell(cell, {})["point"], ("n",)))
    (written.code / "modules" / "spare" / "planted.py").write_text("raise SystemExit('planted')")
    (written.code / "modules" / "numpy.py").write_text("raise SystemExit('planted')")
    code = """
    try:
        compiled.point(1)
    except ImportError as error:
        print(error)
    """
    assert "planted" in written.run(code, cwd=tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "modules/../../x", "a\\b"])
def test_a_manifest_cannot_name_files_elsewhere(written: Written, name: str) -> None:
    sample(written)
    manifest = json.loads((written.code / "manifest.json").read_bytes())
    manifest["files"][name] = "0" * 64
    (written.code / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UntrustedCode):
        bundle.trust(written.code)


def test_the_key_is_private_and_made_once(config: Path) -> None:
    key = signing.user_key()
    path = config / "signing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.user_key() == key
    assert [item.name for item in config.iterdir()] == ["signing.key"]
    path.chmod(0o644)
    with pytest.raises(UntrustedCode, match="chmod 600"):
        signing.user_key()
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(UntrustedCode, match="damaged"):
        signing.user_key()


def test_many_processes_agree_on_the_key(config: Path) -> None:
    code = "from mce_notebook.declare import signing; print(signing.user_key().hex())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


def test_another_python_is_refused_in_one_sentence(written: Written) -> None:
    sample(written)
    manifest = json.loads((written.code / "manifest.json").read_bytes())
    manifest["python"] = "3.9.1"
    (written.code / "manifest.json").write_text(json.dumps(manifest))
    bundle.trust(written.code)
    with pytest.raises(UntrustedCode, match=r"Python 3\.9\.1"):
        bundle.load(written.code, written.objects)


def test_a_buffer_of_another_size_is_refused(written: Written) -> None:
    big = np.zeros(200_000)

    def point(n):
        return big[n]

    written.pack(from_function(point, ("n",)))
    path = next(written.objects.iterdir())
    path.write_bytes(path.read_bytes()[:-8])
    refused(written)


def test_a_captured_array_with_one_bit_changed_is_refused(written: Written) -> None:
    big = np.zeros(200_000)

    def point(n):
        return big[n]

    written.pack(from_function(point, ("n",)))
    (path,) = written.objects.iterdir()
    content = bytearray(path.read_bytes())
    content[1_000_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UntrustedCode, match="is damaged"):
        bundle.load(written.code, written.objects)


def test_captured_arrays_are_verified_once_per_process(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    big = np.ones(200_000)

    def point(n):
        return big[n]

    written.pack(from_function(point, ("n",)))
    assert bundle.trusted(written.code, written.objects)
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: read.append(1) or digest(*given))
    for _ in range(3):
        bundle.load(written.code, written.objects, stay=False)
    assert len(read) == 1
    (path,) = written.objects.iterdir()
    path.unlink()
    # So that the cell, run again, writes it anew.
    assert not bundle.trusted(written.code, written.objects)
    with pytest.raises(UntrustedCode, match="run the cell again"):
        bundle.load(written.code, written.objects)


# ---- loading beside other code


def test_a_notebook_that_loads_an_old_bundle_keeps_its_own_modules(local, written: Written, tmp_path: Path) -> None:
    folder = local(
        {"beside.py": "def f(x):\n    import beside_lazy\n    return x + beside_lazy.K\n", "beside_lazy.py": "K = 1\n"}
    )
    namespace = run_cell("import beside\nbeside.EXTRA = 10\ndef point(n):\n    return beside.f(n) + beside.EXTRA", {})
    packed = written.pack(from_function(namespace["point"], ("n",), name="e"))
    del sys.modules["beside"]
    sys.modules.pop("beside_lazy", None)
    (folder / "beside.py").write_text("def f(x):\n    return -1\n")
    (folder / "beside_lazy.py").write_text("K = 99\n")
    importlib.invalidate_caches()
    finders = list(sys.meta_path)

    experiment, _ = bundle.load(written.code, written.objects, stay=False)
    assert sys.meta_path == finders
    import beside

    assert beside.f(5) == -1
    with bundle.active(experiment):
        assert experiment.compiled().point(5) == 16
    assert sys.modules["beside"] is beside
    assert beside.f(5) == -1
    # Packed again, as an extension does, it is still the code it was.
    again = Written(tmp_path / "again")
    repacked = again.pack(experiment)
    assert repacked.key == packed.key
    assert again.run("print(compiled.point(5))", cwd=folder) == "16"


def test_other_guards_are_another_bundle() -> None:
    """What is evaluated elsewhere is what the cell says now, not what it said when that version was declared first."""
    points = grid(a=[1, 2, 3])
    one, other = points.where(lambda a: a > 1), points.where(lambda a: a > 2)
    experiment = from_function(lambda a: a, ("a",), name="any", outputs=("y",))
    keys = [
        bundle.pack(experiment, each, lambda data: "").key
        for each in (points, one, other, points.where(lambda a: a > 1))
    ]
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]
