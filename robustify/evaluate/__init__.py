"""Runs over data sets that survive interruption, what they add up to, and reports."""

from robustify.evaluate.report import Chapter as Chapter
from robustify.evaluate.report import write_report as write_report
from robustify.evaluate.run import CertificationRun as CertificationRun
from robustify.evaluate.run import certify_dataset as certify_dataset
