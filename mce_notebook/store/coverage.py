"""What is known of the points of a declaration, from the sidecars and the end of the log behind them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mce_notebook.declare.grid import Status
from mce_notebook.declare.subsets import selected
from mce_notebook.store.big import Payload, is_there
from mce_notebook.store.catalog import SweepStore
from mce_notebook.store.declaration import Declaration
from mce_notebook.store.frames import Batch
from mce_notebook.store.merge import Source, Standing
from mce_notebook.store.reader import LogReader
from mce_notebook.store.sidecar import Entry, covered, read_sidecar
from mce_notebook.store.spans import Spans, Table, Where, indices_of, put

FAILED = (int(Status.FAILED), int(Status.KILLED), int(Status.TIMEOUT))


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of each listed point.

    Parameters
    ----------
    status : ndarray[N] of uint8
        Of the outcome that counts at the current version; PENDING where there is none.
    stale : ndarray[N] of bool
        No outcome at the current version, but a good one at another.
    seconds : ndarray[N] of float32
        Recorded cost of the outcome that counts, stale ones included; NaN where it was not recorded, 0 where there is
        none.
    generation : ndarray[N] of int32
        Of the outcome that counts at the current version; -1 where there is none.
    problems : list of str
        Damage found on the way.
    """

    status: np.ndarray
    stale: np.ndarray
    seconds: np.ndarray
    generation: np.ndarray
    problems: list[str]

    def writeable(self) -> "Known":
        """Return the same with arrays that can be written to."""
        return Known(self.status.copy(), self.stale.copy(), self.seconds.copy(), self.generation.copy(), self.problems)


@dataclass(frozen=True)
class Cover:
    """What some bytes of the log cover."""

    declaration: int
    version: str
    generation: int
    index: np.ndarray | range | Spans
    status: np.ndarray | None
    seconds: np.ndarray | float | None
    order: tuple[int, int, int]
    big: list[Any] | None = None


def known(sweep: SweepStore, declaration: Declaration) -> Known:
    """Gather what is known of the points of a declaration, at its version.

    Outcomes of other declarations count where they are of the same point, found by label arithmetic between the grids.
    """
    size = declaration.grid.size
    found = unknown(size)
    places = _Places(sweep, declaration)
    standing: Standing | None = None
    for cover in joined(covers(sweep, found.problems)):
        if cover.big is not None and not is_there(sweep.paths.big, Payload.from_json(cover.big)):
            found.problems.append(f"{sweep.paths.big / cover.big[0]} is missing or short; its outcomes are lost")
            continue
        recency = places.recency(cover.declaration)
        if recency is None:
            found.problems.append(
                f"{sweep.paths.folder}: outcomes of declaration {cover.declaration}, which is missing"
            )
            continue
        if standing is None:
            standing, found = Standing(size), found.writeable()
        _enter(found, standing, cover, places.of(cover), cover.version == declaration.version, recency)
    return found


def unknown(size: int) -> Known:
    """Make the record that nothing is known of any of `size` points, as for a sweep that is new.

    Its arrays are read-only and take no memory, whatever their size.
    """
    said = (np.uint8(Status.PENDING), np.False_, np.float32(0), np.int32(-1))
    status, stale, seconds, generation = (np.broadcast_to(one, size) for one in said)
    return Known(status, stale, seconds, generation, [])


def todo(found: Known, declaration: Declaration) -> np.ndarray:
    """Decide which points still have to run, bool[N]."""
    wanted = to_run(
        declaration,
        pending=found.status == int(Status.PENDING),
        stale=found.stale,
        failed=lambda: np.isin(found.status, FAILED),
        older=lambda: found.generation < declaration.generation,
        chosen=lambda: selected(declaration.grid, declaration.selection or {}),
    )
    mask = declaration.grid.mask()
    return wanted if mask is None else wanted & mask


