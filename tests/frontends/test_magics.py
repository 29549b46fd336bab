import re
import shutil
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mce_notebook.errors import NameConflict
from mce_notebook.frontends.magics import help_text, unattended

CELL = """%%sweep recovery --on inline
rows = []
for n in [10, 20, 30]:
    for k in range(4):
        if k == 3 and n > 10:
            raise ValueError("bad point")
        rows.append((n, k, n * k))
"""


def test_a_cell_becomes_a_sweep(notebook, here):
    assert notebook.run(CELL), notebook.error
    assert "axes n (3), k (4)" in notebook.text
    assert "12 points" in notebook.text
    handle = notebook["recovery"]
    assert handle.dataset.sizes == {"n": 3, "k": 4}
    assert len(handle.failures) == 2
    assert handle.rows() == [(n, k, n * k) for n in (10, 20, 30) for k in range(4) if k < 3 or n == 10]
    assert [path.name for path in (here / "experiments").iterdir() if not path.name.startswith(".")] == ["recovery"]


def test_running_it_again_computes_nothing(notebook):
    notebook.run(CELL)
    before = notebook["recovery"].outcomes.seconds.values.tolist()
    assert notebook.run(CELL), notebook.error
    assert notebook["recovery"].outcomes.seconds.values.tolist() == before
    assert notebook["recovery"].launched.todo == 0


def test_axes_on_the_line(notebook):
    cell = "%%sweep mse n=[1, 2] sigma=np.logspace(-2, 0, 3) --on inline\nvalue = n * sigma\nvalue"
    assert notebook.run(cell), notebook.error
    assert notebook["mse"].dataset.value.sel(n=2, sigma=1.0) == 2.0


def test_a_dry_run_leaves_nothing(notebook, here):
    assert notebook.run("%%sweep mse n=[1, 2, 3] --dry-run\nvalue = n ** 2\nvalue"), notebook.error
    assert "3 points: 3 new, 0 reused" in notebook.text
    assert "first: n=1" in notebook.text
    assert "of one core" in notebook.text
    assert "Nothing was started." in notebook.text
    assert "mse" not in notebook
    assert not (here / "experiments").exists()


