"""Image classifiers of several libraries, as one kind of function: pixels in [0, 1] to logits."""

from robustify.classifiers.base import ImageClassifier as ImageClassifier
from robustify.classifiers.preprocessing import Preprocessing as Preprocessing
from robustify.classifiers.preprocessing import ResizeCrop as ResizeCrop
from robustify.classifiers.wrap import wrap as wrap
from robustify.classifiers.zero_shot import ZeroShotModel as ZeroShotModel
