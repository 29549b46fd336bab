"""A stand-in for PBS: linked as qsub, qstat and qdel, it runs jobs as processes of this machine.

State is a folder per job in FAKE_PBS. Options of the script are checked as far as qsub would: queue, select, walltime.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["FAKE_PBS"])
QUEUES = {"workq"}


def qsub(script: str) -> int:
    text = Path(script).read_text()
    options = dict(re.findall(r"^#PBS -([A-Za-z]) (.*)$", text, re.MULTILINE))
    queue = options.get("q", "workq")
    if queue not in QUEUES:
        return _fail("qsub: Unknown queue")
    if len(options.get("N", "")) > 15:
        return _fail("qsub: illegally formed job identifier")
    if not re.search(r"^#PBS -l select=1:ncpus=\d+:mem=\d+mb", text, re.MULTILINE):
        return _fail("qsub: Illegal attribute or resource value")
    number = len(list(ROOT.glob("[0-9]*"))) + 1
    folder = ROOT / str(number)
    folder.mkdir()
    shutil.copy(script, folder / "script")
    logs = options["o"].split()[-1]
    if queue != "workq" or (ROOT / "full").exists():
        (folder / "comment").write_text("Not Running: Insufficient amount of resource: ncpus")
    else:
        with open(f"{logs}{options['N']}.o{number}", "w") as out:
            child = subprocess.Popen(
                ["bash", str(folder / "script")], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, cwd=Path.home(),
            )  # fmt: skip
        (folder / "pid").write_text(str(child.pid))
    sys.stdout.write(f"{number}.pbs.example\n")
    return 0


def qstat(*words: str) -> int:
    code = 0
    for job in [word for word in words if word != "-f"]:
        folder = ROOT / job
        if not folder.is_dir() or (folder / "deleted").exists() or (_pid(folder) and not _lives(_pid(folder))):
            sys.stderr.write(f"qstat: Unknown Job Id {job}.pbs.example\n")
            code = 153
            continue
        state = "R" if _pid(folder) else "Q"
        sys.stdout.write(f"Job Id: {job}.pbs.example\n    Job_Name = x\n    job_state = {state}\n")
        if (folder / "comment").exists():
            sys.stdout.write(f"    comment = {(folder / 'comment').read_text()}\n")
        sys.stdout.write("\n")
    return code


def qdel(*jobs: str) -> int:
    for job in jobs:
        folder = ROOT / job
        (folder / "deleted").touch()
        if pid := _pid(folder):
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(pid, number)
                except ProcessLookupError:
                    break
                time.sleep(0.3)
    return 0


def _pid(folder: Path) -> int:
    file = folder / "pid"
    return int(file.read_text()) if file.exists() else 0


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def _fail(why: str) -> int:
    sys.stderr.write(why + "\n")
    return 1


if __name__ == "__main__":
    sys.exit({"qsub": qsub, "qstat": qstat, "qdel": qdel}[Path(sys.argv[0]).name](*sys.argv[1:]))