def test_a_dry_run_tells_that_the_first_point_fails(notebook):
    assert notebook.run("%%sweep mse n=[0, 1] --dry-run\nvalue = 1 / n\nvalue"), notebook.error
    assert "the first point fails: ZeroDivisionError" in notebook.text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("%%sweep", "OptionError: The sweep needs a name"),
        ("%%sweep a b", "OptionError: A sweep has one name"),
        ("%%sweep s --onn local", "OptionError: There is no option --onn; did you mean --on?"),
        ("%%sweep s --timeout soon", "OptionError: --timeout is a time"),
        ("%%sweep list", "NameConflict: `list` is a built-in function"),
        ("%%sweep mine", "NameConflict: `mine` is a variable of yours (int)"),
        ("%%sweep value", "NameConflict: The cell itself uses `value`"),
        ("%%sweep ../x", "NameConflict"),
        ("%%sweep for", "NameConflict"),
        ("%%sweep 1x", "NameConflict"),
        ("%%sweep s n=[1,,2]", "OptionError: The values of axis n are no Python expression"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(notebook, here, line, told):
    notebook.run("mine = 5")
    assert not notebook.run(f"{line}\nfor i in range(3):\n    value = i\n    value")
    assert notebook.error.startswith(told)
    assert "Traceback" not in notebook.error
    assert "mce_notebook/" not in notebook.error
    assert notebook["mine"] == 5
    assert "s" not in notebook
    assert not (here / "experiments").exists()


def test_a_refused_loop_shows_its_line_and_diff(notebook, here):
    assert not notebook.run("%%sweep s\ntotal = 0\nfor i in range(3):\n    total = total + i")
    assert notebook.error.startswith("LoopError: line ")
    assert not (here / "experiments").exists()


def test_an_error_of_the_users_is_shown_without_our_frames(notebook):
    assert not notebook.run("%%sweep s\nlow = undefined_name + 1\nfor i in range(3):\n    y = i\n    y")
    assert "undefined_name" in notebook.error
    assert "calls.py" not in notebook.error
    assert "magics.py" not in notebook.error


def test_a_sweep_of_that_name_may_be_overwritten_another_may_not(notebook):
    notebook.run(CELL)
    notebook.run("other = recovery")
    assert not notebook.run(CELL.replace("sweep recovery", "sweep other"))
    assert notebook.error.startswith("NameConflict: `other` is a variable of yours (Sweep)")
    assert notebook.run(CELL), notebook.error


def test_the_tail_is_offered_and_not_run(notebook):
    offered = []
    notebook.shell.set_next_input = lambda text, replace=False: offered.append(text)
    notebook.run(CELL + "print('the tail ran', len(rows))\n")
    assert "the tail ran" not in notebook.text
    assert "next cell" in notebook.text
    (cell,) = offered
    assert cell == "recovery.result()\nrows = recovery.rows('rows')\nprint('the tail ran', len(rows))"
    assert notebook.run(cell), notebook.error
    assert "the tail ran 10" in notebook.text
    notebook.run(CELL + "print('the tail ran', len(rows))\n")
    assert len(offered) == 1, "offered once, not at every run"


def test_cells_may_hold_the_syntax_of_ipython(notebook):
    cell = "%%sweep s --on inline\n%precision 3\nout = []\nfor i in range(3):\n    out.append((i, i * 2))"
    assert notebook.run(cell), notebook.error
    assert notebook["s"].rows() == [(0, 0), (1, 2), (2, 4)]


def test_the_verbs(notebook):
    notebook.run(CELL)
    assert notebook.run("%sweep"), notebook.error
    assert notebook.text.splitlines()[1].split() == ["recovery", "done", "12", "100", "%", "2", "0"]
    assert notebook.run("%sweep status recovery")
    assert "recovery  done" in notebook.text
    assert notebook.run("%sweep errors recovery")
    assert "2 failures: ValueError: bad point 2" in notebook.text
    assert notebook.run("%sweep log recovery")
    assert "done" in notebook.text
    assert notebook.run("%sweep log recovery n=10 k=1"), notebook.error
    assert "printed nothing" in notebook.text
    assert not notebook.run("%sweep rm recovery")
    assert "with all its results; add --yes" in notebook.error
    assert notebook["recovery"].folder.is_dir()
    assert notebook.run("%sweep rm recovery --yes"), notebook.error
    notebook.run("%sweep list")
    assert "no sweeps here yet" in notebook.text


def test_verbs_with_mistakes(notebook):
    assert not notebook.run("%sweep status nothing")
    assert notebook.error.startswith("UnknownSweep: There is no sweep 'nothing'")
    assert not notebook.run("%sweep stop it")
    assert notebook.error.startswith("OptionError: Write %sweep VERB NAME")


def test_defaults_are_configured(notebook):
    notebook.shell.run_line_magic("config", "SweepMagics.on = 'inline'")
    assert notebook.run(CELL.replace(" --on inline", "")), notebook.error
    assert notebook["recovery"].launched.declaration.options["on"] == "inline"


def test_the_help_is_for_newcomers(notebook):
    text = help_text()
    assert text.count("%%sweep ") >= 4
    for option in ("--on", "--dry-run", "--timeout", "--max-failures", "--rerun"):
        assert option in text
    doc = notebook.shell.find_cell_magic("sweep").__doc__
    assert doc == text


def test_in_a_notebook_the_output_is_a_bundle(notebook, monkeypatch):
    monkeypatch.setattr(notebook.shell, "kernel", SimpleNamespace(_allow_stdin=True), raising=False)
    assert notebook.run(CELL), notebook.error
    (data,) = notebook.shown
    assert data["application/vnd.mce.sweep+json"]["name"] == "recovery"
    assert data["image/png"]
    assert "12 points" in data["text/plain"]


def test_the_live_view_follows_and_ends(notebook, monkeypatch):
    """A sweep that another process computes is followed until its end."""
    from mce_notebook.frontends.live import LiveView
    from mce_notebook.store.catalog import Store
    from mce_notebook.store.journal import claim_epoch
    from tests.view.test_progress import me

    notebook.run(CELL)
    handle = notebook["recovery"]
    store = Store(handle.folder.parent).sweep("recovery")
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data)

    def display(data, raw, display_id):
        shown.append(data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    epoch = claim_epoch(store.paths, me())
    store.add_intent("run", "me")
    store.beat(epoch, {"state": "running", "time": time.time(), "workers": 1})
    view = LiveView(handle)
    view.start()
    store.beat(epoch, {"state": "done", "time": time.time()})
    view.finish(30)
    assert "image/png" in shown[-1]
    assert "done" in shown[-1]["text/plain"]


def test_who_executes_from_end_to_end():
    assert unattended(SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=False)))
    assert not unattended(SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True)))
    assert not unattended(SimpleNamespace()), "a terminal"


