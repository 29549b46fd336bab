"""The live view in the output of a cell: live from the store, whatever the kernel does."""

import pytest

from tests.browser.conftest import BASE, picture
from tests.browser.probe import busy, goes_on, press, view, wait_view

SWEEP = """%%sweep {name} --on local
out = []
for a in range(30):
    for b in range(20):
        time.sleep({pause})
        out.append((a, b, a * b))
"""
BLOCK = "# tags: raises-exception\ntime.sleep(100)"


def cell(name: str, pause: float = 0.25) -> str:
    return SWEEP.format(name=name, pause=pause)


def interrupt(window):
    window.execute("notebook:interrupt-kernel")
    window.wait("() => window.jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'idle'", 20)


@pytest.fixture
def started(lab, window):
    """A notebook whose sweep has begun to show points."""
    window.go(lab.notebook([cell("started"), BLOCK], "started"))
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.known > 0", 60)
    yield window
    window.page.keyboard.press("Escape")


def stop_all(window):
    if "Stop" in view(window).get("buttons", []):
        press(window, "Stop")
        wait_view(window, "state.state.includes('Stopped')", 20)


def test_it_is_live_while_the_kernel_is_idle_and_while_it_is_blocked_and_stops_the_sweep_then(started):
    window = started
    assert not busy(window)
    goes_on(window)
    window.run_cell(2, wait=False)
    window.wait("() => window.jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'busy'")
    goes_on(window)
    goes_on(window)
    press(window, "Stop")
    stopped = wait_view(window, "state.state === 'Stopped'", 15)
    assert busy(window), "the sweep must stop without the kernel's help"
    assert stopped["known"] < stopped["total"]
    assert "Resume" in view(window)["buttons"]
    interrupt(window)


def test_a_restarted_kernel_changes_nothing_and_the_cell_run_again_computes_nothing_twice(lab, window):
    window.go(lab.notebook([cell("restarted")], "restarted"))
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.known > 0", 60)
    window.page.evaluate(
        """() => {
          window.restarted = false;
          window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()
            .then(() => { window.restarted = true; });
        }"""
    )
    window.wait("() => window.restarted", 30)
    goes_on(window)
    known = view(window)["known"]
    window.wait("() => window.jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'idle'", 20)
    window.run_all(60)
    assert wait_view(window, "state.total === 600")["known"] >= known
    stop_all(window)


def test_a_notebook_that_was_closed_during_a_sweep_shows_it_live_when_it_is_opened_again(lab, open_window):
    first = open_window()
    path = lab.notebook([cell("reopened")], "reopened")
    first.go(path)
    first.run_cell(0)
    first.run_cell(1)
    known = wait_view(first, "state.known > 0", 60)["known"]
    first.save()
    first.page.close()
    again = open_window()
    again.go(path)
    assert wait_view(again, "state.total === 600")["known"] >= known
    goes_on(again)
    # Now without any kernel at all: the store is enough.
    again.page.evaluate(
        """() => {
          window.ended = false;
          window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => { window.ended = true; });
        }"""
    )
    again.wait("() => window.ended")
    again.go_empty()
    again.execute("docmanager:open", {"path": path, "kernelPreference": {"shouldStart": False, "canStart": False}})
    goes_on(again)
    running = "() => [...window.jupyterapp.serviceManager.sessions.running()].length"
    assert again.page.evaluate(running) == 0
    stop_all(again)


def test_two_notebooks_show_one_sweep(lab, open_window):
    first, second = open_window(), open_window()
    first.go(lab.notebook([cell("shared")], "shared_1"))
    first.run_cell(0)
    first.run_cell(1)
    wait_view(first, "state.known > 0", 60)
    second.go(lab.notebook(["import mce_notebook as mce\nmce.open('shared')"], "shared_2"))
    second.run_all()
    goes_on(second)
    press(second, "Pause")
    for window in (first, second):
        wait_view(window, "state.state === 'Paused'", 20)
    known = [wait_view(window, "true")["known"] for window in (first, second)]
    assert known[0] == known[1]
    press(first, "Stop")
    for window in (first, second):
        wait_view(window, "state.state === 'Stopped'", 20)


def test_text_of_users_is_text(lab, window):
    trap = "<img src=x onerror=window.trapped=1><script>window.trapped=2</script>"
    window.go(
        lab.notebook(
            [
                "%%sweep trapped --on local\n"
                "out = []\n"
                f"for kind in ['plain', {trap!r}]:\n"
                "    for n in range(3):\n"
                "        print(kind)\n"
                "        if kind != 'plain': raise ValueError(kind)\n"
                "        out.append((kind, n, n))"
            ],
            "trapped",
        )
    )
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.state === 'Done'", 60)
    page = window.page
    page.locator(".mce-cause-button").first.click()
    page.locator(".mce-row").first.click()
    page.wait_for_selector(".mce-point pre")
    shown = page.locator(".mce-point").inner_text()
    assert shown.count(trap) >= 2, shown
    assert page.evaluate("() => window.trapped") is None
    assert page.locator(".mce-view img, .mce-view script").count() == 0
    picture(window, "seen_point_with_markup")
    window.execute("mce:show-panel")
    assert page.evaluate("() => window.trapped") is None


def test_a_narrow_window_loses_nothing(lab, window):
    window.page.set_viewport_size({"width": 480, "height": 800})
    window.go(lab.notebook([cell("narrow", 0.002)], "narrow"))
    window.start("application:toggle-left-area")
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.state === 'Done'", 90)
    picture(window, "seen_narrow")
    beyond = window.page.evaluate(
        """() => {
          const view = document.querySelector('article.mce-view');
          const edge = view.getBoundingClientRect().right + 1;
          return [...view.querySelectorAll('button, select, canvas, p, h3, h4, li')]
            .filter(one => one.getClientRects().length && !one.closest('.mce-hidden, .mce-tip')
              && one.getBoundingClientRect().right > edge)
            .map(one => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`);
        }"""
    )
    assert beyond == []


def test_every_request_has_the_prefix_of_the_hub(lab, window):
    window.go(lab.notebook([cell("prefixed", 0.002)], "prefixed"))
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.known > 0", 60)
    address = lab.server.address.split("://")[1]
    ours = [url for url in window.requests if url.startswith(("http:", "ws:"))]
    assert any(url.startswith("ws:") and "/mce_notebook/api/live" in url for url in ours)
    assert [url for url in ours if not url.split("://")[1].startswith(address)] == []
    assert address.endswith(BASE.rstrip("/"))


def test_notebook_7_has_the_view_too(lab, window):
    window.go(lab.notebook([cell("seven", 0.02)], "seven"), front="notebooks")
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.known > 0", 60)
    goes_on(window)
    picture(window, "seen_notebook_7")
    stop_all(window)
