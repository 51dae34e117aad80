"""Which modules of a classifier learn: adapters, the head, everything, or a linear probe on its features."""
