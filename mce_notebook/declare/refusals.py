"""Refusals: the line, the cause, and the rewritten cell."""

from dataclasses import dataclass

from mce_notebook.declare.nesting import Problem
from mce_notebook.errors import LoopError


@dataclass(frozen=True)
class Offer:
    """A rewriting of the cell that would make more of it.

    Parameters
    ----------
    title : str
        What it does, one sentence.
    line : int
        Line of the cell it is about.
    cell : str
        The cell as it would be.
    """

    title: str
    line: int
    cell: str


def refusal(problem: Problem, source: str, first_line: int) -> LoopError:
    """The error a person meets."""
    line = int(getattr(problem.node, "lineno", 1)) + first_line - 1
    return LoopError(problem.cause, line, problem.fix)
