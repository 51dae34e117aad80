"""Attributes that change whenever a model computes, such as counters: to its fingerprint, it is another model then."""

import torch

from robustify.smoothing.definition import Definition
from robustify.smoothing.pipeline import Pipeline


@torch.inference_mode()
def changed_by_a_pass(pipeline: Pipeline, sigma: float, batch: int) -> list[str]:
    """A line for each attribute that one forward pass changes, with what to do; none where nothing changes.

    They are named and not left out of fingerprints: what a network does may depend on them.

    Arguments:
        pipeline: The base function, whose own attributes are looked at.
        sigma: Standard deviation of the noise, in [0, 1] pixels; 0 for the classifier alone.
        batch: Images per forward pass.
    """
    before = _attributes(pipeline)
    gray = torch.full((batch, *pipeline.contract.shape), 0.5, device=pipeline.device, dtype=torch.float32)
    _ = pipeline(gray, sigma) if sigma else pipeline.classifier(gray)
    after = _attributes(pipeline)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    lines = [f"  {name} changes whenever the model computes: {_told(before, after, name)}" for name in sorted(changed)]
    hint = "  So it is another model after each pass. Continue in a new process, or count outside of the model."
    return [*lines, hint] if lines else []


def _attributes(pipeline: Pipeline) -> dict[str, str]:
    """The text of each attribute, by its name in the pipeline."""
    definition = Definition()
    return {
        f"{layer}.{name}": text
        for layer, module in pipeline.named_modules()
        for name, text in definition.settings_of(module)
    }


def _told(before: dict[str, str], after: dict[str, str], name: str) -> str:
    """The text before and after, where both are short."""
    texts = before.get(name, "missing"), after.get(name, "missing")
    return " -> ".join(texts if max(map(len, texts)) <= 40 else ("one value", "another"))
