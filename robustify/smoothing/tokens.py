"""Vision transformers that leave out tokens of which nothing is kept, as smoothed vision transformers do.

The class token stays, and each token whose cell of the image holds a pixel that is kept; positional embeddings stay
with their tokens. All copies have equally many tokens, as many as a band touches at most: a copy with fewer keeps the
first others as well, all of whose pixels have the mean colour. So all batches have one shape, and the logits of a copy
depend on nothing but its pixels.

References:
    Certified Patch Robustness via Smoothed Vision Transformers, Salman, Jain, Wong, Madry, 2022,
    https://arxiv.org/abs/2110.07719
"""

from math import prod
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustify.certificates.bands import Bands
from robustify.classifiers import ImageClassifier
from robustify.classifiers.preprocessing import Preprocessing
from robustify.errors import ModelError
from robustify.smoothing.alone import undenoised
from robustify.smoothing.checks.probes import Answer
from robustify.smoothing.pipeline import Pipeline


@final
class DroppedTokens(nn.Module):
    """A vision transformer of timm that sees only some of its tokens.

    Arguments:
        network: The transformer, in evaluation mode.
        tokens: Number of tokens that it sees of each image, besides class and register tokens.

    Raises:
        ModelError: If the network is none of the transformers that this is made for.
    """

    def __init__(self, network: nn.Module, tokens: int) -> None:
        super().__init__()
        self.network = network
        self.tokens = tokens
        self.cell = _cell(network)
        self.eval()

    def forward(self, normalised: Tensor) -> Tensor:
        """Logits of normalised images in which pixels that are not finite are left out."""
        vit: Any = self.network
        kept = normalised.isfinite()
        cells = F.max_pool2d(kept.any(dim=1, keepdim=True).float(), self.cell).flatten(1)
        first = cells.sort(dim=1, descending=True, stable=True).indices[:, : self.tokens]
        seen = first.sort(dim=1).values + vit.num_prefix_tokens
        x = vit._pos_embed(vit.patch_embed(normalised.where(kept, 0)))
        chosen = x.gather(1, seen[:, :, None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, : vit.num_prefix_tokens], chosen], dim=1)
        logits: Tensor = vit.forward_head(vit.norm(vit.blocks(vit.norm_pre(x))))
        return logits


def dropping(pipeline: Pipeline, keep: str, band: str, stride: str) -> Answer:
    """The classifier of a pipeline without a denoiser, of whose tokens those are left out that show nothing of a band.

    Arguments:
        pipeline: Its classifier is a vision transformer of timm.
        keep, band, stride: Settings of `Bands`.

    Raises:
        InputError: If there is a denoiser, or the bands do not fit the images.
        ModelError: If the classifier cannot leave out tokens.
    """
    undenoised(pipeline)  # raises where there is a denoiser
    own, contract = pipeline.classifier, pipeline.contract
    bands = Bands(contract.height, contract.width, keep, int(band), int(stride), (0.0,))
    tall, wide = _cell(own.network)
    down = contract.height // tall if keep == "columns" else _cells(contract.height, tall, bands)
    across = contract.width // wide if keep == "rows" else _cells(contract.width, wide, bands)
    _check_own_forward(own.network, own.preprocessing, (contract.height // tall) * (contract.width // wide))
    fewer = ImageClassifier(DroppedTokens(own.network, down * across), own.preprocessing, name=own.name)
    return Pipeline(fewer, pipeline.denoiser, precision=pipeline.precision, compiled=pipeline.compiled)


def _cells(length: int, cell: int, bands: Bands) -> int:
    """The largest number of cells along an axis that a band touches, at any of its places."""
    places = range(0, length, bands.stride)
    return max(len({(start + i) % length // cell for i in range(bands.band)}) for start in places)


def _cell(network: nn.Module) -> tuple[int, int]:
    """Height and width of the part of an image that a token shows, in pixels.

    Raises:
        ModelError: If the network is no vision transformer of timm for images of one size.
    """
    from timm.models import VisionTransformer

    if not isinstance(network, VisionTransformer) or network.dynamic_img_size or network.pos_embed is None:
        raise ModelError(
            "expected a VisionTransformer of timm with positional embeddings for images of one size; got a "
            f"{type(network).__name__}, which cannot leave out tokens.\n  Use drop_tokens=False."
        )
    height, width = network.patch_embed.patch_size
    return int(height), int(width)


@torch.no_grad()
def _check_own_forward(network: nn.Module, preprocessing: Preprocessing, tokens: int) -> None:
    """Refuses a transformer with steps of its own: with all its tokens it must answer as it does itself.

    Raises:
        ModelError: If it does not.
    """
    parameter = next(network.parameters())
    shape = (2, preprocessing.channels, *preprocessing.size)
    count = prod(shape)
    images = torch.linspace(-1, 1, count, dtype=torch.float64).mul(40).sin().view(shape).to(parameter)
    own, all_tokens = network(images).float(), DroppedTokens(network, tokens)(images).float()
    if not bool(((own - all_tokens).abs() <= 0.01 * own.abs().max()).all()):
        raise ModelError(
            f"{type(network).__name__} does more than the vision transformers that this is made for: given all of its "
            "tokens, it answers something else.\n  Use drop_tokens=False."
        )
