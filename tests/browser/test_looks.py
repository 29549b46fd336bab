"""How it looks and draws: both themes, screen readers, a million points, plots without any other server."""

from pathlib import Path

import pytest

from tests.browser.conftest import picture, until
from tests.browser.probe import listed, press, violations, wait_view

AXE = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
FAILING = """%%sweep looked --on local
out = []
for a in range(12):
    for kind in ['adam', 'sgd', 'lbfgs']:
        if kind == 'sgd' and a > 7: raise ValueError(f'diverged at step {a}')
        out.append((a, kind, a * 2.0))"""
LOOP = "out = []\nfor a in range(3):\n    for b in range(4):\n        out.append((a, b, a * b))"
MILLION = """%%sweep million --on local
out = []
for a in range(1000):
    for b in range(1000):
        out.append((a, b, a * b))"""
TAB = ".jp-MainAreaWidget:has(.mce-fill)"

# Frames in which something new was drawn, while the map is dragged to and fro.
PAN = """async seconds => {
  const canvas = document.querySelector('.mce-fill canvas');
  const box = canvas.getBoundingClientRect();
  const send = (kind, x) => canvas.dispatchEvent(new PointerEvent(kind, {
    pointerId: 1, pointerType: 'mouse', button: 0, buttons: kind === 'pointerup' ? 0 : 1, bubbles: true,
    clientX: box.left + x, clientY: box.top + box.height / 2, isPrimary: true }));
  canvas.setPointerCapture = () => {};
  send('pointerdown', box.width / 2);
  let frames = 0;
  const begin = performance.now();
  while (performance.now() - begin < seconds * 1000) {
    send('pointermove', box.width / 2 + 100 * Math.sin(frames / 5));
    await new Promise(done => requestAnimationFrame(done));
    // Reading a pixel back makes the browser finish what it was asked to draw.
    canvas.getContext('2d').getImageData(box.width / 2, box.height / 2, 1, 1);
    frames += 1;
  }
  send('pointerup', box.width / 2);
  return frames / ((performance.now() - begin) / 1000);
}"""
OPEN = """async ([key, name]) => {
  const begin = performance.now();
  window.jupyterapp.commands.execute('mce:open-view', { key, name });
  for (;;) {
    const canvas = document.querySelector('.mce-fill canvas');
    if (canvas?.width > 300) {
      const { width, height } = canvas;
      const [red, green, blue, alpha] = canvas.getContext('2d').getImageData(width * 0.6, height * 0.4, 1, 1).data;
      if (alpha > 0 && green > red + 20) return performance.now() - begin;
    }
    if (performance.now() - begin > 20000) return Infinity;
    await new Promise(done => requestAnimationFrame(done));
  }
}"""


@pytest.fixture(scope="module")
def axe() -> str:
    assert AXE.is_file(), "axe-core is missing: run `make extension` (jlpm install in labextension/)"
    return AXE.read_text()


def test_no_serious_violation_of_accessibility_in_either_theme(lab, window, axe):
    window.go(lab.notebook([FAILING, LOOP], "looks"))
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.state === 'Done'", 60)
    window.execute("mce:show-panel")
    until(lambda: "looked" in listed(window), 20)
    found = []
    for dark in (False, True):
        window.dark(dark)
        theme = "dark" if dark else "light"
        window.page.locator(".mce-cause-button").first.click()
        window.page.wait_for_selector(".mce-row")
        picture(window, f"seen_{theme}")
        found += [f"{theme} {one}" for one in violations(window, "article.mce-view", axe)]
        found += [f"{theme} {one}" for one in violations(window, ".mce-ExperimentsPanel", axe)]
        window.page.locator(".mce-row").first.click()
        window.page.wait_for_selector(".mce-point .mce-replay")
        found += [f"{theme} {one}" for one in violations(window, "article.mce-view", axe)]
        picture(window, f"seen_point_{theme}")
        window.page.locator(".mce-point .mce-link").first.click()
        window.page.locator(".mce-cause-button").first.click()
        window.select(2)
        window.start("mce:sweep-cell")
        window.page.wait_for_selector(".mce-verdict")
        found += [f"{theme} {one}" for one in violations(window, ".mce-SweepDialog", axe)]
        picture(window, f"seen_dialog_{theme}")
        window.page.locator(".jp-Dialog button.jp-mod-reject").click()
        window.wait("() => !document.querySelector('.jp-Dialog')", 10)
    window.dark(False)
    assert found == []


def test_a_million_points_are_drawn_at_once_and_follow_the_hand(lab, window, record_property):
    window.go(
        lab.notebook(
            [MILLION],
            "million",
        )
    )
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.known === 1000000 && state.state === 'Done'", 120)
    window.execute("mce:show-panel")
    until(lambda: "million" in listed(window), 20)
    sweeps = f"{lab.server.address}/mce_notebook/api/sweeps?token={lab.server.token}"
    answer = window.page.request.get(sweeps).json()["sweeps"]
    key = next(one["key"] for one in answer if one["name"] == "million")
    took = window.page.evaluate(OPEN, [key, "million"])
    # Promised: within a second, and at 20 frames a second; other tests may be on the same two cores.
    assert took < 3000, f"drawn after {took:.0f} ms"
    for _ in range(3):
        window.page.locator(".mce-fill button[aria-label='Zoom in']").click()
    frames = window.page.evaluate(PAN, 2)
    assert frames > 8, f"{frames:.1f} frames/s"
    record_property("drawn_ms", round(took))
    record_property("frames_per_second", round(frames))
    picture(window, "seen_million")


def test_plots_need_no_other_server_and_are_there_when_the_notebook_is_opened_again(lab, open_window):
    path = lab.notebook(
        ["%%sweep plotted --on local --block\n" + LOOP, "plotted.plot()"],
        "plotted",
    )
    first = open_window()
    first.go(path)
    first.run_all(120)
    first.page.locator(".bk-Figure canvas").first.wait_for(timeout=30_000)
    picture(first, "seen_plot")
    first.save()
    first.page.close()
    assert (lab.server.folder / path).stat().st_size < 200_000
    again = open_window()
    again.go(path)
    again.page.locator(".bk-Figure canvas:visible, .jp-OutputArea-output img:visible").first.wait_for(timeout=30_000)
    picture(again, "seen_plot_again")


def test_stopping_from_the_tab(lab, window):
    window.go(
        lab.notebook(
            ["%%sweep tabbed --on local\nout = []\nfor a in range(900):\n    time.sleep(0.2)\n    out.append((a, a))"]
        )
    )
    window.run_cell(0)
    window.run_cell(1)
    wait_view(window, "state.known > 0", 60)
    window.execute("mce:show-panel")
    window.page.locator(".mce-item-open", has_text="tabbed").first.click()
    wait_view(window, "state.known > 0", 20, TAB)
    press(window, "Stop", TAB)
    wait_view(window, "state.state === 'Stopped'", 20, TAB)
    picture(window, "seen_one_axis")