def to_run(
    declaration: Declaration,
    *,
    pending: np.ndarray,
    stale: np.ndarray,
    failed: Callable[[], np.ndarray],
    older: Callable[[], np.ndarray],
    chosen: Callable[[], np.ndarray],
) -> np.ndarray:
    """Decide which points run, from what is known of them.

    New points run; stale ones unless the declaration holds them back; others only where a rerun asks for them and their
    outcome is of an earlier generation, so that a rerun that was cut goes on where it stopped.

    Parameters
    ----------
    declaration : Declaration
    pending, stale : bool[n]
        No outcome at the current version; of these, a good one at another.
    failed, older, chosen : callable
        Return bool[n]: a failure at the current version; an outcome of an earlier generation than the declaration, or
        none; selected by the declaration. Asked only where a rerun wants to know.

    Returns
    -------
    bool[n]
    """
    wanted: np.ndarray = pending & ~stale if declaration.hold_stale and declaration.rerun != "stale" else pending
    if declaration.rerun == "all":
        wanted = pending | older()
    elif declaration.rerun == "failed":
        wanted = wanted | (failed() & older())
    elif declaration.rerun == "points":
        wanted = wanted | (chosen() & older())
    return wanted


def _enter(found: Known, standing: Standing, cover: Cover, where: Where, current: bool, recency: int) -> None:
    source = Source(current, 0 if current else recency, cover.generation, cover.order)
    counts, _ = standing.admit(where, cover.status, source)
    rows: Any = slice(None) if counts is None else counts
    chosen = where if counts is None else indices_of(where)[counts]
    spent = np.nan if cover.seconds is None else cover.seconds
    put(found.seconds, chosen, spent[rows] if isinstance(spent, np.ndarray) else spent)
    if current:
        put(found.status, chosen, int(Status.DONE) if cover.status is None else cover.status[rows])
        put(found.generation, chosen, cover.generation)
    put(found.stale, chosen, not current)


class _Places:
    """Listed indices of one declaration for those of all others."""

    def __init__(self, sweep: SweepStore, declaration: Declaration):
        self._sweep = sweep
        self._wanted = declaration
        self._numbers = set(sweep.numbers())
        self._tables: dict[int, Table] = {}
        self._recency: dict[int, int] | None = None

    def recency(self, number: int) -> int | None:
        """Return the number of the last declaration with the version of this one; None if this one is missing."""
        if self._recency is None:
            versions = {one: self._sweep.declaration(one).version for one in sorted(self._numbers)}
            last = {version: one for one, version in versions.items()}
            self._recency = {one: last[version] for one, version in versions.items()}
        if number == self._wanted.number:
            return number
        return self._recency.get(number)

    def of(self, cover: Cover) -> Where:
        """Return listed indices, a slice, Spans or int64[n], -1 for points outside."""
        index, size = cover.index, self._wanted.grid.size
        table = self._table(cover.declaration)
        if table is not None:
            return table.of(index)
        if isinstance(index, Spans):
            if all(stop <= size for _, stop in index.pairs):
                return index
            index = index.listed
        if isinstance(index, range) and index.stop <= size:
            return slice(index.start, index.stop)
        listed = np.arange(index.start, index.stop) if isinstance(index, range) else index
        return np.where((listed >= 0) & (listed < size), listed, -1)

    def _table(self, number: int) -> Table | None:
        if number == self._wanted.number:
            return None
        if number not in self._tables:
            other = self._sweep.declaration(number)
            places = self._wanted.grid.positions(other.grid, self._wanted.constants, other.constants)
            self._tables[number] = Table(places)
        return self._tables[number]


def covers(sweep: SweepStore, problems: list[str]) -> Iterator[Cover]:
    """Yield what the log covers: from the sidecars as far as they reach, from the log behind them."""
    cursor: dict[tuple[int, int], int] = {}
    for name in sweep.folder.names(sweep.paths.log):
        if name[:1] == "e" and name[1:].isdigit():
            epoch = int(name[1:])
            entries = _trusted(sweep, epoch)
            cursor.update({(epoch, segment): end for segment, end in covered(entries).items()})
            yield from (_of_entry(epoch, entry) for entry in entries)
    reader = LogReader(sweep.paths, cursor)
    yield from map(_of_batch, reader.stream())
    problems.extend(reader.problems)


def vouched(sweep: SweepStore, epochs: Iterable[int]) -> bytes:
    """Return a sidecar that covers what the log of some epochs does, for a store that has none of their outcomes.

    Where a payload is missing, its outcomes are not vouched for.
    """
    wanted = set(epochs)
    found: list[bytes] = []
    for cover in joined(covers(sweep, [])):
        if cover.order[0] in wanted and (cover.big is None or is_there(sweep.paths.big, Payload.from_json(cover.big))):
            found.append(Entry(0, len(found), len(found) + 1, _told(cover)).to_bytes())
    return b"".join(found)


