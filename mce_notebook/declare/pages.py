"""A cell being rewritten, and the two things that carry the result to a person."""

import ast
from dataclasses import dataclass

from mce_notebook.declare.names import targets
from mce_notebook.declare.nesting import Level, Problem, descend, find_noise
from mce_notebook.declare.rewriting import Edits
from mce_notebook.declare.sinks import head_bindings
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


def refusal(problem: Problem, source: str, first_line: int, after: str = "") -> LoopError:
    """Make the error a person meets."""
    line = int(getattr(problem.node, "lineno", 1)) + first_line - 1
    return LoopError(problem.cause, line, problem.fix, source, after)


class Page:
    """A cell being rewritten: its text, tree, outermost loop and the chain below it.

    Parameters
    ----------
    source : str
        The cell.
    tree : ast.Module
        Its tree, whose nodes are not shared with any reading.
    number : int
        Which statement is the outermost loop.
    problem : Problem
        What is wrong; its node comes from another tree of the same text.
    """

    def __init__(self, source: str, tree: ast.Module, number: int, problem: Problem):
        self.source, self.tree, self.problem = source, tree, problem
        self.edits = Edits(source, tree)
        self.head, self.tail = tree.body[:number], tree.body[number + 1 :]
        loop = tree.body[number]
        assert isinstance(loop, ast.For)
        self.loop = loop
        self.made = head_bindings(self.head)

    @property
    def levels(self) -> list[Level]:
        """The chain of loops as its form gives it."""
        return descend(self.loop, find_noise(self.head, self.loop), None)

    @property
    def variables(self) -> list[str]:
        """Loop variables that say which point a result belongs to."""
        names = [n.id for level in self.levels for n in targets(level.node.target)]
        return [name for name in dict.fromkeys(names) if name != "_"]

    def statement(self) -> ast.stmt:
        """Find the innermost statement around the problem."""
        line, column = position(self.problem.node)
        found: ast.stmt = self.loop
        for node in ast.walk(self.tree):
            if isinstance(node, ast.stmt) and contains(node, line, column) and node.lineno >= found.lineno:
                found = node
        return found

    def free(self, name: str) -> str:
        """Find a name like `name` that the cell does not use."""
        used = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name)}
        number = 2
        candidate = name
        while candidate in used:
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def rename(self, where: ast.AST, old: str, new: str) -> None:
        """Replace a name below a node."""
        for node in ast.walk(where):
            if isinstance(node, ast.Name) and node.id == old:
                self.edits.replace(node, new)


def contains(node: ast.stmt, line: int, column: int) -> bool:
    """Tell whether a position lies in a statement."""
    begin, end = (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or 0)
    return begin <= (line, column) < end


def position(node: ast.AST) -> tuple[int, int]:
    """Return line and column of a node."""
    return getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
