"""What slow guards keep, as files: whole, named by a key, damage found."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.declare.grid import grid
from mce_notebook.errors import CorruptStore, StoreError
from mce_notebook.store.answers import (
    from_bytes,
    read_draft,
    read_mask,
    same_guards,
    to_bytes,
    write_draft,
    write_mask,
)
from mce_notebook.store.catalog import Store, SweepStore
from mce_notebook.store.declaration import Declaration

KEY = "0123456789abcdef" * 2


@pytest.fixture
def sweep(tmp_path: Path) -> SweepStore:
    return Store(tmp_path / "experiments").create("guarded", 1)


@given(st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.lists(st.booleans(), max_size=30)))
def test_pieces_come_back(pieces: dict[tuple[int, ...], list[bool]]) -> None:
    back = from_bytes(to_bytes({name: np.array(bits, np.bool_) for name, bits in pieces.items()}))
    assert {name: bits.tolist() for name, bits in back.items()} == pieces


def test_a_mask_is_written_once_and_takes_the_place_of_its_draft(sweep: SweepStore) -> None:
    assert read_mask(sweep, KEY) is None
    assert read_draft(sweep, KEY) == {}
    mask = np.arange(1001) % 3 == 0
    write_draft(sweep, KEY, {(0, 1, 0): mask})
    assert np.array_equal(read_draft(sweep, KEY)[0, 1, 0], mask)
    write_mask(sweep, KEY, mask)
    write_mask(sweep, KEY, ~mask)
    assert np.array_equal(read_mask(sweep, KEY), mask)
    assert read_draft(sweep, KEY) == {}
    assert sweep.numbers() == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"noise\n", b'{"format": 9, "pieces": [], "sha256": ""}\n'])
def test_damage_is_found(sweep: SweepStore, damage: bytes) -> None:
    write_draft(sweep, KEY, {(0, 0, 0): np.ones(9, np.bool_)})
    sweep.paths.mask_draft(KEY).write_bytes(damage)
    assert read_draft(sweep, KEY) == {}
    write_mask(sweep, KEY, np.ones(9, np.bool_))
    whole = sweep.paths.mask(KEY).read_bytes()
    for wrong in (damage, whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        sweep.paths.mask(KEY).write_bytes(wrong)
        with pytest.raises(CorruptStore, match="Delete it and run the cell again"):
            read_mask(sweep, KEY)


def test_keys_that_lead_elsewhere_are_refused(sweep: SweepStore) -> None:
    for key in ("../../etc/passwd", "", "x" * 32):
        with pytest.raises(StoreError, match="no key"):
            read_mask(sweep, key)
    assert same_guards(KEY, KEY[:16] + "f" * 16)
    assert not same_guards(KEY, "f" * 32)
    assert not same_guards(KEY, "")


def test_a_declaration_knows_its_points_once_its_guards_are_evaluated(sweep: SweepStore) -> None:
    design = grid(n=range(30_000)).where("n > 5").where(lambda n: n % 2 == 0)
    late = design.postponed(KEY)
    sweep.declare(Declaration.of(late, version="v"))
    before = sweep.declaration(1)
    assert before.deferred == KEY
    assert before.grid.deferred
    mask = design.mask()
    assert mask is not None
    write_mask(sweep, KEY, mask)
    after = sweep.declaration(1)
    assert not after.deferred
    assert np.array_equal(after.grid.mask(), mask)
    assert after.grid.guarded == KEY
    # As if they had been evaluated at once.
    assert np.array_equal(after.grid.to_record()[1]["mask"], design.to_record()[1]["mask"])
