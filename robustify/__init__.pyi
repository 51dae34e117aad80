from robustify.api import robustify as robustify
from robustify.certificates import Certificate as Certificate
from robustify.certificates import Prediction as Prediction
from robustify.classifiers import ImageClassifier as ImageClassifier
from robustify.classifiers import Preprocessing as Preprocessing
from robustify.classifiers import ResizeCrop as ResizeCrop
from robustify.classifiers import ZeroShotModel as ZeroShotModel
from robustify.data import Examples as Examples
from robustify.denoisers import Denoiser as Denoiser
from robustify.denoisers import Identity as Identity
from robustify.errors import RobustifyError as RobustifyError
from robustify.finetune import Lora as Lora
from robustify.finetune import Recipe as Recipe
from robustify.finetune import tune as tune
from robustify.finetune.objectives import Objective as Objective
from robustify.registry import CLASSIFIERS as CLASSIFIERS
from robustify.registry import DENOISERS as DENOISERS
from robustify.runs.certify import certify_dataset as certify_dataset
from robustify.smoothing import Settings as Settings
from robustify.smoothing import SmoothedClassifier as SmoothedClassifier

__version__: str
"""Version of the installed package, such as "0.2.0"."""
