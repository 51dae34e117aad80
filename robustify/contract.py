"""Two parts of what defines a base function: the space of its inputs, and how its networks compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputContract:
    """The space in which noise is added and radii are measured: pixels in [0, 1], after resize and crop.

    Noisy pixels are never clipped.

    Arguments:
        channels: Number of channels, 1 or 3.
        height: Height in pixels.
        width: Width in pixels.
    """

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.channels}×{self.height}×{self.width} pixels in [0, 1] after resize and crop"


@dataclass(frozen=True)
class Numerics:
    """How the networks compute: another precision or another compilation is another base function.

    Arguments:
        weights: Data type of the weights, such as "float32".
        precision: Data type of matrix products and convolutions, by autocast where it is lower than the weights'.
        compiled: Whether torch.compile fuses the networks.
        products: Coarsest products of float32 numbers that torch is set to allow: "ieee", "tf32" or "bf16".
    """

    weights: str
    precision: str = "float32"
    compiled: bool = False
    products: str = "ieee"

    def __str__(self) -> str:
        parts = [self.weights]
        if self.precision != "float32":
            parts.append(f"{self.precision} autocast")
        if self.products != "ieee":
            parts.append(f"{self.products} products")
        return ", ".join([*parts, "compiled"] if self.compiled else parts)
