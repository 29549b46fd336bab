from mce_notebook.declare.grid import Status, grid
from mce_notebook.view.dataset import Snapshot
from mce_notebook.view.failures import Failures


def test_a_table_and_the_regions(lab, failure):
    lab.declare(grid(dt=[0.01, 0.1, 0.5, 1.0], solver=["euler", "rk4", "leapfrog"], n=list(range(5))))
    bad = [i for i in range(60) if i >= 30 and i // 5 % 3 == 0]
    failures = {i: failure(Status.FAILED, "ValueError: blew up", f"at {i}") for i in bad}
    lab.record([None if i in failures else 1.0 for i in range(60)], (0, 60), failures=failures)
    found = Failures(Snapshot(lab.sweep))
    assert len(found) == 10
    table = found.table
    assert list(table.columns) == ["dt", "solver", "n", "status", "cause", "type", "message", "where", "traceback"]
    assert set(table.solver) == {"euler"}
    assert table.message[0] == "at 30"
    assert [region.rule for region in found.regions] == ["dt > 0.1 and solver = euler"]
    assert "10 failures (ValueError: blew up): all dt > 0.1 and solver = euler" in repr(found)


def test_causes_have_regions_of_their_own(lab, failure):
    lab.declare(grid(a=list(range(10)), b=list(range(10))))
    failures = {i: failure(Status.FAILED, "diverged") for i in range(100) if i // 10 > 7}
    failures |= {i: failure(Status.TIMEOUT, "timeout") for i in range(80) if i % 10 < 2}
    lab.record([None if i in failures else 1.0 for i in range(100)], (0, 100), failures=failures)
    found = Failures(Snapshot(lab.sweep))
    assert {region.cause: region.rule for region in found.regions} == {"diverged": "a > 7", "timeout": "b < 2"}


def test_text_of_users_is_text(lab, failure):
    lab.declare(grid(a=["<b>x</b>", "y"]))
    lab.record([None, 1.0], (0, 2), failures={0: failure(Status.FAILED, "<i>boo</i>", "<script>")})
    shown = Failures(Snapshot(lab.sweep))._repr_html_()
    assert "<i>boo" not in shown
    assert "<script>" not in shown
    assert "<b>x" not in shown


def test_no_failures(lab):
    lab.declare(grid(a=[1, 2]))
    found = Failures(Snapshot(lab.sweep))
    assert not found
    assert repr(found) == "No failures."
    assert found.table.empty
    assert found.regions == []


def test_points_of_no_cube(lab, failure):
    lab.declare(grid(n=list(range(30)), k=list(range(30))).where("n == k"))
    listed = [31 * i for i in range(30)]
    failures = {i: failure(Status.KILLED) for i in range(20, 30)}
    lab.record([None if i in failures else 1.0 for i in range(30)], listed, failures=failures)
    found = Failures(Snapshot(lab.sweep))
    assert found.table.n.tolist() == list(range(20, 30))
    assert [region.rule for region in found.regions] == ["n > 19"]
