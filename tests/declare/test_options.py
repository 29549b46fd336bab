import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mce_notebook.declare.options import Options
from mce_notebook.errors import OptionError


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"timeout": "10m"}, "timeout", 600.0),
        ({"timeout": "1.5 h"}, "timeout", 5400.0),
        ({"timeout": "250ms"}, "timeout", 0.25),
        ({"timeout": 3}, "timeout", 3.0),
        ({"timeout": "2d"}, "timeout", 172800.0),
        ({"memory": "2GB"}, "memory", 2 * 10**9),
        ({"memory": "1.5 GiB"}, "memory", 3 * 2**29),
        ({"memory": "500m"}, "memory", 500 * 10**6),
        ({"memory": 1000}, "memory", 1000),
        ({"max_failures": "20%"}, "max_failures", 0.2),
        ({"max_failures": "10"}, "max_failures", 10),
        ({"max_failures": 0.25}, "max_failures", 0.25),
        ({"max_failures": "0"}, "max_failures", 0),
        ({"max-failures": "5"}, "max_failures", 5),
        ({"confirm_above": "10h"}, "confirm_above", 36000.0),
        ({"cores": "4"}, "cores", 4),
        ({"gpus": 0}, "gpus", 0),
        ({"seed": "42"}, "seed", 42),
        ({"block": True}, "block", True),
        ({"block": "no"}, "block", False),
        ({"order": "Random"}, "order", "random"),
        ({"rerun": "failed"}, "rerun", "failed"),
        ({"depends": "a.csv, b.csv"}, "depends", ("a.csv", "b.csv")),
        ({"depends": ["a b.csv"]}, "depends", ("a b.csv",)),
        (
            {"dims": "trace=iteration image=row,column"},
            "dims",
            (("trace", ("iteration",)), ("image", ("row", "column"))),
        ),
        ({"dims": {"trace": "iteration"}}, "dims", (("trace", ("iteration",)),)),
        ({"on": "my-cluster"}, "on", "my-cluster"),
        ({"timeout": None}, "timeout", None),
    ],
)
def test_words_become_values(given: dict, name: str, expected: object) -> None:
    found = getattr(Options.parse(**given), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timeout": "soon"}, "--timeout is a time, not 'soon'; write for example --timeout 10m"),
        ({"timeout": "10 parsecs"}, "--timeout 10m"),
        ({"timeout": "-5s"}, "not '-5s'"),
        ({"timeout": 0}, "not 0"),
        ({"timeout": float("nan")}, "not nan"),
        ({"timeout": True}, "not True"),
        ({"timeout": "9" * 400}, "--timeout is a time"),
        ({"memory": "2 apples"}, "--memory 2GB"),
        ({"memory": ""}, "--memory is an amount"),
        ({"max_failures": "120%"}, "--max-failures 20%"),
        ({"max_failures": "few"}, "--max-failures 20%"),
        ({"max_failures": 2.5}, "not 2.5"),
        ({"max_failures": "nan"}, "not 'nan'"),
        ({"max_failures": -1}, "not -1"),
        ({"cores": 0}, "whole number, 1 or more, not 0"),
        ({"cores": "two"}, "--cores 2"),
        ({"cores": 1.5}, "not 1.5"),
        ({"gpus": -1}, "0 or more"),
        ({"seed": "abc"}, "--seed 42"),
        ({"seed": float("inf")}, "--seed 42"),
        ({"order": "corse"}, "not 'corse'; write for example --order coarse"),
        ({"rerun": "everything"}, "one of failed, stale, all"),
        ({"on": "../x"}, "name of a cluster profile"),
        ({"on": "-rf"}, "name of a cluster profile"),
        ({"on": ""}, "name of a cluster profile"),
        ({"block": "maybe"}, "on or off"),
        ({"depends": ""}, "--depends data.csv"),
        ({"depends": 5}, "--depends data.csv"),
        ({"depends": "a\0b"}, "--depends data.csv"),
        ({"dims": "trace"}, "--dims trace=iteration"),
        ({"dims": "trace=1"}, "--dims trace=iteration"),
        ({"dims": 7}, "--dims trace=iteration"),
        ({"plot": " "}, "--plot is text"),
        ({"timeuot": 5}, "no option --timeuot; did you mean --timeout"),
        ({"zzz": 5}, "no option --zzz; there is --block"),
        ({"serial": True, "order": "random"}, "--serial runs points in listed order"),
    ],
)
def test_bad_words_are_refused(given: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Options.parse(**given)
    assert "\n" not in str(caught.value)


def test_every_option_comes_back_from_json() -> None:
    full = Options.parse(
        on="slurm",
        block=True,
        serial=True,
        order="listed",
        seed=1,
        timeout="1m",
        memory="1GB",
        cores=2,
        gpus=1,
        retries=0,
        max_failures="5%",
        confirm_above="1h",
        depends="a,b",
        rerun="all",
        dims="x=y",
        plot="a,b",
    )
    record = json.loads(json.dumps(full.to_json()))
    assert set(record) == {field.name for field in fields(Options)}
    assert Options.from_json(record) == full
    assert Options().to_json() == {}
    assert Options.from_json({"from a later version": 1}) == Options()


@settings(deadline=None)
@given(
    st.sampled_from([field.name for field in fields(Options)]),
    st.one_of(st.text(), st.floats(), st.integers(), st.none()),
)
def test_anything_is_understood_or_refused(name: str, value: object) -> None:
    refused = ""
    try:
        Options.parse(**{name: value})
    except OptionError as error:
        refused = str(error)
    assert not refused or "--" + name.replace("_", "-") in refused