def test_loading_is_light():
    heavy = {"dask", "xarray", "matplotlib", "hvplot", "pandas", "pyarrow"}
    code = (
        "import sys, IPython.core.interactiveshell; before = set(sys.modules); import mce_notebook.frontends.magics; "
        f"print(sorted({heavy!r} & (set(sys.modules) - before)))"
    )
    import subprocess

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_name_conflicts_are_declaration_errors():
    from mce_notebook.errors import DeclarationError

    assert issubclass(NameConflict, DeclarationError)


def test_what_costs_more_than_confirmed_is_refused(notebook, here):
    head = "%%sweep slow --on inline --confirm-above 1s\nimport time\n"
    cell = head + "for i in range(1000):\n    time.sleep(0.01)\n    y = i\n    y"
    assert not notebook.run(cell)
    assert "core-hours, above --confirm-above" in notebook.error
    assert not (here / "experiments").exists()


def test_errors_of_a_handle_are_one_message_too(notebook):
    notebook.run(CELL)
    assert not notebook.run("recovery.replay(n=11, k=1)")
    assert notebook.error.startswith("GridError: ")
    assert "handle.py" not in notebook.error
    notebook.run("def mine():\n    return recovery.replay(n=11, k=1)")
    assert not notebook.run("mine()")
    assert "in mine" in re.sub(r"\x1b\[[\d;]*m", "", notebook.error)
    assert "handle.py" not in notebook.error


def test_rows_give_dates_and_objects_back_as_the_loops_do(notebook):
    notebook.run("import datetime as dt, pandas as pd")
    loops = """
rows = []
for day in pd.date_range("2024-01-01", periods=2):
    for span in [dt.timedelta(days=1), dt.timedelta(hours=3)]:
        rows.append((day, span, day + span))
"""
    assert notebook.run("%%sweep dates --on inline" + loops), notebook.error
    assert notebook.run(loops), notebook.error
    found = notebook["dates"].rows()
    assert found == notebook["rows"]
    assert isinstance(found[0][2], np.datetime64)


def test_a_package_of_lazy_modules_is_used_in_a_point(notebook):
    notebook.run("import mce_notebook as mce")
    cell = """
rows = []
for x in [1, 2]:
    (mce.scratch() / "a.txt").write_text(str(x))
    rows.append(2 * x)
"""
    assert notebook.run("%%sweep files --on inline" + cell), notebook.error
    assert notebook["files"].rows() == [2, 4]
    assert [path.name for path in notebook["files"].artifacts(x=1)] == ["a.txt"]


def test_a_folder_that_was_deleted_is_told(notebook):
    notebook.run("%%sweep gone --on inline\nrows = []\nfor x in [1, 2]:\n    rows.append(2 * x)\n")
    shutil.rmtree(notebook["gone"].folder)
    assert "is not at" in repr(notebook["gone"])
    assert not notebook.run("gone.extend(x=[3])")
    assert "it was deleted, moved or renamed" in notebook.error


def test_a_folder_that_was_renamed_goes_on_under_its_new_name(notebook):
    notebook.run("%%sweep old --on inline\nrows = []\nfor x in [1, 2]:\n    rows.append(2 * x)\n")
    folder = notebook["old"].folder
    folder.rename(folder.with_name("new"))
    assert notebook.run("import mce_notebook as mce\nnew = mce.open('new')\nnew.extend(x=[3])"), notebook.error
    assert (notebook["new"].name, notebook["new"].rows()) == ("new", [2, 4, 6])


def test_points_that_are_not_there_cannot_be_run_again(notebook):
    notebook.run("%%sweep twice --on inline\nout = []\nfor x in [1, 2]:\n    out.append(2 * x)\n")
    assert not notebook.run("twice.rerun(x=9)")
    assert "no label 9" in notebook.error
    assert notebook["twice"].state == "done"
