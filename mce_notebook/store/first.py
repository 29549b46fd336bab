"""Everything a new sweep begins with, as files: it then appears whole, with one rename, or not at all."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mce_notebook.store import tables
from mce_notebook.store.catalog import intent_record, now
from mce_notebook.store.folder import Bytes
from mce_notebook.store.layout import SweepLayout

if TYPE_CHECKING:
    from mce_notebook.store.declaration import Declaration


def first_files(
    declaration: "Declaration",
    *,
    code: Mapping[str, bytes],
    objects: Mapping[str, Bytes],
    facts: Mapping[str, Any],
    by: str,
) -> dict[str, Bytes]:
    """Return what the folder of a sweep holds once it was declared for the first time and asked to run.

    Parameters
    ----------
    declaration : Declaration
        Its number is set to 1.
    code : mapping of str to bytes
        Files of the bundle that `declaration.code` names.
    objects : mapping of str to bytes
        Captured buffers by digest.
    facts : mapping
        The environment that `declaration.environment` names.
    by : str
        Who wants it to run.

    Returns
    -------
    dict of str to bytes
        By path relative to the folder; `sweep.json` is not among them.
    """
    place = SweepLayout(Path("sweep"))
    made = [tables.to_bytes(array) for array in declaration.tables.values()]
    digests = {name: digest for name, (digest, _) in zip(declaration.tables, made, strict=True)}
    files: dict[Path, Bytes] = {place.object(digest): data for digest, data in objects.items()}
    files |= {place.code(declaration.code) / name: data for name, data in code.items()}
    files[place.env(declaration.environment)] = json.dumps(facts, indent=1).encode()
    files |= {place.table(digest): data for digest, data in made}
    named = replace(declaration, number=1, created=declaration.created or now())
    files[place.declaration(1)] = named.to_json(digests)
    files[place.intent(1)] = intent_record("run", by)
    return {path.relative_to(place.folder).as_posix(): data for path, data in files.items()}
