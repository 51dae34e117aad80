"""Objectives, the losses that fine-tuning minimises: one file each, all with one signature."""

from robustify.finetune.objectives.base import Batch as Batch
from robustify.finetune.objectives.base import Objective as Objective
from robustify.finetune.objectives.base import Outcome as Outcome
from robustify.finetune.objectives.cat_rs import CATRS as CATRS
from robustify.finetune.objectives.consistency import Consistency as Consistency
from robustify.finetune.objectives.elr import EarlyLearning as EarlyLearning
from robustify.finetune.objectives.ft_cadis import FTCADIS as FTCADIS
from robustify.finetune.objectives.gaussian import Gaussian as Gaussian
from robustify.finetune.objectives.greedy_cutout import GreedyCutout as GreedyCutout
from robustify.finetune.objectives.macer import MACER as MACER
from robustify.finetune.objectives.smoothadv import SmoothAdv as SmoothAdv
from robustify.finetune.objectives.smoothmix import SmoothMix as SmoothMix
from robustify.finetune.objectives.stability import Stability as Stability
