import asyncio
import dataclasses
import json
import shutil
import tempfile
import time
from importlib.metadata import version

import pytest

import mce_notebook as mce
from mce_notebook.declare.grid import Status, grid
from mce_notebook.frontends import server
from mce_notebook.run.client import hosts, stop_host
from mce_notebook.store.catalog import Store
from mce_notebook.store.frames import Failure
from mce_notebook.store.journal import claim_epoch
from tests.view.conftest import Lab
from tests.view.test_progress import dead, me

pytest_plugins = ["pytest_jupyter.jupyter_server"]

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def jp_server_config():
    return {"ServerApp": {"jpserver_extensions": {"mce_notebook": True}}}


@pytest.fixture
def folder(jp_root_dir, tmp_path, monkeypatch):
    """The store a server over an empty folder shows."""
    monkeypatch.delenv("MCE_STORE", raising=False)
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    return jp_root_dir / "experiments"


def made(root, name="recovery", design=None):
    lab = Lab(Store(root).create(name, 7))
    lab.declare(design or grid(n=[1, 2, 3], rho=[0.1, 0.2]))
    return lab


@pytest.fixture
def own_hosts(folder, monkeypatch):
    """A runtime folder of the test's own: hosts of other tests take no code signed with the key of this one."""
    with tempfile.TemporaryDirectory(prefix="mce-") as runtime:
        monkeypatch.setenv("MCE_RUNTIME_DIR", runtime)
        yield
        for host in hosts():
            stop_host(host, timeout=10)


@pytest.fixture
def lab(folder):
    lab = made(folder)
    yield lab
    lab.close()


def failed(cause="boom", message="it broke", traceback="Traceback ..."):
    return Failure(Status.FAILED, "ValueError", message, traceback, "printed", "point", cause)


async def answer(fetch, *path, **more):
    response = await fetch("mce_notebook", *path, **more)
    assert response.headers["Content-Type"].startswith("application/json")
    return json.loads(response.body)


async def post(fetch, *path, body):
    return await answer(fetch, *path, method="POST", body=json.dumps(body))


async def refused(fetch, *path, **more):
    """Status and sentence of an answer that is no success."""
    response = await fetch("mce_notebook", *path, raise_error=False, **more)
    assert response.code >= 400, response.body
    found = json.loads(response.body)
    assert list(found) == ["message"]
    assert "Traceback" not in found["message"]
    return response.code, found["message"]


# Reading


async def test_the_list(lab, jp_fetch):
    lab.record([1.0], (0, 1))
    found = await answer(jp_fetch, "api", "sweeps")
    (summary,) = found["sweeps"]
    assert (summary["name"], summary["total"], summary["known"]) == ("recovery", 6, 1)
    counts = {"pending": 5, "running": 0, "done": 1, "failed": 0, "killed": 0, "timeout": 0, "skipped": 0, "stale": 0}
    assert summary["counts"] == counts
    assert summary["key"] == lab.sweep.id


async def test_one_sweep_its_failures_and_points(lab, jp_fetch):
    lab.record([1.0, None], (0, 2), failures={1: failed(SCRIPT, SCRIPT, SCRIPT)})
    key = lab.sweep.id
    view = await answer(jp_fetch, "api", "sweeps", key)
    assert [axis["name"] for axis in view["axes"]] == ["n", "rho"]
    assert (view["heatmap"]["x"], view["heatmap"]["y"]) == ("rho", "n")
    assert view["causes"] == [{"cause": SCRIPT, "count": 1}]
    other = await answer(jp_fetch, "api", "sweeps", key, params={"x": "n", "at": '{"rho": 1}'})
    assert (other["heatmap"]["x"], other["heatmap"]["y"], other["heatmap"]["at"]) == ("n", None, {"rho": 1})
    rows = await answer(jp_fetch, "api", "sweeps", key, "failures", params={"cause": SCRIPT, "limit": "10"})
    assert rows["total"] == 1
    assert rows["rows"][0]["replay"] == "recovery.replay(n=1, rho=0.2)"
    point = await answer(jp_fetch, "api", "sweeps", key, "points", "1")
    # Text of users travels as it is, for a component that only ever shows it as text.
    assert (point["message"], point["traceback"], point["output"]) == (SCRIPT, SCRIPT, "printed")
    good = await answer(jp_fetch, "api", "sweeps", key, "points", "0")
    assert (good["status"], good["values"], good["worker"]) == ("done", {"mse": "1"}, "w1")
    cell = await answer(
        jp_fetch, "api", "sweeps", key, "cell", params={"x": "rho", "y": "n", "column": "1", "row": "0"}
    )
    assert [(row["index"], row["status"]) for row in cell["rows"]] == [(1, "failed")]


