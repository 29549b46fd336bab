"""Compaction: closed segments of many small frames once more, in large batches, beside the originals.

Reading a hundred thousand frames costs far more than reading their bytes. Originals are never touched; a compacted file
that is missing or damaged costs time, not outcomes. All points have an explicit index here, so that any Arrow reader
knows which point a row is.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.folder import LocalFolder
from mce_notebook.store.frames import decode
from mce_notebook.store.messages import pack
from mce_notebook.store.reader import Found, SegmentReader

# Below this many frames there is nothing to gain.
WORTHWHILE = 16
ROWS = 1_000_000
_IDENTITY = ("declaration", "generation", "version", "attempt", "worker")


def compact(sweep: SweepStore, least: int = WORTHWHILE) -> int:
    """Compact every closed segment of at least `least` frames; returns how many were.

    Raises
    ------
    StoreFull, StoreError
        What was compacted before stays.
    """
    done = 0
    if not isinstance(sweep.folder, LocalFolder):
        # A bucket has to be read over the network, where the original is needed anyway.
        return 0
    # Read first, to tell later whether the folder is still this sweep's.
    mine = sweep.id
    for name in sweep.folder.names(sweep.paths.log):
        if name[:1] == "e" and name[1:].isdigit():
            epoch = int(name[1:])
            names = set(sweep.folder.names(sweep.paths.log_epoch(epoch)))
            for entry in sorted(names):
                stem, _, ending = entry.partition(".")
                if ending == "closed" and stem.isdigit() and f"{stem}.compact.arrows" not in names:
                    done += _compact(sweep, mine, epoch, int(stem), least)
    return done


def _compact(sweep: SweepStore, mine: str, epoch: int, number: int, least: int) -> bool:
    try:
        stated = json.loads(sweep.folder.read(sweep.paths.closed(epoch, number)))
        length, frames = int(stated["length"]), int(stated["frames"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    if frames < least:
        return False
    segment = SegmentReader(sweep.paths.segment(epoch, number), committed=length)
    found = list(segment.read())
    if segment.told() or not _disjoint(found):
        return False
    merged = [_merged(group) for group in _groups(found)]
    if len({head for head, _ in merged}) > 1:
        # One file, one schema; blocks of which only some were timed stay as they are.
        return False
    if SweepStore(sweep.paths, sweep.folder).id != mine:
        # Moved meanwhile, and its name used again: these outcomes are not that sweep's.
        return False
    sweep.folder.replace(sweep.paths.compacted(epoch, number), b"".join([merged[0][0], *(body for _, body in merged)]))
    return True


def _index(batch: pa.RecordBatch, record: dict[str, Any]) -> np.ndarray:
    listed = decode(batch, record).index
    return np.arange(listed.start, listed.stop) if isinstance(listed, range) else listed


def _disjoint(found: Sequence[Found]) -> bool:
    # Frames are ranked by their place in the log; a batch has one place, so it may not hold a point twice.
    places = [(record["declaration"], _index(batch, record)) for _, batch, record in found]
    for number in {declaration for declaration, _ in places}:
        index = np.sort(np.concatenate([listed for declaration, listed in places if declaration == number]))
        if np.any(index[1:] == index[:-1]):
            return False
    return True


def _groups(found: Iterable[Found]) -> list[list[Found]]:
    """Frames that may become one batch, those with a payload of their own alone."""
    groups: dict[tuple[Any, ...], list[list[Found]]] = {}
    room: dict[tuple[Any, ...], int] = {}
    for frame in found:
        offset, batch, record = frame
        key = (*(record.get(name) for name in _IDENTITY), offset if "big" in record else None)
        if room.get(key, 0) < batch.num_rows:
            groups.setdefault(key, []).append([])
            room[key] = ROWS
        groups[key][-1].append(frame)
        room[key] -= batch.num_rows
    return [group for listed in groups.values() for group in listed]


def _merged(group: list[Found]) -> tuple[bytes, bytes]:
    offset, first, record = group[0]
    table = pa.Table.from_batches([batch for _, batch, _ in group]).unify_dictionaries().combine_chunks()
    (merged,) = table.to_batches()
    roles = {(one.metadata or {}).get(b"role") for one in first.schema}
    fields, arrays = list(merged.schema), list(merged.columns)
    if b"index" not in roles:
        fields.append(pa.field(_free("_index", fields), pa.int64(), metadata={"role": "index"}))
        arrays.append(pa.array(np.concatenate([_index(batch, one) for _, batch, one in group])))
    if b"seconds" not in roles and all(one["seconds"] is not None for _, _, one in group):
        # Blocks cost differently, and one mean over all of them would hide it.
        spent = [np.full(batch.num_rows, one["seconds"] / batch.num_rows, np.float32) for _, batch, one in group]
        fields.append(pa.field(_free("_seconds", fields), pa.float32(), metadata={"role": "seconds"}))
        arrays.append(pa.array(np.concatenate(spent)))
    total = [one["seconds"] for _, _, one in group]
    kept = {name: record[name] for name in (*_IDENTITY, "big") if name in record}
    kept |= {"start": None, "count": merged.num_rows, "offset": offset, "shapes": _shapes(group)}
    kept["seconds"] = None if None in total else sum(total)
    return pack(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), kept)


def _free(name: str, fields: Sequence[pa.Field]) -> str:
    taken = {one.name for one in fields}
    while name in taken:
        name = f"_{name}"
    return name


def _shapes(group: list[Found]) -> dict[str, Any]:
    """Shapes of the arrays of all frames: one where all agree, else one a row."""
    names = {name for _, _, record in group for name in record.get("shapes", {})}
    merged: dict[str, Any] = {}
    for name in names:
        parts = [record.get("shapes", {}).get(name) for _, _, record in group]
        if all(part == parts[0] and part and not isinstance(part[0], list) for part in parts):
            merged[name] = parts[0]
        elif _dimensions(parts) > 1:
            rows = [_rows(part, batch.num_rows) for part, (_, batch, _) in zip(parts, group, strict=True)]
            merged[name] = [shape for part in rows for shape in part]
    return merged


def _dimensions(parts: Sequence[Any]) -> int:
    for part in parts:
        shapes = part if part and isinstance(part[0], list) else [part or []]
        for shape in shapes:
            if shape:
                return len(shape)
    return 0


def _rows(part: Any, count: int) -> list[list[int]]:
    if part and isinstance(part[0], list):
        return list(part)
    return [list(part or [])] * count
