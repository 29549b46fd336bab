import signal

import pytest

from mce_notebook.declare.grid import Status
from mce_notebook.run.causes import Causes, exit_cause, killed, message, one_line, size, type_name


def raised(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def divide(n):
    return 1 / n


def chained():
    try:
        divide(0)
    except ZeroDivisionError as error:
        raise RuntimeError("no way on") from error


def test_equal_errors_are_formatted_once_and_told_apart_by_place_and_message():
    causes = Causes()
    first = causes.failure(raised(divide, 0))
    assert first.status == Status.FAILED
    assert first.cause == "ZeroDivisionError: division by zero"
    assert "return 1 / n" in first.traceback
    assert causes.failure(raised(divide, 0)).traceback is first.traceback
    assert causes.failure(raised(int, "x")).message != causes.failure(raised(int, "y")).message
    assert causes.failure(raised(divide, 0), where="setup", output="said").output == "said"


def test_code_that_is_made_anew_does_not_get_an_old_traceback():
    causes = Causes()
    told = set()
    for number in range(300):
        namespace = {}
        exec(compile("def f(): raise ValueError('same')", f"<made {number}>", "exec"), namespace)
        told.add(causes.failure(raised(namespace["f"])).traceback)
    assert len(told) == 300


def test_chains_and_notes_are_told():
    failure = Causes().failure(raised(chained))
    assert "ZeroDivisionError" in failure.traceback
    assert "direct cause" in failure.traceback
    error = raised(divide, 0)
    error.add_note("with n = 0")
    assert "with n = 0" in Causes().failure(error).traceback


class Mute(Exception):
    def __str__(self):
        raise KeyboardInterrupt


def test_errors_that_cannot_speak():
    failure = Causes().failure(raised(lambda: (_ for _ in ()).throw(Mute())))
    assert failure.message == "<its __str__ raised KeyboardInterrupt>"
    assert failure.type.endswith("Mute")
    assert message(ValueError("\ud800")) == "?"
    assert type_name(ValueError()) == "ValueError"


def test_enormous_messages_are_cut():
    failure = Causes().failure(ValueError("x" * 10_000_000))
    assert len(failure.message) <= 65536
    assert len(failure.traceback) < 70_000
    assert len(failure.cause) <= 300


@pytest.mark.parametrize(
    ("returncode", "cause"),
    [
        (-signal.SIGSEGV, "killed by SIGSEGV (segmentation fault)"),
        (-signal.SIGFPE, "killed by SIGFPE (floating point exception)"),
        (3, "exited with status 3 (os._exit)"),
        (0, "exited with status 0 (os._exit)"),
        (-200, "killed by signal 200"),
    ],
)
def test_ends_of_processes(returncode, cause):
    assert exit_cause(returncode) == cause


def test_a_dump_becomes_the_traceback():
    dump = 'Fatal Python error: Segmentation fault\n\n  File "<cell 1>", line 3 in f\n'
    output = f'hello\n{dump}  File "<frozen runpy>", line 8 in x\n'
    failure = killed("killed by SIGSEGV", where="point", output=output)
    assert failure.traceback == dump.rstrip()
    assert killed("timed out", where="point", output="hello").traceback == ""


def test_short_texts():
    assert one_line("\n a\nb") == "a"
    assert (size(2e9), size(3e6)) == ("2.0 GB", "3 MB")
