import pytest
from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.errors import OptionError
from mce_notebook.frontends.line import parse, tokens


def test_the_line_of_the_design():
    line = parse("mse n=[1,2] sigma=np.logspace(-2, 0, 9) --on slurm --timeout=10m --serial --dims trace=iteration")
    assert line.words == ("mse",)
    assert line.axes == {"n": "[1,2]", "sigma": "np.logspace(-2, 0, 9)"}
    assert line.values == {"on": "slurm", "timeout": "10m", "dims": "trace=iteration"}
    assert line.flags == {"serial"}
    options = line.options({})
    assert (options.on, options.timeout, options.serial) == ("slurm", 600.0, True)
    assert options.dims == (("trace", ("iteration",)),)


def test_blanks_and_quotes():
    line = parse("""s  n = [1, 2]   kind=["a b", 'c=d'] f=(x for x in "a]b") k =range(3)""")
    assert line.axes == {"n": "[1, 2]", "kind": """["a b", 'c=d']""", "f": '(x for x in "a]b")', "k": "range(3)"}
    assert parse("--store 'my folder/x' a").values == {"store": "my folder/x"}


def test_defaults_give_way():
    assert parse("--on gce x").options({"on": "slurm", "timeout": "5s"}).on == "gce"
    assert parse("x").options({"on": "slurm"}).on == "slurm"


def test_several_dims():
    line = parse("x --dims trace=iteration --dims image=row,column")
    assert dict(line.options({}).dims) == {"trace": ("iteration",), "image": ("row", "column")}


def test_axes_and_blocking():
    assert parse("x --axes n,lam").chosen_axes == ("n", "lam")
    assert parse("x").chosen_axes is None
    assert [parse(text).block for text in ("x", "x --block", "x --no-block")] == [None, True, False]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x --onn slurm", "no option --onn; did you mean --on?"),
        ("x -n 3", "no option -n"),
        ("x --timeout", "--timeout needs a value"),
        ("x --timeout --serial", "--timeout needs a value"),
        ("x --serial=yes", "--serial takes no value"),
        ("x --on a --on b", "--on is given twice: a and b"),
        ("x n=[1] n=[2]", "axis n is given twice"),
        ("x n=", "axis n has no values; write for example n=[1, 2, 3]"),
        ("x n=[1,,2]", "no Python expression"),
        ("x n=[1, 2", "The [ is never closed"),
        ("x n=1]", "a ']' too many"),
        ("x n='abc", "The ' is never closed"),
    ],
)
def test_mistakes_are_named(text, told):
    with pytest.raises(OptionError) as caught:
        parse(text)
    assert told in str(caught.value)


def test_values_that_mean_nothing():
    with pytest.raises(OptionError, match="--timeout"):
        parse("x --timeout soon").options({})


@given(st.text(max_size=60))
def test_no_line_breaks_the_parser(text):
    try:
        parse(text)
    except OptionError as error:
        assert str(error)  # noqa: PT017  any other exception fails the test


@given(st.lists(st.text(alphabet="abc[]() =,'", min_size=1, max_size=8), max_size=5))
def test_tokens_keep_every_character_but_blanks(parts):
    text = " ".join(parts)
    try:
        found = tokens(text)
    except OptionError:
        return
    assert "".join(found).replace(" ", "") == text.replace(" ", "")


def test_serial_overrides_the_order_that_is_only_a_default():
    options = parse("x --serial").options({"order": "coarse"})
    assert (options.serial, options.order) == (True, "coarse")
    with pytest.raises(OptionError, match="--serial runs points in listed order"):
        parse("x --serial --order coarse").options({})
