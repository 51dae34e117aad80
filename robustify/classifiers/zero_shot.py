"""Image-text models, which become classifiers once they are told the classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from robustify.classifiers.base import ImageClassifier


class ZeroShotModel(ABC):
    """An image-text model that becomes a classifier once it is told the classes."""

    name: str
    """Name of the model in certificates and reports."""

    @abstractmethod
    def classifier(self, classes: Sequence[str], templates: str | Sequence[str]) -> ImageClassifier:
        """The image tower with a head made from the classes' texts; the text tower is not needed afterwards.

        Arguments:
            classes: Names of the classes, at least two.
            templates: Format strings such as `"a photo of a {}."`, or the name of a set.
        """
