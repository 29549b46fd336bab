"""Edits of a cell by the positions of its syntax tree, so that comments and formatting survive."""

import ast
from collections.abc import Sequence


class Edits:
    """A list of replacements in one text, applied together.

    Parameters
    ----------
    source : str
        The cell.
    tree : ast.Module
        Its syntax tree; positions are those of `source`.
    """

    def __init__(self, source: str, tree: ast.Module):
        self.source = source
        self.lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))
        self._changes: list[tuple[int, int, str]] = []
        self._blocks: dict[int, list[ast.stmt]] = {}
        self._deleted: set[int] = set()
        for node in ast.walk(tree):
            for name in ("body", "orelse", "finalbody", "handlers"):
                block = getattr(node, name, None)
                if isinstance(block, list):
                    self._blocks.update({id(statement): block for statement in block})

    def offset(self, line: int, column: int) -> int:
        """Index into the text of a position as `ast` gives it (lines from 1, columns in UTF-8 bytes)."""
        if line > len(self.lines):
            return len(self.source)
        text = self.lines[line - 1]
        return self._starts[line - 1] + len(text.encode()[:column].decode(errors="ignore"))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Begin and end of a node in the text."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        for decorator in getattr(node, "decorator_list", []):
            if decorator.lineno < line:
                line = decorator.lineno
        end_line = getattr(node, "end_lineno", None) or line
        return self.offset(line, column), self.offset(end_line, getattr(node, "end_col_offset", 0) or 0)

    def text(self, node: ast.AST) -> str:
        """Return the source of a node as written."""
        begin, end = self.span(node)
        return self.source[begin:end]

    def indentation(self, node: ast.stmt) -> str:
        """White space before a statement."""
        line = self.lines[node.lineno - 1]
        return line[: len(line) - len(line.lstrip())]

    def replace(self, node: ast.AST, text: str) -> "Edits":
        """Put other text in the place of a node."""
        begin, end = self.span(node)
        self._changes.append((begin, end, text))
        return self

    def delete(self, statement: ast.stmt) -> "Edits":
        """Take a statement out, with its line when it has it alone; a block is never left empty."""
        if id(statement) in self._deleted:
            return self
        self._deleted.add(id(statement))
        block = self._blocks.get(id(statement), [])
        nested = statement.col_offset > 0
        if nested and all(id(other) in self._deleted for other in block):
            return self.replace(statement, "pass")
        begin, end = self.span(statement)
        first, last = self._starts[statement.lineno - 1], self._line_end(statement)
        before, behind = self.source[first:begin], self.source[end:last]
        if before.strip() or (behind.strip() and not behind.lstrip().startswith("#")):
            if nested or ";" in behind or before.strip():
                return self.replace(statement, "pass")
            return self.replace(statement, "")
        self._changes.append((first, last, ""))
        return self

    def _line_end(self, statement: ast.stmt) -> int:
        last = statement.end_lineno or statement.lineno
        return self._starts[min(last, len(self.lines))]

    def before(self, statement: ast.stmt, text: str) -> "Edits":
        """Insert lines before a statement, at its indentation."""
        first = self._starts[statement.lineno - 1]
        margin = self.indentation(statement)
        if self.source[first : self.span(statement)[0]].strip():
            # The statement shares its line, as in `for a in A: f(a)`.
            begin = self.span(statement)[0]
            self._changes.append((begin, begin, "; ".join(text.splitlines()) + "; "))
        else:
            self._changes.append((first, first, _indented(text, margin)))
        return self

    def after(self, statement: ast.stmt, text: str, *, margin: str | None = None) -> "Edits":
        """Insert lines after a statement, at its indentation or another."""
        last = self._line_end(statement)
        margin = self.indentation(statement) if margin is None else margin
        body = _indented(text, margin)
        if last and not self.source[:last].endswith("\n"):
            body = "\n" + body
        self._changes.append((last, last, body))
        return self

    def deeper(self, statements: Sequence[ast.stmt], by: str = "    ") -> "Edits":
        """Indent whole statements by one more step."""
        first, last = statements[0].lineno, statements[-1].end_lineno or statements[-1].lineno
        for number in range(first, last + 1):
            if self.lines[number - 1].strip():
                begin = self._starts[number - 1]
                self._changes.append((begin, begin, by))
        return self

    def top(self, text: str) -> "Edits":
        """Insert a line at the top of the cell."""
        self._changes.append((0, 0, text.rstrip("\n") + "\n"))
        return self

    def end(self, text: str) -> "Edits":
        """Add lines at the end of the cell."""
        glue = "" if self.source.endswith("\n") or not self.source else "\n"
        self._changes.append((len(self.source), len(self.source), glue + text.rstrip("\n") + "\n"))
        return self

    def apply(self) -> str:
        """Make all edits. Of two edits of the same place the wider wins."""
        kept: list[tuple[int, int, int, str]] = []
        reach = -1
        order = sorted(enumerate(self._changes), key=lambda item: (item[1][0], -item[1][1], item[0]))
        inserts = [(number, change) for number, change in order if change[0] == change[1]]
        for number, (begin, end, text) in order:
            if begin == end or begin < reach:
                continue
            kept.append((begin, end, number, text))
            reach = end
        for number, (begin, end, text) in inserts:
            if not any(b < begin < e for b, e, _, _ in kept):
                kept.append((begin, end, number, text))
        kept.sort(key=lambda item: (item[0], item[1] > item[0], item[2]))
        parts, position = [], 0
        for begin, end, _, text in kept:
            parts += [self.source[position:begin], text]
            position = max(position, end)
        return "".join([*parts, self.source[position:]])


def _indented(text: str, margin: str) -> str:
    return "".join(f"{margin}{line}\n" if line.strip() else "\n" for line in text.rstrip("\n").splitlines())
