"""Job scripts of every batch system, beside those that were read and agreed on, in `scripts/`.

`MCE_WRITE_SCRIPTS=1` writes them again; then read the difference.
"""

import asyncio
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mce_notebook.errors import ProfileError
from mce_notebook.run.clusters.fleet import Refused
from mce_notebook.run.clusters.jobqueue import JobQueue, output
from mce_notebook.run.clusters.profiles import BATCH, profile
from mce_notebook.run.clusters.request import JobRequest, resolve
from mce_notebook.run.clusters.script import Site, make_job

HERE = Path(__file__).parent / "scripts"
FULL: dict[str, Any] = {
    "queue": "short",
    "account": "physics",
    "walltime": "2h",
    "cores": 8,
    "memory": "16GB",
    "prologue": ["module load python/3.11"],
    "environment": {"DATA": "/data/my files"},
    "interface": "ib0",
    "python": "/opt/env/bin/python",
}
OWN: dict[str, dict[str, Any]] = {
    "slurm": {"directives": ["--qos=normal"]},
    "sge": {"parallel_environment": "smp", "resources": "h_vmem=2G", "directives": ["-m n"]},
    "pbs": {"directives": ["-m n"]},
    "lsf": {"directives": ["-x"]},
    "htcondor": {"disk": "4GB", "directives": ["requirements = OpSysMajorVer == 9"]},
    "oar": {"directives": ["-t besteffort"]},
}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "MCE_CONFIG_DIR", "MCE_RUNTIME_DIR", "PBS_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", "/src/mce")


def request_of(kind: str, table: dict[str, Any], **needs: Any) -> JobRequest:
    return resolve(profile("mine", {"kind": kind, **table}, Path("clusters.toml")), **needs)


def text(request: JobRequest, tmp_path: Path) -> str:
    job = make_job(request, "mce-1a2b-7", Site("tls://10.0.0.1:40000", tmp_path / "site"))
    return str(job.job_script()).replace(str(tmp_path / "site"), "/scratch/me/.mce/0123456789abcdef")


@pytest.mark.parametrize("kind", BATCH)
def test_the_script_is_the_one_that_was_agreed_on(kind: str, tmp_path: Path) -> None:
    found = text(request_of(kind, {**FULL, **OWN[kind]}, cores=2), tmp_path)
    golden = HERE / f"{kind}.txt"
    if os.environ.get("MCE_WRITE_SCRIPTS"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_making_one_leaves_the_interrupt_of_a_kernel_alone() -> None:
    # In a process of its own, where nobody has imported dask-jobqueue yet.
    code = (
        "import signal; from pathlib import Path\n"
        "from mce_notebook.run.clusters import profiles, request, script\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "asked = request.resolve(profiles.profile('slurm', {}, Path('clusters.toml')))\n"
        "script.make_job(asked, 'mce-1', script.Site('tls://a:1', Path('.')))\n"
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("kind", BATCH)
def test_it_is_a_script_that_the_shell_can_read(kind: str, tmp_path: Path) -> None:
    found = text(request_of(kind, {**FULL, **OWN[kind]}), tmp_path)
    if kind == "htcondor":
        # Its words are in a submit file; $(...) there would be a macro of its own.
        arguments = next(line for line in found.splitlines() if line.startswith("Arguments"))
        assert "$(" not in arguments
        return
    file = tmp_path / "job.sh"
    file.write_text(found)
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("slurm", "#SBATCH --gres=gpu:2"),
        ("sge", "#$ -l gpu=2"),
        ("pbs", "ngpus=2"),
        ("lsf", '#BSUB -gpu "num=2"'),
        ("htcondor", "request_gpus = 2"),
        ("oar", "#OAR -p gpu_count>0"),
    ],
)
def test_gpus_are_asked_for(kind: str, line: str, tmp_path: Path) -> None:
    assert line in text(request_of(kind, {}, gpus=2), tmp_path)


