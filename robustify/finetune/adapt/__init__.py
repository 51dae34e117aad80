"""Adapting a classifier: which of its modules learn, low-rank adapters, and linear probes on its features."""
