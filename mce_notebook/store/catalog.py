"""The sweeps of a store, and what is kept of each beside its outcomes."""

import contextlib
import datetime
import difflib
import functools
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.errors import AlreadyExists, CorruptStore, NameConflict, StoreError, UnknownSweep
from mce_notebook.store.folder import Bytes, Folder
from mce_notebook.store.layout import FORMAT, Layout, SweepLayout, checked_name
from mce_notebook.store.places import folder_of, root_path, shown
from mce_notebook.store.roots import remember_root

if TYPE_CHECKING:
    from mce_notebook.store.declaration import Declaration

# `stop` is what a sweep that exceeds its share of failures wants of itself; the others are said by people.
VERBS = ("run", "pause", "cancel", "stop")
# What a host that does not know yet that its sweep was deleted may make anew in its folder.
_LEFT_BEHIND = {"artifacts", "big", "epochs", "events", "intents", "log"}


def now() -> str:
    """Return the time, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@functools.cache
def pid_space() -> str:
    """Return what tells namespaces of process ids apart: containers on one machine may share all else."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def intent_record(
    verb: str, by: str, time: str | None = None, waits: float = 0.0, note: str = "", refused: bool = False
) -> bytes:
    """Return the file of an intent; what is not said is left out."""
    more = {"waits": waits, "note": note, "refused": refused}
    said = {name: value for name, value in more.items() if value}
    return json.dumps({"verb": verb, "by": by, "time": time or now(), **said}).encode()


