"""The panel of experiments: all sweeps and clusters, whatever started them."""

import os
import subprocess
import sys
from pathlib import Path

import mce_notebook as mce
from scripts.lab import Window, jupyterlab
from tests.browser.conftest import Lab, picture, until
from tests.browser.probe import listed, wait_view

SCRIPT = """
import time
out = []
for a in range(40):
    for b in range(25):
        time.sleep(0.1)
        out.append((a, b, a * b))
"""

REVEALED = """%%sweep revealed --on local
out = []
for a in range(600):
    time.sleep(0.2)
    out.append((a, a))"""


def launch(lab, name: str, script: str = SCRIPT) -> subprocess.Popen:
    """Start a sweep with the command line, as a terminal beside JupyterLab would."""
    path = lab.server.folder / f"{name}.py"
    path.write_text(script)
    mce = Path(sys.executable).with_name("mce")
    command = [str(mce), "run", str(path), "--name", name, "--no-block"]
    environment = {**os.environ, "MCE_STORE": str(lab.store)}
    return subprocess.Popen(command, cwd=lab.server.folder, env=environment, stdout=subprocess.PIPE)


def act(window, name: str, label: str) -> None:
    window.page.locator(".mce-item-open", has_text=name).first.hover()
    window.page.locator(f"button[aria-label={label!r}]".replace("'", '"')).click(timeout=10_000)


def test_a_sweep_of_the_command_line_is_listed_within_a_second_and_obeys(lab, window):
    window.go(lab.notebook(["x = 1"]))
    window.execute("mce:show-panel")
    page = window.page
    page.wait_for_selector(".mce-ExperimentsPanel input")
    started = launch(lab, "terminal")
    until(lambda: (lab.store / "terminal" / "sweep.json").exists(), 60)
    listing = until(lambda: "terminal" in listed(window), 10)
    # A second is promised on a machine that is not busy with other tests.
    assert listing < 3, f"listed after {listing:.2f} s"
    started.communicate(timeout=60)
    window.wait("() => /[1-9][0-9]* of 1,000/.test(document.querySelector('.mce-ExperimentsPanel').innerText)", 60)
    assert "running" in page.locator(".mce-Status").inner_text()
    picture(window, "seen_panel")
    act(window, "terminal", "Pause: terminal")
    until(lambda: listed(window)["terminal"].startswith("paused"), 20)
    act(window, "terminal", "Resume: terminal")
    until(lambda: not listed(window)["terminal"].startswith("paused"), 20)
    act(window, "terminal", "Stop: terminal")
    until(lambda: listed(window)["terminal"].startswith("cancelled"), 20)
    # Nothing else of this suite may count as running in the status bar for ever.
    page.locator(".mce-item-open", has_text="terminal").first.click()
    assert wait_view(window, "state.state === 'Stopped'", 20, ".jp-MainAreaWidget:has(.mce-fill)")["total"] == 1000
    picture(window, "seen_tab")


def test_it_inserts_code_reveals_the_cell_and_asks_before_a_busy_cluster_ends(lab, window):
    window.go(
        lab.notebook(
            [
                "x = 1",
                REVEALED,
            ]
        )
    )
    window.run_cell(0)
    window.run_cell(2)
    window.execute("mce:show-panel")
    page = window.page
    until(lambda: "revealed" in listed(window), 20)
    window.select(0)
    act(window, "revealed", "Go to the Cell: revealed")
    window.wait("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex === 2", 10)
    window.select(0)
    act(window, "revealed", "Insert Code That Opens It: revealed")
    window.wait("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex === 1", 10)
    assert window.source(1) == 'import mce_notebook as mce\n\nrevealed = mce.open("revealed")'
    window.run_cell(1)
    wait_view(window, "state.known > 0", 60)
    page.locator(".mce-item.mce-mod-cluster", has_text="revealed").hover()
    page.locator(".mce-item.mce-mod-cluster", has_text="revealed").locator("button").click()
    page.wait_for_selector(".jp-Dialog")
    assert "revealed runs on it" in page.locator(".jp-Dialog").inner_text()
    picture(window, "seen_stop_cluster")
    page.locator(".jp-Dialog button.jp-mod-reject").click()
    assert "revealed" in listed(window)
    act(window, "revealed", "Stop: revealed")
    until(lambda: listed(window)["revealed"].startswith("cancelled"), 20)


def test_pages_go_on_when_the_server_comes_back(runtime, context, tmp_path):
    """The sweep knows nothing of it; what the two pages show catches up by itself."""
    environment = {"MCE_STORE": str(tmp_path / "experiments")}
    known = (
        "() => Number(/([0-9,]+) of 1,000/.exec(document.querySelector('.mce-ExperimentsPanel').innerText)?.[1] ?? 0)"
    )
    with jupyterlab(tmp_path, environment, base_url="/user/anna/") as server:
        lab = Lab(server, tmp_path / "experiments")
        windows = [Window.open(context, server) for _ in range(2)]
        for window in windows:
            window.go(lab.notebook(["x = 1"]))
            window.execute("mce:show-panel")
        launch(lab, "lasting").communicate(timeout=60)
        for window in windows:
            window.wait(f"() => ({known})() > 0", 60)
    before = max(window.page.evaluate(known) for window in windows)
    with jupyterlab(tmp_path, environment, base_url="/user/anna/", again=server):
        for number, window in enumerate(windows):
            window.wait(f"() => ({known})() > {before + 10}", 90)
            picture(window, f"seen_after_restart_{number}")
            window.page.close()
        run = mce.open("lasting", store=tmp_path / "experiments")
        run.cancel()
        until(lambda: run.state == "cancelled", 30)


def test_the_filter_and_the_arrow_keys(lab, window):
    window.go(lab.notebook(["%%sweep keyed_a n=[1,2]\nn", "%%sweep keyed_b n=[1,2]\nn"]))
    window.run_all()
    window.execute("mce:show-panel")
    until(lambda: [listed(window).get(name, "")[:4] for name in ("keyed_a", "keyed_b")] == ["done", "done"], 90)
    page = window.page
    page.keyboard.type("keyed done")
    until(lambda: set(listed(window)) == {"keyed_a", "keyed_b"}, 30)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = "() => document.activeElement.querySelector('.mce-item-name')?.textContent"
    assert page.evaluate(focused) in {"keyed_a", "keyed_b"}
    first = page.evaluate(focused)
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) in {"keyed_a", "keyed_b"} - {first}
    page.keyboard.press("Enter")
    wait_view(window, "state.total === 2", 20, ".jp-MainAreaWidget:has(.mce-fill)")
    page.locator(".mce-filter").fill("nothing like it")
    page.wait_for_selector(".mce-ExperimentsPanel [role=status]")
    assert listed(window) == {}
