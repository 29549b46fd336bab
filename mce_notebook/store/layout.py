"""Where everything is kept: every path of the project is made here, and nowhere else.

experiments/<name>/               root: ./experiments, found upward like .git, or MCE_STORE
  sweep.json                      immutable: format version, name, id, root seed
  intents/000001.json             run, pause, cancel; the latest holds
  declarations/000001.json        what was declared; long tables by content under declarations/tables/
  declarations/<key>.mask         the points that slow guards keep; <key>.draft while they are evaluated
  objects/<digest>                captured buffers
  code/<version>/<python>/        source snapshot, closure, pickled function
  env/<sha>.json                  packages, Python, git, hardware
  epochs/000003                   a writer's claim; 000003.beat beside it
  log/e000003/000000.arrows       outcomes; 000000.closed states the length that holds; coverage is a sidecar
  big/e000003/<id>.arrows         large payloads that records of the log refer to
  events/e000003.jsonl            what happened, for people
  artifacts/<point>/              files a point left
  sealed/<id>/data.zarr           the finished cube
experiments/.archive/<name>-<n>   what `--replace` put aside
"""

import os
import re
import unicodedata
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path

from mce_notebook.errors import NameConflict, StoreError
from mce_notebook.store.places import root_path

FOLDER = "experiments"
FORMAT = 1


@dataclass(frozen=True)
class SweepLayout:
    """Paths of one sweep."""

    folder: Path

    @property
    def sweep_json(self) -> Path:
        """What never changes: format, name, id, root seed."""
        return self.folder / "sweep.json"

    @property
    def intents(self) -> Path:
        """Folder of what was asked for."""
        return self.folder / "intents"

    def intent(self, number: int) -> Path:
        """One intent."""
        return self.intents / f"{number:06d}.json"

    @property
    def declarations(self) -> Path:
        """Folder of what was declared."""
        return self.folder / "declarations"

    def declaration(self, number: int) -> Path:
        """One declaration."""
        return self.declarations / f"{number:06d}.json"

    def mask(self, key: str) -> Path:
        """Bitmap of what slow guards keep, beside the declarations, by a key of the guards and the axes."""
        return self.declarations / f"{_checked_key(key, 'guards')}.mask"

    def mask_draft(self, key: str) -> Path:
        """Locate what is known of it while they are evaluated."""
        return self.declarations / f"{_checked_key(key, 'guards')}.draft"

    def table(self, digest: str) -> Path:
        """Locate a long column of a grid, by the digest of its content."""
        return self.declarations / "tables" / f"{digest}.arrow"

    @property
    def objects(self) -> Path:
        """Folder of captured buffers."""
        return self.folder / "objects"

    def object(self, digest: str) -> Path:
        """One captured buffer."""
        return self.objects / digest

    def code(self, version: str) -> Path:
        """Folder of one version of the code."""
        return self.folder / "code" / version

    def env(self, sha: str) -> Path:
        """One description of the environment."""
        return self.folder / "env" / f"{sha}.json"

    @property
    def epochs(self) -> Path:
        """Folder of the claims of writers."""
        return self.folder / "epochs"

    def epoch(self, number: int) -> Path:
        """Locate the claim of one writer."""
        return self.epochs / f"{number:06d}"

    def beat(self, epoch: int) -> Path:
        """Locate the heartbeat of one writer."""
        return self.epochs / f"{epoch:06d}.beat"

    @property
    def log(self) -> Path:
        """Folder of the outcomes."""
        return self.folder / "log"

    def log_epoch(self, epoch: int) -> Path:
        """Folder of the outcomes one writer appended."""
        return self.log / f"e{epoch:06d}"

    def segment(self, epoch: int, number: int) -> Path:
        """One file of the log."""
        return self.log_epoch(epoch) / f"{number:06d}.arrows"

    def closed(self, epoch: int, number: int) -> Path:
        """States the committed length of a segment that gets no more bytes."""
        return self.log_epoch(epoch) / f"{number:06d}.closed"

    def compacted(self, epoch: int, number: int) -> Path:
        """Locate a closed segment in large batches, beside the original."""
        return self.log_epoch(epoch) / f"{number:06d}.compact.arrows"

    def epoch_closed(self, epoch: int) -> Path:
        """States that an epoch gets no more segments."""
        return self.log_epoch(epoch) / "closed"

    def coverage(self, epoch: int) -> Path:
        """Locate the sidecar: the log of an epoch minus its outputs."""
        return self.log_epoch(epoch) / "coverage"

    def elsewhere(self, epoch: int) -> Path:
        """States that the outcomes of an epoch lie in another store: the sidecar is all there is of them here."""
        return self.log_epoch(epoch) / "elsewhere"

    def reserve(self, epoch: int) -> Path:
        """Room that is given up when the disk is full, so that the state can still be recorded."""
        return self.log_epoch(epoch) / "reserve"

    @property
    def big(self) -> Path:
        """Folder of large payloads."""
        return self.folder / "big"

    def big_epoch(self, epoch: int) -> Path:
        """Folder of the large payloads of one epoch."""
        return self.big / f"e{epoch:06d}"

    def events(self, epoch: int) -> Path:
        """Locate what happened in one epoch, for people."""
        return self.folder / "events" / f"e{epoch:06d}.jsonl"

    @property
    def artifacts(self) -> Path:
        """Folder of the files points left."""
        return self.folder / "artifacts"

    def artifact(self, point: str) -> Path:
        """Folder of one point; `point` is 32 hexadecimal digits of its key."""
        return self.artifacts / _checked_key(point, "a point")

    @property
    def sealed(self) -> Path:
        """Folder of finished cubes."""
        return self.folder / "sealed"

    def sealed_cube(self, seal: str) -> Path:
        """One finished cube."""
        return self.sealed / seal / "data.zarr"

    def folders(self) -> list[Path]:
        """List the folders of a sweep."""
        names = (
            "intents",
            "declarations",
            "declarations/tables",
            "objects",
            "code",
            "env",
            "epochs",
            "log",
            "big",
        )
        return [self.folder / name for name in (*names, "events", "artifacts", "sealed")]