async def test_a_sweep_of_another_store_is_shown_once_it_was_opened(folder, tmp_path, jp_fetch, monkeypatch):
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "somebody"))
    elsewhere = made(tmp_path / "elsewhere", "far")
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    assert (await answer(jp_fetch, "api", "sweeps"))["sweeps"] == []
    assert (await refused(jp_fetch, "api", "sweeps", elsewhere.sweep.id))[0] == 404
    mce.open("far", tmp_path / "elsewhere")
    assert [one["name"] for one in (await answer(jp_fetch, "api", "sweeps"))["sweeps"]] == ["far"]


async def test_stores_below_the_folder_are_found(folder, jp_root_dir, jp_fetch, monkeypatch, tmp_path):
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "somebody"))
    made(jp_root_dir / "course" / "week 1" / "experiments", "deep")
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    assert [one["name"] for one in (await answer(jp_fetch, "api", "sweeps"))["sweeps"]] == ["deep"]


async def test_the_notebook_is_told_relative_to_the_folder(folder, jp_root_dir, jp_fetch):
    store = Store(folder)
    for name, path in {"a": jp_root_dir / "sub" / "x.ipynb", "b": "/etc/passwd", "c": ""}.items():
        Lab(store.create(name, 1)).declare(grid(n=[1]), notebook=str(path))
    found = {one["name"]: one["notebook"] for one in (await answer(jp_fetch, "api", "sweeps"))["sweeps"]}
    assert found == {"a": "sub/x.ipynb", "b": "", "c": ""}


async def test_a_copied_folder_has_a_key_of_its_own(lab, folder, jp_fetch):
    shutil.copytree(folder / "recovery", folder / "zweite")
    found = {one["name"]: one["key"] for one in (await answer(jp_fetch, "api", "sweeps"))["sweeps"]}
    assert found["recovery"] == lab.sweep.id
    assert found["zweite"] != found["recovery"]
    assert (await answer(jp_fetch, "api", "sweeps", found["zweite"]))["name"] == "zweite"


async def test_a_sweep_that_cannot_be_read_is_listed_and_says_why(lab, jp_fetch):
    lab.sweep.paths.declaration(1).write_text("{")
    (summary,) = (await answer(jp_fetch, "api", "sweeps"))["sweeps"]
    assert "cannot be read" in summary["message"]
    assert (await refused(jp_fetch, "api", "sweeps", lab.sweep.id))[0] == 409


# Who may ask


def _paths(key):
    return [
        ("GET", "api/sweeps", None),
        ("GET", f"api/sweeps/{key}", None),
        ("GET", f"api/sweeps/{key}/failures", None),
        ("GET", f"api/sweeps/{key}/cell", None),
        ("GET", f"api/sweeps/{key}/points/0", None),
        ("POST", f"api/sweeps/{key}/actions", '{"verb": "cancel"}'),
        ("POST", "api/clusters/abc/stop", "{}"),
        ("POST", "api/rewrite", '{"source": "1"}'),
        ("GET", f"static/bokeh-{version('bokeh')}/bokeh.min.js", None),
    ]


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_nothing_without_the_token(lab, jp_fetch, jp_serverapp, http_server_client, jp_base_url, token):
    headers = {} if token is None else {"Authorization": f"token {token}"}
    for method, path, body in _paths(lab.sweep.id):
        url = f"{jp_base_url}mce_notebook/{path}"
        response = await http_server_client.fetch(
            url, method=method, body=body, headers=headers, raise_error=False, follow_redirects=False
        )
        assert response.code == 403, (method, path, response.code)
        assert lab.sweep.id.encode() not in response.body
    assert lab.sweep.latest_intent() is None


