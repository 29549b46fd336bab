import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.view.buffers import Arrays, Buffer, Scalars, filled, shown_dtype
from mce_notebook.view.outputs import Output, Piece


def test_a_buffer_copies_only_when_somebody_looks():
    buffer = Buffer(np.zeros(4))
    address = buffer.read(slice(None)).ctypes.data
    view = buffer.view((2, 2))
    del view
    buffer.write(0, 1.0)
    assert buffer.read(slice(None)).ctypes.data == address, "nobody looked any more"
    view = buffer.view((2, 2))
    part = view[0]
    del view
    buffer.write(1, 1.0)
    assert part.tolist() == [1.0, 0.0], "a part of a view counts as a look"
    assert buffer.view((4,)).tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "complex64", "M8[D]", "m8[ns]", "O"])
def test_everything_can_be_missing(dtype):
    import xarray as xr

    shown = shown_dtype(np.dtype(dtype))
    variable = xr.Variable(("x",), filled((3,), shown), fastpath=True)
    assert variable.isnull().all()


def test_scalars_beyond_int64():
    scalars = Scalars(3, np.dtype("uint64"))
    scalars.put(slice(0, 1), np.array([2**64 - 2], np.uint64))
    assert scalars.exact is not None
    assert scalars.exact.view((3,)).tolist() == [2**64 - 2, 2**64 - 1, 2**64 - 1]
    scalars.put(slice(1, 2), np.array([0.5]))
    assert scalars.exact is None, "a float among them: nothing is exact any more"


arrays = st.lists(
    st.tuples(st.integers(0, 7), st.lists(st.integers(0, 4), min_size=2, max_size=2)), min_size=1, max_size=20
)


@settings(max_examples=200, deadline=None)
@given(arrays, st.sampled_from([0, 1 << 28]), st.randoms(use_true_random=False))
def test_arrays_give_back_what_was_put(puts, dense_bytes, random):
    """Against a dictionary of arrays: dense, ragged, overwritten, cleared, in any order."""
    store, model = Arrays(8, 2, np.dtype(float)), {}
    store.DENSE_BYTES = dense_bytes
    for number, (cell, shape) in enumerate(puts):
        value = number + np.arange(np.prod(shape), dtype=float).reshape(shape)
        if random.random() < 0.15:
            store.clear(np.array([cell]))
            model.pop(cell, None)
        elif random.random() < 0.5:
            store.put(slice(cell, cell + 1), value[None])
            model[cell] = value
        else:
            store.put(np.array([cell]), value.ravel(), np.array([shape]))
            model[cell] = value
    padded = store.padded()
    assert padded is not None
    rows = store.row_shapes()
    for cell in range(8):
        there = model.get(cell)
        if there is None:
            assert np.isnan(padded[cell]).all()
            continue
        assert store.shapes() is None or rows[cell].tolist() == list(there.shape)
        assert np.array_equal(padded[cell][tuple(map(slice, there.shape))], there)
        assert np.isnan(padded[cell]).sum() == padded[cell].size - there.size
    flat = [model[cell].ravel() for cell in sorted(model)]
    if store._dense is None:
        assert store.contiguous().tolist() == (np.concatenate(flat).tolist() if flat else [])


def test_a_large_block_is_not_reserved_before_its_values_exist():
    store = Arrays(1_000_000, 1, np.dtype(float))
    store.put(slice(0, 2), np.ones((2, 1000)))
    assert store.padded() is None
    assert store.contiguous().size == 2000


def test_the_most_frequent_kind_wins_in_any_order():
    numbers, texts = Piece(np.ones(3)), Piece(np.array(["a", "b"], object))
    for order in ((numbers, texts), (texts, numbers)):
        output = Output("y", 5)
        for piece in order:
            output.put(slice(0, 3) if piece is numbers else slice(3, 5), piece, fresh=True)
        winner = output.winner()
        assert winner is not None
        assert output.kinds[winner] == ("number", 0)
        ((cells, reason),) = output.conflicts()
        assert cells.tolist() == [3, 4]
        assert reason == "output `y` is text here, a number in most points; return one kind"
    output.put(slice(3, 5), Piece(np.zeros(2)), fresh=False)
    assert output.conflicts() == []
