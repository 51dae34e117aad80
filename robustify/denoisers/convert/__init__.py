"""Conversion of released denoiser checkpoints to diffusers folders."""

from robustify.denoisers.convert.checkpoints import convert as convert