async def test_a_cookie_alone_may_not_post(lab, jp_serverapp, http_server_client, jp_base_url):
    """A page of another site can make the browser send the cookie, but cannot read the one for XSRF."""
    token = jp_serverapp.identity_provider.token
    login = await http_server_client.fetch(f"{jp_base_url}?token={token}", follow_redirects=False, raise_error=False)
    cookie = "; ".join(each.partition(";")[0] for each in login.headers.get_list("Set-Cookie"))
    assert "username" in cookie
    headers = {"Cookie": cookie, "Content-Type": "application/json"}
    url = f"{jp_base_url}mce_notebook/api/sweeps"
    assert (await http_server_client.fetch(url, headers=headers)).code == 200
    body = '{"verb": "cancel"}'
    url = f"{url}/{lab.sweep.id}/actions"
    response = await http_server_client.fetch(url, method="POST", headers=headers, body=body, raise_error=False)
    assert response.code == 403
    assert lab.sweep.latest_intent() is None


def test_every_handler_asks_who_it_is():
    """As the check of the extension template: every method that is not inherited is decorated."""
    verbs = ("get", "post", "put", "patch", "delete", "head", "options")
    for route, handler in server.ROUTES:
        own = [name for name in verbs if name in vars(handler)]
        assert own, route
        for name in own:
            method = getattr(handler, name)
            names = set()
            while method is not None:
                names.add(method.__code__.co_qualname if hasattr(method.__code__, "co_qualname") else "")
                names |= set(method.__code__.co_names)
                method = getattr(method, "__wrapped__", None)
            assert "current_user" in names, f"{name} of {route} is not authenticated"
            assert "is_authorized" in names or "authorizer" in names, f"{name} of {route} is not authorized"
        assert handler.auth_resource == "mce_notebook"


# What they may not ask


OUTSIDE = [
    "api/sweeps/..%2f..%2fetc%2fpasswd",
    "api/sweeps/../../../etc/passwd",
    "api/sweeps/%2fetc%2fpasswd",
    "api/sweeps/%C3%A9%00",
    "api/sweeps/" + "a" * 65,
    "api/sweeps/0123456789abcdef0123456789abcdef",
    "api/sweeps/0123456789abcdef0123456789abcdef/points/0",
    "api/sweeps/0123456789abcdef0123456789abcdef/failures",
    "static/../../../etc/passwd",
    "static/..%2f..%2f..%2fetc%2fpasswd",
    "static/%2fetc%2fpasswd",
    "static//etc/passwd",
    "static/bokeh-0.0/bokeh.min.js",
    f"static/bokeh-{version('bokeh')}/../bokeh.min.js",
    "api/clusters/..%2f/stop",
]


async def test_no_address_leads_out_of_the_stores(lab, jp_serverapp, http_server_client, jp_base_url):
    headers = {"Authorization": f"token {jp_serverapp.identity_provider.token}"}
    for path in OUTSIDE:
        url = f"{jp_base_url}mce_notebook/{path}"
        response = await http_server_client.fetch(url, headers=headers, raise_error=False)
        assert response.code in (400, 404), (path, response.code)
        assert b"root:" not in response.body, path


async def test_a_link_out_of_the_stores_is_not_followed(lab, folder, tmp_path, jp_fetch, monkeypatch):
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "somebody"))
    outside = made(tmp_path / "outside", "secret")
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    (folder / "secret").symlink_to(tmp_path / "outside" / "secret")
    assert [one["name"] for one in (await answer(jp_fetch, "api", "sweeps"))["sweeps"]] == ["recovery"]
    assert (await refused(jp_fetch, "api", "sweeps", outside.sweep.id))[0] == 404


async def test_a_planted_id_makes_no_address(lab, folder, jp_fetch):
    record = json.loads((folder / "recovery" / "sweep.json").read_text())
    for number, planted in enumerate(["../../etc", "a/b", "", "é", "x" * 300, 5, None, ["a"]]):
        copy = folder / f"planted{number}"
        shutil.copytree(folder / "recovery", copy)
        (copy / "sweep.json").write_text(json.dumps({**record, "id": planted}))
    found = (await answer(jp_fetch, "api", "sweeps"))["sweeps"]
    assert all(one["key"].replace("~", "").isalnum() and one["key"].isascii() for one in found)
    assert "recovery" in [one["name"] for one in found]


