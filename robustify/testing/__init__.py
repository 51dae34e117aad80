"""Conformance checks for authors of plugins; our own sources, classifiers, denoisers and certificates pass them.

Each check returns nothing where all is well and raises `ModelError` at the first thing that is wrong, saying
what it found, what a certificate needs instead and where to look. Call them from your tests:

    check_source(CLASSIFIERS.find("mine"))
    check_classifier(CLASSIFIERS.load("mine:small"))
"""

from robustify.testing.certificates import Scenario as Scenario
from robustify.testing.certificates import check_certificate as check_certificate
from robustify.testing.classifiers import check_classifier as check_classifier
from robustify.testing.denoisers import check_denoiser as check_denoiser
from robustify.testing.sources import check_source as check_source
