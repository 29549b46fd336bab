import os
import shutil
import threading
import time

import numpy as np
import pytest

import mce_notebook as mce
from mce_notebook.declare.grid import Status, grid, zipped
from mce_notebook.errors import UnknownSweep, ViewError
from mce_notebook.store.catalog import Store
from mce_notebook.store.journal import claim_epoch
from mce_notebook.view.heatmap import Request
from mce_notebook.view.live import Feed
from tests.view.test_progress import dead, me

DEFAULT = Request()


@pytest.fixture
def feed(lab):
    feed = Feed(lambda: [lab.sweep.paths.folder.parent])
    yield feed
    feed.close()


@pytest.fixture
def follower(lab, feed):
    """Of the sweep `recovery`, once it is declared."""
    return lambda: feed.follower(lab.sweep.id)


def kinds(view):
    return {axis["name"]: (axis["kind"], axis["labels"][:3]) for axis in view["axes"]}


def test_everything_the_seam_names(lab, follower, failure):
    lab.declare(grid(n=[1, 10, 100, 1000], solver=["euler", "rk4"], on=[False, True]))
    lab.record([1.0, None], (0, 2), failures={1: failure(Status.FAILED)})
    view = follower().view(DEFAULT)
    summary = {
        *("key", "name", "root", "folder", "state", "total", "known", "counts", "rate", "eta", "workers", "elapsed"),
        *("cost", "message", "cluster", "notebook", "created", "actions"),
    }
    more = {"axes", "outputs", "causes", "regions", "heatmap", "problems", "provenance"}
    assert set(follower().summary()) == summary
    assert set(view) == summary | more
    assert kinds(view) == {
        "n": ("number", ["1", "10", "100"]),
        "solver": ("category", ["euler", "rk4"]),
        "on": ("bool", ["False", "True"]),
    }
    assert [axis["log"] for axis in view["axes"]] == [True, False, False]
    assert view["provenance"]["version"] == "v1"
    assert view["actions"] == ["resume", "rerun-failed"]


@pytest.mark.parametrize(
    "design",
    [
        grid(n=[1, 2, 3]),
        grid(n=range(5), m=range(4)).where("n % 2 == 0"),
        grid(n=range(50), m=range(50)).where("n == m"),
        grid(n=[1], m=[2]) + grid(n=[3], k=["a"]),
        zipped(a=[1, 2], b=["x", "<script>"]) * grid(c=[0.1, 0.2]),
        mce.random_design(20, p=(0, 1), q=(1, 2), seed=1),
        grid(n=[0.1 + 0.2, float("inf")], m=[None, "None", 2]),
        grid(t=np.array(["2026-01-01", "2026-01-02"], "M8[D]"), z=[1j, 2.0]),
        grid(n=range(3)).where("n > 5"),
    ],
    ids=["one axis", "guarded", "sparse", "parts", "zip", "design", "odd labels", "dates", "empty"],
)
def test_every_shape_of_grid_has_a_view(lab, follower, design):
    import json

    lab.declare(design)
    view = json.loads(json.dumps(follower().view(DEFAULT), allow_nan=False))
    assert view["total"] == sum(view["counts"].values())
    for axis in view["axes"]:
        assert len(axis["labels"]) == len(axis["positions"]) <= axis["size"]
        follower().view(Request(x=axis["name"]))
    points = [index for index in range(design.size) if view["total"]]
    shown = [follower().point(index) for index in points if _is_point(design, index)]
    assert len(shown) == view["total"]


def _is_point(design, index):
    mask = design.mask()
    return mask is None or bool(mask[index])


def test_replay_finds_the_very_point(lab, follower):
    design = grid(n=[0.1 + 0.2, 1e-300], t=np.array(["2026-01-01", "2026-01-02"], "M8[D]"), s=["a'b", 'c"d'], on=[True])
    lab.declare(design)
    for index in range(design.size):
        words = follower().point(index)["replay"].removeprefix("recovery.replay")
        assert design.index(**eval(f"dict{words}", {})) == index


def test_long_axes_are_told_in_part(lab, follower):
    lab.declare(grid(n=range(10_000), text=["x" * 5000]))
    first, second = follower().view(DEFAULT)["axes"]
    assert (len(first["labels"]), first["positions"][0], first["positions"][-1]) == (65, 0, 9999)
    assert len(second["labels"][0]) == 200


def test_looks_count_what_is_new(lab, follower):
    lab.declare(grid(n=range(10)))
    lab.sweep.add_intent("cancel", "me")
    before = follower().look()
    assert follower().look() == before
    lab.record([1.0] * 3, (0, 3))
    assert follower().look() > before
    assert follower().view(DEFAULT)["counts"]["done"] == 3


