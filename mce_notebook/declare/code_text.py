"""The text of a code object, as it means and not as it was typed.

Source is trusted only after compiling it gives the live code object again: `inspect.getsource` returns the new text for
the old code after an edit that was not reloaded, and cannot tell two lambdas on one line apart. `ast.unparse` is stable
over Python versions; `ast.dump` and bytecode are not.
"""

import __future__

import ast
import copy
import functools
import linecache
import sys
import types
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_FUTURE_FLAGS = functools.reduce(
    int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
# Keyed by id and checked by identity: two equal code objects may come from different texts.
_texts: dict[int, tuple["weakref.ref[types.CodeType]", str]] = {}


def code_text(code: types.CodeType, *, signature: bool = True) -> str:
    """Text of one function, without name, docstrings, annotations, decorators, defaults and comments.

    Parameters
    ----------
    code : types.CodeType
        The live code of a function or lambda.
    signature : bool
        False leaves the parameters out; a point is the same whether a name is a parameter or a constant.
    """
    if not signature:
        node = source_node(code)
        return body_text(_body(node)) if node is not None else f"body {bytecode_text(code)}"
    known = _texts.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    node = source_node(code)
    text = bytecode_text(code) if node is None else _function_text(node)
    _texts[id(code)] = (weakref.ref(code), text)
    return text


def body_text(statements: Sequence[ast.stmt]) -> str:
    """Text of statements, in the same canonical form."""
    module = ast.Module(body=copy.deepcopy(list(statements)), type_ignores=[])
    return ast.unparse(_Canonical().visit(module))


def source_node(code: types.CodeType) -> FunctionNode | None:
    """Syntax tree of a live function, or None where no source compiles to it."""
    node = _node_in("".join(linecache.getlines(code.co_filename)), code)
    if node is None:
        # The remembered text of a file may be that of an earlier import.
        linecache.checkcache(code.co_filename)
        node = _node_in("".join(linecache.getlines(code.co_filename)), code)
    return node


def _node_in(text: str, code: types.CodeType) -> FunctionNode | None:
    parsed = _parse(text, code.co_flags & _FUTURE_FLAGS) if text else None
    if parsed is None:
        return None
    codes, nodes = parsed
    key = (code.co_name, code.co_firstlineno)
    if not any(same_code(candidate, code) for candidate in codes.get(key, ())):
        return None
    found = nodes.get(key, [])
    if len(found) > 1:
        found = [node for node in found if _spans(node, code)]
    return found[0] if len(found) == 1 else None


def bytecode_text(code: types.CodeType) -> str:
    """Bytecode in a form that does not depend on line numbers, file names or the order of sets."""
    parts = (
        code.co_code.hex(),
        normal_constants(code),
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
    )
    return f"bytecode {sys.version_info[:2]} {parts!r}"


def same_code(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two code objects do the same, wherever they stand in their files."""
    return (
        one.co_code == other.co_code
        and one.co_names == other.co_names
        and one.co_varnames == other.co_varnames
        and repr(normal_constants(one)) == repr(normal_constants(other))
    )


def normal_constants(code: types.CodeType) -> tuple[Any, ...]:
    """Constants of a code object, nested code by content and frozen sets in order."""
    return tuple(_normal(constant) for constant in code.co_consts)


def nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """All code objects inside one, at any depth, outer ones first."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from nested_codes(constant)


def _normal(constant: Any) -> Any:
    if isinstance(constant, types.CodeType):
        return (
            "code",
            constant.co_code.hex(),
            normal_constants(constant),
            constant.co_names,
            constant.co_varnames,
        )
    if isinstance(constant, frozenset):
        return ("frozenset", sorted(repr(_normal(item)) for item in constant))
    if isinstance(constant, tuple):
        return tuple(_normal(item) for item in constant)
    return constant


_Parsed = tuple[dict[tuple[str, int], list[types.CodeType]], dict[tuple[str, int], list[FunctionNode]]]


@functools.lru_cache(maxsize=512)
def _parse(text: str, future: int) -> _Parsed | None:
    """Code objects and function nodes of a text, by name and first line; None when it does not compile."""
    try:
        # Cells may await at their top level.
        flags = future | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = ast.parse(text)
        compiled = compile(text, "<source>", "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    codes: dict[tuple[str, int], list[types.CodeType]] = {}
    for code in nested_codes(compiled):
        codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)
    nodes: dict[tuple[str, int], list[FunctionNode]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            nodes.setdefault((node.name, line), []).append(node)
        elif isinstance(node, ast.Lambda):
            nodes.setdefault(("<lambda>", node.lineno), []).append(node)
    return codes, nodes


def _spans(node: FunctionNode, code: types.CodeType) -> bool:
    """Whether some instruction of the code stands for exactly the body of the node."""
    body = node.body if isinstance(node, ast.Lambda) else node.body[-1]
    span = (body.lineno, body.end_lineno, body.col_offset, body.end_col_offset)
    return span in set(code.co_positions())


def _body(node: FunctionNode) -> list[ast.stmt]:
    if isinstance(node, ast.Lambda):
        return [ast.Return(value=node.body)]
    return _without_docstring(node.body)


def _function_text(node: FunctionNode) -> str:
    arguments = copy.deepcopy(node.args)
    # Defaults and decorators are hashed as the live objects they gave; only their presence is text.
    arguments.defaults = [ast.Constant(0) for _ in arguments.defaults]
    arguments.kw_defaults = [None if default is None else ast.Constant(0) for default in arguments.kw_defaults]
    header = ast.unparse(_Canonical().visit(arguments))
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{kind} _({header}):\n{body_text(_body(node))}"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    return body[1:] if isinstance(first, ast.Constant) and isinstance(first.value, str) else body


class _Canonical(ast.NodeTransformer):
    """Takes away what does not change what a function computes."""

    def __init__(self) -> None:
        self._in_class = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: Any) -> ast.AST:
        outer, self._in_class = self._in_class, False
        self.generic_visit(node)
        self._in_class = outer
        node.body = _without_docstring(node.body)
        node.returns = None
        return node  # type: ignore[no-any-return]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        outer, self._in_class = self._in_class, True
        self.generic_visit(node)
        self._in_class = outer
        node.body = _without_docstring(node.body)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Pass(self, node: ast.Pass) -> ast.AST | None:
        return None

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        # The annotations of a class body are its fields, when it is a data class.
        if self._in_class:
            return node
        if node.value is None:
            return None if node.simple else node
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)