def test_what_a_sweep_needs_is_in_the_request(tmp_path: Path) -> None:
    found = text(request_of("slurm", {"walltime": "1h"}, cores=4, memory=7 * 10**9, timeout=7200.0, gpus=1), tmp_path)
    for line in ("--cpus-per-task=4", "--mem=7G", "-t 02:02:00", "--gres=gpu:1", "--no-requeue"):
        assert line in found, line
    assert "MCE_SLOT_MEMORY=7000000000" in found
    assert "OMP_NUM_THREADS=4" in found
    for kind in BATCH:
        asked = "request_gpus = {gpus}x" if kind == "htcondor" else "-G {gpus}x"
        assert asked.replace("{gpus}", "2") in text(request_of(kind, {"gpu_request": asked}, gpus=2), tmp_path)
    own = text(request_of("slurm", {"gpu_request": "--gres=gpu:a100:{gpus}"}, gpus=2), tmp_path)
    assert "#SBATCH --gres=gpu:a100:2" in own


def test_several_cores_on_grid_engine_need_a_parallel_environment() -> None:
    with pytest.raises(ProfileError, match="parallel_environment"):
        request_of("sge", {"cores": 4})
    with pytest.raises(ProfileError, match="parallel_environment"):
        request_of("sge", {}, cores=4)


def test_quotes_and_blanks_of_values_reach_the_job(tmp_path: Path) -> None:
    value = """it's "a" $HOME `x` ü"""
    found = text(request_of("slurm", {"environment": {"ODD": value}}), tmp_path)
    exports = "\n".join(line for line in found.splitlines() if line.startswith("export ODD"))
    done = subprocess.run(["bash", "-c", f'{exports}\nprintf %s "$ODD"'], capture_output=True, text=True, check=True)
    assert done.stdout == value


def _command(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("kind", "submits", "says", "job"),
    [
        ("slurm", "sbatch", "Submitted batch job 4711", "4711"),
        ("sge", "qsub", 'Your job 4711 ("mce-1a2b-7") has been submitted', "4711"),
        ("pbs", "qsub", "4711.server.example", "4711"),
        ("lsf", "bsub", "Job <4711> is submitted to queue <short>.", "4711"),
        ("htcondor", "condor_submit", "1 job(s) submitted to cluster 4711.", "4711.0"),
        ("oar", "oarsub", "[ADMISSION RULE] ...\nOAR_JOB_ID=4711", "4711"),
    ],
)
def test_ids_and_refusals_of_every_system_are_read(
    kind: str, submits: str, says: str, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (tmp_path / "site").mkdir()
    queue = JobQueue(request_of(kind, {}), Site("tls://10.0.0.1:40000", tmp_path / "site"))
    _command(tools, submits, f"cat <<'E'\n{says}\nE")
    assert asyncio.run(queue.submit("mce-1a2b-7")) == job
    assert job in (tmp_path / "site" / "jobs.json").read_text()
    _command(tools, submits, "echo 'error: no such queue: short' >&2; exit 1")
    with pytest.raises(Refused, match=r"^error: no such queue: short$"):
        asyncio.run(queue.submit("mce-1a2b-8"))
    _command(tools, submits, "echo hello")
    with pytest.raises(Refused, match="hello"):
        asyncio.run(queue.submit("mce-1a2b-9"))


def test_a_system_that_is_not_here_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "site").mkdir()
    queue = JobQueue(request_of("slurm", {}), Site("tls://10.0.0.1:40000", tmp_path / "site"))
    with pytest.raises(Refused, match="There is no sbatch here; start the notebook where slurm jobs are submitted"):
        asyncio.run(queue.submit("mce-1a2b-7"))


def test_what_a_job_printed_is_found_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "mce-1-17.err").write_text("of 17\n")
    (tmp_path / "mce-1-1.o171").write_text("of 171\n")
    assert output(tmp_path, "mce-1-9", "17") == "of 17"
    assert output(tmp_path, "mce-1-9", "171") == "of 171"
    assert re.search("171", output(tmp_path, "mce-1-1.", "999"))