QUESTIONS = [
    ("", {"x": "nothing"}),
    ("", {"x": "n", "y": "nothing"}),
    ("", {"at": "{"}),
    ("", {"at": "[1]"}),
    ("", {"at": '{"n": "1"}'}),
    ("", {"at": '{"n": 99}', "x": "rho"}),
    ("", {"at": "[" * 3000}),
    ("", {"x": "n" * 5000}),
    ("/failures", {"offset": "-1"}),
    ("/failures", {"limit": "many"}),
    ("/failures", {"limit": "9" * 30}),
    ("/cell", {}),
    ("/cell", {"column": "99", "row": "0"}),
    ("/cell", {"column": "٣", "row": "0"}),
]


async def test_malformed_questions(lab, jp_fetch):
    for tail, params in QUESTIONS:
        path = f"api/sweeps/{lab.sweep.id}{tail}".split("/")
        assert (await refused(jp_fetch, *path, params=params))[0] == 400, (tail, params)


async def test_points_there_are_not(lab, jp_serverapp, http_server_client, jp_base_url):
    headers = {"Authorization": f"token {jp_serverapp.identity_provider.token}"}
    for index in ("6", "999999999999999", "-1", "1.5", "x"):
        url = f"{jp_base_url}mce_notebook/api/sweeps/{lab.sweep.id}/points/{index}"
        assert (await http_server_client.fetch(url, headers=headers, raise_error=False)).code == 404, index


ORDERS = [
    *("", "{", "[]", "null", '"cancel"', "{}", '{"verb": "rm"}', '{"verb": ["cancel"]}'),
    *("[" * 100_000, "\udcff", "x" * (2 << 20)),
]


async def test_malformed_orders_change_nothing(lab, jp_fetch):
    path = ("api", "sweeps", lab.sweep.id, "actions")
    for order in ORDERS:
        body = order.encode("utf-8", "surrogateescape")
        code, _ = await refused(jp_fetch, *path, method="POST", body=body, allow_nonstandard_methods=True)
        assert code == 400, order[:20]
    assert lab.sweep.latest_intent() is None


# Orders


async def test_orders_are_those_of_the_command_line(lab, jp_fetch):
    path = ("api", "sweeps", lab.sweep.id, "actions")
    assert (await refused(jp_fetch, *path, method="POST", body='{"verb": "rerun-failed"}'))[0] == 409
    epoch = claim_epoch(lab.sweep.paths, me())
    lab.sweep.add_intent("run", "me")
    lab.sweep.beat(epoch, {"state": "running", "time": time.time()})
    assert "pauses" in (await post(jp_fetch, *path, body={"verb": "pause"}))["message"]
    assert lab.sweep.latest_intent().verb == "pause"
    assert "cancel" in (await post(jp_fetch, *path, body={"verb": "cancel"}))["message"]
    assert lab.sweep.latest_intent().verb == "cancel"


async def test_what_cannot_be_started_from_here_says_what_to_do(lab, jp_fetch):
    """No code in this store is signed: nothing is declared, nothing asked for, nothing started."""
    path = ("api", "sweeps", lab.sweep.id, "actions")
    lab.record([None], (0, 1), failures={0: failed()})
    claim_epoch(lab.sweep.paths, me(pid=dead()))
    lab.sweep.add_intent("cancel", "me")
    for verb in ("resume", "rerun-failed"):
        code, message = await refused(jp_fetch, *path, method="POST", body=json.dumps({"verb": verb}))
        assert code == 409
        assert "mce trust recovery" in message
    assert lab.sweep.numbers() == [1]
    assert lab.sweep.latest_intent().verb == "cancel"


async def test_inline_sweeps_go_on_in_their_kernel_only(folder, jp_fetch):
    run = mce.sweep(_fails, n=[1, 2, 3], on="inline", store=folder, name="mine")
    key = Store(folder).sweep("mine").id
    assert "rerun-failed" in (await answer(jp_fetch, "api", "sweeps", key))["actions"]
    code, message = await refused(
        jp_fetch, "api", "sweeps", key, "actions", method="POST", body='{"verb": "rerun-failed"}'
    )
    assert (code, run.state) == (409, "done")
    assert "run it again" in message


