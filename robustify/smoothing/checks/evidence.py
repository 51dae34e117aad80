"""What is known of the noise that a run feeds: the interface of its checks."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from robustify.types import Pixels


@runtime_checkable
class Evidence(Protocol):
    """Statistics of what is fed in one run, in fixed memory."""

    sampled: int
    """Number of values that statistics were taken of."""

    def add(self, noisy: Pixels, clean: Tensor) -> None:
        """Takes consecutive draws, shape (B, C, H, W), and the image of each, of the same shape."""

    def verify(self) -> None:
        """Raises `ModelError` where what was fed is not what the law says."""