def test_running_points_and_a_host_that_dies_are_seen(lab, follower):
    lab.declare(grid(n=range(10)))
    lab.sweep.add_intent("run", "me")
    epoch = claim_epoch(lab.sweep.paths, me())
    lab.sweep.beat(epoch, {"state": "running", "in_flight": [[2, 5]], "time": time.time(), "workers": 2})
    view = follower().view(DEFAULT)
    assert (view["state"], view["counts"]["running"], view["workers"]) == ("running", 3, 2)
    assert view["actions"] == ["pause", "cancel"]
    claim_epoch(lab.sweep.paths, me(pid=dead()))
    assert follower().view(DEFAULT)["state"] == "interrupted"


def test_another_declaration_has_other_axes(lab, follower):
    lab.declare(grid(n=range(3)))
    assert [axis["name"] for axis in follower().view(DEFAULT)["axes"]] == ["n"]
    lab.declare(grid(n=range(4), m=range(5)))
    view = follower().view(Request("m", "n"))
    assert (view["heatmap"]["width"], view["heatmap"]["height"]) == (5, 4)
    lab.declare(grid(k=range(2)))
    with pytest.raises(ViewError, match="no axis 'm'"):
        follower().view(Request("m", "n"))


def test_regions_are_found_beside_the_views(lab, follower, failure):
    lab.declare(grid(dt=[0.01, 0.1, 0.2, 0.5], m=range(10)))
    bad = {row: failure(Status.FAILED, "diverged") for row in range(20, 40)}
    lab.record([1.0] * 20 + [None] * 20, (0, 40), failures=bad)
    end = time.monotonic() + 20
    while not (view := follower().view(DEFAULT))["regions"] and time.monotonic() < end:
        time.sleep(0.05)
    assert view["regions"] == [{"cause": "diverged", "count": 20, "rule": "all dt > 0.1"}]
    assert view["causes"] == [{"cause": "diverged", "count": 20}]


def test_regions_of_a_sweep_that_ended_are_its_last_failures(lab, follower, failure):
    lab.declare(grid(r=range(4), m=range(10)))
    lab.record([None, None], [30, 31], failures={row: failure(Status.FAILED, "diverged") for row in range(2)})
    assert follower().view(DEFAULT)["state"] == "interrupted"
    # Nobody looks for a while: that is no work of the search.
    time.sleep(1.5)
    follower().view(DEFAULT)
    rest = [row for row in range(40) if row not in (30, 31)]
    bad = {at: failure(Status.FAILED, "diverged") for at, row in enumerate(rest) if row >= 30}
    lab.record([None if at in bad else 1.0 for at in range(38)], rest, failures=bad)
    start = time.monotonic()
    expected = [{"cause": "diverged", "count": 10, "rule": "all r = 3"}]
    while follower().view(DEFAULT)["regions"] != expected:
        assert time.monotonic() - start < 15
        time.sleep(0.05)


def test_causes_that_differ_in_a_number_are_told_as_one(lab, follower, failure):
    lab.declare(grid(n=range(62)))
    bad = {row: failure(Status.FAILED, f"diverged at step {row}") for row in range(8)}
    lab.record([None] * 8 + [1.0] * 52, (0, 60), failures=bad)
    lab.record([None], (60, 61), failures={0: failure(Status.KILLED, "exited with status 3")})
    view = follower().view(DEFAULT)
    told = "diverged at step …"
    assert view["causes"] == [{"cause": told, "count": 8}, {"cause": "exited with status 3", "count": 1}]
    assert "2 failed" not in view["message"]
    page = follower().failures(told, 6, 50)
    assert (page["total"], [row["cause"] for row in page["rows"]]) == (8, ["diverged at step 6", "diverged at step 7"])
    assert follower().failures("diverged at step 3", 0, 50)["total"] == 1
    # A page may still know the cause under the name it had before others like it came.
    lab.record([None], (61, 62), failures={0: failure(Status.KILLED, "exited with status 4")})
    assert follower().failures("exited with status …", 0, 50)["total"] == 2
    end = time.monotonic() + 20
    while not (view := follower().view(DEFAULT))["regions"] and time.monotonic() < end:
        time.sleep(0.05)
    assert {"cause": told, "count": 8, "rule": "all n < 8"} in view["regions"]


def test_rows_of_failures_come_in_pages(lab, follower, failure):
    lab.declare(grid(n=range(10)))
    bad = {row: failure(Status.FAILED, f"cause {'ab'[row % 2]}") for row in range(10)}
    lab.record([None] * 10, (0, 10), failures=bad)
    page = follower().failures("cause b", 1, 2)
    assert page["total"] == 5
    assert [row["index"] for row in page["rows"]] == [3, 5]
    assert follower().failures(None, 100, 5) == {"total": 10, "rows": []}
    with pytest.raises(ViewError):
        follower().failures(None, -1, 5)


