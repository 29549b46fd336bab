"""Code taken from a cell and made callable: the body of the point, and the setups of the axes around it."""

import ast
import enum
import linecache
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mce_notebook.declare.grid import Grid


class Mark(enum.Enum):
    """What a routine returns in place of values; an enum, so that identity survives pickling."""

    SKIP = "skip"
    MISSING = "missing"


SKIP = Mark.SKIP
MISSING = Mark.MISSING

# Names under which rewritten code finds the marks; nobody types them, so they hide nothing of the user's.
MARK_NAMES: dict[str, Mark] = {"__mce_skip__": SKIP, "__mce_missing__": MISSING}


@dataclass(frozen=True, eq=False)
class Routine:
    """Statements of a cell as a function that is compiled where it runs.

    Parameters
    ----------
    tree : ast.FunctionDef
        ``def name(<parameters>): ...`` whose nodes keep their positions in the cell. It has no defaults and no
        decorators. It may return the names `__mce_skip__` and `__mce_missing__`, which compiling defines.
    cell : str
        The whole text the positions refer to; tracebacks quote it.
    filename : str
        The name of that text in tracebacks.
    """

    tree: ast.FunctionDef
    cell: str
    filename: str

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments, in order."""
        arguments = self.tree.args
        return tuple(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))

    def code(self) -> types.CodeType:
        """Compile the function alone; nothing is executed or bound."""
        module = ast.Module(body=[self.tree], type_ignores=[])
        compiled = compile(ast.fix_missing_locations(module), self.filename, "exec", dont_inherit=True)
        return next(c for c in compiled.co_consts if isinstance(c, types.CodeType) and c.co_name == self.tree.name)

    def compile(self, namespace: dict[str, Any]) -> Callable[..., Any]:
        """Make the function, with `namespace` as its globals.

        The function is built from its code object and not by running the `def`, which would bind its name in the
        namespace and might hide a helper of the user's.
        """
        namespace.update(MARK_NAMES)
        # A time stamp of None keeps linecache from dropping the text of a file that does not exist.
        linecache.cache[self.filename] = (
            len(self.cell),
            None,
            self.cell.splitlines(keepends=True),
            self.filename,
        )
        return types.FunctionType(self.code(), namespace, self.tree.name)


@dataclass(frozen=True, eq=False)
class Setup:
    """Statements run once per combination of the outer axes, on the worker.

    Parameters
    ----------
    depth : int
        How many of the outermost axes the statements may read.
    routine : Routine
        Takes names of those axes and of outer setups' results, returns the tuple of `provides`.
    provides : tuple of str
        The names it gives to inner setups and to the point.
    enclosing : tuple of str
        Coordinates of the next axis that it may read too: ragged loops are one axis, and this is between two of them.
    """

    depth: int
    routine: Routine
    provides: tuple[str, ...]
    enclosing: tuple[str, ...] = ()

    def inside(self, grid: "Grid", index: int) -> tuple[str, ...]:
        """Return the names of the loops inside it, in the part of the grid that holds a listed index."""
        return tuple(name for name in grid.names_below(index, self.depth) if name not in self.enclosing)
