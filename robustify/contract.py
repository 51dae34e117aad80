"""The space in which noise is added and radii live."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputContract:
    """The space in which noise is added and the radius lives.

    Pixels in [0, 1] of this shape, after resize and crop, before noise; what is measured is never clipped.
    """

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.channels}×{self.height}×{self.width} pixels in [0, 1], after resize and crop"
