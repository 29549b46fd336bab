import os

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCE_STORE", str(tmp_path / "experiments"))
    return tmp_path


class Notebook:
    """An IPython shell as a notebook sees it: cells run, what they show is caught."""

    def __init__(self, shell):
        self.shell = shell
        self.text = ""
        self.shown = []
        self.error = ""

    def run(self, cell):
        """Run a cell; False if it failed."""
        from IPython.utils.capture import capture_output

        with capture_output() as caught:
            result = self.shell.run_cell(cell)
        self.shown = [output.data for output in caught.outputs]
        self.text = caught.stdout
        self.error = ""
        failure = result.error_before_exec or result.error_in_exec
        if failure is not None:
            rendered = getattr(failure, "_render_traceback_", None)
            self.error = "\n".join(rendered()) if rendered else f"{type(failure).__name__}: {failure}"
        return failure is None

    def __getitem__(self, name):
        return self.shell.user_ns[name]

    def __contains__(self, name):
        return name in self.shell.user_ns


@pytest.fixture
def notebook(here):
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    InteractiveShell.clear_instance()
    os.environ.setdefault("IPYTHONDIR", str(here / ".ipython"))
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "mce_notebook")
    found = Notebook(shell)
    found.run("import numpy as np")
    yield found
    InteractiveShell.clear_instance()
