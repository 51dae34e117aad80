"""Fine-tuning behind the noise: objectives, LoRA, and the loop that trains with them.

Names load on first use, so that the progress of a run can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustify.finetune.adapt.lora import Lora as Lora
    from robustify.finetune.changes import changed as changed
    from robustify.finetune.defaults import find_recipe as find_recipe
    from robustify.finetune.presets import PRESETS as PRESETS
    from robustify.finetune.recipe import Recipe as Recipe
    from robustify.finetune.saved.tuned import load_tuned as load_tuned
    from robustify.finetune.saved.tuned import tuned_for as tuned_for
    from robustify.finetune.tuning import Tuned as Tuned
    from robustify.finetune.tuning import tune as tune

_HOMES = {
    "Lora": "adapt.lora",
    "PRESETS": "presets",
    "Recipe": "recipe",
    "Tuned": "tuning",
    "changed": "changes",
    "find_recipe": "defaults",
    "load_tuned": "saved.tuned",
    "tune": "tuning",
    "tuned_for": "saved.tuned",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'robustify.finetune' has no attribute {name!r}")
    return getattr(import_module(f"robustify.finetune.{_HOMES[name]}"), name)
