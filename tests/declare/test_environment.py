"""What is known of the machine, and that asking costs little and never fails."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mce_notebook.declare import environment


def test_it_is_json_and_names_what_matters() -> None:
    found = environment.capture()
    assert json.loads(json.dumps(found)) == found
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["numpy"] == np.__version__
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["cpu"]
    assert found["hardware"]["memory"] > 1 << 28
    assert found["blas"]
    assert found["platform"]["system"]


def test_the_digest_ignores_order_and_sees_values() -> None:
    one = {"a": 1, "b": {"c": 2, "d": 3}}
    assert environment.digest(one) == environment.digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert environment.digest(one) != environment.digest({"a": 1, "b": {"c": 2, "d": 4}})
    assert environment.digest(environment.capture()) == environment.digest(environment.capture())


def test_git_is_asked_about_the_folder(tmp_path: Path) -> None:
    assert environment.capture(tmp_path)["git"] is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    found = environment.capture(tmp_path)["git"]
    assert found["commit"] == git("rev-parse", "HEAD")
    assert found["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert environment.capture(tmp_path)["git"]["dirty"] is True


def test_without_git_or_with_a_git_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.capture(tmp_path)["git"] is None
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    slow.chmod(0o755)
    begun = time.monotonic()
    assert environment.capture(tmp_path)["git"] is None
    assert time.monotonic() - begun < 20


def test_the_settings_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path))
    assert environment.config_folder() == tmp_path
    monkeypatch.delenv("MCE_CONFIG_DIR")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert environment.config_folder().name == "mce_notebook"
