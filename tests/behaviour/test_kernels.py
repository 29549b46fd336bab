"""Sweeps from real kernels: restarts, reruns, edited code, and a kernel that stays free."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.timeout(300)


class Kernel:
    """An IPython kernel of its own, with the magics loaded."""

    def __init__(self, cwd: Path):
        self._manager = KernelManager(transport="ipc", ip=str(cwd / "kernel"))
        self._manager.start_kernel(cwd=str(cwd))
        self._client: BlockingKernelClient = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self.run("%load_ext mce_notebook\nimport numpy as np\nimport mce_notebook as mce")

    def run(self, code: str, *, status: str = "ok") -> str:
        """Execute a cell that ends well, or with an error; return what it printed, its result, or its traceback."""
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "execute_result":
                said.append(content["data"]["text/plain"])
            elif message["msg_type"] == "error":
                said.append("\n".join(content["traceback"]))

        reply = self._client.execute_interactive(code, timeout=120, output_hook=hear, allow_stdin=False)
        text = "".join(said)
        assert reply["content"]["status"] == status, text
        return text

    def value(self, expression: str) -> Any:
        """Evaluate an expression whose result is a literal."""
        return eval(self.run(f"print(repr({expression}))").strip().splitlines()[-1])

    def kill(self) -> None:
        """Kill it as a crash would."""
        self._manager.signal_kernel(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()


@pytest.fixture
def start(tmp_path: Path, root: Path) -> Iterator[Any]:
    """A function that starts kernels in one folder."""
    kernels: list[Kernel] = []

    def started() -> Kernel:
        kernels.append(Kernel(tmp_path))
        return kernels[-1]

    yield started
    for kernel in kernels:
        with contextlib.suppress(RuntimeError):
            kernel.close()


HELPERS = """
def leave(i):
    with open("calls.txt", "a") as file:
        file.write(f"{i}\\n")

def slow(i):
    import time
    leave(i)
    time.sleep(0.03)
    return i * 0.5
"""
CELL = """%%sweep halves
values = []
for i in range(150):
    values.append(slow(i))
"""


def test_a_restart_loses_nothing_and_rerunning_reattaches(start: Any, tmp_path: Path) -> None:
    first = start()
    first.run(HELPERS)
    first.run(CELL)
    time.sleep(1.0)
    first.kill()
    second = start()
    second.run(HELPERS)
    second.run(CELL)
    assert second.value("halves.result(timeout=100)['values'].values.tolist()") == [i * 0.5 for i in range(150)]
    assert second.value("halves.rows()") == [i * 0.5 for i in range(150)]
    calls = (tmp_path / "calls.txt").read_text().split()
    assert sorted(map(int, calls)) == list(range(150))
    second.run("del halves")
    assert "150" in second.run("print(mce.open('halves').progress.text())")


def test_what_is_no_change_computes_nothing(start: Any, tmp_path: Path) -> None:
    kernel = start()
    helpers = "def leaf(x):\n    return x + 1\n\ndef middle(x):\n    return leaf(x) * 2\n\nweights = np.arange(5.0)"
    kernel.run(helpers)
    cell = "%%sweep same\nout = []\nfor a in [1, 2, 3]:\n    out.append(middle(a) + weights.sum())\n"
    kernel.run(cell)
    kernel.run("same.result(timeout=60)")
    kernel.run("def leaf(x):\n    # a comment, and other spacing\n    return (x +  1)")
    kernel.run(cell.replace("out.append(", "out.append(  # why not\n        "))
    assert kernel.value("same.launched.todo") == 0
    kernel.close()
    again = start()
    again.run("weights = np.arange(5.0)")
    again.run("def middle(x):\n    '''A docstring.'''\n    return leaf(x) * 2\n\ndef leaf(x):\n    return x + 1")
    again.run(cell)
    assert again.value("same.launched.todo") == 0
    again.run("def leaf(x):\n    return x + 2")
    again.run(cell)
    assert again.value("same.launched.todo") == 3
    assert "leaf" in again.value("' '.join(same.launched.reasons)")
    again.run("same.result(timeout=60); weights[0] = 7.0")
    again.run(cell)
    assert again.value("same.launched.todo") == 3
    assert "weights" in again.value("' '.join(same.launched.reasons)")
    assert again.value("same.result(timeout=60).out.values.tolist()") == [23.0, 25.0, 27.0]


def test_an_edited_module_never_runs_stale_on_a_warm_host(start: Any, tmp_path: Path) -> None:
    module = tmp_path / "mylib.py"
    module.write_text("def f(x):\n    from otherlib import g\n    return g(x)\n")
    (tmp_path / "otherlib.py").write_text("def g(x):\n    return x + 1.0\n")
    kernel = start()
    kernel.run("import importlib, otherlib, mylib")
    cell = "%%sweep edited\nout = []\nfor a in [1, 2]:\n    out.append(mylib.f(a))\n"
    kernel.run(cell)
    assert kernel.value("edited.result(timeout=60).out.values.tolist()") == [2.0, 3.0]
    for offset in (5.0, 6.0, 7.0):
        # Same size, same second: what a stale .pyc would be taken for.
        (tmp_path / "otherlib.py").write_text(f"def g(x):\n    return x + {offset}\n")
        kernel.run("importlib.reload(otherlib); importlib.reload(mylib)")
        kernel.run(cell)
        assert kernel.value("edited.launched.todo") == 2
        assert kernel.value("edited.result(timeout=60).out.values.tolist()") == [1 + offset, 2 + offset]
    (tmp_path / "otherlib.py").write_text("def g(x):\n    return x + 9.0\n")
    said = kernel.run(cell.replace("[1, 2]", "[1, 2, 3]"), status="error")
    assert "edited but not reloaded" in said
    assert "Traceback" not in said


def test_the_kernel_stays_free(start: Any) -> None:
    """Loose on purpose: the figures are the benchmarks'."""
    kernel = start()
    kernel.run("def f(a, b):\n    return a * b + 1.0")
    kernel.run("%%sweep big\nr = []\nfor a in range(1000):\n    for b in range(1000):\n        r.append(f(a, b))\n")
    slowest = 0.0
    end = time.monotonic() + 3
    while time.monotonic() < end:
        begun = time.monotonic()
        assert kernel.value("1 + 1") == 2
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 3.0
    assert kernel.value("float(big.result(timeout=100).r.sel(a=999, b=999))") == 999 * 999 + 1.0
