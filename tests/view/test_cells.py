"""Every point of any grid is found again in the array, by its labels and nowhere else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.designs import latin_hypercube
from mce_notebook.declare.grid import grid, zipped
from mce_notebook.view.cells import cells_of

LABELS = st.one_of(
    st.lists(st.integers(-5, 5), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([0.1, 0.25, -2.0, 1e6]), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["a", "b", "ж"]), min_size=1, max_size=3, unique=True),
    st.lists(st.booleans(), min_size=1, max_size=2, unique=True),
)


@st.composite
def grids(draw):
    names = draw(st.permutations(["x", "y", "z"]))[: draw(st.integers(1, 3))]
    design = grid(**{name: draw(LABELS) for name in names})
    if draw(st.booleans()):
        size = draw(st.integers(1, 3))
        design = design * zipped(p=list(range(size)), q=draw(st.permutations(["r", "s", "t"]))[:size])
    if draw(st.booleans()):
        more = grid(**{name: draw(LABELS) for name in names})
        if "p" not in design.names:
            design = design + more
    return design


def check(design, mask):
    cells = cells_of(design, mask)
    listed = np.arange(design.size, dtype=np.int64)
    where = cells.of(listed)
    kept = np.ones(design.size, bool) if mask is None else mask
    assert (where[kept] >= 0).all()
    assert (where[~kept] == -1).all()
    chosen = where[kept]
    assert np.unique(chosen).size == chosen.size == cells.total
    codes = cells.codes(chosen)
    for place, index in enumerate(listed[kept].tolist()):
        point = design.point(index)
        for name, (code, labels) in codes.items():
            label = labels[code[place]]
            if name not in point:
                assert label == "" or label != label
            else:
                assert label == point[name] or str(label) == str(point[name])
    if cells.excluded is not None:
        assert np.array_equal(np.flatnonzero(~cells.excluded), np.sort(chosen))
    coordinates = cells.coordinates
    assert set(coordinates) == set(design.names)
    return cells


@settings(max_examples=150, deadline=None)
@given(grids(), st.data())
def test_every_point_has_a_cell_with_its_labels(design, data):
    mask = design.mask()
    if data.draw(st.booleans()):
        own = np.array(data.draw(st.lists(st.booleans(), min_size=design.size, max_size=design.size)))
        mask = own if mask is None else own & mask
    check(design, mask)


def test_random_designs_are_points():
    design = latin_hypercube(20, a=(0.0, 1.0), b=(10.0, 20.0))
    cells = check(design, design.mask())
    assert cells.dims == ("point",)
    assert cells.shape == (20,)


def test_random_designs_times_an_axis_are_points_too():
    design = latin_hypercube(20, a=(0.0, 1.0), b=(10.0, 20.0)) * grid(method=["p", "q"])
    cells = check(design, design.mask())
    assert cells.shape == (40,)


def test_a_full_product_needs_no_table_of_cells():
    design = grid(a=list(range(1000)), b=list(range(1000)))
    cells = cells_of(design, None)
    assert cells.positions is None
    assert cells.excluded is None
