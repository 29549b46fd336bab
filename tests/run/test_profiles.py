"""Profiles of clusters: what a table may say, where it may stand, and what one job of it holds."""

import json
from pathlib import Path

import pytest

from mce_notebook.declare.environment import config_folder
from mce_notebook.declare.options import Options
from mce_notebook.errors import ProfileError, UntrustedCode
from mce_notebook.run.client import launch_for
from mce_notebook.run.clusters.finding import available, find, trust, trusted
from mce_notebook.run.clusters.profiles import BATCH, KEYS, KEYS_OF, profile
from mce_notebook.run.clusters.request import OVERHEAD, JobRequest, resolve
from mce_notebook.run.registry import Launch

TOML = """
[slurm]
queue = "short"
walltime = "2:00:00"

[big]
kind = "slurm"
cores = 8
memory = "64GB"
directives = ["--qos=high"]
environment = { OMP_PROC_BIND = "true" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with profiles, a folder below it, and a configuration folder of its own."""
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    project = tmp_path / "project"
    below = project / "notebooks"
    below.mkdir(parents=True)
    (project / ".git").mkdir()
    (project / "clusters.toml").write_text(TOML)
    monkeypatch.chdir(below)
    return project


def made(name: str = "slurm", **table: object) -> object:
    return profile(name, table, Path("clusters.toml"))


def test_a_project_file_counts_once_it_is_trusted_and_again_when_it_changes(folder: Path) -> None:
    file = folder / "clusters.toml"
    with pytest.raises(UntrustedCode, match=r"mce trust .*clusters\.toml"):
        find("slurm")
    assert trust(file) == ["slurm", "big"]
    assert find("slurm").queue == "short"
    assert find("slurm").walltime == 7200
    assert find("big").memory == 64 * 10**9
    file.write_text(TOML + '\n[more]\nkind = "sge"\n')
    assert not trusted(file)
    with pytest.raises(UntrustedCode):
        find("slurm")


def test_trust_is_of_a_place_and_a_content(folder: Path, tmp_path: Path) -> None:
    trust(folder / "clusters.toml")
    copy = tmp_path / "clusters.toml"
    copy.write_text(TOML)
    assert not trusted(copy)


def test_the_project_hides_the_users_own_profile_of_the_same_name(folder: Path) -> None:
    own = config_folder()
    own.mkdir(parents=True, exist_ok=True)
    (own / "clusters.toml").write_text('[slurm]\nqueue = "mine"\n[home]\nkind = "sge"\n')
    assert find("home").kind == "sge"
    trust(folder / "clusters.toml")
    assert find("slurm").queue == "short"
    assert {name: path.parent for name, path in available().items()} == {"slurm": folder, "big": folder, "home": own}


