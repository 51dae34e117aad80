"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustify.errors import RunError


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file so that readers see the old content or the new, never a part, even after a power failure."""
    with _beside(file, content) as written:
        written.replace(file)


def write_once(file: Path, content: bytes) -> bool:
    """Writes a new file whole, unless there is one of that name already; says whether it was written.

    Of several processes that write the same file at once, exactly one succeeds.
    """
    with _beside(file, content) as written:
        try:
            os.link(written, file)
        except FileExistsError:
            return False
    return True


@contextmanager
def disk(folder: Path, safe: str) -> Iterator[None]:
    """Turns disk errors into a `RunError` that says what is safe and what to do.

    Arguments:
        folder: Folder that is written to.
        safe: What was not lost, as the subject of a sentence: "Rows written before".
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write to {str(folder)!r}: {error.strerror or error}.\n"
            f"  {safe} are safe; make room and run the same command again."
        ) from error


@contextmanager
def _beside(file: Path, content: bytes) -> Iterator[Path]:
    """A temporary file in the same folder that holds the content, flushed to the disk; removed in the end."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)