async def test_another_python_is_never_started(folder, jp_fetch):
    mce.sweep(_fails, n=[1, 2, 3], on="inline", store=folder, name="mine")
    sweep = Store(folder).sweep("mine")
    latest = sweep.latest()
    facts = {"python": {"executable": "/tmp/evil/python"}}
    sweep.write_environment("f" * 32, facts)
    sweep.declare(
        dataclasses.replace(latest, environment="f" * 32, options={**latest.options, "on": "local"}, number=0)
    )
    code, message = await refused(
        jp_fetch, "api", "sweeps", sweep.id, "actions", method="POST", body='{"verb": "rerun-failed"}'
    )
    assert code == 409
    assert "mce resume mine" in message


def _fails(n):
    if n == 2:
        raise ValueError("two")
    return n


def _slow(n):
    time.sleep(0.05)
    return n


async def test_a_host_obeys_the_server(folder, own_hosts, jp_fetch):
    """Cancel and resume while somebody else's kernel does nothing about it, and failed points once more."""
    mce.sweep(_slow, n=list(range(2000)), on="local", store=folder, name="long")
    sweep = Store(folder).sweep("long")
    path = ("api", "sweeps", sweep.id)
    view = await _until(jp_fetch, path, lambda view: view["counts"]["done"] > 0)
    assert view["state"] == "running"
    (cluster,) = (await answer(jp_fetch, "api", "sweeps"))["clusters"]
    assert cluster["sweeps"] == ["long"]
    await post(jp_fetch, *path, "actions", body={"verb": "cancel"})
    view = await _until(jp_fetch, path, lambda view: view["state"] == "cancelled")
    await post(jp_fetch, *path, "actions", body={"verb": "resume"})
    await _until(jp_fetch, path, lambda now: now["known"] > view["known"])
    await post(jp_fetch, *path, "actions", body={"verb": "cancel"})
    mce.sweep(_fails, n=[1, 2, 3], on="local", store=folder, name="short").wait(60)
    short = ("api", "sweeps", Store(folder).sweep("short").id)
    said = await post(jp_fetch, *short, "actions", body={"verb": "rerun-failed"})
    assert said["message"] == "1 failed point of short is computed again."
    await _until(jp_fetch, short, lambda view: view["state"] == "done")
    latest = Store(folder).sweep("short").latest()
    assert (latest.generation, latest.rerun, latest.number) == (1, "failed", 2)


async def _until(fetch, path, true, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        view = await answer(fetch, *path)
        if true(view):
            return view
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {view}")


async def test_there_is_no_such_cluster(folder, jp_fetch):
    assert (await refused(jp_fetch, "api", "clusters", "abcd", "stop", method="POST", body="{}"))[0] == 404


# Scripts


async def test_scripts_come_from_the_installed_packages(folder, jp_fetch):
    for package, names in {"bokeh": ["bokeh", "bokeh-widgets", "bokeh-tables"], "panel": ["panel"]}.items():
        for name in names:
            response = await jp_fetch("mce_notebook", "static", f"{package}-{version(package)}", f"{name}.min.js")
            assert response.headers["Content-Type"].startswith("text/javascript")
            assert "immutable" in response.headers["Cache-Control"]
            assert len(response.body) > 10_000


# Rewriting


async def test_a_cell_is_rewritten_and_not_run(folder, jp_root_dir, jp_fetch):
    mark = jp_root_dir / "ran"
    source = f"open({str(mark)!r}, 'w')\nerrors = []\nfor n in [1, 2]:\n    errors.append((n, n ** 2))\n"
    found = await post(jp_fetch, "api", "rewrite", body={"source": source})
    assert found["ok"]
    assert found["cell"].startswith("%%sweep errors_sweep\n")
    assert not mark.exists()


async def test_malformed_cells(folder, jp_fetch):
    for body in ({}, {"source": 1}, {"source": "x", "name": 3}, {"source": "x" * 300_000}, {"source": None}):
        assert (await refused(jp_fetch, "api", "rewrite", method="POST", body=json.dumps(body)))[0] == 400
