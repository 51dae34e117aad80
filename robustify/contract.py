"""What a base function is: the space in which noise is added and radii live, and how the networks compute."""

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


@dataclass(frozen=True)
class Numerics:
    """How the networks compute: another precision or another compilation is another base function.

    Arguments:
        weights: Data type of the weights, such as "float32".
        precision: Data type of matrix products and convolutions, by autocast where it is lower than the weights'.
        compiled: Whether torch.compile fuses the networks.
    """

    weights: str
    precision: str = "float32"
    compiled: bool = False

    def __str__(self) -> str:
        parts = [self.weights]
        if self.precision != "float32":
            parts.append(f"{self.precision} autocast")
        return ", ".join([*parts, "compiled"] if self.compiled else parts)
