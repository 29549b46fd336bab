import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import Grid, grid, zipped
from mce_notebook.declare.seeds import replicates
from mce_notebook.errors import GridError
from tests.declare.grids import listed_points, products


class Model:
    def __init__(self, alpha: float):
        self.alpha = alpha


@settings(deadline=None)
@given(products(3), st.data())
def test_index_inverts_points(design: Grid, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, design.size - 1))
    assert design.index(**listed_points(design)[index]) == index


def test_labels_match_as_people_mean_them() -> None:
    design = grid(
        rho=np.linspace(0.1, 0.9, 9), n=[100, 200], f=[abs, len], when=[dt.date(2020, 1, 1), dt.date(2021, 1, 1)]
    )
    assert design.point(design.index(rho=0.3, n=200.0, f="len", when="2021-01-01")) == {
        "rho": 0.30000000000000004,
        "n": 200,
        "f": "len",
        "when": np.datetime64("2021-01-01"),
    }
    assert design.index(rho=0.1, n=100, f=abs, when=dt.datetime.fromisoformat("2020-01-01")) == 0
    assert grid(a=[1, 2], b=[5]).index(a=2) == 1
    assert grid(a=[0.0, 1e-20]).index(a=1e-20) == 1
    assert grid(a=[True, False]).index(a=False) == 1
    assert grid(a=[1.0, np.nan]).index(a=np.nan) == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"rh": 1}, "no axis 'rh'; did you mean 'rho'"),
        ({"rho": 0.2, "n": 1, "kind": "b"}, "no label 1; the nearest is 10"),
        ({"rho": 0.21, "n": 10, "kind": "b"}, "no label 0.21; the nearest is 0.2"),
        ({"rho": 0.2, "n": 10, "kind": "be"}, "no label 'be'; did you mean 'b'"),
        ({"rho": "0.2", "n": 10, "kind": "b"}, "no label '0.2'; it has 0.1, 0.2"),
        ({"rho": True, "n": 10, "kind": "b"}, "no label True"),
        ({"rho": 0.2, "kind": "b"}, "Say which 'n' is meant; it has 2 values, such as 10, 20"),
        ({"rho": [0.2], "n": 10, "kind": "b"}, "no label"),
    ],
)
def test_labels_that_are_not_there(labels: dict, message: str) -> None:
    with pytest.raises(GridError, match=message) as caught:
        grid(rho=[0.1, 0.2], n=[10, 20], kind=["a", "b"]).index(**labels)
    assert "\n" not in str(caught.value)


def test_zipped_labels() -> None:
    design = zipped(a=[1, 1, 2], b=[5, 6, 6])
    assert design.index(a=1, b=6) == 1
    assert design.index(b=5) == 0
    with pytest.raises(GridError, match="a=1 is the label of 2 points; give b too"):
        design.index(a=1)
    with pytest.raises(GridError, match="No point has a=2, b=5"):
        design.index(a=2, b=5)


def test_index_looks_into_every_part() -> None:
    design = grid(a=[1]) + grid(a=[2], b=[3])
    assert design.index(a=2, b=3) == 1
    with pytest.raises(GridError, match="no label 9"):
        design.index(a=9)


# Extending


def test_extending_keeps_order_guards_and_types() -> None:
    design = grid(n=[1, 2], rho=[0.1, 0.2]).where("n < 4")
    longer = design.extended(n=[2, 4, 3])
    assert longer.parts[0].shape == (4, 2)
    assert longer.mask().tolist() == [True] * 4 + [False] * 2 + [True] * 2
    assert [type(value) for value, _ in longer.points()] == [int] * 8
    assert design.extended(n=[1]).size == design.size
    assert design.extended(rho=[0.1 * (1 + 1e-14)]).size == design.size


