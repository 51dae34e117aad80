"""Tuned classifiers on disk: adapters as peft reads them, weights trained in full, and what they belong to."""
