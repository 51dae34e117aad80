"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustify.errors import RunError


def write_whole(file: Path, content: bytes) -> None:
    """Writes beside, flushes to the disk, then renames: a reader sees the old file or the new one."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def disk(folder: Path, safe: str) -> Iterator[None]:
    """Turns disk errors into a `RunError` that says what is safe and what to do.

    Arguments:
        folder: What is written to.
        safe: What was not lost, as the subject of a sentence: "Rows written before".
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write to {str(folder)!r}: {error.strerror or error}.\n"
            f"  {safe} are safe; make room and run the same command again."
        ) from error