def test_the_search_stops_at_the_checkout(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clusters.toml").write_text('[above]\nkind = "sge"\n')
    with pytest.raises(ProfileError, match="There is no cluster 'above'; there are local, inline, slurm"):
        find("above")


def test_a_name_nobody_knows_says_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ProfileError, match=r"there are local, inline\. `mce clusters init`"):
        find("slurm")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"walltme": "1h"}, r"no key `walltme`; did you mean `walltime`\? There are account, cores"),
        ({"partition": "short"}, "did you mean `queue`"),
        ({"colour": "red"}, "no key `colour`; there are account, cores"),
        ({"cores": "8"}, "cores is a whole number, 1 or more, not '8'; write cores = 8"),
        ({"cores": True}, "cores is a whole number"),
        ({"cores": 0}, "cores is a whole number"),
        ({"walltime": "soon"}, 'walltime is a time, not \'soon\'; write walltime = "1h"'),
        ({"memory": "much"}, 'memory is an amount of memory, not \'much\'; write memory = "16GB"'),
        ({"directives": "--qos=x"}, r"directives is a list of lines, not '--qos=x'; write directives = \[\"--qos"),
        ({"prologue": ["a\nb"]}, "prologue is a list of lines"),
        ({"queue": "short\n#SBATCH --x"}, "queue is the name of a queue or partition"),
        ({"environment": {"A B": "c"}}, "environment is a table of variables"),
        ({"kind": "slrm"}, "kind 'slrm' is unknown; it is one of local, slurm, .*, as in kind = \"slurm\""),
        ({"kind": "ssh"}, 'ssh is no kind of cluster but the way to one; write kind = "slurm", or "local"'),
        ({"ssh": "me@login"}, "say which Python of me@login has mce_notebook, by its whole path: python = "),
        ({"ssh": "-oProxyCommand=x", "python": "/p"}, "ssh is where to log in, not '-oProxyCommand=x'"),
        ({"ssh": "me@login", "python": "/p", "host": "here"}, "with ssh the host lives where the batch system is"),
        ({"host": "login"}, 'host = "login" needs to know where that is; write ssh = "user@login"'),
        ({"host": "elsewhere"}, "host is one of here, login, job, vm, not 'elsewhere'"),
        ({"kind": "local", "ssh": "me@desk", "python": "/p", "host": "job"}, "kind local has no jobs"),
        ({"kind": "local", "python": "/p"}, "`python` and `folder` belong to `ssh`"),
        ({"kind": "gce"}, "a cluster of kind gce needs `project`, as in project = \"my-project\""),
        ({"kind": "address"}, 'an existing Dask scheduler has an address; write address = "tls://'),
        ({"kind": "address", "address": "here:1"}, 'is the address of a scheduler, not .here:1.; write'),
        ({"kind": "address", "address": "tls://a:1"}, "tls wants certificates; write tls_ca and tls_certificate and"),
        ({"kind": "address", "address": "tcp://a:1", "tls_ca": "x"}, 'tcp knows no .*; write address = "tls://a:1"'),
        ({"kind": "address", "queue": "x"}, "there is no key `queue`; there are address, currency, idle_timeout,"),
        ({"min_workers": 9, "max_workers": 3}, "min_workers = 9 is above max_workers = 3"),
        ({"processes": 9, "cores": 3}, "9 processes do not fit 3 cores"),
        ({"walltime": "2h", "max_walltime": "1h"}, "walltime is above max_walltime"),
        ({"walltime": "5s"}, "holds no work"),
        ({"max_hours": 0}, "max_hours is a number of hours"),
        ({"disk": "1GB"}, "no key `disk`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_what_to_write_instead(table: dict[str, object], told: str) -> None:
    with pytest.raises(ProfileError, match=told):
        made(**table)


def test_a_profile_without_a_kind_has_that_of_its_name_or_is_refused() -> None:
    assert made("sge").kind == "sge"
    with pytest.raises(ProfileError, match="the kind is missing"):
        made("mine")
    with pytest.raises(ProfileError, match="local is built in"):
        made("local", kind="local")


@pytest.mark.parametrize("text", ["[slurm", "kind = 'slurm'"])
def test_a_file_that_is_no_file_of_profiles(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusters.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError, match=r"clusters\.toml"):
        find("slurm")


@pytest.mark.parametrize("kind", BATCH)
def test_examples_in_the_messages_are_valid(kind: str) -> None:
    import tomllib

    lines = [f"{key} = {KEYS[key][2]}" for key in KEYS_OF[kind] if key not in ("kind", "min_workers")]
    found = made("mine", **tomllib.loads("\n".join([f'kind = "{kind}"', *lines])))
    assert found.kind == kind


def test_defaults_are_safe() -> None:
    found = made()
    assert (found.max_workers, found.idle_timeout, found.max_hours, found.min_workers) == (16, 900, 72, 0)


def test_times_are_understood_as_batch_systems_write_them() -> None:
    for text, seconds in {"1-12:00:00": 129600, "01:30:00": 5400, "30:00": 1800, "1.5h": 5400, "90m": 5400}.items():
        assert made(walltime=text).walltime == seconds
    assert made(walltime=3600).walltime == 3600


def test_a_job_is_made_for_what_the_sweep_needs() -> None:
    small = resolve(made(), cores=2, memory=10**9)
    assert (small.cores, small.processes, small.slot_cores, small.memory) == (2, 1, 2, 10**9 + OVERHEAD)
    whole = resolve(made(cores=8, memory="64GB"), cores=3)
    assert (whole.cores, whole.processes, whole.memory) == (8, 2, 64 * 10**9)
    assert whole.slot_memory == 32 * 10**9 - OVERHEAD
    tight = resolve(made(cores=8, memory="10GB"), memory=3 * 10**9)
    assert (tight.cores, tight.processes, tight.slot_memory) == (8, 3, 3 * 10**9)
    devices = resolve(made(cores=8), gpus=2)
    assert (devices.processes, devices.gpus) == (1, 2)
    long = resolve(made(walltime="1h"), timeout=3600.0)
    assert long.walltime == 3720
    assert resolve(made(walltime="1h"), timeout=60.0).walltime == 3600


def test_what_no_job_can_hold_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"has 4 cores, and --cores 8 needs more"):
        resolve(made(cores=4), cores=8)
    with pytest.raises(ProfileError, match=r"has 4 GB, and --memory 8 GB"):
        resolve(made(memory="4GB"), memory=8 * 10**9)
    with pytest.raises(ProfileError, match=r"--timeout 7200 s .* does not fit max_walltime of slurm, 7200 s"):
        resolve(made(max_walltime="2h"), timeout=7200.0)