def test_extending_replicates_zips_and_objects() -> None:
    assert grid(a=[1], replicates=3).extended(replicates=5).size == 5
    assert grid(a=[1], replicates=3).extended(replicates=2).size == 3
    shared = grid(a=[1], replicates=replicates(3, shared="a")).extended(replicate=4)
    assert (shared.size, shared.shared) == (4, ("a",))
    assert list(zipped(a=[1, 2], b=[3, 4]).extended(a=[2, 5], b=[4, 6]).points()) == [(1, 3), (2, 4), (5, 6)]
    assert list(grid(f=[abs]).extended(f=[abs, len]).points()) == [(abs,), (len,)]
    assert list(grid(f={"x": abs}).extended(f={"y": len}).points()) == [(abs,), (len,)]
    assert list(grid(a=[1, None]).extended(a=["x"]).points()) == [(1,), (None,), ("x",)]
    with pytest.raises(GridError, match="'b' is missing"):
        zipped(a=[1], b=[2]).extended(a=[3])
    with pytest.raises(GridError, match="no axis 'nn' to extend; did you mean 'n'"):
        grid(n=[1]).extended(nn=[2])
    with pytest.raises(GridError, match="already has one of these labels"):
        grid(a=[1, None]).extended(a=["None"])
    assert grid(f={"x": Model(1.0)}).extended(f={"x": Model(2.0)}).size == 1
    bare = Grid.from_record(*grid(f=[Model(1.0)]).to_record())
    with pytest.raises(GridError, match="objects; extend it by running its cell"):
        bare.extended(f=[Model(2.0)])


def test_extended_grids_contain_the_old_points() -> None:
    design = grid(a=[3, 1], b=["x", None]) * zipped(c=[1, 2], d=[0.5, 1])
    longer = design.extended(a=[2], b=["y"], c=[3], d=[0.25])
    assert (longer.positions(design) >= 0).all()
    assert (longer.keys(longer.positions(design)) == design.keys(slice(None))).all()


# Snapping


def test_floats_become_the_labels_recorded_earlier() -> None:
    recorded = grid(rho=np.linspace(0.1, 0.9, 9))
    snapped = grid(rho=[0.3, 0.7, 0.35]).snap([recorded])
    assert recorded.positions(snapped).tolist() == [2, 6, -1]
    assert [value for (value,) in snapped.points()] == [0.30000000000000004, np.linspace(0.1, 0.9, 9)[6], 0.35]
    assert all(type(value) is float for (value,) in snapped.points())
    array = grid(rho=np.array([0.3, 0.7])).snap([recorded])
    assert all(type(value) is np.float64 for (value,) in array.points())


def test_snapping_leaves_the_rest_alone() -> None:
    design = grid(rho=[0.1, 0.1 + 1e-9], n=[1, 2], f=[abs, len])
    assert design.snap([]) is design
    assert design.snap([grid(other=[0.1])]) is design
    assert design.snap([design]) is design
    exact = grid(x=[0.3, 0.30000000000000004])
    assert exact.snap([grid(x=[0.3])]) is exact
    near = grid(x=[1 + 4e-16, 1 - 4e-16]).snap([grid(x=[1.0])])
    assert len({value for (value,) in near.points()}) == 2
    assert grid(x=[5.0 + 1e-15]).snap([grid(x=[5])]).index(x=5) == 0
    assert grid(x=[0.0]).snap([grid(x=[1e-300])]).point(0) == {"x": 0.0}


# Objects


def test_tokens_decide_what_objects_are() -> None:
    design = grid(f=[abs, len], n=[1, None])
    one = design.with_tokens(lambda value: b"one" + value.__name__.encode())
    two = design.with_tokens(lambda value: b"two" + value.__name__.encode())
    assert not (one.keys(slice(None)) == two.keys(slice(None))).all(axis=1).any()
    assert (one.positions(two) == -1).all()
    assert list(one.points()) == list(design.points())
    named = grid(f={"x": Model(1.0)})
    assert (named.keys(slice(None)) == grid(f={"x": Model(2.0)}).keys(slice(None))).all()
    assert not (named.with_tokens(lambda value: b"!").keys(slice(None)) == named.keys(slice(None))).all()
    assert grid(n=[1]).with_tokens(lambda value: b"").names == ("n",)


def test_objects_travel_apart() -> None:
    design = grid(f={"x": Model(1.0), "y": Model(2.0)}, n=[1, 2])
    bare = Grid.from_record(*design.to_record())
    with pytest.raises(GridError, match="values of axis 'f' are objects"):
        list(bare.points())
    assert bare.object_values() == {}
    whole = bare.with_object_values(design.object_values())
    assert list(whole.points()) == list(design.points())
    assert (whole.keys(slice(None)) == design.keys(slice(None))).all()
    with pytest.raises(GridError, match="2 labels but 1 values"):
        bare.with_object_values({"0/f": [1]})