@dataclass(frozen=True)
class Layout:
    """Paths of a store.

    Parameters
    ----------
    root : Path
        The folder `experiments`.
    """

    root: Path

    def sweep(self, name: str) -> SweepLayout:
        """Paths of the sweep `name`; raises NameConflict for what cannot be a name."""
        return SweepLayout(self.root / checked_name(name))

    @property
    def archive(self) -> Path:
        """Folder of what `--replace` put aside."""
        return self.root / ".archive"

    def archived(self, name: str, number: int) -> Path:
        """One sweep that was put aside."""
        return self.archive / f"{name}-{number}"

    @property
    def temporary(self) -> Path:
        """Where folders are made before they are renamed into place."""
        return self.root / ".tmp"


def _checked_key(key: str, what: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", key):
        raise StoreError(f"{key!r} is no key of {what}; expected 32 hexadecimal digits.")
    return key


def checked_name(name: str) -> str:
    """Return the name as it is kept (NFKC, as Python does for variables).

    Raises
    ------
    NameConflict
        Not a Python identifier, a keyword, or too long for a file name.
    """
    text = unicodedata.normalize("NFKC", name)
    if not text.isidentifier():
        raise NameConflict(
            f"{name!r} cannot name a sweep; use letters, digits and underscores, not starting with a digit, "
            "as in `recovery_2`."
        )
    if iskeyword(text):
        raise NameConflict(f"{name!r} is a word of Python; choose another name for the sweep.")
    if text.startswith("__"):
        raise NameConflict(f"{name!r} starts with two underscores; choose another name for the sweep.")
    if len(text.encode()) > 200:
        raise NameConflict(f"The name {text[:20]!r}... is longer than 200 bytes; choose a shorter one.")
    return text


def find_root(start: str | os.PathLike[str] | None = None) -> Path:
    """Find the store used from the folder `start` (default: the current one).

    `MCE_STORE` wins, a folder or the address of a bucket; else the nearest `experiments` upward that holds a sweep,
    not leaving a git checkout or the home folder; else `experiments` in `start`, which need not exist.
    """
    named = os.environ.get("MCE_STORE")
    if named:
        return root_path(named)
    here = Path(start if start is not None else Path.cwd()).absolute()
    home = Path.home()
    for folder in (here, *here.parents):
        if _holds_sweeps(folder / FOLDER):
            return folder / FOLDER
        if (folder / ".git").exists() or folder == home:
            break
    return here / FOLDER


def _holds_sweeps(root: Path) -> bool:
    try:
        return any((entry / "sweep.json").is_file() for entry in root.iterdir())
    except OSError:
        return False


def config_folder() -> Path:
    """Per-user settings: `MCE_CONFIG_DIR`, or `mce_notebook` under the XDG configuration folder."""
    named = os.environ.get("MCE_CONFIG_DIR")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mce_notebook"


def roots_folder() -> Path:
    """Locate the entries of stores this user has opened."""
    return config_folder() / "roots"