def _told(cover: Cover) -> dict[str, Any]:
    """Return a cover as a sidecar tells it."""
    index, seconds = cover.index, cover.seconds
    spans = index.flat if isinstance(index, Spans) else None
    count = index.size if isinstance(index, Spans) else len(index)
    total = None if seconds is None else float(np.nansum(np.broadcast_to(seconds, count)))
    return {
        "declaration": cover.declaration,
        "version": cover.version,
        "generation": cover.generation,
        "start": index.start if isinstance(index, range) else None,
        "count": count,
        "index": index.astype(np.int64).tobytes() if isinstance(index, np.ndarray) else None,
        "status": None if cover.status is None else cover.status.astype(np.uint8).tobytes(),
        "seconds": total,
        **({"ranges": spans} if spans is not None else {}),
    }


def joined(found: Iterable[Cover]) -> Iterator[Cover]:
    """Join covers of blocks in which all went well, as far as they are of different points of one declaration.

    A block of cheap points is a hundred runs of neighbours; together they are the whole grid, as a rule. Joined covers
    keep the lowest order of theirs: where two hosts computed a point, that decides only whose seconds are told.
    """
    groups: dict[tuple[int, str, int], list[Cover]] = {}
    for cover in found:
        if cover.status is None and cover.big is None and isinstance(cover.index, Spans | range):
            groups.setdefault((cover.declaration, cover.version, cover.generation), []).append(cover)
        else:
            yield cover
    for covers_of_one in groups.values():
        yield from _joined(covers_of_one)


def _joined(alike: Sequence[Cover]) -> Sequence[Cover]:
    if len(alike) == 1 or any(isinstance(cover.seconds, np.ndarray) for cover in alike):
        return alike
    pairs = [_edges(cover.index) for cover in alike]
    spent = [np.nan if cover.seconds is None else cover.seconds for cover in alike]
    edges = np.concatenate(pairs)
    order = np.argsort(edges[:, 0], kind="stable")
    starts, stops = edges[order].T
    if not starts.size:
        # None of them has a point.
        return alike[:1]
    if (starts[1:] < stops[:-1]).any():
        return alike
    seconds = np.repeat(np.array(spent, np.float32), [len(one) for one in pairs])[order]
    breaks = np.flatnonzero(starts[1:] != stops[:-1])
    first, last = np.append(0, breaks + 1), np.append(breaks, len(stops) - 1)
    runs = Spans(tuple(zip(starts[first].tolist(), stops[last].tolist(), strict=True)))
    lowest = min(cover.order for cover in alike)
    return [dataclasses.replace(alike[0], index=runs, seconds=np.repeat(seconds, stops - starts), order=lowest)]


def _edges(index: np.ndarray | range | Spans) -> np.ndarray:
    """Return starts and stops of ranges, int64[n, 2]."""
    pairs = index.pairs if isinstance(index, Spans) else [(index[0], index[-1] + 1)] if len(index) else []
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[found[:, 0] < found[:, 1]]


def _trusted(sweep: SweepStore, epoch: int) -> list[Entry]:
    """Entries of a sidecar whose segments are as long as it says, or lie in another store."""
    entries = read_sidecar(sweep.paths.coverage(epoch))
    if sweep.folder.exists(sweep.paths.elsewhere(epoch)):
        return entries
    ends = covered(entries)
    there = {segment for segment, end in ends.items() if _length(sweep.paths.segment(epoch, segment)) >= end}
    return [entry for entry in entries if entry.segment in there and entry.end <= ends[entry.segment]]


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _of_entry(epoch: int, entry: Entry) -> Cover:
    cover = entry.cover
    index = entry.index
    count = index.size if isinstance(index, Spans) else len(index)
    seconds = None if cover["seconds"] is None else cover["seconds"] / max(1, count)
    order = (epoch, entry.segment, entry.start)
    number, version, generation = cover["declaration"], cover["version"], cover["generation"]
    return Cover(number, version, generation, index, entry.status, seconds, order, cover.get("big"))


def _of_batch(batch: Batch) -> Cover:
    spent: np.ndarray | float | None = batch.seconds
    if spent is None and batch.total is not None:
        spent = batch.total / max(1, len(batch))
    number, version, big = batch.declaration, batch.version, batch.meta.get("big")
    index = batch.index if batch.spans is None else batch.spans
    return Cover(number, version, batch.generation, index, batch.status, spent, batch.order, big)