def test_requests_are_the_same_text_when_they_are_the_same() -> None:
    one = resolve(made(environment={"B": "1", "A": "2"}, directives=["-x"]))
    other = resolve(made(environment={"A": "2", "B": "1"}, directives=["-x"]))
    assert one.to_json() == other.to_json()
    assert JobRequest.from_json(one.to_json()) == one


def test_hosts_are_told_apart_by_what_their_jobs_are(folder: Path) -> None:
    trust(folder / "clusters.toml")
    plain = launch_for(Options(on="big"))
    assert plain.profile == "big"
    assert json.loads(plain.job)["directives"] == ["--qos=high"]
    keys = {plain.key, launch_for(Options(on="big", cores=2)).key, launch_for(Options(on="big", timeout=9e3)).key}
    assert len(keys) == 3
    assert launch_for(Options(on="slurm")).key == launch_for(Options(on="slurm", timeout=60.0)).key
    (folder / "clusters.toml").write_text(TOML.replace("64GB", "32GB"))
    trust(folder / "clusters.toml")
    assert launch_for(Options(on="big")).key not in keys


def test_a_local_profile_is_a_local_host_with_so_many_slots(folder: Path) -> None:
    (folder / "clusters.toml").write_text('[small]\nkind = "local"\nmax_workers = 1\n')
    trust(folder / "clusters.toml")
    found = launch_for(Options(on="small"))
    assert (found.profile, found.workers, found.job, found.here) == ("small", 1, "", True)
    assert Launch().here
    assert not Launch(profile="small").here


def test_what_is_paid_for_a_core_is_part_of_what_a_host_is_for(folder: Path) -> None:
    (folder / "clusters.toml").write_text('[slurm]\nprice = 0.05\nmax_cost = 20\ncurrency = "EUR"\n')
    trust(folder / "clusters.toml")
    found = launch_for(Options(on="slurm"))
    assert (found.price, found.max_cost, found.currency) == (0.05, 20, "EUR")
    (folder / "clusters.toml").write_text("[slurm]\n")
    trust(folder / "clusters.toml")
    assert launch_for(Options(on="slurm")).key != found.key
    with pytest.raises(ProfileError, match="max_cost needs to know what a core costs for an hour"):
        made(max_cost=3)
