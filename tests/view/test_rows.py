import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.errors import ViewError
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.rows import rows


def test_a_function_has_no_rows(lab):
    lab.declare(grid(n=[1, 2]))
    with pytest.raises(ViewError, match=r"recovery\.dataset"):
        rows(Snapshot(lab.sweep))
