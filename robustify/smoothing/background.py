"""One thread beside the network, in which noise is drawn ahead."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, final

T = TypeVar("T")


@final
class Background:
    """A thread that starts at the first task; a process that was forked starts its own."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def submit(self, task: Callable[[], T]) -> "Future[T]":
        """Begins a task, after those before; its result raises what the task raised."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="robustify-noise")
        return self._pool.submit(task)

    def _forget(self) -> None:
        """Drops the thread of the process that this one was forked from."""
        self._pool = None


background = Background()
"""The one thread of this process."""
