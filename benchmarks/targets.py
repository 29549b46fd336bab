"""Which benchmarks there are."""

TITLES = {
    "p1": "many cheap points",
    "p2": "a thousand points of 10 ms",
    "p3": "arrays as outcomes",
    "p4": "latency",
    "p5": "extending, and running again",
    "p6": "opening, and looking while it runs",
    "p8": "the kernel and the screen",
    "p9": "planning and importing",
    "p10": "the host",
}
