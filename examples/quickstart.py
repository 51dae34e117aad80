"""A classifier becomes a certified one, with models that are shipped: `python examples/quickstart.py`."""

from safetensors.torch import load_file

from robustify import robustify
from robustify.zoo import HELD_OUT

model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5)
print(model)

held_out = load_file(HELD_OUT)
images, labels = held_out["images"][:4], held_out["labels"][:4]
certificates = model.certify(images, n=200)
assert isinstance(certificates, list)  # a batch is answered by a list, which shows itself as a table
print(certificates)
print("true labels:", ", ".join(model.labels[label] for label in labels.tolist()))
print(certificates[0])
