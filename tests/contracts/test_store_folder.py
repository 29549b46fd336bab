"""What every place that keeps a catalogue must do, whatever it is made of."""

import errno
import os
import threading
from pathlib import Path

import pytest

from mce_notebook.errors import AlreadyExists, StoreError, StoreFull
from mce_notebook.store.folder import Folder, LocalFolder


class FolderContract:
    """Subclasses give `folder`."""

    @pytest.fixture
    def folder(self) -> Folder:
        raise AssertionError("a subclass gives the folder under test")

    def test_what_is_created_is_read(self, folder: Folder, tmp_path: Path) -> None:
        folder.create(tmp_path / "a" / "b.json", b"\x00data")
        assert folder.read(tmp_path / "a" / "b.json") == b"\x00data"
        assert folder.exists(tmp_path / "a" / "b.json")
        assert folder.names(tmp_path / "a") == ["b.json"]

    def test_what_is_not_there(self, folder: Folder, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            folder.read(tmp_path / "none")
        assert folder.names(tmp_path / "none") == []
        assert not folder.exists(tmp_path / "none")
        folder.remove(tmp_path / "none")

    def test_creating_twice_keeps_the_first(self, folder: Folder, tmp_path: Path) -> None:
        folder.create(tmp_path / "a", b"1")
        with pytest.raises(AlreadyExists):
            folder.create(tmp_path / "a", b"2")
        assert folder.read(tmp_path / "a") == b"1"
        assert folder.names(tmp_path) == ["a"]

    def test_one_of_many_creators_wins(self, folder: Folder, tmp_path: Path) -> None:
        won: list[int] = []

        def create(number: int) -> None:
            try:
                folder.create(tmp_path / "claim", b"%d" % number)
            except AlreadyExists:
                return
            won.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert folder.read(tmp_path / "claim") == b"%d" % won[0]

    def test_replacing_shows_one_or_the_other(self, folder: Folder, tmp_path: Path) -> None:
        path = tmp_path / "beat"
        folder.replace(path, b"a" * 5000)
        seen = set()
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                seen.add(folder.read(path))

        reader = threading.Thread(target=look)
        reader.start()
        for number in range(200):
            folder.replace(path, (b"b" if number % 2 else b"a") * 5000, durable=False)
        ended.set()
        reader.join()
        assert seen <= {b"a" * 5000, b"b" * 5000}
        assert folder.names(tmp_path) == ["beat"]

    def test_folders_appear_whole(self, folder: Folder, tmp_path: Path) -> None:
        folder.create_folder(tmp_path / "code" / "v1", {"a": b"1", "deep/b": b"2"})
        assert folder.read(tmp_path / "code" / "v1" / "deep" / "b") == b"2"
        with pytest.raises(AlreadyExists):
            folder.create_folder(tmp_path / "code" / "v1", {"a": b"3"})
        assert folder.read(tmp_path / "code" / "v1" / "a") == b"1"
        assert folder.names(tmp_path / "code") == ["v1"]

    def test_moving_needs_a_free_name(self, folder: Folder, tmp_path: Path) -> None:
        folder.create_folder(tmp_path / "a", {"x": b"1"})
        folder.create_folder(tmp_path / "b", {"x": b"2"})
        with pytest.raises(AlreadyExists):
            folder.move(tmp_path / "a", tmp_path / "b")
        folder.move(tmp_path / "a", tmp_path / "new" / "c")
        assert folder.read(tmp_path / "new" / "c" / "x") == b"1"
        assert not folder.exists(tmp_path / "a")

    def test_removing_takes_all_of_it(self, folder: Folder, tmp_path: Path) -> None:
        folder.create_folder(tmp_path / "a", {"x": b"1", "y/z": b"2"})
        folder.create(tmp_path / "b", b"3")
        folder.remove(tmp_path / "a")
        folder.remove(tmp_path / "b")
        assert folder.names(tmp_path) == []


class TestLocalFolder(FolderContract):
    @pytest.fixture
    def folder(self) -> Folder:
        return LocalFolder()

    def test_links_are_removed_not_followed(self, folder: Folder, tmp_path: Path) -> None:
        folder.create(tmp_path / "kept" / "x", b"1")
        (tmp_path / "link").symlink_to(tmp_path / "kept")
        folder.remove(tmp_path / "link")
        assert folder.read(tmp_path / "kept" / "x") == b"1"

    @pytest.mark.parametrize("call", ["writev", "fdatasync", "link"])
    def test_a_full_disk_leaves_nothing(
        self, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(StoreFull):
                folder.create(tmp_path / "a", b"1")
        assert list(tmp_path.iterdir()) == []
        folder.create(tmp_path / "a", b"1")

    def test_other_errors_say_what_was_being_done(self, folder: Folder, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreError, match=r"Failed while writing .*file"):
            folder.create(tmp_path / "file" / "a", b"1")


class TestLocalFolderWithoutHardLinks(FolderContract):
    @pytest.fixture
    def folder(self, monkeypatch: pytest.MonkeyPatch) -> Folder:
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        return LocalFolder()
