import asyncio
import json
import shutil
import time

import pytest
from tornado.httpclient import HTTPClientError

from mce_notebook.declare.grid import grid
from mce_notebook.store.catalog import Store
from mce_notebook.view import follower as follower_module
from tests.view.conftest import Lab

pytest_plugins = ["pytest_jupyter.jupyter_server"]


@pytest.fixture
def jp_server_config():
    return {"ServerApp": {"jpserver_extensions": {"mce_notebook": True}}}


@pytest.fixture
def lab(jp_root_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("MCE_STORE", raising=False)
    monkeypatch.setenv("MCE_CONFIG_DIR", str(tmp_path / "config"))
    lab = Lab(Store(jp_root_dir / "experiments").create("recovery", 7))
    lab.declare(grid(n=[1, 2, 3], rho=[0.1, 0.2]))
    lab.sweep.add_intent("cancel", "me")
    yield lab
    lab.close()


@pytest.fixture
def connect(jp_ws_fetch, jp_asyncio_loop):
    opened = []

    async def connect():
        opened.append(await jp_ws_fetch("mce_notebook", "api", "live"))
        return opened[-1]

    yield connect
    for socket in opened:
        socket.close()
    # Time for the server to notice, so that its tasks end before its loop does.
    jp_asyncio_loop.run_until_complete(asyncio.sleep(0.1))


async def say(socket, **message):
    await socket.write_message(json.dumps(message))


async def hear(socket, kind, seconds=20):
    """Return the next message of a kind."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = await asyncio.wait_for(socket.read_message(), seconds)
        assert text is not None, "the server hung up"
        message = json.loads(text)
        if message["type"] == kind:
            return message
    raise AssertionError(f"no {kind} within {seconds} s")


async def silence(socket, seconds=0.7):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(socket.read_message(), seconds)


async def test_a_view_at_once_and_whenever_something_changes(lab, connect):
    socket = await connect()
    await say(socket, type="watch", key=lab.sweep.id, x=None, y=None, at={})
    first = await hear(socket, "view")
    assert set(first) == {"type", "key", "view"}
    assert first["view"]["counts"]["done"] == 0
    lab.record([1.0] * 4, (0, 4))
    assert (await hear(socket, "view"))["view"]["counts"]["done"] == 4
    await silence(socket)
    await say(socket, type="unwatch", key=lab.sweep.id)
    lab.record([1.0], (4, 5))
    await silence(socket)


async def test_views_of_one_sweep_with_axes_of_their_own(lab, connect):
    socket = await connect()
    await say(socket, type="watch", id="a", key=lab.sweep.id, x="n", y="rho", at={})
    await say(socket, type="watch", id="b", key=lab.sweep.id, x="rho", y=None, at={"n": 1})
    found = {}
    while len(found) < 2:
        message = await hear(socket, "view")
        found[message["id"]] = message["view"]["heatmap"]
    assert (found["a"]["width"], found["a"]["height"]) == (3, 2)
    assert (found["b"]["width"], found["b"]["height"], found["b"]["at"]) == (2, 1, {"n": 1})
    await say(socket, type="watch", id="b", key=lab.sweep.id, x="n", y=None, at={})
    assert (await hear(socket, "view"))["view"]["heatmap"]["width"] == 3


async def test_axes_that_are_gone_are_said_once_and_others_shown(lab, connect):
    socket = await connect()
    await say(socket, type="watch", id="a", key=lab.sweep.id, x="n", y="rho")
    await hear(socket, "view")
    lab.declare(grid(k=range(5)))
    while (await hear(socket, "view"))["view"]["axes"][0]["name"] != "k":
        pass
    await say(socket, type="watch", id="a", key=lab.sweep.id, x="nothing", y=None)
    assert (await hear(socket, "view"))["view"]["heatmap"]["x"] == "k"


async def test_gone(lab, connect):
    socket = await connect()
    await say(socket, type="watch", id="a", key=lab.sweep.id)
    await hear(socket, "view")
    shutil.rmtree(lab.sweep.paths.folder)
    message = await hear(socket, "gone")
    assert (message["key"], message["id"]) == (lab.sweep.id, "a")
    await say(socket, type="watch", id="b", key="0" * 32)
    assert (await hear(socket, "gone"))["id"] == "b"


async def test_a_view_is_told_anew_after_trouble_that_passed(lab, connect, monkeypatch):
    socket = await connect()
    await say(socket, type="watch", key=lab.sweep.id)
    await hear(socket, "view")
    look = follower_module.Follower.look

    def trouble(self):
        raise OSError("the disk is away")

    monkeypatch.setattr(follower_module.Follower, "look", trouble)
    assert (await hear(socket, "error"))["message"] == "the disk is away"
    monkeypatch.setattr(follower_module.Follower, "look", look)
    assert (await hear(socket, "view"))["view"]["total"] == 6
    await silence(socket)


async def test_the_list_tells_of_a_new_sweep_within_a_second(lab, connect, jp_root_dir):
    socket = await connect()
    await say(socket, type="list")
    first = await hear(socket, "list")
    assert [one["name"] for one in first["sweeps"]] == ["recovery"]
    assert first["clusters"] == [] or {"key", "slots"} <= set(first["clusters"][0])
    await asyncio.sleep(0.6)
    start = time.monotonic()
    Lab(Store(jp_root_dir / "experiments").create("another", 7)).declare(grid(n=[1]))
    while "another" not in [one["name"] for one in (await hear(socket, "list"))["sweeps"]]:
        pass
    # A second, and some for a busy machine.
    assert time.monotonic() - start < 5
    await say(socket, type="unlist")
    Lab(Store(jp_root_dir / "experiments").create("third", 7)).declare(grid(n=[1]))
    await silence(socket, 1.5)


MALFORMED = [
    *("", "{", "[]", "null", "5", '"list"', "{}", '{"type": "rm"}', '{"type": ["list"]}', '{"type": "watch"}'),
    *('{"type": "watch", "key": 5}', '{"type": "watch", "key": ""}', '{"type": "unwatch", "key": {}}'),
    *('{"type": "watch", "key": "k", "x": 5}', '{"type": "watch", "key": "k", "at": []}'),
    *('{"type": "watch", "key": "k", "at": {"n": 1.5}}', '{"type": "watch", "key": "k", "id": 5}'),
    *("[" * 30_000, "x" * (1 << 17), '{"type": "watch", "key": "' + "k" * 200 + '"}'),
]


async def test_malformed_messages_are_answered_and_change_nothing(lab, connect):
    socket = await connect()
    for text in MALFORMED:
        await socket.write_message(text)
        assert (await hear(socket, "error"))["message"], text[:50]
    await socket.write_message(b"\xff\x00", binary=True)
    await hear(socket, "error")
    await say(socket, type="watch", key=lab.sweep.id)
    assert (await hear(socket, "view"))["key"] == lab.sweep.id


async def test_there_is_a_limit_to_what_one_socket_watches(lab, connect):
    socket = await connect()
    for number in range(300):
        await say(socket, type="watch", id=str(number), key=lab.sweep.id)
    assert "256" in (await hear(socket, "error"))["message"]


async def test_many_watchers_have_one_reader(lab, connect, jp_serverapp, monkeypatch):
    made = []
    real = follower_module.Snapshot
    monkeypatch.setattr(follower_module, "Snapshot", lambda *a: made.append(1) or real(*a))
    sockets = [await connect() for _ in range(8)]
    for number, socket in enumerate(sockets):
        await say(socket, type="watch", key=lab.sweep.id, x=["n", "rho"][number % 2])
    for socket in sockets:
        await hear(socket, "view")
    lab.record([1.0] * 4, (0, 4))
    for socket in sockets:
        assert (await hear(socket, "view"))["view"]["counts"]["done"] == 4
    assert made == [1]
    live = jp_serverapp.web_app.settings["mce_notebook"]
    assert list(live._tasks) == [lab.sweep.id]
    for socket in sockets:
        socket.close()
    end = time.monotonic() + 20
    while live._tasks and time.monotonic() < end:
        await asyncio.sleep(0.05)
    assert not live._tasks
    assert not live._watches


@pytest.mark.parametrize("headers", [{}, {"Authorization": "token wrong"}])
async def test_no_socket_without_the_token(lab, http_server, jp_serverapp, jp_base_url, http_server_port, headers):
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    request = HTTPRequest(f"ws://127.0.0.1:{http_server_port[-1]}{jp_base_url}mce_notebook/api/live", headers=headers)
    with pytest.raises(HTTPClientError) as refused:
        await websocket_connect(request)
    assert refused.value.code == 403


async def test_no_socket_for_a_page_of_another_site(
    lab, jp_serverapp, jp_base_url, http_server_port, http_server_client
):
    """Its page makes the browser send the cookie, and its own origin with it."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    token = jp_serverapp.identity_provider.token
    login = await http_server_client.fetch(f"{jp_base_url}?token={token}", follow_redirects=False, raise_error=False)
    cookie = "; ".join(each.partition(";")[0] for each in login.headers.get_list("Set-Cookie"))
    here = f"127.0.0.1:{http_server_port[-1]}"
    url = f"ws://{here}{jp_base_url}mce_notebook/api/live"
    own = await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie, "Origin": f"http://{here}"}))
    own.close()
    with pytest.raises(HTTPClientError) as refused:
        await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie, "Origin": "https://evil.example"}))
    assert refused.value.code == 403
    await asyncio.sleep(0.1)
