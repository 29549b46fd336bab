"""Colours of pictures: of status, the same as in the live view's style sheet, and of what surrounds data."""

from mce_notebook.declare.grid import Status

# On white paper, as labextension/style/view.css has them for light themes.
STATUS = {
    Status.PENDING: "#e6e8ea",
    Status.RUNNING: "#7fb8ea",
    Status.DONE: "#38927f",
    Status.FAILED: "#b71c1c",
    Status.KILLED: "#7b1fa2",
    Status.TIMEOUT: "#d95f02",
    Status.SKIPPED: "#b0bec5",
    Status.STALE: "#f2c14e",
}
INK, PALE, RULE = "#263238", "#607d8b", "#cfd8dc"
PENDING, FAILED = STATUS[Status.PENDING], STATUS[Status.FAILED]
# Hatching and crosses are thin: the yellow of stale cells, darker, to be seen on grey and white.
STALE = "#b7950b"
# Paul Tol's bright scheme, distinct for colour-blind readers too, in an order that keeps neighbours apart.
CURVES = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#aa3377",
    "#ccbb44",
    "#66ccee",
    "#994455",
    "#117733",
    "#bbbbbb",
    "#332288",
    "#ddcc77",
    "#44aa99",
)
COLOURMAP = "viridis"
