"""Runs over data sets that survive interruption, and what they add up to."""

from robustify.evaluate.run import CertificationRun as CertificationRun
from robustify.evaluate.run import certify_dataset as certify_dataset
