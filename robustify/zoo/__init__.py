"""Small models trained on Fashion-MNIST, with the images that the demo certifies.

Their references are `zoo:timm`, `zoo:transformers`, `zoo:open_clip` and, for the denoiser, `zoo:ddpm`; each folder also
loads with its own library. `record.json` says how the models were trained and how accurate they are.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Folder of the models, one folder each."""

HELD_OUT = FOLDER / "held_out.safetensors"
"""Every 20th image of the test split: `images`, uint8 (500, 1, 32, 32), and `labels`, int64 (500)."""
