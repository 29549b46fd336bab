import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.order import ORDERS, Ordering, Tiles, bit_reversed, coprime_near, spread, steps

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


def test_bit_reversal() -> None:
    assert bit_reversed(8).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert bit_reversed(1).tolist() == [0]
    for size in range(1, 70):
        assert sorted(bit_reversed(size).tolist()) == list(range(size))


@settings(deadline=None)
@given(st.floats(0, 200), st.integers(1, 150))
def test_shifts_are_coprime(target: float, size: int) -> None:
    found = coprime_near(target, size)
    assert (size == 1 and found == 0) or (0 < found < size and math.gcd(found, size) == 1)


@settings(deadline=None)
@given(shapes, st.integers(0, 50), st.integers(1, 2000))
def test_tiles_cut_a_product_into_consecutive_runs(shape: tuple[int, ...], base: int, length: int) -> None:
    tiles = Tiles(shape, base, length)
    starts, lengths = tiles.spans_of(np.arange(tiles.units))
    assert spread(starts, lengths).tolist() == list(range(base, base + math.prod(shape)))
    assert lengths.max() <= length


@settings(deadline=None)
@given(shapes, st.integers(1, 30), st.sampled_from(ORDERS), st.integers(1, 40))
def test_orders_visit_every_tile_once_in_any_windows(shape: tuple[int, ...], length: int, name: str, step: int) -> None:
    order = Ordering(name, 3).of(Tiles(shape, 7, length))
    units = order.tiles.units
    windows = [order.window(low, min(units, low + step)) for low in range(0, units, step)]
    indices = np.concatenate([spread(*window) for window in windows])
    assert sorted(indices.tolist()) == list(range(7, 7 + math.prod(shape)))
    whole = spread(*order.window(0, units))
    assert whole.tolist() == indices.tolist()


@pytest.mark.parametrize("shape", [(16, 16), (16, 12, 8), (5, 40, 3), (100, 2, 2, 2)])
def test_a_run_sees_every_value_of_every_axis_equally_often(shape: tuple[int, ...]) -> None:
    order = Ordering("coarse", 0).of(Tiles(shape, 0, 1))
    longest = max(shape)
    for low in range(0, math.prod(shape) // longest * longest, longest):
        starts, _ = order.window(low, low + longest)
        for row, size in zip(np.unravel_index(starts, shape), shape, strict=True):
            counts = np.bincount(row, minlength=size)
            assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("short", [2, 3, 4, 7, 8, 12, 16])
@pytest.mark.parametrize("long", [100, 1000, 2080, 65536])
def test_short_axes_are_spread_beside_a_long_one_from_the_first_points_on(long: int, short: int) -> None:
    starts, _ = Ordering("coarse", 0).of(Tiles((long, short), 0, 1)).window(0, 8 * short)
    rows, columns = np.unravel_index(starts, (long, short))
    counts = np.bincount(columns, minlength=short)
    assert counts.min() >= 2
    assert counts.max() <= 20
    # Together, too: both halves of the long axis see most of the short one.
    for half in (rows < long // 2, rows >= long // 2):
        assert np.count_nonzero(np.bincount(columns[half], minlength=short)) >= 0.75 * short


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_steps_of_neighbours_differ(lot: int, size: int) -> None:
    rows = np.arange(lot * size, (lot + 1) * size)
    assert sorted((steps(rows, size) % size).tolist()) == list(range(size))
