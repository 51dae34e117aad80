"""Shapes and units, named once.

Above classifiers and denoisers everything is pixels in [0, 1]; sigma and radius too.
"""

from typing import TypeAlias

from jaxtyping import Float, UInt8
from torch import Tensor

Pixels: TypeAlias = Float[Tensor, "batch channels height width"]
"""Clean values lie in [0, 1]; noisy ones anywhere."""

Image: TypeAlias = Float[Tensor, "channels height width"]
"""One image, in the units of `Pixels`."""

Bytes: TypeAlias = UInt8[Tensor, "channels height width"]
"""One image as it comes from a file; divided by 255 it is an `Image`."""

NetworkInput: TypeAlias = Float[Tensor, "batch network_channels network_height network_width"]
"""Normalised pixels at the network's own size."""

Levels: TypeAlias = float | Float[Tensor, " batch"]
"""Standard deviation of noise in [0, 1] pixels: one number for a whole batch, or a tensor with one for each image."""

Logits: TypeAlias = Float[Tensor, "batch classes"]
