"""Images with labels: (sample id, image, label) from folders, arrays and data sets."""

from robustify.data.sources import Sample as Sample
from robustify.data.sources import open_samples as open_samples
from robustify.data.training import training_examples as training_examples
