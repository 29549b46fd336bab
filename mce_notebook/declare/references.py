"""Names a code object reads from outside itself, found in its bytecode.

Bytecode knows what is local, free or global, which source only tells after repeating the work of the compiler, and it
is there even for code without source.
"""

import dis
import types
import weakref
from dataclasses import dataclass, field
from typing import Any, Literal

_SILENT = {
    "CACHE",
    "EXTENDED_ARG",
    "PUSH_NULL",
    "PRECALL",
    "SWAP",
    "COPY",
    "POP_TOP",
    "NOP",
    "RESUME",
    "NOT_TAKEN",
}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_CELLS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE", "LOAD_FROM_DICT_OR_DEREF"}


@dataclass(frozen=True, order=True)
class Reference:
    """A name with the attributes taken from it, as in ``linalg.norm``.

    Parameters
    ----------
    kind : {"global", "cell", "import"}
        Where the root is looked up; an import happens inside the function.
    root : str
        The name, or the module to import.
    path : tuple of str
        Attributes, outermost first.
    level : int
        Leading dots of a relative import.
    """

    kind: Literal["global", "cell", "import"]
    root: str
    path: tuple[str, ...] = ()
    level: int = 0

    def then(self, attributes: tuple[str, ...]) -> "Reference":
        """Return the same name with further attributes."""
        return Reference(self.kind, self.root, self.path + attributes, self.level)


@dataclass(frozen=True)
class References:
    """All a code object and the code inside it read."""

    names: tuple[Reference, ...]
    strings: frozenset[str]
    stored_globals: frozenset[str]


_known: dict[int, tuple["weakref.ref[types.CodeType]", References]] = {}


def references(code: types.CodeType) -> References:
    """Find what a code object reads from outside; remembered per code object."""
    known = _known.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    found = _Scan(code).run()
    _known[id(code)] = (weakref.ref(code), found)
    return found


@dataclass
class _Scan:
    """One pass over the instructions, keeping the name whose attributes are being taken."""

    code: types.CodeType
    found: dict[Reference, None] = field(default_factory=dict)
    strings: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    # Local names that stand for a module imported inside the function.
    aliases: dict[str, Reference] = field(default_factory=dict)
    current: Reference | None = None
    constants: list[Any] = field(default_factory=list)
    imported: tuple[Reference, bool] | None = None

    def run(self) -> References:
        for instruction in dis.get_instructions(self.code):
            if instruction.opname not in _SILENT:
                self._step(instruction.opname, instruction.argval)
        self._flush()
        for constant in self.code.co_consts:
            if isinstance(constant, types.CodeType):
                self._nested(constant)
        # Sorted, because the order of instructions differs between Pythons.
        return References(tuple(sorted(self.found)), frozenset(self.strings), frozenset(self.stored))

    def _step(self, name: str, argument: Any) -> None:
        if name in _ATTRIBUTES and self.current is not None:
            self.current = self.current.then((argument,))
        elif name == "IMPORT_FROM":
            self._import_from(argument)
        elif name.startswith("STORE_"):
            self._store(name, argument)
        else:
            self._flush()
            self._load(name, argument)

    def _load(self, name: str, argument: Any) -> None:
        if name in _GLOBALS:
            self.current = Reference("global", argument)
        elif name in _CELLS:
            self.current = self.aliases.get(argument, Reference("cell", argument))
        elif name.startswith("LOAD_FAST"):
            # Newer Pythons load two locals at once; attributes are taken from the last.
            local = argument[-1] if isinstance(argument, tuple) else argument
            self.current = self.aliases.get(local)
        elif name in ("LOAD_CONST", "LOAD_SMALL_INT"):
            self._constant(argument)
        elif name == "IMPORT_NAME":
            self._import(argument)

    def _constant(self, value: Any) -> None:
        self.constants.append(value)
        if isinstance(value, str):
            self.strings.add(value)

    def _import(self, module: str) -> None:
        # The two constants loaded before are the number of dots and the names of `from ... import`.
        level, names = self.constants[-2:] if len(self.constants) > 1 else (0, None)
        level = level if isinstance(level, int) else 0
        self.imported = (Reference("import", module, (), level), bool(names))
        if names or level:
            self.current = Reference("import", module, (), level)
        else:
            # `import a.b` binds `a`, and loads `a.b`.
            self.found[Reference("import", module)] = None
            self.current = Reference("import", module.partition(".")[0])

    def _import_from(self, name: str) -> None:
        if self.imported is None:
            return
        module, listed = self.imported
        # Without a list this is `import a.b as c`, which walks down from the module already loaded.
        self.current = module.then((name,)) if listed else module

    def _store(self, name: str, argument: Any) -> None:
        if name == "STORE_GLOBAL":
            self.stored.add(argument)
        if self.current is not None and self.current.kind == "import":
            local = argument[0] if isinstance(argument, tuple) else argument
            self.aliases[local] = self.current
        self._flush()
        if name == "STORE_FAST_LOAD_FAST":
            self.current = self.aliases.get(argument[1])

    def _flush(self) -> None:
        if self.current is not None:
            self.found[self.current] = None
        self.current = None

    def _nested(self, code: types.CodeType) -> None:
        inner = references(code)
        self.strings |= inner.strings
        self.stored |= inner.stored_globals
        for reference in inner.names:
            if reference.kind != "cell":
                self.found[reference] = None
            elif reference.root in self.aliases:
                self.found[self.aliases[reference.root].then(reference.path)] = None
            elif reference.root in self.code.co_freevars:
                self.found[reference] = None
