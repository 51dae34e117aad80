"""Checks of what a certificate rests on: one fixed function, the law of the noise, independent votes."""

from robustify.smoothing.checks.run import Checks as Checks
