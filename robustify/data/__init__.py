"""Images with labels: samples to certify, and examples to learn from."""

from robustify.data.examples import Examples as Examples
from robustify.data.examples import training_examples as training_examples
from robustify.data.sources import Sample as Sample
from robustify.data.sources import open_samples as open_samples
