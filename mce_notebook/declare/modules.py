"""Local modules: their sources as a snapshot, and whether what is loaded is what is on disk."""

import ast
import functools
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from mce_notebook.declare import class_parts
from mce_notebook.declare.code_text import nested_codes, same_code
from mce_notebook.declare.origins import is_local, root_place
from mce_notebook.errors import DeclarationError

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_LARGEST_DATA_FILE = 256 * 1024
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})


@dataclass
class Snapshot:
    """Source files of local modules, by their path below a folder of `sys.path`."""

    files: dict[str, bytes] = field(default_factory=dict)
    roots: set[str] = field(default_factory=set)


def snapshot(modules: Iterable[str]) -> Snapshot:
    """Read whole packages around local modules, and around what those import at any depth.

    Imports are found in the text, so that modules imported later, inside functions, are there too.
    """
    taken = Snapshot()
    waiting = [module for module in modules if is_local(module) and module != "__main__"]
    while waiting:
        module = waiting.pop()
        root = module.partition(".")[0]
        fresh: dict[str, bytes] = {}
        if root not in taken.roots:
            taken.roots.add(root)
            fresh = dict(_package_files(root))
        fresh.update(_stray_file(module, {**taken.files, **fresh}))
        taken.files.update(fresh)
        for path, content in fresh.items():
            if path.endswith(".py"):
                names = _imported_roots(content)
                waiting += [name for name in names if name not in taken.roots and is_local(name)]
    return taken


def overlay(module_values: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], Any]:
    """Values of local modules that were set in memory and that their files do not give.

    Parameters
    ----------
    module_values : mapping of str to iterable of str
        The names reached, by module.

    Raises
    ------
    DeclarationError
        When a function or class on disk is not the one loaded: the workers would run other code than this process.
    """
    found: dict[tuple[str, str], Any] = {}
    for name in sorted(module_values):
        module = sys.modules.get(name)
        path = getattr(module, "__file__", None)
        if module is None or path is None or not path.endswith(".py") or not _is_plain(module):
            continue
        try:
            disk = _Disk.read(path)
        except OSError:
            raise DeclarationError(
                f"`{name}` was loaded from {path}, which is gone: workers could not load it. Put the file back."
            ) from None
        for attribute in module_values[name]:
            if attribute in vars(module) and disk.differs(module, attribute):
                found[name, attribute] = vars(module)[attribute]
    return found


def _is_plain(module: types.ModuleType) -> bool:
    """Whether a module is compiled from its file as it stands; other loaders rewrite what they read."""
    loader = getattr(module, "__loader__", None)
    return loader is None or type(loader) is importlib.machinery.SourceFileLoader


