"""Adapters: which modules learn, how, and how what they learned is saved."""
