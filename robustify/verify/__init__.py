"""Verification of stored runs, in arithmetic written apart from the library's bounds."""
