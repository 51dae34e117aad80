"""Training: batches, the loop, what is measured, and the folder of a run. Importing it needs no torch."""
