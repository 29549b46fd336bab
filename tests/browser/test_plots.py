"""Live plots in a real page: they come alive offline, move while a cell blocks the kernel, and leave an image."""

import json

SWEEP = """%%sweep {name}
rows = []
for k in [1, 2]:
    for delta in np.linspace(0.1, 0.9, 8):
        for rho in np.logspace(-3, 0, 10):
            time.sleep(0.1)
            rows.append((k, delta, rho, k * rho * delta))"""
FIGURES = "() => document.querySelectorAll('[data-root-id]').length"
# Titles say how much is known; they are drawn on a canvas, so the document is asked.
TITLES = """() => (window.Bokeh?.documents ?? []).flatMap(one => [...one._all_models.values()])
  .filter(one => one.type === 'Title' && one.text.includes('points')).map(one => one.text)"""


def known(window):
    titles = window.page.evaluate(TITLES)
    return max(
        (int(title.split("points")[0].split("\n")[-1].split(" of ")[0].replace(",", "")) for title in titles),
        default=-1,
    )


def test_a_plot_moves_while_a_cell_blocks_and_ends_as_an_image(lab, open_window):
    path = lab.notebook([SWEEP.format(name="moving"), "moving.plot(x='rho', y='delta')", "moving.wait()"])
    window = open_window()
    window.go(path)
    for number in (0, 1, 2):
        window.run_cell(number)
    window.wait(FIGURES, 60)
    before = known(window)
    mark = window.run_cell(3, wait=False)
    window.wait(f"() => ({TITLES})().some(one => parseInt(one.split('\\n').pop()) > {before})", 90)
    assert not window.page.evaluate("mark => window.finished[mark]", mark), "the cell still blocks the kernel"
    window.finished(mark, 90)
    window.wait(f"() => ({TITLES})().some(one => one.includes('160 points') && !one.includes(' of '))", 30)
    window.save()
    book = json.loads((lab.server.folder / path).read_text())
    outputs = book["cells"][2]["outputs"]
    assert [one["output_type"] for one in outputs] == ["display_data"], outputs
    assert "data:image/png" in "".join(outputs[0]["data"]["text/html"])
    assert len(json.dumps(book)) < 200_000


def test_a_selector_asks_the_kernel_for_another_slice(lab, open_window):
    quick = SWEEP.format(name="sliced").replace("sleep(0.1)", "sleep(0.001)")
    window = open_window()
    window.go(lab.notebook([quick, "sliced.wait()", "sliced.plot(x='rho', y='delta')"]))
    for number in (0, 1, 2, 3):
        window.run_cell(number, 90)
    window.wait(FIGURES, 60)
    window.wait(f"() => ({TITLES})().some(one => one.includes('k = 1'))", 20)
    # Keys are for the handle of the slider, as for everybody who uses no mouse.
    window.page.locator(".noUi-handle").first.focus()
    window.page.keyboard.press("ArrowRight")
    window.wait(f"() => ({TITLES})().some(one => one.includes('k = 2'))", 60)
