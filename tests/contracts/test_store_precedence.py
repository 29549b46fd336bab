"""The host and the views must agree which of several outcomes of a point counts."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.declare.grid import Status
from mce_notebook.store.merge import Standing
from mce_notebook.view.precedence import Precedence, Source

POINTS = 5


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    orders = draw(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 9).map(lambda at: at * 8)),
            unique=True,
            max_size=12,
        )
    )
    made = []
    for order in orders:
        positions = draw(st.lists(st.integers(0, POINTS - 1), unique=True, min_size=1))
        current = draw(st.booleans())
        good = [not current or draw(st.booleans()) for _ in positions]
        facts = {
            "current": current,
            "recency": 0 if current else draw(st.integers(1, 3)),
            "generation": draw(st.integers(0, 2)),
            "order": order,
        }
        made.append((np.array(positions), np.array(good), facts))
    return made


@given(batches())
def test_the_store_and_the_view_keep_the_same_outcomes(
    made: list[tuple[np.ndarray, np.ndarray, dict[str, Any]]],
) -> None:
    standing, precedence = Standing(POINTS), Precedence(POINTS)
    in_store, in_view = [-1] * POINTS, [-1] * POINTS
    for number, (positions, good, facts) in enumerate(made):
        status = np.where(good, int(Status.DONE), int(Status.FAILED)).astype(np.uint8)
        for place in positions[standing.admit(positions, status, **facts)]:
            in_store[place] = number
        won, _ = precedence.admit(positions, good, Source(**facts))
        for place in positions if won is None else positions[won]:
            in_view[place] = number
    assert in_store == in_view
