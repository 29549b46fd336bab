import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.lanes import MOST_RANGES, Block, Lane, Prefixed, blocks_of
from mce_notebook.order import Ordering


@settings(deadline=None)
@given(st.sets(st.integers(0, 60)))
def test_indices_become_the_fewest_ranges(indices: set[int]) -> None:
    wanted = np.array(sorted(indices), dtype=np.int64)
    found = blocks_of(wanted)
    assert [index for block in found for index in block.indices().tolist()] == wanted.tolist()
    assert sum(len(block.ranges) for block in found) == sum(index - 1 not in indices for index in indices)


def test_guards_that_cut_everything_to_pieces_bound_a_block() -> None:
    todo = np.arange(10**6) % 2 == 0
    lane = Lane((1000, 1000), 0, todo, Ordering("coarse", 0))
    blocks = lane.draw(100_000)
    assert max(len(block.ranges) for block in blocks) <= MOST_RANGES
    assert 90_000 <= sum(block.count for block in blocks) <= 100_000
    assert lane.left == 500_000 - sum(block.count for block in blocks)


def test_a_tile_larger_than_a_block_is_shared() -> None:
    todo = np.ones(1000, dtype=bool)
    lane = Lane((10, 100), 0, todo, Ordering("listed", 0))
    assert lane.draw(512)[0].ranges == ((0, 512),)
    assert lane.draw(1)[0].ranges == ((512, 513),)
    assert not todo[:513].any()


def test_what_comes_back_is_drawn_again() -> None:
    todo = np.ones(20, dtype=bool)
    lane = Lane((20,), 0, todo, Ordering("listed", 0))
    block = lane.draw(5)[0]
    todo[block.indices()] = True
    lane.restore(block)
    assert lane.left == 20
    assert lane.draw(5)[0] == block


def test_prefixes_are_given_to_one_slot_each_and_shared_at_the_end() -> None:
    todo = np.ones(300, dtype=bool)
    lanes = Prefixed((3, 100), 1, 0, todo, Ordering("coarse", 0))
    first = [lanes.draw(10, 1.0, 4, slot)[0].ranges[0][0] // 100 for slot in "abcd"]
    assert sorted(first[:3]) == [0, 1, 2]
    again = [lanes.draw(10, 1.0, 4, slot)[0].ranges[0][0] // 100 for slot in "abc"]
    assert again == first[:3]
    seen = 70
    while blocks := lanes.draw(7, 1.0, 4, "a"):
        seen += sum(block.count for block in blocks)
    assert seen == 300
    assert lanes.left == 0
    assert not todo.any()


def test_blocks_are_values() -> None:
    assert Block(((0, 3),)) == Block(((0, 3),))
    assert hash(Block(((0, 3),))) == hash(Block(((0, 3),)))
    assert Block(()).count == 0
    assert Block(()).indices().tolist() == []