def object_digest(data: bytes | bytearray | memoryview) -> str:
    """Name of an object: the digest of its content."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


@dataclass(frozen=True)
class Intent:
    """What somebody wants of a sweep; the one with the highest number holds."""

    number: int
    verb: str
    by: str
    time: str
    # How long it may take until a host elsewhere obeys (seconds).
    waits: float = 0.0
    # What people are to know until it does; and whether it says why none will.
    note: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Epoch:
    """A writer that claimed the right to append: its number, and who it is."""

    number: int
    host: Mapping[str, Any]


class Store:
    """A folder of sweeps, or a bucket of them.

    Parameters
    ----------
    root : path or str
        The folder `experiments`, made when the first sweep is; or the address of a bucket, as `s3://lab/experiments`.
    """

    def __init__(self, root: str | os.PathLike[str], folder: Folder | None = None):
        self.root = root_path(root)
        self.layout = Layout(self.root)
        self.folder: Folder = folder or folder_of(self.root)

    def names(self) -> list[str]:
        """Names of the sweeps, sorted."""
        return [name for name in self.folder.names(self.root) if self._holds(name)]

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def sweep(self, name: str) -> "SweepStore":
        """Return the sweep of that name; case does not matter.

        Raises
        ------
        UnknownSweep
            Names the sweeps there are.
        """
        found = self._find(name)
        if found is None:
            raise UnknownSweep(self._unknown(name))
        return SweepStore(self.layout.sweep(found), self.folder)

    def create(self, name: str, root_seed: int, contents: Mapping[str, Bytes] | None = None) -> "SweepStore":
        """Make a sweep, whole or not at all.

        Parameters
        ----------
        name : str
        root_seed : int
        contents : mapping of str to bytes, optional
            Files it begins with, by path relative to its folder.

        Raises
        ------
        NameConflict
            No name for a sweep, or one that differs from an existing one in case only.
        AlreadyExists
            The sweep is there.
        """
        name = checked_name(name)
        found = self._find(name)
        if found == name:
            raise AlreadyExists(f"There is a sweep {name!r} in {shown(self.root)} already.")
        if found is not None:
            raise NameConflict(f"{name!r} differs from the sweep {found!r} in case only; choose another name.")
        record = {
            "format": FORMAT,
            "name": name,
            "id": secrets.token_hex(16),
            # JSON readers lose digits of integers beyond 2**53.
            "root_seed": str(root_seed),
            "created": now(),
        }
        paths = self.layout.sweep(name)
        files: dict[str, Bytes] = {"sweep.json": json.dumps(record, indent=1).encode(), **(contents or {})}
        try:
            self.folder.create_folder(paths.folder, files)
        except AlreadyExists:
            self._put_aside(name)
            self.folder.create_folder(paths.folder, files)
        remember_root(self.root)
        return SweepStore(paths, self.folder)

    def _put_aside(self, name: str) -> None:
        """Archive what a writer left in the folder of a sweep that was deleted while it ran."""
        if self._holds(name):
            raise AlreadyExists(f"There is a sweep {name!r} in {shown(self.root)} already.")
        folder = self.layout.sweep(name).folder
        foreign = sorted(set(self.folder.names(folder)) - _LEFT_BEHIND)
        if foreign:
            raise StoreError(
                f"{folder} is no sweep but has files in it ({', '.join(foreign[:3])}). Move it away, or choose another "
                "name."
            )
        with contextlib.suppress(FileNotFoundError):
            SweepStore(self.layout.sweep(name), self.folder).archive()

    def archived(self) -> list[str]:
        """Names of what `--replace` put aside, as `<name>-<n>`."""
        return self.folder.names(self.layout.archive)

    def _holds(self, name: str) -> bool:
        return name.isidentifier() and self.folder.exists(self.layout.root / name / "sweep.json")

    def _find(self, name: str) -> str | None:
        wanted = checked_name(name)
        alike = [entry for entry in self.folder.names(self.root) if entry.casefold() == wanted.casefold()]
        # A file system that ignores case finds any spelling; the recorded one counts.
        if self._holds(wanted):
            return wanted if wanted in alike or not alike else alike[0]
        return next(filter(self._holds, alike), None)

    def _unknown(self, name: str) -> str:
        names = self.names()
        if not names:
            return f"There is no sweep {name!r}: {shown(self.root)} holds none."
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it holds {', '.join(names[:8])}."
        return f"There is no sweep {name!r} in {shown(self.root)}; {hint}"


class SweepStore:
    """Everything kept of one sweep; opening it reads nothing."""

    def __init__(self, paths: SweepLayout, folder: Folder | None = None):
        self.paths = paths
        self.folder: Folder = folder or folder_of(paths.folder)

    def __repr__(self) -> str:
        return f"<sweep {self.paths.folder.name} in {shown(self.paths.folder.parent)}>"

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of sweep.json.

        Raises
        ------
        UnknownSweep, CorruptStore
        """
        try:
            record: dict[str, Any] = json.loads(self.folder.read(self.paths.sweep_json))
            written = int(record["format"])
        except FileNotFoundError:
            raise UnknownSweep(f"There is no sweep in {shown(self.paths.folder)}.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptStore(f"{self.paths.sweep_json} cannot be read ({error}).") from error
        if written > FORMAT:
            raise StoreError(
                f"{self.paths.folder} was written by a newer mce_notebook (format {written}); update yours."
            )
        return record

    @property
    def name(self) -> str:
        """Name of the sweep, which is that of its folder: a folder that is renamed renames its sweep."""
        return self.paths.folder.name

    @property
    def id(self) -> str:
        """Random, and kept when the folder is renamed or copied."""
        return str(self.record["id"])

    @property
    def root(self) -> int:
        """Root seed."""
        return int(self.record["root_seed"])

    # Declarations

    def numbers(self) -> list[int]:
        """Numbers of the declarations, ascending."""
        return self._numbers(self.paths.declarations)

    def declarations(self) -> "list[Declaration]":
        """All declarations, oldest first."""
        return [self.declaration(number) for number in self.numbers()]

    def declaration(self, number: int) -> "Declaration":
        """One declaration; CorruptStore or UnknownSweep if it cannot be read."""
        from mce_notebook.store.answers import read_mask
        from mce_notebook.store.declaration import Declaration, table_digests

        try:
            data = self.folder.read(self.paths.declaration(number))
        except FileNotFoundError:
            if self.gone:
                raise UnknownSweep(self._gone()) from None
            raise UnknownSweep(f"The sweep {self.paths.folder.name!r} has no declaration {number}.") from None
        digests = table_digests(data)
        tables = {name: self._table(digest) for name, digest in digests.items()}
        declaration = replace(Declaration.from_json(data, tables), number=number)
        if not declaration.deferred:
            return declaration
        mask = read_mask(self, declaration.deferred)
        return declaration if mask is None else declaration.answered(mask)

    @property
    def gone(self) -> bool:
        """Whether the folder was deleted, moved or renamed, by whomever."""
        return not self.folder.exists(self.paths.folder / "sweep.json")

    def _gone(self) -> str:
        name = self.paths.folder.name
        return (
            f"The folder of the sweep {name!r} is not at {shown(self.paths.folder)} any more: it was deleted, moved or "
            f"renamed. Run its cell again, or open it by its new name."
        )

    def latest(self) -> "Declaration | None":
        """Return the declaration that holds, None before the first."""
        numbers = self.numbers()
        return self.declaration(numbers[-1]) if numbers else None

    def declare(self, declaration: "Declaration") -> int:
        """Keep a declaration under the next number, durable on return; concurrent declarers get different ones."""
        digests = {name: self._keep_table(array) for name, array in declaration.tables.items()}
        while True:
            number = max(self.numbers(), default=0) + 1
            named = replace(declaration, number=number, created=declaration.created or now())
            try:
                self.folder.create(self.paths.declaration(number), named.to_json(digests))
            except AlreadyExists:
                continue
            remember_root(self.paths.folder.parent)
            return number

    def _table(self, digest: str) -> Any:
        from mce_notebook.store import tables

        try:
            data = self.folder.read(self.paths.table(digest))
        except FileNotFoundError:
            raise CorruptStore(f"{self.paths.table(digest)} is missing; a declaration refers to it.") from None
        return tables.from_bytes(data, digest)

    def _keep_table(self, array: Any) -> str:
        from mce_notebook.store import tables

        digest, data = tables.to_bytes(array)
        with contextlib.suppress(AlreadyExists):
            # Named by its content, so whoever was first wrote the same.
            self.folder.create(self.paths.table(digest), data)
        return digest

    # Intents

    def add_intent(self, verb: str, by: str, waits: float = 0.0, *, note: str = "", refused: bool = False) -> Intent:
        """Record that somebody wants the sweep to run, pause or be cancelled; durable on return."""
        if verb not in VERBS:
            raise StoreError(f"{verb!r} is no intent; expected one of {', '.join(VERBS)}.")
        while True:
            number = max(self._numbers(self.paths.intents), default=0) + 1
            intent = Intent(number, verb, by, now(), waits, note, refused)
            try:
                record = intent_record(verb, by, intent.time, waits, note, refused)
                self.folder.create(self.paths.intent(number), record)
            except AlreadyExists:
                continue
            return intent

    def latest_intent(self) -> Intent | None:
        """Return the intent that holds, None before the first."""
        numbers = self._numbers(self.paths.intents)
        if not numbers:
            return None
        try:
            record = json.loads(self.folder.read(self.paths.intent(numbers[-1])))
            told = (str(record["verb"]), str(record["by"]), str(record["time"]), float(record.get("waits", 0.0)))
            return Intent(numbers[-1], *told, str(record.get("note", "")), bool(record.get("refused")))
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise CorruptStore(f"{self.paths.intent(numbers[-1])} cannot be read ({error}).") from error

    # Objects and code

    def write_object(self, data: bytes | bytearray | memoryview) -> str:
        """Keep bytes under the digest of their content, durable on return."""
        view = memoryview(data)
        digest = object_digest(view)
        if not self.folder.exists(self.paths.object(digest)):
            with contextlib.suppress(AlreadyExists):
                self.folder.create(self.paths.object(digest), data)
        return digest

    def write_code(self, version: str, files: Mapping[str, bytes], python: str = "") -> Path:
        """Keep the code of a version, all files at once; what is there already is left as it is."""
        target = self.code_folder(version, python)
        if not self.folder.exists(target):
            with contextlib.suppress(AlreadyExists):
                self.folder.create_folder(target, files)
        return target

    def replace_code(self, version: str, files: Mapping[str, bytes]) -> None:
        """Put other files in the place of the code of a version; the old ones are gone from it at once."""
        target = self.code_folder(version)
        aside = Layout(self.paths.folder.parent).temporary / f"code-{secrets.token_hex(8)}"
        if self.folder.exists(target):
            self.folder.move(target, aside)
        self.write_code(version, files)
        self.folder.remove(aside)

    def code_folder(self, version: str, python: str = "") -> Path:
        """Folder of a version for one Python (`cpython-311`), or of the version itself."""
        folder = self.paths.code(version)
        return folder / python if python else folder

    def write_environment(self, sha: str, record: Mapping[str, Any]) -> None:
        """Keep a description of the environment under its digest."""
        if not self.folder.exists(self.paths.env(sha)):
            with contextlib.suppress(AlreadyExists):
                self.folder.create(self.paths.env(sha), json.dumps(record, indent=1).encode())

    def environment(self, sha: str) -> dict[str, Any]:
        """Return the description kept under a digest; empty when there is none."""
        try:
            record: dict[str, Any] = json.loads(self.folder.read(self.paths.env(sha)))
        except (FileNotFoundError, ValueError):
            return {}
        return record

    # Writers

    def epochs(self) -> list[Epoch]:
        """Writers so far, oldest first."""
        return [Epoch(number, self._json(self.paths.epoch(number))) for number in self._numbers(self.paths.epochs)]

    def last_epoch(self) -> int:
        """Return the number of the last writer, 0 before the first."""
        return max(self._numbers(self.paths.epochs), default=0)

    def heartbeat(self, epoch: int) -> dict[str, Any]:
        """Return what the writer of an epoch said last; empty when it said nothing yet."""
        return self._json(self.paths.beat(epoch))

    def beat(self, epoch: int, record: Mapping[str, Any]) -> None:
        """Replace the heartbeat of an epoch; not synced, because nothing rests on it."""
        self.folder.replace(self.paths.beat(epoch), json.dumps(record).encode(), durable=False)

    def add_event(self, epoch: int, event: Mapping[str, Any]) -> None:
        """Append what happened to the events of an epoch, for people to read."""
        line = json.dumps({"time": now(), **event}, default=str) + "\n"
        self.folder.append(self.paths.events(epoch), line.encode("utf-8", "backslashreplace"))

    def events(self) -> list[dict[str, Any]]:
        """Events of all writers, oldest first."""
        found = []
        for name in self.folder.names(self.paths.folder / "events"):
            lines = self.folder.read(self.paths.folder / "events" / name).splitlines()
            for line in lines:
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return sorted(found, key=lambda event: str(event.get("time", "")))

    # Files of points

    def artifact_folder(self, index: int, declaration: "Declaration | None" = None) -> Path:
        """Return the folder of what a point left, by its listed index in a declaration (the latest by default).

        It is named by the key of the point, so that extending the grid does not move it.
        """
        shown = declaration or self.latest()
        if shown is None:
            raise UnknownSweep(f"The sweep {self.paths.folder.name!r} has no declaration.")
        ((low, high),) = shown.grid.keys(slice(index, index + 1), constants=shown.constants)
        return self.paths.artifact(f"{int(high):016x}{int(low):016x}")

    def artifacts(self, index: int, declaration: "Declaration | None" = None) -> list[Path]:
        """Return the files a point left, sorted; links are left out, because they may lead anywhere."""
        folder = self.artifact_folder(index, declaration)
        self.folder.fetch(folder)
        return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

    # The whole

    def archive(self) -> Path:
        """Put the sweep aside under `.archive`; its name is free then."""
        layout = Layout(self.paths.folder.parent)
        while True:
            taken = [name.rpartition("-")[2] for name in self.folder.names(layout.archive)]
            number = max((int(text) for text in taken if text.isdigit()), default=0) + 1
            target = layout.archived(self.paths.folder.name, number)
            try:
                self.folder.move(self.paths.folder, target)
            except AlreadyExists:
                continue
            return target

    def remove(self) -> None:
        """Remove the sweep and all its outcomes.

        It vanishes from the store at once; what a kill leaves of it is under `.tmp`.
        """
        target = Layout(self.paths.folder.parent).temporary / f"{self.paths.folder.name}-{secrets.token_hex(8)}"
        self.folder.move(self.paths.folder, target)
        self.folder.remove(target)

    def _numbers(self, path: Path) -> list[int]:
        names = self.folder.names(path)
        return sorted(int(stem) for stem in (name.removesuffix(".json") for name in names) if stem.isdigit())

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self.folder.read(path))
        except (FileNotFoundError, ValueError):
            return {}
        return record
