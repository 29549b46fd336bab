import pytest

from mce_notebook.declare.grid import grid
from mce_notebook.declare.subsets import check_labels, selected
from mce_notebook.errors import GridError


def test_labels_of_one_part_of_a_joined_grid():
    both = grid(n=[1, 2], m=["a"]) + grid(n=[400], m=["a", "b"])
    assert selected(both, {"n": [400]}).tolist() == [False, False, True, True]
    assert selected(both, {"n": [1, 400], "m": ["a"]}).tolist() == [True, False, True, False]
    check_labels(both, {"n": [1, 400]})


def test_what_is_not_there_selects_nothing():
    assert not selected(grid(n=[1, 2]), {"n": [7]}).any()
    assert not selected(grid(n=[1, 2]), {"m": [1]}).any()


def test_a_label_of_no_part_is_refused():
    both = grid(n=[1, 2]) + grid(n=[400])
    with pytest.raises(GridError, match="no label 7"):
        check_labels(both, {"n": [1, 7]})
    with pytest.raises(GridError, match="no axis 'm'"):
        check_labels(both, {"m": [1]})
    diagonal = grid(n=[1], m=[1]) + grid(n=[2], m=[2])
    with pytest.raises(GridError, match="No point has"):
        check_labels(diagonal, {"n": [1], "m": [2]})
