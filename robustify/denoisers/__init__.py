"""Denoisers: noisy pixels and their sigma to clean pixels."""

from robustify.denoisers.base import Denoiser as Denoiser
from robustify.denoisers.base import Identity as Identity
