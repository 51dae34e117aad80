"""What is said when a disk fails: room is asked for only where there is none."""

import errno
import os
from pathlib import Path

import pytest

from robustify.errors import RunError
from robustify.folders import disk, write_whole


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_full_disk_needs_room(code: int, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"\n  Rows are safe; make room and run the same command again\."):
        fail(code, tmp_path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def test_other_failures_are_named(code: int, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"{os.strerror(code)}\.\n  Rows are safe; see to that, then run the same"):
        fail(code, tmp_path)


def fail(code: int, folder: Path) -> None:
    with disk(folder, "Rows"):
        raise OSError(code, os.strerror(code))


def test_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match=r"Not a directory\.\n  Rows are safe; see to that"), disk(tmp_path, "Rows"):
        write_whole(tmp_path / "run" / "row", b"")
