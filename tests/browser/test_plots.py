"""Live plots in a real page: they come alive offline, move while a cell blocks the kernel, and leave an image."""

import json

from tests.browser.conftest import picture

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
    slow = SWEEP.format(name="moving").replace("sleep(0.1)", "sleep(0.25)")
    # Blocks until it is told to go on, so that no machine is too slow to see what happens meanwhile.
    block = "import pathlib\nwhile not pathlib.Path('seen').exists(): time.sleep(0.1)\nmoving.wait()"
    path = lab.notebook([slow, "moving.plot(x='rho', y='delta')", block])
    window = open_window()
    window.go(path)
    for number in (0, 1, 2):
        window.run_cell(number)
    window.wait(FIGURES, 60)
    before = known(window)
    mark = window.run_cell(3, wait=False)
    window.wait(f"() => ({TITLES})().some(one => parseInt(one.split('\\n').pop()) > {before})", 90)
    assert not window.page.evaluate("mark => window.finished[mark]", mark), "the cell still blocks the kernel"
    (lab.server.folder / "seen").touch()
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


SMALL = """%%sweep {name}
rows = []
for n in [1, 2, 4]:
    for k in range(4):
        rows.append((n, k, n + k / 10))"""


def title_with(words):
    return f"() => ({TITLES})().some(one => one.includes('{words}'))"


def test_an_open_plot_takes_in_what_a_sweep_is_extended_by(lab, open_window):
    line = SMALL.replace("{name}", "grown --plot rows")
    path = lab.notebook([line, "grown.wait(); grown.extend(n=[8, 16]).wait()"])
    window = open_window()
    window.go(path)
    for number in (0, 1):
        window.run_cell(number, 90)
    # The option draws below the progress, in the cell of the sweep.
    window.wait("() => document.querySelectorAll('.jp-Cell')[1].querySelectorAll('[data-root-id]').length", 60)
    window.wait(title_with("\\n12 points"), 60)
    window.run_cell(2, 90)
    window.wait(title_with("\\n20 points"), 60)
    labels = """() => (window.Bokeh?.documents ?? []).flatMap(one => [...one._all_models.values()])
      .filter(one => one.type === 'FixedTicker').map(one => one.ticks.length)"""
    assert 5 in window.page.evaluate(labels), "the axis has the new labels"


def test_plots_are_alive_in_notebook_7(lab, open_window):
    window = open_window()
    window.go(
        lab.notebook(
            [SMALL.format(name="plotted_seven"), "plotted_seven.wait()", "plotted_seven.plot(title='In Notebook 7')"]
        ),
        front="notebooks",
    )
    for number in (0, 1, 2, 3):
        window.run_cell(number, 90)
    window.wait(title_with("In Notebook 7"), 60)
    window.page.locator("[data-root-id]").last.scroll_into_view_if_needed()
    picture(window, "plot_notebook_7")


def test_plots_bring_their_script_where_our_server_extension_is_absent(lab, open_window):
    absent = "from mce_notebook.view import embedding\nembedding.served = lambda: False"
    window = open_window()
    # Were the server asked all the same, this would fail the test.
    window.page.route("**/mce_notebook/static/**", lambda route: route.abort())
    window.go(lab.notebook([absent, SMALL.format(name="inlined"), "inlined.wait()", "inlined.plot(title='Inlined')"]))
    for number in (0, 1, 2, 3, 4):
        window.run_cell(number, 90)
    window.wait(title_with("Inlined"), 60)
    window.page.locator("[data-root-id]").last.scroll_into_view_if_needed()
    picture(window, "plot_inlined")
