"""Lines: from the host to a worker and back, past the scheduler."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from mce_notebook.errors import RunError
from mce_notebook.run import line
from mce_notebook.run.line import Answering, LineLost, Lines

Scene = Callable[[Lines], Coroutine[Any, Any, None]]


@pytest.fixture
def door() -> Iterator[Path]:
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="mce-") as folder:
        yield Path(folder) / "lines"


def play(door: Path, scene: Scene, workers: dict[str, Callable[..., Any]], loads: dict[str, int] | None = None) -> None:
    async def main() -> None:
        lines = Lines(door, lambda: loads if loads is not None else dict.fromkeys(workers, 0))
        await lines.open()
        answering = [Answering(str(door), name, work) for name, work in workers.items()]
        try:
            await lines.reached(len(workers), 10)
            await scene(lines)
        finally:
            for one in answering:
                one.close()
            await lines.close()

    asyncio.run(main())
    assert not door.exists()


def test_requests_of_every_size_come_back(door: Path) -> None:
    async def scene(lines: Lines) -> None:
        for size in (0, 1, 70_000, 20_000_000):
            assert await lines.call(None, (b"x" * size, 2)) == b"x" * size * 2
        assert lines.slots == ["one"]
        assert not lines.busy

    play(door, scene, {"one": lambda data, times: data * times})


def test_what_a_block_raises_reaches_who_asked(door: Path) -> None:
    def fail() -> None:
        raise RunError("the code is not yours")

    async def scene(lines: Lines) -> None:
        for _ in range(2):
            with pytest.raises(RunError, match="not yours"):
                await lines.call(None, ())

    play(door, scene, {"one": fail})


def test_an_answer_that_cannot_be_sent_is_an_error_and_the_line_stays(door: Path) -> None:
    async def scene(lines: Lines) -> None:
        with pytest.raises(RuntimeError, match="cannot be sent: lock"):
            await lines.call(None, (True,))
        assert await lines.call(None, (False,)) == 1

    play(door, scene, {"one": lambda bad: threading.Lock() if bad else 1})


def test_slots_work_side_by_side_and_one_block_at_a_time(door: Path) -> None:
    running: list[str] = []
    most: dict[str, int] = {"one": 0, "two": 0}

    def work(name: str) -> Callable[[], str]:
        def run() -> str:
            running.append(name)
            most[name] = max(most[name], running.count(name))
            time.sleep(0.05)
            running.remove(name)
            return name

        return run

    async def scene(lines: Lines) -> None:
        answers = await asyncio.gather(*(lines.call(None, ()) for _ in range(8)))
        assert set(answers) == {"one", "two"}
        assert most == {"one": 1, "two": 1}
        assert await asyncio.gather(*(lines.call("two", ()) for _ in range(3))) == ["two"] * 3

    play(door, scene, {"one": work("one"), "two": work("two")})


def test_without_a_line_the_scheduler_is_to_be_asked(door: Path) -> None:
    async def scene(lines: Lines) -> None:
        assert await lines.call("elsewhere", ()) is None
        loads["one"] = 1
        assert await lines.call(None, ()) is None
        loads["one"] = 0
        assert await lines.call(None, ()) == 7

    loads = {"one": 0}
    play(door, scene, {"one": lambda: 7}, loads)


def test_a_block_given_up_keeps_its_slot_until_it_ends(door: Path) -> None:
    async def scene(lines: Lines) -> None:
        call = asyncio.create_task(lines.call(None, (0.5,)))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert lines.busy == {"one"}
        # Not the answer to the one before.
        assert await lines.call(None, (0.01,)) == 0.01

    def work(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    play(door, scene, {"one": work})


def test_a_worker_that_hangs_up_loses_its_block_and_may_come_back(door: Path) -> None:
    async def main() -> None:
        lines = Lines(door, lambda: {"one": 0})
        await lines.open()
        reader, writer = await asyncio.open_unix_connection(door)
        writer.write(b"\0\0\0\3one")
        await lines.reached(1, 10)
        call = asyncio.create_task(lines.call(None, (1,)))
        await reader.readexactly(4)
        waiting = asyncio.create_task(lines.call(None, (1,)))
        writer.close()
        await writer.wait_closed()
        with pytest.raises(LineLost):
            await call
        assert await waiting is None
        assert lines.slots == []
        again = Answering(str(door), "one", lambda number: number + 1)
        async with asyncio.timeout(10):
            while (answer := await lines.call(None, (1,))) is None:
                await asyncio.sleep(0.02)
        assert answer == 2
        again.close()
        await lines.close()

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\2\xff\xfe"])
def test_who_does_not_say_its_name_is_turned_away(door: Path, said: bytes) -> None:
    async def scene(lines: Lines) -> None:
        _, writer = await asyncio.open_unix_connection(door)
        writer.write(said)
        writer.write_eof()
        await asyncio.sleep(0.1)
        writer.close()
        await writer.wait_closed()
        assert lines.slots == ["one"]
        assert await lines.call(None, ()) == 7

    play(door, scene, {"one": lambda: 7})


def test_who_waits_takes_the_slot_that_the_scheduler_gives_back(door: Path) -> None:
    over = threading.Event()

    async def scene(lines: Lines) -> None:
        long = asyncio.create_task(lines.call("one", (True,)))
        await asyncio.sleep(0.05)
        brief = asyncio.create_task(lines.call(None, (False,)))
        await asyncio.sleep(0.05)
        loads["two"] = 0
        async with asyncio.timeout(10):
            assert await brief == "two"
        assert not long.done()
        over.set()
        assert await long == "one"

    def work(name: str) -> Callable[[bool], str]:
        def run(long: bool) -> str:
            assert not long or over.wait(60)
            return name

        return run

    loads = {"one": 0, "two": 1}
    play(door, scene, {"one": work("one"), "two": work("two")}, loads)


def test_nobody_waits_for_a_line_while_a_slot_without_one_is_free(door: Path) -> None:
    over = threading.Event()

    async def scene(lines: Lines) -> None:
        first = asyncio.create_task(lines.call(None, ()))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            assert await lines.call(None, ()) is None
        over.set()
        assert await first is True

    play(door, scene, {"one": lambda: over.wait(60)}, {"one": 0, "two": 0})


def test_a_worker_of_which_the_scheduler_does_not_know_gets_nothing(door: Path) -> None:
    """One that outlived its host, or that the scheduler gave up, would compute on cores that others have."""

    async def scene(lines: Lines) -> None:
        assert lines.slots == ["one"]
        assert await lines.call(None, ()) is None
        assert await lines.call("one", ()) is None

    play(door, scene, {"one": lambda: 7}, {})


class Unreadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def test_a_request_that_cannot_be_read_is_an_error_and_the_line_stays(door: Path) -> None:
    async def scene(lines: Lines) -> None:
        with pytest.raises(ValueError, match="no number"):
            await lines.call(None, (Unreadable(),))
        assert await lines.call(None, (8,)) == 8

    play(door, scene, {"one": lambda number: number})


def test_a_worker_whose_host_hangs_up_at_once_tries_again(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []

    class Broken(Connection):
        def send_bytes(self, *arguments: Any) -> None:
            said.append(arguments[0])
            if len(said) == 1:
                raise BrokenPipeError
            super().send_bytes(*arguments)

    async def scene(lines: Lines) -> None:
        assert await lines.call(None, ()) == 7
        assert said[:2] == [b"one", b"one"]

    monkeypatch.setattr(line, "Connection", Broken)
    play(door, scene, {"one": lambda: 7})


def test_who_has_not_said_its_name_yet_is_hung_up_on(door: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        lines = Lines(door, dict)
        await lines.open()
        reader, writer = await asyncio.open_unix_connection(door)
        await asyncio.sleep(0.05)
        await lines.close()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())
    assert not caplog.records
