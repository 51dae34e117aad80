"""Certification runs over data sets: folders of rows that survive interruption, and what they add up to."""
