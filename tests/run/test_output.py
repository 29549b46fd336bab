# ruff: noqa: T201 - printing is what is tested
import os
import sys

from hypothesis import given
from hypothesis import strategies as st

from mce_notebook.run.output import RING, Ring, captured, fold


@given(st.lists(st.binary(max_size=40)), st.integers(1, 64))
def test_a_ring_keeps_the_last_bytes(pieces, size):
    ring = Ring(bytearray(Ring.HEAD + size))
    for piece in pieces:
        ring.write(piece)
    everything = b"".join(pieces)
    assert ring.written == len(everything)
    text = ring.text()
    if len(everything) > size:
        first, _, text = text.partition("\n")
        assert first == f"... {len(everything) - size:,} bytes before this are not kept ..."
    assert text == fold(everything[-size:].decode("utf-8", "replace"))


@given(st.lists(st.binary(max_size=40)), st.lists(st.binary(max_size=5), max_size=3))
def test_a_mark_leaves_out_what_came_before(before, after):
    ring = Ring(bytearray(Ring.HEAD + 32))
    for piece in before:
        ring.write(piece)
    mark = ring.written
    for piece in after:
        ring.write(piece)
    assert ring.text(mark) == fold(b"".join(after).decode("utf-8", "replace"))


def test_runs_of_equal_lines_are_folded():
    assert fold("a\n" * 1000 + "b\nb\n") == "a\n... the line above, 999 times more ...\nb\nb\n"
    assert fold("a\n" * 3 + "a") == "a\n... the line above, 2 times more ...\na"


def test_prints_reach_the_ring_and_the_streams_come_back():
    ring = Ring()
    before = sys.stdout, sys.stderr
    with captured(ring):
        print("half a character: \ud800")
        print("warned", file=sys.stderr)
        sys.stdout.buffer.write(b"raw\n")
        sys.stdout.close()
        print("still here", sys.stdout.fileno(), sys.stdout.isatty())
    assert (sys.stdout, sys.stderr) == before
    assert ring.text() == "half a character: ?\nwarned\nraw\nstill here 1 False\n"


def test_a_gigabyte_in_one_print_is_only_counted():
    ring = Ring()
    with captured(ring):
        print("x" * 10**8 + "end", end="")
    assert ring.written == 10**8 + 3
    assert ring.text().endswith("xend")
    assert len(ring.text()) < RING + 100


def test_a_forked_child_writes_to_the_descriptor(capfd):
    ring = Ring()
    with captured(ring):
        pid = os.fork()
        if pid == 0:
            print("from the child")
            os._exit(0)
        os.waitpid(pid, 0)
    assert ring.text() == ""
    assert capfd.readouterr().out == "from the child\n"
