import os
import time

from mce_notebook.run.page import Page, Phase


def test_what_one_process_writes_outlives_it_in_the_other():
    with Page() as page:
        assert page.state().phase == Phase.IDLE
        pid = os.fork()
        if pid == 0:
            theirs = Page(page.descriptor)
            theirs.output.write(b"before ")
            theirs.enter(Phase.POINT, 17)
            theirs.output.write(b"last words")
            os._exit(9)
        os.waitpid(pid, 0)
        state = page.state()
        assert (state.phase, state.position, state.count) == (Phase.POINT, 17, 1)
        assert 0 <= time.monotonic() - state.since < 30
        assert page.output.text(state.mark) == "last words"
        assert page.output.text() == "before last words"
