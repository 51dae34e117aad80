"""The most memory in use while something runs, on every system alike."""

from threading import Event, Thread
from typing import final

import psutil
import torch

PERIOD = 0.005
"""Seconds between two looks at the process."""


@final
class PeakMemory:
    """A context in which the memory of a device is watched; `bytes` is the most that was in use so far.

    Arguments:
        device: A GPU, whose own record is read; or a CPU, where this process is looked at again and again.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0
        self._device = device
        self._process = psutil.Process()
        self._over = Event()
        self._watcher = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        if self._device.type == "cpu":
            self._look()
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.bytes = int(torch.cuda.max_memory_allocated(self._device))
        if self._watcher.is_alive():
            self._over.set()
            self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, int(self._process.memory_info().rss))
