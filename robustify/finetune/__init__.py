"""Fine-tuning behind the noise: objectives, LoRA, and the loop that trains with them."""

from robustify.finetune.examples import Examples as Examples
from robustify.finetune.lora import Lora as Lora
from robustify.finetune.presets import PRESETS as PRESETS
from robustify.finetune.presets import find_recipe as find_recipe
from robustify.finetune.recipe import Recipe as Recipe
from robustify.finetune.trainer import Tuned as Tuned
from robustify.finetune.trainer import tune as tune
from robustify.finetune.tuned import load_tuned as load_tuned
