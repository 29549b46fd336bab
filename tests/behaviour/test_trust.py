"""Code that this user did not write is not run, and the sweep says so once instead of failing at every point."""

from pathlib import Path

import pytest

import mce_notebook as mce
import mce_notebook.handle  # before `start` is replaced, because a handle keeps the name it imported
from mce_notebook.errors import SweepStopped


def test_a_sweep_whose_code_was_changed_stops_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def square(n: int) -> float:
        return n * 1.0 * n

    with monkeypatch.context() as patched:
        patched.setattr("mce_notebook.launch.start", lambda *_, **__: None)
        run = mce.sweep(square, n=[1, 2, 3])
    for signature in (run.folder / "code").rglob("manifest.hmac"):
        signature.write_text("0" * 64)
    run.resume()
    with pytest.raises(SweepStopped, match="not signed by you"):
        run.result(timeout=60)
    assert run.progress.failed == 0
    # Running the cell again signs it again.
    run = mce.sweep(square, n=[1, 2, 3, 4])
    assert run.result(timeout=60).square.values.tolist() == [1, 4, 9, 16]
