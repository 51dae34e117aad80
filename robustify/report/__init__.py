"""Reports of runs: one HTML page with curves, pictures and tables."""
