"""Denoisers: noisy pixels and sigma in, clean pixels out."""

from robustify.denoisers.base import Denoiser as Denoiser
from robustify.denoisers.base import Identity as Identity
