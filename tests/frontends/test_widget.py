import json
import threading
import time

import pytest

import mce_notebook as mce
from mce_notebook.errors import ViewError
from mce_notebook.frontends import widget as module
from mce_notebook.frontends.live import LiveView
from mce_notebook.view.mime import SWEEP_TYPE

WIDGET = "application/vnd.jupyter.widget-view+json"


def fails(n, m):
    if n == 3:
        raise ValueError("<script>alert(1)</script>")
    return n


@pytest.fixture
def javascript(tmp_path, monkeypatch):
    """A module as the build would leave it; whether it was built is not our matter here."""
    path = tmp_path / "widget.js"
    path.write_text("export default { render() {} };")
    monkeypatch.setattr(module, "MODULE", path)


@pytest.fixture
def widget(here, javascript):
    shown = mce.sweep(fails, n=[1, 2, 3], m=[5, 6], on="inline", name="run").widget()
    shown.sent = []
    shown.send = lambda content, buffers=None: shown.sent.append(content)
    yield shown
    shown.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "mce-widget"]


def wait(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def ask(widget, method, path, body=None):
    message = {"id": len(widget.sent), "method": method, "path": path, "body": body}
    before = len(widget.sent)
    widget._asked(widget, message, [])
    wait(lambda: len(widget.sent) > before)
    answer = widget.sent[-1]
    assert answer["id"] == message["id"]
    json.dumps(answer, allow_nan=False)
    return answer["status"], answer["body"]


def test_it_has_the_view_before_it_is_shown(widget):
    assert widget.view["name"] == "run"
    assert widget.view["counts"]["failed"] == 2
    assert widget._thread is None


def test_requests_choose_the_axes(widget):
    assert WIDGET in dict(widget._repr_mimebundle_()[0])
    widget.request = {"x": "n", "y": None, "at": {"m": 1}}
    wait(lambda: widget.view["heatmap"]["at"] == {"m": 1})
    widget.request = {"x": "nothing", "y": 5, "at": []}
    wait(lambda: widget.view["heatmap"]["at"] == {})


def test_nothing_is_read_while_it_is_not_on_a_page(widget, monkeypatch):
    widget._repr_mimebundle_()
    wait(lambda: widget._thread is not None)
    widget.displayed = False
    time.sleep(0.6)
    looks = []
    look = widget._follower.look
    monkeypatch.setattr(widget._follower, "look", lambda: looks.append(1) or look())
    time.sleep(0.6)
    assert looks == []
    widget.displayed = True
    wait(lambda: looks)


def test_questions_are_those_of_the_server(widget):
    base = f"api/sweeps/{widget.view['key']}"
    assert ask(widget, "GET", base)[1]["name"] == "run"
    status, rows = ask(
        widget, "GET", f"{base}/failures?limit=1&cause=ValueError%3A%20%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    )
    assert (status, rows["total"], len(rows["rows"])) == (200, 2, 1)
    status, point = ask(widget, "GET", f"{base}/points/{rows['rows'][0]['index']}")
    assert (status, point["message"]) == (200, "<script>alert(1)</script>")
    assert ask(widget, "GET", f"{base}/cell?x=n&column=2&row=0")[1]["total"] == 2
    status, said = ask(widget, "POST", f"{base}/actions", {"verb": "rerun-failed"})
    assert (status, "run it again" in said["message"]) == (409, True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "api/sweeps/0123", None, 404),
        ("GET", "api/sweeps/KEY/../../etc/passwd", None, 404),
        ("GET", "api/sweeps", None, 404),
        ("GET", "api/sweeps/KEY/points/x", None, 400),
        ("GET", "api/sweeps/KEY/points/99", None, 400),
        ("GET", "api/sweeps/KEY/cell", None, 400),
        ("GET", "api/sweeps/KEY?at={", None, 400),
        ("GET", "api/sweeps/KEY?x=nothing", None, 400),
        ("POST", "api/sweeps/KEY/actions", None, 400),
        ("POST", "api/sweeps/KEY/actions", {"verb": "rm"}, 400),
        ("DELETE", "api/sweeps/KEY", None, 404),
        (None, None, None, 404),
        ("GET", "http://[", None, 400),
    ],
)
def test_malformed_questions(widget, method, path, body, status):
    path = path.replace("KEY", widget.view["key"]) if path else path
    found, answer = ask(widget, method, path, body)
    assert found == status
    assert list(answer) == ["message"]


def test_what_is_no_message_is_left_alone(widget):
    for content in (None, [], "x", 5):
        widget._asked(widget, content, [])
    assert widget.sent == []


def test_a_sweep_that_is_removed_says_so(widget):
    widget._repr_mimebundle_()
    mce.open("run").remove()
    wait(lambda: "not there" in widget.view["message"])
    assert widget.view["actions"] == []


def test_an_installation_without_javascript_says_what_to_do(here, monkeypatch):
    monkeypatch.setattr(module, "MODULE", here / "missing.js")
    with pytest.raises(ViewError, match="not built"):
        mce.sweep(fails, n=[1], m=[1], on="inline", name="run").widget()


def test_cells_show_it_in_vs_code_and_colab_only(notebook, javascript):
    cell = "%%sweep run --on inline\nout = []\nfor n in [1, 2]:\n    out.append(n)\n"
    shown = []
    notebook.shell.kernel = object()
    real = LiveView.start
    LiveView.start = lambda self: shown.append(self._bundle(self._look()))
    try:
        assert notebook.run(cell)
        assert WIDGET not in shown[-1]
        notebook.run("__vsc_ipynb_file__ = 'x.ipynb'")
        assert notebook.run(cell)
    finally:
        LiveView.start = real
    assert {WIDGET, SWEEP_TYPE, "text/html"} <= set(shown[-1])
    assert len(json.dumps(shown[-1])) < 100_000
