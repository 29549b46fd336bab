import pytest

from mce_notebook.view.causes import grouped, names, pattern


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("ValueError: diverged at step 12", "ValueError: diverged at step …"),
        ("loss = -3.5e-07 after 5s", "loss = … after …s"),
        ("shapes (3,4) and (5,)", "shapes (…,…) and (…,)"),
        ("<object at 0x7f00aB>", "<object at …>"),
        ("KeyError: 'x1'", "KeyError: 'x1'"),
        ("utf8 v2.1 sha1", "utf8 v2.1 sha1"),
        ("شكل ١٢", "شكل …"),
        ("", ""),
    ],
)
def test_numbers_are_left_out_names_are_not(cause, expected):
    assert pattern(cause) == expected
    assert pattern(expected) == expected


def test_one_of_its_kind_keeps_its_number():
    assert names({"exited with status 3": 7, "step 1": 2, "step 2": 1}) == {
        "exited with status 3": "exited with status 3",
        "step 1": "step …",
        "step 2": "step …",
    }


def test_groups_are_counted_together_the_most_frequent_first():
    assert list(grouped({"a": 3, "step 1": 2, "step 2": 2}).items()) == [("step …", 4), ("a", 3)]
    assert grouped({}) == {}


def test_many_causes_take_no_time():
    assert grouped({f"{'9' * 300} x{n} {n}": 1 for n in range(20_000)})
