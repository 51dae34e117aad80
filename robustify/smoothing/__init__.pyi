from robustify.smoothing.pipeline import Pipeline as Pipeline
from robustify.smoothing.settings import Settings as Settings
from robustify.smoothing.smoothed import SmoothedClassifier as SmoothedClassifier
