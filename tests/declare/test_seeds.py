import gc
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.grid import grid
from mce_notebook.declare.seeds import Stream, replicates, root_seed, setup_key, stream_keys
from mce_notebook.errors import GridError

KEYS = grid(a=range(50), b=["x", "y"]).keys(slice(None))


def test_roots() -> None:
    assert root_seed("Recovery") == root_seed("recovery") != root_seed("other")
    assert root_seed("a", 1) == root_seed("b", np.int64(1)) != root_seed("a", 2)
    assert 0 <= root_seed("a") < 2**128
    assert root_seed("a", 0) != root_seed("a")
    # Seeds are promised for ever: this number is part of the format.
    assert root_seed("recovery") == 320194199886266468656036708207362670299
    for bad in (-1, 1.5, True, "1"):
        with pytest.raises(GridError, match="whole number, zero or more"):
            root_seed("a", bad)


def test_streams_are_those_of_fresh_generators_whatever_came_before() -> None:
    rows = stream_keys(KEYS, root_seed("x"))
    stream = Stream()
    expected = [np.random.Generator(np.random.Philox(key=row)).normal(size=3).tolist() for row in rows]
    for position in [3, 1, 99, 3, 0]:
        generator = stream.generator(rows[position], fresh=False)
        assert generator.normal(size=3).tolist() == expected[position]
        generator.integers(0, 10, size=3, dtype=np.uint32)
    kept = stream.generator(rows[5], fresh=True)
    stream.generator(rows[6], fresh=False).random(10)
    assert kept.normal(size=3).tolist() == expected[5]


@pytest.mark.parametrize("known", [True, False])
def test_generators_of_many_points_are_those_of_each(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not known:
        # As with a NumPy that keeps the state in some other way.
        monkeypatch.setattr("mce_notebook.declare.seeds._FRAME_AT", 8)
    rows = stream_keys(np.concatenate([KEYS] * 90), root_seed("x"))
    stream = Stream()
    assert (stream._memory is not None) is known
    generators = stream.generators(rows)
    for position, row in enumerate(rows):
        generator = next(generators)
        expected = np.random.Generator(np.random.Philox(key=row))
        # Half a word and half a buffer are left behind, which the next point must not see.
        for draw in (
            lambda g: g.integers(0, 10, size=position % 3, dtype=np.uint32).tolist(),
            lambda g: g.standard_normal(position % 6).tolist(),
        ):
            assert draw(generator) == draw(expected)
        assert repr(generator.bit_generator.state) == repr(expected.bit_generator.state)
    assert next(generators, None) is None


def test_a_state_that_is_written_belongs_to_a_generator_that_is_kept() -> None:
    generators = Stream().generators(stream_keys(KEYS, 1))
    gc.collect()
    assert len({generator.random() for generator in generators}) == len(KEYS)


@settings(deadline=None)
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1))
def test_streams_differ_by_root_and_point(one: int, two: int) -> None:
    first, second = stream_keys(KEYS, one), stream_keys(KEYS, two)
    assert len(np.unique(first, axis=0)) == len(KEYS)
    assert (first == second).all() == (one == two)
    assert one == two or not (first == second).all(axis=1).any()


def test_streams_of_neighbours_are_unrelated() -> None:
    design = grid(i=range(400))
    rows = stream_keys(design.keys(slice(None)), root_seed("x"))
    bits = np.unpackbits(rows.view(np.uint8), axis=1)
    # Means of 400 fair bits: five standard deviations.
    assert abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / 20
    stream = Stream()
    draws = np.array([stream.generator(row).random(50) for row in rows])
    correlations = np.corrcoef(draws)
    assert np.abs(correlations[np.triu_indices(400, 1)]).max() < 0.75
    assert abs(draws.mean() - 0.5) < 0.02


def test_global_generators_are_seeded_with_all_bits() -> None:
    rows = stream_keys(KEYS, 1)
    stream = Stream()
    kept = random.getstate(), np.random.get_state()
    try:
        draws = []
        for row in [rows[0], rows[1], rows[0]]:
            stream.seed_globals(row)
            draws.append((random.random(), np.random.rand()))
        assert draws[0] == draws[2] != draws[1]
        half = rows[0].copy()
        half[1] ^= np.uint64(1)
        stream.seed_globals(half)
        assert random.random() != draws[0][0]
        assert np.random.rand() != draws[0][1]
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
    assert 0 <= stream.seed(rows[0]) < 2**32


def test_replicates_in_plain_python() -> None:
    first = [rng.random() for rng in replicates(3)]
    assert first == [rng.random() for rng in replicates(3)]
    assert len(set(first)) == len(replicates(3)) == 3
    assert [rng.random() for rng in replicates(5)][:3] == first
    assert replicates(2, shared="method").shared == ("method",)
    assert replicates(2, shared=["a", "b"]).shared == ("a", "b")
    for bad in (0, -1, 2.5, "3", None, True):
        with pytest.raises(GridError, match="at least 1"):
            replicates(bad)
    with pytest.raises(GridError, match="must name axes"):
        replicates(2, shared="../x")


def test_setup_streams_depend_on_enclosing_axes_and_constants_only() -> None:
    design = grid(n=[1, 2], rho=[0.1, 0.2], replicates=3)

    def key(index: int, depth: int, **constants: object) -> tuple:
        return tuple(setup_key(design, index, design.names_below(index, depth), constants, 7).tolist())

    assert key(0, 1) == key(5, 1) != key(6, 1)
    assert key(0, 2) == key(2, 2) != key(3, 2)
    assert key(0, 1, k=1) != key(0, 1)
    assert key(0, 1) == tuple(
        setup_key(design.extended(rho=[0.3], replicates=9), 0, ("rho", "replicate"), {}, 7).tolist()
    )
    inner = grid(rho=[0.1, 0.2], replicates=3)
    assert key(0, 1) == tuple(setup_key(inner, 0, inner.names, {"n": 1}, 7).tolist())
    points = stream_keys(design.keys(np.array([0]), without={"rho", "replicate"}), 7)
    assert key(0, 1) != tuple(points[0].tolist())
    assert tuple(setup_key(design, 6, design.names_below(6, 1), {}, 7, shared=("n",)).tolist()) == tuple(
        setup_key(design, 0, design.names_below(0, 1), {}, 7, shared=("n",)).tolist()
    )


def test_shared_axes_give_common_random_numbers() -> None:
    design = grid(method=["a", "b"], replicates=replicates(2, shared="method"))
    rows = stream_keys(design.keys(slice(None), without=design.shared), 1)
    assert (rows[0] == rows[2]).all()
    assert (rows[1] == rows[3]).all()
    assert not (rows[0] == rows[1]).all()
