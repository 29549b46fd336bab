"""Requests as files: order, replies, rubbish."""

import os
import time
from pathlib import Path

import pytest

from mce_notebook.run.inbox import Inbox
from mce_notebook.run.registry import HostFolder, Launch


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(HostFolder.of(Launch(), tmp_path))


def test_requests_come_in_the_order_in_which_they_were_made(inbox: Inbox) -> None:
    names = [inbox.put({"verb": "run", "number": number}) for number in range(50)]
    assert [request.name for request in inbox.requests()] == names
    assert [request.body["number"] for request in inbox.requests()] == list(range(50))


def test_a_request_stays_until_it_is_answered(inbox: Inbox) -> None:
    name = inbox.put({"verb": "run", "store": "/tmp/ü", "name": "größe"})
    (request,) = inbox.requests()
    assert request.verb == "run"
    assert inbox.reply(name) is None
    inbox.answer(request, {"ok": True})
    assert list(inbox.requests()) == []
    assert inbox.reply(name) == {"ok": True}
    assert inbox.reply(name) is None


def test_what_is_no_request_is_removed_and_what_is_being_written_is_left(inbox: Inbox) -> None:
    folder = inbox.folder.inbox
    (folder / "0-torn.json").write_text('{"verb": ')
    (folder / "0-list.json").write_text("[1]")
    (folder / "0-binary.json").write_bytes(b"\xff\xfe")
    (folder / ".half.json.123").write_text("{")
    good = inbox.put({"verb": "run"})
    assert [request.name for request in inbox.requests()] == [good]
    assert sorted(path.name for path in folder.iterdir()) == [".half.json.123", f"{good}.json"]


def test_a_request_without_a_verb_has_none(inbox: Inbox) -> None:
    inbox.put({"verb": 3})
    inbox.put({})
    assert [request.verb for request in inbox.requests()] == ["3", ""]


def test_replies_nobody_fetched_are_forgotten(inbox: Inbox) -> None:
    names = [inbox.put({"verb": "run"}) for _ in range(2)]
    for request in inbox.requests():
        inbox.answer(request, {"ok": True})
    old = inbox.folder.replies / f"{names[0]}.json"
    os.utime(old, (time.time() - 3600,) * 2)
    inbox.forget_replies()
    assert inbox.reply(names[0]) is None
    assert inbox.reply(names[1]) == {"ok": True}
