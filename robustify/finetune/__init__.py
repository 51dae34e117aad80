"""Fine-tuning behind the noise: objectives, LoRA, and the loop that trains with them."""

from robustify.finetune.adapt.lora import Lora as Lora
from robustify.finetune.adapt.tuned import load_tuned as load_tuned
from robustify.finetune.presets import PRESETS as PRESETS
from robustify.finetune.presets import find_recipe as find_recipe
from robustify.finetune.recipe import Recipe as Recipe
from robustify.finetune.tune import Tuned as Tuned
from robustify.finetune.tune import tune as tune
