"""Writing of files, whole or not at all, and what is said when a disk fails.

What was written is on the disk when a function returns: the content, and the name in its folder. Folders are synced
too, since a power cut may otherwise undo a rename of a file whose content is safe.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from robustify.errors import RunError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
"""Errors of file systems that have no hard links, such as FAT and some network mounts."""

_NO_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
"""Errors of file systems on which a folder cannot be synced."""


def make_folder(folder: Path) -> None:
    """Makes a folder, with those above it, where it is missing."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file, or replaces it: a reader sees the old content or the new one, never a part."""
    with _beside(file, content) as complete:
        complete.replace(file)
        _sync(file.parent)


def write_once(file: Path, content: bytes) -> bool:
    """Writes a file that does not exist yet; False, with nothing written, where it does.

    Of several processes that write the same file at once, one succeeds. On a file system without hard links a reader
    may meet the file while it is being written, and a power cut may leave a part of it.
    """
    with _beside(file, content) as complete:
        try:
            os.link(complete, file)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create(file, content)
        _sync(file.parent)
    return True


def _create(file: Path, content: bytes) -> bool:
    """Writes a new file in its place, or removes it again where the disk fails; False where there is one."""
    try:
        stream = file.open("xb")
    except FileExistsError:
        return False
    try:
        with stream:
            _fill(stream, content)
    except OSError:
        file.unlink()
        raise
    _sync(file.parent)
    return True


@contextmanager
def _beside(file: Path, content: bytes) -> Iterator[Path]:
    """A temporary file beside the final one; all of the content is on the disk."""
    complete = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with complete.open("wb") as stream:
            _fill(stream, content)
        yield complete
    finally:
        complete.unlink(missing_ok=True)


def _fill(stream: BinaryIO, content: bytes) -> None:
    """Writes the content to the disk."""
    stream.write(content)
    stream.flush()
    os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Writes the names in a folder to the disk, where its file system can."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def disk(folder: Path, safe: str) -> Iterator[None]:
    """Turns disk errors into a `RunError` that says what is safe and what to do.

    Arguments:
        folder: The folder that is written to.
        safe: What is not lost, as the subject of a sentence: "Rows written before".
    """
    try:
        yield
    except OSError as error:
        remedy = "make room and" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to that, then"
        raise RunError(
            f"cannot write to {str(folder)!r}: {error.strerror or error}.\n"
            f"  {safe} are safe; {remedy} run the same command again."
        ) from error
