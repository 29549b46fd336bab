"""The status of every point over two axes, as a picture of at most 1024 x 1024 cells."""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mce_notebook.declare.grid import Status
from mce_notebook.errors import ViewError
from mce_notebook.view.cells import Booleans, Cells, Integers
from mce_notebook.view.gathered import EXCLUDED
from mce_notebook.view.sides import Side, preferred

LARGEST = 1024
# Where points share a cell of the picture, the status that comes last here is shown: bad news must not hide.
TELLING = (
    Status.PENDING,
    Status.SKIPPED,
    Status.DONE,
    Status.STALE,
    Status.RUNNING,
    Status.TIMEOUT,
    Status.KILLED,
    Status.FAILED,
)
_RANK = np.zeros(256, np.uint8)
_RANK[list(TELLING)] = np.arange(1, len(TELLING) + 1)
_STATUS = np.full(len(TELLING) + 1, EXCLUDED, np.uint8)
_STATUS[1:] = TELLING
_KNOWN = np.ones(256, np.uint8)
_KNOWN[[Status.PENDING, Status.RUNNING, EXCLUDED]] = 0


@dataclass(frozen=True)
class Request:
    """Which heatmap is wanted.

    Parameters
    ----------
    x, y : str or None
        Names of axes. Without `x` both are chosen; with `x` alone it is drawn over one axis.
    at : tuple of (str, int)
        Positions along other axes; those not named are aggregated over.
    """

    x: str | None = None
    y: str | None = None
    at: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, x: Any = None, y: Any = None, at: Any = None) -> "Request":
        """Check what came over the wire.

        Raises
        ------
        ViewError
            With what is expected instead.
        """
        if not all(name is None or isinstance(name, str) for name in (x, y)):
            raise ViewError("x and y are names of axes, or null.")
        if at is not None and not isinstance(at, Mapping):
            raise ViewError('at is an object of positions by name of axis, such as {"n": 3, "seed": null}.')
        places = {name: place for name, place in dict(at or {}).items() if place is not None}
        if not all(isinstance(name, str) and type(place) is int for name, place in places.items()):
            raise ViewError('at is an object of positions by name of axis, such as {"n": 3, "seed": null}.')
        return cls(x or None, y or None, tuple(sorted(places.items())))


