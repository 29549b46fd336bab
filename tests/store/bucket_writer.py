"""A writer of the log in a bucket, to be killed: `python bucket_writer.py ADDRESS`.

It finds out what is missing, claims an epoch, appends block after block and tells each on its standard output after it
was acknowledged.
"""

import sys

import numpy as np

from mce_notebook.store import bucket_journal
from mce_notebook.store.catalog import Store
from mce_notebook.store.coverage import known, todo
from mce_notebook.store.frames import Outcomes, encode, spill
from mce_notebook.store.journal import claim_epoch, open_journal

BLOCK = 5


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(address: str) -> None:
    bucket_journal.COMMIT_SECONDS = 0.0
    bucket_journal.MERGE = 5
    sweep = Store(address).sweep("killed")
    epoch = claim_epoch(sweep.paths, {})
    declaration = sweep.declaration(1)
    missing = np.flatnonzero(todo(known(sweep, declaration), declaration))
    with open_journal(sweep.paths, epoch, roll=6000) as journal:
        tell("ready")
        for start in range(0, missing.size, BLOCK):
            points = missing[start : start + BLOCK]
            values = [(float(np.sqrt(at)), int(at)) for at in points]
            frames = encode(Outcomes(values), ("a", "b"), declaration=1, ranges=points, meta={"version": "v1"})
            if start % 4 == 0:
                frames = [spill(frame, sweep.paths.big_epoch(epoch)) for frame in frames]
            journal.append(frames)
            tell(" ".join(map(str, points)))


if __name__ == "__main__":
    main(sys.argv[1])
