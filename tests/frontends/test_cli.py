import click
import pytest
from click.testing import CliRunner

from mce_notebook.frontends.cli import main
from mce_notebook.frontends.line import FLAGS, OWN, VALUES, VERBS

SCRIPT = """
import numpy as np
print("preamble")
rows = []
for n in [10, 20, 30]:
    for k in range(4):
        if k == 3 and n > 10:
            raise ValueError("bad point")
        rows.append((n, k, n * k))
print("the tail")
"""


@pytest.fixture
def mce(here):
    def run(*words, fails=False):
        found = CliRunner().invoke(main, [str(word) for word in words])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert (found.exit_code != 0) == fails, found.output
        return found.output

    (here / "study.py").write_text(SCRIPT)
    return run


def test_a_script_becomes_a_sweep(mce):
    text = mce("run", "study.py", "--on", "inline")
    assert text.count("preamble") == 1
    assert "the tail" not in text
    assert "axes n (3), k (4)" in text
    assert "12 points" in text
    assert "2 failed" in text
    import mce_notebook

    assert mce_notebook.open("study").dataset.sizes == {"n": 3, "k": 4}


def test_the_verbs(mce):
    assert "no sweeps" in mce("list")
    mce("run", "study.py", "--on", "inline", "--name", "mine")
    assert mce("list").splitlines()[1].split()[:3] == ["mine", "done", "12"]
    assert "mine  done" in mce("status", "mine")
    assert "ValueError: bad point 2" in mce("errors", "mine")
    assert "done" in mce("log", "mine")
    assert "nothing" in mce("log", "mine", "n=10", "k=1")
    assert "sealed as" in mce("seal", "mine")
    assert "trusted" in mce("trust", "mine")
    assert "with all its results; add --yes" in mce("rm", "mine", fails=True)
    assert "deleted" in mce("rm", "mine", "--yes")
    assert "There is no sweep" in mce("status", "mine", fails=True)


def test_axes_after_the_script(mce, here):
    (here / "point.py").write_text("value = n * k\nvalue\n")
    mce("run", "point.py", "n=[1, 2]", "k=range(3)", "--on", "inline")
    import mce_notebook

    assert mce_notebook.open("point").dataset.value.sel(n=2, k=2) == 4


def test_a_dry_run(mce, here):
    assert "12 points: 12 new" in mce("run", "study.py", "--dry-run")
    assert not (here / "experiments").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "study.py", "--timeout", "soon"], "--timeout is a time"),
        (["run", "study.py", "word"], "is no axis"),
        (["run", "missing.py"], "missing.py"),
        (["run", "study.py", "--name", "../x"], "../x"),
        (["run", "study.py", "--onn", "x"], "--onn"),
        (["log", "study", "n=["], "never closed"),
    ],
)
def test_mistakes_are_one_message(mce, here, words, told):
    text = mce(*words, fails=True)
    assert told in text
    assert "Traceback" not in text
    assert not (here / "experiments").exists()


def test_a_file_that_is_no_text(mce, here):
    (here / "binary.py").write_bytes(b"\xff\xfe\x00x")
    assert "UTF-8" in mce("run", "binary.py", fails=True)


def test_every_command_explains_itself():
    for name, command in main.commands.items():
        assert command.help, name
        assert command.get_short_help_str(), name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"
    assert set(VERBS) | {"run"} <= set(main.commands)


def test_the_command_has_the_options_of_the_cell():
    given = {option.lstrip("-") for parameter in main.commands["run"].params for option in parameter.opts}
    assert set(VALUES) | set(OWN) | set(FLAGS) <= given | {"plot"}
