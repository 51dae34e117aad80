"""Random numbers of training, addressed by what they are for.

Noise and augmentation of an image depend on (seed, row, number) alone: not on the batch it is in, the process that
draws it, or how often the run was interrupted. Unlike the noise of certificates, they need not withstand an adversary.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, what: str, *address: int) -> np.random.Generator:
    """A random generator for one address, independent of those of all others."""
    text = "|".join(map(str, (seed, what, *address))).encode()
    key = int.from_bytes(blake2b(text, digest_size=16, person=b"robustify-tune").digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def normal(seed: int, rows: Sequence[int], copies: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32 of shape (copies, rows, *shape)."""
    out = np.empty((len(copies), len(rows), *shape), dtype=np.float32)
    for i, copy in enumerate(copies):
        for j, row in enumerate(rows):
            generator(seed, "noise", row, copy).standard_normal(dtype=np.float32, out=out[i, j])
    return torch.from_numpy(out)


@lru_cache(maxsize=2)
def order(seed: int, epoch: int, rows: int) -> tuple[int, ...]:
    """All rows, in the order in which an epoch visits them."""
    return tuple(generator(seed, "order", epoch).permutation(rows).tolist())