class Heatmap:
    """What stays the same from look to look of one heatmap of one grid.

    Parameters
    ----------
    cells : Cells
    sides : sequence of Side
        As `sides_of` gives them for these cells.
    request : Request

    Raises
    ------
    ViewError
        For an axis there is not, or a position outside of one.
    """

    def __init__(self, cells: Cells, sides: Sequence[Side], request: Request):
        self._cells = cells
        self._sides = {side.name: side for side in sides}
        x, y = (request.x, request.y) if request.x is not None else preferred(sides)
        self.x, self.y = self._side(x), None if y is None or y == x else self._side(y)
        self.at = {name: place for name, place in request.at if name not in (x, y)}
        for name, place in self.at.items():
            if not 0 <= place < self._side(name).size:
                raise ViewError(f"The axis {name!r} has {self._side(name).size} labels, so no position {place}.")
        self._bins = tuple(math.ceil(side.size / LARGEST) if side else 1 for side in (self.x, self.y))
        self.width, self.height = (
            math.ceil(side.size / bins) if side else 1 for side, bins in zip((self.x, self.y), self._bins, strict=True)
        )
        self._cube = self.x.codes is None
        self._pixels: Integers | None = None
        self._chosen: Booleans | None = None
        if not self._cube:
            self._pixels, self._chosen = self._placed()
        points = np.ones(cells.size, np.uint8)
        if cells.excluded is not None:
            points[cells.excluded] = 0
        self._total = self._counted(points)
        # Dividing a million integers takes longer than all the rest.
        self._weight = (255 / np.maximum(self._total, 1)).astype(np.float32)
        self._single = self._bins == (1, 1) and self._cube and self._drawn() == {*cells.dims} - {*self.at}

    def _side(self, name: str | None) -> Side:
        if name is None or name not in self._sides:
            raise ViewError(f"There is no axis {name!r}; there is {', '.join(self._sides) or 'none'}.")
        return self._sides[name]

    # ---- one look ----

    def paint(self, status: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Aggregate the status of all cells.

        Returns
        -------
        (uint8[height, width], uint8[height, width])
            The status shown, and the share of the points that is known: 255 only where all of them are, 0 only where
            none is.
        """
        known = _KNOWN[status]
        if self._single:
            # A point for every cell of the picture.
            return self._highest(status), self._highest(known * np.uint8(255))
        shown = _STATUS[self._highest(_RANK[status])]
        count = self._counted(known)
        share = (count * self._weight).astype(np.uint8)
        share[(share == 0) & (count > 0)] = 1
        share[(share == 255) & (count < self._total)] = 254
        share[(count == self._total) & (count > 0)] = 255
        return shown, share

    def told(self, status: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """Return the same in JSON, the cells as base64 of deflated bytes."""
        cells = np.stack(self.paint(status), axis=-1)
        return {
            "x": self.x.name,
            "y": None if self.y is None else self.y.name,
            "width": self.width,
            "height": self.height,
            "bin": list(self._bins),
            "at": {name: self.at.get(name) for name in self._sides if name not in self._drawn()},
            # The fastest level: these bytes are made anew for every look, and mostly stay on this machine.
            "cells": base64.b64encode(zlib.compress(cells.tobytes(), 1)).decode("ascii"),
        }

    def _drawn(self) -> set[str]:
        return {side.name for side in (self.x, self.y) if side is not None}

    @staticmethod
    def rank(status: npt.NDArray[np.uint8]) -> Integers:
        """Return how telling each status is."""
        return _RANK[status].astype(np.int64)

    def cells_in(self, column: int, row: int) -> Integers:
        """Return the flat cells that one cell of the picture stands for, guarded ones left out."""
        if not (0 <= column < self.width and 0 <= row < self.height):
            raise ViewError(f"The picture has {self.width} x {self.height} cells, so none at {column}, {row}.")
        here: Booleans | None = None
        for side, place, bins in ((self.x, column, self._bins[0]), (self.y, row, self._bins[1])):
            if side is not None:
                here = self._within(side, place * bins, (place + 1) * bins, here)
        for name, place in self.at.items():
            here = self._within(self._sides[name], place, place + 1, here)
        assert here is not None
        found = np.flatnonzero(here)
        return found if self._cells.excluded is None else found[~self._cells.excluded[found]]

    def _within(self, side: Side, low: int, high: int, here: Booleans | None) -> Booleans:
        codes = side.codes
        if codes is None:
            shape = self._cells.shape
            axis = self._cells.dims.index(side.name)
            inner = math.prod(shape[axis + 1 :])
            codes = np.arange(self._cells.size) // inner % shape[axis]
        inside: Booleans = (codes >= low) & (codes < high)
        return inside if here is None else here & inside

    # ---- a cube: by its shape ----

    def _folded(self, values: npt.NDArray[Any], add: bool) -> npt.NDArray[Any]:
        dims = self._cells.dims
        selected = tuple(self.at.get(dim, slice(None)) for dim in dims)
        array = values.reshape(self._cells.shape)[selected]
        left = [dim for dim in dims if dim not in self.at]
        rest = tuple(axis for axis, dim in enumerate(left) if dim not in self._drawn())
        if rest:
            array = array.sum(axis=rest, dtype=np.int32) if add else array.max(axis=rest)
        elif add:
            array = array.astype(np.int32)
        if self.y is None:
            array = array[np.newaxis, :]
        elif left.index(self.x.name) < left.index(self.y.name):
            array = array.T
        reduce: Any = np.add if add else np.maximum
        for axis, bins in ((0, self._bins[1]), (1, self._bins[0])):
            if bins > 1:
                array = reduce.reduceat(array, np.arange(0, array.shape[axis], bins), axis=axis)
        return array

    # ---- scattered points: by the pixel of each ----

    def _placed(self) -> tuple[Integers, Booleans | None]:
        assert self.x.codes is not None
        pixels = self.x.codes // self._bins[0]
        if self.y is not None:
            assert self.y.codes is not None
            pixels = pixels + self.y.codes // self._bins[1] * self.width
        chosen: Booleans | None = None
        for name, place in self.at.items():
            chosen = self._within(self._sides[name], place, place + 1, chosen)
        return (pixels if chosen is None else pixels[chosen]), chosen

    def _highest(self, ranks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if self._pixels is None:
            return self._folded(ranks, add=False)
        found = np.zeros(self.width * self.height, np.uint8)
        np.maximum.at(found, self._pixels, ranks if self._chosen is None else ranks[self._chosen])
        return found.reshape(self.height, self.width)

    def _counted(self, ones: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        if self._pixels is None:
            return self._folded(ones, add=True)
        weights = ones if self._chosen is None else ones[self._chosen]
        found = np.bincount(self._pixels, weights=weights, minlength=self.width * self.height)
        return found.astype(np.int32).reshape(self.height, self.width)
