"""Writing of files, whole or not at all, and what is said when a disk fails."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustify.errors import RunError


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file, or replaces it: a reader sees the old content or the new one, never a part."""
    with _beside(file, content) as complete:
        complete.replace(file)


def write_once(file: Path, content: bytes) -> bool:
    """Writes a file that does not exist yet; False, with nothing written, where it does.

    Of several processes that write the same file at once, one succeeds.
    """
    with _beside(file, content) as complete:
        try:
            os.link(complete, file)
        except FileExistsError:
            return False
    return True


@contextmanager
def _beside(file: Path, content: bytes) -> Iterator[Path]:
    """A temporary file beside the final one; all of the content is on the disk."""
    complete = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with complete.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield complete
    finally:
        complete.unlink(missing_ok=True)


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