def test_huge_texts_are_cut(lab, follower):
    from mce_notebook.store.frames import Failure

    lab.declare(grid(n=range(2)))
    long = "é" * 1_000_000
    lab.record([None], (0, 1), failures={0: Failure(Status.FAILED, "E", long, long, "", "point", long)})
    assert len(str(follower().view(DEFAULT))) < 10_000
    assert len(str(follower().point(0))) < 100_000


def test_gone_renamed_and_new_sweeps(lab, feed, follower):
    lab.declare(grid(n=range(3)))
    assert [one["name"] for one in feed.sweeps()] == ["recovery"]
    folder = lab.sweep.paths.folder
    kept = follower()
    folder.rename(folder.with_name("other"))
    with pytest.raises(UnknownSweep):
        kept.look()
    assert [(one["name"], one["key"]) for one in feed.sweeps()] == [("other", lab.sweep.id)]
    assert follower().view(DEFAULT)["name"] == "other"
    Store(folder.parent).create("not_declared_yet", 1)
    assert [one["name"] for one in feed.sweeps()] == ["other"]
    shutil.rmtree(folder.with_name("other"))
    assert feed.sweeps() == []
    with pytest.raises(UnknownSweep):
        follower()


def test_watchers_share_one_snapshot(lab, follower, monkeypatch):
    from mce_notebook.view import follower as module

    made = []
    real = module.Snapshot
    monkeypatch.setattr(module, "Snapshot", lambda *a: made.append(1) or real(*a))
    lab.declare(grid(n=range(100), m=range(100)))
    requests = [Request("n"), Request("m"), Request("m", "n"), DEFAULT] * 5
    found = []
    threads = [threading.Thread(target=lambda r=r: found.append(follower().view(r))) for r in requests]
    for thread in threads:
        thread.start()
    lab.record([1.0] * 5000, (0, 5000))
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(found) == 20


def test_lists_let_go_of_what_ended(lab, feed, follower, monkeypatch):
    from mce_notebook.view import live

    lab.declare(grid(n=range(3)))
    lab.sweep.add_intent("cancel", "me")
    monkeypatch.setattr(live, "IDLE", 0.0)
    (before,) = feed.sweeps()
    assert follower()._snapshot is None
    assert feed.sweeps() == [before]
    assert follower()._snapshot is None
    assert follower().view(DEFAULT)["total"] == 3


def test_looking_loads_no_code(lab, follower, tmp_path):
    """A pickle that would leave a mark lies wherever code may lie."""
    import pickle

    class Mark:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    lab.declare(grid(n=range(3)), code="abc")
    for path in (lab.sweep.code_folder("abc") / "function.pickle", lab.sweep.paths.objects / "abc"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(Mark()))
    lab.record([1.0], (0, 1))
    follower().view(DEFAULT)
    follower().point(0)
    assert not (tmp_path / "executed").exists()


def test_a_million_points(lab, follower):
    lab.declare(grid(n=range(1000), m=range(1000)))
    lab.record(np.zeros(100_000).tolist(), (0, 100_000))
    follower().view(DEFAULT)
    lab.record(np.zeros(100).tolist(), (100_000, 100_100))
    start = time.thread_time()
    view = follower().view(DEFAULT)
    assert view["counts"]["done"] == 100_100
    assert time.thread_time() - start < 0.5


@pytest.mark.parametrize(
    "planted",
    [
        {"options": []},
        {"options": "x"},
        {"notebook": 5},
        {"grid_record": {"parts": 5}},
        {"constants": []},
        {"outputs": [5]},
        {"environment": ["../../x"]},
        {"created": {}},
    ],
)
def test_rubbish_in_one_folder_hides_no_other_sweep(lab, feed, planted):
    import json

    lab.declare(grid(n=range(3)))
    other = Store(lab.sweep.paths.folder.parent).create("other", 1)
    number = other.declare(lab.sweep.declaration(1))
    path = other.paths.declaration(number)
    path.write_text(json.dumps({**json.loads(path.read_text()), **planted}))
    found = {one["name"]: one["message"] for one in feed.sweeps()}
    assert set(found) == {"recovery", "other"}
    assert "cannot be read" not in found["recovery"]


def test_a_sweep_removed_while_all_are_listed_takes_no_other_away(lab, follower, monkeypatch):
    lab.declare(grid(n=range(3)))
    monkeypatch.setattr(Store, "names", lambda self: ["gone", "recovery"])
    assert follower().view(DEFAULT)["total"] == 3


def test_lengths_of_time_are_written_for_people(lab, follower):
    lab.declare(grid(gap=np.array([0, 3_600_000_000, 108_000_000_000, 1_500_000], "m8[us]")))
    assert follower().view(DEFAULT)["axes"][0]["labels"] == ["0 s", "1 h", "30 h", "1500 ms"]
    assert follower().point(1)["replay"] == "recovery.replay(gap=np.timedelta64(3600000000, 'us'))"
