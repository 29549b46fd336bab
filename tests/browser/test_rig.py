"""The rig itself: what goes wrong in a page is noticed."""

from tests.browser.conftest import BASE


def test_a_cell_runs(lab, window):
    window.go(lab.notebook(["print(6 * 7)"]))
    window.run_all()
    assert window.text(1).strip() == "42"
    assert all(f"{BASE.split('@')[0]}" in url for url in window.requests if url.startswith(("http:", "ws:")))


def test_errors_and_foreign_requests_are_collected(lab, window):
    window.go(lab.notebook([]))
    window.page.evaluate("() => { console.error('broken'); fetch('http://example.org/x').catch(() => {}); }")
    window.wait("() => true")
    window.page.wait_for_timeout(300)
    found = " ".join(window.problems)
    assert "broken" in found
    assert "http://example.org/x" in found
    window.problems.clear()
