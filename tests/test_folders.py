"""Files are written whole, survive a power cut once they are named, and need no hard links."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from robustify.errors import RunError
from robustify.folders import disk, make_folder, write_once, write_whole


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str]]]:
    """What is synced to the disk, in order: its path below the test's folder, and the names that the folder has then.

    The files are still synced.
    """
    calls: list[tuple[str, set[str]]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        names = {p.name for p in place.iterdir()} if place.is_dir() else set[str]()
        calls.append((place.relative_to(tmp_path).as_posix(), names))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return calls


@pytest.mark.parametrize("write", [write_whole, write_once])
def test_the_folder_is_synced_once_the_file_has_its_name(
    write: Callable[[Path, bytes], object], tmp_path: Path, synced: list[tuple[str, set[str]]]
) -> None:
    write(tmp_path / "file", b"content")
    (content, _), (folder, names) = synced
    assert content.startswith(".file.")
    assert folder == "."
    assert "file" in names


def test_a_folder_is_synced_into_the_one_above(tmp_path: Path, synced: list[tuple[str, set[str]]]) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert synced == [(".", {"a"}), ("a", {"b"})]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_will_do(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    assert write_once(tmp_path / "file", b"first")
    assert not write_once(tmp_path / "file", b"second")
    assert [f.read_bytes() for f in tmp_path.iterdir()] == [b"first"]


def test_a_disk_that_is_full_at_the_link_is_no_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(RunError, match="No space left"), disk(tmp_path, "Charges"):
        write_once(tmp_path / "file", b"first")
    assert not list(tmp_path.iterdir())


def test_without_hard_links_too_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "file":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_once(tmp_path / "file", b"first")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_synced_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems refuse to sync a folder; other failures are failures."""
    sync, code = os.fsync, errno.EINVAL

    def refuse(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write_whole(tmp_path / "file", b"first")
    assert (tmp_path / "file").read_bytes() == b"first"
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        write_whole(tmp_path / "file", b"second")
