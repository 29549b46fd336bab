"""The body of the innermost axis as a function: writing to a sink becomes returning a value."""

import ast
from collections.abc import Sequence

from mce_notebook.declare.names import Write
from mce_notebook.declare.slots import Outline, Slot


class Lowering:
    """Turns the statements of a point into those of a function that returns its outputs.

    Parameters
    ----------
    outline : Outline
        The slots found in the same statements.
    """

    def __init__(self, outline: Outline):
        self.outline = outline
        self.outputs = [name for slot in outline.slots for name in slot.outputs]
        self._inline: dict[str, ast.expr] = {}

    def run(self, statements: Sequence[ast.stmt], last: ast.AST) -> list[ast.stmt]:
        """Statements of the function; `last` lends its position to the final `return`."""
        body = list(statements)
        tail: list[Write] = []
        # Writes at the end of the body need no variable: their values are returned as they stand.
        while body and isinstance(body[-1], Write):
            write = body[-1]
            found = self.outline.slot_of(write)
            if found is None or len(found[0].sites) > 1 or found[0].dims:
                break
            self._inline.update(zip(found[0].outputs, found[1].values, strict=True))
            tail.append(write)
            body.pop()
        begun = [line for slot in self.outline.slots for line in self._begin(slot, last)]
        return [*begun, *self._block(body), self._return(tail[0] if tail else last)]

    def _begin(self, slot: Slot, last: ast.AST) -> list[ast.stmt]:
        if slot.dims:
            return [_assign(name, ast.List([], ast.Load()), last) for name in slot.outputs]
        early = any(self.outline.ends.values())
        if slot.always and not (early and set(slot.outputs) & self._inline.keys()):
            return []
        missing = ast.Name("__mce_missing__", ast.Load())
        return [_assign(name, missing, last) for name in slot.outputs if early or name not in self._inline]

    def _block(self, statements: Sequence[ast.stmt], *, inner: bool = False) -> list[ast.stmt]:
        return [new for statement in statements for new in self._statement(statement, inner)]

    def _statement(self, node: ast.stmt, inner: bool) -> list[ast.stmt]:
        if isinstance(node, Write):
            return self._write(node)
        if isinstance(node, ast.Continue) and not inner:
            return [self._leave(node)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return [node]
        loop = isinstance(node, ast.For | ast.AsyncFor | ast.While)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                setattr(node, name, self._block(block, inner=inner or (loop and name == "body")))
        for child in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            child.body = self._block(child.body, inner=inner)
        return [node]

    def _write(self, node: Write) -> list[ast.stmt]:
        found = self.outline.slot_of(node)
        if found is None or not found[0].outputs:
            return [ast.copy_location(ast.Pass(), node)]
        slot, site = found
        pairs = zip(slot.outputs, site.values, strict=True)
        if not slot.dims:
            return [_assign(name, value, node) for name, value in pairs]
        return [_append(name, value, node) for name, value in pairs]

    def _leave(self, node: ast.Continue) -> ast.stmt:
        if not self.outline.ends.get(id(node), False):
            skip = ast.Name("__mce_skip__", ast.Load())
            return ast.fix_missing_locations(ast.copy_location(ast.Return(skip), node))
        return self._values([ast.Name(_local(name), ast.Load()) for name in self.outputs], node)

    def _return(self, where: ast.AST) -> ast.stmt:
        values = [self._inline.get(name) or ast.Name(_local(name), ast.Load()) for name in self.outputs]
        return self._values(values, where)

    def _values(self, values: list[ast.expr], where: ast.AST) -> ast.stmt:
        value = values[0] if len(values) == 1 else ast.Tuple(values, ast.Load())
        returned = ast.Return(value)
        return ast.fix_missing_locations(ast.copy_location(returned, where))


def _local(name: str) -> str:
    return f"_mce_{name}"


def _assign(name: str, value: ast.expr, where: ast.AST) -> ast.stmt:
    node = ast.Assign([ast.Name(_local(name), ast.Store())], value)
    return ast.fix_missing_locations(ast.copy_location(node, where))


def _append(name: str, value: ast.expr, where: ast.AST) -> ast.stmt:
    call = ast.Call(ast.Attribute(ast.Name(_local(name), ast.Load()), "append", ast.Load()), [value], [])
    return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), where))


def function(name: str, parameters: Sequence[str], body: Sequence[ast.stmt], where: ast.AST) -> ast.FunctionDef:
    """``def name(parameters): body`` at the position of a statement of the cell."""
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(p) for p in parameters], vararg=None, kwonlyargs=[], kw_defaults=[], kwarg=None,
        defaults=[],
    )  # fmt: skip
    node = ast.FunctionDef(
        name=name, args=arguments, body=list(body), decorator_list=[], returns=None, type_comment=None
    )
    if "type_params" in ast.FunctionDef._fields:
        # From Python 3.12 on.
        setattr(node, "type_params", [])  # noqa: B010
    return ast.fix_missing_locations(ast.copy_location(node, where))
