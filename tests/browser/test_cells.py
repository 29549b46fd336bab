"""Cells become sweeps: the button, the dialog, what Apply does; colours and completion of the line."""

from tests.browser.conftest import picture

GOOD = """losses = []
for width in [8, 16]:
    for rate in [0.1, 0.01, 0.001]:
        losses.append((width, rate, width * rate))
print(len(losses))"""
MENDABLE = """import numpy as np
generator = np.random.default_rng(1)
noise = []
for n in [10, 100]:
    for m in [1, 2]:
        noise.append((n, m, generator.normal(size=n).mean()))"""
HOPELESS = """path = [1.0]
for step in range(10):
    path.append(path[-1] / 2)"""


def ask(window, number: int, *, button: bool = False) -> str:
    """Open the dialog on a cell; returns its text."""
    window.select(number)
    if button:
        window.page.locator(
            "[data-jp-item-name='mce-sweep-cell'] jp-button, [data-jp-item-name='mce-sweep-cell'] button"
        ).first.click()
    else:
        window.start("mce:sweep-cell")
    window.page.wait_for_selector(".mce-verdict", timeout=15_000)
    return window.page.locator(".jp-Dialog").inner_text()


def answer(window, kind: str) -> None:
    window.page.locator(f".jp-Dialog button.jp-mod-{kind}").click()
    window.wait("() => !document.querySelector('.jp-Dialog')", 10)


def test_a_good_cell_becomes_a_sweep_by_the_button_of_the_toolbar_and_runs(lab, window):
    window.go(lab.notebook([GOOD], "good"))
    window.run_cell(0)
    text = ask(window, 1, button=True)
    assert "run in parallel" in text
    for word in ("width", "[8, 16]", "rate", "losses"):
        assert word in text
    picture(window, "seen_dialog_good")
    name = window.page.locator(".mce-SweepDialog .mce-name input")
    name.fill("print")
    window.page.wait_for_selector(".mce-SweepDialog [role=alert]")
    assert window.page.locator(".jp-Dialog button.jp-mod-accept").is_disabled()
    name.fill("my_losses")
    window.wait("() => !document.querySelector('.jp-Dialog button.jp-mod-accept').disabled", 10)
    answer(window, "accept")
    assert window.source(1).startswith("%%sweep my_losses\nlosses = []")
    assert "print" not in window.source(1)
    assert window.source(2).startswith("my_losses.result()")
    assert "print(len(losses))" in window.source(2)
    window.run_all()
    assert window.text(2).strip().endswith("6")
    # Undo gives the cell back as it was.
    window.select(1)
    window.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.undo()")
    assert window.source(1) == GOOD


def test_a_cell_that_is_a_sweep_already_is_explained_and_one_without_us_gets_the_line_that_loads_us(lab, window):
    window.go(lab.notebook(["%%sweep already n=[1, 2]\nn * 2", GOOD]))
    assert "already" in ask(window, 1)
    assert window.page.locator(".jp-Dialog button.jp-mod-accept").count() == 0
    answer(window, "reject")
    # The first cell loads us; without it, one is added.
    window.page.evaluate("() => window.jupyterapp.shell.currentWidget.model.sharedModel.deleteCell(0)")
    assert "%load_ext mce_notebook" in ask(window, 1)
    answer(window, "accept")
    assert window.sources()[1] == "%load_ext mce_notebook"
    assert window.sources()[2].startswith("%%sweep ")


def test_a_mendable_cell_is_shown_with_its_change(lab, window):
    window.go(lab.notebook([MENDABLE]))
    text = ask(window, 1)
    picture(window, "seen_dialog_mendable")
    assert "after one change" in text
    assert window.page.locator(".mce-diff-row.mce-mod-added").count() >= 2
    assert window.page.locator(".mce-diff-row.mce-mod-removed").count() >= 1
    answer(window, "accept")
    assert window.source(1).startswith("%%sweep ")
    assert "replicates" in window.source(1) or "rng" in window.source(1)


def test_a_hopeless_cell_is_refused_with_its_line_and_stays_as_it_is(lab, window):
    window.go(lab.notebook([HOPELESS]))
    text = ask(window, 1)
    picture(window, "seen_dialog_hopeless")
    assert "cannot be a sweep" in text
    assert "Line 3" in text
    assert window.page.locator(".jp-Dialog button.jp-mod-accept").count() == 0
    answer(window, "reject")
    assert window.source(1) == HOPELESS


def test_selected_lines_become_a_cell_of_their_own(lab, window):
    before, after = "import numpy as np\nlevels = [0.1, 0.2]\n", "\nprint('after')"
    loop = "errors = []\nfor level in levels:\n    for n in [1, 2]:\n        errors.append((level, n, level * n))"
    window.go(lab.notebook([before + loop + after]))
    window.select(1)
    window.page.evaluate(
        """([from, to]) => {
          const editor = window.jupyterapp.shell.currentWidget.content.activeCell.editor;
          editor.setSelection({ start: editor.getPositionAt(from), end: editor.getPositionAt(to) });
          window.jupyterapp.commands.execute('mce:sweep-cell');
        }""",
        [len(before), len(before + loop)],
    )
    window.page.wait_for_selector(".mce-verdict")
    answer(window, "accept")
    sources = window.sources()[1:]
    assert sources[0] == before.strip()
    assert sources[1].startswith("%%sweep errors_sweep\nerrors = []")
    assert sources[2] == after.strip()


def test_the_line_is_coloured_and_completed(lab, window):
    window.go(lab.notebook(["%%sweep coloured n=[1, 2] --order random --nonsense\nn", "%%sweep fresh --rer"]))
    words = window.page.evaluate(
        """() => [...document.querySelectorAll('.mce-word')]
          .map(one => `${one.className.split('mce-mod-')[1]}:${one.textContent}`)"""
    )
    for word in ("magic:%%sweep", "name:coloured", "axis:n", "option:--order", "unknown:--nonsense"):
        assert word in words
    window.page.evaluate(
        """() => {
          const book = window.jupyterapp.shell.currentWidget.content;
          book.activeCellIndex = 2;
          book.mode = 'edit';
          const editor = book.activeCell.editor;
          editor.focus();
          editor.setCursorPosition(editor.getPositionAt('%%sweep fresh --rer'.length));
        }"""
    )
    source = "window.jupyterapp.shell.currentWidget.model.cells.get(2).sharedModel.getSource()"
    for typed, expected in ((None, "--rerun"), (" st", "--rerun stale")):
        if typed:
            window.page.keyboard.type(typed)
        window.page.keyboard.press("Tab")
        window.page.wait_for_selector(".jp-Completer:not(.lm-mod-hidden) .jp-Completer-item", timeout=10_000)
        window.page.keyboard.press("Enter")
        window.wait(f"() => {source}.endsWith('{expected}')", 10)
