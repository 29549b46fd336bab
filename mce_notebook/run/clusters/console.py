"""What VMs say on their consoles, the first serial port: why a worker does not come, and their logs."""

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mce_notebook.errors import CloudError
from mce_notebook.run.clusters.compute import Google
from mce_notebook.run.clusters.vm import ENDED, MARK, REFUSED, UP

log = logging.getLogger("mce_notebook.cluster")

# Between two looks, while the worker has not started yet and after (seconds).
SOON, RARELY = 4.0, 20.0
# So much of each console is kept here; the file has all of it.
TAIL = 20_000


@dataclass
class _Read:
    """One console, as far as it was read."""

    offset: int = 0
    looked: float = -RARELY
    text: str = ""


class Console:
    """The consoles of all VMs of a cluster.

    Parameters
    ----------
    google : Google
    project : str
    logs : Path
        Folder with a file for each VM.
    """

    def __init__(self, google: Google, project: str, logs: Path):
        self._google = google
        self._project = project
        self._logs = logs
        self._all: dict[str, _Read] = {}

    async def read(self, jobs: Iterable[str], *, now: bool = False) -> None:
        """Read what is new on the consoles of some VMs, of each once in a while; or `now`."""
        due = []
        for job in jobs:
            one = self._all.setdefault(job, _Read())
            if now or time.monotonic() - one.looked > (RARELY if UP in one.text else SOON):
                due.append(self._read(job, one))
        await asyncio.gather(*due)

    async def _read(self, job: str, one: _Read) -> None:
        one.looked = time.monotonic()
        zone, _, name = job.partition("/")
        request = self._google.compute.instances().getSerialPortOutput(
            project=self._project, zone=zone, instance=name, port=1, start=str(one.offset)
        )
        try:
            found = await self._google.call(request, missing=True)
        except CloudError as error:
            # One that has just begun or is about to go has none.
            log.debug("the console of %s: %s", name, error)
            return
        text = str((found or {}).get("contents", ""))
        one.offset = int((found or {}).get("next", one.offset))
        if text:
            one.text = (one.text + text)[-TAIL:]
            with (self._logs / f"{name}.log").open("a", encoding="utf-8") as file:
                file.write(text)

    def forget(self, job: str) -> None:
        """Take what comes from now on for that of another VM of the same name."""
        self._all.pop(job, None)

    def end(self, job: str) -> str:
        """Return how the guest of a VM ended, as it says itself; empty while it has not."""
        text = self._text(job)
        return _after(text, REFUSED) or _after(text, ENDED)

    def words(self, job: str) -> tuple[str, bool]:
        """Return what a VM that brought no worker had to say, and whether that none ever will."""
        text = self._text(job)
        refusal = _after(text, REFUSED)
        if refusal:
            return refusal, True
        lines = [re.sub(r"^.*startup-script: ", "", line).strip() for line in text.splitlines()]
        said = [line for line in lines if line and not line.startswith(MARK)]
        return (said[-1] if said else _after(text, ENDED)), False

    def _text(self, job: str) -> str:
        one = self._all.get(job)
        return one.text if one is not None else ""


def _after(text: str, mark: str) -> str:
    """Return the rest of the first line with a mark; empty where there is none, or the line is not whole yet."""
    _, found, rest = text.partition(mark)
    line, whole, _ = rest.partition("\n")
    return line.strip() if found and whole else ""
