"""Image-text models, which become classifiers once they are told the classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from robustify.classifiers.base import ImageClassifier


class ZeroShotModel(ABC):
    """An image-text model that becomes a classifier once it is told the classes."""

    name: str

    @abstractmethod
    def classifier(self, classes: Sequence[str], templates: str | Sequence[str]) -> ImageClassifier:
        """The image tower with a head made of the classes' texts; the text tower is not needed after.

        Arguments:
            classes: At least two names.
            templates: Format strings such as `"a photo of a {}."`, or the name of a set.
        """
