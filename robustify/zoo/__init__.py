"""Small models trained on Fashion-MNIST, with the images that the demo certifies.

Every folder loads with its own library; `zoo:timm`, `zoo:transformers`, `zoo:open_clip` and the denoiser `zoo:ddpm`
are short names for them. `record.json` says how they were trained and what they reach.
"""

from pathlib import Path

FOLDER = Path(__file__).parent

HELD_OUT = FOLDER / "held_out.safetensors"
"""Every 20th image of the test split: `images`, uint8 (500, 1, 32, 32), and `labels`, int64 (500)."""
