"""Smoothing: the only Monte Carlo, noise to votes."""

from robustify.smoothing.settings import Settings as Settings
from robustify.smoothing.smoothed import SmoothedClassifier as SmoothedClassifier