@dataclass
class _Disk:
    """What the file of a module says, without running it."""

    codes: dict[str, list[types.CodeType]]
    bound: set[str]
    literals: dict[str, Any]
    parameter_defaults: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: str) -> "_Disk":
        return _disk(path, Path(path).read_bytes())

    @classmethod
    def parse(cls, path: str, content: bytes) -> "_Disk":
        try:
            tree = ast.parse(content, path)
            compiled = compile(content, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise DeclarationError(f"{path} was edited and no longer compiles: {error}. Correct it first.") from None
        codes: dict[str, list[types.CodeType]] = {}
        for code in nested_codes(compiled):
            codes.setdefault(code.co_qualname, []).append(code)
        bound = set(_bound_names(tree.body))
        return cls(codes, bound, _literals(tree), dict(_literal_defaults(tree.body, "")))

    def differs(self, module: types.ModuleType, name: str) -> bool:
        """Whether a value of the loaded module must be shipped because its file does not give it."""
        value = vars(module)[name]
        if isinstance(value, types.ModuleType):
            return False
        if isinstance(value, types.FunctionType | type) and value.__module__ == module.__name__:
            # A loader of its own kind may compile something else than the file says: pytest rewrites assertions.
            if isinstance(module.__loader__, SourceFileLoader):
                self._check(value, module.__name__)
            return False
        if "*" not in self.bound and name not in self.bound:
            return True
        if isinstance(value, types.FunctionType | type):
            # A function of the notebook in the place of one of the module.
            return value.__module__ == "__main__"
        return name in self.literals and not _equal(self.literals[name], value)

    def _check(self, value: Any, module: str) -> None:
        for function in _functions(value, module):
            code = function.__code__
            same = any(same_code(code, other) for other in self.codes.get(code.co_qualname, ()))
            written = self.parameter_defaults.get(code.co_qualname, {})
            live = dict(class_parts.defaults(function))
            if not same or any(key in live and not _equal(default, live[key]) for key, default in written.items()):
                raise DeclarationError(
                    f"`{module}` was edited but not reloaded: `{code.co_qualname}` on disk is not the one this "
                    f"notebook uses. Run `import importlib, {module}; importlib.reload({module})`, or restart the "
                    "kernel, and run the cells that import it again."
                )


@functools.lru_cache(maxsize=256)
def _disk(path: str, content: bytes) -> _Disk:
    return _Disk.parse(path, content)


def _functions(value: Any, module: str) -> Iterator[types.FunctionType]:
    """Functions of a module that stand in its file: itself, what it wraps, methods of a class."""
    if isinstance(value, types.FunctionType):
        while isinstance(inner := getattr(value, "__wrapped__", None), types.FunctionType):
            value = inner
        if value.__globals__.get("__name__") == module and value.__code__.co_filename.endswith(".py"):
            yield value
    elif isinstance(value, type):
        for _, member in class_parts.members(value):
            inner = class_parts.descriptor_functions(member) if class_parts.is_descriptor(member) else (member,)
            for function in inner:
                if isinstance(function, types.FunctionType) and function.__module__ == module:
                    yield from _functions(function, module)


def _bound_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Names the statements of a module bind; "*" when they cannot be known."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.alias):
                yield (node.asname or node.name).partition(".")[0]


def _literals(tree: ast.Module) -> dict[str, Any]:
    """Names given a literal once, at the top of a module, and never again."""
    stored: dict[str, int] = {}
    for node in ast.walk(tree):
        names = node.names if isinstance(node, ast.Global) else []
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        for name in names:
            stored[name] = stored.get(name, 0) + 1
    found: dict[str, Any] = {}
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name) and stored[targets[0].id] == 1:
            found.update(_literal(targets[0].id, getattr(statement, "value", None)))
    return found


def _literal(name: str, node: ast.expr | None) -> dict[str, Any]:
    try:
        return {} if node is None else {name: ast.literal_eval(node)}
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return {}


def _literal_defaults(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Literal defaults of functions and methods, by qualified name."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _literal_defaults(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            positional = [*node.args.posonlyargs, *node.args.args]
            pairs = list(zip(reversed(positional), reversed(node.args.defaults), strict=False))
            pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
            found: dict[str, Any] = {}
            for argument, default in pairs:
                found.update(_literal(argument.arg, default))
            yield f"{prefix}{node.name}", found


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (repr(one) == repr(other) or one == other)


def _package_files(root: str) -> Iterator[tuple[str, bytes]]:
    """Files of a top-level module or package, with paths relative to the folder on `sys.path`."""
    place = root_place(root)
    path = Path(place)
    if not place or not path.exists():
        return
    is_regular = path.stem == "__init__"
    if path.is_file() and not is_regular:
        if path.suffix == ".py" or path.name.endswith(_EXTENSIONS):
            yield path.name, path.read_bytes()
        return
    folder = path.parent if is_regular else path
    for file in _walk(folder):
        relative = file.relative_to(folder)
        is_code = file.suffix == ".py" or file.name.endswith(_EXTENSIONS)
        # Data files belong to packages only: a plain folder of scripts may hold anything.
        if is_code or (is_regular and file.stat().st_size <= _LARGEST_DATA_FILE):
            yield f"{root}/{relative.as_posix()}", file.read_bytes()


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        keep = [name for name in sorted(folders) if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        folders[:] = [name for name in keep if not (Path(parent) / name / "pyvenv.cfg").exists()]
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")) and path.is_file():
                yield path


def _stray_file(module: str, known: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files of a loaded module, and of its parents, that do not lie where their names say."""
    found: dict[str, bytes] = {}
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        path = getattr(sys.modules.get(name), "__file__", None)
        if path is None or not path.endswith(".py") or not os.path.exists(path):
            continue
        base = "/".join(parts[:depth])
        relative = f"{base}/__init__.py" if os.path.basename(path) == "__init__.py" else f"{base}.py"
        if relative not in known:
            found[relative] = Path(path).read_bytes()
    return found


@functools.lru_cache(maxsize=4096)
def _imported_roots(content: bytes) -> frozenset[str]:
    """Top-level names a source file imports anywhere; none when it does not parse, as it cannot be imported then."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return frozenset(found)
