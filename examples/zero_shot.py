"""A zero-shot CLIP with guarantees, for classes of your choice: `python examples/zero_shot.py`."""

from safetensors.torch import load_file

from robustify import robustify
from robustify.zoo import HELD_OUT

model = robustify(
    "zoo:open_clip",
    classes=["shoe", "bag", "upper garment", "trousers"],
    templates=["a photo of a {}.", "a small picture of a {}."],
    denoiser="zoo:ddpm",
    sigma=0.25,
)
for image in load_file(HELD_OUT)["images"][:4]:
    print(model.certify(image, n=200))
